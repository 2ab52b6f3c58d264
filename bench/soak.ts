/**
 * Half of what two hosts can carry, both ways, for a long time, beside overlays of every lookup whose addresses come and go:
 * `npm run soak [-- --minutes 30]`. Prints what the daemons hold while it goes on.
 *
 * Ends with 1 when something is lost under any name, is left over at the end, or grows by more than a MiB an hour; with 3
 * when nothing of that was seen, but the run was too short or too noisy to show it. `--brief` ends with 0 then.
 */

import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Hosts, until } from '../test/harness/hosts.js';
import { DYNAMIC, innerOf, LOOKUP_FLAGS, LookupScene, linkOf } from '../test/harness/lookup-scene.js';
import { Churn } from './soak/churn.js';
import { type Holdings, holdings, openWork, type Planted, probeFlags } from './soak/holdings.js';
import { shownAbove, slopeOf, verdictOf } from './soak/slope.js';

const MIB = 2 ** 20;
const SAMPLE_MS = 10_000;
const SAMPLES_MIN = 12;
/** The demand: MiB an hour. */
const ALLOWED = 1;
/** Compilers and caches are not done before; of a short run it is a third, and growth is told but not judged. */
const WARM_UP_MINUTES = 5;
const JUDGED_MINUTES = 2 * WARM_UP_MINUTES;
const CAPACITY_SECONDS = 3;
/** How long what is left behind traffic may take to go. */
const REST_MS = 30_000;
const LEARN_AGE_SECONDS = 5;
const sides = ['a', 'b'] as const;

/** What is looked at: a slope is judged for each of them. */
const MEASURES: Readonly<Record<string, (now: Holdings) => number>> = {
  'resident set': ({ held }) => held.rss,
  heap: ({ held }) => held.heapUsed,
  'outside of the heap': ({ held }) => held.external,
  'pool of targets': ({ poolBytes }) => poolBytes,
};

interface Sample {
  readonly minutes: number;
  readonly daemons: readonly Holdings[];
}

interface Iperf {
  readonly end: { readonly sum_received: { readonly bits_per_second: number } };
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    brief: { type: 'boolean', default: false },
    'learn-limit': { type: 'string', default: '4096' },
    plant: { type: 'string' },
  },
});
const minutes = Number(values.minutes);
if (!(minutes > 0 && minutes <= 24 * 60)) {
  console.error(`soak: --minutes ${values.minutes}: it is a number above 0, at most 1440`);
  process.exit(2);
}
const planted = values.plant === undefined ? undefined : parsePlanted(values.plant);

/** `heap=2`: a leak of 2 MiB an hour that daemon a is to have, to see that this program finds it. */
function parsePlanted(text: string): Planted {
  const [, kind, perHour] = /^(heap|buffers)=(\d+(?:\.\d+)?)$/.exec(text) ?? [];
  if (kind !== undefined) return { kind, perHour: Number(perHour) };
  console.error(`soak: --plant ${text}: it is heap=MIB or buffers=MIB, of an hour`);
  process.exit(2);
}

/** What has to be the same after all is over as before it began. */
function leftOver(before: Holdings, after: Holdings): string[] {
  const countOf = ({ held, descriptors, threads, devices }: Holdings) =>
    new Map(Object.entries({ ...held.resources, descriptors, threads, devices }));
  const [first, last] = [countOf(before), countOf(after)];
  return [...last]
    .filter(([kind, count]) => count > (first.get(kind) ?? 0))
    .map(([kind, count]) => `${count - (first.get(kind) ?? 0)} ${kind}`);
}

