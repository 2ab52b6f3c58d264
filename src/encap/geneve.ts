/**
 * Geneve (RFC 8926): 8 bytes with a 24-bit VNI, and options. Received options are walked and none is known, so that a critical
 * one costs its packet. Mirror of `assembly/encap/geneve.ts`.
 */
import { ENCAP_GENEVE } from '../../assembly/layout.js';
import { OverlayError } from '../errors.js';
import type { PropertyInfo } from '../property.js';
import { OPTIONS_TEXT_BYTES_MAX, optionsBytes, optionsFault } from './geneve-options.js';
import {
  DESTINATION_IP,
  DESTINATION_PORT,
  ENCAP_FLAG_VLAN_TAG,
  ENCAP_VERSION,
  type EncapPlugin,
} from './plugin.js';
import { udpInfos, udpOperations } from './udp.js';

const NAME = 'geneve';
const OPTIONS = `${NAME}/options`;
const BASE_BYTES = 8;
const WORD_BYTES = 4;
const WORDS_MASK = 0x3f;
const FLAGS = 1;
const CONTROL_FLAG = 0x80;
const CRITICAL_FLAG = 0x40;
const PROTOCOL = 2;
/** Trans-Ether bridging. */
const ETHERNET = 0x6558;
const VNI = 4;
/** IANA's, RFC 8926 section 3.3. */
const PORT = 6081n;

const infos: readonly PropertyInfo[] = [
  ...udpInfos(NAME, PORT),
  {
    name: OPTIONS,
    type: 'string',
    isRequired: false,
    isReadable: true,
    isWritable: true,
    applies: 'reopen',
    bytesMax: OPTIONS_TEXT_BYTES_MAX,
    fault: (value) => optionsFault(String(value)),
  },
];

export const geneve: EncapPlugin = {
  version: ENCAP_VERSION,
  name: NAME,
  idBytes: 3,
  flags: ENCAP_FLAG_VLAN_TAG,
  destinations: DESTINATION_IP | DESTINATION_PORT,
  core: ENCAP_GENEVE,
  properties: infos.map(({ name }) => name),
  operations: {
    ...udpOperations(NAME, infos),
    encap: (vnetid, properties, options) => {
      const fault = options === undefined ? undefined : optionsFault(options);
      if (fault !== undefined) {
        throw new OverlayError('EINVAL', 'bad_destination', `options of a destination: ${fault}`);
      }
      const text = options ?? properties.get(OPTIONS);
      const { bytes, isCritical } =
        text === undefined ? { bytes: new Uint8Array(0), isCritical: false } : optionsBytes(String(text));
      const header = new Uint8Array(BASE_BYTES + bytes.length);
      const view = new DataView(header.buffer);
      header[0] = bytes.length / WORD_BYTES;
      header[FLAGS] = isCritical ? CRITICAL_FLAG : 0;
      view.setUint16(PROTOCOL, ETHERNET);
      view.setUint32(VNI, Number(vnetid) * 256);
      header.set(bytes, BASE_BYTES);
      return header;
    },
    decap: (datagram) => {
      if (datagram.length < BASE_BYTES || datagram[0]! > WORDS_MASK) return undefined;
      const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
      const headerBytes = BASE_BYTES + datagram[0]! * WORD_BYTES;
      const isForUs = (datagram[FLAGS]! & CONTROL_FLAG) === 0 && view.getUint16(PROTOCOL) === ETHERNET;
      if (
        !isForUs ||
        datagram.length < headerBytes ||
        !isSkippable(datagram.subarray(BASE_BYTES, headerBytes))
      )
        return undefined;
      return { vnetid: BigInt(view.getUint32(VNI) >>> 8), headerBytes };
    },
  },
};

/** Whether options end where they should, and none is critical. */
function isSkippable(options: Uint8Array): boolean {
  let at = 0;
  let isCritical = false;
  while (at < options.length) {
    isCritical ||= (options[at + 2]! & 0x80) !== 0;
    at += WORD_BYTES + (options[at + 3]! & 0x1f) * WORD_BYTES;
  }
  return at === options.length && !isCritical;
}
