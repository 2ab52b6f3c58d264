/**
 * VXLAN (RFC 7348): 8 bytes, flags with the I bit, a 24-bit VNI, everything else zero on send and ignored on
 * receive. Mirror of `assembly/encap/vxlan.ts`.
 */
import { ENCAP_VXLAN } from '../../assembly/layout.js';
import { BASE_HEADER_BYTES, headerWith, vnetidOf } from './base-header.js';
import { refuseOptions } from './plugin.js';
import { udpInfos, udpPlugin } from './udp.js';

const NAME = 'vxlan';
const I_FLAG = 0x08;
/** IANA's, RFC 7348 section 5. */
const PORT = 4789n;

export const vxlan = udpPlugin({
  name: NAME,
  core: ENCAP_VXLAN,
  infos: udpInfos(NAME, PORT),
  encap: (vnetid, _properties, options) => {
    refuseOptions(NAME, options);
    const header = headerWith(vnetid);
    header[0] = I_FLAG;
    return header;
  },
  decap: (datagram) => {
    if (datagram.length < BASE_HEADER_BYTES || (datagram[0]! & I_FLAG) === 0) return undefined;
    return { vnetid: vnetidOf(datagram), headerBytes: BASE_HEADER_BYTES };
  },
});
