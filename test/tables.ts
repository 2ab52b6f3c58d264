/** The tables that main writes and the core reads, against a Map. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { Tables } from '../src/datapath/tables.js';
import { AssertionError, OverlayError } from '../src/errors.js';
import { CoreRig } from './harness/core-rig.js';
import { Xorshift } from './harness/xorshift.js';

const SEED = 0xabcdefn;
const { VNETS_MAX, VNETS_OFFSET, VNET_BYTES } = layout;

const tables = suite('tables');
const rig = new CoreRig({ seed: SEED });
const { core, views } = rig;

/** Empty tables over the rig's memory. */
function freshTables(): Tables {
  views.u8.fill(0, VNETS_OFFSET, VNETS_OFFSET + VNETS_MAX * VNET_BYTES);
  return new Tables(views, core);
}

function slotState(slot: number): number {
  return views.u32[(VNETS_OFFSET + (slot % VNETS_MAX) * VNET_BYTES + layout.VNET_DEVICE) / 4]!;
}

/** Longest run of slots that a probe would have to walk through. */
function longestRun(): number {
  let longest = 0;
  let run = 0;
  // Twice round, since a run may go over the end.
  for (let slot = 0; slot < 2 * VNETS_MAX; slot++) {
    run = slotState(slot) === 0 ? 0 : run + 1;
    longest = Math.max(longest, run);
  }
  return longest;
}

/** Slots that hold nothing and yet do not end a probe. */
function removedSlots(): number {
  return Array.from({ length: VNETS_MAX }, (_, slot) => slotState(slot)).filter(
    (state) => state === layout.NONE,
  ).length;
}

/** Pairs whose probes begin in a few neighbouring slots, on both sides of the table's end. */
function collidingPairs(count: number): { mux: number; vnetid: bigint }[] {
  const pairs: { mux: number; vnetid: bigint }[] = [];
  for (let vnetid = 0n; pairs.length < count; vnetid++) {
    for (const mux of [0, 1, 63]) {
      const slot = core.vnetSlot(mux, vnetid) >>> 0;
      if (slot < 2 || slot >= VNETS_MAX - 3) pairs.push({ mux, vnetid });
    }
  }
  return pairs;
}

const keyOf = (mux: number, vnetid: bigint) => `${mux} ${vnetid}`;

tables('insert, remove and find do what a Map does, with every probe colliding', () => {
  const pairs = [
    ...collidingPairs(24),
    { mux: 0, vnetid: 0n },
    { mux: 63, vnetid: 0xffffffn },
    { mux: 5, vnetid: 2n ** 64n - 1n },
  ];
  const step = fc.record({
    pair: fc.integer({ min: 0, max: pairs.length - 1 }),
    device: fc.integer({ min: 0, max: 1023 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const table = freshTables();
      const model = new Map<string, number>();
      for (const { pair, device } of steps) {
        const { mux, vnetid } = pairs[pair]!;
        if (model.has(keyOf(mux, vnetid))) {
          assert.throws(
            () => table.insertVnet(mux, vnetid, device),
            (error: unknown) => error instanceof AssertionError,
          );
          table.removeVnet(mux, vnetid);
          model.delete(keyOf(mux, vnetid));
        } else {
          assert.throws(
            () => table.removeVnet(mux, vnetid),
            (error: unknown) => error instanceof AssertionError,
          );
          table.insertVnet(mux, vnetid, device);
          model.set(keyOf(mux, vnetid), device);
        }
        for (const other of pairs) {
          assert.is(table.findVnet(other.mux, other.vnetid), model.get(keyOf(other.mux, other.vnetid)));
        }
      }
      assert.ok(longestRun() <= pairs.length, 'no run is longer than what was ever there');
      for (const { mux, vnetid } of pairs) if (model.has(keyOf(mux, vnetid))) table.removeVnet(mux, vnetid);
      assert.is(longestRun(), 0, 'an emptied table is as good as new');
    }),
    { numRuns: 500 },
  );
});

tables('a pair differs from another by the mux alone', () => {
  const table = freshTables();
  for (let mux = 0; mux < layout.MUXES_MAX; mux++) table.insertVnet(mux, 42n, mux + 100);
  for (let mux = 0; mux < layout.MUXES_MAX; mux++) assert.is(table.findVnet(mux, 42n), mux + 100);
});

const CYCLES = 100_000;
/** Removed slots lengthen the runs; what is measured is about 85 and does not grow with more changes. */
const RUN_MAX = 128;

for (const [kind, next] of [
  ['random vnetids', (random: Xorshift) => BigInt(random.next() >>> 8)],
  ['neighbouring vnetids', (_: Xorshift, cycle: number) => BigInt(cycle % 0x1000000)],
] as const) {
  tables(`${CYCLES} changes of a full house of ${layout.DEVICES_MAX} with ${kind}: runs stay short`, () => {
    const table = freshTables();
    const random = new Xorshift(9);
    const live: bigint[] = [];
    const held = new Map<bigint, number>();
    let longest = 0;
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      if (live.length === layout.DEVICES_MAX) {
        const at = random.below(live.length);
        const vnetid = live[at]!;
        live[at] = live[live.length - 1]!;
        live.pop();
        table.removeVnet(0, vnetid);
        held.delete(vnetid);
        assert.is(table.findVnet(0, vnetid), undefined);
      }
      let vnetid = next(random, cycle);
      while (held.has(vnetid)) vnetid++;
      table.insertVnet(0, vnetid, cycle % layout.DEVICES_MAX);
      held.set(vnetid, cycle % layout.DEVICES_MAX);
      live.push(vnetid);
      if (cycle % 1000 === 0) longest = Math.max(longest, longestRun());
    }
    for (const [vnetid, device] of held) assert.is(table.findVnet(0, vnetid), device);
    assert.ok(longest <= RUN_MAX, `a run of ${longest}`);
    const removed = removedSlots();
    assert.ok(removed < layout.DEVICES_MAX, `${removed} slots are removed ones`);
    console.log(`  ${kind}: longest run ${longest}, ${removed} removed slots at the end`);
  });
}

