/**
 * The target cache with its table, rings and workers against a `Map` (`reference/target-cache.ts`): random sequences of
 * everything that can happen, and every short one. MODEL_SEED repeats a run, MODEL_SEQUENCES makes it longer.
 */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PropertyStore } from '../src/property.js';
import { randomBetween } from '../src/sys/random.js';
import {
  HELD_BYTES_PER_DEVICE_MAX,
  HELD_BYTES_PER_TARGET_MAX,
  HELD_FRAMES_PER_TARGET_MAX,
} from '../src/target/budget.js';
import type { HeldFrame } from '../src/target/services.js';
import { Dispatcher } from '../src/varpd/dispatch.js';
import { type AnswerKind, CacheRig, routes, subjectOf } from './harness/cache-rig.js';
import { formatStep, macs, type Step, World, type WorldOptions } from './harness/cache-world.js';
import { numberedFrame, WorkerRig } from './harness/worker-rig.js';
import { Xorshift } from './harness/xorshift.js';

const SEED = Number(process.env.MODEL_SEED ?? randomBetween(1, 0x7fffffff));
const SEQUENCES = Number(process.env.MODEL_SEQUENCES ?? 20_000);
const STEPS_MAX = 60;
/** Length up to which every sequence is tried. */
const EXHAUSTIVE_STEPS = 6;

/** The same for the order of frames to one address. */
const ORDER_STEPS = 10;

const model = suite('target cache against a Map');
const rig = new WorkerRig();

/** A step as fast-check wants it. */
class StepCommand implements fc.Command<World, World> {
  constructor(readonly step: Step) {}

  check(world: Readonly<World>): boolean {
    return world.isPossible(this.step);
  }

  run(world: World): void {
    world.perform(this.step);
  }

  toString(): string {
    return formatStep(this.step);
  }
}

const macIndex = fc.nat({ max: macs.length - 1 });
const worker = fc.nat({ max: 1 });
const route = fc.nat({ max: 3 });
const how = fc.constantFrom<AnswerKind>('route', 'route', 'drop', 'unknown', 'proxied');
const isLast = fc.boolean();
const bytes = fc.constantFrom(60, 60, 60, 1500, 20_000);
const ms = fc.constantFrom(100, 1000, 2000, 4000, 8000);

/** A command for each step of the record; the number says how often it is taken. */
const steps: readonly [number, fc.Arbitrary<Step>][] = [
  [
    8,
    fc.record({ kind: fc.constant('frame' as const), worker, mac: macIndex, bytes, count: fc.constant(1) }),
  ],
  [
    2,
    fc.record({ kind: fc.constant('frame' as const), worker, mac: macIndex, bytes, count: fc.constant(3) }),
  ],
  [3, fc.record({ kind: fc.constant('arp' as const), worker })],
  [1, fc.record({ kind: fc.constant('source' as const), mac: macIndex })],
  [4, fc.record({ kind: fc.constant('resume' as const), worker })],
  [5, fc.record({ kind: fc.constant('misses' as const) })],
  [1, fc.record({ kind: fc.constant('take' as const), mac: macIndex })],
  [1, fc.record({ kind: fc.constant('requeue' as const), mac: macIndex })],
  [6, fc.record({ kind: fc.constant('answer' as const), mac: macIndex, how, route })],
  [3, fc.record({ kind: fc.constant('answerProxy' as const), how, isLast })],
  [1, fc.record({ kind: fc.constant('late' as const), mac: macIndex, how, isLast })],
  [2, fc.record({ kind: fc.constant('time' as const), ms })],
  [2, fc.record({ kind: fc.constant('set' as const), mac: macIndex, route })],
  [1, fc.record({ kind: fc.constant('setDrop' as const), mac: macIndex })],
  [2, fc.record({ kind: fc.constant('remove' as const), mac: macIndex })],
  [1, fc.record({ kind: fc.constant('flush' as const) })],
  [8, fc.record({ kind: fc.constant('round' as const) })],
  [1, fc.record({ kind: fc.constant('reclaim' as const) })],
  [1, fc.record({ kind: fc.constant('policy' as const), how: fc.option(how, { nil: undefined }), route })],
  [1, fc.record({ kind: fc.constant('squeeze' as const), isTight: fc.boolean() })],
];
const command = fc
  .oneof(...steps.map(([weight, arbitrary]) => ({ weight, arbitrary })))
  .map((step) => new StepCommand(step));
