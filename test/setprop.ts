import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { offloadNames } from '../src/offload.js';
import { force, gently, HERE, withMemory } from './harness/lifecycle.js';
import { assertRefused, freePort, request } from './harness/memory-overlay.js';

const setprop = suite('setprop');

const propertyOrder = [
  'mtu',
  'vnetid',
  'encap',
  'varpd/id',
  'vxlan/listen_ip',
  'vxlan/listen_port',
  'vxlan/ttl',
  'vxlan/dscp',
  'vxlan/ecn',
  'vxlan/source_check',
  'vxlan/reserved',
  'vxlan/inner_to_mux',
  'vxlan/mark',
  'vxlan/device',
  'vxlan/source_ports',
  'vxlan/zerocsum6_tx',
  'vxlan/zerocsum6_rx',
  'search',
  'direct/dest_ip',
  'direct/dest_port',
  'mtu_max',
  'mtu_sum',
  'tcp_mss',
  'path_mtu_probe',
  'netns',
  'underlay_netns',
  ...offloadNames,
];

setprop('properties: order, permissions, by name and by id', async () => {
  await withMemory(async ({ overlay }) => {
    await overlay.create('ov0', 'vxlan', 'direct', 7);
    assert.equal(
      overlay.properties('ov0').map(({ info }) => info.name),
      propertyOrder,
    );
    const permissions = overlay.properties('ov0').map(({ info }) => (info.isWritable ? 'rw' : 'r-'));
    const fixedPart = [
      'rw',
      'rw',
      'r-',
      'r-',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'rw',
      'r-',
      'rw',
      'rw',
      'rw',
      'r-',
      'rw',
      'rw',
      'rw',
      'rw',
    ];
    assert.equal(permissions, [...fixedPart, ...offloadNames.map(() => 'rw')]);
    const required = overlay.properties('ov0').map(({ info }) => info.isRequired);
    assert.equal(required, [
      false,
      false,
      false,
      false,
      true,
      true,
      ...new Array<boolean>(12).fill(false),
      true,
      true,
      false,
      false,
      false,
      false,
      false,
      false,
      ...offloadNames.map(() => false),
    ]);
    for (const [id, name] of propertyOrder.entries()) {
      assert.equal(overlay.property('ov0', id), overlay.property('ov0', name));
      assert.is(overlay.property('ov0', id).info.name, name);
    }
    // Illumos' bugs 9 and 10: plugin properties by name; an id equal to the count.
    const count = propertyOrder.length;
    const last = new RegExp(`not 0 to ${count - 1}$`);
    for (const id of [count, count + 1, -1, -2, 1.5, Number.NaN, 2 ** 31, Number.POSITIVE_INFINITY]) {
      await assertRefused(() => overlay.property('ov0', id), 'EINVAL', 'bad_property_id', last);
      await assertRefused(overlay.setprop('ov0', id, '1'), 'EINVAL', 'bad_property_id');
    }
    for (const name of ['nope', '', 'MTU', 'listen_ip', 'vxlan/', '__proto__', 'constructor', '0']) {
      await assertRefused(() => overlay.property('ov0', name), 'ENOENT', 'no_such_property');
      await assertRefused(overlay.setprop('ov0', name, '1'), 'ENOENT', 'no_such_property');
    }
    for (const property of ['encap', 'varpd/id', 'search', 2, 3, 17]) {
      await assertRefused(overlay.setprop('ov0', property, 'vxlan'), 'EPERM', 'property_read_only');
      await assertRefused(overlay.setprop('ov0', property, { a: 1 }), 'EPERM', 'property_read_only');
    }
    assert.is(overlay.property('ov0', 'varpd/id').value, undefined, 'not associated before activation');
    await overlay.setprop('ov0', 4, HERE);
    await overlay.setprop('ov0', 'direct/dest_ip', '::ffff:127.0.0.2');
    await overlay.setprop('ov0', 19, 4789);
    assert.is(overlay.property('ov0', 'vxlan/listen_ip').value, HERE);
    assert.is(overlay.property('ov0', 18).value, '127.0.0.2');
    assert.is(overlay.property('ov0', 'direct/dest_port').value, 4789n);
    await overlay.activate('ov0');
    assert.is(overlay.property('ov0', 'varpd/id').value, 1n);
  });
});

