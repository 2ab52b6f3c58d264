import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { OverlayError } from '../src/errors.js';
import { until } from './harness/hosts.js';
import { counting, faultOf, force, gently, HERE, withMemory } from './harness/lifecycle.js';
import {
  assertRefused,
  descriptors,
  freePort,
  holdPort,
  MemoryOverlay,
  request,
} from './harness/memory-overlay.js';

const startFailure = suite('start failure');

startFailure('the port is a foreign program’s: degraded with the reason, recovers by itself', async () => {
  for (const workers of [1, 2]) {
    await withMemory(
      async (memory) => {
        const { overlay } = memory;
        const foreign = await holdPort(HERE, 0);
        const { port } = foreign;
        await overlay.createOverlay(request('ov0', 1, port));
        assert.is(faultOf(memory, 'ov0'), '', 'nothing is opened before the link is up');
        const before = memory.holdings();
        await memory.up('ov0');
        const text = `not started: listening on ${HERE}:${port}: another program has the port`;
        const owner = `, process ${process.pid}); stop it`;
        assert.ok(faultOf(memory, 'ov0').startsWith(text), faultOf(memory, 'ov0'));
        assert.ok(faultOf(memory, 'ov0').includes(owner), faultOf(memory, 'ov0'));
        assert.match(faultOf(memory, 'ov0'), /\(EADDRINUSE\); will try again$/);
        assert.equal(
          overlay.status('ov0').faults.map(({ code }) => code),
          ['start_failed'],
        );
        assert.is(overlay.state('ov0'), 'activated');
        assert.is(memory.links.get('ov0').hasCarrier, true, 'the link is not touched');
        assert.equal(memory.holdings(), before, 'a start that fails opens nothing');
        await memory.down('ov0');
        assert.is(faultOf(memory, 'ov0'), '', 'down: not being started is no fault');
        await memory.up('ov0');
        assert.match(faultOf(memory, 'ov0'), /EADDRINUSE/);
        await foreign.release();
        await until('it starts by itself', 3000, () => overlay.state('ov0') === 'started');
        assert.equal(overlay.status('ov0'), { status: 'ONLINE', message: '', faults: [] });
      },
      { workers },
    );
  }
});

startFailure('a thousand address events at once: one more try', async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    const foreign = await holdPort(HERE, 0);
    await overlay.createOverlay(request('ov0', 1, foreign.port));
    await memory.up('ov0');
    let tries = 0;
    const enter = links.inNamespace.bind(links);
    links.inNamespace = (netns, work) => {
      tries++;
      return enter(netns, work);
    };
    for (let event = 0; event < 1000; event++) links.addressChanged();
    await memory.settle();
    // A retry by the clock may have come in between.
    assert.ok(tries >= 1 && tries <= 2, `${tries} tries`);
    await foreign.release();
    links.addressChanged();
    await memory.settle();
    assert.is(overlay.state('ov0'), 'started');
  });
});

startFailure('the port is another overlayd’s: degraded, and it takes over when that one leaves', async () => {
  const first = await MemoryOverlay.start({ workers: 2 });
  await withMemory(
    async (second) => {
      const port = await freePort(HERE);
      await first.overlay.createOverlay(request('ov0', 1, port));
      await first.up('ov0');
      await second.overlay.createOverlay(request('ov0', 2, port));
      await second.up('ov0');
      assert.match(faultOf(second, 'ov0'), /another program has the port.*EADDRINUSE/);
      assert.is(first.overlay.state('ov0'), 'started');
      await first.close();
      await until('it takes over', 5000, () => second.overlay.state('ov0') === 'started');
      assert.is(faultOf(second, 'ov0'), '');
    },
    { workers: 2 },
  );
});

startFailure(
  'the address is not this host’s: degraded, and an address event brings a try forward',
  async () => {
    const tries: number[] = [];
    await withMemory(async (memory) => {
      const { overlay } = memory;
      const before = memory.holdings();
      memory.links.inNamespace = (_netns, work) => {
        tries.push(performance.now());
        return work();
      };
      await overlay.createOverlay(request('ov0', 1, await freePort(HERE), { ip: '203.0.113.1' }));
      await memory.up('ov0');
      assert.match(faultOf(memory, 'ov0'), /no interface of this host has the address \(EADDRNOTAVAIL\)/);
      assert.is(tries.length, 1);
      memory.links.addressChanged();
      await memory.settle();
      assert.is(tries.length, 2, 'tried at once');
      await until('it is tried again by itself', 4000, () => tries.length >= 3);
      await assertRefused(overlay.delete('ov0', gently), 'EBUSY', 'link_up');
      await overlay.delete('ov0', force);
      assert.equal(memory.holdings(), before, 'a degraded device can be deleted');
      const count = tries.length;
      memory.links.addressChanged();
      await new Promise((resolve) => setTimeout(resolve, 1200));
      assert.is(tries.length, count, 'and is tried no more');
    });
  },
);

