/** The flags of the end-to-end bench. */
import type { parseArgs } from 'node:util';
import { OverlayError } from '../src/errors.js';
import { allowedCpus } from '../src/sys/affinity.js';
import { type Measure, measures } from './measures/index.js';
import { ANCHOR, type Peer, peers, usualPeers } from './peers/index.js';
import { type Placement, placements } from './scene.js';

/** As `parseArgs` of node:util takes them. */
export const flags = {
  peers: { type: 'string' },
  measures: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  mtu: { type: 'string' },
  placement: { type: 'string' },
  'one-core': { type: 'boolean' },
  json: { type: 'string' },
  svg: { type: 'string' },
  'install-peers': { type: 'boolean' },
  anchor: { type: 'string' },
} as const;

export type Flags = ReturnType<typeof parseArgs<{ options: typeof flags }>>['values'];

export interface Options {
  readonly peers: readonly Peer[];
  readonly measures: readonly Measure[];
  readonly rounds: number;
  /** Of one TCP stream; the other measures take a part of it. */
  readonly seconds: number;
  readonly mtus: readonly number[];
  readonly placements: readonly Placement[];
  /** Whether each scene is also measured with one core for each host. */
  readonly oneCore: readonly boolean[];
  readonly json: string | undefined;
  readonly svg: string | undefined;
  readonly isInstalling: boolean;
  /** Name of the peer that the others are compared with. */
  readonly anchor: string;
}

const ROUNDS = 3;
const SECONDS = 2;
/** Below lies what IPv4 and an overlay need; above, what a virtual link takes. */
const [MTU_MIN, MTU_MAX] = [1280, 9216];
const SMOKE_PEERS = ['kernel', 'overlayd'];

/** Reads the flags; with `isSmoke`, what is not given is as short as can be. Throws EINVAL `bad_flag`. */
export function readOptions(given: Flags, isSmoke: boolean): Options {
  const mtus = list('mtu', given.mtu) ?? ['1500'];
  return {
    peers: chosen('peers', given.peers, peers, isSmoke ? SMOKE_PEERS : usualPeers),
    measures: chosen('measures', given.measures, measures),
    rounds: whole('rounds', given.rounds ?? `${isSmoke ? 1 : ROUNDS}`, 1, 1000),
    seconds: whole('seconds', given.seconds ?? `${isSmoke ? 1 : SECONDS}`, 1, 60),
    mtus: mtus.map((mtu) => whole('mtu', mtu, MTU_MIN, MTU_MAX)),
    placements: (list('placement', given.placement) ?? ['tap']).map((name) => {
      const placement = placements.find((each) => each === name);
      return placement ?? refuse('placement', name, `is one of ${placements.join(', ')}`);
    }),
    oneCore: given['one-core'] ? [false, enoughCpus()] : [false],
    json: given.json,
    svg: given.svg,
    isInstalling: given['install-peers'] ?? false,
    anchor: chosen('anchor', given.anchor ?? ANCHOR, peers)[0]!.name,
  };
}

function list(flag: string, text: string | undefined): string[] | undefined {
  const parts = text?.split(',');
  return parts?.includes('') ? refuse(flag, text!, 'is a list with commas') : parts;
}

/** Those that are named, in the order of the table. */
function chosen<T extends { readonly name: string }>(
  flag: string,
  text: string | undefined,
  all: readonly T[],
  otherwise?: readonly string[],
): readonly T[] {
  const names = list(flag, text) ?? otherwise;
  if (!names) return all;
  const unknown = names.find((name) => !all.some((each) => each.name === name));
  if (unknown !== undefined) refuse(flag, unknown, `is one of ${all.map(({ name }) => name).join(', ')}`);
  return all.filter(({ name }) => names.includes(name));
}

function whole(flag: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  return refuse(flag, text, `is a whole number from ${least} to ${most}`);
}

/** True, for one CPU a host. Throws EINVAL `bad_flag` on a machine with a single one. */
function enoughCpus(): true {
  if (allowedCpus().length >= 2) return true;
  throw new OverlayError('EINVAL', 'bad_flag', '--one-core needs two CPUs, one for each host');
}

function refuse(flag: string, text: string, what: string): never {
  throw new OverlayError('EINVAL', 'bad_flag', `--${flag} ${text}: it ${what}`);
}