const mib = (bytes: number) => (bytes / MIB).toFixed(1);
const hosts = new Hosts();
const faults: string[] = [];
const unshown: string[] = [];
try {
  const probes = { a: join(hosts.directory, 'probe-a'), b: join(hosts.directory, 'probe-b') };
  const daemons = {
    a: await hosts.daemon('a', { flags: LOOKUP_FLAGS, nodeFlags: probeFlags(probes.a, planted) }),
    b: await hosts.daemon('b', { nodeFlags: probeFlags(probes.b) }),
  };
  const scene = await LookupScene.create(hosts, daemons, undefined, {
    learnLimit: Number(values['learn-limit']),
    learnAge: LEARN_AGE_SECONDS,
  });
  const take = () => Promise.all(sides.map((side) => holdings(daemons[side], probes[side])));
  const rest = async () => {
    // The kernel speaks to groups now and then, which makes targets anew.
    await until('nothing is open', REST_MS, async () => {
      for (const lookup of DYNAMIC) await scene.flush(lookup);
      return (await openWork(daemons.a)) === 0;
    });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return take();
  };

  const server = innerOf('direct', 'b');
  hosts.b.start('iperf3', '-s').stdout?.resume();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const answer = hosts.a.run('iperf3', '-J', '-c', server, '-t', `${CAPACITY_SECONDS}`);
  const capacity = (JSON.parse(answer) as Iperf).end.sum_received.bits_per_second;
  // Both ways together.
  const rate = Math.round(capacity / 4);
  console.log(
    `capacity ${(capacity / 1e9).toFixed(2)} Gbit/s; ${(rate / 1e9).toFixed(2)} each way for ${minutes} min`,
  );
  if (planted) console.log(`a leak of ${planted.perHour} MiB an hour is planted: ${planted.kind}`);
  const before = await rest();

  const words = ['-c', server, '--bidir', '-b', `${rate}`, '-t', `${Math.ceil(minutes * 60)}`];
  let isOver = false;
  const traffic = hosts.a.finish('iperf3', ...words).then((code) => {
    isOver = true;
    return code;
  });
  const churn = new Churn(scene, hosts);
  churn.start();
  const sampleMs = Math.min(SAMPLE_MS, (minutes * 60_000) / SAMPLES_MIN);
  const begun = performance.now();
  const samples: Sample[] = [];
  while (!isOver) {
    await Promise.race([traffic, new Promise((resolve) => setTimeout(resolve, sampleMs))]);
    const sample = { minutes: (performance.now() - begun) / 60_000, daemons: await take() };
    samples.push(sample);
    const [a, b] = sample.daemons as [Holdings, Holdings];
    console.log(
      `${sample.minutes.toFixed(1).padStart(6)} min  RSS ${mib(a.held.rss)} and ${mib(b.held.rss)} MiB  ` +
        `heap ${mib(a.held.heapUsed)} and ${mib(b.held.heapUsed)}  pool ${mib(a.poolBytes)} and ${mib(b.poolBytes)}  ` +
        `descriptors ${a.descriptors} and ${b.descriptors}`,
    );
  }
  if ((await traffic) !== 0) faults.push('iperf3 failed');
  await churn.stop();
  const { refusals, ...counts } = churn.counts;
  console.log(
    `churn: ${Object.entries({ ...counts, answers: scene.answers })
      .map(([name, count]) => `${count} ${name}`)
      .join(', ')}`,
  );
  for (const [code, count] of Object.entries(refusals)) faults.push(`refused: ${count} ${code}`);
  // A run that did not do what it is to be judged by shows nothing.
  for (const [name, count] of Object.entries(counts)) {
    if (count === 0 && (minutes >= 1 || name !== 'handles')) faults.push(`no ${name}: nothing was tried`);
  }

  const warmUp = Math.min(WARM_UP_MINUTES, minutes / 3);
  const judged = samples.filter((sample) => sample.minutes >= warmUp);
  for (const [index, side] of sides.entries()) {
    for (const [name, measure] of Object.entries(MEASURES)) {
      const points = judged.map((each) => ({ x: each.minutes / 60, y: measure(each.daemons[index]!) / MIB }));
      const slope = slopeOf(points);
      const verdict = minutes < JUDGED_MINUTES ? 'cannot show' : verdictOf(slope, ALLOWED);
      const text =
        slope === undefined
          ? 'too few samples'
          : `${slope.value.toFixed(2)} MiB an hour, 95 %: ${slope.low.toFixed(2)} to ${slope.high.toFixed(2)}`;
      console.log(`${side}: ${name}: ${text}: ${verdict}`);
      if (verdict === 'grows') faults.push(`${side}: ${name} grows by ${text}`);
      if (verdict !== 'cannot show') continue;
      const above =
        slope === undefined
          ? ': nothing'
          : `: slopes above ${shownAbove(slope, ALLOWED).toFixed(1)} MiB an hour only`;
      unshown.push(`${side}: ${name}${above}`);
    }
  }

  // Connections are closed a moment after their last answer.
  let left: string[][] = [];
  const deadline = performance.now() + REST_MS;
  do {
    const after = await rest();
    left = after.map((now, index) => leftOver(before[index]!, now));
  } while (left.flat().length > 0 && performance.now() < deadline);
  for (const [index, side] of sides.entries()) {
    for (const each of left[index]!) faults.push(`${side}: ${each} left over`);
    const { overlays } = await daemons[side].stats();
    const { drops, link_overflow } = overlays[linkOf('direct')]!;
    const lost = Object.entries({ ...drops, link_overflow }).filter(([, count]) => Number(count) > 0);
    if (lost.length > 0)
      faults.push(`${side}: ${lost.map(([name, count]) => `${name} ${count}`).join(', ')}`);
  }
  await scene.close();
} catch (error) {
  faults.push((error as Error).stack ?? String(error));
} finally {
  await hosts.close();
}
for (const fault of faults) console.log(`FAULT: ${fault}`);
for (const each of unshown) console.log(`NOT SHOWN: this run can show of ${each}`);
console.log(
  faults.length > 0
    ? `${faults.length} faults`
    : `nothing lost, nothing left open, ${unshown.length === 0 ? 'nothing grows' : `growth of ${ALLOWED} MiB an hour not ruled out`}`,
);
process.exit(faults.length > 0 ? 1 : unshown.length === 0 || values.brief ? 0 : 3);
