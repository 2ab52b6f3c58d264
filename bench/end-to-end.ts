/**
 * How fast is a whole overlay between two hosts, beside the kernel's VXLAN and others in the same rounds? Peers are
 * interleaved, round by round, so that a change in the machine's load falls on all of them.
 */
import { writeFileSync } from 'node:fs';
import { arch, cpus, release } from 'node:os';
import { has } from '../test/harness/needs.js';
import type { Measure } from './measures/index.js';
import { type Flags, type Options, readOptions } from './options.js';
import type { Peer } from './peers/index.js';
import { Report, type Sample } from './report.js';
import { describe, type Scene } from './scene.js';
import { Testbed } from './testbed.js';

/** What every peer's round needs. */
const NEEDS = ['root', '/dev/net/tun', 'ip', 'ping'];

/** The testbed that is there: one that is interrupted takes it down. */
let bed: Testbed | undefined;

/** Measures and prints; writes files where flags say so. Throws EINVAL `bad_flag`. */
export async function main(given: Flags & { readonly smoke: boolean }): Promise<void> {
  const options = readOptions(given, given.smoke);
  const missing = NEEDS.filter((need) => !has(need));
  if (missing.length > 0) {
    console.log(`end-to-end: not measured, it needs ${missing.join(', ')}`);
    return;
  }
  const peers = present(options.peers, 'peer');
  const measures = present(options.measures, 'measure');
  const scenes = options.oneCore.flatMap((isOneCore) =>
    options.mtus.flatMap((mtu) => options.placements.map((placement) => ({ mtu, placement, isOneCore }))),
  );
  const interrupt = () => void bed?.close().finally(() => process.exit(130));
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
  try {
    const samples: Sample[] = [];
    for (let round = 0; round < options.rounds; round++) {
      for (const scene of scenes) {
        for (const peer of peers.filter(({ layer }) => layer === 2 || scene.placement === 'tap')) {
          progress(`round ${round + 1} of ${options.rounds}, ${describe(scene)}: ${peer.name}`);
          const figures = await sample(scene, peer, measures, options, given.smoke);
          if (figures) samples.push({ scene, round, peer: peer.name, figures });
        }
      }
    }
    progress('');
    print(new Report(samples, options.anchor), options, peers);
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}

/** Those with all that they need; of the others it is said. */
function present<T extends { readonly name: string; readonly needs: readonly string[] }>(
  all: readonly T[],
  what: string,
): T[] {
  return all.filter(({ name, needs }) => {
    const missing = needs.filter((need) => !has(need));
    if (missing.length > 0) console.log(`${what} ${name}: not measured, it needs ${missing.join(', ')}`);
    return missing.length === 0;
  });
}

/** Brings the peer up, measures it, takes it down. A peer that fails is said, and the others go on. */
async function sample(
  scene: Scene,
  peer: Peer,
  measures: readonly Measure[],
  { seconds }: Options,
  isSmoke: boolean,
): Promise<Record<string, number> | undefined> {
  const figures: Record<string, number> = {};
  bed = new Testbed(scene);
  try {
    bed.place(await peer.up(bed), scene.mtu - peer.overhead);
    await bed.reach();
    for (const measure of measures) {
      const values = await measure.run(bed, seconds);
      measure.figures.forEach(({ name }, i) => {
        if (values[i] !== undefined) figures[name] = values[i];
      });
    }
    return figures;
  } catch (error) {
    // Of what is as short as can be nothing is missing but for a fault.
    if (isSmoke) throw error;
    console.log(`peer ${peer.name}, ${describe(scene)}: no figures, ${(error as Error).message}`);
    return undefined;
  } finally {
    await bed.close();
    bed = undefined;
  }
}

function print(report: Report, { rounds, seconds, json, anchor }: Options, peers: readonly Peer[]): void {
  console.log(
    `\nend to end, ${rounds} rounds of ${seconds} s: medians, half the spread, ` +
      `and ratio to ${anchor} of the same round\n\n${report.table()}`,
  );
  const machine = { cpus: cpus().length, cpu: cpus()[0]?.model, arch: arch(), kernel: release() };
  const versions = { node: process.version };
  const compared = peers.map(({ name, what }) => ({ name, what }));
  if (json !== undefined) writeFileSync(json, report.json({ machine, versions, rounds, seconds, compared }));
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}
