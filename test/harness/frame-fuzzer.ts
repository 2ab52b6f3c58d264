/**
 * Writes fuzzed frames and datagrams cheaply: 20 % noise, 60 % valid ones spoiled, 20 % from a grammar of
 * stacked tags, extension chains and length fields that lie. Only the first bytes are written, where headers
 * can be; the rest is whatever lay in memory. All of it is made in the memory of the core, where copies cost least.
 */
import type { Sample } from '../reference/frames.js';
import { type Encapsulation, HEADER_BYTES_MAX } from './encapsulations.js';
import type { Xorshift } from './xorshift.js';

/** Bytes that are written of a frame; the headers of every sample and sentence of the grammar are in them. */
const HEAD_BYTES = 192;
/** Where the frame begins in the scratch buffer: the outer part goes before it. */
const FRAME = HEADER_BYTES_MAX + 12;
const SCRATCH_BYTES = FRAME + HEAD_BYTES + 512;
/** Of addresses that the targets are of; the last byte says which. */
const MAC = [2, 0, 0, 0, 0];
const FRAME_BYTES_MAX = 65535 - HEADER_BYTES_MAX;

const TAG_TYPES = [0x8100, 0x88a8, 0x9100];
const EXTENSION_TYPES = [0, 43, 60, 51, 44, 59, 135];
const PROTOCOLS = [6, 17, 1, 58, 50, 51, 132, 44, 0, 255];

/** Where a valid frame's head lies, its whole length, and the offset and width of fields that give lengths and kinds. */
interface Template {
  readonly head: number;
  readonly headBytes: number;
  readonly length: number;
  readonly fields: readonly (readonly [offset: number, width: number])[];
}

function templateOf(frame: Uint8Array, head: number): Template {
  let l3 = 14;
  while ([0x81, 0x88].includes(frame[l3 - 2]!) && [0, 0xa8].includes(frame[l3 - 1]!)) l3 += 4;
  const fields: [number, number][] = [
    [l3 - 2, 2],
    [l3, 1],
    [l3 + 2, 2],
    [l3 + 4, 2],
    [l3 + 6, 2],
    [l3 + 9, 1],
  ];
  // Behind either IP header: UDP's length, TCP's data offset, the length of an extension header.
  for (const l4 of [l3 + 20, l3 + 40]) fields.push([l4 + 4, 2], [l4 + 12, 1], [l4 + 1, 1]);
  return {
    head,
    headBytes: Math.min(frame.length, HEAD_BYTES),
    length: frame.length,
    fields: fields.filter(([at, width]) => at + width <= frame.length),
  };
}

export interface FuzzTargets {
  /** Vnetids of devices. */
  readonly vnetids: readonly number[];
  /** Lengths about which something is decided. */
  readonly edges: readonly number[];
  /** How many addresses there are that may be targets: 02:00:00:00:00:00 and on, at most 256. */
  readonly macs: number;
  /** Frames of flows, each list in the order in which they may be joined. None is longer than what is written of a frame. */
  readonly streams: readonly (readonly Uint8Array[])[];
}

/** Room for what a fuzzer makes, and for what it makes it of. */
export function scratchBytes(samples: readonly Sample[], { streams }: FuzzTargets): number {
  const frames = samples.length + streams.reduce((sum, { length }) => sum + length, 0);
  return SCRATCH_BYTES + frames * HEAD_BYTES;
}

export class FrameFuzzer {
  /** Bytes of what was made last. */
  length = 0;
  readonly #templates: readonly Template[];
  readonly #streams: readonly (readonly Template[])[];
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #start = FRAME;
  /** Frames that follow one another come from here, when it is set. */
  #stream: readonly Template[] | undefined;
  #next = 0;

  /** @param at where in the memory there are `scratchBytes` */
  constructor(
    readonly random: Xorshift,
    samples: readonly Sample[],
    readonly targets: FuzzTargets,
    readonly memory: Uint8Array,
    readonly at: number,
  ) {
    let head = at + SCRATCH_BYTES;
    const place = (frame: Uint8Array): Template => {
      memory.set(frame.subarray(0, HEAD_BYTES), head);
      head += HEAD_BYTES;
      return templateOf(frame, head - HEAD_BYTES);
    };
    this.#templates = samples.map(({ frame }) => place(frame));
    this.#streams = targets.streams.map((frames) => frames.map(place));
    this.#bytes = memory.subarray(at, at + SCRATCH_BYTES);
    this.#view = new DataView(memory.buffer, at, SCRATCH_BYTES);
  }

