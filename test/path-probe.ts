/** Probes of path MTUs between hosts: a way on which packets that are too big are lost without a word. */
import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { OverlayView, TargetJson } from '../src/control/view.js';
import { CONFIRM_MS } from '../src/datapath/path-search.js';
import { PATH_MTU_BASE_BYTES } from '../src/limits.js';
import { AF_INET, IPPROTO_ICMP, SOCK_NONBLOCK, SOCK_RAW } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import {
  decodeEcho,
  ECHO_REPLY,
  ECHO_REQUEST,
  type Echo,
  encodeEcho,
  IPV4_HEADER_BYTES,
} from '../src/sys/icmp-echo.js';
import * as libc from '../src/sys/libc.js';
import { inNamespace } from '../src/sys/netns.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { capture } from './harness/capture.js';
import { Daemon, type Host, Hosts, underlay, until } from './harness/hosts.js';
import { iperf } from './harness/iperf.js';
import { testWith } from './harness/needs.js';
import { links, prefix, Routed } from './harness/routed.js';

const probe = suite('path MTU by probes');
const needs = ['root', '/dev/net/tun', 'ip', 'iperf3', 'ping', 'ss', 'ethtool'];
const families = [4, 6] as const;
const inner = { 4: ['198.51.100.1', '198.51.100.2'], 6: ['198.51.101.1', '198.51.101.2'] } as const;
/** What the way takes. */
const TAKES = 1380;

