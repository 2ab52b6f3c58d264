/** Ethernet frames of the stations in memory: IPv4 with ICMP inside, and numbered blocks of data. */
import { crc32 } from 'node:zlib';
import { ipNativeBytes } from '../ip.js';
import { IPPROTO_ICMP } from '../sys/abi.js';
import { IPV4_HEADER_BYTES, internetChecksum } from '../sys/icmp-echo.js';

export const ETHERTYPE_IPV4 = 0x0800;
/** IEEE's "local experimental" type. */
export const ETHERTYPE_BLOCK = 0x88b5;
export const ETHERNET_HEADER_BYTES = 14;
export const BLOCK_HEADER_BYTES = 12;
const TTL = 64;

/** What two stations know of each other. */
export interface Station {
  readonly mac: string;
  readonly ip: string;
}

/** Numbered data, or the answer to it. */
export interface Block {
  readonly kind: 'data' | 'ack';
  /** Number of the block; of an answer, how many blocks have come in all. */
  readonly number: number;
  readonly data: Uint8Array;
}

const KIND_DATA = 1;
const KIND_ACK = 2;

export function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

function ethernet(
  from: Station,
  to: Station,
  type: number,
  payloadBytes: number,
): [frame: Uint8Array, view: DataView] {
  const frame = new Uint8Array(ETHERNET_HEADER_BYTES + payloadBytes);
  frame.set(macBytes(to.mac), 0);
  frame.set(macBytes(from.mac), 6);
  const view = new DataView(frame.buffer);
  view.setUint16(12, type);
  return [frame, view];
}

export function ethertypeOf(frame: Uint8Array): number {
  return frame.length < ETHERNET_HEADER_BYTES ? 0 : frame[12]! * 256 + frame[13]!;
}

/** An IPv4 packet with an ICMP message in it (RFC 791). */
export function icmpFrame(from: Station, to: Station, message: Uint8Array): Uint8Array {
  const [frame, view] = ethernet(from, to, ETHERTYPE_IPV4, IPV4_HEADER_BYTES + message.length);
  const at = ETHERNET_HEADER_BYTES;
  view.setUint8(at, 0x45);
  view.setUint16(at + 2, IPV4_HEADER_BYTES + message.length);
  view.setUint8(at + 8, TTL);
  view.setUint8(at + 9, IPPROTO_ICMP);
  frame.set(ipNativeBytes(from.ip), at + 12);
  frame.set(ipNativeBytes(to.ip), at + 16);
  view.setUint16(at + 10, internetChecksum(frame.subarray(at, at + IPV4_HEADER_BYTES)));
  frame.set(message, at + IPV4_HEADER_BYTES);
  return frame;
}

/** The ICMP message to `station` in a frame, or undefined. */
export function icmpOf(frame: Uint8Array, station: Station): Uint8Array | undefined {
  const packet = frame.subarray(ETHERNET_HEADER_BYTES);
  if (packet.length < IPV4_HEADER_BYTES || packet[0] !== 0x45 || packet[9] !== IPPROTO_ICMP) return undefined;
  if (internetChecksum(packet.subarray(0, IPV4_HEADER_BYTES)) !== 0) return undefined;
  if (Buffer.compare(packet.subarray(16, 20), ipNativeBytes(station.ip)) !== 0) return undefined;
  return packet.subarray(IPV4_HEADER_BYTES, packet[2]! * 256 + packet[3]!);
}

/** A block with its number and the CRC-32 of its data. */
export function blockFrame(from: Station, to: Station, { kind, number, data }: Block): Uint8Array {
  const [frame, view] = ethernet(from, to, ETHERTYPE_BLOCK, BLOCK_HEADER_BYTES + data.length);
  const at = ETHERNET_HEADER_BYTES;
  view.setUint8(at, kind === 'data' ? KIND_DATA : KIND_ACK);
  view.setUint32(at + 4, number);
  view.setUint32(at + 8, crc32(data));
  frame.set(data, at + BLOCK_HEADER_BYTES);
  return frame;
}

/** The block in a frame, or undefined when it is none or damaged. */
export function blockOf(frame: Uint8Array): Block | undefined {
  const at = ETHERNET_HEADER_BYTES;
  if (frame.length < at + BLOCK_HEADER_BYTES) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const data = frame.subarray(at + BLOCK_HEADER_BYTES);
  if (view.getUint32(at + 8) !== crc32(data)) return undefined;
  return { kind: view.getUint8(at) === KIND_DATA ? 'data' : 'ack', number: view.getUint32(at + 4), data };
}
