/** Reserved bits of outer headers: each alone, ignored or dropped as `<encap>/reserved` says, and so by a device; sent as zero. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { AF_INET, IPPROTO_GRE, SOCK_DGRAM, SOCK_RAW } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { CoreRig } from './harness/core-rig.js';
import { received } from './harness/decap-check.js';
import {
  type Encapsulation,
  geneveEncapsulation,
  nvgreEncapsulation,
  vxlanEncapsulation,
  vxlanGpeEncapsulation,
} from './harness/encapsulations.js';
import { until } from './harness/hosts.js';
import { HERE, withMemory } from './harness/lifecycle.js';
import { freePort } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { Shown } from './harness/shown.js';
import * as frames from './reference/frames.js';
import * as geneve from './reference/geneve.js';

const VNETID = 0x123456;
const PEER = '127.0.0.2';
const FRAME = frames.ethernet(0x88b5, frames.counting(86));

const reserved = suite('reserved bits');
const shown = new Shown('reserved');

/** Bits of a header by number; 0 is the highest of its first byte. */
function bits(...ranges: readonly (readonly [first: number, last: number])[]): number[] {
  return ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
}

const twoOptions = frames.concat(
  geneve.option(0x0102, 3, Uint8Array.of(1, 2, 3, 4)),
  geneve.option(0x0103, 4, new Uint8Array(0)),
);

interface Case {
  readonly what: string;
  readonly encapsulation: Encapsulation;
  readonly datagram: Uint8Array;
  /** Of the outer header, from its RFC. */
  readonly reserved: readonly number[];
  /** Bits that change what others are. */
  readonly changing?: readonly number[];
}

const headerOf = (encapsulation: Encapsulation) =>
  frames.concat(encapsulation.header(VNETID), FRAME) as Uint8Array;

const cases: readonly Case[] = [
  {
    what: 'VXLAN: the 39 of RFC 7348 section 5',
    encapsulation: vxlanEncapsulation,
    datagram: headerOf(vxlanEncapsulation),
    reserved: bits([0, 3], [5, 7], [8, 31], [56, 63]),
  },
  {
    what: 'VXLAN-GPE: two flags, 16 bits, the last byte',
    encapsulation: vxlanGpeEncapsulation,
    datagram: headerOf(vxlanGpeEncapsulation),
    reserved: bits([0, 1], [8, 23], [56, 63]),
    // Without P the next protocol is reserved, too.
    changing: [5],
  },
  {
    what: 'Geneve: six behind the flags, the last byte, and three of each option (RFC 8926 sections 3.4, 3.5)',
    encapsulation: geneveEncapsulation,
    datagram: geneve.encap(VNETID, FRAME, twoOptions),
    reserved: bits([10, 15], [56, 63], [88, 90], [152, 154]),
  },
  {
    what: 'NVGRE: bits 6 to 12 of GRE (RFC 2784 section 2)',
    encapsulation: nvgreEncapsulation,
    datagram: headerOf(nvgreEncapsulation),
    reserved: bits([6, 12]),
  },
];

function withBit(datagram: Uint8Array, bit: number): Uint8Array {
  const changed = datagram.slice();
  changed[bit >>> 3]! ^= 0x80 >>> (bit & 7);
  return changed;
}

