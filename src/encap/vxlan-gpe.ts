/**
 * VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe-13): VXLAN's header with flags and a protocol of what is inside; here that is Ethernet, so
 * the P flag is set and the next protocol 3. The B flag, for copies of replicated frames, is not set and is ignored. Mirror of
 * `assembly/encap/vxlan-gpe.ts`.
 */
import { ENCAP_VXLAN_GPE } from '../../assembly/layout.js';
import { BASE_HEADER_BYTES, headerWith, vnetidOf } from './base-header.js';
import { refuseOptions } from './plugin.js';
import { udpInfos, udpPlugin } from './udp.js';

const NAME = 'vxlan-gpe';
const VERSION_MASK = 0x30;
const I_FLAG = 0x08;
const P_FLAG = 0x04;
const O_FLAG = 0x01;
const NEXT_PROTOCOL = 3;
const ETHERNET = 3;
/** IANA's, section 6.1. */
const PORT = 4790n;

export const vxlanGpe = udpPlugin({
  name: NAME,
  core: ENCAP_VXLAN_GPE,
  infos: udpInfos(NAME, PORT),
  encap: (vnetid, _properties, options) => {
    refuseOptions(NAME, options);
    const header = headerWith(vnetid);
    header[0] = I_FLAG | P_FLAG;
    header[NEXT_PROTOCOL] = ETHERNET;
    return header;
  },
  decap: (datagram) => {
    if (datagram.length < BASE_HEADER_BYTES) return undefined;
    const flags = datagram[0]!;
    const isForUs = (flags & (VERSION_MASK | I_FLAG | O_FLAG)) === I_FLAG;
    const isEthernet = (flags & P_FLAG) === 0 || datagram[NEXT_PROTOCOL] === ETHERNET;
    if (!isForUs || !isEthernet) return undefined;
    return { vnetid: vnetidOf(datagram), headerBytes: BASE_HEADER_BYTES };
  },
});
