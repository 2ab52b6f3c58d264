/**
 * Geneve (RFC 8926): 8 bytes with a 24-bit VNI, and options. Received options are walked and none is known, so that a critical
 * one costs its packet. Mirror of `assembly/encap/geneve.ts`.
 */
import { ENCAP_GENEVE } from '../../assembly/layout.js';
import { OverlayError } from '../errors.js';
import { type PropertyInfo, reopening } from '../property.js';
import { BASE_HEADER_BYTES, headerWith, viewOf, vnetidOf } from './base-header.js';
import { OPTIONS_TEXT_BYTES_MAX, optionsBytes, optionsFault } from './geneve-options.js';
import { udpInfos, udpPlugin } from './udp.js';

const NAME = 'geneve';
const OPTIONS = `${NAME}/options`;
const WORD_BYTES = 4;
const WORDS_MASK = 0x3f;
const FLAGS = 1;
const CONTROL_FLAG = 0x80;
const CRITICAL_FLAG = 0x40;
const PROTOCOL = 2;
/** Trans-Ether bridging. */
const ETHERNET = 0x6558;
/** IANA's, RFC 8926 section 3.3. */
const PORT = 6081n;

const infos: readonly PropertyInfo[] = [
  ...udpInfos(NAME, PORT),
  {
    ...reopening,
    name: OPTIONS,
    type: 'string',
    isRequired: false,
    bytesMax: OPTIONS_TEXT_BYTES_MAX,
    fault: (value) => optionsFault(String(value)),
  },
];

export const geneve = udpPlugin({
  name: NAME,
  core: ENCAP_GENEVE,
  infos,
  encap: (vnetid, properties, options) => {
    const fault = options === undefined ? undefined : optionsFault(options);
    if (fault !== undefined) {
      throw new OverlayError('EINVAL', 'bad_destination', `options of a destination: ${fault}`);
    }
    const text = options ?? properties.get(OPTIONS);
    const { bytes, isCritical } =
      text === undefined ? { bytes: new Uint8Array(0), isCritical: false } : optionsBytes(String(text));
    const header = headerWith(vnetid, bytes.length);
    header[0] = bytes.length / WORD_BYTES;
    header[FLAGS] = isCritical ? CRITICAL_FLAG : 0;
    viewOf(header).setUint16(PROTOCOL, ETHERNET);
    header.set(bytes, BASE_HEADER_BYTES);
    return header;
  },
  decap: (datagram) => {
    if (datagram.length < BASE_HEADER_BYTES || datagram[0]! > WORDS_MASK) return undefined;
    const headerBytes = BASE_HEADER_BYTES + datagram[0]! * WORD_BYTES;
    const isForUs =
      (datagram[FLAGS]! & CONTROL_FLAG) === 0 && viewOf(datagram).getUint16(PROTOCOL) === ETHERNET;
    if (
      !isForUs ||
      datagram.length < headerBytes ||
      !isSkippable(datagram.subarray(BASE_HEADER_BYTES, headerBytes))
    )
      return undefined;
    return { vnetid: vnetidOf(datagram), headerBytes };
  },
});

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
