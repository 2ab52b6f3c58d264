import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { EncapPlugin } from '../src/encap/plugin.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { OverlayError } from '../src/errors.js';
import { counting, gently, withMemory, withoutTrace } from './harness/lifecycle.js';
import { assertRefused } from './harness/memory-overlay.js';

const create = suite('create');

create('create: names of devices', async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    const good = ['a', 'Z', 'ov0', 'a.b-c_d', 'a..', 'constructor', 'toString', 'x'.repeat(15)];
    for (const name of good) {
      await overlay.create(name, 'vxlan', 'direct', 5);
      assert.equal(overlay.names, [name]);
      assert.is(overlay.state(name), 'created');
      assert.equal(overlay.status(name), { status: 'ONLINE', message: '', faults: [] });
      await overlay.delete(name, gently);
    }
    const bad = [
      ...['', '.', '..', '0', '0ov', '_a', '-a', '.a', 'a/b', '/', 'a b', ' a', 'a ', 'a\t', 'ov0\n', 'a\0'],
      ...['a:b', 'a@b', 'a%d', 'a*', 'a\\b', 'é', 'ové', '覆', 'a\u200b', '\ud800', '__proto__'],
      ...['all', 'default', 'x'.repeat(16), 'x'.repeat(100_000)],
    ];
    for (const name of bad) {
      const create = () => overlay.create(name, 'vxlan', 'direct', 5);
      const error = await withoutTrace(
        memory,
        create,
        'EINVAL',
        'bad_device_name',
        /cannot be a device's name/,
      );
      assert.ok(error.message.length < 250, 'a long name is not repeated in full');
    }
  });
});

create('create: vnetids', async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    for (const [text, vnetid] of [
      [0, 0n],
      ['0', 0n],
      [0xfffffe, 0xfffffen],
      ['16777215', 0xffffffn],
    ] as const) {
      await overlay.create('ov0', 'vxlan', 'direct', text);
      assert.is(overlay.property('ov0', 'vnetid').value, vnetid);
      assert.is(memory.links.get('ov0').alias, `overlayd overlay ov0, vxlan vnetid ${vnetid}`);
      await overlay.delete('ov0', gently);
    }
    for (const text of [
      0x1000000,
      '16777216',
      -1,
      '-1',
      'red',
      '',
      '0x10',
      '1e3',
      1.5,
      null,
      undefined,
      [1],
    ]) {
      const create = () => overlay.create('ov0', 'vxlan', 'direct', text);
      await withoutTrace(memory, create, 'EINVAL', 'bad_property_value', /^vnetid cannot be /);
    }
  });
});