  /** From now on most valid frames follow one another in a flow, or none does. */
  follow(isFollowing: boolean): void {
    this.#stream = isFollowing ? this.#streams[this.random.below(this.#streams.length)] : undefined;
    this.#next = this.random.below(64);
  }

  /** Makes what a TAP hands over: virtio_net_hdr and frame. */
  makeFrame(): void {
    const bytes = this.#bytes;
    this.#start = FRAME - 10;
    for (let at = this.#start; at < FRAME; at++) bytes[at] = 0;
    if (this.random.below(16) === 0) {
      bytes[this.#start + this.random.below(2)] = this.random.below(256);
      this.#noise(this.#start + 2, FRAME);
    }
    this.#finish(10);
    if (this.random.below(32) === 0) this.#broadcast();
    else this.#address(FRAME);
  }

  /** Makes a datagram: outer header and frame. */
  makeDatagram(encapsulation: Encapsulation): void {
    const { random, targets } = this;
    const vnetid =
      random.below(16) === 0 ? random.next() >>> 8 : targets.vnetids[random.below(targets.vnetids.length)]!;
    this.#start = encapsulation.write(this.#bytes, FRAME, vnetid, random);
    this.#finish(FRAME - this.#start);
    if (!this.#stream) this.#address(FRAME + 6);
  }

  /** To all; every other one asks who has an address. */
  #broadcast(): void {
    const bytes = this.#bytes;
    for (let i = 0; i < 6; i++) bytes[FRAME + i] = 0xff;
    if (this.random.below(2) === 0) this.#word(FRAME + 12, 0x0806);
  }

  /** Puts a target's address where one belongs, mostly. */
  #address(at: number): void {
    const { random } = this;
    if (random.below(8) === 0) return;
    const bytes = this.#bytes;
    for (let i = 0; i < 5; i++) bytes[at + i] = MAC[i]!;
    bytes[at + 5] = random.below(this.targets.macs);
  }

  /** Copies what was made last to `to` in the memory, as far as it was written. */
  copyTo(to: number): void {
    const start = this.#start;
    const count = Math.min(this.length, FRAME - start + HEAD_BYTES);
    this.memory.copyWithin(to, this.at + start, this.at + start + count);
  }

  #finish(outer: number): void {
    const { random } = this;
    const kind = random.below(10);
    let length: number;
    if (kind < 2) {
      length = random.below(4) === 0 ? random.below(FRAME_BYTES_MAX) : random.below(160);
      // With the outer part in half of them, so that some get past it.
      this.#noise(random.below(2) === 0 ? this.#start : FRAME, FRAME + Math.min(length, HEAD_BYTES));
    } else if (kind < 8) length = this.#spoil();
    else length = this.#speak();
    this.length = outer + Math.min(length, FRAME_BYTES_MAX);
    // Every so often it ends anywhere, the outer part included.
    if (random.below(16) === 0) this.length = random.below(Math.min(this.length, outer + 120) + 1);
  }

