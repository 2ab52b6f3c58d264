/**
 * Random traffic of a few flows that differ in little, mixed, from one seed: mostly runs of segments in order, and now and then
 * whatever may happen to one: losses, repetitions, other order, headers that change, checksums that are wrong.
 */
import {
  arp,
  authenticationHeader,
  bigEndian,
  concat,
  ENDS_4,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ethernet,
  fragmentHeader,
  IPPROTO_ICMP,
  IPPROTO_TCP,
  icmp,
  ipv4,
  onesComplementSum,
  optionsHeader,
  VLAN_STACK,
  VLAN_TAGS,
} from '../reference/frames.js';
import { findHeaders, transportHeaderBytes } from '../reference/headers.js';
import * as segments from './segments.js';
import { frameOf, SEGMENT, type Segment } from './segments.js';
import type { Xorshift } from './xorshift.js';

const { ACK, CWR, ECE, FIN, PSH, RST, SYN, URG } = segments;
const SIZES = [1, 2, 33, 100, 536, 1000, 1398, 1448];
/** One frame in so many is odd. */
const ODD_ONE_IN = 10;

type Change = (segment: Segment, random: Xorshift) => Partial<Segment>;

/** What a sender may change from one segment on. */
const changes: readonly Change[] = [
  ({ acknowledgement }) => ({ acknowledgement: acknowledgement + 1 }),
  ({ window }) => ({ window: window + 1 }),
  ({ tos }) => ({ tos: tos ^ 3 }),
  ({ ttl }) => ({ ttl: ttl ^ 1 }),
  ({ flowLabel }) => ({ flowLabel: flowLabel ^ 1 }),
  ({ fragment }) => ({ fragment: fragment ^ 0x4000 }),
  ({ fragment }) => ({ fragment: fragment ^ 0x8000 }),
  ({ reserved }) => ({ reserved: reserved ^ 1 }),
  ({ urgent }) => ({ urgent: urgent ^ 1 }),
  ({ id }) => ({ id: id + 1 }),
  ({ id }) => ({ id: id + 0xffff }),
  ({ sequence, payload }) => ({ sequence: sequence + payload.length, id: SEGMENT.id }),
  ({ sequence }) => ({ sequence: sequence + 1 }),
  ({ sequence, payload }) => ({ sequence: sequence + 2 ** 32 - payload.length }),
  (_, random) => ({ tcpOptions: timestamps(random.below(4)) }),
  () => ({ tcpOptions: new Uint8Array(0) }),
  (_, random) => ({ payload: bytes(SIZES[random.below(SIZES.length)]!, random) }),
];

/** What one segment may have. */
const oddities: readonly Change[] = [
  ...[PSH, PSH, PSH, ECE, ECE | PSH, CWR, FIN, FIN | PSH, SYN, RST, URG].map((flag) => () => ({
    flags: ACK | flag,
  })),
  () => ({ flags: 0 }),
  () => ({ flags: PSH }),
  () => ({ payload: new Uint8Array(0) }),
  () => ({ payload: new Uint8Array(0), flags: ACK | FIN }),
  ({ payload }, random) => ({ payload: payload.subarray(random.below(payload.length + 1)) }),
  ({ payload }, random) => ({
    payload: payload.subarray(random.below(payload.length + 1)),
    flags: ACK | PSH,
  }),
  ({ payload }) => ({ payload: concat(payload, Uint8Array.of(1)) }),
  (_, random) => ({ padding: 1 + random.below(8) }),
  () => ({ ipOptions: Uint8Array.of(1, 1, 1, 0) }),
  () => ({ extensions: [optionsHeader(0)] }),
  () => ({ extensions: [optionsHeader(60, 1)] }),
  () => ({ extensions: [authenticationHeader()] }),
  () => ({ extensions: [fragmentHeader(0, true)], fragment: 0x2000 }),
  () => ({ extensions: [fragmentHeader(3, false)], fragment: 3 }),
];

/** What may happen to a frame on its way. */
const damages: readonly ((frame: Uint8Array, random: Xorshift) => Uint8Array)[] = [
  (frame, random) => xored(frame, random.below(frame.length), 1 + random.below(255)),
  (frame, random) => xored(frame, frame.length - 1, 1 + random.below(255)),
  (frame, random) => frame.slice(0, 14 + random.below(frame.length - 14)),
  (frame) => withZeroChecksum(frame, 0),
  (frame) => withZeroChecksum(frame, 0xffff),
];