setprop('setprop vnetid: the range, a duplicate, its own again', async () => {
  await withMemory(async ({ overlay }) => {
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    await overlay.create('ov1', 'vxlan', 'direct', 2);
    await assertRefused(overlay.setprop('ov1', 'vnetid', 1), 'EEXIST', 'vnetid_in_use', /'ov0'/);
    await assertRefused(overlay.setprop('ov1', 'vnetid', 0x1000000), 'EINVAL', 'bad_property_value');
    assert.is(overlay.property('ov1', 'vnetid').value, 2n);
    await overlay.setprop('ov1', 'vnetid', 2);
    // Illumos' bug 15: what create accepts, setprop accepts.
    await overlay.setprop('ov1', 'vnetid', 0xffffff);
    await overlay.setprop('ov0', 'vnetid', 2);
    assert.is(overlay.property('ov0', 'vnetid').value, 2n);
  });
});

setprop('setprop mtu: 576 to 8900, and the link has it', async () => {
  await withMemory(async ({ overlay, links }) => {
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    assert.is(overlay.property('ov0', 'mtu').value, 1400n);
    assert.is(links.get('ov0').mtu, 1400);
    for (const mtu of [576, 8900]) {
      await overlay.setprop('ov0', 'mtu', mtu);
      assert.equal([overlay.property('ov0', 'mtu').value, links.get('ov0').mtu], [BigInt(mtu), mtu]);
    }
    const remedy = /576-8900,auto; for more, set mtu_max first \(up to 65481\)/;
    for (const mtu of [575, 8901, 8950, 0]) {
      const said = mtu > 8900 ? remedy : /may be 576-8900,auto$/;
      await assertRefused(overlay.setprop('ov0', 'mtu', mtu), 'EINVAL', 'bad_property_value', said);
      assert.equal([overlay.property('ov0', 'mtu').value, links.get('ov0').mtu], [8900n, 8900]);
    }
    await assertRefused(
      overlay.setprop('ov0', 'mtu', -1),
      'EINVAL',
      'bad_property_value',
      /out of range|whole/,
    );
  });
});

setprop('setprop mtu_max: raises the bound of the MTU, and is not put below it', async () => {
  await withMemory(async ({ overlay, links }) => {
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    await overlay.setprop('ov0', 'mtu_max', 65_481);
    assert.equal(overlay.property('ov0', 'mtu').info.possible, [{ min: 576n, max: 65_481n }, 'auto']);
    await overlay.setprop('ov0', 'mtu', 65_481);
    assert.is(links.get('ov0').mtu, 65_481);
    // No more than that whatever is set: nothing to be done is named.
    await assertRefused(
      overlay.setprop('ov0', 'mtu', 65_482),
      'EINVAL',
      'bad_property_value',
      /576-65481,auto$/,
    );
    await assertRefused(overlay.setprop('ov0', 'mtu_max', 65_480), 'EBUSY', 'mtu_above', /lower that first/);
    await assertRefused(overlay.setprop('ov0', 'mtu_max', 65_482), 'EINVAL', 'bad_property_value');
    await overlay.setprop('ov0', 'mtu', 576);
    await overlay.setprop('ov0', 'mtu_max', 576);
    await assertRefused(overlay.setprop('ov0', 'mtu', 577), 'EINVAL', 'bad_property_value', /576-576/);
  });
});

setprop('what is fixed on an activated device: ENOTSUP, and delete works afterwards', async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    const before = memory.holdings();
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
    for (const property of ['encap', 'varpd/id', 'search', 2, 3]) {
      await assertRefused(
        overlay.setprop('ov0', property, 'vxlan'),
        'ENOTSUP',
        'already_active',
        /delete and/,
      );
    }
    await assertRefused(overlay.setprop('ov0', 'nope', 1), 'ENOENT', 'no_such_property');
    await overlay.delete('ov0', gently);
    assert.equal(memory.holdings(), before);
  });
});

setprop('every operation on a device that is not there: ENOENT', async () => {
  await withMemory(async ({ overlay }) => {
    const operations: (() => unknown)[] = [
      () => overlay.setprop('ov0', 'mtu', 600),
      () => overlay.setprop('ov0', 'nope', 600),
      () => overlay.activate('ov0'),
      () => overlay.delete('ov0', gently),
      () => overlay.delete('ov0', force),
      () => overlay.properties('ov0'),
      () => overlay.property('ov0', 'mtu'),
      () => overlay.property('ov0', 99),
      () => overlay.status('ov0'),
      () => overlay.state('ov0'),
      () => overlay.target('ov0'),
      () => overlay.deviceStats('ov0'),
    ];
    for (const operation of operations) await assertRefused(operation, 'ENOENT', 'no_such_device', /'ov0'/);
    assert.equal(overlay.names, []);
    assert.equal(overlay.muxStats(), []);
  });
});

setprop.run();
