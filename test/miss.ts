/** A frame whose destination is not known, from the first frame in to the frame out: workers, rings, cache, plugin. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { monotonicSeconds } from '../src/sys/clock.js';
import { until } from './harness/hosts.js';
import type { MemoryHost } from './harness/memory-pair.js';
import { MemoryPair, sideIp } from './harness/memory-pair.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';

const miss = suite('a miss');
const TURNS = 3000;
const SEED = Number(process.env.MISS_SEED ?? Date.now() % 2 ** 31);
const MAC = [2, 8, 32, 0, 0, 7];
const FLOWS = 64;
const VXLAN_BYTES = 8;

/** A UDP frame to a MAC address that carries a flow and a sequence number. */
function frameTo(mac: readonly number[], flow: number, sequence: number, payloadBytes = 64): Uint8Array {
  const payload = new Uint8Array(payloadBytes);
  new DataView(payload.buffer).setUint32(0, flow);
  new DataView(payload.buffer).setUint32(4, sequence);
  const datagram = frames.udp({ ends: frames.ENDS_4, sourcePort: 1024 + (flow % 60_000), payload });
  const frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: datagram }));
  frame.set(mac);
  return frame;
}

const flowOf = (frame: Uint8Array) => new DataView(frame.buffer, frame.byteOffset).getUint32(42);
const sequenceOf = (frame: Uint8Array) => new DataView(frame.buffer, frame.byteOffset).getUint32(46);

async function withPair(
  plugin: ScriptedLookup,
  work: (pair: MemoryPair) => Promise<void>,
  options: { workers?: number; properties?: Record<string, string | number> } = {},
): Promise<void> {
  const other = new ScriptedLookup(() => 'drop');
  const pair = await MemoryPair.start({
    workers: options.workers ?? 1,
    plugin: (side) => (side === 'a' ? plugin : other),
    properties: options.properties ?? {},
  });
  try {
    await work(pair);
  } finally {
    await pair.close();
  }
}

/** The device's books: every frame read has ended in one way. */
async function assertBalance({ overlay }: MemoryHost): Promise<void> {
  const sums = () => {
    const { drops, counters } = overlay.deviceStats('ov0').counts;
    const dropped = Object.entries(drops)
      .filter(([name]) => name.startsWith('tx_'))
      .reduce((sum, [, count]) => sum + count, 0n);
    const { tx_read, tx_resent, tx_copies, tx_resumed, tx_frames, tx_proxied, tx_deferred } = counters;
    const held = BigInt(overlay.cacheStats('ov0')!.heldFrames);
    return {
      all: [tx_read + tx_resent + tx_copies, tx_frames + dropped + tx_proxied + held] as const,
      deferred: tx_deferred >= tx_resumed,
    };
  };
  await until('the books balance', 2000, () => sums().all[0] === sums().all[1]);
  assert.ok(sums().deferred);
}

async function receiveOne(host: MemoryHost): Promise<Uint8Array> {
  let frame: Uint8Array | undefined;
  await until('a frame arrives', 3000, () => {
    frame = host.port.receive();
    return frame !== undefined;
  });
  return frame!;
}

miss('is answered at once: the frame goes out, and those behind it without a question', async () => {
  const plugin = new ScriptedLookup(() => 'drop');
  await withPair(plugin, async (pair) => {
    plugin.answer = () => ({ ip: sideIp.b, port: pair.udpPort });
    const first = frameTo(MAC, 1, 0);
    const begun = monotonicSeconds();
    pair.a.port.send(0, first);
    assert.equal(await receiveOne(pair.b), first);
    const { id, vnetid, overlay, ...request } = plugin.requests[0]!;
    assert.equal([typeof id, vnetid, overlay], ['string', 42n, 'ov0']);
    assert.equal(request, {
      source: '02:00:00:00:00:01',
      destination: '02:08:20:00:00:07',
      kind: 'unicast',
      etherType: 0x0800,
      isDhcp: false,
      vlan: 0,
      headerBytes: 14,
      payloadBytes: first.length - 14,
    });
    await until('it is valid', 2000, () => pair.a.overlay.cacheGet('ov0', 0x020820000007).state === 'valid');
    for (let sequence = 1; sequence < 100; sequence++) pair.a.port.send(0, frameTo(MAC, 1, sequence));
    for (let sequence = 1; sequence < 100; sequence++) {
      assert.is(sequenceOf(await receiveOne(pair.b)), sequence);
    }
    assert.is(plugin.requests.length, 1);
    const view = pair.a.overlay.cacheGet('ov0', 0x020820000007);
    assert.equal(view.route, { ip: sideIp.b, port: pair.udpPort });
    assert.equal([view.source, view.frames, view.bytes], ['lookup', 100, 100 * first.length]);
    const now = monotonicSeconds();
    assert.ok(view.lastUse >= begun && view.lastUse <= now && view.ageSeconds <= now - begun);
    await assertBalance(pair.a);
  });
});

