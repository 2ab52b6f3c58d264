/** Errors that a send reports and that are another datagram's (man 7 ip, IP_RECVERR): they cost a retry, and no frame. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { OverlayView } from '../src/control/view.js';
import { dropNames } from '../src/datapath/drop.js';
import { ipNativeBytes } from '../src/ip.js';
import { AF_INET, AF_INET6, SOCK_RAW } from '../src/sys/abi.js';
import * as errno from '../src/sys/errno.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { inNamespace } from '../src/sys/netns.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { transmit } from '../workers/tx.js';
import { CoreRig, workerOf } from './harness/core-rig.js';
import { Hosts, underlay, until } from './harness/hosts.js';
import { iperf } from './harness/iperf.js';
import { testWith } from './harness/needs.js';
import { RefusingKernel } from './harness/refusing-kernel.js';
import { numberedFrame, WorkerRig } from './harness/worker-rig.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';

const sendErrors = suite('send errors');

/** An underlay that reports what a test has lined up before each send, and then sends. */
class StaleKernel extends RefusingKernel {
  link: Uint8Array[] = [];
  /** errno of each of the next calls, 0 for one that succeeds. */
  pending: number[] = [];
  sent = 0;
  calls = 0;
  #failure = 0;

  constructor(readonly rig: CoreRig) {
    super();
  }

  override read(_fd: number, address: number): number {
    const frame = this.link.shift();
    if (!frame) return -1;
    const at = address - this.rig.views.base;
    this.rig.views.u8.fill(0, at, at + layout.VNET_HDR_BYTES);
    this.rig.views.u8.set(frame, at + layout.VNET_HDR_BYTES);
    return layout.VNET_HDR_BYTES + frame.length;
  }