const closing = fc.constant(new StepCommand({ kind: 'close' }));
const sequence = fc.commands([...new Array<typeof command>(40).fill(command), closing], {
  maxCommands: STEPS_MAX,
  size: 'max',
});
const worldOptions: fc.Arbitrary<WorldOptions> = fc.record({
  targetsMax: fc.constantFrom(1, 2, 3, 100),
  negativeMs: fc.constantFrom(0, 1000, 5000),
  requestsMax: fc.constantFrom(1, 2, 100),
  heldMax: fc.constantFrom(100, 2000, 200_000),
});

/** What a run must have come to, so that it says anything. */
const REACHED = [
  'pending',
  'draining',
  'valid',
  'drop',
  'late',
  'set ENOSPC',
  'set ENOMEM',
  'answer refused',
  'sent by route 0',
  'sent by route 1',
  'sent by route 2',
  'sent by route 3',
];

model(`${SEQUENCES} random sequences of up to ${STEPS_MAX} steps, seed ${SEED}`, () => {
  let sequences = 0;
  let performed = 0;
  fc.assert(
    fc.property(worldOptions, sequence, (options, commands) => {
      const world = new World(rig, options);
      fc.modelRun(() => ({ model: world, real: world }), commands);
      world.finish();
      sequences++;
      performed += world.performed;
    }),
    { numRuns: SEQUENCES, seed: SEED, includeErrorInReport: true },
  );
  for (const what of REACHED) {
    assert.ok((World.reached.get(what) ?? 0) > SEQUENCES / 1000, `${what} was hardly reached`);
  }
  console.log(`  ${sequences} sequences, ${performed} steps, seed ${SEED}`);
});

/** What happens to one address, and what to all, as the steps of the exhaustive search; some are of several. */
const alphabet: readonly (readonly Step[])[] = [
  ...[0, 1].flatMap((mac): Step[][] => [
    [{ kind: 'frame', worker: 0, mac, bytes: 60, count: 1 }, { kind: 'misses' }],
    [{ kind: 'answer', mac, how: 'route', route: 0 }],
    [{ kind: 'answer', mac, how: 'drop', route: 0 }],
    [{ kind: 'answer', mac, how: 'unknown', route: 0 }],
    [{ kind: 'late', mac, how: 'route', isLast: true }],
    [{ kind: 'set', mac, route: 1 }],
    [{ kind: 'setDrop', mac }],
    [{ kind: 'remove', mac }],
  ]),
  [{ kind: 'frame', worker: 0, mac: 0, bytes: 60, count: 1 }],
  [{ kind: 'flush' }],
  [{ kind: 'time', ms: 2000 }],
  // As far as the frames are on the inject rings; until they are sent.
  [{ kind: 'round' }, { kind: 'round' }],
  [{ kind: 'round' }, { kind: 'resume', worker: 0 }, { kind: 'round' }],
  [{ kind: 'resume', worker: 0 }, { kind: 'misses' }],
];

/** Tries every sequence of letters to a length, but for those that begin as one that came to the same. */
function tryAll(letters: readonly (readonly Step[])[], lengthMax: number, options: WorldOptions): number {
  const seen = new Set<string>();
  let ends: (readonly number[])[] = [[]];
  let performed = 0;
  for (let length = 1; length <= lengthMax; length++) {
    const next: (readonly number[])[] = [];
    for (const before of ends) {
      for (const [letter, added] of letters.entries()) {
        const world = new World(rig, options);
        // Everything before was looked at when it was new.
        for (const each of before) for (const step of letters[each]!) world.repeat(step);
        if (!world.isPossible(added[0]!)) continue;
        const path = [...before, letter];
        try {
          for (const step of added) if (world.isPossible(step)) world.perform(step);
          performed++;
          const { summary } = world;
          if (seen.has(summary)) continue;
          seen.add(summary);
          next.push(path);
          world.finish();
        } catch (error) {
          const story = path.flatMap((each) => letters[each]!.map(formatStep)).join(', ');
          throw new Error(`${story}: ${(error as Error).message}`, { cause: error });
        }
      }
    }
    ends = next;
  }
  console.log(`  ${seen.size} states, ${performed} steps from them`);
  return seen.size;
}

for (const options of [
  { targetsMax: 100, negativeMs: 1000, requestsMax: 100, heldMax: 2000 },
  { targetsMax: 1, negativeMs: 0, requestsMax: 1, heldMax: 70 },
] satisfies WorldOptions[]) {
  const what = JSON.stringify(options);
  model(`every sequence to length ${EXHAUSTIVE_STEPS} over two addresses, ${what}`, () => {
    const states = tryAll(alphabet, EXHAUSTIVE_STEPS, options);
    assert.ok(states > 5000, `only ${states} states`);
  });
}