miss('0 frames reordered within a flow across 10,000 misses, answered late, on 2 workers', async () => {
  const plugin = new ScriptedLookup(() => 'drop');
  await withPair(
    plugin,
    async (pair) => {
      const flows = 10_000;
      const perFlow = 4;
      plugin.answer = async () => {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
        return { ip: sideIp.b, port: pair.udpPort };
      };
      const next = new Uint32Array(flows);
      let received = 0;
      let reordered = 0;
      const take = () => {
        for (let frame = pair.b.port.receive(); frame; frame = pair.b.port.receive()) {
          if (sequenceOf(frame) !== next[flowOf(frame)]!) reordered++;
          next[flowOf(frame)] = sequenceOf(frame) + 1;
          received++;
        }
      };
      const BLOCK = 500;
      for (let block = 0; block < flows; block += BLOCK) {
        for (let sequence = 0; sequence < perFlow; sequence++) {
          for (let flow = block; flow < block + BLOCK; flow++) {
            const mac = [2, 8, 33, 0, flow >> 8, flow & 255];
            while (!pair.a.port.send(flow % 2, frameTo(mac, flow, sequence))) take();
            if (flow % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
          }
          take();
        }
        await until('the block has arrived', 5000, () => {
          take();
          return received === (block + BLOCK) * perFlow;
        });
      }
      assert.is(reordered, 0);
      assert.is(plugin.requests.length, flows);
      await assertBalance(pair.a);
    },
    { workers: 2 },
  );
});

miss(
  `at most one frame of 5,000 is reordered in a flow whose target is removed and set again and again, seed ${SEED}`,
  async () => {
    const plugin = new ScriptedLookup(() => 'drop');
    await withPair(plugin, async (pair) => {
      plugin.answer = () => ({ ip: sideIp.b, port: pair.udpPort });
      const flows = 2;
      const random = new Xorshift(SEED);
      const next = new Uint32Array(flows);
      const last = new Int32Array(flows).fill(-1);
      let [received, reordered, removed] = [0, 0, 0];
      const take = () => {
        for (let frame = pair.b.port.receive(); frame; frame = pair.b.port.receive()) {
          if (sequenceOf(frame) < last[flowOf(frame)]!) reordered++;
          else last[flowOf(frame)] = sequenceOf(frame);
          received++;
        }
      };
      for (let turn = 0; turn < TURNS; turn++) {
        for (let frame = 0; frame < 150; frame++) {
          const flow = random.below(flows);
          if (!pair.a.port.send(0, frameTo([2, 8, 32, 0, 0, flow], flow, next[flow]!))) break;
          next[flow]!++;
        }
        take();
        if (random.below(5) < 3) {
          const mac = 0x020820000000 + random.below(flows);
          if (pair.a.overlay.cacheStats('ov0')!.targets > 0) {
            try {
              pair.a.overlay.cacheRemove('ov0', mac);
            } catch (error) {
              assert.match(String(error), /has no target/);
            }
            if (random.below(2)) pair.a.overlay.cacheSet('ov0', mac, { ip: sideIp.b, port: pair.udpPort });
            removed++;
          }
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      await until('nothing is held', 5000, () => pair.a.overlay.cacheStats('ov0')!.heldFrames === 0);
      await assertBalance(pair.a);
      take();
      assert.ok(removed > 100 && received > 10_000, `${removed} removals, ${received} frames`);
      // Without the generation in the inject record it is several times as many. Under load it is not none.
      console.log(`  ${reordered} of ${received} reordered by ${removed} removals`);
      assert.ok(reordered <= received / 5_000, `${reordered} of ${received}`);
    });
  },
);

miss('a drop answer costs one frame, and the next one is asked about', async () => {
  const plugin = new ScriptedLookup(() => 'drop');
  await withPair(plugin, async (pair) => {
    let release: (() => void) | undefined;
    plugin.answer = (request) =>
      plugin.requests.length === 1
        ? new Promise((resolve) => {
            release = () => resolve('drop');
          })
        : request.payloadBytes > 200
          ? { ip: sideIp.b, port: pair.udpPort }
          : 'drop';
    for (let sequence = 0; sequence < 5; sequence++) {
      pair.a.port.send(0, frameTo(MAC, 1, sequence, sequence === 3 ? 300 : 64));
    }
    await until('all are held', 2000, () => pair.a.overlay.cacheStats('ov0')!.heldFrames === 5);
    release!();
    // The first three are dropped, one by one; the fourth is answered with a route and takes the fifth with it.
    assert.is(sequenceOf(await receiveOne(pair.b)), 3);
    assert.is(sequenceOf(await receiveOne(pair.b)), 4);
    assert.is(plugin.requests.length, 4);
    assert.is(pair.a.overlay.deviceStats('ov0').counts.drops.tx_lookup_drop, 3n);
    await assertBalance(pair.a);
  });
});

miss('an unknown address is remembered for negative_ttl', async () => {
  const plugin = new ScriptedLookup(() => 'unknown');
  await withPair(
    plugin,
    async (pair) => {
      for (let sequence = 0; sequence < 10; sequence++) {
        pair.a.port.send(0, frameTo(MAC, 1, sequence));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await until('dropped by the worker', 2000, () => {
        return pair.a.overlay.deviceStats('ov0').counts.drops.tx_target_drop > 0n;
      });
      assert.is(plugin.requests.length, 1);
      assert.is(pair.a.overlay.cacheGet('ov0', 0x020820000007).state, 'drop');
      await until('forgotten', 4000, () => pair.a.overlay.cacheStats('ov0')!.targets === 0);
      pair.a.port.send(0, frameTo(MAC, 1, 99));
      await until('asked again', 2000, () => plugin.requests.length === 2);
      await assertBalance(pair.a);
    },
    { properties: { negative_ttl: 1 } },
  );
});

miss('a route to several: each gets a copy; and one that is spread keeps a flow to one', async () => {
  const plugin = new ScriptedLookup(() => 'drop');
  await withPair(plugin, async (pair) => {
    const here = { ip: sideIp.b, port: pair.udpPort };
    const group = [255, 255, 255, 255, 255, 255];
    plugin.answer = () => ({ replicate: [here, { ip: '127.0.0.9', port: pair.udpPort }, here] });
    pair.a.port.send(0, frameTo(group, 1, 0));
    assert.is(sequenceOf(await receiveOne(pair.b)), 0);
    await assertBalance(pair.a);
    const { tx_frames, tx_copies } = pair.a.overlay.deviceStats('ov0').counts.counters;
    assert.ok(tx_frames >= 1n && tx_copies === 1n, 'a VTEP that is listed twice gets one copy');
    const other = new Map<number, number[]>();
    const elsewhere = createSocket('udp4', (datagram) => {
      const frame = datagram.subarray(VXLAN_BYTES);
      other.set(flowOf(frame), [...(other.get(flowOf(frame)) ?? []), sequenceOf(frame)]);
    });
    try {
      elsewhere.bind(pair.udpPort, '127.0.0.9');
      await once(elsewhere, 'listening');
      plugin.answer = () => ({ spread: [here, { ip: '127.0.0.9', port: pair.udpPort }] });
      const sequences = [0, 1, 2, 3, 4];
      for (const sequence of sequences) {
        for (let flow = 0; flow < FLOWS; flow++) {
          while (!pair.a.port.send(0, frameTo(MAC, flow, sequence))) {
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
        }
      }
      const one = new Map<number, number[]>();
      await until('each flow has arrived somewhere', 3000, () => {
        for (let frame = pair.b.port.receive(); frame; frame = pair.b.port.receive()) {
          one.set(flowOf(frame), [...(one.get(flowOf(frame)) ?? []), sequenceOf(frame)]);
        }
        const arrived = [...one.values(), ...other.values()].flat().length;
        return arrived === FLOWS * sequences.length;
      });
      // All to one of them once in 2^63 runs.
      assert.ok(one.size > 0 && other.size > 0, `${one.size} flows to one, ${other.size} to the other`);
      assert.is(one.size + other.size, FLOWS, 'none goes both ways');
      for (const seen of [...one.values(), ...other.values()]) assert.equal(seen, sequences);
    } finally {
      elsewhere.close();
    }
  });
});

miss(
  'a plugin that throws or says nonsense costs its frames and degrades the device; the cache goes on',
  async () => {
    const plugin = new ScriptedLookup(() => 'drop');
    await withPair(plugin, async (pair) => {
      const { overlay, port } = pair.a;
      plugin.answer = () => ({ ip: sideIp.b, port: pair.udpPort });
      port.send(0, frameTo(MAC, 1, 0));
      await receiveOne(pair.b);
      for (const answer of [
        () => {
          throw new Error('broken');
        },
        () => Promise.reject(new Error('broken')),
        () => ({ ip: 'nonsense', port: 1 }),
        () => ({ ip: '192.0.2.1' }),
        () => ({ replicate: [] }),
      ]) {
        plugin.answer = answer;
        port.send(0, frameTo([2, 8, 34, 0, 0, 1], 2, 0));
        await until('degraded', 2000, () => overlay.status('ov0').status === 'DEGRADED');
        assert.match(overlay.status('ov0').message, /lookup plugin failed/);
        port.send(0, frameTo(MAC, 1, 1));
        await receiveOne(pair.b);
        plugin.answer = () => 'drop';
        port.send(0, frameTo([2, 8, 34, 0, 0, 2], 2, 0));
        await until('restored', 2000, () => overlay.status('ov0').status === 'ONLINE');
      }
      await assertBalance(pair.a);
    });
  },
);

miss('operators set, drop, remove and flush; each takes effect', async () => {
  const plugin = new ScriptedLookup(() => 'drop');
  await withPair(plugin, async (pair) => {
    const { overlay, port } = pair.a;
    const mac = 0x020820000007;
    overlay.cacheSet('ov0', mac, { ip: sideIp.b, port: pair.udpPort });
    await until('valid', 2000, () => overlay.cacheGet('ov0', mac).state === 'valid');
    port.send(0, frameTo(MAC, 1, 0));
    assert.is(sequenceOf(await receiveOne(pair.b)), 0);
    overlay.cacheSet('ov0', mac, 'drop');
    port.send(0, frameTo(MAC, 1, 1));
    await until('dropped', 2000, () => overlay.deviceStats('ov0').counts.drops.tx_target_drop === 1n);
    overlay.cacheSet('ov0', mac, { ip: sideIp.b, port: pair.udpPort });
    port.send(0, frameTo(MAC, 1, 2));
    assert.is(sequenceOf(await receiveOne(pair.b)), 2);
    overlay.cacheRemove('ov0', mac);
    assert.throws(() => overlay.cacheGet('ov0', mac), /no target/);
    assert.throws(() => overlay.cacheRemove('ov0', mac), /no target/);
    assert.is(plugin.requests.length, 0);
    port.send(0, frameTo(MAC, 1, 3));
    await until('asked', 2000, () => plugin.requests.length === 1);
    for (let i = 0; i < 300; i++) overlay.cacheSet('ov0', mac + i, { ip: sideIp.b, port: pair.udpPort });
    const { targets, next } = overlay.cacheIterate('ov0', 0, 200);
    assert.is(targets.length, 200);
    assert.is(next, mac + 200);
    assert.is(overlay.cacheIterate('ov0', next!, 200).targets.length, 100);
    overlay.cacheFlush('ov0');
    assert.is(overlay.cacheStats('ov0')!.targets, 0);
    await assertBalance(pair.a);
  });
});

miss.run();
