/** The encapsulations as tests of the core need them: the twin's rules, and headers that are nearly right. */
import { ENCAP_GENEVE, ENCAP_NVGRE, ENCAP_VXLAN, ENCAP_VXLAN_GPE } from '../../assembly/layout.js';
import type { DropName } from '../../src/datapath/drop.js';
import { concat } from '../reference/frames.js';
import * as geneve from '../reference/geneve.js';
import * as nvgre from '../reference/nvgre.js';
import * as vxlan from '../reference/vxlan.js';
import * as vxlanGpe from '../reference/vxlan-gpe.js';
import type { Xorshift } from './xorshift.js';

export interface Encapsulation {
  readonly name: string;
  /** ENCAP_ number. */
  readonly core: number;
  /** Header that is sent in front of a frame. */
  readonly header: (vnetid: number) => Uint8Array;
  /** Length of the header that a datagram with this first byte says it has. */
  readonly headerBytes: (first: number) => number;
  /** The last byte of the header that is sent tells flows apart. */
  readonly hasFlowId?: boolean;
  /** An IPv4 header comes in front of what is received. */
  readonly hasIpHeader?: boolean;
  readonly decap: (datagram: Uint8Array) => { vnetid: number; frame: Uint8Array } | DropName;
  /** Writes a header that ends at `end`; now and then there is something wrong with it. Returns where it begins. */
  readonly write: (bytes: Uint8Array, end: number, vnetid: number, random: Xorshift) => number;
  /** True when a reserved bit of a header that is accepted is not zero. */
  readonly reserved: (datagram: Uint8Array) => boolean;
  /** Drops that it has beyond those of VXLAN. */
  readonly drops: readonly DropName[];
}

/** The largest header there is. */
export const HEADER_BYTES_MAX = 260;
const NOTHING = new Uint8Array(0);

/** True when one of the bits that are named is not zero. @param masks by byte */
function hasBits(bytes: Uint8Array, masks: readonly number[]): boolean {
  return masks.some((mask, at) => (bytes[at]! & mask) !== 0);
}

function writeVxlan(bytes: Uint8Array, end: number, vnetid: number, random: Xorshift): number {
  const start = end - 8;
  const isOdd = random.below(16) === 0;
  bytes[start] = isOdd ? random.below(256) : 8;
  bytes[start + 1] = isOdd ? random.below(256) : 0;
  bytes[start + 2] = 0;
  bytes[start + 3] = 0;
  writeVnetid(bytes, start + 4, vnetid);
  bytes[start + 7] = isOdd ? random.below(256) : 0;
  return start;
}

function writeVnetid(bytes: Uint8Array, at: number, vnetid: number): void {
  bytes[at] = vnetid >>> 16;
  bytes[at + 1] = (vnetid >>> 8) & 255;
  bytes[at + 2] = vnetid & 255;
}

function writeGeneve(bytes: Uint8Array, end: number, vnetid: number, random: Xorshift): number {
  // Half of them without options, a few with as many as there can be.
  const words = random.below(2) === 0 ? 0 : random.below(8) === 0 ? 63 : random.below(12);
  const start = end - 8 - words * 4;
  const isOdd = random.below(16) === 0;
  bytes[start] = words | (isOdd ? random.below(4) << 6 : 0);
  bytes[start + 1] = isOdd ? random.below(256) : random.below(64);
  bytes[start + 2] = 0x65;
  bytes[start + 3] = isOdd && random.below(4) === 0 ? random.below(256) : 0x58;
  writeVnetid(bytes, start + 4, vnetid);
  bytes[start + 7] = isOdd ? random.below(256) : 0;
  const spoils = random.below(8) === 0;
  for (let at = start + 8; at < end; ) {
    const room = (end - at) / 4 - 1;
    const length = random.below(Math.min(room, 31) + 1);
    bytes[at] = random.below(256);
    bytes[at + 1] = random.below(256);
    bytes[at + 2] = random.below(spoils ? 256 : 128);
    // Three bits of it are reserved.
    bytes[at + 3] = spoils && random.below(2) === 0 ? random.below(256) : length | (random.below(8) << 5);
    for (let word = at + 4; word < at + 4 + length * 4; word++) bytes[word] = random.below(256);
    at += 4 + length * 4;
  }
  return start;
}

export const vxlanEncapsulation: Encapsulation = {
  name: 'vxlan',
  core: ENCAP_VXLAN,
  header: (vnetid) => vxlan.encap(vnetid, NOTHING),
  headerBytes: () => 8,
  decap: vxlan.decap,
  write: writeVxlan,
  reserved: (datagram) => hasBits(datagram, [0xf7, 0xff, 0xff, 0xff, 0, 0, 0, 0xff]),
  drops: [],
};