model('no frame overtakes another of its target and worker, though the target is removed in between', () => {
  const letters: Step[] = [
    { kind: 'frame', worker: 0, mac: 0, bytes: 60, count: 1 },
    { kind: 'misses' },
    { kind: 'resume', worker: 0 },
    { kind: 'round' },
    { kind: 'set', mac: 0, route: 0 },
    { kind: 'answer', mac: 0, how: 'route', route: 1 },
    { kind: 'remove', mac: 0 },
  ];
  const options = { targetsMax: 2, negativeMs: 0, requestsMax: 100, heldMax: 2000 };
  const steps = letters.map((step) => [step]);
  const states = tryAll(steps, ORDER_STEPS, { ...options, isOrderKeptByRemoval: true });
  assert.ok(states > 1000, `only ${states} states`);
});

// ─── What neither of the two comes to ───────────────────────────────────────────────────────────────────

const roomy = { targetsMax: 100, negativeMs: 0, requestsMax: 100, heldMax: 2 ** 26 };
const frameTo = (mac: number, bytes: number): HeldFrame => ({
  frame: numberedFrame(0, mac, bytes),
  worker: 0,
});

model('what a target, a device and the process may hold', () => {
  const { cache, effects, held } = new CacheRig(rig, roomy);
  for (let frame = 0; frame < HELD_FRAMES_PER_TARGET_MAX + 3; frame++) cache.miss(1, frameTo(1, 100));
  assert.equal([...effects.drops], [['tx_held_full', 3]]);
  assert.is(cache.stats.heldFrames, HELD_FRAMES_PER_TARGET_MAX);
  const large = 2 ** 16;
  const perTarget = HELD_BYTES_PER_TARGET_MAX / large;
  for (let frame = 0; frame < perTarget + 1; frame++) cache.miss(2, frameTo(2, large));
  assert.is(effects.drops.get('tx_held_full'), 4);
  assert.is(cache.get(2)?.state, 'pending');
  for (let mac = 3; mac < 30; mac++) {
    for (let frame = 0; frame < perTarget; frame++) cache.miss(mac, frameTo(mac, large));
  }
  assert.ok(cache.stats.heldBytes <= HELD_BYTES_PER_DEVICE_MAX, `${cache.stats.heldBytes} bytes`);
  assert.ok(cache.stats.heldBytes > HELD_BYTES_PER_DEVICE_MAX - large, `${cache.stats.heldBytes} bytes`);
  assert.ok(effects.drops.get('tx_held_full_device')! > 100);
  assert.is(held.bytes, cache.stats.heldBytes);
  cache.close();
  assert.is(held.bytes, 0);
  assert.equal(cache.stats, { targets: 0, requests: 0, heldFrames: 0, heldBytes: 0 });
});

model('a target that is full is no longer when a frame of it has gone', () => {
  const world = new World(rig, { ...roomy, targetsMax: 2 });
  const frames = (count: number): Step => ({ kind: 'frame', worker: 0, mac: 0, bytes: 60, count });
  const drain: Step = { kind: 'misses' };
  // Within the device's share of the miss ring.
  const some = HELD_FRAMES_PER_TARGET_MAX / 8;
  for (let part = 0; part < 8; part++) for (const step of [frames(some), drain]) world.perform(step);
  // One too many makes it full; the next one is dropped by the worker.
  for (const step of [frames(1), drain, frames(1)]) world.perform(step);
  assert.equal([...rig.workerDrops()], [['tx_held_full', 1]]);
  world.perform({ kind: 'answer', mac: 0, how: 'drop', route: 0 });
  for (const step of [frames(1), drain, frames(1), drain, frames(1)]) world.perform(step);
  assert.equal([...rig.workerDrops()], [['tx_held_full', 2]]);
  world.perform({ kind: 'answer', mac: 0, how: 'route', route: 0 });
  world.finish();
});

model('a thousand frames that are dropped one by one, each by an answer at once', () => {
  const world = new CacheRig(rig, roomy);
  const { cache, effects, requests } = world;
  for (let frame = 0; frame < HELD_FRAMES_PER_TARGET_MAX; frame++) cache.miss(1, frameTo(1, 60));
  const faults: string[] = [];
  const dispatcher = new Dispatcher(
    { properties: new PropertyStore([]), start: () => {}, stop: () => {}, lookup: () => 'drop' },
    {
      overlay: 'ov0',
      vnetid: 42n,
      destinations: 0,
      inject: () => {},
      resend: () => {},
      fault: (text) => faults.push(text),
      recovered: () => {},
    },
  );
  world.asked = (request) => dispatcher.ask(request);
  requests[0]!.drop();
  assert.equal(faults, []);
  assert.equal([...effects.drops], [['tx_lookup_drop', HELD_FRAMES_PER_TARGET_MAX]]);
  assert.equal(cache.stats, { targets: 0, requests: 0, heldFrames: 0, heldBytes: 0 });
  assert.is(cache.stateOf(1), 'absent');
});