tables('row pools give the row freed last and refuse beyond the limit with ENOSPC', () => {
  const table = new Tables(views, core);
  const limits = [
    [table.devices, layout.DEVICES_MAX],
    [table.muxes, layout.MUXES_MAX],
    [table.destinations, layout.DESTINATIONS_MAX],
  ] as const;
  for (const [pool, max] of limits) {
    for (let row = 0; row < max; row++) assert.is(pool.take(), row);
    assert.throws(
      () => pool.take(),
      (error: unknown) =>
        error instanceof OverlayError &&
        error.errno === 'ENOSPC' &&
        error.code === 'table_full' &&
        error.message.includes(`${max}`),
    );
    for (const row of [max - 1, 0, 17]) pool.free(row);
    assert.throws(
      () => pool.free(17),
      (error: unknown) => error instanceof AssertionError,
    );
    assert.equal([pool.take(), pool.take(), pool.take()], [17, 0, max - 1]);
    assert.throws(
      () => pool.take(),
      (error: unknown) => error instanceof OverlayError,
    );
  }
});

tables('a device row is written whole, in state DROP, and its MTU and state change alone', () => {
  const table = new Tables(views, core);
  const row = 1023;
  const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES;
  views.u8.fill(0xff, at, at + layout.DEVICE_BYTES);
  const device = {
    mux: 3,
    vnetid: 0xfedcba9876543210n,
    encap: 1,
    flags: 1,
    mtu: 8900,
    mode: 1,
    destination: 4095,
    targets: 65536,
  };
  table.writeDevice(row, device);
  const word = (field: number) => views.u32[(at + field) / 4];
  assert.is(word(layout.DEVICE_STATE), layout.DEVICE_STATE_DROP);
  assert.is(views.u64[(at + layout.DEVICE_VNETID) / 8], device.vnetid);
  const fields = [layout.DEVICE_MUX, layout.DEVICE_ENCAP, layout.DEVICE_FLAGS, layout.DEVICE_MTU];
  assert.equal(fields.map(word), [3, 1, 1, 8900]);
  assert.equal(
    [layout.DEVICE_MODE, layout.DEVICE_DESTINATION, layout.DEVICE_TARGETS].map(word),
    [1, 4095, 65536],
  );
  const before = views.u8.slice(at, at + layout.DEVICE_BYTES);
  table.setDeviceMtu(row, 576);
  table.setDeviceState(row, layout.DEVICE_STATE_ACTIVE);
  assert.is(word(layout.DEVICE_MTU), 576);
  assert.is(word(layout.DEVICE_STATE), layout.DEVICE_STATE_ACTIVE);
  const changed = [...before.keys()].filter((i) => before[i] !== views.u8[at + i]);
  const mine = (i: number) => i < 4 || (i >= layout.DEVICE_MTU && i < layout.DEVICE_MTU + 4);
  assert.ok(changed.every(mine), `${changed}`);
});

tables('a mux has 1 to BANK_MAX send sockets, and a destination fits its row', () => {
  const table = new Tables(views, core);
  const isOurs = (error: unknown) => error instanceof AssertionError;
  for (const bank of [0, layout.BANK_MAX + 1]) assert.throws(() => table.writeMux(1, 1, bank, true), isOurs);
  const { DESTINATION_NAME_BYTES_MAX: name, DESTINATION_CONTROL_BYTES_MAX: control } = layout;
  const header = layout.DESTINATION_HEADER_BYTES_MAX;
  const bytes = (count: number) => new Uint8Array(count);
  assert.throws(() => table.writeDestination(1, bytes(name + 1), bytes(0), bytes(0)), isOurs);
  assert.throws(() => table.writeDestination(1, bytes(0), bytes(control + 1), bytes(0)), isOurs);
  assert.throws(() => table.writeDestination(1, bytes(0), bytes(0), bytes(header + 1)), isOurs);
  const next = layout.DESTINATIONS_OFFSET + 2 * layout.DESTINATION_BYTES;
  views.u8.fill(0x77, next, next + 16);
  table.writeDestination(1, bytes(name), bytes(control), bytes(header));
  assert.ok(
    views.u8.slice(next, next + 16).every((byte) => byte === 0x77),
    'the next row is untouched',
  );
});

tables.run();
