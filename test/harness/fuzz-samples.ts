/** Valid frames that the fuzz begins with: one of each kind and size, connections that begin, and flows of which frames are joined. */
import { counting, type Sample, sampleFrames } from '../reference/frames.js';
import { ACK, ECE, frameOf, PSH, SEGMENT, type Segment, SYN } from './segments.js';

/** Kind, length and value of the option (RFC 9293 section 3.7.1), on an even place and on an odd one. */
const MSS = Uint8Array.of(2, 4, 0x05, 0xb4);
const ODD_MSS = Uint8Array.of(1, 2, 4, 0x23, 0x28, 1, 1, 0);
const STREAM_FRAMES = 64;
const PAYLOAD_BYTES = 64;

/** A SYN is as usual as anything else here. */
export function fuzzSamples(): Sample[] {
  const begun: Partial<Segment>[] = [
    { tcpOptions: MSS },
    { tcpOptions: ODD_MSS },
    { tcpOptions: MSS, tags: [{ type: 0x8100, control: 5 }] },
    { tcpOptions: MSS, family: 6 },
    { tcpOptions: ODD_MSS, family: 6 },
    // Senders that can be told of congestion, and that have been.
    { tcpOptions: MSS, tos: 0xba },
    { tcpOptions: MSS, family: 6, tos: 0x29 },
    { tcpOptions: MSS, tos: 3 },
  ];
  const syns = begun.map((own, index) => ({
    name: `syn ${index}`,
    frame: frameOf({ ...SEGMENT, payload: new Uint8Array(0), flags: SYN, ...own }),
  }));
  return [...sampleFrames(20), ...sampleFrames(700), ...sampleFrames(1500), ...syns];
}

/** Flows, each of frames that follow one another. */
export function fuzzStreams(): Uint8Array[][] {
  const kinds: Partial<Segment>[] = [
    {},
    { tos: 2 },
    { flags: ACK | ECE },
    { family: 6 },
    { tags: [{ type: 0x8100, control: 5 }] },
    { isTcp: false },
    { isTcp: false, family: 6 },
  ];
  return kinds.map((kind) =>
    Array.from({ length: STREAM_FRAMES }, (_, index) => {
      const sequence = SEGMENT.sequence + index * PAYLOAD_BYTES;
      const isLast = index % 16 === 15;
      const flags = (kind.flags ?? ACK) | (isLast ? PSH : 0);
      const payload = counting(isLast ? PAYLOAD_BYTES - 3 : PAYLOAD_BYTES);
      const frame = frameOf({ ...SEGMENT, ...kind, id: SEGMENT.id + index, sequence, payload, flags });
      // That of a target which is there.
      frame.set([2, 0, 0, 0, 0, 0], 6);
      return frame;
    }),
  );
}
