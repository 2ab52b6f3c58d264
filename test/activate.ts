import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { OverlayError } from '../src/errors.js';
import { force, gently, HERE, withMemory } from './harness/lifecycle.js';
import { assertRefused, freePort, request } from './harness/memory-overlay.js';

const activate = suite('activate');

activate(
  'activate: EINVAL for the encap before EAGAIN for the lookup, then it works, then EEXIST',
  async () => {
    await withMemory(async ({ overlay, links }) => {
      await overlay.create('ov0', 'vxlan', 'direct', 1);
      const link = links.get('ov0');
      await assertRefused(
        overlay.activate('ov0'),
        'EINVAL',
        'property_missing',
        /^not set: vxlan\/listen_ip$/,
      );
      await overlay.setprop('ov0', 'vxlan/listen_ip', HERE);
      const both = /^not set: direct\/dest_ip, direct\/dest_port$/;
      await assertRefused(overlay.activate('ov0'), 'EAGAIN', 'property_missing', both);
      await overlay.setprop('ov0', 'direct/dest_ip', '127.0.0.2');
      await assertRefused(
        overlay.activate('ov0'),
        'EAGAIN',
        'property_missing',
        /^not set: direct\/dest_port$/,
      );
      assert.equal([overlay.state('ov0'), link.hasCarrier], ['created', false]);
      await overlay.setprop('ov0', 'direct/dest_port', 4789);
      link.carrierFailure = new OverlayError('EIO', 'system_call_failed', 'the link takes no carrier');
      await assertRefused(overlay.activate('ov0'), 'EIO', 'system_call_failed');
      assert.equal([overlay.state('ov0'), link.hasCarrier], ['created', false], 'not half activated');
      await overlay.activate('ov0');
      assert.equal([overlay.state('ov0'), link.hasCarrier], ['activated', true]);
      await assertRefused(overlay.activate('ov0'), 'EEXIST', 'already_active');
      assert.equal([overlay.state('ov0'), link.hasCarrier], ['activated', true]);
    });
  },
);

activate('states follow the link once activated', async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    const port = await freePort(HERE);
    const { properties } = request('ov0', 1, port);
    const mux = `${HERE}:${port}`;
    const muxes = () => overlay.muxStats().map(({ name }) => name);
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    assert.is(overlay.target('ov0'), undefined, 'the target is not known before activation');
    await memory.up('ov0');
    assert.is(overlay.state('ov0'), 'created', 'up before activation waits');
    await memory.down('ov0');
    await memory.up('ov0');
    assert.is(overlay.state('ov0'), 'created');
    for (const [name, value] of Object.entries(properties)) await overlay.setprop('ov0', name, value);
    await overlay.activate('ov0');
    assert.equal([overlay.state('ov0'), muxes()], ['started', [mux]], 'and starts on activation');
    const target = { ip: '127.0.0.2', port };
    assert.equal(overlay.target('ov0'), target);
    for (let round = 0; round < 3; round++) {
      await memory.down('ov0');
      assert.equal([overlay.state('ov0'), muxes()], ['activated', []], 'down stops');
      assert.equal(overlay.target('ov0'), target, 'stopping keeps the target');
      await memory.down('ov0');
      await memory.up('ov0');
      assert.equal([overlay.state('ov0'), muxes()], ['started', [mux]], 'up starts');
      await memory.up('ov0');
      links.tell('ov0');
    }
    await memory.settle();
    assert.equal(overlay.target('ov0'), target);
    assert.is(overlay.status('ov0').status, 'ONLINE');
    assert.is(links.get('ov0').hasCarrier, true, 'the carrier stays');
    await overlay.delete('ov0', force);
    await overlay.createOverlay(request('ov0', 1, port));
    assert.is(overlay.state('ov0'), 'activated', 'down at activation waits');
    await memory.up('ov0');
    assert.is(overlay.state('ov0'), 'started');
  });
});

activate('MTU: the link’s is the device’s; one out of range is put back', async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
    const { views } = overlay.engine;
    const rowMtu = () => views.u32[(layout.DEVICES_OFFSET + layout.DEVICE_MTU) / 4];
    const link = links.get('ov0');
    for (const state of ['activated', 'started']) {
      assert.is(overlay.state('ov0'), state);
      for (const mtu of [576, 8900, 1300]) {
        links.changeMtu('ov0', mtu);
        await memory.settle();
        assert.equal([overlay.property('ov0', 'mtu').value, link.mtu, rowMtu()], [BigInt(mtu), mtu, mtu]);
      }
      for (const mtu of [575, 8901, 68, 65521]) {
        links.changeMtu('ov0', mtu);
        await memory.settle();
        assert.equal([overlay.property('ov0', 'mtu').value, link.mtu, rowMtu()], [1300n, 1300, 1300]);
      }
      await memory.up('ov0');
      assert.is(rowMtu(), 1300, 'a start takes the MTU of the moment');
    }
  });
});

activate('a link that somebody else deletes: degraded, and the device can still be deleted', async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    const port = await freePort(HERE);
    const before = memory.holdings();
    for (const state of ['created', 'activated', 'started'] as const) {
      if (state === 'created') await overlay.create('ov0', 'vxlan', 'direct', 1);
      else await overlay.createOverlay(request('ov0', 1, port));
      if (state === 'started') await memory.up('ov0');
      assert.is(overlay.state('ov0'), state);
      links.remove('ov0');
      links.remove('ov0');
      await memory.settle();
      assert.is(overlay.state('ov0'), state === 'created' ? 'created' : 'activated');
      assert.equal(overlay.muxStats(), []);
      const { status, message, faults } = overlay.status('ov0');
      assert.is(status, 'DEGRADED');
      assert.match(message, /the link ov0 was deleted or moved away; delete and create/);
      assert.equal(
        faults.map(({ code }) => code),
        ['link_gone'],
      );
      // Whoever gets the number of the link next is not this device's link.
      await memory.up('ov0');
      links.changeMtu('ov0', 600);
      await memory.settle();
      assert.is(overlay.state('ov0'), state === 'created' ? 'created' : 'activated');
      assert.is(overlay.property('ov0', 'mtu').value, 1400n);
      assert.is(overlay.deviceStats('ov0').linkOverflow, 0n);
      if (state === 'created')
        await assertRefused(overlay.activate('ov0'), 'ENODEV', 'link_gone', /was deleted/);
      await overlay.delete('ov0', gently);
      assert.equal(memory.holdings(), before);
      await overlay.create('ov0', 'vxlan', 'direct', 1);
      assert.is(overlay.status('ov0').status, 'ONLINE', 'the next of the name knows nothing of it');
      await overlay.delete('ov0', gently);
    }
  });
});

activate.run();
