/** RFC 7348: VXLAN. */
import type { Rfc } from './rfc.js';

export const rfc7348: Rfc = {
  number: 7348,
  keywords: { '4.3': [1, 1], '5': [7, 4], '6': [0, 1], '6.1': [0, 3] },
  requirements: [
    {
      level: 'IS',
      sections: { '4.1': 0 },
      rule: 'where an inner address is, is learned from the outer source address',
      tests: [['learn', 'a device floods what is unknown, once to each']],
    },
    {
      level: 'IS',
      sections: { '4.2': 0 },
      rule: 'broadcast, unknown and multicast frames go to the group of the VNI, which is joined',
      tests: [['learn-hosts', 'joined, and each frame once with 4 workers']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.3': 1 },
      rule: 'VXLAN packets are fragmented by whoever sends them',
      tests: [
        ['sockets', 'no fragments, a right checksum, from a port of the range'],
        ['mtu', 'with four bytes more the kernel refuses it once'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '4.3': 1 },
      rule: 'the MTU of the underlay has room for the outer headers',
      tests: [['mtu', 'a set MTU stays, says so when it does not fit']],
      exception:
        'It is the operator who sets that one; a device takes what there is room for, and says what lacks.',
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'the I flag is set; without it a VNI is not valid',
      tests: [
        ['vxlan', 'golden packets, byte for byte'],
        ['vxlan', 'reserved bits are ignored on receive and zero on send'],
      ],
    },
    {
      level: 'MUST',
      sections: { '5': 2 },
      rule: 'the other flags and the two reserved fields are zero when sent and ignored when received',
      tests: [
        ['vxlan', 'reserved bits are ignored on receive and zero on send'],
        ['reserved', 'each alone, ignored and dropped'],
      ],
    },
    {
      level: 'IS',
      sections: { '5': 0 },
      rule: 'guests of different VNIs do not hear each other',
      tests: [
        ['vxlan', 'encap then decap gives the same frame back'],
        ['vxlan', 'unknown vnetid, stopped device'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '5': 2 },
      rule: 'the destination port is 4789 by default, and can be set',
      tests: [
        ['cli', 'the commands, their tables and documents'],
        ['sockets', 'no fragments, a right checksum, from a port of the range'],
        ['udp-checksum', 'over IPv4: none or a right one'],
      ],
    },
    {
      level: 'IS',
      sections: { '5': 0 },
      rule: 'the source port is by a hash of the inner headers',
      tests: [
        ['vxlan', '10,000 flows spread over 16 sockets'],
        ['vxlan', 'frames of a flow keep to one socket'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '5': 1 },
      rule: 'source ports are of 49152 to 65535',
      tests: [['sockets', 'source ports: in the range']],
    },
    {
      level: 'SHOULD',
      sections: { '5': 1 },
      rule: 'the UDP checksum is sent as zero',
      exception:
        'It is sent, and right, which the same section allows: outer headers that were damaged are found, and the kernel offloads it.',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range']],
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'a datagram without a UDP checksum is taken',
      tests: [
        ['udp-checksum', 'over IPv4: none or a right one'],
        ['udp-checksum', 'none on the port where it is turned on'],
      ],
      exception:
        'Over IPv6 only where zerocsum6_rx says so: RFC 6935 and 6936, which came later, have it so.',
    },
    {
      level: 'MUST',
      sections: { '5': 1 },
      rule: 'a UDP checksum that is sent is right, over all of the packet',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range']],
    },
    {
      level: 'MUST',
      sections: { '5': 2 },
      rule: 'where UDP checksums are verified, a wrong one drops the packet, and it is taken otherwise',
      tests: [
        ['udp-checksum', 'over IPv4: none or a right one'],
        ['udp-checksum', 'none on the port where it is turned on'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '6': 1, '6.1': 1 },
      rule: 'received frames with an inner VLAN tag are dropped, unless that is configured',
      exception:
        'They are taken, as by illumos: an overlay device is a link, and VLANs on it are the guests’.',
      tests: [['vxlan', 'the VLAN rule in plain numbers']],
    },
    {
      level: 'SHOULD NOT',
      sections: { '6.1': 2 },
      rule: 'an inner VLAN tag is sent, unless that is configured; it is taken off',
      exception:
        'It is sent, as by illumos and Linux: without it the frame would be in another VLAN of the guests’.',
      tests: [['vxlan', 'the VLAN rule in plain numbers']],
    },
  ],
};
