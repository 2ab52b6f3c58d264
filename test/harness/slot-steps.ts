/**
 * The target table of one address after the other in the same slot, written a second time: main
 * (`src/datapath/target-table.ts`) and a worker's lookup (`assembly/target.ts`). A step is one access to a shared word.
 *
 * All addresses are looked for from slot 0 on. A comes and goes there, B gets its slot, C is in slot 1 throughout.
 */
import type { Thread } from './explore.js';

/** What keeps a lookup right; a test leaves one out and sees that it no longer is. */
export interface SlotRules {
  /** An entry that ends has another key at once: who comes after it does not find its slot. */
  readonly unlinksFirst: boolean;
  /** Between an entry's end and its slot's next owner every worker moves on. */
  readonly quiescesBeforeReclaim: boolean;
  /** An address that has come back and left again is not given back with what left before. */
  readonly reclaimsWhatLeftBefore: boolean;
  /** A slot that is given back does not end a probe. */
  readonly marksFree: boolean;
  /** An entry changes in one store. */
  readonly storesAtOnce: boolean;
  /** A table that was replaced is freed after every worker has moved on. */
  readonly quiescesBeforeFreeing: boolean;
}

export const allSlotRules: SlotRules = {
  unlinksFirst: true,
  quiescesBeforeReclaim: true,
  reclaimsWhatLeftBefore: true,
  marksFree: true,
  storesAtOnce: true,
  quiescesBeforeFreeing: true,
};

type Mac = 'A' | 'B' | 'C';

interface Slot {
  key: Mac | 'free' | 'left' | '';
  /** Address and version, '' for none. */
  entry: string;
}

export interface SlotState {
  // Words that both use.
  tables: [Slot[], Slot[]];
  published: number;
  isRunning: boolean;
  hasMoved: boolean;
  // The worker's own.
  at: 'parked' | 'begin' | 'table' | 'key' | 'entry' | 'leaving';
  mac: Mac;
  table: number;
  slot: number;
  /** What the lookup has found, undefined while it is under way. */
  found: string | null;
  // Main's own, and what it has made of each address so far.
  step: number;
  value: Record<Mac, string>;
  /** What the address was at any time since the lookup began. */
  allowed: string[];
}

export function slotState(): SlotState {
  const freed: Slot = { key: 'free', entry: '' };
  const unused: Slot = { key: '', entry: '' };
  return {
    tables: [
      [freed, { key: 'C', entry: 'C1' }, unused],
      [{ ...unused }, { ...unused }, { ...unused }],
    ],
    published: 0,
    isRunning: false,
    hasMoved: false,
    at: 'parked',
    mac: 'A',
    table: 0,
    slot: 0,
    found: null,
    step: 0,
    value: { A: '', B: '', C: 'C1' },
    allowed: [],
  };
}

/** Looks one address up after the other, any of them each time. */
export const readerThread: Thread<SlotState> = {
  name: 'worker',
  step: ({ at }) => {
    switch (at) {
      case 'parked':
        return [
          (state) => {
            state.isRunning = true;
            state.hasMoved = true;
            state.at = 'begin';
          },
        ];
      case 'begin':
        return (['A', 'B', 'C'] as const).map((mac) => (state: SlotState) => begin(state, mac));
      case 'table':
        return [
          (state) => {
            state.table = state.published;
            state.slot = 0;
            state.at = 'key';
          },
        ];
      case 'key':
        return [compareKey];
      case 'entry':
        return [(state) => finish(state, state.tables[state.table]![state.slot]!.entry)];
      case 'leaving':
        return [
          (state) => {
            state.isRunning = false;
            state.hasMoved = true;
            state.found = null;
            state.allowed = [];
            state.at = 'parked';
          },
        ];
    }
  },
};

function begin(state: SlotState, mac: Mac): void {
  state.mac = mac;
  state.allowed = [state.value[mac]];
  state.found = null;
  state.at = 'table';
}

function compareKey(state: SlotState): void {
  const { key } = state.tables[state.table]![state.slot]!;
  if (key === state.mac) state.at = 'entry';
  else if (key === '' || state.slot === 2) finish(state, '');
  else state.slot++;
}

function finish(state: SlotState, found: string): void {
  state.found = found;
  state.at = 'leaving';
}

/** What an address is from now on. */
function become(state: SlotState, mac: Mac, value: string): void {
  state.value[mac] = value;
  allow(state, mac, value);
}

