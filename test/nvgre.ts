/** NVGRE in the core against the slow twin in `reference/nvgre.ts`, and what its plugin refuses. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { nvgre as plugin } from '../src/encap/nvgre.js';
import { randomBetween } from '../src/sys/random.js';
import { CoreRig } from './harness/core-rig.js';
import { mustAgree, mustAgreeInBatches, mutateHeader, received } from './harness/decap-check.js';
import {
  type Encapsulation,
  HEADER_BYTES_MAX,
  nvgreEncapsulation,
  nvgreOverIpv4,
} from './harness/encapsulations.js';
import { until } from './harness/hosts.js';
import { faultOf, HERE, withMemory } from './harness/lifecycle.js';
import { assertRefused, MemoryOverlay } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { SuperFrames } from './harness/super-frames.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import * as twin from './reference/nvgre.js';
import { recordOf } from './reference/vnet-hdr.js';
import { sendable } from './reference/vxlan.js';

const SEED = randomBetween(1, 0x7fffffff);
const VSID = 0x123456;
const FRAME = frames.ethernet(0x88b5, frames.counting(86));
const FLOW_ID = 7;
const FLOW_IDS = 256;

const nvgre = suite('nvgre');

function rigOf(encapsulation: Encapsulation = nvgreEncapsulation): CoreRig {
  const rig = new CoreRig({ encapsulation });
  rig.addDevice({ vnetid: VSID, mtu: 65_000, carriesVlan: false });
  return rig;
}

/** What is sent for a record, as datagrams. */
function sent(rig: CoreRig, device: number, record: Uint8Array): Uint8Array[] {
  const at = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
  rig.views.u8.set(record, at);
  rig.noteFrame(0, at, record.length);
  assert.is(rig.decideTx(device, 1), 0);
  return rig.groups(device, 1).flatMap(({ datagrams }) => datagrams);
}

nvgre('every value of every byte of the header', () => {
  const rig = rigOf();
  const datagram = twin.encap(VSID, FRAME, 0x5a);
  const seen = mutateHeader(rig, datagram, 8);
  // Of the first byte two bits are ignored, of the second all but the version, and the FlowID is only for whoever shares it out.
  const passes = 4 + 32 + 1 + 1 + 3 + 256;
  assert.equal([...seen].sort(), [
    ['pass', passes],
    ['rx_bad_header', 252 + 224],
    ['rx_not_ethernet', 255 * 2],
    ['rx_unknown_vnetid', 255 * 3],
  ]);
});

nvgre('the ways of GRE that it is not: checksum, sequence number, routing, no key, version 1', () => {
  const rig = rigOf();
  const bodies = [0xa0, 0x30, 0x60, 0x00, 0x28, 0x24].map((first) => [first, 0] as const);
  for (const [first, second] of [...bodies, [0x20, 1] as const]) {
    const datagram = twin.encap(VSID, FRAME);
    datagram[0] = first;
    datagram[1] = second;
    assert.is(mustAgree(rig, datagram, `${first} ${second}`), 'rx_bad_header');
  }
});

nvgre('every length; behind IPv4 headers of every length', () => {
  const bare = rigOf();
  const datagram = twin.encap(VSID, FRAME);
  for (let length = 0; length <= datagram.length; length++)
    mustAgree(bare, datagram.slice(0, length), `${length}`);
  const rig = rigOf(nvgreOverIpv4);
  for (let words = 0; words < 16; words++) {
    const header = new Uint8Array(Math.max(words * 4, 1)).fill(0x40 | words);
    const whole = words === 0 ? datagram.slice() : frames.concat(header, datagram);
    if (words === 0) whole[0] = 0x40;
    for (let length = 0; length <= whole.length; length++) {
      mustAgree(rig, whole.slice(0, length), `${words} words, ${length} bytes`);
    }
    if (words > 0) assert.equal(received(rig, whole), recordOf({}, FRAME));
  }
});

nvgre('neighbours in a batch: each by its own header', () => {
  for (const encapsulation of [nvgreEncapsulation, nvgreOverIpv4])
    mustAgreeInBatches(encapsulation, SEED, 200);
});

nvgre('FlowID: one a flow, and flows spread over all of them', () => {
  const rig = new CoreRig({ encapsulation: nvgreEncapsulation });
  const device = rig.addDevice({ vnetid: VSID });
  const flowId = (port: number, size: number) => {
    const payload = frames.udp({ ends: frames.ENDS_4, sourcePort: port, payload: frames.counting(size) });
    const packet = frames.ipv4({ protocol: 17, payload });
    const [datagram] = sent(rig, device, recordOf({}, frames.ethernet(0x0800, packet)));
    assert.equal(datagram!.slice(0, FLOW_ID), twin.encap(VSID, FRAME).slice(0, FLOW_ID));
    return datagram![FLOW_ID]!;
  };
  const counts = new Uint32Array(FLOW_IDS);
  const flows = 20_000;
  for (let port = 1; port <= flows; port++) {
    const id = flowId(port, 20);
    if (port % 100 === 0) assert.is(flowId(port, 900), id, 'whatever else the frame holds');
    counts[id]!++;
  }
  // Chi-square with 255 degrees of freedom: above 380 once in a million runs.
  const mean = flows / FLOW_IDS;
  const chi = counts.reduce((sum, count) => sum + (count - mean) ** 2 / mean, 0);
  assert.ok(chi < 380, `chi-square ${chi}`);
});

