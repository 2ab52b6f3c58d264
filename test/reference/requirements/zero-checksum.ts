/** RFC 6935 and 6936: UDP over IPv6 without checksums. */
import { ELSEWHERE, ON_THE_WAY, type Rfc } from './rfc.js';

const NO_KEEPALIVE =
  'VXLAN, Geneve and NVGRE have no control messages and no feedback, so that there are none to send either way.';
const LOGGED_BY_THE_KERNEL =
  'It is the kernel that drops it: counted in Udp6InCsumErrors of /proc/net/snmp6, and logged where its dynamic debugging is on.';

export const rfc6935: Rfc = {
  number: 6935,
  keywords: { '1': [1, 0], '5': [7, 1] },
  requirements: [
    {
      level: 'MUST',
      sections: { '1': 1, '5': 1 },
      rule: 'by default datagrams without a checksum are dropped',
      tests: [['udp-checksum', 'none on the port where it is turned on']],
    },
    {
      level: 'SHOULD',
      sections: { '5': 1 },
      rule: 'that is logged',
      exception: LOGGED_BY_THE_KERNEL,
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'by default datagrams are sent with a checksum',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range']],
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'a checksum that comes out as zero is sent as 0xffff',
      exception: 'The kernel and the network card make all outer checksums; there is no code here for any.',
    },
    {
      level: 'MUST',
      sections: { '5': 3 },
      rule: 'whoever leaves checksums out follows RFC 6936, of nodes and of protocols',
      exception: ELSEWHERE,
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'devices on the way follow RFC 6936',
      exception: ON_THE_WAY,
    },
  ],
};

export const rfc6936: Rfc = {
  number: 6936,
  keywords: { '4': [9, 3], '5': [6, 4] },
  requirements: [
    {
      level: 'MUST',
      sections: { '4': 1 },
      rule: 'nodes follow what section 4 has below',
      exception: ELSEWHERE,
    },
    {
      level: 'SHOULD',
      sections: { '4': 1 },
      rule: 'by default nothing is sent without a checksum (2)',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range']],
    },
    {
      level: 'MUST',
      sections: { '4': 1 },
      rule: 'a program says for which ports datagrams are sent without (3)',
      tests: [['sockets', 'IPv6 without checksums: sent where told']],
    },
    {
      level: 'MUST',
      sections: { '4': 1 },
      rule: 'a program can have one datagram sent with a checksum at any time (4)',
      exception:
        'The kernel has that, by a socket without UDP_NO_CHECK6_TX. Nothing here sends a datagram that is not an encapsulated frame.',
    },
    {
      level: 'MUST',
      sections: { '4': 1 },
      rule: 'by default what comes without is dropped (5)',
      tests: [['udp-checksum', 'none on the port where it is turned on']],
    },
    {
      level: 'MUST',
      sections: { '4': 1 },
      rule: 'a program says on which ports it is taken (6)',
      tests: [['udp-checksum', 'none on the port where it is turned on']],
    },
    {
      level: 'MUST',
      sections: { '4': 2 },
      rule: 'on those ports a checksum is taken as well, and verified (7)',
      tests: [['udp-checksum', 'none on the port where it is turned on']],
    },
    {
      level: 'SHOULD',
      sections: { '4': 1 },
      rule: 'what comes without on another port is logged (8)',
      exception: LOGGED_BY_THE_KERNEL,
    },
    {
      level: 'MUST NOT',
      sections: { '4': 1 },
      rule: 'it is logged on a port where it is allowed (8)',
      exception: 'Neither the kernel nor anything here writes a line for a datagram that is taken.',
    },
    {
      level: 'SHOULD NOT',
      sections: { '4': 1 },
      rule: 'datagrams that are dropped for it are in the standard log (9)',
      exception: 'The kernel counts them, and writes of them only where its dynamic debugging is on.',
    },
    {
      level: 'MUST',
      sections: { '4': 1 },
      rule: 'what ICMPv6 says is acted upon only where addresses and ports are those of what was sent (10)',
      tests: [['send-errors', 'not below the floor, not of others']],
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'it is for the ports of the tunnel alone, turned on at both ends (1)',
      tests: [
        ['udp-checksum', 'none on the port where it is turned on'],
        ['sockets', 'IPv6 without checksums: sent where told'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '5': 1 },
      rule: 'what is inside has a check of its own (2)',
      exception:
        'It has what guests put there: TCP, UDP and ICMP have checksums, and nothing is added to them.',
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'where many more packets are damaged, the tunnel has a check of its own (3)',
      exception:
        'None of the three formats has one: leave zerocsum6_tx off where packets are damaged. It is off by default.',
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'damaged headers do not leave behind more and more that is wrong (4)',
      tests: [
        ['learn', 'a flood of made-up addresses: the table stays within the limit'],
        ['learn', 'an address is learned, moves, and is forgotten'],
        ['udp-checksum', 'of the VTEPs that are known alone'],
      ],
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'what is not IP has a CRC of its own (5)',
      exception:
        'Ethernet’s is not carried, by none of the three formats, so that ARP and the like have none: a reason to leave zerocsum6_tx off, as it is by default.',
    },
    {
      level: 'SHOULD',
      sections: { '5': 3 },
      rule: 'a protocol with feedback bears a path that changes, and sends keepalives with and without a checksum (6, 7)',
      exception: NO_KEEPALIVE,
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'datagrams with a checksum and without pass on one port (8)',
      exception: ON_THE_WAY,
    },
    {
      level: 'MUST NOT',
      sections: { '5': 1 },
      rule: 'flows are told apart by whether there is a checksum (10)',
      exception: ON_THE_WAY,
    },
    {
      level: 'IS',
      sections: { '5': 0 },
      rule: 'the source address of what comes without a checksum is checked',
      tests: [['udp-checksum', 'of the VTEPs that are known alone']],
    },
  ],
};
