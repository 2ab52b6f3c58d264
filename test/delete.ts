import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { nextTurn } from '../src/sys/clock.js';
import { until } from './harness/hosts.js';
import { force, gently, HERE, withMemory } from './harness/lifecycle.js';
import { assertRefused, descriptors, freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const deletion = suite('delete');

deletion('delete: EBUSY while up or carrying links, and force', async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    const port = await freePort(HERE);
    const before = memory.holdings();
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    await memory.up('ov0');
    await assertRefused(overlay.delete('ov0', gently), 'EBUSY', 'link_up', /ip link set ov0 down/);
    await memory.down('ov0');
    links.setUpper('ov0', ['vnic0', 'vnic1']);
    await assertRefused(overlay.delete('ov0', gently), 'EBUSY', 'links_on_top', /carries vnic0, vnic1/);
    assert.equal(overlay.names, ['ov0']);
    await overlay.delete('ov0', force);
    links.setUpper('ov0', []);
    assert.equal(memory.holdings(), before);
    await overlay.createOverlay(request('ov0', 1, port));
    await memory.up('ov0');
    await assertRefused(overlay.delete('ov0', gently), 'EBUSY', 'link_up');
    assert.is(overlay.state('ov0'), 'started', 'a refused delete changes nothing');
    await overlay.delete('ov0', force);
    assert.equal(memory.holdings(), before);
    await assertRefused(overlay.delete('ov0', force), 'ENOENT', 'no_such_device');
  });
});

deletion('close takes everything away, and a closed engine holds no descriptor', async () => {
  const before = descriptors();
  const memory = await MemoryOverlay.start({ workers: 2 });
  const port = await freePort(HERE);
  await memory.overlay.createOverlay(request('ov0', 1, port));
  await memory.overlay.createOverlay(request('ov1', 2, port));
  await memory.overlay.create('ov2', 'vxlan', 'direct', 3);
  await memory.up('ov0');
  await memory.close();
  assert.equal(memory.links.unreleased, []);
  assert.is(memory.varpd.live.size, 0);
  assert.is(memory.links.isClosed, true);
  await until('descriptors are back', 3000, () => descriptors() <= before);
});

deletion('while a device is being deleted its vnetid is not free', async () => {
  let end: () => void = () => {};
  const stopped = new Promise<void>((resolve) => {
    end = resolve;
  });
  const plugin = new ScriptedLookup(() => 'drop', { stop: () => stopped });
  await withMemory(
    async ({ overlay }) => {
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': await freePort(HERE) };
      await overlay.createOverlay({ name: 'ov0', encap: 'vxlan', search: 'scripted', vnetid: 5, properties });
      const deleted = overlay.delete('ov0', { force: true });
      await nextTurn();
      await assertRefused(
        overlay.create('ov1', 'vxlan', 'direct', 5),
        'EEXIST',
        'vnetid_in_use',
        /'ov0', which is being deleted: try again/,
      );
      end();
      await deleted;
      await overlay.create('ov1', 'vxlan', 'direct', 5);
    },
    { plugins: [plugin], poolBytes: 2 ** 24 },
  );
});

deletion.run();
