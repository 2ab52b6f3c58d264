/**
 * Every refusal of the control operations, as a table in the order in which they are checked: each is provoked alone, and
 * together with each later one that can be there at the same time, of which the first is then reported. The table is
 * printed as it was observed.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { Pool } from '../src/datapath/pool.js';
import { DESTINATION_ETHERNET } from '../src/encap/plugin.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { OverlayError } from '../src/errors.js';
import { PropertyStore } from '../src/property.js';
import { direct } from '../src/varpd/direct.js';
import type { LookupPlugin, LookupServices } from '../src/varpd/plugin.js';
import { counting, force, gently, HERE } from './harness/lifecycle.js';
import { assertRefused, freePort, holdPort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { MemoryStore } from './harness/memory-store.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const errnos = suite('errnos');
const THERE = '127.0.0.2';
/** No property takes it. */
const NO_VALUE = { a: 1 };

/** What an operation is asked for, and what it meets; a fault is a change of some of it. */
interface Scene {
  // What is asked.
  readonly name: string;
  readonly encap: string;
  readonly search: string;
  readonly vnetid: unknown;
  readonly property: string | number;
  readonly value: unknown;
  readonly mac: string;
  readonly ip: string;
  readonly vlan: number;
  // Device ov0, which every operation but CREATE finds.
  readonly state: 'created' | 'activated' | 'started';
  readonly listenIp: string | undefined;
  readonly destIp: string | undefined;
  readonly targets: number;
  readonly isUp: boolean;
  readonly isLinkGone: boolean;
  readonly upper: readonly string[];
  // What fails underneath.
  readonly isLinkRefused: boolean;
  readonly isCarrierRefused: boolean;
  readonly isMtuRefused: boolean;
  /** The lookup plugin does not start for it. */
  readonly refusedVnetid: bigint | undefined;
  /** The plugin's device has been deleted. */
  readonly isGone: boolean;
  readonly isTableFull: boolean;
  readonly isPoolFull: boolean;
  readonly isDiskFull: boolean;
}

const plain: Scene = {
  name: 'ov0',
  encap: 'vxlan',
  search: 'direct',
  vnetid: 2,
  property: 'mtu',
  value: 1300,
  mac: '02:00:00:00:00:01',
  ip: '192.0.2.1',
  vlan: 0,
  state: 'created',
  listenIp: HERE,
  destIp: THERE,
  targets: 0,
  isUp: false,
  isLinkGone: false,
  upper: [],
  isLinkRefused: false,
  isCarrierRefused: false,
  isMtuRefused: false,
  refusedVnetid: undefined,
  isGone: false,
  isTableFull: false,
  isPoolFull: false,
  isDiskFull: false,
};

type Change = Partial<Scene>;
type Refusal = readonly [errno: string, code: string, how: string, change: Change];

interface Operation {
  readonly name: string;
  /** It makes the device: none of its name is there before. */
  readonly isCreate?: boolean;
  run(memory: MemoryOverlay, scene: Scene): unknown;
  /** In the order of the checks. */
  readonly refusals: readonly Refusal[];
}

/** A port that a foreign program has, one that another encap has, and one for the device. */
const foreign = await holdPort(HERE, 0);
const otherPort = await freePort(HERE);
const port = await freePort(HERE);

const noDevice: Refusal = ['ENOENT', 'no_such_device', 'there is no device of the name', { name: 'nope' }];
const noProperty: Refusal = [
  'ENOENT',
  'no_such_property',
  'a property name the device does not have',
  { property: 'nope' },
];
const badId: Refusal = ['EINVAL', 'bad_property_id', 'a property id that is none', { property: 99 }];
const diskFull: Refusal = [
  'ENOSPC',
  'state_failed',
  'the state directory cannot be written',
  { isDiskFull: true },
];

/** A service of lookup plugins, by one whose device is active. */
const announcing: Change = { search: 'scripted', state: 'activated' };

