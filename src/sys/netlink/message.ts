/**
 * Netlink messages as bytes (man 7 netlink, rtnetlink): a header, a fixed part by message type, then attributes of
 * {length, type, value}, everything aligned to four bytes and in the machine's byte order (little endian here).
 */
import { OverlayError } from '../../errors.js';
import { macros, structs } from '../abi.js';

const { NLA_F_NESTED } = macros['linux/netlink.h'];
const HEADER = structs.nlmsghdr;
const ATTRIBUTE = structs.nlattr;

/** An attribute to send; an array of attributes is nested. */
export type Attribute = readonly [type: number, value: Uint8Array | readonly Attribute[]];

/** One message received. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows the header. */
  readonly body: Uint8Array;
}

export const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);
export const u8 = (value: number): Uint8Array => Uint8Array.of(value);
/** Text with its NUL. */
export const text = (value: string): Uint8Array => Buffer.from(`${value}\0`);

function align(bytes: number): number {
  return (bytes + 3) & ~3;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + align(length), 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += align(part.length);
  }
  return whole;
}

function encodeAttribute([type, value]: Attribute): Uint8Array {
  const isNested = !(value instanceof Uint8Array);
  const payload = isNested ? encodeAttributes(value as readonly Attribute[]) : (value as Uint8Array);
  const bytes = new Uint8Array(ATTRIBUTE.size + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(ATTRIBUTE.nla_len, bytes.length, true);
  view.setUint16(ATTRIBUTE.nla_type, isNested ? type | NLA_F_NESTED : type, true);
  bytes.set(payload, ATTRIBUTE.size);
  return bytes;
}

/** Attributes one after the other. */
export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  return concat(attributes.map(encodeAttribute));
}

/** A whole message. */
export function encodeMessage(
  type: number,
  flags: number,
  sequence: number,
  fixed: Uint8Array,
  attributes: readonly Attribute[],
): Uint8Array {
  const body = concat([fixed, encodeAttributes(attributes)]);
  const bytes = new Uint8Array(HEADER.size + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(HEADER.nlmsg_len, bytes.length, true);
  view.setUint16(HEADER.nlmsg_type, type, true);
  view.setUint16(HEADER.nlmsg_flags, flags, true);
  view.setUint32(HEADER.nlmsg_seq, sequence, true);
  bytes.set(body, HEADER.size);
  return bytes;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The messages of one datagram. Throws EIO when a length does not fit. */
export function decodeMessages(bytes: Uint8Array): Message[] {
  const view = viewOf(bytes);
  const messages: Message[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < HEADER.size) throw malformed('a message header is cut off');
    const length = view.getUint32(at + HEADER.nlmsg_len, true);
    if (length < HEADER.size || length > bytes.length - at) throw malformed(`a message claims ${length} bytes`);
    messages.push({
      type: view.getUint16(at + HEADER.nlmsg_type, true),
      flags: view.getUint16(at + HEADER.nlmsg_flags, true),
      sequence: view.getUint32(at + HEADER.nlmsg_seq, true),
      body: bytes.subarray(at + HEADER.size, at + length),
    });
    at += align(length);
  }
  return messages;
}

/** Attributes by type; of several of one type the last counts. Throws EIO when a length does not fit. */
export function decodeAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const view = viewOf(bytes);
  const attributes = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < ATTRIBUTE.size) throw malformed('an attribute header is cut off');
    const length = view.getUint16(at + ATTRIBUTE.nla_len, true);
    if (length < ATTRIBUTE.size || length > bytes.length - at) throw malformed(`an attribute claims ${length} bytes`);
    const type = view.getUint16(at + ATTRIBUTE.nla_type, true) & 0x3fff;
    attributes.set(type, bytes.subarray(at + ATTRIBUTE.size, at + length));
    at += align(length);
  }
  return attributes;
}

/** A message's fixed part and attributes. Throws EIO when it is shorter than the fixed part. */
export function splitBody(body: Uint8Array, fixedBytes: number): [fixed: DataView, attributes: Map<number, Uint8Array>] {
  if (body.length < fixedBytes) throw malformed(`a message of ${body.length} bytes lacks its fixed part`);
  return [viewOf(body.subarray(0, fixedBytes)), decodeAttributes(body.subarray(align(fixedBytes)))];
}

/** A 32-bit attribute, or undefined when it is missing or of another size. */
export function readU32(attribute: Uint8Array | undefined): number | undefined {
  return attribute?.length === 4 ? viewOf(attribute).getUint32(0, true) : undefined;
}

/** Text up to its NUL. */
export function readText(attribute: Uint8Array | undefined): string | undefined {
  if (!attribute) return undefined;
  const end = attribute.indexOf(0);
  return Buffer.from(end < 0 ? attribute : attribute.subarray(0, end)).toString();
}

/** `02:08:20:01:02:03`. */
export function readMac(attribute: Uint8Array | undefined): string {
  return Array.from(attribute ?? [], (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The reverse of `readMac`. Throws EINVAL. */
export function encodeMac(mac: string): Uint8Array {
  const octets = mac.split(':');
  if (octets.length !== 6 || octets.some((octet) => !/^[0-9a-f]{1,2}$/i.test(octet))) {
    throw new OverlayError('EINVAL', 'bad_mac', `'${mac}' is not a MAC address such as 02:08:20:01:02:03`);
  }
  return Uint8Array.from(octets, (octet) => Number.parseInt(octet, 16));
}

function malformed(what: string): OverlayError {
  return new OverlayError('EIO', 'netlink_malformed', `netlink: ${what}`);
}