const geneveDrops: readonly DropName[] = ['rx_control_packet', 'rx_not_ethernet', 'rx_critical_option'];

export const geneveEncapsulation: Encapsulation = {
  name: 'geneve',
  core: ENCAP_GENEVE,
  header: (vnetid) => geneve.encap(vnetid, NOTHING),
  headerBytes: (first) => 8 + (first & 63) * 4,
  decap: geneve.decap,
  write: writeGeneve,
  reserved: (datagram) => {
    if (hasBits(datagram, [0, 0x3f, 0, 0, 0, 0, 0, 0xff])) return true;
    const end = 8 + (datagram[0]! & 63) * 4;
    for (let at = 8; at < end; at += 4 + (datagram[at + 3]! & 31) * 4) {
      if ((datagram[at + 3]! & 0xe0) !== 0) return true;
    }
    return false;
  },
  drops: geneveDrops,
};

/** With options of its own in front of every frame: a chain of such as have no data. */
export function geneveWithOptions(words: number): Encapsulation {
  const options = concat(
    ...Array.from({ length: words }, (_, index) => geneve.option(0x0102, index + 1, NOTHING)),
  );
  return {
    ...geneveEncapsulation,
    name: `geneve with ${words} options`,
    header: (vnetid) => geneve.encap(vnetid, NOTHING, options),
  };
}

function writeNvgre(bytes: Uint8Array, end: number, vnetid: number, random: Xorshift): number {
  const start = end - 8;
  const isOdd = random.below(16) === 0;
  // The low bits are ignored; so are the high ones of the next byte.
  bytes[start] = isOdd ? random.below(256) : 0x20 | random.below(4);
  bytes[start + 1] = isOdd ? random.below(256) : random.below(32) << 3;
  bytes[start + 2] = 0x65;
  bytes[start + 3] = isOdd && random.below(4) === 0 ? random.below(256) : 0x58;
  writeVnetid(bytes, start + 4, vnetid);
  bytes[start + 7] = random.below(256);
  return start;
}

export const nvgreEncapsulation: Encapsulation = {
  name: 'nvgre',
  core: ENCAP_NVGRE,
  header: (vnetid) => nvgre.encap(vnetid, NOTHING),
  headerBytes: () => 8,
  hasFlowId: true,
  decap: nvgre.decap,
  write: writeNvgre,
  reserved: (datagram) => hasBits(datagram, [0x03, 0xf8]),
  drops: ['rx_not_ethernet'],
};

/** As raw sockets of IPv4 hand it over: behind the IP header, which may have options. */
export const nvgreOverIpv4: Encapsulation = {
  ...nvgreEncapsulation,
  name: 'nvgre over IPv4',
  hasIpHeader: true,
  headerBytes: (first) => (first & 15) * 4 + 8,
  decap: (datagram) => {
    const headerBytes = datagram.length === 0 ? 0 : (datagram[0]! & 15) * 4;
    return nvgre.decap(datagram.subarray(Math.min(headerBytes, datagram.length)));
  },
  reserved: (datagram) => nvgreEncapsulation.reserved(datagram.subarray((datagram[0]! & 15) * 4)),
  write: (bytes, end, vnetid, random) => {
    const words = random.below(8) === 0 ? random.below(16) : 5;
    const start = writeNvgre(bytes, end, vnetid, random) - words * 4;
    for (let at = start + 1; at < start + words * 4; at++) bytes[at] = random.below(256);
    if (words > 0) bytes[start] = 0x40 | words;
    return start;
  },
};

export const vxlanGpeEncapsulation: Encapsulation = {
  name: 'vxlan-gpe',
  core: ENCAP_VXLAN_GPE,
  header: (vnetid) => vxlanGpe.encap(vnetid, NOTHING),
  headerBytes: () => 8,
  decap: vxlanGpe.decap,
  write: (bytes, end, vnetid, random) => {
    const start = writeVxlan(bytes, end, vnetid, random);
    if (bytes[start] === 8) bytes[start] = random.below(4) === 0 ? 8 | random.below(256) : 12;
    bytes[start + 3] = random.below(16) === 0 ? random.below(256) : 3;
    return start;
  },
  reserved: (datagram) =>
    hasBits(datagram, [0xc0, 0xff, 0xff, (datagram[0]! & 4) === 0 ? 0xff : 0, 0, 0, 0, 0xff]),
  drops: ['rx_control_packet', 'rx_not_ethernet'],
};

export const encapsulations = [
  vxlanEncapsulation,
  geneveEncapsulation,
  geneveWithOptions(63),
  nvgreEncapsulation,
  nvgreOverIpv4,
  vxlanGpeEncapsulation,
] as const;
