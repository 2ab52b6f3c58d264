/**
 * What the kernel does to a frame that it takes from a TAP before a link without offloads sends it: a checksum that was left
 * unfinished is finished, and a super-frame is cut into segments. Written from RFC 9293, RFC 768, RFC 791, RFC 8200 and virtio 1.2
 * section 5.1.6. `test/segment-reference.ts` compares it with the kernel, which showed what no document says:
 *
 *   IPv4 identification   counts up by one a segment, DF or not, and wraps
 *   IPv4 header checksum  is made anew for each segment of a super-frame, and left as it is in a frame that is not cut
 *   CWR                   stays on the first segment alone, whether gso_type says ECN or not
 *   other TCP flags       are on every segment, but FIN and PSH on the last alone
 *   checksums             continue from what is in the field, right or wrong: a field of zero in a UDP super-frame is no sign of
 *                         "no checksum" but a sum like any other
 *   a result of zero      becomes 0xffff in UDP, and in every frame that is not cut; in segments of TCP it stays zero
 */
import { bigEndian, IPPROTO_TCP, IPPROTO_UDP, onesComplementSum } from './frames.js';
import { findHeaders, type Headers, read16, read32, transportHeaderBytes } from './headers.js';
import {
  DATA_VALID,
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  NEEDS_CSUM,
  readVnetHeader,
  VNET_HDR_BYTES,
  type VnetHeader,
} from './vnet-hdr.js';

const ETHERNET_BYTES = 14;
/** Nothing that has such a checksum begins before the shortest IP header has ended. */
const CSUM_START_MIN = ETHERNET_BYTES + 20;
/** The kernel makes and takes no longer UDP super-frames (from Linux 6.9). */
const DATAGRAMS_MAX = 128;
export const TCP_CHECKSUM = 16;
export const UDP_CHECKSUM = 6;
const TCP_SEQUENCE = 4;
const TCP_FLAGS = 13;
const FIN = 0x01;
const PSH = 0x08;
const CWR = 0x80;

/** Frames that a record becomes, in order; undefined for a record that is malformed. */
export function segmentFrame(record: Uint8Array): Uint8Array[] | undefined {
  const header = readVnetHeader(record);
  if (!header) return undefined;
  const frame = record.slice(VNET_HDR_BYTES);
  if (frame.length < ETHERNET_BYTES) return undefined;
  const needsChecksum = (header.flags & NEEDS_CSUM) !== 0;
  // What other flags ask for is not known.
  if ((header.flags & ~(NEEDS_CSUM | DATA_VALID)) !== 0) return undefined;
  if (header.gsoType === GSO_NONE && !needsChecksum) return [frame];
  if (!needsChecksum || !isInside(header, frame)) return undefined;
  if (header.gsoType === GSO_NONE) return [finished(frame, header)];
  const plan = planOf(header, frame);
  if (!plan) return undefined;
  // Nothing to cut: the kernel takes it as a frame of which only the checksum is asked.
  if (plan.payload.length <= header.gsoSize) return [finished(frame, header)];
  return cut(plan);
}

function isInside(header: VnetHeader, frame: Uint8Array): boolean {
  const { headerBytes, csumStart, csumOffset } = header;
  if (csumStart < CSUM_START_MIN || csumStart + csumOffset + 2 > frame.length) return false;
  return headerBytes <= frame.length;
}

/** The frame with its checksum in place. The field holds the sum of the pseudo-header, which the rest is added to. */
function finished(frame: Uint8Array, { csumStart, csumOffset }: VnetHeader): Uint8Array {
  const sum = 0xffff - onesComplementSum(frame.subarray(csumStart));
  const done = frame.slice();
  done.set(bigEndian(sum || 0xffff, 2), csumStart + csumOffset);
  return done;
}

/** A super-frame taken apart. */
interface Plan {
  readonly headers: Headers;
  readonly isTcp: boolean;
  /** Everything before the payload. */
  readonly head: Uint8Array;
  readonly payload: Uint8Array;
  readonly gsoSize: number;
}

