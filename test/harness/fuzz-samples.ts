/** Valid frames that the fuzz begins with: one of each kind and size, connections that begin, and flows of which frames are joined. */
import { ipNativeBytes } from '../../src/ip.js';
import * as frames from '../reference/frames.js';
import { counting, type Sample, sampleFrames } from '../reference/frames.js';
import { ACK, ECE, frameOf, PSH, SEGMENT, type Segment, SYN } from './segments.js';

/** Kind, length and value of the option (RFC 9293 section 3.7.1), on an even place and on an odd one. */
const MSS = Uint8Array.of(2, 4, 0x05, 0xb4);
const ODD_MSS = Uint8Array.of(1, 2, 4, 0x23, 0x28, 1, 1, 0);
const STREAM_FRAMES = 64;
const PAYLOAD_BYTES = 64;

/** Where the mux of the fuzz listens. */
export const OWN_PREFIXES: readonly string[] = ['192.0.2.1/32', 'fd00::1/128', '127.0.0.0/8', 'fd00:1::/64'];

/** Packets to it: its own, and its neighbours'. */
function ownSamples(): Sample[] {
  return ['192.0.2.1', '127.1.2.3', '192.0.2.2', 'fd00::1', 'fd00:1::7', 'fd00::2'].flatMap((to) => {
    const destination = ipNativeBytes(to);
    const is4 = destination.length === 4;
    const ends = { source: (is4 ? frames.ENDS_4 : frames.ENDS_6).source, destination };
    const payload = frames.udp({ ends, destinationPort: 4789, payload: counting(40) });
    const extensions = [frames.optionsHeader(0), frames.fragmentHeader(0, true)];
    return [17, 47].flatMap((protocol) => {
      const packets = is4
        ? [
            frames.ipv4({ ends, protocol, payload }),
            frames.ipv4({ ends, protocol, payload, options: Uint8Array.of(131, 3, 4, 0) }),
          ]
        : [frames.ipv6({ ends, protocol, payload }), frames.ipv6({ ends, protocol, payload, extensions })];
      const type = is4 ? frames.ETHERTYPE_IPV4 : frames.ETHERTYPE_IPV6;
      return packets.flatMap((packet, index) => [
        { name: `own ${to} ${protocol} ${index}`, frame: frames.ethernet(type, packet) },
        {
          name: `tagged own ${to} ${protocol} ${index}`,
          frame: frames.ethernet(type, packet, { tags: frames.VLAN_STACK }),
        },
      ]);
    });
  });
}

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
  return [...sampleFrames(20), ...sampleFrames(700), ...sampleFrames(1500), ...syns, ...ownSamples()];
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
