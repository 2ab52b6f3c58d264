/**
 * Both registries know every encapsulation that there is a number for, in each function: the core's traps on one that is forgotten,
 * and it is named here.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { structs } from '../src/sys/abi.js';
import { CoreRig } from './harness/core-rig.js';
import { type Encapsulation, encapsulations } from './harness/encapsulations.js';
import * as frames from './reference/frames.js';

const registries = suite('registries of encapsulations');
const VNETID = 0x123456;
const FRAME = frames.ethernet(0x88b5, frames.counting(86));

/** Of a number, padded, and where its type is (man 3 cmsg, man 7 ipv6). */
const CONTROL_BYTES = 24;
const CONTROL_TYPE = 12;
const IPV6_FLOWINFO = 11;

const registry = new EncapRegistry();
const plugins = registry.names.map((name) => registry.get(name));
const numbers = Object.entries(layout).filter(([name]) => name.startsWith('ENCAP_'));

/** What the registry of the core does not know traps. */
function mustKnow<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof WebAssembly.RuntimeError)) throw error;
    return assert.unreachable(`assembly/encap/registry.ts: ${what} traps (${error.message})`) as never;
  }
}

/** A device, and a datagram of its encapsulation. */
function place(encapsulation: Encapsulation, flags = 0) {
  const rig = new CoreRig({ encapsulation });
  const device = rig.addDevice({ vnetid: VNETID, flags });
  return { rig, device, datagram: frames.concat(encapsulation.header(VNETID), FRAME) };
}

/** The verdict on one datagram. */
function verdictOn(rig: CoreRig, datagram: Uint8Array): number {
  rig.placeDatagramAtEnd(datagram);
  rig.views.u32[(rig.arena + layout.ARENA_WRITES) / 4] = 0;
  return rig.core.rxDatagram(rig.arena, rig.mux);
}

/** Whether the last control message of the first message of a batch that is laid out is a flow label. */
function isLabelled(rig: CoreRig): boolean {
  const { u32 } = rig.views;
  const message = rig.arena + layout.ARENA_TX_MESSAGES;
  const controls = rig.loadAddress(message + structs.mmsghdr['msg_hdr.msg_control']);
  const bytes = u32[(message + structs.mmsghdr['msg_hdr.msg_controllen']) / 4]!;
  return u32[(controls + bytes - CONTROL_BYTES + CONTROL_TYPE) / 4] === IPV6_FLOWINFO;
}

registries('there is a number for each, no number twice, and nothing without one', () => {
  const known = numbers.map(([, number]) => number).sort();
  assert.equal(plugins.map(({ core }) => core).sort(), known, 'src/encap/registry.ts');
  assert.equal(
    [...new Set(encapsulations.map(({ core }) => core))].sort(),
    known,
    'test/harness/encapsulations.ts',
  );
});

for (const [name, number] of numbers) {
  const encapsulation = encapsulations.find(({ core }) => core === number)!;
  const plugin = plugins.find(({ core }) => core === number)!;

  registries(`${name}: encapFrame, and hasNoPorts where the plugin says that it is not over UDP`, () => {
    const { rig, device, datagram } = place(encapsulation);
    rig.placeFrames([FRAME]);
    mustKnow('encapFrame', () => rig.core.txDecide(rig.arena, device, 0, 1));
    const [group] = mustKnow('encapFrame', () => rig.groups(device, 1));
    const [sent] = group!.datagrams;
    // The last byte of the header may tell flows apart.
    const masked = (bytes: Uint8Array) => (encapsulation.hasFlowId ? bytes.with(7, 0) : bytes);
    assert.equal(masked(sent!), masked(datagram));
    assert.is(isLabelled(rig), plugin.transport === 'gre', 'hasNoPorts');
  });

  registries(`${name}: decapDatagram, and signatureOf for neighbours in a batch`, () => {
    const { rig, datagram } = place(encapsulation);
    assert.is(
      mustKnow('decapDatagram or signatureOf', () => verdictOn(rig, datagram)),
      layout.VERDICT_PASS,
    );
    rig.placeDatagrams([datagram, datagram]);
    rig.core.rxBegin(rig.arena, rig.mux, 2);
    const count = rig.core.rxUnfold(rig.arena, rig.mux);
    mustKnow('signatureOf', () => rig.core.rxDecide(rig.arena, rig.mux, 0, count));
    rig.core.rxGather(rig.arena);
    assert.is(rig.writeCount, 2);
  });

  registries(`${name}: hasReservedBits`, () => {
    const { rig, datagram } = place(encapsulation, layout.DEVICE_FLAG_RESERVED);
    assert.is(
      mustKnow('hasReservedBits', () => verdictOn(rig, datagram)),
      layout.VERDICT_PASS,
    );
    const headerBits = (datagram.length - FRAME.length) * 8;
    const isReserved = (bit: number) => {
      const changed = datagram.with(bit >>> 3, datagram[bit >>> 3]! ^ (0x80 >>> (bit & 7)));
      return verdictOn(rig, changed) === layout.DROP_RX_RESERVED_BITS;
    };
    assert.ok(Array.from({ length: headerBits }, (_, bit) => bit).some(isReserved));
  });

  registries(`${name}: the plugin reads what the core sends`, () => {
    const seen = plugin.operations.decap(frames.concat(encapsulation.header(VNETID), FRAME));
    assert.is(seen?.vnetid, BigInt(VNETID));
  });
}

registries('the recipe lists the files that know of the encapsulation it was written for', () => {
  const root = join(import.meta.dirname, '../..');
  const below = (folder: string) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name));
  const all = ['assembly', 'workers', 'src', 'test', 'bench'].flatMap(below).concat(readdirSync(root));
  const textOf = (name: string) => readFileSync(join(root, name), 'utf8');
  const know = all.filter((name) => /\.(ts|py|md)$/.test(name) && /vxlan.?gpe/i.test(textOf(name)));
  const [, listed = ''] = textOf('assembly/README.md').split('in lines (a test compares the names):\n');
  const names = [...listed.matchAll(/^ {5}(\S+) +\| +\d+$/gm)].map(([, name]) => name);
  assert.equal(names.sort(), know.sort());
});

registries.run();
