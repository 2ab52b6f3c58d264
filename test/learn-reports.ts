/** Sources that a worker reports for learning: so many a second, whoever sends. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { AF_INET6 } from '../src/sys/abi.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { ReceiveRig } from './harness/receive-rig.js';

const reports = suite('reports of sources');
const VNETID = 7;
const HEADER_BYTES = 8;
const FRAME_BYTES = 60;
const peer = sockaddr(AF_INET6, 'fd00::1', 4789);

/** Receives a frame from each of so many new addresses; main takes what is reported. Returns how much that was. */
function receive(rig: ReceiveRig, first: number, count: number): number {
  const { u8 } = rig.views;
  const ring = rig.arena + layout.ARENA_MISSES;
  let reported = 0;
  for (let number = first; number < first + count; number++) {
    const at = rig.slot(0);
    u8.fill(0, at, at + HEADER_BYTES + FRAME_BYTES);
    u8.set([8, 0, 0, 0, 0, 0, VNETID, 0], at);
    u8.set(
      [2, 0, 0, 0, 0, 1, 2, 1, 0, number >> 16, (number >> 8) & 255, number & 255, 0x88, 0xb5],
      at + HEADER_BYTES,
    );
    rig.note(0, HEADER_BYTES + FRAME_BYTES, peer);
    rig.decide(1);
    for (; rig.core.ringPeek(ring) !== 0; reported++) rig.core.missDrop(rig.arena);
  }
  return reported;
}

reports('are no more than LEARN_REPORTS_MAX in a second, and go on in the next', () => {
  const rig = new ReceiveRig();
  rig.addDevice(VNETID, layout.SOURCE_MODE_OFF, 0, layout.DEVICE_FLAG_LEARN);
  const now = (rig.arena + layout.ARENA_NOW) / 4;
  const { u32 } = rig.views;
  u32[now] = 1;
  const max = layout.LEARN_REPORTS_MAX;
  assert.is(receive(rig, 0, max + 100), max);
  const { row } = rig.targets[0]!.options;
  const limited =
    rig.arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES + layout.COUNTER_RX_LEARN_LIMITED * 8;
  assert.is(u32[limited / 4], 100);
  u32[now] = 2;
  assert.is(receive(rig, 2 * max, 100), 100);
});

reports.run();
