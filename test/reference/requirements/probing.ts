/** RFC 8899: path MTU probing of datagrams (`path_mtu_probe`). */
import type { Rfc } from './rfc.js';

const OF_SCTP = 'It is of SCTP, over IP, UDP or DTLS, and there is none in the outer headers.';
const QUOTED = 'It quotes what another RFC asks of another protocol, to say what there was before.';

export const rfc8899: Rfc = {
  number: 8899,
  keywords: {
    '1.3': [1, 1],
    '2': [2, 0],
    '3': [13, 12],
    '4.1': [2, 0],
    '4.3': [1, 0],
    '4.4': [0, 1],
    '4.5': [1, 0],
    '4.6.1': [3, 1],
    '4.6.2': [1, 1],
    '5': [1, 1],
    '5.1.1': [2, 1],
    '5.1.2': [0, 1],
    '5.2': [0, 1],
    '5.3.2': [0, 1],
    '6.1': [0, 1],
    '6.1.1': [0, 1],
    '6.1.4': [0, 1],
    '6.1.5': [0, 1],
    '6.1.6': [2, 0],
    '6.2': [0, 2],
    '6.2.1.3': [1, 0],
    '6.2.1.4': [1, 1],
    '6.2.2': [0, 1],
    '6.2.2.4': [1, 1],
    '6.2.3.3': [1, 0],
    '8': [2, 2],
  },
  requirements: [
    // ─── What others ask for, or are asked for ────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '1.3': 1 },
      rule: 'DCCP keeps the largest packet of each session',
      exception: QUOTED,
    },
    {
      level: 'SHOULD',
      sections: { '1.3': 1 },
      rule: 'programs use the path MTU that IP has, or find it out (RFC 8085)',
      tests: [
        ['path-mtu', 'a stream of each family goes on'],
        ['path-probe', 'a black hole of either family'],
      ],
    },
    {
      level: 'MUST',
      sections: { '2': 2 },
      rule: 'links drop what is longer than their MTU',
      exception:
        'It is of links, and continues RFC 4821: nothing here lets a packet through or stops it on its way.',
    },
    {
      level: 'MUST NOT',
      sections: { '6.2.1.3': 1, '6.2.3.3': 1 },
      rule: 'SCTP confirms a path by a timer',
      exception: OF_SCTP,
    },
    {
      level: 'MUST',
      sections: { '6.2.1.4': 1, '6.2.2.4': 1 },
      rule: 'SCTP verifies ICMP messages by its own rules',
      exception: OF_SCTP,
    },
    {
      level: 'SHOULD',
      sections: { '6.2': 2, '6.2.1.4': 1, '6.2.2': 1, '6.2.2.4': 1 },
      rule: 'SCTP probes by padded heartbeats, and uses what messages say that are verified',
      exception: OF_SCTP,
    },
    // ─── Size of what is sent ─────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST NOT',
      sections: { '3': 1 },
      rule: 'anything but a probe is larger than what is known to pass',
      exception:
        'Guests send what the underlay’s link takes until less is known: to hold all traffic at 1200 bytes first would cost every healthy path.',
      tests: [['path-search', 'whatever is found on the way there arrives']],
    },
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'the interface below sends a probe that is larger than that',
      tests: [['path-probe', 'a black hole of either family']],
    },
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'over IPv4 a probe has DF, and is not fragmented where it is sent',
      tests: [['path-probe', 'probes on the wire']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'the MTU of the own link bounds the search',
      tests: [['path-search', 'what this host’s own link does not take']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1, '4.4': 1 },
      rule: 'whoever is above is told the largest packet that passes',
      tests: [['path-probe', 'a black hole of either family']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'while the search goes on nobody is held to a size that is needlessly small',
      tests: [['path-search', 'a path that takes all there is: two probes']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'all sessions that share a path make use of a new size',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'MUST',
      sections: { '4.5': 1 },
      rule: 'for a path that is probed the kernel’s own idea of its MTU does not count',
      tests: [['send-errors', 'spoofed ICMP over IPv']],
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'all headers are taken off the size that is told',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'SHOULD',
      sections: { '5': 1, '6.1': 1 },
      rule: 'one layer between two endpoints probes, and not that above one that does',
      exception:
        'Guests may probe for themselves (RFC 4821): that is theirs to say, and path_mtu_probe is off by default.',
    },
    {
      level: 'SHOULD',
      sections: { '5.1.2': 1 },
      rule: 'the size that is sure to pass over IPv4 is 1200 bytes by default',
      tests: [['path-search', 'a path that takes all there is: two probes']],
    },
    {
      level: 'SHOULD',
      sections: { '5.3.2': 1 },
      rule: 'sizes of probes are such that each gains as much as it can',
      tests: [['path-search', 'whatever is found on the way there arrives']],
    },
    // ─── Probes and their answers ─────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'the far end says that it has received a probe',
      tests: [['path-probe', 'a black hole of either family']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'probes carry nothing that would have to be sent again',
      tests: [['path-probe', 'probes on the wire']],
    },
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'what is in a lost probe and needed is sent again',
      exception: 'Nothing is: a probe is an echo request that carries a number and padding.',
    },
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'a probe that is lost for another reason than its size does no harm',
      tests: [['path-search', 'losses at random']],
    },
    {
      level: 'MUST',
      sections: { '3': 3 },
      rule: 'however networks forward, whatever comes late, twice, out of order or by several paths, it does no harm',
      tests: [
        ['path-search', 'losses at random'],
        ['path-probe', 'late, twice and forged'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '3': 2 },
      rule: 'a path that has changed is noticed, and does no harm',
      tests: [['path-search', 'a path falls']],
    },
    {
      level: 'MUST',
      sections: { '4.1': 1 },
      rule: 'the receiver tells padding from what is padded',
      exception:
        'An echo request comes back as it is (RFC 792, RFC 4443 section 4.2): nobody reads what is in it.',
    },
    {
      level: 'MUST',
      sections: { '4.1': 1 },
      rule: 'a probe is told from all others for as long as any of them may be on its way',
      tests: [['path-probe', 'late, twice and forged']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.3': 1 },
      rule: 'messages of ICMP are the only way to notice that packets are lost for their size',
      tests: [['path-probe', 'a black hole of either family']],
    },
    {
      level: 'SHOULD',
      sections: { '6.1.1': 1 },
      rule: 'an answer has a value that strangers do not know, and that is checked',
      tests: [['path-probe', 'late, twice and forged']],
    },
    {
      level: 'SHOULD',
      sections: { '6.1.4': 1 },
      rule: 'that the peer is there is found out by probes, where nothing else says so',
      tests: [
        ['path-search', 'a host that answers nothing says nothing'],
        ['path-probe', 'and one that leads nowhere'],
      ],
    },
    // ─── Time and load ────────────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '3': 1, '8': 1 },
      rule: 'between two probes is a round trip at least',
      tests: [['path-search', 'no more than one probe is open']],
    },
    {
      level: 'SHOULD NOT',
      sections: { '3': 3 },
      rule: 'a lost probe is congestion, or flow control holds probes up',
      tests: [['path-search', 'losses at random']],
    },
    {
      level: 'MUST NOT',
      sections: { '3': 1 },
      rule: 'a new size makes a congestion window larger in bytes',
      exception:
        'The congestion control is the guests’, whose packets say nothing of it here; probes are few, and limited in rate.',
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'a congestion window in packets follows their size',
      exception:
        'The congestion control is the guests’, whose packets say nothing of it here; probes are few, and limited in rate.',
    },
    {
      level: 'MUST NOT',
      sections: { '5.1.1': 1 },
      rule: 'a probe is given up before a second has passed',
      tests: [['path-search', 'no more than one probe is open']],
    },
    {
      level: 'SHOULD',
      sections: { '5.1.1': 1 },
      rule: 'a probe is given up after 15 seconds and not before',
      exception:
        'After one second, three times: no underlay of a data centre takes longer, and a black hole would go on for three quarters of a minute.',
    },
    {
      level: 'MUST NOT',
      sections: { '5.1.1': 1 },
      rule: 'what is acknowledged anyway is confirmed by a timer',
      exception:
        'It is of transports that acknowledge; no encapsulation here does, so that paths are confirmed by probes.',
    },
    {
      level: 'SHOULD NOT',
      sections: { '5.2': 1 },
      rule: 'what is acknowledged anyway is probed on when the search is over',
      exception:
        'It is of transports that acknowledge; no encapsulation here does, so that paths are confirmed by probes.',
    },
    {
      level: 'SHOULD',
      sections: { '6.1.5': 1 },
      rule: 'a path is confirmed by a probe from time to time, where nothing else does that',
      tests: [
        ['path-search', 'a path that takes all there is: two probes'],
        ['path-search', 'a path falls'],
      ],
    },
    // ─── ICMP ─────────────────────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '3': 1, '4.6.1': 2, '6.1.6': 1, '8': 1 },
      rule: 'a message counts only where what it quotes was sent from here',
      tests: [['send-errors', 'spoofed ICMP over IPv']],
    },
    {
      level: 'SHOULD',
      sections: { '4.6.1': 1 },
      rule: 'that is found out by what strangers cannot easily know',
      exception:
        'By the source port of a send socket, one of a few: what ICMP quotes has no more that is random (RFC 8899 section 4.6.1 leaves it at ports too).',
      tests: [['send-errors', 'spoofed ICMP over IPv']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.6.1': 1 },
      rule: 'a message that fails that is used for anything',
      tests: [['send-errors', 'spoofed ICMP over IPv']],
    },
    {
      level: 'MUST NOT',
      sections: { '3': 1 },
      rule: 'a message makes the size larger',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'a message of a size above that of the probe is ignored',
      tests: [['path-search', 'a router’s word is tried first']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.6.2': 1, '6.1.6': 1 },
      rule: 'a message alone sets the size',
      exception:
        'While nothing has been found it lowers it at once, as RFC 1191 and 8201 have it, until probes have answered; what was found is looked at first.',
      tests: [['send-errors', 'spoofed ICMP over IPv']],
    },
    {
      level: 'SHOULD',
      sections: { '4.6.2': 1 },
      rule: 'a message of a size below what was known to pass brings back the size that is sure to pass',
      exception:
        'What the message says is in force as soon as one probe of what was known is lost, and not 1200 bytes: it is mostly right, and is looked at next.',
      tests: [['path-search', 'a router’s word is tried first']],
    },
    {
      level: 'SHOULD',
      sections: { '8': 1 },
      rule: 'to look at messages is bounded work, whatever headers they quote',
      tests: [['send-errors', 'a stream on sockets that others’ errors come in on']],
    },
    {
      level: 'SHOULD',
      sections: { '8': 1 },
      rule: 'what is said of a path and changes all the time does no harm',
      tests: [['send-errors', 'spoofed ICMP over IPv']],
    },
  ],
};