nvgre('super-frames: each segment has the header, and the FlowID of its flow', () => {
  const records = new SuperFrames(new Xorshift(SEED));
  let cut = 0;
  while (cut < 200) {
    const record = records.superFrame();
    const segments = sendable(record);
    if (!segments || segments.length < 2) continue;
    const rig = new CoreRig({ encapsulation: nvgreEncapsulation });
    const device = rig.addDevice({ vnetid: VSID, mtu: 65_000 });
    const datagrams = sent(rig, device, record);
    const [id] = sent(rig, device, recordOf({}, segments[0]!)).map((datagram) => datagram[FLOW_ID]!);
    assert.equal(
      datagrams,
      segments.map((segment) => twin.encap(VSID, segment, id)),
      `seed ${SEED}`,
    );
    cut++;
  }
});

nvgre('frames with a VLAN tag are carried neither way', () => {
  const rig = new CoreRig({ encapsulation: nvgreEncapsulation });
  const device = rig.addDevice({ vnetid: VSID, carriesVlan: false });
  for (const tags of [frames.VLAN_TAGS, frames.VLAN_STACK]) {
    const frame = frames.ethernet(0x0800, frames.counting(60), { tags });
    assert.is(received(rig, twin.encap(VSID, frame)), 'rx_vlan_not_carried');
    assert.equal(sent(rig, device, recordOf({}, frame)), []);
  }
  assert.is(rig.deviceCount(device, layout.DROP_TX_VLAN_NOT_CARRIED), 2);
});

nvgre('the plugin reads what the core and the twin read', () => {
  const random = new Xorshift(SEED);
  const bytes = new Uint8Array(HEADER_BYTES_MAX);
  for (let round = 0; round < 20_000; round++) {
    const start = nvgreEncapsulation.write(bytes, bytes.length, random.next() >>> 8, random);
    const datagram = bytes.slice(start, bytes.length - random.below(2) * random.below(9));
    const expected = twin.decap(datagram);
    const seen = plugin.operations.decap(datagram);
    assert.is(seen?.vnetid, typeof expected === 'string' ? undefined : BigInt(expected.vnetid));
  }
});

nvgre('reserved vnetids are refused, and there is no port', async () => {
  const memory = await MemoryOverlay.start();
  try {
    const { overlay } = memory;
    const request = { name: 'ov0', encap: 'nvgre', search: 'direct' };
    const properties = { 'nvgre/listen_ip': '127.0.0.1', 'direct/dest_ip': '127.0.0.2' };
    for (const vnetid of [0, 1, 0xfff, 0xffffff, 0x1000000]) {
      await assertRefused(
        overlay.createOverlay({ ...request, vnetid, properties }),
        'EINVAL',
        'bad_property_value',
        /vnetid.*4096-16777214/,
      );
    }
    await assertRefused(
      overlay.createOverlay({
        ...request,
        vnetid: VSID,
        properties: { ...properties, 'direct/dest_port': 4789 },
      }),
      'ENOENT',
      'no_such_property',
      /dest_port/,
    );
    for (const vnetid of [0x1000, 0xfffffe]) {
      await overlay.createOverlay({ ...request, name: `ov${vnetid}`, vnetid, properties });
    }
  } finally {
    await memory.close();
  }
});

const families = [
  { listen: HERE, vtep: '127.0.0.2', group: '239.1.1.1' },
  { listen: '::1', vtep: 'fd00::2', group: 'ff05::4711' },
] as const;

for (const [search, property] of [
  ['direct', 'direct/dest_ip'],
  ['learn', 'learn/flood'],
] as const) {
  for (const { listen, vtep, group } of families) {
    testWith(nvgre, ['root'], `multicast groups are refused by name, VTEPs taken: ${search}, ${group}`, () =>
      withMemory(async (memory) => {
        const { overlay } = memory;
        const properties = { 'nvgre/listen_ip': listen, [property]: group };
        await overlay.createOverlay({ name: 'ov0', encap: 'nvgre', search, vnetid: VSID, properties });
        await memory.up('ov0');
        assert.is(overlay.state('ov0'), 'activated');
        assert.match(
          faultOf(memory, 'ov0'),
          /not started: nvgre has no multicast groups: list the VTEPs instead/,
        );
        await overlay.setprop('ov0', property, vtep);
        await until('it starts', 3000, () => overlay.state('ov0') === 'started');
        const before = memory.holdings();
        const set = overlay.setprop('ov0', property, group);
        await assertRefused(set, 'ENOTSUP', 'no_groups', /list the VTEPs/);
        assert.is(overlay.state('ov0'), 'started', 'with the VTEP that it had');
        assert.equal(memory.holdings(), before);
      }),
    );
  }
}

nvgre.run();