model('what is shown of a target that is being asked about is its own', () => {
  const world = new CacheRig(rig, { ...roomy, targetsMax: 1000, requestsMax: 1000 });
  const { cache } = world;
  world.nowMs = 50_000;
  cache.set(1, routes[0]!, 'operator');
  cache.remove(1);
  world.stepReclaim();
  world.stepReclaim();
  world.nowMs = 90_000;
  for (let mac = 2; mac < 400; mac++) cache.miss(mac, frameTo(mac, 60));
  for (let mac = 2; mac < 400; mac++) {
    const { state, source, ageSeconds } = cache.get(mac)!;
    assert.equal({ state, source, ageSeconds }, { state: 'pending', source: 'lookup', ageSeconds: 0 });
  }
});

model('a question about a source that is answered with drop costs no frame', () => {
  const world = new CacheRig(rig, roomy);
  world.cache.missSource(1, numberedFrame(1, 1, 28));
  world.cache.miss(1, { frame: numberedFrame(2, 1, 60), worker: 0 });
  world.requests[0]!.drop();
  assert.equal([...world.effects.drops], []);
  assert.equal(world.requests.map(subjectOf), [1, 2]);
});

model('a device is not late any more when a proxy has answered in time', () => {
  const world = new CacheRig(rig, roomy);
  world.cache.missProxy(1, frameTo(1, 60));
  world.nowMs += 2000;
  world.cache.tick();
  world.cache.missProxy(1, frameTo(1, 60));
  world.requests[1]!.drop(true);
  assert.equal(world.effects.late, [true, false]);
});

model('a full ring or queue costs the frame, and says so', () => {
  const world = new CacheRig(rig, roomy);
  const [worker] = rig.workers;
  const frames = (mac: number) => Array.from({ length: 40 }, (_, each) => numberedFrame(each, mac, 60_000));
  worker!.transmit(rig.device, frames(1));
  const missed = worker!.missNumbers().length;
  assert.equal([...rig.workerDrops()], [['tx_miss_share', 40 - missed]]);
  world.cache.set(2, routes[0]!, 'operator');
  worker!.transmit(rig.device, frames(2));
  const waiting = worker!.waitNumbers().length;
  assert.is(rig.workerDrops().get('tx_wait_share'), 40 - waiting);
  assert.ok(missed > 5 && waiting > 3, `${missed} on the ring, ${waiting} wait`);
});

model('an iteration shows each target that stays once, in order, whatever happens between its pages', () => {
  const random = new Xorshift(SEED);
  for (let round = 0; round < 200; round++) {
    const { cache } = new CacheRig(rig, roomy);
    const staying = new Set<number>();
    for (let each = 0; each < 30; each++) {
      const mac = random.below(2 ** 20) * 2;
      staying.add(mac);
      cache.set(mac, routes[0]!, 'operator');
    }
    const others = Array.from({ length: 60 }, () => random.below(2 ** 20) * 2 + 1);
    // Another reader's walk may begin, go on and end in between.
    let otherMarker: number | undefined;
    const seen: number[] = [];
    let marker: number | undefined = 0;
    while (marker !== undefined) {
      const page = cache.iterate(marker, 1 + random.below(7));
      seen.push(...page.targets.map(({ mac }) => mac));
      marker = page.next;
      for (let change = random.below(4); change > 0; change--) {
        const mac = others[random.below(others.length)]!;
        if (cache.stateOf(mac) === 'absent') cache.setDrop(mac, 'operator');
        else cache.remove(mac);
      }
      if (random.below(3) === 0) otherMarker = cache.iterate(otherMarker ?? 0, 5).next;
    }
    const ordered = [...seen].sort((a, b) => a - b);
    assert.equal(seen, ordered);
    assert.is(new Set(seen).size, seen.length, 'one comes twice');
    for (const mac of staying) assert.ok(seen.includes(mac), `${mac} is there throughout and was not shown`);
  }
});

model('a walk that begins at an address shows what is there then', () => {
  const { cache } = new CacheRig(rig, roomy);
  for (const mac of [10, 20, 30]) cache.set(mac, routes[0]!, 'operator');
  cache.iterate(0, 1);
  cache.set(25, routes[0]!, 'operator');
  assert.equal(
    cache.iterate(15, 10).targets.map(({ mac }) => mac),
    [20, 25, 30],
  );
});

model.run();