for (const { what, encapsulation, datagram, reserved: numbers, changing = [] } of cases) {
  reserved(`${what}: each alone, ignored and dropped`, () => {
    for (const drops of [false, true]) {
      const rig = new CoreRig({ encapsulation });
      const flags = drops ? layout.DEVICE_FLAG_RESERVED : 0;
      const device = rig.addDevice({ vnetid: VNETID, flags });
      const verdictOf = (bytes: Uint8Array) => {
        const seen = received(rig, bytes);
        return typeof seen === 'string' ? seen : 'pass';
      };
      assert.is(verdictOf(datagram), 'pass', 'none set');
      for (const bit of numbers) {
        assert.is(verdictOf(withBit(datagram, bit)), drops ? 'rx_reserved_bits' : 'pass', `bit ${bit}`);
      }
      const counted = rig.deviceCount(device, layout.DROP_RX_RESERVED_BITS);
      assert.is(counted, drops ? numbers.length : 0);
    }
    shown.agreed('the RFCs', encapsulation.name);
  });

  reserved(`${what}: all others are not`, () => {
    const rig = new CoreRig({ encapsulation });
    rig.addDevice({ vnetid: VNETID, flags: layout.DEVICE_FLAG_RESERVED });
    const headerBytes = datagram.length - FRAME.length;
    for (let bit = 0; bit < headerBytes * 8; bit++) {
      if (numbers.includes(bit) || changing.includes(bit)) continue;
      rig.placeDatagramAtEnd(withBit(datagram, bit));
      const verdict = rig.core.rxDatagram(rig.arena, rig.mux);
      assert.is.not(verdict, layout.DROP_RX_RESERVED_BITS, `bit ${bit}`);
    }
  });

  reserved(
    `${what}: neighbours in a batch, each by itself, on a device that drops and one that does not`,
    () => {
      const rig = new CoreRig({ encapsulation });
      rig.addDevice({ vnetid: VNETID, flags: layout.DEVICE_FLAG_RESERVED });
      rig.addDevice({ vnetid: 0x1000 });
      const other = datagram.slice();
      other.set([0, 0x10, 0], 4);
      const datagrams = Array.from({ length: 48 }, (_, number) => {
        const base = number & 1 ? other : datagram;
        return number % 3 === 0 ? base : withBit(base, numbers[number % numbers.length]!);
      });
      rig.placeDatagrams(datagrams);
      assert.is(rig.decideRx(datagrams.length), 0);
      assert.is(rig.writes().length, 24 + 8, 'all of one device, and every third of the other');
    },
  );
}

for (const { what, encapsulation, datagram, reserved: numbers } of cases) {
  const { name } = encapsulation;
  testWith(
    reserved,
    name === 'nvgre' ? ['root'] : [],
    `${what}: a device drops them when its property says so, and takes what has none`,
    () =>
      withMemory(async (memory) => {
        const { overlay } = memory;
        const isGre = name === 'nvgre';
        const port = isGre ? 0 : await freePort(HERE);
        const ports = isGre ? {} : { [`${name}/listen_port`]: port, 'direct/dest_port': port };
        await overlay.createOverlay({
          name: 'ov0',
          encap: name,
          search: 'direct',
          vnetid: VNETID,
          properties: { [`${name}/listen_ip`]: HERE, 'direct/dest_ip': PEER, ...ports },
        });
        await memory.up('ov0');
        const counts = () => {
          const { counters, drops } = overlay.deviceStats('ov0').counts;
          return [Number(counters.rx_frames), Number(drops.rx_reserved_bits)];
        };
        const [type, protocol] = isGre ? [SOCK_RAW, IPPROTO_GRE] : [SOCK_DGRAM, 0];
        const fd = must(libc.socket(AF_INET, type, protocol), 'socket');
        try {
          const from = sockaddr(AF_INET, PEER, 0);
          must(libc.bind(fd, from, from.length), 'bind');
          const to = sockaddr(AF_INET, HERE, port);
          const send = (...datagrams: readonly Uint8Array[]) => {
            for (const each of datagrams)
              must(libc.sendto(fd, each, each.length, 0, to, to.length), 'sendto');
          };
          const odd = withBit(datagram, numbers[0]!);
          send(datagram, odd);
          await until('both are taken', 3000, () => counts()[0] === 2);
          await overlay.setprop('ov0', `${name}/reserved`, 'drop');
          send(odd, odd, datagram);
          await until('the clean one is taken', 3000, () => counts()[0] === 3);
          assert.equal(counts(), [3, 2]);
        } finally {
          closeFd(fd);
        }
      }),
  );
}

reserved('all that is to be shown has been', () => shown.assertAll());

reserved.run();