create('create: the checks, in order, each ahead of all that follow', async () => {
  const plugin = counting();
  const encaps = new EncapRegistry([plugin]);
  await withMemory(
    async (memory) => {
      const { overlay, links } = memory;
      await overlay.create('ov0', 'vxlan', 'direct', 1);
      assert.is(plugin.alive, 1);
      const good = { name: 'ov1', encap: 'vxlan', search: 'direct', vnetid: 2 as unknown };
      const wrongs: [change: Partial<typeof good>, errno: string, code: string, message: RegExp][] = [
        [{ name: '1x' }, 'EINVAL', 'bad_device_name', /'1x' cannot be a device's name/],
        [{ encap: 'a/b' }, 'EINVAL', 'bad_encap_name', /1 to 31 bytes without '\/'/],
        [{ encap: 'nope' }, 'ENOENT', 'no_such_encap', /no encap plugin 'nope'; there are: vxlan/],
        [{ vnetid: 0x1000000 }, 'EINVAL', 'bad_property_value', /vnetid cannot be '16777216'.* 0-16777215/],
        [{ name: 'ov0' }, 'EEXIST', 'device_exists', /overlay 'ov0' exists already/],
        [{ vnetid: 1 }, 'EEXIST', 'vnetid_in_use', /vnetid 1 is that of overlay 'ov0'/],
        [{ search: 'nope' }, 'ENOENT', 'no_such_lookup', /no lookup plugin 'nope'; there are: direct/],
        [{}, 'EPERM', 'no_cap_net_admin', /as root/],
      ];
      for (const [index, [, errno, code, message]] of wrongs.entries()) {
        const later = wrongs.slice(index).map(([change]) => change);
        const asked = Object.assign({}, good, ...later.reverse()) as typeof good;
        links.openFailure = new OverlayError(
          'EPERM',
          'no_cap_net_admin',
          'creating a link: run overlayd as root',
        );
        const create = () => overlay.create(asked.name, asked.encap, asked.search, asked.vnetid);
        await withoutTrace(memory, create, errno, code, message);
        assert.is(plugin.alive, 1, `${code}: fini is called for every init`);
        links.openFailure = undefined;
        // Alone, each is refused likewise.
        const alone = { ...good, ...wrongs[index]![0] };
        if (code === 'no_cap_net_admin') continue;
        const again = () => overlay.create(alone.name, alone.encap, alone.search, alone.vnetid);
        await withoutTrace(memory, again, errno, code, message);
      }
      await overlay.create('ov1', 'vxlan', 'direct', 2);
      await overlay.delete('ov0', gently);
      await overlay.delete('ov1', gently);
      assert.is(plugin.alive, 0);
      encaps.unregister('vxlan');
    },
    { encaps },
  );
});

create('create: bad encap names are EINVAL, a lookup that cannot serve the encap is ENOTSUP', async () => {
  const ethernet = counting({ name: 'ethernet', destinations: 1 });
  const encaps = new EncapRegistry([counting(), ethernet]);
  await withMemory(
    async (memory) => {
      const { overlay } = memory;
      for (const encap of ['', 'a/b', 'a\0', 'x'.repeat(32), 'é'.repeat(16)]) {
        const create = () => overlay.create('ov0', encap, 'direct', 1);
        await withoutTrace(memory, create, 'EINVAL', 'bad_encap_name');
      }
      const create = () => overlay.create('ov0', 'ethernet', 'direct', 1);
      await withoutTrace(memory, create, 'ENOTSUP', 'destination_not_supported');
      assert.is(ethernet.alive, 0);
    },
    { encaps },
  );
});

create(
  'create: an encap that refuses the device: its own error, and no fini for an init that failed',
  async () => {
    let finis = 0;
    const refusing: EncapPlugin = {
      ...vxlan,
      operations: {
        ...vxlan.operations,
        init: () => {
          throw new OverlayError('ENOMEM', 'no_room', 'no room for another device');
        },
        fini: () => {
          finis++;
        },
      },
    };
    const encaps = new EncapRegistry([refusing]);
    await withMemory(
      async (memory) => {
        await withoutTrace(
          memory,
          () => memory.overlay.create('ov0', 'vxlan', 'direct', 1),
          'ENOMEM',
          'no_room',
        );
        assert.is(finis, 0);
        encaps.unregister('vxlan');
        encaps.register(refusing);
      },
      { encaps },
    );
  },
);

create('create: the same vnetid on another encap is another network', async () => {
  const encaps = new EncapRegistry([vxlan, counting({ name: 'vxtest' })]);
  await withMemory(
    async ({ overlay }) => {
      await overlay.create('ov0', 'vxlan', 'direct', 1);
      await overlay.create('ov1', 'vxtest', 'direct', 1);
      await assertRefused(overlay.create('ov2', 'vxtest', 'direct', 1), 'EEXIST', 'vnetid_in_use', /'ov1'/);
      assert.equal(overlay.property('ov0', 'encap').info.possible, ['vxlan', 'vxtest']);
    },
    { encaps },
  );
});

create(`create: ${layout.DEVICES_MAX} devices, and not one more`, async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    const before = memory.holdings();
    for (let count = 0; count < layout.DEVICES_MAX; count++) {
      await overlay.create(`ov${count}`, 'vxlan', 'direct', count);
    }
    const more = () => overlay.create('more', 'vxlan', 'direct', layout.DEVICES_MAX);
    await withoutTrace(memory, more, 'ENOSPC', 'table_full', /the limit is 1024/);
    for (let count = 0; count < layout.DEVICES_MAX; count++) await overlay.delete(`ov${count}`, gently);
    assert.equal(memory.holdings(), before);
  });
});

create.run();