const operations: readonly Operation[] = [
  {
    name: 'CREATE',
    isCreate: true,
    run: ({ overlay }, { name, encap, search, vnetid }) => overlay.create(name, encap, search, vnetid),
    refusals: [
      ['EINVAL', 'bad_device_name', 'a name that no link can have', { name: 'a/b' }],
      ['EINVAL', 'bad_encap_name', 'an encap name that no plugin can have', { encap: 'a/b' }],
      ['ENOENT', 'no_such_encap', 'an encap that is not there', { encap: 'nope' }],
      ['ENOMEM', 'no_room', 'the encap refuses the device with an error of its own', { encap: 'refusing' }],
      ['EINVAL', 'bad_property_value', 'a vnetid that the encap cannot carry', { vnetid: 0x1000000 }],
      ['EEXIST', 'device_exists', 'the name is in use', { name: 'there' }],
      ['EEXIST', 'vnetid_in_use', 'the vnetid is in use with the same encap', { vnetid: 99 }],
      ['ENOENT', 'no_such_lookup', 'a lookup plugin that is not there', { search: 'nope' }],
      [
        'ENOTSUP',
        'destination_not_supported',
        'a lookup plugin that cannot supply what the encap needs',
        { search: 'narrow' },
      ],
      ['ENOSPC', 'table_full', 'there are as many devices as there may be', { isTableFull: true }],
      ['EPERM', 'no_cap_net_admin', 'the kernel does not make the link', { isLinkRefused: true }],
      diskFull,
    ],
  },
  {
    name: 'ACTIVATE',
    run: ({ overlay }, { name }) => overlay.activate(name),
    refusals: [
      noDevice,
      [
        'EEXIST',
        'already_active',
        'it is activated already',
        { state: 'activated', search: 'direct', listenIp: HERE, destIp: THERE },
      ],
      ['ENODEV', 'link_gone', 'somebody else deleted its link', { isLinkGone: true }],
      [
        'EINVAL',
        'property_missing',
        'a required property of the encap has no value',
        { listenIp: undefined },
      ],
      ['EAGAIN', 'not_associated', 'nobody has associated an external device', { search: 'external' }],
      diskFull,
      [
        'ENOMEM',
        'pool_full',
        'there is no room for a target table',
        { search: 'scripted', isPoolFull: true },
      ],
      [
        'EAGAIN',
        'property_missing',
        'a required property of the lookup plugin has no value',
        { search: 'direct', destIp: undefined },
      ],
      [
        'EIO',
        'lookup_failed',
        'the start of the lookup plugin throws',
        { search: 'scripted', refusedVnetid: 2n },
      ],
      [
        'EINVAL',
        'bad_destination',
        'a POINT plugin gives a destination nothing can be sent to',
        { search: 'nonsense' },
      ],
      ['EIO', 'system_call_failed', 'the kernel does not turn the carrier on', { isCarrierRefused: true }],
    ],
  },
  {
    name: 'DELETE',
    run: ({ overlay }, { name }) => overlay.delete(name, gently),
    refusals: [
      noDevice,
      ['EBUSY', 'link_up', 'its link is up, and it is not forced', { isUp: true }],
      ['EBUSY', 'links_on_top', 'its link carries others, and it is not forced', { upper: ['vlan7'] }],
      diskFull,
    ],
  },
  {
    name: 'NPROPS',
    run: ({ overlay }, { name }) => overlay.properties(name).length,
    refusals: [noDevice],
  },
  {
    name: 'PROPINFO, GETPROP',
    run: ({ overlay }, { name, property }) => overlay.property(name, property),
    refusals: [noDevice, noProperty, badId],
  },
  {
    name: 'SETPROP',
    run: ({ overlay }, { name, property, value }) => overlay.setprop(name, property, value),
    refusals: [
      noDevice,
      noProperty,
      badId,
      [
        'ENOTSUP',
        'already_active',
        'it is fixed, and the device activated',
        { property: 'encap', state: 'activated' },
      ],
      ['EPERM', 'property_read_only', 'it cannot be written', { property: 'encap' }],
      ['EINVAL', 'bad_property_value', 'a value it cannot have', { value: NO_VALUE }],
      [
        'EEXIST',
        'vnetid_in_use',
        'vnetid: it is in use with the same encap',
        { property: 'vnetid', value: 99 },
      ],
      ['EBUSY', 'mtu_above', 'mtu_max: below the MTU', { property: 'mtu_max', value: 1399 }],
      diskFull,
      [
        'EIO',
        'system_call_failed',
        'mtu: the kernel does not take it',
        { property: 'mtu', value: 1300, isMtuRefused: true },
      ],
      [
        'EBUSY',
        'targets_above',
        'targets: below what the cache holds',
        { property: 'targets', value: 1, search: 'scripted', state: 'activated', targets: 2 },
      ],
      [
        'ENOTSUP',
        'senders_unknown',
        'source_check: started, and the lookup plugin cannot say who may send',
        { property: 'vxlan/source_check', value: 'strict', state: 'started', search: 'direct' },
      ],
      [
        'EIO',
        'lookup_failed',
        'vnetid: activated, and the lookup plugin does not start with it',
        { property: 'vnetid', value: 3, state: 'activated', search: 'scripted', refusedVnetid: 3n },
      ],
      [
        'EADDRNOTAVAIL',
        'address_not_here',
        'listen_ip: started, and the host does not have the address',
        { property: 'vxlan/listen_ip', value: '203.0.113.1', state: 'started' },
      ],
      [
        'EADDRINUSE',
        'port_in_use',
        'listen_port: started, and another program has the port',
        { property: 'vxlan/listen_port', value: foreign.port, state: 'started' },
      ],
      [
        'EEXIST',
        'mux_other_encap',
        'listen_port: started, and another encap has the port',
        { property: 'vxlan/listen_port', value: otherPort, state: 'started' },
      ],
      [
        'EINVAL',
        'other_family',
        'dest_ip: started, and of another family than listen_ip',
        { property: 'direct/dest_ip', value: '2001:db8::1', state: 'started', search: 'direct' },
      ],
    ],
  },
  { name: 'STATUS', run: ({ overlay }, { name }) => overlay.status(name), refusals: [noDevice] },
  {
    name: 'gratuitousArp',
    run: (_, { isGone, ...announcement }) => (isGone ? gone : services)!.gratuitousArp(announcement),
    refusals: [
      ['ENXIO', 'not_active', "the plugin's device has been deleted", { ...announcing, isGone: true }],
      ['EINVAL', 'bad_mac', 'a MAC address that no guest has', { ...announcing, mac: '03:00:00:00:00:01' }],
      ['EINVAL', 'bad_vlan', 'a VLAN that there is not', { ...announcing, vlan: 4095 }],
      ['EINVAL', 'bad_address', 'an address that is none', { ...announcing, ip: '192.0.2' }],
    ],
  },
];

