/** Plugins: what a registration refuses and how, holds on a plugin, and the check that decap undoes encap. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkEncapPlugin, type EncapOperations, type EncapPlugin } from '../src/encap/plugin.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { AssertionError } from '../src/errors.js';
import { type PropertyInfo, PropertyStore } from '../src/property.js';
import { direct } from '../src/varpd/direct.js';
import type { LookupInstance, LookupPlugin, LookupServices } from '../src/varpd/plugin.js';
import { Varpd } from '../src/varpd/varpd.js';
import { assertRefused, MemoryOverlay } from './harness/memory-overlay.js';

const plugins = suite('plugins');
const SHIPPED = new EncapRegistry().names;

/** An encap plugin whose header is the vnetid in `idBytes` bytes, big endian, with changes. */
function plugin(changes: Record<string, unknown> = {}): EncapPlugin {
  const { idBytes = 3 } = changes as { idBytes?: number };
  const operations = {
    ...vxlan.operations,
    encap: (vnetid: bigint) =>
      Uint8Array.from(Buffer.from(vnetid.toString(16).padStart(idBytes * 2, '0'), 'hex')),
    decap: (datagram: Uint8Array) => ({
      vnetid: BigInt(`0x${Buffer.from(datagram).toString('hex')}`),
      headerBytes: idBytes,
    }),
  };
  return { ...vxlan, name: 'other', operations, ...changes } as unknown as EncapPlugin;
}

/** `plugin` with changed operations. */
function withOperations(changes: Record<string, unknown>): EncapPlugin {
  return plugin({ operations: { ...plugin().operations, ...changes } });
}

function withProperty(name: string): EncapPlugin {
  const info: PropertyInfo = { name, type: 'uint', isRequired: false, isReadable: true, isWritable: true };
  return plugin({
    properties: [name],
    operations: { ...plugin().operations, init: () => new PropertyStore([info]), propinfo: () => info },
  });
}

const refusals: [what: string, EncapPlugin, errno: 'EINVAL' | 'ENOTSUP', sentence: RegExp][] = [
  ['version 0', plugin({ version: 0 }), 'EINVAL', /version is 0, it must be 1/],
  ['version 2', plugin({ version: 2 }), 'EINVAL', /version is 2, it must be 1/],
  ['no version', plugin({ version: undefined }), 'EINVAL', /version is undefined/],
  ['an empty name', plugin({ name: '' }), 'EINVAL', /name is 1 to 31 bytes/],
  ['no name', plugin({ name: undefined }), 'EINVAL', /name is 1 to 31 bytes/],
  ['a name of 32 bytes', plugin({ name: 'n'.repeat(32) }), 'EINVAL', /name is 1 to 31 bytes/],
  ['a name of 16 characters, 32 bytes', plugin({ name: 'é'.repeat(16) }), 'EINVAL', /name is 1 to 31 bytes/],
  ["a name with '/'", plugin({ name: 'a/b' }), 'EINVAL', /without '\/'/],
  ['a name with NUL', plugin({ name: 'a\0b' }), 'EINVAL', /name is 1 to 31 bytes/],
  ['no operations', plugin({ operations: undefined }), 'EINVAL', /operations are missing/],
  ['flag 2', plugin({ flags: 2 }), 'EINVAL', /flags 2 are not all known/],
  ['flag 1 with flag 4', plugin({ flags: 5 }), 'EINVAL', /flags 5 are not all known/],
  ['a vnetid of 0 bytes', plugin({ idBytes: 0 }), 'EINVAL', /at least 1 byte/],
  ['a vnetid of -1 bytes', plugin({ idBytes: -1 }), 'EINVAL', /at least 1 byte/],
  ['a vnetid of 1.5 bytes', plugin({ idBytes: 1.5 }), 'EINVAL', /at least 1 byte/],
  ['a vnetid of 9 bytes', plugin({ idBytes: 9 }), 'ENOTSUP', /at most 8 bytes/],
  [
    'vnetids that its bytes cannot say',
    plugin({ vnetids: { min: 1n, max: 0x1000000n } }),
    'EINVAL',
    /vnetids 1-16777216 do not fit into 3 bytes/,
  ],
  ['no vnetids at all', plugin({ vnetids: { min: 2n, max: 1n } }), 'EINVAL', /vnetids 2-1 do not fit/],
  ['no destination kinds', plugin({ destinations: 0 }), 'EINVAL', /destination kinds 0/],
  ['destination kind 8', plugin({ destinations: 8 }), 'EINVAL', /destination kinds 8/],
  ['destination kinds 2 and 8', plugin({ destinations: 10 }), 'EINVAL', /destination kinds 10/],
  ...(['init', 'fini', 'encap', 'decap', 'socket', 'getprop', 'setprop', 'propinfo'] as const).map(
    (name): [string, EncapPlugin, 'EINVAL', RegExp] => [
      `no operation ${name}`,
      withOperations({ [name]: undefined }),
      'EINVAL',
      new RegExp(`operation ${name} is missing`),
    ],
  ),
  ['an operation that is no function', withOperations({ encap: 1 }), 'EINVAL', /operation encap is missing/],
  ['an unknown operation', withOperations({ flood: () => {} }), 'EINVAL', /operation flood is not known/],
  ['a property name of 64 bytes', withProperty('p'.repeat(64)), 'EINVAL', /at most 63 bytes/],
  ['a property name of 32 characters, 64 bytes', withProperty('é'.repeat(32)), 'EINVAL', /at most 63 bytes/],
];

