/**
 * NVGRE (RFC 7637): GRE (RFC 2784, 2890) with a key of 24 bits of vnetid, the VSID, and 8 bits of flow hash, the FlowID. It goes
 * in IP datagrams of their own protocol, so there is no port, and raw sockets take CAP_NET_RAW. Frames with VLAN tags are not
 * carried (section 3.2). Mirror of `assembly/encap/nvgre.ts`.
 */
import { ENCAP_NVGRE } from '../../assembly/layout.js';
import { BASE_HEADER_BYTES, headerWith, viewOf, vnetidOf } from './base-header.js';
import { listenInfo, outerInfos, outerOperations } from './outer.js';
import { DESTINATION_IP, ENCAP_VERSION, type EncapPlugin, refuseOptions } from './plugin.js';

const NAME = 'nvgre';
/** A key, no checksum and no sequence number, version 0; bits 1, 4 and 5 must be zero, 6 to 12 are ignored. */
const FORM = 0x2000;
const FORM_MASK = 0xfc07;
const PROTOCOL = 2;
/** Transparent Ethernet bridging. */
const ETHERNET = 0x6558;

const infos = [listenInfo(NAME), ...outerInfos(NAME)];

export const nvgre: EncapPlugin = {
  version: ENCAP_VERSION,
  name: NAME,
  idBytes: 3,
  // Lower ones are reserved, and the highest is for what vendors' endpoints tell each other (section 3.2).
  vnetids: { min: 0x1000n, max: 0xfffffen },
  transport: 'gre',
  flags: 0,
  destinations: DESTINATION_IP,
  core: ENCAP_NVGRE,
  properties: infos.map(({ name }) => name),
  operations: {
    ...outerOperations(NAME, infos),
    encap: (vnetid, _properties, options) => {
      refuseOptions(NAME, options);
      const header = headerWith(vnetid);
      const view = viewOf(header);
      view.setUint16(0, FORM);
      view.setUint16(PROTOCOL, ETHERNET);
      return header;
    },
    decap: (datagram) => {
      if (datagram.length < BASE_HEADER_BYTES) return undefined;
      const view = viewOf(datagram);
      const isOurs = (view.getUint16(0) & FORM_MASK) === FORM && view.getUint16(PROTOCOL) === ETHERNET;
      return isOurs ? { vnetid: vnetidOf(datagram), headerBytes: BASE_HEADER_BYTES } : undefined;
    },
  },
};
