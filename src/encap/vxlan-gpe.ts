/**
 * VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe-13): VXLAN's header with flags and a protocol of what is inside; here that is Ethernet, so
 * the P flag is set and the next protocol 3. The B flag, for copies of replicated frames, is not set and is ignored. Mirror of
 * `assembly/encap/vxlan-gpe.ts`.
 */
import { ENCAP_VXLAN_GPE } from '../../assembly/layout.js';
import {
  DESTINATION_IP,
  DESTINATION_PORT,
  ENCAP_FLAG_VLAN_TAG,
  ENCAP_VERSION,
  type EncapPlugin,
  refuseOptions,
} from './plugin.js';
import { udpInfos, udpOperations } from './udp.js';

const NAME = 'vxlan-gpe';
const HEADER_BYTES = 8;
const VERSION_MASK = 0x30;
const I_FLAG = 0x08;
const P_FLAG = 0x04;
const O_FLAG = 0x01;
const NEXT_PROTOCOL = 3;
const ETHERNET = 3;
const VNI = 4;
/** IANA's, section 6.1. */
const PORT = 4790n;

const infos = udpInfos(NAME, PORT);

export const vxlanGpe: EncapPlugin = {
  version: ENCAP_VERSION,
  name: NAME,
  idBytes: 3,
  flags: ENCAP_FLAG_VLAN_TAG,
  destinations: DESTINATION_IP | DESTINATION_PORT,
  core: ENCAP_VXLAN_GPE,
  properties: infos.map(({ name }) => name),
  operations: {
    ...udpOperations(NAME, infos),
    encap: (vnetid, _properties, options) => {
      refuseOptions(NAME, options);
      const header = new Uint8Array(HEADER_BYTES);
      header[0] = I_FLAG | P_FLAG;
      header[NEXT_PROTOCOL] = ETHERNET;
      new DataView(header.buffer).setUint32(VNI, Number(vnetid) * 256);
      return header;
    },
    decap: (datagram) => {
      if (datagram.length < HEADER_BYTES) return undefined;
      const flags = datagram[0]!;
      const isForUs = (flags & (VERSION_MASK | I_FLAG | O_FLAG)) === I_FLAG;
      const isEthernet = (flags & P_FLAG) === 0 || datagram[NEXT_PROTOCOL] === ETHERNET;
      if (!isForUs || !isEthernet) return undefined;
      const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
      return { vnetid: BigInt(view.getUint32(VNI) >>> 8), headerBytes: HEADER_BYTES };
    },
  },
};
