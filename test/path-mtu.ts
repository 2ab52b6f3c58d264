/**
 * The MTU of a path falls under traffic.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { OverlayView } from '../src/control/view.js';
import { PathMtus } from '../src/datapath/path-mtus.js';
import { ROUTES_MS } from '../src/limits.js';
import { AF_INET6 } from '../src/sys/abi.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { PORTS } from './harness/direct.js';
import { Daemon, type Host, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { links, prefix, Routed } from './harness/routed.js';

const path = suite('path MTU');
const needs = ['root', '/dev/net/tun', 'ip', 'iperf3', 'ping', 'ss'];
const LESS = 1380;
/** Bytes that are sent while it falls. */
const STREAM = '150M';
/** Nothing takes so long that goes on at all. */
const STUCK_MS = 30_000;

const inner = { 4: ['198.51.100.1', '198.51.100.2'], 6: ['fd00::1', 'fd00::2'] } as const;

path(
  'what is learned: for addresses that are sent to, not below the floor, smaller ones only, until it is old',
  () => {
    const frameMax = new Map<number, number>();
    let now = 0;
    const paths = new PathMtus({ setFrameMax: (row, bytes) => frameMax.set(row, bytes) }, () => now);
    const name = (ip: string, port = 4789) => sockaddr(AF_INET6, ip, port);
    paths.add(1, '', name('192.0.2.1'), 8);
    paths.add(2, '', name('192.0.2.1', 4790), 60);
    paths.add(3, '', name('2001:db8::1'), 8);
    paths.add(4, '', name('192.0.2.4', 0), 8);
    paths.learn('', '192.0.2.9', 1400, false);
    assert.is(paths.get('', '192.0.2.9')?.bytes, undefined, 'nothing is sent there');
    paths.add(5, '', name('192.0.2.9'), 8);
    assert.is(frameMax.get(5), 0, 'and is not remembered');

    paths.learn('', '192.0.2.1', 1400, false);
    // 20 of IPv4, 8 of UDP, the encapsulation's own.
    assert.equal([frameMax.get(1), frameMax.get(2), frameMax.get(3)], [1364, 1312, 0]);
    assert.equal([paths.frameMax(1), paths.frameMax(3)], [1364, undefined]);
    now = 300_000;
    paths.learn('', '192.0.2.1', 1450, false);
    assert.is(paths.get('', '192.0.2.1')?.bytes, 1400, 'more is for age to tell');
    paths.add(6, '', name('192.0.2.1'), 8);
    assert.is(frameMax.get(6), 1364, 'a row that comes later has it');
    for (const told of [575, 68, 0]) {
      paths.learn('', '192.0.2.1', told, false);
      assert.equal([paths.get('', '192.0.2.1')?.bytes, frameMax.get(1)], [576, 594]);
      paths.learn('', '2001:db8::1', told, false);
      assert.equal([paths.get('', '2001:db8::1')?.bytes, frameMax.get(3)], [1280, 1280 - 40 - 8 - 8]);
    }
    paths.learn('', '192.0.2.4', 1000, true);
    assert.is(frameMax.get(4), 1000 - 20 - 8, 'GRE has no UDP');
    paths.forgetLocal();
    assert.equal([frameMax.get(4), frameMax.get(1)], [0, 594], 'what this host itself said');

    now = 899_999;
    paths.age();
    assert.is(paths.get('', '192.0.2.1')?.bytes, 576);
    now = 900_000;
    paths.age();
    assert.equal([paths.get('', '192.0.2.1')?.bytes, frameMax.get(1), frameMax.get(3)], [undefined, 0, 0]);
    paths.learn('', '192.0.2.1', 1400, false);
    for (const row of [1, 2, 6]) paths.remove(row);
    paths.add(1, '', name('192.0.2.1'), 8);
    assert.is(frameMax.get(1), 0, 'nobody sent there for a moment');
  },
);

/** Milliseconds of the longest time in which the count did not grow, up to the end, which comes when `isOver` says so. */
async function longestStall(count: () => bigint, isOver: () => boolean): Promise<number> {
  let longest = 0;
  let last = count();
  let at = performance.now();
  for (let ended = false; !ended; ) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    ended = isOver();
    const now = count();
    longest = Math.max(longest, performance.now() - at);
    // Other packets come and go meanwhile.
    if (now <= last + 50_000n) continue;
    last = now;
    at = performance.now();
  }
  return longest;
}

/** Of the underlay's IP, of what is between it and the frame, and of the frame. */
const headerBytes = (encap: string, family: 4 | 6) =>
  (family === 4 ? 20 : 40) + (encap === 'nvgre' ? 8 : 16) + 14;

