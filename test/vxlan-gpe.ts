/** VXLAN-GPE in the core and the plugin against the slow twin in `reference/vxlan-gpe.ts`. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { dropNames } from '../src/datapath/drop.js';
import { vxlanGpe as plugin } from '../src/encap/vxlan-gpe.js';
import { CoreRig } from './harness/core-rig.js';
import { vxlanGpeEncapsulation } from './harness/encapsulations.js';
import * as frames from './reference/frames.js';
import { receive } from './reference/vxlan.js';
import * as twin from './reference/vxlan-gpe.js';

const VNETID = 0x123456;
const FRAME = frames.ethernet(0x88b5, frames.counting(86));

const vxlanGpe = suite('vxlan-gpe');

vxlanGpe('every value of every byte of the header, and every length: core, twin and plugin agree', () => {
  const rig = new CoreRig({ encapsulation: vxlanGpeEncapsulation });
  rig.addDevice({ vnetid: VNETID });
  const datagram = twin.encap(VNETID, FRAME);
  const changed = Array.from({ length: 8 * 256 }, (_, number) => {
    const one = datagram.slice();
    one[number >>> 8] = number & 255;
    return one;
  });
  const short = Array.from(datagram, (_, length) => datagram.slice(0, length));
  const seen = new Map<string, number>();
  for (const each of [...changed, ...short]) {
    rig.placeDatagramAtEnd(each);
    rig.views.u32[(rig.arena + layout.ARENA_WRITES) / 4] = 0;
    const verdict = rig.core.rxDatagram(rig.arena, rig.mux);
    const name = verdict === layout.VERDICT_PASS ? 'pass' : dropNames[verdict]!;
    const expected = receive([...rig.rules.values()], each, false, twin.decap);
    assert.is(name, expected.verdict, Buffer.from(each.subarray(0, 8)).toString('hex'));
    if (expected.written) assert.equal(rig.writes()[0]!.bytes, expected.written);
    const decapped = twin.decap(each);
    const vnetid = typeof decapped === 'string' ? undefined : BigInt(decapped.vnetid);
    assert.is(plugin.operations.decap(each)?.vnetid, vnetid);
    seen.set(name, (seen.get(name) ?? 0) + 1);
  }
  for (const name of ['pass', 'rx_bad_header', 'rx_control_packet', 'rx_not_ethernet']) {
    assert.ok(seen.get(name)! >= 8, name);
  }
});

vxlanGpe.run();