/** Echo requests that a host has sent, and replies that it got, by its kernel. */
function echoes(host: Host, family: 4 | 6): { sent: number; answered: number } {
  return inNamespace(host.namespace, () => {
    if (family === 6) {
      const text = readFileSync('/proc/thread-self/net/snmp6', 'utf8');
      const read = (name: string) => Number(new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
      return { sent: read('Icmp6OutEchos'), answered: read('Icmp6InEchoReplies') };
    }
    const lines = readFileSync('/proc/thread-self/net/snmp', 'utf8').split('\n');
    const [names = '', values = ''] = lines.filter((line) => line.startsWith('Icmp:'));
    const read = (name: string) => Number(values.split(' ')[names.split(' ').indexOf(name)]);
    return { sent: read('OutEchos'), answered: read('InEchoReps') };
  });
}

async function targetOf(daemon: Daemon, name: string): Promise<TargetJson> {
  const answer = await daemon.client.get<{ overlays: Record<string, OverlayView> }>(`/v1/overlays/${name}`);
  return answer.overlays[name]!.targets[0]!;
}

testWith(
  probe,
  needs,
  'a black hole of either family: nothing large passes, and seconds after probing is on it does',
  async () => {
    const routed = new Routed();
    try {
      await routed.ready();
      const [a, , , b] = routed.hosts;
      const daemons: Daemon[] = [];
      for (const [index, host] of [a, b].entries()) {
        const daemon = await Daemon.start(host, mkdtempSync(join(routed.directory, 'daemon-')));
        daemons.push(daemon);
        for (const family of families) {
          const ends = [links[family][0]![0]!, links[family][2]![1]!];
          const name = `ov${family}`;
          await daemon.createOverlay(host, name, 0x2000 + family, ends[index]!, ends[1 - index]!);
          const { index: link } = host.netlink.getLink(name);
          host.netlink.addAddress(link, `${inner[family][index]!}/${prefix[4]}`);
        }
      }
      const [daemon] = daemons as [Daemon, Daemon];
      const large = (family: 4 | 6) => {
        const size = 1500 - { 4: 54, 6: 74 }[family] - 28;
        const words = ['-M', 'do', '-c', '1', '-W', '0.5', '-s', `${size}`, inner[family][1]!];
        return a.attempt('ping', ...words);
      };
      for (const family of families) {
        await until('the guests see each other', 5000, () => large(family).status === 0);
      }
      routed.silentMiddle = TAKES;
      for (const family of families) {
        assert.match(large(family).output, /100% packet loss/, 'lost, and nobody says so');
        assert.equal((await targetOf(daemon, `ov${family}`)).path_probe, null);
      }
      const before = { 4: echoes(a, 4), 6: echoes(a, 6) };
      for (const family of families) {
        const path = `/v1/overlays/ov${family}/properties/path_mtu_probe`;
        await daemon.client.put(path, { value: 'on' });
      }
      for (const family of families) {
        const isKnown = async () => (await targetOf(daemon, `ov${family}`)).path_mtu !== null;
        await until('it is known that less passes', 10_000, isKnown);
        const { path_mtu, path_probe } = await targetOf(daemon, `ov${family}`);
        assert.ok(path_mtu! >= 1200 && path_mtu! <= TAKES, `${path_mtu}`);
        assert.is(path_probe, 'searching');
        assert.match(large(family).output, /(Frag needed|too long|too large)/, 'the sender is told');
        const { bytes } = await iperf({ a, b }, 'a', inner[family][1]!, '-t', '1');
        assert.ok(bytes > 10_000_000, `${bytes} bytes`);
      }
      // Off: nothing is asked any more, and the counts are the kernel's.
      for (const family of families) {
        const path = `/v1/overlays/ov${family}/properties/path_mtu_probe`;
        await daemon.client.put(path, { value: 'off' });
        const isOff = async () => (await targetOf(daemon, `ov${family}`)).path_probe === null;
        await until('nothing is probed', 3000, isOff);
      }
      const { muxes } = await daemon.stats();
      for (const family of families) {
        const ip = links[family][0]![0]!;
        const { probes } = muxes[family === 4 ? `${ip}:4789` : `[${ip}]:4789`]!;
        const { sent, answered } = echoes(a, family);
        // The two pings of guests that were told are the same kernel's, and IPv4.
        const pings = family === 4 ? families.length : 0;
        assert.is(probes.sent, sent - pings - before[family].sent);
        // The last one may have been on its way when nobody wanted to know any more.
        const late = answered - before[family].answered - probes.answered;
        assert.ok(late === 0 || late === 1, `${late} replies more than were taken`);
        assert.ok(probes.sent > probes.answered && probes.answered > 0);
        console.log(`  IPv${family}: ${probes.sent} probes, ${probes.answered} answered`);
      }
    } finally {
      await routed.close();
    }
  },
);

testWith(
  probe,
  [...needs, 'tcpdump'],
  'probes on the wire: a way that takes all, and one that leads nowhere',
  async () => {
    const hosts = new Hosts();
    try {
      const daemon = await hosts.daemon('a');
      const seen = await capture(hosts.b, 'icmp[icmptype] == icmp-echo', { flags: ['-v'] });
      await daemon.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
      await daemon.client.put('/v1/overlays/ov0/properties/path_mtu_probe', { value: 'on' });
      const state = async () => (await targetOf(daemon, 'ov0')).path_probe;
      await until('the search is over', 5000, async () => (await state()) === 'complete');
      assert.is((await targetOf(daemon, 'ov0')).path_mtu, null);
      const { probes } = Object.values((await daemon.stats()).muxes)[0]!;
      assert.ok(
        probes.sent <= 2 + 5000 / CONFIRM_MS && probes.answered === probes.sent,
        JSON.stringify(probes),
      );
      const packets = (await seen()).split(/^(?=\d\d:\d\d:\d\d)/m).filter((packet) => packet !== '');
      assert.is(packets.length, probes.sent);
      for (const [index, bytes] of [PATH_MTU_BASE_BYTES[4], 1500].entries()) {
        const whole = new RegExp(`offset 0, flags \\[DF\\], proto ICMP \\(1\\), length ${bytes}\\)`);
        assert.match(packets[index]!, whole);
      }
      // Nobody is there: nothing can be told.
      await daemon.client.put('/v1/overlays/ov0/properties/direct%2Fdest_ip', { value: '192.0.2.77' });
      await until('it is given up', 12_000, async () => (await state()) === 'unanswered');
      assert.is((await targetOf(daemon, 'ov0')).path_mtu, null);
    } finally {
      await hosts.close();
    }
  },
);

testWith(
  probe,
  needs,
  'devices that share a way share its search: the largest packets of any of them decide',
  async () => {
    const hosts = new Hosts();
    try {
      const daemon = await hosts.daemon('a');
      const mux = async (name: string, vnetid: number, port: number, mtu: number) => {
        await daemon.client.post('/v1/overlays', {
          name,
          encap: 'vxlan',
          search: 'direct',
          vnetid,
          properties: {
            'vxlan/listen_ip': underlay[4].a,
            'vxlan/listen_port': port,
            'direct/dest_ip': underlay[4].b,
            'direct/dest_port': port,
            path_mtu_probe: 'on',
            mtu,
          },
        });
        hosts.address('a', name);
      };
      // What is longer is lost without a word.
      hosts.b.netlink.setLink(hosts.b.netlink.getLink('underlay0').index, { mtu: 1380 });
      await mux('small', 1, 4789, 1200);
      await mux('large', 2, 4790, 1446);
      const both = async () => Promise.all(['small', 'large'].map((name) => targetOf(daemon, name)));
      const isFound = async () => (await both()).every(({ path_mtu }) => (path_mtu ?? 0) >= 1200);
      await until('it is found', 10_000, isFound);
      for (let time = 0; time < 20; time++) {
        const [small, large] = await both();
        assert.is(small!.path_mtu, large!.path_mtu);
        assert.ok(large!.path_mtu !== null && large!.path_mtu <= 1384, `${large!.path_mtu}`);
        assert.is(small!.path_probe, large!.path_probe);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    } finally {
      await hosts.close();
    }
  },
);

/** What answers echo requests on a host in place of its kernel. */
class Responder {
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;
  requests = 0;

  /** @param answersOf a request: replies, and after how many milliseconds each is sent */
  constructor(
    readonly host: Host,
    readonly answersOf: (request: Echo) => readonly (readonly [afterMs: number, reply: Echo])[],
  ) {
    host.setting('net/ipv4/icmp_echo_ignore_all', '1');
    this.#fd = inNamespace(host.namespace, () =>
      must(libc.socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_ICMP), 'socket'),
    );
    this.#timer = setInterval(() => this.#turn(), 5);
  }

  #turn(): void {
    const packet = new Uint8Array(65_536);
    for (;;) {
      const bytes = libc.recv(this.#fd, packet, packet.length, 0);
      if (bytes < 0) return;
      const request = decodeEcho(packet.slice(IPV4_HEADER_BYTES, bytes));
      if (request?.type !== ECHO_REQUEST) continue;
      this.requests++;
      for (const [ms, reply] of this.answersOf(request)) setTimeout(() => this.#send(reply), ms);
    }
  }

  #send(reply: Echo): void {
    const message = encodeEcho(reply);
    const to = sockaddr(AF_INET, underlay[4].a, 0);
    must(libc.sendto(this.#fd, message, message.length, 0, to, to.length), 'sendto');
  }

  close(): void {
    clearInterval(this.#timer);
    closeFd(this.#fd);
  }
}

testWith(probe, needs, 'replies that are late, twice and forged', async () => {
  const hosts = new Hosts();
  const LATE_MS = 300;
  let isForging = true;
  const responder = new Responder(hosts.b, (request) => {
    const reply = { ...request, type: ECHO_REPLY };
    const other = request.payload.slice();
    other[7]! ^= 1;
    const forged = [
      { ...reply, payload: other },
      { ...reply, payload: request.payload.subarray(0, 64) },
      { ...reply, payload: request.payload.subarray(0, 4) },
      { ...reply, sequence: (request.sequence + 1) & 0xffff },
      { ...reply, id: request.id ^ 1 },
      request,
    ].map((each) => [0, each] as const);
    const right = [LATE_MS, LATE_MS, LATE_MS + 50].map((ms) => [ms, reply] as const);
    return isForging ? forged : [...forged, ...right];
  });
  try {
    const daemon = await hosts.daemon('a');
    await daemon.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
    await daemon.client.put('/v1/overlays/ov0/properties/path_mtu_probe', { value: 'on' });
    const counts = async () => Object.values((await daemon.stats()).muxes)[0]!.probes;
    await until('there are some', 5000, () => responder.requests >= 2);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.is((await counts()).answered, 0, 'forged ones answer nothing');
    assert.is((await targetOf(daemon, 'ov0')).path_probe, 'base');
    isForging = false;
    const isComplete = async () => (await targetOf(daemon, 'ov0')).path_probe === 'complete';
    await until('the search is over', 5000, isComplete);
    await new Promise((resolve) => setTimeout(resolve, 2 * LATE_MS));
    assert.is((await counts()).answered, 2, 'each probe that arrived counts once');
    assert.is((await targetOf(daemon, 'ov0')).path_mtu, null);
  } finally {
    responder.close();
    await hosts.close();
  }
});

testWith(
  probe,
  [...needs, 'setpriv'],
  'without CAP_NET_RAW: the property is refused, and stays off',
  async () => {
    const hosts = new Hosts();
    try {
      const daemon = await hosts.daemon('a', { under: ['setpriv', '--bounding-set=-net_raw'] });
      await daemon.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
      try {
        await daemon.client.put('/v1/overlays/ov0/properties/path_mtu_probe', { value: 'on' });
        assert.unreachable('it was taken');
      } catch (error) {
        assert.match((error as Error).message, /probing path MTUs needs CAP_NET_RAW/);
      }
      assert.is((await targetOf(daemon, 'ov0')).path_probe, null);
      const status = JSON.stringify(await daemon.client.get('/v1/status'));
      assert.not.match(status, /paths_unprobed/);
    } finally {
      await hosts.close();
    }
  },
);

probe.run();
