/**
 * Defects of illumos' overlay devices that no other test excludes; `test/reference/defects.ts` lists all of them, each
 * with the test that excludes it.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import type { OverlayRequest } from '../src/overlay/transaction.js';
import { parseMac } from '../src/target/mac.js';
import type { Answer, LookupInstance } from '../src/varpd/plugin.js';
import { frameTo } from './harness/frame-to.js';
import { until } from './harness/hosts.js';
import { force, gently, HERE, withMemory } from './harness/lifecycle.js';
import { assertRefused, freePort, type MemoryOverlay, request } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const defects = suite('defects of devices');
const MAC = '02:08:20:00:00:07';
const THERE = '127.0.0.2';
const POOL_BYTES = 2 ** 22;

/** A DYNAMIC device. */
function dynamic(search: string, port: number): OverlayRequest {
  const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
  return { name: 'ov0', encap: 'vxlan', search, vnetid: 1, properties };
}

/** Runs `work` with an engine that has the scripted plugin, and ov0 looked up by it, started. */
async function withScripted(
  answer: () => Answer | Promise<Answer>,
  work: (memory: MemoryOverlay, plugin: ScriptedLookup, port: number) => Promise<void>,
  more: Partial<LookupInstance> = {},
): Promise<void> {
  const plugin = new ScriptedLookup(answer, more);
  await withMemory(
    async (memory) => {
      const port = await freePort(HERE);
      await memory.overlay.createOverlay(dynamic('scripted', port));
      await memory.up('ov0');
      assert.is(memory.overlay.state('ov0'), 'started');
      await work(memory, plugin, port);
    },
    { plugins: [plugin], poolBytes: POOL_BYTES },
  );
}

defects('status, reads and answers beside a delete: every one of them ends', async () => {
  const answers: ((answer: Answer) => void)[] = [];
  await withScripted(
    () => new Promise((resolve) => answers.push(resolve)),
    async (memory, plugin, port) => {
      const { overlay, links } = memory;
      const route = { ip: THERE, port };
      const before = memory.holdings();
      const seen = new Set<string>();
      let turns = 0;
      for (let round = 0; round < 20; round++) {
        answers.length = 0;
        for (let number = 0; number < 10; number++) {
          links.get('ov0').port.send(0, frameTo(`02:08:20:00:00:${10 + number}`, number));
        }
        await until('all are asked about', 2000, () => answers.length === 10);
        let isDone = false;
        const deletion = overlay.delete('ov0', force).finally(() => {
          isDone = true;
        });
        do {
          answers.shift()?.(route);
          for (const read of [
            () => overlay.status('ov0'),
            () => overlay.properties('ov0'),
            () => overlay.cacheIterate('ov0', 0, 10),
            () => plugin.services!.set(MAC, route),
          ]) {
            try {
              read();
              seen.add('done');
            } catch (error) {
              if (!(error instanceof OverlayError)) throw error;
              seen.add(error.errno);
            }
          }
          // Between any two steps of the deletion, and now and then for what it waits for.
          if (++turns % 50 > 0) await Promise.resolve();
          else await new Promise((resolve) => setImmediate(resolve));
        } while (!isDone);
        await deletion;
        await assertRefused(() => overlay.status('ov0'), 'ENOENT', 'no_such_device');
        await overlay.createOverlay(dynamic('scripted', port));
        await memory.up('ov0');
      }
      assert.equal(
        [...seen].sort(),
        ['ENOENT', 'ENXIO', 'done'],
        'they came before, while and after it went',
      );
      assert.equal(memory.holdings(), before);
    },
  );
});

defects('two deletes at once: one of them does it, the other finds nothing', async () => {
  await withScripted(
    () => 'drop',
    async (memory) => {
      const { overlay, varpd } = memory;
      const ends = await Promise.allSettled([overlay.delete('ov0', force), overlay.delete('ov0', force)]);
      assert.is(ends[0]!.status, 'fulfilled');
      await assertRefused(
        () => {
          if (ends[1]!.status === 'rejected') throw ends[1]!.reason;
        },
        'ENOENT',
        'no_such_device',
      );
      assert.is(varpd.live.size, 0);
    },
  );
});

defects('a degraded device that is deleted: the process is online again', async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    for (const [index, name] of ['ov0', 'ov1'].entries()) {
      await overlay.createOverlay(request(name, index, await freePort(HERE), { ip: '203.0.113.1' }));
      await memory.up(name);
      assert.is(overlay.status(name).status, 'DEGRADED');
    }
    await overlay.delete('ov0', force);
    assert.is(overlay.fma.processStatus, 'DEGRADED', 'the other one still is');
    await overlay.delete('ov1', force);
    assert.is(overlay.fma.processStatus, 'ONLINE');
    assert.equal(overlay.fma.list(), []);
  });
});

