/**
 * VXLAN (RFC 7348): 8 bytes, flags with the I bit, a 24-bit VNI, everything else zero on send and ignored on
 * receive. Mirror of `assembly/encap/vxlan.ts`.
 */
import { ENCAP_VXLAN } from '../../assembly/layout.js';
import { OverlayError } from '../errors.js';
import { endpointFault } from '../ip.js';
import { type PropertyInfo, PropertyStore } from '../property.js';
import {
  DESTINATION_IP,
  DESTINATION_PORT,
  ENCAP_FLAG_VLAN_TAG,
  ENCAP_VERSION,
  type EncapPlugin,
} from './plugin.js';

const HEADER_BYTES = 8;
const I_FLAG = 0x08;
const VNI = 4;
/** IANA's port, RFC 7348 section 5. */
const PORT = 4789n;

const infos: readonly PropertyInfo[] = [
  {
    name: 'vxlan/listen_ip',
    type: 'ip',
    isRequired: true,
    isReadable: true,
    isWritable: true,
    applies: 'reopen',
    fault: (value) => endpointFault(String(value), false),
  },
  {
    name: 'vxlan/listen_port',
    type: 'uint',
    isRequired: true,
    isReadable: true,
    isWritable: true,
    applies: 'reopen',
    default: PORT,
    possible: [{ min: 1n, max: 65535n }],
  },
  {
    name: 'vxlan/source_check',
    type: 'string',
    isRequired: false,
    isReadable: true,
    isWritable: true,
    applies: 'live',
    default: 'auto',
    possible: ['auto', 'off', 'known', 'strict'],
  },
];

export const vxlan: EncapPlugin = {
  version: ENCAP_VERSION,
  name: 'vxlan',
  idBytes: 3,
  flags: ENCAP_FLAG_VLAN_TAG,
  destinations: DESTINATION_IP | DESTINATION_PORT,
  core: ENCAP_VXLAN,
  properties: infos.map(({ name }) => name),
  operations: {
    init: () => new PropertyStore(infos),
    fini: () => {},
    encap: (vnetid) => {
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
    socket: (properties) => {
      const ip = properties.get('vxlan/listen_ip');
      if (typeof ip !== 'string') {
        throw new OverlayError('EINVAL', 'property_missing', 'vxlan/listen_ip is not set');
      }
      return { ip, port: Number(properties.get('vxlan/listen_port')) };
    },
    getprop: (properties, name) => properties.get(name),
    setprop: (properties, name, value) => properties.set(name, value),
    propinfo: (name) => new PropertyStore(infos).info(name),
  },
};
