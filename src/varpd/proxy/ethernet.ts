/** Ethernet headers with their VLAN tags (IEEE 802.3, 802.1Q). Frames begin at the destination address. */
import { assert } from '../../errors.js';
import { isGroupMac, macAt, macBytes } from '../../target/mac.js';
import { putUint16, uint16At } from './bytes.js';

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;

const ETHERTYPE_CUSTOMER_TAG = 0x8100;
const ETHERTYPE_SERVICE_TAG = 0x88a8;
const ADDRESSES_BYTES = 12;
const TAG_BYTES = 4;
/** An 802.1ad tag around an 802.1Q tag; the standards stack no more. */
const TAGS_MAX = 2;
/** Below this the field is a length, not a type (IEEE 802.3 section 3.2.6). */
const ETHERTYPE_MIN = 0x600;
/** 4095 is reserved (IEEE 802.1Q table 9-2). */
const VLAN_MAX = 4094;
/**
 * What may follow the Ethernet header. Nothing that a proxy answers is longer in practice, and this keeps
 * super-frames and long option lists away from the parsers, whatever the MTU.
 */
export const PROXY_PAYLOAD_BYTES_MAX = 1500;

export interface EthernetHeader {
  /** MAC addresses as numbers, see `src/target/mac.ts`. */
  readonly destination: number;
  readonly source: number;
  /** Behind the tags; 0 where the field is a length (LLC). */
  readonly etherType: number;
  /** VLAN id of the outer tag; 0 when untagged or only priority-tagged. */
  readonly vlan: number;
  /** Bytes of the header with its tags. */
  readonly headerBytes: number;
}

/**
 * The header of a frame. Up to two tags are skipped, each an 802.1Q (0x8100) or an 802.1ad (0x88a8) one;
 * behind a third `etherType` is that of the tag. Undefined for a bogon: too short for its header, or an
 * 802.1Q tag with the CFI bit, which promises a Token Ring header.
 */
export function parseEthernet(frame: Uint8Array): EthernetHeader | undefined {
  let typeAt = ADDRESSES_BYTES;
  let vlan = 0;
  for (let tags = 0; ; tags++) {
    if (frame.length < typeAt + 2) return undefined;
    const type = uint16At(frame, typeAt);
    const isTag = type === ETHERTYPE_CUSTOMER_TAG || type === ETHERTYPE_SERVICE_TAG;
    if (!isTag || tags === TAGS_MAX) {
      return {
        destination: macAt(frame, 0),
        source: macAt(frame, 6),
        etherType: type < ETHERTYPE_MIN ? 0 : type,
        vlan,
        headerBytes: typeAt + 2,
      };
    }
    if (frame.length < typeAt + TAG_BYTES) return undefined;
    const control = uint16At(frame, typeAt + 2);
    // The bit is DEI in an 802.1ad tag and says nothing about the format.
    if (type === ETHERTYPE_CUSTOMER_TAG && (control & 0x1000) !== 0) return undefined;
    if (tags === 0) vlan = control & 0xfff;
    typeAt += TAG_BYTES;
  }
}

/** True for the address of one interface: neither a group nor all zero. */
export function isStationMac(mac: number): boolean {
  return mac !== 0 && !isGroupMac(mac);
}

/**
 * The header of a frame that a proxy may answer, or undefined: it has the type, is of a plausible size, and
 * its source is an address to which an answer can go.
 */
export function parseProxied(frame: Uint8Array, etherType: number): EthernetHeader | undefined {
  const header = parseEthernet(frame);
  if (!header || header.etherType !== etherType) return undefined;
  if (frame.length - header.headerBytes > PROXY_PAYLOAD_BYTES_MAX) return undefined;
  return isStationMac(header.source) ? header : undefined;
}

/** A copy of the first `headerBytes` of a frame, tags and all, with other addresses. */
export function readdressed(
  frame: Uint8Array,
  { headerBytes, destination, source }: { headerBytes: number; destination: number; source: number },
): Uint8Array {
  const header = frame.slice(0, headerBytes);
  header.set(macBytes(destination), 0);
  header.set(macBytes(source), 6);
  return header;
}

/** A new header: 14 bytes, or 18 with an 802.1Q tag of priority 0 when `vlan` is not 0. */
export function ethernetHeader({
  destination,
  source,
  vlan,
  etherType,
}: {
  destination: number;
  source: number;
  /** 0 to 4094. */
  vlan: number;
  etherType: number;
}): Uint8Array {
  assert(isStationMac(source), `${source} is no interface's MAC address`);
  assert(Number.isInteger(vlan) && vlan >= 0 && vlan <= VLAN_MAX, `${vlan} is no VLAN id`);
  const header = new Uint8Array(ADDRESSES_BYTES + (vlan === 0 ? 0 : TAG_BYTES) + 2);
  header.set(macBytes(destination), 0);
  header.set(macBytes(source), 6);
  if (vlan !== 0) {
    putUint16(header, ADDRESSES_BYTES, ETHERTYPE_CUSTOMER_TAG);
    putUint16(header, ADDRESSES_BYTES + 2, vlan);
  }
  putUint16(header, header.length - 2, etherType);
  return header;
}

/** A header and what follows it as one frame. */
export function joined(header: Uint8Array, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(header.length + payload.length);
  frame.set(header, 0);
  frame.set(payload, header.length);
  return frame;
}
