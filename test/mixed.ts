/**
 * Every encapsulation over both families in one core: underlay addresses of each kind take turns at random with random
 * datagrams and frames, so that nothing of one is left over for the next.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { AF_INET, AF_INET6, structs } from '../src/sys/abi.js';
import { randomBetween } from '../src/sys/random.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { CoreRig, SEND_FD } from './harness/core-rig.js';
import { type Encapsulation, encapsulations, HEADER_BYTES_MAX } from './harness/encapsulations.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import { type DeviceRules, receive, txVerdict } from './reference/vxlan.js';

const mixed = suite('mixed encapsulations');
const SEED = Number(process.env.FUZZ_SEED ?? randomBetween(1, 0x7fffffff));
const ROUNDS = 20_000;
const VNETIDS = [0x1000, 0x123456, 0xfffffe];
const MTU = 600;
const samples = [...frames.sampleFrames(20), ...frames.sampleFrames(700)].map(({ frame }) => frame);

interface Underlay {
  readonly encapsulation: Encapsulation;
  readonly mux: number;
  readonly isIpv6: boolean;
  /** Device row of each vnetid. */
  readonly devices: ReadonlyMap<number, number>;
  readonly rules: readonly DeviceRules[];
}

/** One underlay address of each encapsulation over each family, all in one core. */
function underlaysOf(rig: CoreRig): Underlay[] {
  const { tables } = rig;
  return encapsulations.flatMap((encapsulation) =>
    // What has an IP header in front is IPv4.
    (encapsulation.hasIpHeader ? [false] : [true, false]).map((isIpv6) => {
      const mux = tables.muxes.take();
      tables.writeMux(mux, encapsulation.core, 4, isIpv6, encapsulation.hasIpHeader);
      rig.views.i32.fill(SEND_FD, ...bankOf(rig, mux));
      const destination = tables.destinations.take();
      const name = isIpv6 ? sockaddr(AF_INET6, 'fd00::2', 1) : sockaddr(AF_INET, '192.0.2.2', 1);
      tables.writeDestination(destination, name, new Uint8Array(0), encapsulation.header(0));
      const devices = new Map<number, number>();
      const rules = VNETIDS.map((vnetid, index) => {
        const row = tables.devices.take();
        const carriesVlan = index !== 0;
        tables.writeDevice(row, {
          mux,
          vnetid: BigInt(vnetid),
          encap: encapsulation.core,
          flags: carriesVlan ? layout.DEVICE_FLAG_VLAN : 0,
          mtu: MTU,
          mode: layout.TARGET_MODE_POINT,
          destination,
          targets: 0,
        });
        tables.setDeviceState(row, layout.DEVICE_STATE_ACTIVE);
        tables.insertVnet(mux, BigInt(vnetid), row);
        devices.set(vnetid, row);
        return { vnetid, mtu: MTU, carriesVlan, isActive: true, hasTarget: true };
      });
      return { encapsulation, mux, isIpv6, devices, rules };
    }),
  );
}

function bankOf(rig: CoreRig, mux: number): [number, number] {
  const start = (rig.arena + layout.ARENA_SEND_FDS) / 4 + mux * layout.BANK_MAX;
  return [start, start + layout.BANK_MAX];
}

mixed(`in turns, seed ${SEED}`, () => {
  const random = new Xorshift(SEED);
  const rig = new CoreRig();
  const underlays = underlaysOf(rig);
  assert.is(underlays.length, 11);
  const passed = new Map<string, number>();
  const count = (what: string, frames: number) => passed.set(what, (passed.get(what) ?? 0) + frames);
  const header = new Uint8Array(HEADER_BYTES_MAX);
  for (let round = 0; round < ROUNDS; round++) {
    const { encapsulation, mux, isIpv6, devices, rules } = underlays[random.below(underlays.length)]!;
    const what = `${encapsulation.name}, IPv${isIpv6 ? 6 : 4}`;
    const where = `${what}, seed ${SEED}, round ${round}`;
    const size = 1 + random.below(8);
    const batch = Array.from({ length: size }, () => samples[random.below(samples.length)]!);
    if (random.below(2) === 0) {
      const datagrams = batch.map((frame) => {
        const vnetid = random.below(8) === 0 ? random.next() >>> 8 : VNETIDS[random.below(VNETIDS.length)]!;
        const start = encapsulation.write(header, header.length, vnetid, random);
        return frames.concat(header.slice(start), frame);
      });
      rig.placeDatagrams(datagrams);
      rig.core.rxBegin(rig.arena, mux, size);
      rig.core.rxDecide(rig.arena, mux, 0, rig.core.rxUnfold(rig.arena, mux));
      rig.core.rxGather(rig.arena);
      const expected = datagrams.flatMap((datagram) => {
        const { written, device } = receive(rules, datagram, false, encapsulation.decap);
        return written ? [{ device: devices.get(device!.vnetid), bytes: written }] : [];
      });
      const seen = rig.writes().map(({ device, bytes }) => ({ device, bytes }));
      assert.equal(seen, expected, where);
      count(`${what}, in`, seen.length);
    } else {
      const rule = rules[random.below(rules.length)]!;
      const device = devices.get(rule.vnetid)!;
      rig.placeFrames(batch);
      assert.is(rig.decideTx(device, size), 0, where);
      const sent = rig.groups(device, size);
      const indices = sent.flatMap((group) => group.frames).sort((a, b) => a - b);
      const passing = batch.flatMap((frame, index) => {
        const read = frames.concat(new Uint8Array(layout.VNET_HDR_BYTES), frame);
        return txVerdict(rule, read) === 'pass' ? [index] : [];
      });
      assert.equal(indices, passing, where);
      const outer = encapsulation.header(rule.vnetid);
      const fixed = encapsulation.hasFlowId ? outer.length - 1 : outer.length;
      for (const group of sent) {
        for (const [index, datagram] of group.datagrams.entries()) {
          assert.equal(datagram.slice(0, fixed), outer.slice(0, fixed), where);
          assert.equal(datagram.slice(outer.length), batch[group.frames[index]!], where);
        }
      }
      count(`${what}, out`, indices.length);
    }
  }
  assert.is(passed.size, underlays.length * 2);
  for (const [what, frames] of passed) assert.ok(frames > 500, `${what}: ${frames} passed`);
});

mixed('a sender of IPv6 has room where one of IPv4 was', () => {
  const rig = new CoreRig();
  rig.addDevice({ vnetid: VNETIDS[0]! });
  rig.placeDatagrams([frames.concat(rig.encapsulation.header(VNETIDS[0]!), samples[0]!)]);
  const { mmsghdr, sockaddr_in: ipv4 } = structs;
  const at = (rig.arena + layout.ARENA_RX_MESSAGES + mmsghdr['msg_hdr.msg_namelen']) / 4;
  assert.is(rig.views.u32[at], layout.RX_NAME_BYTES);
  // As the kernel does (man 2 recvmsg).
  rig.views.u32[at] = ipv4.size;
  assert.is(rig.decideRx(1), 0);
  assert.is(rig.views.u32[at], layout.RX_NAME_BYTES);
});

mixed.run();