for (const [encap, family] of [
  ['vxlan', 4],
  ['geneve', 6],
  ['nvgre', 4],
  ['nvgre', 6],
] as const) {
  testWith(
    path,
    needs,
    `${encap} over IPv${family}: a stream of each family goes on, and the guests know`,
    async () => {
      const routed = new Routed();
      try {
        const [a, , , b] = routed.hosts;
        const ends = [links[family][0]![0]!, links[family][2]![1]!];
        const headers = headerBytes(encap, family);
        const port = PORTS[encap];
        const start = async (host: Host, index: number) => {
          const daemon = await Daemon.start(host, mkdtempSync(join(routed.directory, 'daemon-')));
          await daemon.client.post('/v1/overlays', {
            name: 'ov0',
            encap,
            search: 'direct',
            vnetid: 0x2000,
            properties: {
              [`${encap}/listen_ip`]: ends[index]!,
              'direct/dest_ip': ends[1 - index]!,
              ...(port === undefined ? {} : { 'direct/dest_port': port }),
            },
          });
          const { index: link } = host.netlink.getLink('ov0');
          for (const kind of [4, 6] as const) {
            host.netlink.addAddress(link, `${inner[kind][index]!}/${prefix[kind]}`, { noDad: true });
          }
          host.netlink.setLink(link, { up: true });
          await until('started', 5000, async () => (await daemon.state('ov0')) === 'started');
          return daemon;
        };
        const [daemon] = await Promise.all([start(a, 0), start(b, 1), routed.ready()]);
        const view = async () =>
          (await daemon.client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays/ov0')).overlays
            .ov0!;
        assert.is((await view()).targets[0]!.path_mtu, null);
        for (const kind of [4, 6] as const) {
          routed.middle = 1500;
          b.start('iperf3', '-s', '-1', '-p', `${5200 + kind}`).stdout?.resume();
          await until('iperf3 listens', 5000, () =>
            b.attempt('ss', '-Hltn').output.includes(`${5200 + kind}`),
          );
          const before = (await daemon.stats()).overlays.ov0!;
          let code: number | undefined;
          void a
            .finish('iperf3', '-c', inner[kind][1]!, '-n', STREAM, '-p', `${5200 + kind}`)
            .then((exit) => {
              code = exit;
            });
          const end = performance.now() + STUCK_MS;
          const isOver = () => code !== undefined || performance.now() > end;
          const taken = () => b.linkStats('ov0').rxBytes;
          await until('it runs', 5000, () => taken() > 10_000_000n);
          routed.middle = LESS;
          const then = taken();
          const stall = await longestStall(taken, isOver);
          console.log(
            `  IPv${kind} in ${encap} over IPv${family}: stalls for ${Math.round(stall)} ms at most`,
          );
          assert.is(code, 0, `all of the stream arrives, ${taken() - then} bytes of it after that`);
          // More than was on its way.
          assert.ok(taken() > then + 20_000_000n, `${taken() - then} bytes after that`);
          const after = (await daemon.stats()).overlays.ov0!;
          const known = a.run('ip', `-${kind}`, 'route', 'get', inner[kind][1]!);
          if (kind === 4) {
            const told = Number(after.counters.tx_too_big_told) - Number(before.counters.tx_too_big_told);
            assert.ok(told > 0, 'the sender was told');
          }
          assert.match(known, new RegExp(`mtu ${LESS - headers}\\b`), 'and knows');
          console.log(`  ${JSON.stringify(after.drops)} ${after.counters.tx_too_big_told} told`);
        }
        // This kernel has learned of the path too, which is no MTU of the route.
        if (encap !== 'nvgre') {
          assert.match(a.run('ip', `-${family}`, 'route', 'get', ends[1]!), new RegExp(`mtu ${LESS}\\b`));
          a.run('ip', 'route', 'add', '203.0.113.128/25', 'dev', 'lo');
          await new Promise((resolve) => setTimeout(resolve, 2 * ROUTES_MS));
        }
        const shown = await view();
        const tag = encap === 'nvgre' ? 0 : 4;
        assert.is(shown.properties.find(({ name }) => name === 'mtu')!.value, 1500 - headers - tag);
        assert.is(shown.targets[0]!.path_mtu, LESS);
        assert.equal([shown.status, shown.faults], ['ONLINE', []], 'no offload is blamed');
        assert.is((await daemon.stats()).overlays.ov0!.counters.tx_too_big_untold, 0);
      } finally {
        await routed.close();
      }
    },
  );
}

path.run();
