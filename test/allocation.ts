/** A worker's loop keeps nothing of what passes: a million frames each way leave heap, memory and descriptors as they were. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { TUNING_DEFAULT } from '../src/limits.js';
import { WorkerContext } from '../workers/context.js';
import { receive } from '../workers/rx.js';
import { transmit } from '../workers/tx.js';
import { CoreRig } from './harness/core-rig.js';
import { descriptors } from './harness/memory-overlay.js';
import { RefusingKernel } from './harness/refusing-kernel.js';
import * as frames from './reference/frames.js';
import { recordOf } from './reference/vnet-hdr.js';
import * as twin from './reference/vxlan.js';

const allocation = suite('allocation');
const FRAMES = Number(process.env.ALLOCATION_FRAMES ?? 1_000_000);
const HEAP_GROWTH_MAX = 64 * 1024;
const BATCH = layout.BATCH_MAX;

setFlagsFromString('--expose_gc');
const collect = runInNewContext('gc') as () => void;

/** A link that always has a frame, sockets that always have datagrams, and both take everything. */
class EndlessKernel extends RefusingKernel {
  readonly #datagrams: readonly Uint8Array[];
  #read = 0;
  written = 0;
  sent = 0;

  constructor(
    readonly rig: CoreRig,
    readonly records: readonly Uint8Array[],
    datagrams: readonly Uint8Array[],
  ) {
    super();
    this.#datagrams = datagrams;
  }

  override read(_fd: number, address: number): number {
    const record = this.records[this.#read++ % this.records.length]!;
    this.rig.views.u8.set(record, address - this.rig.views.base);
    return record.length;
  }

  override recvmmsg(_fd: number, _messages: number, count: number): number {
    const { rig } = this;
    for (let i = 0; i < count; i++) {
      const datagram = this.#datagrams[i % this.#datagrams.length]!;
      rig.views.u8.set(datagram, rig.rxSlot(i));
      rig.noteDatagram(i, rig.rxSlot(i), datagram.length);
    }
    return count;
  }

  override sendmmsg(_fd: number, _messages: number, count: number): number {
    this.sent += count;
    return count;
  }

  override write(): number {
    return ++this.written;
  }

  override writev(): number {
    return ++this.written;
  }
}

/** Bytes of the heap that are in use, less what nobody holds. */
function heapBytes(): number {
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}

/** Runs `work` for FRAMES frames; returns by how much the heap has grown. */
function growth(work: () => void): number {
  // What the compiler and the caches take at first is not kept of frames.
  for (let batch = 0; batch < 2000; batch++) work();
  const before = heapBytes();
  for (let batch = 0; batch < FRAMES / BATCH; batch++) work();
  return heapBytes() - before;
}

const payload = frames.udp({ ends: frames.ENDS_4, payload: frames.counting(60) });
const FRAME = frames.ethernet(frames.ETHERTYPE_IPV4, frames.ipv4({ protocol: 17, payload }));

allocation(
  `${FRAMES} frames each way: the heap grows by less than ${HEAP_GROWTH_MAX} bytes, and nothing else at all`,
  () => {
    const rig = new CoreRig();
    const flags =
      layout.DEVICE_FLAG_UDP_SEGMENT | layout.DEVICE_FLAG_COALESCE | layout.DEVICE_FLAG_COALESCE_UDP;
    const device = rig.addDevice({ vnetid: 1, flags });
    const kernel = new EndlessKernel(rig, [recordOf({}, FRAME)], [twin.encap(1, FRAME)]);
    const { memory } = rig.views;
    const task = {
      memory,
      module: rig.module,
      arena: rig.arena,
      epoll: -1,
      wake: -1,
      cpu: -1,
      ...TUNING_DEFAULT,
    };
    const worker = new WorkerContext(task, kernel);
    const bytes = memory.buffer.byteLength;
    const open = descriptors();
    const out = growth(() => transmit(worker, device));
    const inward = growth(() => receive(worker, rig.mux));
    assert.ok(kernel.sent > 0 && kernel.written >= FRAMES, `${kernel.written} frames written`);
    assert.ok(rig.deviceCount(device, layout.COUNTER_TX_FRAMES) >= FRAMES);
    assert.ok(out < HEAP_GROWTH_MAX, `out: ${out} bytes`);
    assert.ok(inward < HEAP_GROWTH_MAX, `in: ${inward} bytes`);
    assert.is(memory.buffer.byteLength, bytes);
    assert.is(descriptors(), open);
  },
);

allocation('the measure is not blind: eight bytes kept of each frame are seen', () => {
  const kept: number[] = [];
  const grown = growth(() => {
    for (let i = 0; i < BATCH; i++) kept.push(i);
  });
  assert.ok(grown > HEAP_GROWTH_MAX && kept.length > FRAMES, `${grown} bytes`);
});

allocation.run();
