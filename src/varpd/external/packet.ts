/** The frame that a request is about, as the guest's kernel handed it over. */
import { VNET_HDR_BYTES } from '../../../assembly/layout.js';

/**
 * struct virtio_net_hdr (virtio 1.3 section 5.1.6): what of the frame is left to do. With NEEDS_CSUM in `flags` its
 * checksum is unfinished; with a `gsoType` it stands for several frames. Offsets count from the Ethernet header.
 */
export interface VnetHdr {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
}

export interface Packet {
  readonly vnetHdr: VnetHdr;
  /** From its Ethernet header. */
  readonly frame: Uint8Array;
}

/** Of a frame with its vnet_hdr in front. */
export function packetOf(bytes: Uint8Array): Packet {
  const view = new DataView(bytes.buffer, bytes.byteOffset, VNET_HDR_BYTES);
  const vnetHdr = {
    flags: view.getUint8(0),
    gsoType: view.getUint8(1),
    hdrLen: view.getUint16(2, true),
    gsoSize: view.getUint16(4, true),
    csumStart: view.getUint16(6, true),
    csumOffset: view.getUint16(8, true),
  };
  return { vnetHdr, frame: bytes.subarray(VNET_HDR_BYTES) };
}
