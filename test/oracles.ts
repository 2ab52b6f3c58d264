/**
 * Other people's code reads what we send, and we read what it makes: tshark dissects datagrams of the core, and the core takes
 * the outer headers off datagrams of scapy's.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { randomBetween } from '../src/sys/random.js';
import { CoreRig } from './harness/core-rig.js';
import {
  type Encapsulation,
  encapsulations,
  geneveEncapsulation,
  nvgreEncapsulation,
  vxlanEncapsulation,
  vxlanGpeEncapsulation,
} from './harness/encapsulations.js';
import { mdnsAnswer, mdnsQuestion } from './harness/mdns.js';
import { testWith } from './harness/needs.js';
import { Shown } from './harness/shown.js';
import { dissected } from './harness/tshark.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import * as geneve from './reference/geneve.js';
import { ORACLE_FRAMES } from './reference/interoperability.js';

const oracles = suite('oracles');
const SEED = Number(process.env.FUZZ_SEED ?? randomBetween(1, 0x7fffffff));
const shown = new Shown('oracles');
const SCAPY = join(import.meta.dirname, '../../test/harness/oracle.py');
const NOTHING = new Uint8Array(0);

const options = frames.concat(
  geneve.option(0x0102, 3, Uint8Array.of(1, 2, 3, 4)),
  geneve.option(0xffff, 0x7f, NOTHING),
  geneve.option(0x0103, 0x85, frames.counting(124)),
);
const geneveOptions: Encapsulation = {
  ...geneveEncapsulation,
  name: 'geneve with options',
  header: (vnetid) => geneve.encap(vnetid, NOTHING, options),
};

interface Row {
  readonly encapsulation: Encapsulation;
  /** Undefined for GRE. */
  readonly port?: number;
  /** What tshark is asked of the outer header, and what it should say. */
  readonly fields: readonly string[];
  readonly expected: (vnetid: number, flowId: number) => readonly string[];
}

const hex = (value: number, digits: number) => `0x${value.toString(16).padStart(digits, '0')}`;

const rows: readonly Row[] = [
  {
    encapsulation: vxlanEncapsulation,
    port: 4789,
    fields: ['vxlan.flags', 'vxlan.vni', 'vxlan.reserved8'],
    expected: (vnetid) => ['0x0800', `${vnetid}`, '0'],
  },
  {
    encapsulation: vxlanGpeEncapsulation,
    port: 4790,
    fields: ['vxlan.ver', 'vxlan.i_bit', 'vxlan.p_bit', 'vxlan.o_bit', 'vxlan.next_proto', 'vxlan.vni'],
    expected: (vnetid) => ['0', '1', '1', '0', '3', `${vnetid}`],
  },
  {
    encapsulation: geneveEncapsulation,
    port: 6081,
    fields: ['geneve.version', 'geneve.flags', 'geneve.proto_type', 'geneve.vni', 'geneve.option.class'],
    expected: (vnetid) => ['0', '0x00', '0x6558', hex(vnetid, 6), ''],
  },
  {
    encapsulation: geneveOptions,
    port: 6081,
    fields: [
      'geneve.flags.critical',
      'geneve.vni',
      'geneve.option.class',
      'geneve.option.type',
      'geneve.option.length',
    ],
    // Lengths of all of them, then of each with its own header.
    expected: (vnetid) => ['1', hex(vnetid, 6), '0x0102+0xffff+0x0103', '0x03+0x7f+0x85', '140+8+4+128'],
  },
  {
    encapsulation: nvgreEncapsulation,
    fields: ['gre.flags_and_version', 'gre.proto', 'gre.key'],
    expected: (vnetid, flowId) => ['0x2000', '0x6558', hex(vnetid * 256 + flowId, 8)],
  },
];

/** A frame of a kind that every dissector knows how to read, and of a length of its own. */
function innerFrame(random: Xorshift): Uint8Array {
  const bytes = frames.counting(random.below(200), random.below(256));
  const packet = () => frames.ipv4({ protocol: 1, payload: frames.icmp(frames.ENDS_4, bytes) });
  const [type, payload] = random.below(2) === 0 ? [0x0800, packet()] : [0x88b5, bytes];
  const frame = frames.ethernet(type, payload);
  frame.set(frames.bigEndian(random.next() & 0xfeffffff, 4), 2);
  frame.set(frames.bigEndian(random.next(), 4), 8);
  return frame;
}

const macText = (bytes: Uint8Array) =>
  Buffer.from(bytes)
    .toString('hex')
    .replaceAll(/(..)(?=.)/g, '$1:');

/** The datagram in an IP packet and a frame, IPv4 and IPv6 in turn. */
function onTheWire(datagram: Uint8Array, port: number | undefined, number: number): Uint8Array {
  const ends = number % 2 ? frames.ENDS_6 : frames.ENDS_4;
  const payload =
    port === undefined
      ? datagram
      : frames.udp({ ends, sourcePort: 49152 + (number % 1000), destinationPort: port, payload: datagram });
  const protocol = port === undefined ? 47 : 17;
  return number % 2
    ? frames.ethernet(0x86dd, frames.ipv6({ ends, protocol, payload }))
    : frames.ethernet(0x0800, frames.ipv4({ ends, protocol, payload }));
}