/** Codes in the scanned sources that are no refusal of these operations, with the test that provokes each. */
const elsewhere: readonly [code: string, file: string, why: string][] = [
  ['no_such_target', 'test/cache-api.ts', 'CACHE_GET and CACHE_REMOVE'],
  ['not_dynamic', 'test/cache-api.ts', 'CACHE_SET, CACHE_REMOVE and CACHE_FLUSH on a POINT device'],
  ['associated', 'test/external.ts', 'ASSOCIATE'],
  ['not_external', 'test/external.ts', 'ASSOCIATE and DISASSOCIATE'],
  ['bad_frame', 'test/external.ts', 'INJECT and RESEND'],
  ['netns_gone', 'test/zones.ts', 'ACTIVATE and SETPROP while the namespace of the link is gone'],
];

const sources = [
  'src/overlay.ts',
  'src/overlay/devices.ts',
  'src/overlay/life.ts',
  'src/overlay/links.ts',
  'src/overlay/deletion.ts',
  'src/overlay/transaction.ts',
  'src/overlay/external-handle.ts',
  'src/overlay/target-operations.ts',
  'src/overlay/setprop.ts',
  'src/overlay/properties.ts',
  'src/overlay/lookup.ts',
  'src/device.ts',
];
/** An error passed on with a longer sentence, not one of its own. */
const passedOn = ['error.code', 'first.code'];

// ─── The stage ──────────────────────────────────────────────────────────────────────────────────────────

let refusedVnetid: bigint | undefined;
let services: LookupServices | undefined;
const scripted = new ScriptedLookup(() => 'drop', {
  start: (given) => {
    services = given;
    if (given.vnetid === refusedVnetid) throw new Error('the directory does not answer');
  },
});
/** Cannot supply what vxlan needs. */
const narrow: LookupPlugin = {
  ...direct,
  name: 'narrow',
  create: () => direct.create(DESTINATION_ETHERNET),
};
const nonsense: LookupPlugin = {
  ...direct,
  name: 'nonsense',
  properties: () => [],
  create: () => ({
    properties: new PropertyStore([]),
    start: () => {},
    stop: () => {},
    point: () => ({ ip: '2002::1', port: 4789 }),
  }),
};
const refusing = {
  ...counting({ name: 'refusing' }),
  operations: {
    ...vxlan.operations,
    init: () => {
      throw new OverlayError('ENOMEM', 'no_room', 'no room for another device');
    },
  },
};
const encaps = new EncapRegistry([vxlan, counting({ name: 'vxtest' }), refusing]);
const store = new MemoryStore();
const memory = await MemoryOverlay.start({
  encaps,
  store,
  plugins: [scripted, narrow, nonsense],
  poolBytes: 2 ** 22,
});
const { overlay, links } = memory;

