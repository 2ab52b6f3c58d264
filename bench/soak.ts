/**
 * Half of what two hosts can carry, both ways, for a long time: `npm run soak [-- --minutes 10]`. Prints what the daemons hold
 * while it goes on, and ends with 1 when something is lost under any name, descriptors are left open, or memory goes on growing.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Daemon, Hosts, underlay } from '../test/harness/hosts.js';

const SAMPLE_MS = 30_000;
const SAMPLES_MIN = 8;
/** Of the second half; a leak of 16 bytes a frame would be hundreds of times as much. */
const SLOPE_KIB_PER_MINUTE_MAX = 1024;
/** In less the compiler and the caches are not done. */
const JUDGED_MINUTES = 5;
const WARM_UP_SECONDS = 3;
const sides = ['a', 'b'] as const;

/** What the two daemons hold at a moment. */
interface Sample {
  readonly minutes: number;
  readonly rssKib: readonly number[];
  readonly descriptors: readonly number[];
}

interface Iperf {
  readonly end: { readonly sum_received: { readonly bits_per_second: number } };
}

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } });
const minutes = Number(values.minutes);
if (!(minutes > 0 && minutes <= 24 * 60)) {
  console.error(`soak: --minutes ${values.minutes}: it is a number above 0, at most 1440`);
  process.exit(2);
}

function rssKib({ child }: Daemon): number {
  const text = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(text)![1]);
}

function descriptors({ child }: Daemon): number {
  return readdirSync(`/proc/${child.pid}/fd`).length;
}

/** KiB a minute that a daemon grows by, by least squares. */
function slope(samples: readonly Sample[], daemon: number): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = samples.map((sample) => sample.minutes);
  const y = samples.map((sample) => sample.rssKib[daemon]!);
  const [middleX, middleY] = [mean(x), mean(y)];
  const above = x.reduce((sum, value, i) => sum + (value - middleX) * (y[i]! - middleY), 0);
  return above / x.reduce((sum, value) => sum + (value - middleX) ** 2, 0);
}

const hosts = new Hosts();
let faults: string[] = [];
try {
  const daemons = { a: await hosts.daemon('a'), b: await hosts.daemon('b') };
  for (const [index, side] of sides.entries()) {
    const other = side === 'a' ? 'b' : 'a';
    await daemons[side].createOverlay(hosts[side], 'ov0', 7, underlay[4][side], underlay[4][other]);
    hosts.address(side, 'ov0', `198.51.100.${index + 1}/24`);
  }
  hosts.b.start('iperf3', '-s').stdout?.resume();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const answer = hosts.a.run('iperf3', '-J', '-c', '198.51.100.2', '-t', `${WARM_UP_SECONDS}`);
  const capacity = (JSON.parse(answer) as Iperf).end.sum_received.bits_per_second;
  // Both ways together.
  const rate = Math.round(capacity / 4);
  console.log(
    `capacity ${(capacity / 1e9).toFixed(2)} Gbit/s; ${(rate / 1e9).toFixed(2)} each way for ${minutes} min`,
  );
  const words = ['-c', '198.51.100.2', '--bidir', '-b', `${rate}`, '-t', `${Math.ceil(minutes * 60)}`];
  let isOver = false;
  const traffic = hosts.a.finish('iperf3', ...words).then((code) => {
    isOver = true;
    return code;
  });
  const sampleMs = Math.min(SAMPLE_MS, (minutes * 60_000) / SAMPLES_MIN);
  const begun = performance.now();
  const samples: Sample[] = [];
  const take = async () => {
    const all = sides.map((side) => daemons[side]);
    const sample = {
      minutes: (performance.now() - begun) / 60_000,
      rssKib: all.map(rssKib),
      descriptors: all.map(descriptors),
    };
    samples.push(sample);
    const frames = await Promise.all(
      all.map(async (daemon) => (await daemon.stats()).overlays.ov0!.counters.tx_frames),
    );
    console.log(
      `${sample.minutes.toFixed(1).padStart(6)} min  RSS ${sample.rssKib.join(' and ')} KiB  ` +
        `descriptors ${sample.descriptors.join(' and ')}  frames ${frames.join(' and ')}`,
    );
  };
  while (!isOver) {
    await take();
    await Promise.race([traffic, new Promise((resolve) => setTimeout(resolve, sampleMs))]);
  }
  if ((await traffic) !== 0) faults.push('iperf3 failed');
  await take();
  const late = samples.slice(samples.length >> 1);
  for (const [index, side] of sides.entries()) {
    const grows = slope(late, index);
    console.log(`${side}: RSS grows by ${grows.toFixed(1)} KiB a minute in the second half`);
    if (minutes >= JUDGED_MINUTES && grows > SLOPE_KIB_PER_MINUTE_MAX)
      faults.push(`${side}: memory grows by ${grows.toFixed(0)} KiB a minute`);
    const [first, last] = [samples[1]!.descriptors[index]!, samples[samples.length - 1]!.descriptors[index]!];
    if (last > first) faults.push(`${side}: ${last - first} descriptors more than in the beginning`);
    const { drops, link_overflow } = (await daemons[side].stats()).overlays.ov0!;
    const lost = Object.entries({ ...drops, link_overflow }).filter(([, count]) => Number(count) > 0);
    if (lost.length > 0)
      faults.push(`${side}: ${lost.map(([name, count]) => `${name} ${count}`).join(', ')}`);
  }
} catch (error) {
  faults = [...faults, (error as Error).message];
} finally {
  await hosts.close();
}
for (const fault of faults) console.log(`FAULT: ${fault}`);
console.log(
  faults.length === 0 ? 'nothing lost, nothing left open, nothing grows' : `${faults.length} faults`,
);
process.exit(faults.length === 0 ? 0 : 1);