/** Undefined when the record's header and the frame do not fit together. */
function planOf(header: VnetHeader, frame: Uint8Array): Plan | undefined {
  const { gsoType, gsoSize, csumStart, csumOffset } = header;
  const headers = findHeaders(frame);
  if (!headers || headers.transport !== csumStart || gsoSize === 0) return undefined;
  const isTcp = headers.protocol === IPPROTO_TCP;
  if (!isTcp && headers.protocol !== IPPROTO_UDP) return undefined;
  const tcpType = headers.family === 4 ? GSO_TCPV4 : GSO_TCPV6;
  const types = isTcp ? [tcpType, tcpType + GSO_ECN] : [GSO_UDP_L4];
  if (!types.includes(gsoType) || csumOffset !== (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM)) return undefined;
  const headerBytes = transportHeaderBytes(frame, headers);
  if (headerBytes === undefined) return undefined;
  const head = frame.subarray(0, headers.transport + headerBytes);
  const payload = frame.subarray(head.length);
  if (!isTcp && payload.length > DATAGRAMS_MAX * gsoSize) return undefined;
  return { headers, isTcp, head, payload, gsoSize };
}

function cut(plan: Plan): Uint8Array[] {
  const count = Math.ceil(plan.payload.length / plan.gsoSize);
  return Array.from({ length: count }, (_, number) => segment(plan, number, number === count - 1));
}

/** One segment, the first of which is number 0. */
function segment(plan: Plan, number: number, isLast: boolean): Uint8Array {
  const { headers, isTcp, head, payload, gsoSize } = plan;
  const { family, ip, transport } = headers;
  const start = number * gsoSize;
  const part = payload.subarray(start, start + gsoSize);
  const frame = new Uint8Array(head.length + part.length);
  frame.set(head);
  frame.set(part, head.length);
  if (isTcp) {
    frame.set(
      bigEndian((read32(head, transport + TCP_SEQUENCE) + start) % 2 ** 32, 4),
      transport + TCP_SEQUENCE,
    );
    if (!isLast) frame[transport + TCP_FLAGS]! &= ~(FIN | PSH);
    if (number > 0) frame[transport + TCP_FLAGS]! &= ~CWR;
  } else {
    frame.set(bigEndian(frame.length - transport, 2), transport + 4);
  }
  if (family === 4) setIpv4(frame, ip, number);
  else frame.set(bigEndian(frame.length - ip - 40, 2), ip + 4);
  setChecksum(plan, frame);
  return frame;
}

/** Total length, identification and checksum. */
function setIpv4(frame: Uint8Array, ip: number, number: number): void {
  frame.set(bigEndian(frame.length - ip, 2), ip + 2);
  frame.set(bigEndian((read16(frame, ip + 4) + number) % 65536, 2), ip + 4);
  frame.set([0, 0], ip + 10);
  const headerBytes = (frame[ip]! % 16) * 4;
  const sum = 0xffff - onesComplementSum(frame.subarray(ip, ip + headerBytes));
  frame.set(bigEndian(sum, 2), ip + 10);
}

/** The field holds the sum of the super-frame's pseudo-header, whose length is replaced by the segment's. */
function setChecksum(plan: Plan, frame: Uint8Array): void {
  const { headers, isTcp, head, payload } = plan;
  const { transport } = headers;
  const at = transport + (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  const superBytes = head.length + payload.length - transport;
  const words = [read16(frame, at), 0xffff - superBytes, frame.length - transport];
  frame.set(
    bigEndian(onesComplementSum(Uint8Array.from(words.flatMap((word) => [...bigEndian(word, 2)]))), 2),
    at,
  );
  const sum = 0xffff - onesComplementSum(frame.subarray(transport));
  frame.set(bigEndian(isTcp ? sum : sum || 0xffff, 2), at);
}