startFailure(
  'an encapsulation that cannot say where it listens: created, and said at the start',
  async () => {
    const plugin = counting({
      operations: {
        ...vxlan.operations,
        socket: () => {
          throw new OverlayError('EIO', 'test', 'nobody knows where');
        },
      },
    });
    await withMemory(
      async (memory) => {
        await memory.overlay.createOverlay(request('ov0', 1, 4789));
        await memory.up('ov0');
        assert.match(faultOf(memory, 'ov0'), /^not started: nobody knows where \(EIO\)/);
      },
      { encaps: new EncapRegistry([plugin]) },
    );
  },
);

startFailure('tries are apart: 0.5 s, 1 s, and so on', async () => {
  const tries: number[] = [];
  await withMemory(async (memory) => {
    memory.links.inNamespace = () => {
      tries.push(performance.now());
      throw new OverlayError('EIO', 'test', 'it does not work today');
    };
    await memory.overlay.createOverlay(request('ov0', 1, 4789));
    await memory.up('ov0');
    await until('four tries', 6000, () => tries.length >= 4);
    const pauses = tries.slice(1, 4).map((at, index) => at - tries[index]!);
    for (const [index, least] of [500, 1000, 2000].entries()) {
      assert.ok(pauses[index]! > least - 20 && pauses[index]! < least + 400, `${pauses}`);
    }
    assert.match(faultOf(memory, 'ov0'), /^not started: it does not work today \(EIO\); will try again$/);
  });
});

startFailure('a socket option that the mux refuses: nothing stays open', async () => {
  const plugin = counting({
    operations: {
      ...vxlan.operations,
      sockopt: () => {
        throw new OverlayError('ENOTSUP', 'test', 'this kernel has no such option');
      },
    },
  });
  await withMemory(
    async (memory) => {
      await memory.overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
      const before = memory.holdings();
      await memory.up('ov0');
      assert.match(faultOf(memory, 'ov0'), /no such option \(ENOTSUP\)/);
      assert.equal(memory.holdings(), before);
    },
    { encaps: new EncapRegistry([plugin]) },
  );
});

startFailure(
  'two devices share a mux; another encap on it is refused, and gets it when it is free',
  async () => {
    const encaps = new EncapRegistry([vxlan, counting({ name: 'vxtest' })]);
    await withMemory(
      async (memory) => {
        const { overlay } = memory;
        const port = await freePort(HERE);
        const muxes = () => overlay.muxStats().map(({ name, encap }) => `${encap} ${name}`);
        const before = memory.holdings();
        await overlay.createOverlay(request('ov0', 1, port));
        await overlay.createOverlay(request('ov1', 2, port));
        await overlay.createOverlay(request('ov2', 1, port, { encap: 'vxtest' }));
        await memory.up('ov0');
        const one = { ...memory.tables(), descriptors: descriptors() };
        await memory.up('ov1');
        const two = { ...memory.tables(), descriptors: descriptors() };
        assert.equal(two, { ...one, vnets: 2 }, 'one mux, one set of sockets, one destination for both');
        assert.equal(muxes(), [`vxlan ${HERE}:${port}`]);
        await memory.up('ov2');
        assert.match(faultOf(memory, 'ov2'), /in use for vxlan; choose another port for vxtest \(EEXIST\)/);
        assert.is(overlay.state('ov2'), 'activated');
        await overlay.delete('ov0', force);
        assert.equal(muxes(), [`vxlan ${HERE}:${port}`], 'the other one still uses it');
        assert.is(overlay.state('ov1'), 'started');
        await memory.down('ov1');
        assert.equal(muxes(), []);
        await until('the other encap gets the address', 5000, () => overlay.state('ov2') === 'started');
        assert.equal(muxes(), [`vxtest ${HERE}:${port}`]);
        assert.is(faultOf(memory, 'ov2'), '');
        await memory.up('ov1');
        assert.match(faultOf(memory, 'ov1'), /in use for vxtest/);
        await overlay.delete('ov1', force);
        await overlay.delete('ov2', force);
        assert.equal(memory.holdings(), before);
      },
      { encaps },
    );
  },
);

startFailure('the unspecified address and one of the host’s: the second on the port is refused', async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    const port = await freePort('0.0.0.0');
    await overlay.createOverlay(request('ov0', 1, port, { ip: '0.0.0.0' }));
    await overlay.createOverlay(request('ov1', 2, port));
    await memory.up('ov0');
    assert.is(overlay.state('ov0'), 'started');
    await memory.up('ov1');
    assert.match(faultOf(memory, 'ov1'), /EADDRINUSE/);
  });
});

startFailure.run();
