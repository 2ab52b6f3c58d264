/**
 * UDP checksums of outer headers as they are received, of loopback addresses: datagrams with a right one, a wrong one and none,
 * by a raw socket, since the kernel would write another one. What is taken is what devices deliver.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ipNativeBytes } from '../src/ip.js';
import { AF_INET, AF_INET6, IPPROTO_UDP, SOCK_CLOEXEC, SOCK_RAW } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { until } from './harness/hosts.js';
import { withMemory } from './harness/lifecycle.js';
import { freePort, type MemoryOverlay } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import * as frames from './reference/frames.js';
import * as geneve from './reference/geneve.js';
import * as vxlan from './reference/vxlan.js';

const checksums = suite('UDP checksums received');
const vnetids = { ov0: 42, ov1: 43 };
const LOOPBACK = { 4: '127.0.0.1', 6: '::1' } as const;
const twins = { vxlan, geneve };
const CHECKSUM = 6;

type Checksum = 'right' | 'wrong' | 'none';

interface Sender {
  /** Sends a frame of its own; its last byte is `number`. */
  readonly send: (checksum: Checksum, number: number) => void;
  /** Numbers of the frames that were delivered. */
  readonly delivered: () => number[];
}

/** A device that takes datagrams of its own address, and who sends them. */
async function withSender(
  family: 4 | 6,
  encap: 'vxlan' | 'geneve',
  memory: MemoryOverlay,
  name: keyof typeof vnetids,
  properties: Readonly<Record<string, string>>,
): Promise<Sender> {
  const ip = LOOPBACK[family];
  const port = await freePort(ip);
  const { overlay, links } = memory;
  await overlay.createOverlay({
    name,
    encap,
    search: 'direct',
    vnetid: vnetids[name],
    properties: {
      [`${encap}/listen_ip`]: ip,
      [`${encap}/listen_port`]: port,
      'direct/dest_ip': ip,
      'direct/dest_port': port,
      ...properties,
    },
  });
  await memory.up(name);
  const numbers: number[] = [];
  return {
    send: (checksum, number) => {
      const frame = frames.ethernet(0x88b5, Uint8Array.of(1, 2, 3, number));
      const payload = twins[encap].encap(vnetids[name], frame);
      const address = ipNativeBytes(ip);
      const ends = { source: address, destination: address };
      const datagram = frames.udp({ ends, sourcePort: 50_000, destinationPort: port, payload });
      if (checksum === 'wrong') datagram[CHECKSUM]! ^= 1;
      if (checksum === 'none') datagram.fill(0, CHECKSUM, CHECKSUM + 2);
      const domain = family === 4 ? AF_INET : AF_INET6;
      const fd = must(libc.socket(domain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP), 'socket');
      try {
        const to = sockaddr(domain, ip, 0);
        must(libc.sendto(fd, datagram, datagram.length, 0, to, to.length), 'sendto');
      } finally {
        closeFd(fd);
      }
    },
    delivered: () => {
      const frame = links.get(name).port.receive();
      if (frame) numbers.push(frame.at(-1)!);
      return numbers;
    },
  };
}

/** Sends one of each kind and then a right one, and gives the kinds that were delivered. */
async function taken(sender: Sender): Promise<Checksum[]> {
  const kinds: readonly Checksum[] = ['none', 'wrong', 'right'];
  const before = sender.delivered().length;
  const since = () => sender.delivered().slice(before);
  for (const [number, kind] of kinds.entries()) sender.send(kind, number);
  await until('the last one is delivered', 3000, () => since().at(-1) === kinds.length - 1);
  return since().map((number) => kinds[number]!);
}

for (const encap of ['vxlan', 'geneve'] as const) {
  testWith(checksums, ['root'], `${encap} over IPv4: none or a right one, and no wrong one`, () =>
    withMemory(async (memory) => {
      const sender = await withSender(4, encap, memory, 'ov0', {});
      assert.equal(await taken(sender), ['none', 'right']);
    }),
  );

  testWith(
    checksums,
    ['root'],
    `${encap} over IPv6: a right one by default, none on the port where it is turned on, and no wrong one`,
    () =>
      withMemory(async (memory) => {
        const strict = await withSender(6, encap, memory, 'ov0', {});
        const lenient = await withSender(6, encap, memory, 'ov1', { [`${encap}/zerocsum6_rx`]: 'on' });
        assert.equal(await taken(strict), ['right']);
        assert.equal(await taken(lenient), ['none', 'right']);
        await memory.overlay.setprop('ov1', `${encap}/zerocsum6_rx`, 'off');
        assert.equal(await taken(lenient), ['right'], 'turned off again');
      }),
  );
}

testWith(checksums, ['root'], 'over IPv6 without a checksum: of the VTEPs that are known alone', () =>
  withMemory(async (memory) => {
    const properties = { 'geneve/zerocsum6_rx': 'on', 'direct/dest_ip': '2001:db8::2' };
    const sender = await withSender(6, 'geneve', memory, 'ov0', properties);
    const { overlay } = memory;
    const unknown = () => overlay.deviceStats('ov0').counts.drops.rx_source_unknown;
    sender.send('none', 0);
    await until('it is dropped', 3000, () => unknown() === 1n);
    assert.equal(sender.delivered(), []);
    await overlay.setprop('ov0', 'direct/dest_ip', '::1');
    sender.send('none', 1);
    await until('it is delivered', 3000, () => sender.delivered().length === 1);
    assert.is(unknown(), 1n);
  }),
);

checksums.run();