  override sendmmsg(_fd: number, _messages: number, count: number): number {
    this.calls++;
    this.#failure = this.pending.shift() ?? 0;
    if (this.#failure !== 0) return -1;
    this.sent += count;
    return count;
  }

  override errno(): number {
    return this.#failure;
  }
}

const frame = frames.ethernet(
  frames.ETHERTYPE_IPV4,
  frames.ipv4({ protocol: 17, payload: frames.udp({ ends: frames.ENDS_4 }) }),
);

function start(): { rig: CoreRig; kernel: StaleKernel; device: number; send(count: number): void } {
  const rig = new CoreRig({ bank: 1 });
  const device = rig.addDevice({ vnetid: 1 });
  const kernel = new StaleKernel(rig);
  const worker = workerOf(rig, kernel);
  const send = (count: number) => {
    kernel.link = Array.from({ length: count }, () => frame);
    transmit(worker, device);
  };
  return { rig, kernel, device, send };
}

const dropped = (rig: CoreRig, device: number) =>
  dropNames.flatMap((name, reason) => {
    const count = rig.deviceCount(device, reason);
    return count > 0 ? [[name, count]] : [];
  });

const {
  ECONNREFUSED,
  EHOSTUNREACH,
  ENETUNREACH,
  EMSGSIZE,
  EHOSTDOWN,
  ENONET,
  EPROTO,
  ENOPROTOOPT,
  EOPNOTSUPP,
} = errno;
const stale = [
  ECONNREFUSED,
  EHOSTUNREACH,
  ENETUNREACH,
  EMSGSIZE,
  EHOSTDOWN,
  ENONET,
  EPROTO,
  ENOPROTOOPT,
  EOPNOTSUPP,
  errno.EACCES,
];

sendErrors('each that ICMP can leave behind: once, and several times before one send', () => {
  for (const failure of stale) {
    for (const times of [1, 2, 4]) {
      const { rig, kernel, device, send } = start();
      kernel.pending = new Array<number>(times).fill(failure);
      send(8);
      const what = `${errno.errnoName(failure)} ${times} times`;
      assert.equal(dropped(rig, device), [], what);
      assert.equal(
        [kernel.sent, kernel.calls, rig.deviceCount(device, layout.COUNTER_TX_RETRIES)],
        [8, 1 + times, times],
        what,
      );
    }
  }
});

/** What becomes of one destination's frames, when the kernel says so of each of them. */
const lasting = new Map([
  [EHOSTUNREACH, 'tx_unreachable'],
  [ENETUNREACH, 'tx_unreachable'],
  [errno.EAGAIN, 'tx_underlay_full'],
  [errno.ENOBUFS, 'tx_underlay_full'],
  [errno.EPERM, 'tx_not_permitted'],
  [errno.EACCES, 'tx_not_permitted'],
  [EMSGSIZE, 'tx_underlay_mtu'],
  [ECONNREFUSED, 'tx_underlay_error'],
]);
/** Linux says these of a message after it has said what others have left behind; the rest, which routes decide, before. */
const lateFailures: readonly number[] = [errno.EAGAIN, errno.ENOBUFS, errno.EPERM];
const STALE_MAX = 4;
const TARGETS = layout.BATCH_MAX;
const MAC = 0x020820000000;
const ROUNDS = 20;

/** A worker with one send socket, and a target behind each of as many destinations as there are frames in a batch. */
function startMany(): { rig: WorkerRig; rows: readonly number[] } {
  const rig = new WorkerRig({ workers: 1 });
  const table = rig.createTable(2 * TARGETS);
  const rows = Array.from({ length: TARGETS }, (_, target) => {
    const name = sockaddr(AF_INET6, `fd00::1:${target.toString(16)}`, 4789);
    const row = rig.destinations.hold('', name, new Uint8Array(8));
    table.insert(MAC + target, layout.TARGET_VALID, row, 0);
    return row;
  });
  return { rig, rows };
}

sendErrors('one that does not go away is of one destination of 64, and costs its frames alone', () => {
  const random = new Xorshift(0x5eed);
  for (const [failure, name] of lasting) {
    for (const place of [0, 5, 31, TARGETS - 1]) {
      const what = `${errno.errnoName(failure)} of message ${place}`;
      const { rig, rows } = startMany();
      const worker = rig.workers[0]!;
      let pending: number[] = [];
      let others = 0;
      worker.kernel.failureOf = ({ row }) => {
        const own = row === rows[place] ? failure : 0;
        if (own !== 0 && !lateFailures.includes(own)) return own;
        const left = pending.shift();
        if (left !== undefined) {
          others++;
          return left;
        }
        if (random.below(8) === 0) {
          pending = Array.from(
            { length: 1 + random.below(STALE_MAX) },
            () => stale[random.below(stale.length)]!,
          );
        }
        return own;
      };
      let lost = 0;
      const next = new Map<number, number>();
      const expected = new Map<number, number>();
      for (let round = 0; round < ROUNDS; round++) {
        // One frame for each; then also several for one.
        const targets = Array.from({ length: TARGETS }, (_, i) => (round % 2 ? random.below(TARGETS) : i));
        const numbers = targets.map((target) => {
          if (target === place) lost++;
          const sequence = expected.get(target) ?? 0;
          expected.set(target, sequence + 1);
          return numberedFrame(sequence * TARGETS + target, MAC + target, 60);
        });
        worker.transmit(rig.device, numbers);
        for (const { number, row } of worker.takeSent()) {
          const target = number % TARGETS;
          assert.is(row, rows[target], `${what}: to where it is meant to go`);
          assert.is(Math.floor(number / TARGETS), next.get(target) ?? 0, `${what}: in order`);
          next.set(target, (next.get(target) ?? 0) + 1);
        }
      }
      assert.equal([...rig.workerDrops()], [[name, lost]], what);
      expected.delete(place);
      assert.equal([...next].sort(), [...expected].sort(), `${what}: all others have arrived`);
      assert.ok(lost >= ROUNDS / 2 && others > ROUNDS, `${what}: ${lost} lost, ${others} errors of others`);
    }
  }
});

sendErrors('errors come at random: every frame is sent, whatever was said of others', () => {
  const random = new Xorshift(0x5eed);
  const { rig, kernel, device, send } = start();
  for (let round = 0; round < 2000; round++) {
    const before = random.below(4);
    kernel.pending = Array.from({ length: before }, () => stale[random.below(stale.length)]!);
    send(1 + random.below(layout.BATCH_MAX));
  }
  assert.equal(dropped(rig, device), []);
  assert.is(rig.deviceCount(device, layout.COUNTER_TX_FRAMES), kernel.sent);
  assert.ok(rig.deviceCount(device, layout.COUNTER_TX_RETRIES) > 2000);
});

// ─── Between hosts ──────────────────────────────────────────────────────────────────────────────────────

const DEAD = '192.0.2.77';
const CLOSED_PORT = 9;

testWith(
  sendErrors,
  ['root', '/dev/net/tun', 'iperf3', 'ping', 'ss'],
  'a stream on sockets that others’ errors come in on: nothing of it is dropped',
  async () => {
    const hosts = new Hosts();
    try {
      const a = await hosts.daemon('a');
      const b = await hosts.daemon('b');
      // As many as there are datagrams, not one a second.
      hosts.b.setting('net/ipv4/icmp_ratelimit', '0');
      await a.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
      await b.createOverlay(hosts.b, 'ov0', 1, underlay[4].b, underlay[4].a);
      for (const [name, vnetid, ip, port] of [
        ['ov1', 2, underlay[4].b, CLOSED_PORT],
        ['ov2', 3, DEAD, 4789],
      ] as const) {
        const properties = {
          'vxlan/listen_ip': underlay[4].a,
          'direct/dest_ip': ip,
          'direct/dest_port': port,
        };
        await a.client.post('/v1/overlays', { name, encap: 'vxlan', search: 'direct', vnetid, properties });
        hosts.address('a', name, `10.${vnetid}.0.1/24`);
        const peer = hosts.a.netlink.getLink(name).index;
        hosts.a.netlink.addNeighbour(peer, `10.${vnetid}.0.2`, '02:00:00:00:00:09');
        await until(`${name} is started`, 5000, async () => (await a.state(name)) === 'started');
      }
      hosts.address('a', 'ov0', '198.51.100.1/24');
      hosts.address('b', 'ov0', '198.51.100.2/24');
      assert.match(hosts.a.run('ping', '-q', '-c', '3', '-i', '0.01', '198.51.100.2'), / 0% packet loss/);
      const before = (await a.stats()).overlays.ov0!;
      // Errors of others, for as long as the stream goes on.
      const floods = ['10.2.0.2', '10.3.0.2'].map((to) => hosts.a.start('ping', '-q', '-i', '0.001', to));
      for (const flood of floods) flood.stdout?.resume();
      const { bytes } = await iperf(hosts, 'a', '198.51.100.2', '-t', '2');
      assert.ok(bytes > 1_000_000, `${bytes} bytes`);
      for (const flood of floods) flood.kill('SIGINT');
      const { ov0, ov1, ov2 } = (await a.stats()).overlays;
      assert.equal(ov0!.drops, before.drops, 'nothing was dropped');
      const retries = [ov0, ov1, ov2].reduce((sum, each) => sum + Number(each!.counters.tx_retries), 0);
      assert.ok(retries > 10, `${retries} retries`);
      console.log(`  ${retries} retries, ${ov0!.counters.tx_retries} of them of the stream, ${bytes} bytes`);
    } finally {
      await hosts.close();
    }
  },
);

/** What a router would send of a datagram, be it one or not: ICMP behind its header, quoting what it is about. */
function spoofed(family: 4 | 6, to: string, port: number, mtu: number): Uint8Array {
  const from = ipNativeBytes(underlay[family].a);
  const quoted = ipNativeBytes(to);
  const udp = frames.concat(frames.bigEndian(port, 2), frames.bigEndian(4789, 2), frames.bigEndian(1408, 4));
  if (family === 6) {
    const packet = frames.ipv6({ ends: { source: from, destination: quoted }, protocol: 17, payload: udp });
    // The kernel fills in the checksum.
    return frames.concat(Uint8Array.of(2, 0, 0, 0), frames.bigEndian(mtu, 4), packet);
  }
  const packet = frames.ipv4({ ends: { source: from, destination: quoted }, protocol: 17, payload: udp });
  const message = frames.concat(Uint8Array.of(3, 4, 0, 0, 0, 0), frames.bigEndian(mtu, 2), packet);
  message.set(frames.bigEndian(0xffff - frames.onesComplementSum(message), 2), 2);
  return message;
}

for (const family of [4, 6] as const) {
  testWith(
    sendErrors,
    ['root', '/dev/net/tun', 'iperf3', 'ss'],
    `spoofed ICMP over IPv${family}: not below the floor, not of others, and the stream goes on`,
    async () => {
      const hosts = new Hosts();
      try {
        const [a, b] = [await hosts.daemon('a'), await hosts.daemon('b')];
        await a.createOverlay(hosts.a, 'ov0', 1, underlay[family].a, underlay[family].b);
        await b.createOverlay(hosts.b, 'ov0', 1, underlay[family].b, underlay[family].a);
        hosts.address('a', 'ov0', '198.51.100.1/24');
        hosts.address('b', 'ov0', '198.51.100.2/24');
        await iperf(hosts, 'a', '198.51.100.2', '-t', '1');
        const ports = [...hosts.a.run('ss', '-Hun', 'state', 'unconnected').matchAll(/:(\d+)\s/g)]
          .map((found) => Number(found[1]))
          .filter((port) => port >= 49_152);
        assert.ok(ports.length >= 8, 'all send sockets');
        const tell = (to: string, those: readonly number[], mtu: number) =>
          inNamespace(hosts.b.namespace, () => {
            const [domain, protocol] = family === 4 ? [AF_INET, 1] : [AF_INET6, 58];
            const fd = must(libc.socket(domain, SOCK_RAW, protocol), 'socket');
            try {
              const address = sockaddr(domain, underlay[family].a, 0);
              for (const port of those) {
                const message = spoofed(family, to, port, mtu);
                must(libc.sendto(fd, message, message.length, 0, address, address.length), 'sendto');
              }
            } finally {
              closeFd(fd);
            }
          });
        const shown = async () => {
          const answer = await a.client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays/ov0');
          return answer.overlays.ov0!.targets[0]!.path_mtu;
        };
        const elsewhere = family === 4 ? DEAD : '2001:db8::77';
        const strangers = ports.map((port) => port - 1).filter((port) => !ports.includes(port));
        tell(elsewhere, ports, 600);
        tell(underlay[family].b, strangers, 600);
        await new Promise((resolve) => setTimeout(resolve, 300));
        assert.is(await shown(), null, 'of another destination, or of a port that is not ours');
        tell(underlay[family].b, ports, 1400);
        await until('it is believed', 2000, async () => (await shown()) === 1400);
        tell(underlay[family].b, ports, 68);
        const floor = { 4: 576, 6: 1280 }[family];
        await until('as far as it can be', 2000, async () => (await shown()) === floor);
        const { bytes } = await iperf(hosts, 'a', '198.51.100.2', '-t', '1');
        assert.ok(bytes > 100_000, `${bytes} bytes pass`);
        assert.is(await shown(), floor);
        await a.client.put('/v1/overlays/ov0/properties/path_mtu_probe', { value: 'on' });
        await until('probes know better', 5000, async () => (await shown()) === null);
        const probed = async () => Object.values((await a.stats()).muxes)[0]!.probes.answered;
        const before = await probed();
        // What they have found is looked at, and stays.
        for (let time = 0; time < 10; time++) {
          tell(underlay[family].b, ports, floor);
          await new Promise((resolve) => setTimeout(resolve, 100));
          assert.is(await shown(), null);
        }
        assert.ok((await probed()) > before);
        console.log(`  path MTU ${floor}, ${bytes} bytes in a second`);
      } finally {
        await hosts.close();
      }
    },
  );
}

sendErrors.run();