for (const [what, given, errno, sentence] of refusals) {
  plugins(`refused: ${what}`, async () => {
    const registry = new EncapRegistry();
    const error = await assertRefused(() => registry.register(given), errno, 'bad_encap_plugin', sentence);
    assert.match(error.message, /^encap plugin '/);
    assert.equal(registry.names, SHIPPED, 'nothing of it is there');
  });
}

const accepted: [what: string, EncapPlugin][] = [
  ['a name of 31 bytes', plugin({ name: 'n'.repeat(31) })],
  ['a name of 15 characters, 30 bytes', plugin({ name: 'é'.repeat(15) })],
  ['no flags', plugin({ flags: 0 })],
  ['a vnetid of 1 byte', plugin({ idBytes: 1 })],
  ['a vnetid of 8 bytes', plugin({ idBytes: 8 })],
  ['destination kind 1', plugin({ destinations: 1 })],
  ['all destination kinds', plugin({ destinations: 7 })],
  ['with sockopt', withOperations({ sockopt: () => {} })],
  ['without sockopt', plugin()],
  ['a property name of 63 bytes', withProperty('p'.repeat(63))],
  ['no property', plugin({ properties: [] })],
];

for (const [what, given] of accepted) {
  plugins(`accepted: ${what}`, () => {
    const registry = new EncapRegistry();
    registry.register(given);
    assert.equal(registry.names, [...SHIPPED, given.name]);
    assert.is(registry.get(given.name), given);
    registry.unregister(given.name);
    assert.equal(registry.names, SHIPPED);
  });
}

plugins('refused: a property that propinfo does not know', async () => {
  const given = plugin({ properties: ['other/unknown'] });
  await assertRefused(() => checkEncapPlugin(given), 'ENOENT', 'no_such_property', /other\/unknown/);
});

plugins('refused: a name that is taken', async () => {
  const registry = new EncapRegistry();
  await assertRefused(
    () => registry.register(plugin({ name: 'vxlan' })),
    'EEXIST',
    'encap_exists',
    /'vxlan'/,
  );
  assert.is(registry.get('vxlan'), vxlan, 'the first one stays');
});

plugins('a decap that does not undo encap crashes: it is a mistake of ours', () => {
  const wrong: Partial<EncapOperations>[] = [
    { decap: () => undefined },
    { decap: () => ({ vnetid: 0xfffffen, headerBytes: 3 }) },
    { encap: () => new Uint8Array(8) },
  ];
  for (const changes of wrong) {
    const registry = new EncapRegistry();
    let crash: unknown;
    try {
      registry.register(withOperations(changes));
    } catch (error) {
      crash = error;
    }
    assert.instance(crash, AssertionError);
    assert.match((crash as Error).message, /'other': decap does not undo encap/);
    assert.equal(registry.names, SHIPPED);
  }
});

plugins('unregister: ENOENT, EBUSY while a device holds it, ok afterwards', async () => {
  const encaps = new EncapRegistry();
  await assertRefused(() => encaps.unregister('nope'), 'ENOENT', 'no_such_encap', /there are: vxlan/);
  const memory = await MemoryOverlay.start({ encaps });
  try {
    const { overlay } = memory;
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    await overlay.create('ov1', 'vxlan', 'direct', 2);
    await assertRefused(() => encaps.unregister('vxlan'), 'EBUSY', 'encap_busy', /used by 2 devices/);
    await overlay.delete('ov0', { force: false });
    await assertRefused(() => encaps.unregister('vxlan'), 'EBUSY', 'encap_busy', /used by 1 devices/);
    await overlay.delete('ov1', { force: false });
    encaps.unregister('vxlan');
    await assertRefused(overlay.create('ov0', 'vxlan', 'direct', 1), 'ENOENT', 'no_such_encap');
    encaps.register(vxlan);
    await overlay.create('ov0', 'vxlan', 'direct', 1);
  } finally {
    await memory.close();
  }
  encaps.unregister('vxlan');
});

plugins('a hold given back once too often crashes', () => {
  const registry = new EncapRegistry();
  registry.hold('vxlan');
  registry.release(vxlan);
  assert.throws(
    () => registry.release(vxlan),
    (error: unknown) => error instanceof AssertionError,
  );
});

plugins('lookup plugins: version, name, a name that is taken', async () => {
  const varpd = new Varpd();
  const given = (changes: Partial<LookupPlugin>): LookupPlugin => ({ ...direct, name: 'other', ...changes });
  for (const changes of [
    { version: 0 },
    { version: 2 },
    { name: '' },
    { name: 'n'.repeat(32) },
    { name: 'a/b' },
    { mode: 'static' as 'point' },
    { create: undefined as never },
    { properties: undefined as never },
  ]) {
    await assertRefused(() => varpd.register(given(changes)), 'EINVAL', 'bad_lookup_plugin', /lookup plugin/);
  }
  await assertRefused(() => varpd.register(given({ name: 'direct' })), 'EEXIST', 'lookup_exists', /'direct'/);
  assert.equal(varpd.pluginNames, ['direct', 'files', 'learn', 'external']);
  varpd.register(given({ name: 'n'.repeat(31) }));
  assert.equal(varpd.pluginNames, ['direct', 'files', 'learn', 'external', 'n'.repeat(31)]);
});

/** Starts an instance that makes no use of its services. */
function start(instance: LookupInstance): void {
  instance.start({} as LookupServices);
}

plugins(
  'direct: the port is there where the encapsulation needs one; ENOTSUP where it needs more',
  async () => {
    assert.equal(direct.properties(2), ['direct/dest_ip']);
    assert.equal(direct.properties(6), ['direct/dest_ip', 'direct/dest_port']);
    for (const destinations of [1, 3, 4, 5, 7]) {
      await assertRefused(() => direct.create(destinations), 'ENOTSUP', 'destination_not_supported');
    }
    const alone = direct.create(2);
    await assertRefused(() => start(alone), 'EAGAIN', 'property_missing', /not set: direct\/dest_ip/);
    alone.properties.set('direct/dest_ip', '192.0.2.1');
    start(alone);
    assert.equal(alone.point?.(), { ip: '192.0.2.1' });
    const both = direct.create(6);
    await assertRefused(
      () => start(both),
      'EAGAIN',
      'property_missing',
      /not set: direct\/dest_ip, direct\/dest_port/,
    );
  },
);

plugins.run();
