/** What the core makes of datagrams, one by one and in batches, beside what the twin says of the rig's encapsulation. */
import * as assert from 'uvu/assert';
import * as layout from '../../assembly/layout.js';
import { dropNames } from '../../src/datapath/drop.js';
import * as frames from '../reference/frames.js';
import { receive } from '../reference/vxlan.js';
import { CoreRig } from './core-rig.js';
import { type Encapsulation, HEADER_BYTES_MAX } from './encapsulations.js';
import { Xorshift } from './xorshift.js';

/** What becomes of a datagram that ends where the memory does: a drop, or what the link gets. */
export function received(rig: CoreRig, datagram: Uint8Array): string | Uint8Array {
  rig.placeDatagramAtEnd(datagram);
  rig.views.u32[(rig.arena + layout.ARENA_WRITES) / 4] = 0;
  const verdict = rig.core.rxDatagram(rig.arena, rig.mux);
  return verdict === layout.VERDICT_PASS ? rig.writes()[0]!.bytes : dropNames[verdict]!;
}

/** The same must be what the twin says; its verdict. */
export function mustAgree(rig: CoreRig, datagram: Uint8Array, what: string): string {
  const expected = receive([...rig.rules.values()], datagram, false, rig.encapsulation.decap);
  const seen = received(rig, datagram);
  assert.is(typeof seen === 'string' ? seen : 'pass', expected.verdict, what);
  if (typeof seen !== 'string') assert.equal(seen, expected.written, what);
  return expected.verdict;
}

/** Every value of every one of the first bytes of a datagram, with the twin; how often each verdict came. */
export function mutateHeader(rig: CoreRig, datagram: Uint8Array, headerBytes: number): Map<string, number> {
  const seen = new Map<string, number>();
  for (let at = 0; at < headerBytes; at++) {
    for (let value = 0; value < 256; value++) {
      const changed = datagram.slice();
      changed[at] = value;
      const verdict = mustAgree(rig, changed, `byte ${at} is ${value}`);
      seen.set(verdict, (seen.get(verdict) ?? 0) + 1);
    }
  }
  return seen;
}

/** Batches of random headers to two devices: each datagram by its own header, whatever its neighbours have. */
export function mustAgreeInBatches(encapsulation: Encapsulation, seed: number, rounds: number): void {
  const random = new Xorshift(seed);
  const vnetids = [0x1000, 0x123456];
  const frame = frames.ethernet(0x88b5, frames.counting(86));
  for (let round = 0; round < rounds; round++) {
    const rig = new CoreRig({ encapsulation });
    for (const vnetid of vnetids) rig.addDevice({ vnetid });
    const bytes = new Uint8Array(HEADER_BYTES_MAX);
    const datagrams = Array.from({ length: layout.BATCH_MAX }, () => {
      const start = encapsulation.write(bytes, bytes.length, vnetids[random.below(2)]!, random);
      return frames.concat(bytes.slice(start), frame);
    });
    rig.placeDatagrams(datagrams);
    assert.is(rig.decideRx(datagrams.length), 0);
    const expected = datagrams.flatMap(
      (datagram) => receive([...rig.rules.values()], datagram, false, encapsulation.decap).written ?? [],
    );
    assert.equal(
      rig.writes().map((write) => write.bytes),
      expected,
      `seed ${seed}, round ${round}`,
    );
  }
}
