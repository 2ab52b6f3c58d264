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
import { Daemon, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { links, prefix, Routed } from './harness/routed.js';

const path = suite('path MTU');
const needs = ['root', '/dev/net/tun', 'ip', 'iperf3', 'ping', 'ss'];
const LESS = 1380;

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

/** Milliseconds of the longest time in which the count did not grow; ended when it is over. */
async function longestStall(count: () => bigint, isOver: () => boolean): Promise<number> {
  let longest = 0;
  let last = count();
  let at = performance.now();
  while (!isOver()) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const now = count();
    // Other packets come and go meanwhile.
    if (now > last + 50_000n) {
      longest = Math.max(longest, performance.now() - at);
      last = now;
      at = performance.now();
    }
  }
  return longest;
}

for (const [encap, family] of [
  ['vxlan', 4],
  ['vxlan', 6],
  ['nvgre', 4],
] as const) {
  testWith(
    path,
    needs,
    `${encap} over IPv${family}: a stream of each family goes on, and the guests know`,
    async () => {
      const routed = new Routed();
      try {
        await routed.ready();
        const [a, , , b] = routed.hosts;
        const ends = [links[family][0]![0]!, links[family][2]![1]!];
        const daemons: Daemon[] = [];
        for (const [index, host] of [a, b].entries()) {
          const daemon = await Daemon.start(host, mkdtempSync(join(routed.directory, 'daemon-')));
          daemons.push(daemon);
          const port = encap === 'vxlan' ? { 'direct/dest_port': 4789 } : { 'direct/dest_port': 1 };
          await daemon.client.post('/v1/overlays', {
            name: 'ov0',
            encap,
            search: 'direct',
            vnetid: 0x2000,
            properties: {
              [`${encap}/listen_ip`]: ends[index]!,
              'direct/dest_ip': ends[1 - index]!,
              ...(encap === 'vxlan' ? port : {}),
            },
          });
          const { index: link } = host.netlink.getLink('ov0');
          for (const kind of [4, 6] as const) {
            host.netlink.addAddress(link, `${inner[kind][index]!}/${prefix[kind]}`, { noDad: true });
          }
          host.netlink.setLink(link, { up: true });
          await until('started', 5000, async () => (await daemon.state('ov0')) === 'started');
        }
        const view = async () =>
          (await daemons[0]!.client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays/ov0'))
            .overlays.ov0!;
        assert.is((await view()).targets[0]!.path_mtu, null);
        for (const kind of [4, 6] as const) {
          routed.middle = 1500;
          b.start('iperf3', '-s', '-1', '-p', `${5200 + kind}`).stdout?.resume();
          await until('iperf3 listens', 5000, () =>
            b.attempt('ss', '-Hltn').output.includes(`${5200 + kind}`),
          );
          const before = (await daemons[0]!.stats()).overlays.ov0!;
          let isOver = false;
          const client = a.finish(
            'iperf3',
            '-c',
            inner[kind][1]!,
            '-t',
            kind === 4 ? '2' : '1',
            '-p',
            `${5200 + kind}`,
          );
          const ended = client.then((code) => {
            isOver = true;
            return code;
          });
          const taken = () => b.linkStats('ov0').rxBytes;
          await until('it runs', 5000, () => taken() > 10_000_000n);
          routed.middle = LESS;
          const then = taken();
          const stall = await longestStall(taken, () => isOver);
          assert.is(await ended, 0);
          // More than was on its way.
          assert.ok(taken() > then + 20_000_000n, `${taken() - then} bytes after that`);
          console.log(
            `  IPv${kind} in ${encap} over IPv${family}: stalls for ${Math.round(stall)} ms at most`,
          );
          const after = (await daemons[0]!.stats()).overlays.ov0!;
          const own = { vxlan: { 4: 36, 6: 56 }, nvgre: { 4: 28, 6: 48 } }[encap][family] + 14;
          const known = a.run('ip', `-${kind}`, 'route', 'get', inner[kind][1]!);
          if (kind === 4) {
            const told = Number(after.counters.tx_too_big_told) - Number(before.counters.tx_too_big_told);
            assert.ok(told > 0, 'the sender was told');
          }
          assert.match(known, new RegExp(`mtu ${LESS - own}\\b`), 'and knows');
          console.log(`  ${JSON.stringify(after.drops)} ${after.counters.tx_too_big_told} told`);
        }
        // This kernel has learned of the path too, which is no MTU of the route.
        if (encap === 'vxlan') {
          assert.match(a.run('ip', `-${family}`, 'route', 'get', ends[1]!), new RegExp(`mtu ${LESS}\\b`));
          a.run('ip', 'route', 'add', '203.0.113.128/25', 'dev', 'lo');
          await new Promise((resolve) => setTimeout(resolve, 2 * ROUTES_MS));
        }
        const shown = await view();
        const room = 1500 - { vxlan: { 4: 54, 6: 74 }, nvgre: { 4: 42, 6: 62 } }[encap][family];
        assert.is(shown.properties.find(({ name }) => name === 'mtu')!.value, room);
        assert.is(shown.targets[0]!.path_mtu, LESS);
        assert.equal([shown.status, shown.faults], ['ONLINE', []], 'no offload is blamed');
        assert.is((await daemons[0]!.stats()).overlays.ov0!.counters.tx_too_big_untold, 0);
      } finally {
        await routed.close();
      }
    },
  );
}

path.run();
