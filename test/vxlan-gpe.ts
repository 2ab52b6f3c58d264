/** VXLAN-GPE in the core and the plugin against the slow twin in `reference/vxlan-gpe.ts`. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { vxlanGpe as plugin } from '../src/encap/vxlan-gpe.js';
import { randomBetween } from '../src/sys/random.js';
import { CoreRig } from './harness/core-rig.js';
import { mustAgree, mustAgreeInBatches, mutateHeader } from './harness/decap-check.js';
import { HEADER_BYTES_MAX, vxlanGpeEncapsulation } from './harness/encapsulations.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import * as twin from './reference/vxlan-gpe.js';

const SEED = randomBetween(1, 0x7fffffff);
const VNETID = 0x123456;
const FRAME = frames.ethernet(0x88b5, frames.counting(86));

const vxlanGpe = suite('vxlan-gpe');

vxlanGpe('every value of every byte of the header, and every length', () => {
  const rig = new CoreRig({ encapsulation: vxlanGpeEncapsulation });
  rig.addDevice({ vnetid: VNETID });
  const datagram = twin.encap(VNETID, FRAME);
  const seen = mutateHeader(rig, datagram, 8);
  for (const name of ['pass', 'rx_bad_header', 'rx_control_packet', 'rx_not_ethernet']) {
    assert.ok(seen.get(name)! >= 8, name);
  }
  for (let length = 0; length < datagram.length; length++) {
    mustAgree(rig, datagram.slice(0, length), `${length} bytes`);
  }
});

vxlanGpe('neighbours in a batch: each by its own header', () =>
  mustAgreeInBatches(vxlanGpeEncapsulation, SEED, 200),
);

vxlanGpe('the plugin reads what the core and the twin read', () => {
  const random = new Xorshift(SEED);
  const bytes = new Uint8Array(HEADER_BYTES_MAX);
  for (let round = 0; round < 20_000; round++) {
    const start = vxlanGpeEncapsulation.write(bytes, bytes.length, random.next() >>> 8, random);
    const datagram = bytes.slice(start, bytes.length - random.below(2) * random.below(9));
    const expected = twin.decap(datagram);
    const seen = plugin.operations.decap(datagram);
    assert.is(seen?.vnetid, typeof expected === 'string' ? undefined : BigInt(expected.vnetid));
  }
});

vxlanGpe.run();