/** What a lookup that is under way may find as well. */
function allow(state: SlotState, mac: Mac, value: string): void {
  if (state.mac === mac && state.found === null && state.at !== 'parked') state.allowed.push(value);
}

type Act = (state: SlotState) => void;
/** One of main's steps; a step that waits says for what. */
interface MainStep {
  readonly act: Act;
  readonly isReady?: (state: SlotState) => boolean;
}

const entryOf = (table: number, slot: number, entry: string, mac?: Mac): MainStep => ({
  act: (state) => {
    state.tables[table]![slot]!.entry = entry;
    if (mac) become(state, mac, entry);
  },
});
const keyOf = (table: number, slot: number, key: Slot['key'], mac?: Mac): MainStep => ({
  act: (state) => {
    state.tables[table]![slot]!.key = key;
    if (mac) become(state, mac, state.tables[table]![slot]!.entry);
  },
});
const look: MainStep = {
  act: (state) => {
    state.hasMoved = !state.isRunning;
  },
};
const moved: MainStep = { act: () => {}, isReady: ({ hasMoved }) => hasMoved };
const publish: MainStep = {
  act: (state) => {
    state.published = 1;
  },
};
/** The memory is somebody else's now, and whatever they write there. */
const reuse: MainStep = {
  act: (state) => {
    state.tables[0] = [
      { key: 'C', entry: 'X' },
      { key: 'B', entry: 'X' },
      { key: '', entry: '' },
    ];
  },
};

/** The entry first: whoever found the key before it left sees it then, all others with the key. */
function comeBack({ unlinksFirst }: SlotRules): readonly MainStep[] {
  if (!unlinksFirst) return [entryOf(0, 0, 'A3', 'A')];
  const entry: MainStep = {
    act: (state) => {
      entryOf(0, 0, 'A3').act(state);
      allow(state, 'A', 'A3');
    },
  };
  return [entry, keyOf(0, 0, 'A', 'A')];
}

/** What main does, from the first step to the last. */
function script(rules: SlotRules): readonly MainStep[] {
  const freed = rules.marksFree ? 'free' : '';
  const quiesce = (isDone: boolean) => (isDone ? [look, moved] : []);
  const unlinked = rules.unlinksFirst ? [keyOf(0, 0, 'left')] : [];
  return [
    // insert A, update it
    entryOf(0, 0, 'A1'),
    keyOf(0, 0, 'A', 'A'),
    ...(rules.storesAtOnce ? [] : [entryOf(0, 0, 'half')]),
    entryOf(0, 0, 'A2', 'A'),
    // remove it; while the worker moves on it comes back and leaves again
    entryOf(0, 0, '', 'A'),
    ...unlinked,
    ...(rules.quiescesBeforeReclaim ? [look] : []),
    ...comeBack(rules),
    entryOf(0, 0, '', 'A'),
    ...unlinked,
    ...(rules.quiescesBeforeReclaim ? [moved] : []),
    ...quiesce(rules.quiescesBeforeReclaim && rules.reclaimsWhatLeftBefore),
    // reclaim the slot, insert B there
    keyOf(0, 0, freed),
    entryOf(0, 0, 'B1'),
    keyOf(0, 0, 'B', 'B'),
    // grow: fill another table, publish it, free the first
    entryOf(1, 0, 'C1'),
    keyOf(1, 0, 'C'),
    entryOf(1, 1, 'B1'),
    keyOf(1, 1, 'B'),
    publish,
    entryOf(1, 1, 'B2', 'B'),
    ...quiesce(rules.quiescesBeforeFreeing),
    reuse,
    // remove B
    entryOf(1, 1, '', 'B'),
  ];
}

export function writerThread(rules: SlotRules): Thread<SlotState> {
  const steps = script(rules);
  return {
    name: 'main',
    step: (state) => {
      const next = steps[state.step];
      if (!next || next.isReady?.(state) === false) return [];
      return [
        (now) => {
          now.step++;
          next.act(now);
        },
      ];
    },
  };
}

/** True when main has done all. */
export function isWritten(state: SlotState, rules: SlotRules): boolean {
  return state.step === script(rules).length && state.at === 'parked';
}

/** A lookup that found what its address never was in the meantime. */
export function misread({ mac, found, allowed }: SlotState): string | undefined {
  if (found === null || allowed.includes(found)) return undefined;
  return `${mac} was looked up: '${found}' was found, it was '${allowed.join("', '")}'`;
}