await overlay.createOverlay({
  name: 'gone',
  encap: 'vxlan',
  search: 'scripted',
  vnetid: 1,
  properties: { 'vxlan/listen_ip': HERE },
});
/** Those of a plugin whose device has been deleted. */
const gone = services;
await overlay.delete('gone', gently);

/** Device ov0 as the scene has it, with a neighbour of the same encap and one of another. */
async function setUp(operation: Operation, scene: Scene): Promise<void> {
  const { encap, search, vnetid, state, listenIp, destIp, targets } = scene;
  await overlay.create('there', 'vxlan', 'direct', 99);
  await overlay.createOverlay(request('other', 99, otherPort, { encap: 'vxtest' }));
  await memory.up('other');
  if (operation.isCreate) return;
  await overlay.create('ov0', encap, search, vnetid);
  await overlay.setprop('ov0', 'vxlan/listen_port', port);
  if (listenIp !== undefined) await overlay.setprop('ov0', 'vxlan/listen_ip', listenIp);
  if (search === 'direct') {
    await overlay.setprop('ov0', 'direct/dest_port', port);
    if (destIp !== undefined) await overlay.setprop('ov0', 'direct/dest_ip', destIp);
  }
  if (state !== 'created') await overlay.activate('ov0');
  if (state === 'started') await memory.up('ov0');
  assert.is(overlay.state('ov0'), state);
  for (let mac = 1; mac <= targets; mac++) overlay.cacheSet('ov0', mac, 'drop');
  if (scene.isUp) await memory.up('ov0');
  links.setUpper('ov0', [...scene.upper]);
  if (scene.isLinkGone) {
    links.remove('ov0');
    await memory.settle();
  }
}

const broken = (what: string) => new OverlayError('EIO', 'system_call_failed', `${what}: i/o error (EIO)`);

/** What the harness lets go wrong once. */
function breakOnce(scene: Scene): void {
  links.openFailure = scene.isLinkRefused
    ? new OverlayError('EPERM', 'no_cap_net_admin', 'creating a link: run overlayd as root')
    : undefined;
  if (scene.isCarrierRefused) links.get('ov0').carrierFailure = broken('turning the carrier on');
}

/** Lets go wrong what the scene says. Returns how to mend it. */
function breakThings(scene: Scene): () => void {
  const { engine } = overlay;
  const mend: (() => void)[] = [];
  store.isFull = scene.isDiskFull;
  refusedVnetid = scene.refusedVnetid;
  breakOnce(scene);
  if (scene.isMtuRefused) {
    links.get('ov0').setMtu = () => {
      throw broken('setting the MTU');
    };
  }
  if (scene.isTableFull) {
    const rows: number[] = [];
    try {
      for (;;) rows.push(engine.tables.devices.take());
    } catch (error) {
      assert.is((error as OverlayError).errno, 'ENOSPC');
    }
    mend.push(() => {
      for (const row of rows) engine.tables.devices.free(row);
    });
  }
  if (scene.isPoolFull) {
    const taken = takeAll(engine.pool);
    mend.push(() => {
      for (const each of taken) engine.pool.free(each);
    });
  }
  mend.push(() => {
    store.isFull = false;
    refusedVnetid = undefined;
    links.openFailure = undefined;
  });
  return () => {
    for (const step of mend) step();
  };
}

/** All of a pool, which may be in several parts. */
function takeAll(pool: Pool): number[] {
  const taken: number[] = [];
  for (let bytes = pool.freeBytes; bytes >= layout.LINE_BYTES; ) {
    try {
      taken.push(pool.take(bytes, 'a test'));
    } catch (error) {
      assert.is((error as OverlayError).code, 'pool_full');
      bytes = Math.floor(bytes / 2 / layout.LINE_BYTES) * layout.LINE_BYTES;
    }
  }
  return taken;
}

/** What an operator sees of all devices. */
function seen(): object {
  const all = overlay.names.map((name) => [
    name,
    overlay.state(name),
    overlay.properties(name).map(({ info, value }) => `${info.name}=${value}`),
  ]);
  return { all, kept: [...store.records] };
}

