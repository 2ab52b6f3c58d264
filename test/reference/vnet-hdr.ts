/** struct virtio_net_hdr, ten bytes, little endian (virtio 1.2 section 5.1.6), in front of every frame of a TAP. */
import { concat } from './frames.js';

export const VNET_HDR_BYTES = 10;

/** The checksum from csum_start to the end of the frame is to be put csum_offset behind csum_start. */
export const NEEDS_CSUM = 1;
/** Somebody has found the checksum right: a remark, nothing is asked. */
export const DATA_VALID = 2;

export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
/** With a TCP type: the super-frame has CWR set. */
export const GSO_ECN = 0x80;

export interface VnetHeader {
  readonly flags: number;
  readonly gsoType: number;
  /** Bytes of all headers: a hint. */
  readonly headerBytes: number;
  /** Bytes of payload in a segment. */
  readonly gsoSize: number;
  /** From the first byte of the Ethernet frame. */
  readonly csumStart: number;
  /** From csumStart. */
  readonly csumOffset: number;
}

/** Of the first bytes of a record; undefined when there are not enough. */
export function readVnetHeader(record: Uint8Array): VnetHeader | undefined {
  if (record.length < VNET_HDR_BYTES) return undefined;
  const field = (at: number) => record[at]! + record[at + 1]! * 256;
  return {
    flags: record[0]!,
    gsoType: record[1]!,
    headerBytes: field(2),
    gsoSize: field(4),
    csumStart: field(6),
    csumOffset: field(8),
  };
}

/** A record: the header, of which fields that are not given are zero, and the frame. */
export function recordOf(header: Partial<VnetHeader>, frame: Uint8Array): Uint8Array {
  const { flags = 0, gsoType = 0, headerBytes = 0, gsoSize = 0, csumStart = 0, csumOffset = 0 } = header;
  const fields = [headerBytes, gsoSize, csumStart, csumOffset];
  const bytes = fields.flatMap((value) => [value % 256, Math.floor(value / 256)]);
  return concat(Uint8Array.of(flags, gsoType, ...bytes), frame);
}