for (const { encapsulation, port, fields, expected } of rows) {
  testWith(
    oracles,
    ['tshark'],
    `${ORACLE_FRAMES} of our frames as tshark reads them: ${encapsulation.name}`,
    () => {
      const random = new Xorshift(SEED);
      const rig = new CoreRig({ encapsulation });
      const wire: Uint8Array[] = [];
      const wanted: string[] = [];
      while (wire.length < ORACLE_FRAMES) {
        const vnetid = random.next() >>> 8;
        if (rig.tables.findVnet(rig.mux, BigInt(vnetid)) !== undefined) continue;
        const device = rig.addDevice({ vnetid });
        const batch = Array.from({ length: layout.BATCH_MAX }, () => innerFrame(random));
        rig.placeFrames(batch);
        assert.is(rig.decideTx(device, batch.length), 0);
        for (const group of rig.groups(device, batch.length)) {
          for (const [index, datagram] of group.datagrams.entries()) {
            const frame = batch[group.frames[index]!]!;
            const flowId = encapsulation.hasFlowId ? datagram[7]! : 0;
            const addresses = [macText(frame.subarray(0, 6)), macText(frame.subarray(6, 12))];
            wanted.push([...expected(vnetid, flowId), ...addresses].join('|'));
            wire.push(onTheWire(datagram, port, wire.length));
          }
        }
      }
      const said = dissected(wire, [...fields, 'eth.dst', 'eth.src']).map((row) => {
        const values = row.split('|');
        // The outer frame's come first.
        const inner = values.slice(-2).map((text) => text.split('+').at(-1));
        return [...values.slice(0, -2), ...inner].join('|');
      });
      for (const [number, text] of said.entries()) {
        assert.is(text, wanted[number], `seed ${SEED}, frame ${number}`);
      }
      shown.agreed('tshark', encapsulation.name);
    },
  );
}

/** What the python script makes: records of vnetid, length of the frame, of the datagram, and both. */
function* recordsOf(output: Buffer): Generator<{ vnetid: number; frame: Uint8Array; datagram: Uint8Array }> {
  for (let at = 0; at < output.length; ) {
    const [vnetid, frameBytes, datagramBytes] = [0, 4, 8].map((field) => output.readUInt32BE(at + field));
    const begin = at + 12;
    const frame = output.subarray(begin, begin + frameBytes!);
    at = begin + frameBytes! + datagramBytes!;
    yield { vnetid: vnetid!, frame, datagram: output.subarray(begin + frameBytes!, at) };
  }
}

for (const encapsulation of encapsulations) {
  const { name } = encapsulation;
  // Those of Geneve are the script's own affair.
  if (encapsulation.core === layout.ENCAP_GENEVE && encapsulation !== geneveEncapsulation) continue;
  testWith(oracles, ['scapy'], `${ORACLE_FRAMES} datagrams of scapy's as we read them: ${name}`, () => {
    // The distribution's own Python: scapy is one of its packages.
    const { status, stdout, stderr } = spawnSync(
      '/usr/bin/python3',
      [SCAPY, name, `${ORACLE_FRAMES}`, `${SEED}`],
      {
        maxBuffer: 64 * 1024 * 1024,
      },
    );
    assert.is(status, 0, `${stderr}`);
    const rig = new CoreRig({ encapsulation });
    let read = 0;
    for (const { vnetid, frame, datagram } of recordsOf(stdout)) {
      if (rig.tables.findVnet(rig.mux, BigInt(vnetid)) === undefined) rig.addDevice({ vnetid, mtu: 9000 });
      rig.placeDatagramAtEnd(datagram);
      rig.views.u32[(rig.arena + layout.ARENA_WRITES) / 4] = 0;
      const verdict = rig.core.rxDatagram(rig.arena, rig.mux);
      assert.is(
        verdict,
        layout.VERDICT_PASS,
        `seed ${SEED}, datagram ${read}: ${Buffer.from(datagram).toString('hex')}`,
      );
      const [write] = rig.writes();
      assert.is(rig.rules.get(write!.device)!.vnetid, vnetid);
      assert.is(
        Buffer.compare(write!.bytes.subarray(layout.VNET_HDR_BYTES), frame),
        0,
        `seed ${SEED}, datagram ${read}`,
      );
      read++;
    }
    assert.is(read, ORACLE_FRAMES);
    shown.agreed('scapy', name);
  });
}

testWith(oracles, ['tshark'], 'mDNS as the scenes of other tests speak it', () => {
  const onPort = (payload: Uint8Array) =>
    frames.udp({ ends: frames.ENDS_4, sourcePort: 5353, destinationPort: 5353, payload });
  const messages = [
    mdnsQuestion('a.local', 4),
    mdnsQuestion('a.local', 6),
    mdnsAnswer('a.local', '198.51.100.1'),
    mdnsAnswer('b.local', '2001:db8::1'),
  ];
  const packets = messages.map((message) =>
    frames.ethernet(
      0x0800,
      frames.ipv4({ ends: frames.ENDS_4, protocol: frames.IPPROTO_UDP, payload: onPort(message) }),
    ),
  );
  const fields = ['dns.id', 'dns.flags', 'dns.qry.name', 'dns.qry.type', 'dns.resp.name', 'dns.resp.ttl'];
  assert.equal(dissected(packets, [...fields, 'dns.a', 'dns.aaaa']), [
    '0x0000|0x0000|a.local|1||||',
    '0x0000|0x0000|a.local|28||||',
    '0x0000|0x8400|||a.local|120|198.51.100.1|',
    '0x0000|0x8400|||b.local|120||2001:db8::1',
  ]);
});

testWith(oracles, ['tshark', 'scapy'], 'all that is to be shown has been', () => shown.assertAll());

oracles.run();
