/**
 * A reload of the configuration as a diff: what has to be done to get from the settings in force to the new ones. Nothing
 * is done here; `apply.ts` does it, as a whole or not at all.
 */
import type { Config } from './config.js';
import type { Declared, DeclaredOverlays } from './declared.js';

/** Who may use the control socket, and how. */
export type Access = Pick<Config, 'socketMode' | 'group' | 'adminGroup'>;

export type Step =
  | { readonly kind: 'access'; readonly from: Access; readonly to: Access }
  | { readonly kind: 'delete'; readonly name: string; readonly was: Declared }
  /** The link stays: values are set, and those that are not said any more go back to their defaults. */
  | {
      readonly kind: 'change';
      readonly name: string;
      readonly was: Declared;
      readonly to: Declared;
      readonly set: readonly (readonly [property: string, value: string | number])[];
      readonly unset: readonly string[];
    }
  | { readonly kind: 'create'; readonly name: string; readonly to: Declared }
  | { readonly kind: 'log_level'; readonly from: string; readonly to: string };

/** Steps in the order in which they are to be done, or the settings that cannot change while the daemon runs. */
export type Plan = { readonly steps: readonly Step[] } | { readonly refused: readonly string[] };

/** What is reserved, opened or started once, by the key of the file. */
const restartKeys = {
  workers: 'workers',
  threads: 'threads',
  memory: 'memoryBytes',
  pin: 'pin',
  bank: 'bank',
  batch: 'batch',
  ring: 'ring',
  busyPoll: 'busyPoll',
  socket: 'socket',
  stateDir: 'stateDir',
  plugin: 'plugin',
} as const satisfies Record<string, keyof Config>;

/**
 * First what gives nothing up when it fails (access), then what makes room (deletions), changes, creations, and last what
 * cannot fail (the log level). An overlay that becomes another thing (encap, search, temporary), or that takes over a vnetid
 * which another had, is deleted and created.
 */
export function planReload(before: Config, after: Config): Plan {
  const refused = Object.entries(restartKeys)
    .filter(([, key]) => !isSame(before[key], after[key]))
    .map(([name]) => name);
  if (refused.length > 0) return { refused };
  const [from, to] = [accessOf(before), accessOf(after)];
  const access: Step[] = isSame(from, to) ? [] : [{ kind: 'access', from, to }];
  const log: Step[] =
    before.logLevel === after.logLevel
      ? []
      : [{ kind: 'log_level', from: before.logLevel, to: after.logLevel }];
  return { steps: [...access, ...overlaySteps(before.overlays, after.overlays), ...log] };
}

function accessOf({ socketMode, group, adminGroup }: Config): Access {
  return { socketMode, group, adminGroup };
}

function overlaySteps(before: DeclaredOverlays, after: DeclaredOverlays): Step[] {
  const deletions: Step[] = [];
  const changes: Step[] = [];
  const creations: Step[] = [];
  const taken = new Set([...before.values()].map(vnetOf));
  for (const [name, was] of before) {
    const to = after.get(name);
    if (to && isSame(normal(was), normal(to))) continue;
    const isVnetTaken = to && vnetOf(to) !== vnetOf(was) && taken.has(vnetOf(to));
    if (to && !isVnetTaken && isKept(was, to)) {
      changes.push({ kind: 'change', name, was, to, ...changesOf(was, to) });
    } else {
      deletions.push({ kind: 'delete', name, was });
      if (to) creations.push({ kind: 'create', name, to });
    }
  }
  for (const [name, to] of after) {
    if (!before.has(name)) creations.push({ kind: 'create', name, to });
  }
  return [...deletions, ...changes, ...creations];
}

/** No two overlays have the same. */
function vnetOf({ encap, vnetid }: Declared): string {
  return `${encap} ${vnetid}`;
}

function isKept(was: Declared, to: Declared): boolean {
  return (
    was.encap === to.encap && was.search === to.search && (was.temporary ?? false) === (to.temporary ?? false)
  );
}

function changesOf(was: Declared, to: Declared): Pick<Step & { kind: 'change' }, 'set' | 'unset'> {
  const olds = new Map(Object.entries({ vnetid: was.vnetid, ...was.properties }));
  const news = new Map(Object.entries({ vnetid: to.vnetid, ...to.properties }));
  const set = [...news].filter(([property, value]) => String(value) !== String(olds.get(property)));
  return { set, unset: [...olds.keys()].filter((property) => !news.has(property)) };
}

/** Two ways of writing the same are the same: 42 and '42', and the order of properties. */
function normal({ encap, search, vnetid, properties, temporary = false }: Declared): unknown {
  const values = Object.entries(properties).map(([property, value]) => [property, String(value)] as const);
  values.sort(([a], [b]) => (a < b ? -1 : 1));
  return [encap, search, String(vnetid), values, temporary];
}

/** Of settings: text, numbers, lists and records of them, always written in the same order. */
function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