/** The refusal that `operation` ends in under `change`; nothing that an operator sees has changed. */
async function refused(operation: Operation, row: Refusal, change: Change): Promise<OverlayError> {
  const scene = { ...plain, ...change };
  try {
    await setUp(operation, scene);
    const before = seen();
    const mend = breakThings(scene);
    try {
      const [errno, code] = row;
      const ask = async () => operation.run(memory, scene);
      const error = await assertRefused(ask, errno, code);
      // A refusal must not open the way for the next try.
      breakOnce(scene);
      await assertRefused(ask, errno, code);
      return error;
    } finally {
      mend();
      assert.equal(seen(), before, 'a refusal changes nothing');
    }
  } finally {
    for (const name of overlay.names) {
      links.setUpper(name, []);
      await overlay.delete(name, force);
    }
  }
}

/** Both changes at once, or undefined when they exclude each other. */
function together(one: Change, other: Change): Change | undefined {
  const shared = Object.keys(one).filter((key) => key in other) as (keyof Scene)[];
  return shared.every((key) => one[key] === other[key]) ? { ...one, ...other } : undefined;
}

// ─── The table ──────────────────────────────────────────────────────────────────────────────────────────

const observed: (readonly [operation: string, errno: string, code: string, sentence: string])[] = [];
let pairs = 0;

errnos.after(async () => {
  await memory.close();
  await foreign.release();
});

for (const operation of operations) {
  const { name, refusals } = operation;
  errnos(`${name}: each refusal, and of two at once the first`, async () => {
    const clean = memory.holdings();
    for (const [index, first] of refusals.entries()) {
      const error = await refused(operation, first, first[3]);
      observed.push([name, error.errno, error.code, withoutChance(error.message)]);
      for (const second of refusals.slice(index + 1)) {
        const both = together(first[3], second[3]);
        if (!both) continue;
        await refused(operation, first, both);
        pairs++;
      }
    }
    assert.equal(memory.holdings(), clean, 'and nothing is left behind');
  });
}

errnos('a row is there once, and each has been provoked', () => {
  const rows = operations.flatMap(({ name, refusals }) =>
    refusals.map(([errno, code]) => [name, errno, code].join(' ')),
  );
  assert.is(new Set(rows).size, rows.length);
  assert.equal(
    observed.map((each) => each.slice(0, 3).join(' ')),
    rows,
  );
  assert.ok(pairs >= rows.length, `${pairs} pairs`);
});

errnos('every code of the sources has a row, or a test elsewhere', () => {
  const codes = new Set<string>();
  for (const file of sources) {
    const text = read(file);
    const made = [...text.matchAll(/new OverlayError\(\s*[^,]+,\s*([^,\s]+),/g)];
    assert.is(made.length, text.split('new OverlayError(').length - 1, `${file}: each is read`);
    for (const [, code] of made) {
      if (passedOn.includes(code!)) continue;
      assert.match(code!, /^'[a-z_]+'$/, `${file}: a code is written where it is used`);
      codes.add(code!.slice(1, -1));
    }
  }
  const rows = new Set(operations.flatMap(({ refusals }) => refusals.map(([, code]) => code)));
  for (const [code, file, why] of elsewhere) {
    assert.ok(codes.has(code), `${code} (${why}) is in no source any more`);
    assert.not.ok(rows.has(code), `${code} has a row`);
    assert.ok(read(file).includes(`'${code}'`), `${file} does not provoke ${code} (${why})`);
  }
  const known = new Set([...rows, ...elsewhere.map(([code]) => code)]);
  assert.equal(
    [...codes].filter((code) => !known.has(code)),
    [],
    'these have neither',
  );
});

errnos('the table', () => {
  const width = (column: number) => Math.max(...observed.map((row) => row[column]!.length));
  const lines = observed.map((row) => row.map((cell, column) => cell.padEnd(width(column))).join('  '));
  console.log(`\n${lines.map((line) => `  ${line.trimEnd()}`).join('\n')}`);
  console.log(`\n  ${observed.length} refusals, ${pairs} pairs of them at once`);
});

/** Ports and a process number that are there by chance, by ones that are always the same. */
function withoutChance(sentence: string): string {
  return [foreign.port, otherPort, port].reduce(
    (text, each) => text.replaceAll(String(each), '4789'),
    sentence.replaceAll(String(process.pid), '1234'),
  );
}

function read(file: string): string {
  return readFileSync(join(import.meta.dirname, '../..', file), 'utf8');
}

errnos.run();