defects('a send that the system refuses costs its frames by name, and the next frame goes', async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    // From a loopback address the kernel sends to no other host.
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE), { peer: '203.0.113.1' }));
    await memory.up('ov0');
    const link = links.get('ov0').port;
    const frames = 1000;
    for (let number = 0; number < frames; number++) {
      while (!link.send(0, frameTo(MAC, number))) await new Promise((resolve) => setImmediate(resolve));
    }
    const counts = () => overlay.deviceStats('ov0').counts;
    const dropped = () => {
      const { tx_unreachable, tx_not_permitted, tx_underlay_error } = counts().drops;
      return Number(tx_unreachable + tx_not_permitted + tx_underlay_error);
    };
    await until('each is a drop with a name', 3000, () => dropped() === frames);
    assert.is(counts().counters.tx_frames, 0n);
    await overlay.setprop('ov0', 'direct/dest_ip', THERE);
    link.send(0, frameTo(MAC, frames));
    await until('the next one goes', 3000, () => counts().counters.tx_frames === 1n);
    assert.is(dropped(), frames);
  });
});

defects('associated again and again, refused or not: one table, and what was held is not lost', async () => {
  await withMemory(
    async ({ overlay, links, ...memory }) => {
      const { pool } = overlay.engine;
      const free = pool.freeBytes;
      const port = await freePort(HERE);
      await overlay.createOverlay(dynamic('external', port));
      const associate = () => overlay.associate('ov0', { mode: 'dynamic' });
      await associate();
      links.setUp('ov0', true);
      await overlay.idle();
      links.get('ov0').port.send(0, frameTo(MAC, 1));
      await until('it is held', 2000, () => overlay.cacheStats('ov0')!.heldFrames === 1);
      const taken = pool.freeBytes;
      assert.ok(taken < free, 'there is a table');
      for (let round = 0; round < 100; round++) {
        await assertRefused(associate(), 'EEXIST', 'associated');
        await overlay.disassociate('ov0');
        await associate();
        assert.is(pool.freeBytes, taken, `round ${round}`);
        assert.is(overlay.cacheStats('ov0')!.heldFrames, 1);
      }
      overlay.cacheSet('ov0', parseMac(MAC), { ip: THERE, port });
      await until('it goes', 2000, () => overlay.deviceStats('ov0').counts.counters.tx_frames === 1n);
      await overlay.delete('ov0', force);
      await until('all of it is given back', 2000, () => pool.freeBytes === free);
      assert.is(memory.varpd.live.size, 0);
    },
    { poolBytes: POOL_BYTES },
  );
});

defects('after announcements and injections a device is deleted as ever', async () => {
  await withScripted(
    () => 'drop',
    async (memory, plugin) => {
      const { overlay, links } = memory;
      const { port } = links.get('ov0');
      let arrived = 0;
      for (let round = 0; round < 10; round++) {
        plugin.services!.gratuitousArp({ mac: MAC, ip: '192.0.2.7', vlan: 0 });
        plugin.services!.gratuitousArp({ mac: MAC, ip: '2001:db8::7', vlan: 7 });
        overlay.inject('ov0', frameTo(MAC, round));
        overlay.resend('ov0', frameTo(MAC, round));
      }
      await until('the guest has them', 2000, () => {
        while (port.receive()) arrived++;
        return arrived === 30;
      });
      await memory.down('ov0');
      await overlay.delete('ov0', gently);
      assert.equal([overlay.names, links.unreleased, memory.varpd.live.size], [[], [], 0]);
    },
  );
});

defects('a plugin whose device is gone degrades nobody, and is told so', async () => {
  await withScripted(
    () => 'drop',
    async ({ overlay }, plugin, port) => {
      const services = plugin.services!;
      services.degrade('it rains');
      assert.is(overlay.status('ov0').message, 'it rains');
      await overlay.delete('ov0', force);
      await assertRefused(() => services.degrade('it pours'), 'ENXIO', 'not_active');
      await assertRefused(() => services.restore(), 'ENXIO', 'not_active');
      assert.equal(overlay.fma.list(), []);
      await overlay.createOverlay(dynamic('scripted', port));
      await assertRefused(() => services.degrade('it pours'), 'ENXIO', 'not_active');
      assert.is(overlay.status('ov0').status, 'ONLINE', 'the next of the name has nothing to do with it');
    },
  );
});

for (const [what, stop] of [
  [
    'throws',
    () => {
      throw new Error('it does not want to end');
    },
  ],
  ['never ends', () => new Promise<void>(() => {})],
] as const) {
  defects(`a lookup plugin whose stop ${what}: its device goes all the same`, () =>
    withScripted(
      () => 'drop',
      async (memory) => {
        const { overlay, links } = memory;
        await memory.down('ov0');
        await overlay.delete('ov0', gently);
        assert.equal([overlay.names, links.unreleased, memory.varpd.live.size], [[], [], 0]);
        await overlay.create('ov0', 'vxlan', 'direct', 1);
      },
      { stop },
    ),
  );
}

defects('a name that is refused is the one that the sentence has', async () => {
  await withMemory(async ({ overlay }) => {
    const long = 'x'.repeat(40);
    await assertRefused(overlay.create('ov0', 'vxlan', long, 1), 'ENOENT', 'no_such_lookup', /lookup .*xxx/);
    await assertRefused(overlay.create('ov0', long, 'direct', 1), 'EINVAL', 'bad_encap_name', /encap plugin/);
    await assertRefused(
      overlay.create('ov0', 'lost', 'direct', 1),
      'ENOENT',
      'no_such_encap',
      /encap plugin 'lost'/,
    );
  });
});

defects.run();
