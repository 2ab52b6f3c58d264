/**
 * VXLAN (RFC 7348): 8 bytes, flags with the I bit, a 24-bit VNI, everything else zero on send and ignored on
 * receive. Mirror of `assembly/encap/vxlan.ts`.
 */
import { ENCAP_VXLAN } from '../../assembly/layout.js';
import {
  DESTINATION_IP,
  DESTINATION_PORT,
  ENCAP_FLAG_VLAN_TAG,
  ENCAP_VERSION,
  type EncapPlugin,
  refuseOptions,
} from './plugin.js';
import { udpInfos, udpOperations } from './udp.js';

const NAME = 'vxlan';
const HEADER_BYTES = 8;
const I_FLAG = 0x08;
const VNI = 4;
/** IANA's, RFC 7348 section 5. */
const PORT = 4789n;

const infos = udpInfos(NAME, PORT);

export const vxlan: EncapPlugin = {
  version: ENCAP_VERSION,
  name: NAME,
  idBytes: 3,
  flags: ENCAP_FLAG_VLAN_TAG,
  destinations: DESTINATION_IP | DESTINATION_PORT,
  core: ENCAP_VXLAN,
  properties: infos.map(({ name }) => name),
  operations: {
    ...udpOperations(NAME, infos),
    encap: (vnetid, _properties, options) => {
      refuseOptions(NAME, options);
      const header = new Uint8Array(HEADER_BYTES);
      header[0] = I_FLAG;
      new DataView(header.buffer).setUint32(VNI, Number(vnetid) * 256);
      return header;
    },
    decap: (datagram) => {
      if (datagram.length < HEADER_BYTES || (datagram[0]! & I_FLAG) === 0) return undefined;
      const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
      return { vnetid: BigInt(view.getUint32(VNI) >>> 8), headerBytes: HEADER_BYTES };
    },
  },
};
