/** ICMP echo messages (RFC 792; RFC 4443 section 4) and the checksum of RFC 1071. */

export const ECHO_REPLY = 0;
export const ECHO_REQUEST = 8;
/** Those of ICMPv6. */
export const ECHO_REPLY_6 = 129;
export const ECHO_REQUEST_6 = 128;
export const ICMP_HEADER_BYTES = 8;
export const IPV4_HEADER_BYTES = 20;

export interface Echo {
  readonly type: number;
  readonly id: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** Ones' complement sum of all 16-bit words; 0 over a message with a right checksum in it. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes[at]! * 256 + (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** With the checksum of ICMP; that of ICMPv6, which covers addresses too, is written by the kernel (RFC 3542 section 3.1). */
export function encodeEcho({ type, id, sequence, payload }: Echo): Uint8Array {
  const bytes = new Uint8Array(ICMP_HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, type);
  view.setUint16(4, id);
  view.setUint16(6, sequence);
  bytes.set(payload, ICMP_HEADER_BYTES);
  view.setUint16(2, internetChecksum(bytes));
  return bytes;
}

/** Undefined for what is no echo message or has a wrong checksum. */
export function decodeEcho(bytes: Uint8Array): Echo | undefined {
  if (bytes.length < ICMP_HEADER_BYTES || internetChecksum(bytes) !== 0) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const type = view.getUint8(0);
  if (view.getUint8(1) !== 0 || (type !== ECHO_REPLY && type !== ECHO_REQUEST)) return undefined;
  return {
    type,
    id: view.getUint16(4),
    sequence: view.getUint16(6),
    payload: bytes.subarray(ICMP_HEADER_BYTES),
  };
}

/** A payload that tells bytes out of place, as ping's. */
export function echoPayload(bytes: number, sequence: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, at) => at + sequence);
}

/** True for the reply to a request of this id, sequence and payload. */
export function answers(reply: Echo | undefined, request: Echo): boolean {
  if (reply?.type !== ECHO_REPLY || reply.id !== request.id || reply.sequence !== request.sequence)
    return false;
  return Buffer.compare(reply.payload, request.payload) === 0;
}