export class FlowTraffic {
  readonly #flows: Segment[];

  constructor(readonly random: Xorshift) {
    const tcp = { sequence: 0xffff_f000, id: 0xfff0 };
    const variants: readonly Partial<Segment>[] = [
      {},
      { sourcePort: 40_001 },
      { host: 9 },
      { tags: VLAN_TAGS },
      { tags: [{ type: 0x8100, control: 6 }] },
      { tags: VLAN_STACK },
      { family: 6 },
      { family: 6, tags: VLAN_TAGS },
      { isTcp: false },
      { isTcp: false, sourcePort: 40_001 },
      { isTcp: false, family: 6 },
    ];
    this.#flows = variants.map((variant) => ({
      ...SEGMENT,
      ...tcp,
      ...variant,
      payload: bytes(SIZES[random.below(SIZES.length)]!, random),
    }));
  }

  /** The next frames that come, of some of the flows. */
  next(count: number): Uint8Array[] {
    const { random } = this;
    const active = Array.from({ length: 1 + random.below(4) }, () => random.below(this.#flows.length));
    const frames: Uint8Array[] = [];
    while (frames.length < count) {
      const flow = active[random.below(active.length)]!;
      // Mostly several of one flow in a row.
      for (let left = 1 + random.below(12); left > 0 && frames.length < count; left--) {
        frames.push(this.#frame(flow));
        if (random.below(ODD_ONE_IN * 3) === 0) this.#disturb(frames);
      }
    }
    return frames;
  }

  #frame(flow: number): Uint8Array {
    const { random } = this;
    const kind = random.below(ODD_ONE_IN * 3);
    let segment = this.#flows[flow]!;
    if (kind === 0) segment = { ...segment, ...changes[random.below(changes.length)]!(segment, random) };
    const sent =
      kind === 1 ? { ...segment, ...oddities[random.below(oddities.length)]!(segment, random) } : segment;
    const sequence = (segment.sequence + sent.payload.length) % 2 ** 32;
    const payload = bytes(segment.payload.length, random);
    this.#flows[flow] = { ...segment, sequence, payload, id: (segment.id + 1) % 2 ** 16 };
    const frame = frameOf(sent);
    return kind === 2 ? damages[random.below(damages.length)]!(frame, random) : frame;
  }

  /** Order, repetition, and frames that are of no flow. */
  #disturb(frames: Uint8Array[]): void {
    const { random } = this;
    const last = frames.length - 1;
    const kind = random.below(4);
    if (kind === 0 && last > 0) frames.push(...frames.splice(last - 1, 1));
    if (kind === 1) frames.push(frames[random.below(frames.length)]!);
    if (kind === 2) frames.push(ethernet(ETHERTYPE_ARP, arp()));
    if (kind === 3)
      frames.push(ethernet(ETHERTYPE_IPV4, ipv4({ protocol: IPPROTO_ICMP, payload: icmp(ENDS_4) })));
  }
}

/** NOP, NOP, timestamps (RFC 7323). */
export function timestamps(value: number): Uint8Array {
  return Uint8Array.of(1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 7);
}

function bytes(count: number, random: Xorshift): Uint8Array {
  const words = Uint32Array.from({ length: Math.ceil(count / 4) }, () => random.next());
  return new Uint8Array(words.buffer).slice(0, count);
}

function xored(frame: Uint8Array, at: number, bits: number): Uint8Array {
  const damaged = frame.slice();
  damaged[at]! ^= bits;
  return damaged;
}

/**
 * The same frame with a payload that makes the transport checksum zero, which is written as 0 or as 0xffff; or the frame itself
 * when it has no payload for that.
 */
export function withZeroChecksum(frame: Uint8Array, written: 0 | 0xffff): Uint8Array {
  const headers = findHeaders(frame);
  const bytes = headers && transportHeaderBytes(frame, headers);
  if (!headers || bytes === undefined || frame.length < headers.transport + bytes + 2) return frame;
  const field = headers.transport + (headers.protocol === IPPROTO_TCP ? 16 : 6);
  const payload = headers.transport + bytes;
  const changed = frame.slice();
  const words = concat(frame.subarray(field, field + 2), frame.subarray(payload, payload + 2));
  changed.set(bigEndian(onesComplementSum(words), 2), payload);
  changed.set(bigEndian(written, 2), field);
  return changed;
}