  /** Whole words: up to three bytes more than are asked for, which belong to nothing yet. */
  #noise(from: number, to: number): void {
    for (let at = from; at < to; at += 4) this.#view.setUint32(at, this.random.next());
  }

  /** A valid frame with something wrong with it, or with nothing. Returns its length. */
  #spoil(): number {
    const { random } = this;
    const bytes = this.#bytes;
    const stream = this.#stream;
    const template = stream
      ? stream[this.#next++ % stream.length]!
      : this.#templates[random.below(this.#templates.length)]!;
    const { head, headBytes, length } = template;
    this.memory.copyWithin(this.at + FRAME, head, head + headBytes);
    if (stream && random.below(4) !== 0) return length;
    switch (random.below(8)) {
      case 0:
        return length;
      case 1:
        for (let flips = random.below(4) + 1; flips > 0; flips--) {
          bytes[FRAME + random.below(Math.min(length, 90))]! ^= 1 << random.below(8);
        }
        return length;
      case 2:
        return random.below(length + 1);
      case 3:
      case 4:
        this.#lie(template);
        return length;
      case 5:
        return random.below(8) === 0 ? FRAME_BYTES_MAX : length + random.below(3) - 1;
      case 6:
        this.#lie(template);
        bytes[FRAME + random.below(Math.min(length, 90))] = random.below(256);
        return length - random.below(Math.min(length, 60));
      default:
        return this.targets.edges[random.below(this.targets.edges.length)]! + random.below(13) - 6;
    }
  }

  /** Changes one field of a template by one, or to its lowest or highest value. */
  #lie({ fields }: Template): void {
    const { random } = this;
    const bytes = this.#bytes;
    const [offset, width] = fields[random.below(fields.length)]!;
    const at = FRAME + offset;
    const held = width === 2 ? bytes[at]! * 256 + bytes[at + 1]! : bytes[at]!;
    const choice = random.below(4);
    const value = choice === 0 ? held - 1 : choice === 1 ? held + 1 : choice === 2 ? 0 : 0xffff;
    if (width === 2) {
      bytes[at] = value >>> 8;
      bytes[at + 1] = value;
    } else bytes[at] = value;
  }

  /** A frame from the grammar. Returns its length. */
  #speak(): number {
    const { random } = this;
    let at = FRAME + 12;
    this.#noise(FRAME, at);
    for (let tags = random.below(8) < 4 ? 0 : random.below(12); tags > 0; tags--) {
      this.#word(at, TAG_TYPES[random.below(3)]!);
      this.#word(at + 2, random.next());
      at += 4;
    }
    const choice = random.below(8);
    this.#word(at, choice < 3 ? 0x0800 : choice < 6 ? 0x86dd : choice === 6 ? 0x0806 : random.next());
    at += 2;
    if (choice < 3) at = this.#speakIpv4(at);
    else if (choice < 6) at = this.#speakIpv6(at);
    else this.#noise(at, at + 40);
    const length = at - FRAME + random.below(80);
    return random.below(4) === 0 ? random.below(length + 1) : length;
  }

  #word(at: number, value: number): void {
    this.#bytes[at] = value >>> 8;
    this.#bytes[at + 1] = value;
  }

  /** The true value mostly, else one that is wrong by one, the lowest, or the highest. */
  #perhaps(value: number): number {
    const choice = this.random.below(12);
    if (choice > 3) return value;
    return choice === 0 ? value - 1 : choice === 1 ? value + 1 : choice === 2 ? 0 : 0xffff;
  }

  #speakIpv4(at: number): number {
    const { random } = this;
    const words = random.below(8) === 0 ? random.below(16) : 5 + random.below(3);
    const payload = random.below(64);
    this.#noise(at, at + words * 4 + 24);
    this.#bytes[at] = (random.below(32) === 0 ? random.below(16) << 4 : 0x40) | words;
    this.#word(at + 2, this.#perhaps(words * 4 + payload));
    this.#word(at + 6, random.below(4) === 0 ? random.next() : 0x4000);
    this.#bytes[at + 9] = PROTOCOLS[random.below(PROTOCOLS.length)]!;
    return at + words * 4 + payload;
  }

  #speakIpv6(at: number): number {
    const { random } = this;
    const bytes = this.#bytes;
    const ip = at;
    this.#noise(ip, ip + 40);
    bytes[ip] = random.below(32) === 0 ? random.below(256) : 0x60;
    at += 40;
    let next = ip + 6;
    for (let count = random.below(9); count > 0; count--) {
      const type = EXTENSION_TYPES[random.below(EXTENSION_TYPES.length)]!;
      const units = random.below(3);
      this.#noise(at, at + 8);
      bytes[next] = type;
      bytes[at + 1] = random.below(16) === 0 ? 255 : units;
      next = at;
      at += type === 51 ? (units + 2) * 4 : (units + 1) * 8;
    }
    bytes[next] = PROTOCOLS[random.below(PROTOCOLS.length)]!;
    this.#noise(at, at + 24);
    at += random.below(64);
    this.#word(ip + 4, this.#perhaps(at - ip - 40));
    return at;
  }
}
