/**
 * More than the hosts can carry, with real links: nothing grows, operators are answered, everything that is lost is named, and when
 * it is over it is over. OVERLOAD_SECONDS makes it longer.
 */
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { assertBooks } from './harness/books.js';
import { type Daemon, Hosts, underlay } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const overload = suite('overload');
const SECONDS = Number(process.env.OVERLOAD_SECONDS ?? 4);
const RSS_GROWTH_MAX = 48 * 2 ** 20;
const ANSWER_MS_MAX = 500;
const STREAMS = 4;
const sides = ['a', 'b'] as const;

function rssBytes({ child }: Daemon): number {
  const text = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(text)![1]) * 1024;
}

testWith(
  overload,
  ['root', '/dev/net/tun', 'iperf3', 'ping'],
  `64-byte datagrams as fast as they can be made for ${SECONDS} s: memory flat, answers in time, books balance`,
  async () => {
    const hosts = new Hosts();
    try {
      const daemons = { a: await hosts.daemon('a'), b: await hosts.daemon('b') };
      for (const [index, side] of sides.entries()) {
        const other = side === 'a' ? 'b' : 'a';
        await daemons[side].createOverlay(hosts[side], 'ov0', 7, underlay[4][side], underlay[4][other]);
        hosts.address(side, 'ov0', `198.51.100.${index + 1}/24`);
      }
      hosts.b.start('iperf3', '-s').stdout?.resume();
      const flood = (seconds: number) =>
        hosts.a.finish(
          'iperf3',
          ...['-c', '198.51.100.2', '-u', '-b', '0', '-l', '64', '-P', `${STREAMS}`, '-t', `${seconds}`],
        );
      // Buffers are touched for the first time.
      await new Promise((resolve) => setTimeout(resolve, 500));
      await flood(2);
      const before = sides.map((side) => rssBytes(daemons[side]));
      let isOver = false;
      const flooded = flood(SECONDS).then((code) => {
        isOver = true;
        return code;
      });
      let slowest = 0;
      let answers = 0;
      while (!isOver) {
        for (const side of sides) {
          const asked = performance.now();
          await daemons[side].client.get('/v1/status');
          slowest = Math.max(slowest, performance.now() - asked);
          answers++;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.is(await flooded, 0);
      assert.ok(slowest < ANSWER_MS_MAX, `the slowest of ${answers} answers took ${slowest.toFixed(0)} ms`);
      for (const [index, side] of sides.entries()) {
        const grown = rssBytes(daemons[side]) - before[index]!;
        assert.ok(grown < RSS_GROWTH_MAX, `${side}: ${Math.round(grown / 1024)} KiB more`);
      }
      // At once: nothing of it is left in a queue.
      const pings = hosts.a.run('ping', '-q', '-c', '50', '-i', '0.01', '198.51.100.2');
      assert.match(pings, / 0% packet loss/);
      for (const side of sides)
        await assertBooks(hosts[side], daemons[side], 'ov0', `${underlay[4][side]}:4789`);
      const { counters } = (await daemons.a.stats()).overlays.ov0!;
      console.log(
        `\n  ${counters.tx_frames} frames in ${counters.tx_messages} messages, ${answers} answers, slowest ${slowest.toFixed(0)} ms`,
      );
    } finally {
      await hosts.close();
    }
  },
);

overload.run();
