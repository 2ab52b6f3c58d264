/** RFC 7637: NVGRE; RFC 2784 and 2890: the GRE that it is made of. */
import { ON_THE_WAY, type Rfc } from './rfc.js';

export const rfc7637: Rfc = {
  number: 7637,
  keywords: {
    '3.2': [4, 1],
    '3.3': [3, 0],
    '3.4': [0, 2],
    '4.1': [0, 1],
    '4.4': [1, 1],
    '4.8': [0, 1],
    '4.9': [0, 1],
  },
  requirements: [
    {
      level: 'MUST',
      sections: { '3.2': 2 },
      rule: 'the checksum and sequence number bits are zero, and the key bit is one',
      tests: [
        ['nvgre', 'the ways of GRE that it is not'],
        ['oracles', 'of our frames as tshark reads them'],
      ],
    },
    {
      level: 'IS',
      sections: { '3.2': 0 },
      rule: 'the protocol is transparent Ethernet bridging, 0x6558',
      tests: [
        ['nvgre', 'every value of every byte of the header'],
        ['oracles', 'of our frames as tshark reads them'],
      ],
    },
    {
      level: 'MUST NOT',
      sections: { '3.2': 1 },
      rule: 'the FlowID is changed on the way',
      exception: ON_THE_WAY,
    },
    {
      level: 'SHOULD',
      sections: { '3.2': 1 },
      rule: 'the FlowID tells flows apart as well as it can, and is the same for all of a flow',
      tests: [['nvgre', 'FlowID: one a flow']],
    },
    {
      level: 'MUST',
      sections: { '3.2': 1 },
      rule: 'a FlowID that is not made is zero',
      exception: 'There is always one: it is a part of the hash by which a frame has its worker and socket.',
      tests: [['nvgre', 'FlowID: one a flow']],
    },
    {
      level: 'MUST NOT',
      sections: { '3.3': 1 },
      rule: 'the inner frame has an 802.1Q tag',
      tests: [['nvgre', 'frames with a VLAN tag are carried neither way']],
    },
    {
      level: 'MUST',
      sections: { '3.3': 1 },
      rule: 'a tag is taken off before a frame is sent',
      exception:
        'The frame is dropped by name instead, `tx_vlan_not_carried`: without the tag it would be in another VLAN of the guests’.',
      tests: [['nvgre', 'frames with a VLAN tag are carried neither way']],
    },
    {
      level: 'MUST',
      sections: { '3.3': 1 },
      rule: 'a received frame with a tag is dropped',
      tests: [['nvgre', 'frames with a VLAN tag are carried neither way']],
    },
    {
      level: 'IS',
      sections: { '3.4': 0 },
      rule: 'VSIDs 0 to 0xfff are not used',
      tests: [['nvgre', 'reserved vnetids are refused']],
    },
    {
      level: 'SHOULD',
      sections: { '3.4': 2 },
      rule: 'VSID 0xffffff is sent only to an endpoint of a vendor that was verified, by a way of the implementation’s own',
      exception: 'It is refused as the vnetid of a device, so that nothing is ever sent with it.',
      tests: [['nvgre', 'reserved vnetids are refused']],
    },
    {
      level: 'SHOULD',
      sections: { '4.1': 1 },
      rule: 'paths are chosen by the outer addresses and the whole key, or by the inner headers',
      exception: `${ON_THE_WAY} What they are to choose by, it sends; its own workers are chosen so.`,
      tests: [['nvgre-hosts', 'ping, TCP and UDP both ways, each datagram by one of']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.4': 1 },
      rule: 'NVGRE packets are fragmented by whoever sends them',
      tests: [['nvgre-hosts', 'on the wire key, TTL, DSCP, DF']],
    },
    {
      level: 'SHOULD',
      sections: { '4.4': 1 },
      rule: 'the MTU of the underlay has room for the outer headers',
      tests: [['mtu', 'the overhead of each encapsulation']],
      exception:
        'It is the operator who sets that one; a device takes what there is room for, and says what lacks.',
    },
    {
      level: 'SHOULD',
      sections: { '4.8': 1 },
      rule: 'policy and mappings come by a mechanism that is up to the number of endpoints',
      tests: [['nvgre-hosts', 'looked up by files: destinations without a port']],
    },
    {
      level: 'SHOULD',
      sections: { '4.9': 1 },
      rule: 'what guests leave to their network card is done by the endpoint, with the outer headers',
      tests: [['nvgre', 'super-frames: each segment has the header']],
    },
  ],
};

export const rfc2784: Rfc = {
  number: 2784,
  keywords: {
    '2.2': [1, 0],
    '2.3': [3, 0],
    '2.3.1': [1, 0],
    '2.4': [0, 1],
    '2.6': [1, 0],
    '3': [1, 0],
    '3.1': [3, 0],
    '5.2': [1, 0],
  },
  requirements: [
    {
      level: 'MUST',
      sections: { '2.2': 1, '2.6': 1 },
      rule: 'a checksum is taken and verified; the field behind it is sent as zero',
      exception: 'NVGRE has no checksum (RFC 7637 section 3.2); what comes with one is dropped.',
      tests: [['nvgre', 'the ways of GRE that it is not']],
    },
    {
      level: 'MUST',
      sections: { '2.3': 1, '5.2': 1 },
      rule: 'a packet with one of bits 1 to 5 that is not zero is dropped, but for the key of RFC 2890',
      tests: [['nvgre', 'the ways of GRE that it is not']],
    },
    {
      level: 'MUST',
      sections: { '2.3': 2 },
      rule: 'bits 6 to 12 are sent as zero and ignored when received',
      tests: [
        ['reserved', 'each alone, ignored and dropped'],
        ['oracles', 'of our frames as tshark reads them'],
      ],
    },
    {
      level: 'MUST',
      sections: { '2.3.1': 1 },
      rule: 'the version is 0',
      tests: [
        ['nvgre', 'the ways of GRE that it is not'],
        ['oracles', 'of our frames as tshark reads them'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '2.4': 1 },
      rule: 'a protocol that is not known is dropped',
      tests: [['nvgre', 'every value of every byte of the header']],
    },
    {
      level: 'MUST',
      sections: { '3': 1, '3.1': 3 },
      rule: 'a payload of IPv4 has its protocol number, is forwarded by its destination, and has its TTL lowered',
      exception: 'The payload is Ethernet alone; IPv4 is dropped as every other protocol, `rx_not_ethernet`.',
      tests: [['nvgre', 'every value of every byte of the header']],
    },
  ],
};

export const rfc2890: Rfc = {
  number: 2890,
  keywords: { '1.1': [0, 2], '2.2': [2, 1], '3': [2, 0] },
  requirements: [
    {
      level: 'SHOULD',
      sections: { '1.1': 1 },
      rule: 'what is dropped is counted',
      tests: [['vxlan', 'drops are counted where they belong']],
    },
    {
      level: 'SHOULD',
      sections: { '1.1': 1 },
      rule: 'what is dropped can be logged, with what was in it',
      exception:
        'It is counted by name alone: a log of packets that anybody can send is a way to fill a disk; tcpdump shows them.',
    },
    {
      level: 'MUST',
      sections: { '2.2': 2 },
      rule: 'sequence numbers put packets in order, and what waits for others does not wait for long',
      exception: 'NVGRE has no sequence numbers (RFC 7637 section 3.2); what comes with one is dropped.',
      tests: [['nvgre', 'the ways of GRE that it is not']],
    },
    {
      level: 'SHOULD',
      sections: { '2.2': 1 },
      rule: 'a packet that comes late is dropped',
      exception: 'NVGRE has no sequence numbers (RFC 7637 section 3.2); what comes with one is dropped.',
      tests: [['nvgre', 'the ways of GRE that it is not']],
    },
    {
      level: 'MUST',
      sections: { '3': 2 },
      rule: 'IPsec protects the header and what is inside, against whoever would reorder packets',
      exception:
        'It is of sequence numbers, which there are none; IPsec is the host’s, and below the sockets.',
    },
  ],
};
