/**
 * How fast is a whole overlay between two hosts, beside the kernel's VXLAN and others in the same rounds? Peers are
 * interleaved, round by round, so that a change in the machine's load falls on all of them.
 */
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { arch, cpus, release } from 'node:os';
import { dirname } from 'node:path';
import { has } from '../test/harness/needs.js';
import { chart } from './chart.js';
import { install } from './install.js';
import type { Measure } from './measures/index.js';
import { type Flags, type Options, readOptions } from './options.js';
import type { Peer } from './peers/index.js';
import { Report, type Sample } from './report.js';
import { describe, type Scene } from './scene.js';
import { Testbed } from './testbed.js';
import { othersSeconds } from './usage.js';

/** Exit code of a program that SIGINT has ended. */
const INTERRUPTED = 130;
/** What every peer's round needs. */
const NEEDS = ['root', '/dev/net/tun', 'ip', 'ping'];

/** The testbed that is there: who interrupts takes it down. */
let bed: Testbed | undefined;
let isInterrupted = false;

/** What was measured until then is still shown. */
function interrupt(): void {
  isInterrupted = true;
  void bed?.close();
}

/**
 * Measures and prints; writes files where flags say so. Ends this process when it is interrupted. Throws EINVAL
 * `bad_flag`.
 */
export async function main(given: Flags & { readonly smoke: boolean }): Promise<void> {
  const options = readOptions(given, given.smoke);
  const missing = NEEDS.filter((need) => !has(need));
  if (missing.length > 0) {
    console.log(`end-to-end: not measured, it needs ${missing.join(', ')}`);
    return;
  }
  for (const file of [options.json, options.svg]) if (file !== undefined) makeWritable(file);
  if (options.isInstalling) install(options.peers);
  const peers = present(options.peers, 'peer');
  const measures = present(options.measures, 'measure');
  const scenes = options.oneCore.flatMap((isOneCore) =>
    options.mtus.flatMap((mtu) => options.placements.map((placement) => ({ mtu, placement, isOneCore }))),
  );
  const unfit = peers.filter((peer) => !scenes.every((scene) => fits(peer, scene)));
  for (const { name } of unfit)
    console.log(`peer ${name}: with --placement tap only, it carries no Ethernet`);
  const turns = Array.from({ length: options.rounds }, (_, round) =>
    scenes.flatMap((scene) =>
      peers.filter((peer) => fits(peer, scene)).map((peer) => ({ round, scene, peer })),
    ),
  ).flat();
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
  const samples: Sample[] = [];
  for (const { round, scene, peer } of turns) {
    if (isInterrupted) break;
    progress(`round ${round + 1} of ${options.rounds}, ${describe(scene)}: ${peer.name}`);
    const [begun, before] = [performance.now(), othersSeconds()];
    const figures = await sample(scene, peer, measures, options, given.smoke);
    const others = Math.max(0, othersSeconds() - before) / ((performance.now() - begun) / 1000);
    if (figures) samples.push({ scene, round, peer: peer.name, figures, others });
  }
  progress('');
  if (samples.length > 0) print(new Report(samples, options.anchor), options, peers);
  if (isInterrupted) process.exit(INTERRUPTED);
  process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
}

/** What is above a link needs Ethernet frames of it. */
function fits({ layer }: Peer, { placement }: Scene): boolean {
  return layer === 2 || placement === 'tap';
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
    if (isInterrupted) return undefined;
    console.log(`peer ${peer.name}, ${describe(scene)}: no figures, ${(error as Error).message}${bed.log}`);
    return undefined;
  } finally {
    await bed.close();
    bed = undefined;
  }
}

function print(
  report: Report,
  { rounds, seconds, json, svg, anchor }: Options,
  peers: readonly Peer[],
): void {
  console.log(
    `\nend to end, ${rounds} rounds of ${seconds} s: medians, half the spread, ` +
      `and ratio to ${anchor} of the same round\n\n${report.table()}`,
  );
  const { median, most } = report.others;
  console.log(
    `\nother programs of the machine computed on ${median.toFixed(2)} CPUs meanwhile, on ${most.toFixed(2)} at most`,
  );
  const machine = { cpus: cpus().length, cpu: cpus()[0]?.model, arch: arch(), kernel: release() };
  const versions = { node: process.version };
  const compared = peers.map(({ name, what }) => ({ name, what }));
  if (json !== undefined) writeFileSync(json, report.json({ machine, versions, rounds, seconds, compared }));
  const [scene] = report.scenes;
  if (svg !== undefined && scene) writeFileSync(svg, chart(report, scene, anchor));
}

/** Throws now what would be thrown after an hour of measuring. */
function makeWritable(file: string): void {
  mkdirSync(dirname(file), { recursive: true });
  closeSync(openSync(file, 'a'));
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}
