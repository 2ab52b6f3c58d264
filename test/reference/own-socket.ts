/**
 * Whether a received frame leads to one of our own sockets, a second time and in the slowest obvious way: by IEEE 802.1Q, RFC 791,
 * RFC 8200 (with the fragments of RFC 6946 and RFC 8754's routing header), RFC 768 and RFC 2784.
 */

/** A socket that listens. */
export interface OwnSocket {
  /** 0 for GRE. */
  readonly port: number;
  /** Bytes of each address or prefix, 4 or 16, and the bits that count. */
  readonly prefixes: readonly { readonly bytes: Uint8Array; readonly bits: number }[];
}

/** The most tags and extension headers that are looked behind. */
const TAGS_MAX = 8;
const EXTENSIONS_MAX = 16;

/** What is known of a packet: where it goes, and by what. */
interface Packet {
  /** Undefined where the packet itself says the way, which may end anywhere. */
  readonly destination: Uint8Array | undefined;
  /** A port, 0 for GRE, undefined where that is cut off or too far behind. */
  readonly port: number | undefined;
}

/** True for a frame of at least 14 bytes whose packet may end in one of the sockets. */
export function isToOwnSocket(frame: Uint8Array, sockets: readonly OwnSocket[]): boolean {
  if (sockets.length === 0) return false;
  let rest = frame.subarray(12);
  for (let tags = 0; isTag(rest); tags++) {
    if (tags === TAGS_MAX) return true;
    if (rest.length < 6) return false;
    rest = rest.subarray(4);
  }
  const type = word(rest, 0);
  const bytes = rest.subarray(2);
  const packet = type === 0x0800 ? ofIpv4(bytes) : type === 0x86dd ? ofIpv6(bytes) : undefined;
  if (!packet) return false;
  const { port, destination } = packet;
  return sockets.some(
    (socket) =>
      (port === undefined || port === socket.port) &&
      (!destination || socket.prefixes.some(({ bytes, bits }) => isWithin(destination, bytes, bits))),
  );
}

function isTag(rest: Uint8Array): boolean {
  return word(rest, 0) === 0x8100 || word(rest, 0) === 0x88a8;
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 256 + bytes[at + 1]!;
}

function ofIpv4(packet: Uint8Array): Packet | undefined {
  if (packet.length < 20 || packet[0]! >> 4 !== 4) return undefined;
  const header = packet.subarray(0, (packet[0]! & 15) * 4);
  const isWhole = header.length >= 20 && header.length === (packet[0]! & 15) * 4;
  if (!isWhole || word(packet, 6) % 0x2000 !== 0) return undefined;
  const options = [...header.subarray(20)];
  let isRouted = false;
  while (options.length > 0) {
    const [kind = 0, length = 0] = options;
    isRouted ||= kind === 131 || kind === 137;
    if (kind === 0) break;
    const isBad = kind !== 1 && (options.length < 2 || length < 2);
    if (isBad) break;
    options.splice(0, kind === 1 ? 1 : length);
  }
  const carried = behind(packet[9]!, packet.subarray(header.length));
  return carried && { destination: isRouted ? undefined : packet.subarray(16, 20), port: carried.port };
}

function ofIpv6(packet: Uint8Array): Packet | undefined {
  if (packet.length < 40 || packet[0]! >> 4 !== 6) return undefined;
  let destination: Uint8Array | undefined = packet.subarray(24, 40);
  let next = packet[6]!;
  let rest = packet.subarray(40);
  for (let headers = 0; headers < EXTENSIONS_MAX; headers++) {
    if (![0, 43, 44, 51, 60].includes(next)) {
      const carried = behind(next, rest);
      return carried && { destination, port: carried.port };
    }
    if (rest.length < 8) break;
    if (next === 44 && word(rest, 2) >= 8) return undefined;
    if (next === 43 && rest[3] !== 0) destination = undefined;
    const bytes = next === 44 ? 8 : next === 51 ? rest[1]! * 4 + 8 : rest[1]! * 8 + 8;
    next = rest[0]!;
    rest = rest.subarray(bytes);
  }
  return { destination, port: undefined };
}

/** The port that a transport header is for; undefined for what no socket of ours takes. */
function behind(protocol: number, rest: Uint8Array): { port: number | undefined } | undefined {
  if (protocol === 47) return { port: 0 };
  if (protocol !== 17) return undefined;
  if (rest.length < 4) return { port: undefined };
  // No socket has it.
  return word(rest, 2) === 0 ? undefined : { port: word(rest, 2) };
}

/** IPv4 counts as IPv4-mapped IPv6. */
function isWithin(address: Uint8Array, prefix: Uint8Array, bits: number): boolean {
  const skipped = prefix.length === 4 ? 96 : 0;
  return bitsOf(mapped(address)).slice(0, skipped + bits) === bitsOf(mapped(prefix)).slice(0, skipped + bits);
}

function mapped(address: Uint8Array): number[] {
  return address.length === 16 ? [...address] : [...new Array<number>(10).fill(0), 255, 255, ...address];
}

function bitsOf(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(2).padStart(8, '0')).join('');
}
