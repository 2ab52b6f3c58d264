/**
 * Netlink messages as bytes (man 7 netlink, man 7 rtnetlink): struct nlmsghdr, a fixed struct of the message's
 * type, then attributes (struct rtattr). Each of the three begins at a multiple of 4 bytes. Numbers are in the
 * machine's order, which is little endian on both architectures this runs on.
 */
import { OverlayError } from '../../errors.js';
import { macros, structs } from '../abi.js';

const { NLA_F_NESTED, NLA_F_NET_BYTEORDER } = macros['linux/netlink.h'];

const HEADER = structs.nlmsghdr;
const ATTRIBUTE = structs.rtattr;
const TYPE_MASK = 0xffff & ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
const ATTRIBUTE_BYTES_MAX = 0xffff;

/** An attribute to send. A list as value is nested; NLA_F_NESTED is set for it. */
export interface Attribute {
  readonly type: number;
  readonly value: Uint8Array | readonly Attribute[];
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Port of the sender, 0 for the kernel. */
  readonly port: number;
  /** Everything behind the nlmsghdr: the fixed struct and the attributes. */
  readonly body: Uint8Array;
}

/** Attributes by type, a nested one as bytes still. Of two of one type the last counts, as in the kernel. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

/** Bytes of a message. */
export function encodeMessage(message: Message): Uint8Array {
  const bytes = new Uint8Array(align(HEADER.size + message.body.length));
  const view = viewOf(bytes);
  view.setUint32(HEADER.nlmsg_len, HEADER.size + message.body.length, true);
  view.setUint16(HEADER.nlmsg_type, message.type, true);
  view.setUint16(HEADER.nlmsg_flags, message.flags, true);
  view.setUint32(HEADER.nlmsg_seq, message.sequence, true);
  view.setUint32(HEADER.nlmsg_pid, message.port, true);
  bytes.set(message.body, HEADER.size);
  return bytes;
}

/** Body of a message: the fixed struct and the attributes behind it. */
export function encodeBody(fixed: Uint8Array, attributes: readonly Attribute[]): Uint8Array {
  const tail = encodeAttributes(attributes);
  const bytes = new Uint8Array(align(fixed.length) + tail.length);
  bytes.set(fixed);
  bytes.set(tail, align(fixed.length));
  return bytes;
}

/** Bytes of attributes, each padded. Throws EINVAL for one that does not fit its 16-bit length. */
export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  const parts = attributes.map(({ type, value }) => {
    const isNested = !(value instanceof Uint8Array);
    const payload = isNested ? encodeAttributes(value) : value;
    const length = ATTRIBUTE.size + payload.length;
    if (length > ATTRIBUTE_BYTES_MAX) {
      throw new OverlayError(
        'EINVAL',
        'netlink_too_long',
        `netlink attribute ${type} is longer than 65531 bytes`,
      );
    }
    const part = new Uint8Array(align(length));
    const view = viewOf(part);
    view.setUint16(ATTRIBUTE.rta_len, length, true);
    view.setUint16(ATTRIBUTE.rta_type, isNested ? type | NLA_F_NESTED : type, true);
    part.set(payload, ATTRIBUTE.size);
    return part;
  });
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The messages of one datagram, as views into it. Throws EIO `netlink_malformed`. */
export function parseMessages(datagram: Uint8Array): Message[] {
  const view = viewOf(datagram);
  const messages: Message[] = [];
  let at = 0;
  while (at < datagram.length) {
    if (datagram.length - at < HEADER.size) throw malformed('a message header is cut short');
    const length = view.getUint32(at + HEADER.nlmsg_len, true);
    if (length < HEADER.size || length > datagram.length - at)
      throw malformed('a message has a wrong length');
    messages.push({
      type: view.getUint16(at + HEADER.nlmsg_type, true),
      flags: view.getUint16(at + HEADER.nlmsg_flags, true),
      sequence: view.getUint32(at + HEADER.nlmsg_seq, true),
      port: view.getUint32(at + HEADER.nlmsg_pid, true),
      body: datagram.subarray(at + HEADER.size, at + length),
    });
    at += align(length);
  }
  return messages;
}

/** The fixed struct of `bytes` at the front of a message's body. Throws EIO `netlink_malformed`. */
export function fixedPart(body: Uint8Array, bytes: number): DataView {
  if (body.length < bytes) throw malformed('a message is shorter than its type');
  return new DataView(body.buffer, body.byteOffset, bytes);
}

/**
 * Attributes from offset `from` of a message's body, or of the attribute they are nested in. The flags in their
 * types are taken off. Throws EIO `netlink_malformed`.
 */
export function parseAttributes(bytes: Uint8Array, from = 0): Attributes {
  const view = viewOf(bytes);
  const attributes = new Map<number, Uint8Array>();
  let at = align(from);
  while (at < bytes.length) {
    if (bytes.length - at < ATTRIBUTE.size) throw malformed('an attribute header is cut short');
    const length = view.getUint16(at + ATTRIBUTE.rta_len, true);
    if (length < ATTRIBUTE.size || length > bytes.length - at)
      throw malformed('an attribute has a wrong length');
    const type = view.getUint16(at + ATTRIBUTE.rta_type, true) & TYPE_MASK;
    attributes.set(type, bytes.subarray(at + ATTRIBUTE.size, at + length));
    at += align(length);
  }
  return attributes;
}

/** Value of an attribute of one byte. */
export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

/** Value of an attribute of four bytes. */
export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

/** Value of a text attribute, ending in NUL. */
export function text(value: string): Uint8Array {
  return new TextEncoder().encode(`${value}\0`);
}

/** Number in an attribute of one byte, undefined without the attribute. Throws EIO `netlink_malformed`. */
export function readU8(value: Uint8Array | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (value.length < 1) throw malformed('an attribute is shorter than its number');
  return value[0];
}

/** Number in an attribute of four bytes, undefined without the attribute. Throws EIO `netlink_malformed`. */
export function readU32(value: Uint8Array | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (value.length < 4) throw malformed('an attribute is shorter than its number');
  return viewOf(value).getUint32(0, true);
}

/** Text in an attribute, up to its NUL if it has one; undefined without the attribute. */
export function readText(value: Uint8Array | undefined): string | undefined {
  if (value === undefined) return undefined;
  const end = value.indexOf(0);
  return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
}

/** What the kernel sent is not what the manual says: a kernel of another kind, or a mistake of ours. */
export function malformed(what: string): OverlayError {
  return new OverlayError('EIO', 'netlink_malformed', `netlink: ${what}`);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function align(bytes: number): number {
  return (bytes + 3) & ~3;
}
