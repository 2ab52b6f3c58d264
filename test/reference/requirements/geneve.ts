/** RFC 8926: Geneve. */
import { ELSEWHERE, ON_THE_WAY, type Rfc } from './rfc.js';

const OF_OPERATORS = 'It asks for it of the operator.';

export const rfc8926: Rfc = {
  number: 8926,
  keywords: {
    '2.2.1': [3, 0],
    '3.3': [5, 5],
    '3.4': [12, 1],
    '3.5': [6, 0],
    '3.5.1': [6, 0],
    '4.2': [1, 0],
    '4.3': [1, 2],
    '4.3.1': [4, 3],
    '4.4.1': [1, 1],
    '4.4.2': [1, 1],
    '4.6': [3, 0],
    '6.1': [0, 1],
    '6.1.1': [0, 1],
    '6.2': [2, 2],
    '6.3': [0, 1],
    '6.4': [2, 0],
  },
  requirements: [
    // ─── Devices on the way ───────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST NOT',
      sections: { '2.2.1': 2, '3.5.1': 1 },
      rule: 'headers are changed on the way, or options put in, taken out or put in another order',
      exception: ON_THE_WAY,
    },
    {
      level: 'MUST',
      sections: { '3.4': 2, '3.5.1': 1, '6.4': 1 },
      rule: 'packets of Geneve are forwarded as any others, whatever their version and the length of their options',
      exception: ON_THE_WAY,
    },
    {
      level: 'MUST NOT',
      sections: { '3.4': 3, '3.5': 1, '3.5.1': 1 },
      rule: 'control messages are read on the way, or critical and unknown options a reason to drop or to choose a path',
      exception: ON_THE_WAY,
    },
    {
      level: 'MUST',
      sections: { '6.4': 1 },
      rule: 'devices that read options on the way are trusted',
      exception: `${OF_OPERATORS} ${ON_THE_WAY}`,
    },
    // ─── UDP ──────────────────────────────────────────────────────────────────────────────────────────────
    {
      level: 'SHOULD',
      sections: { '3.3': 2 },
      rule: 'the source port is one for all of a flow, by a hash of the inner headers',
      tests: [
        ['vxlan', 'frames of a flow keep to one socket'],
        ['vxlan', '10,000 flows spread over 16 sockets'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '3.3': 1 },
      rule: 'ICMP of what was sent comes to whoever sent it',
      tests: [['send-errors', 'not below the floor, not of others']],
    },
    {
      level: 'SHOULD',
      sections: { '3.3': 1 },
      rule: 'the destination port is 6081 by default, and can be set',
      tests: [['geneve', 'a device: its port, both ways']],
    },
    {
      level: 'MUST NOT',
      sections: { '3.3': 1 },
      rule: 'the ports are exchanged for the way back',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range to the port both ways']],
    },
    {
      level: 'SHOULD',
      sections: { '3.3': 1, '4.3': 1 },
      rule: 'over IPv4 the UDP checksum is sent',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range']],
    },
    {
      level: 'MUST',
      sections: { '3.3': 1, '4.3': 1, '4.3.1': 2 },
      rule: 'over IPv6 the UDP checksum is sent by default',
      tests: [
        ['sockets', 'no fragments, a right checksum, from a port of the range'],
        ['sockets', 'IPv6 without checksums: sent where told'],
      ],
    },
    {
      level: 'MUST',
      sections: { '3.3': 3 },
      rule: 'a UDP checksum that is there is verified; a wrong one drops the packet, a right one is taken',
      tests: [
        ['udp-checksum', 'over IPv4: none or a right one'],
        ['udp-checksum', 'none on the port where it is turned on'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.3.1': 2 },
      rule: 'without checksums over IPv6 what follows in the section holds, and RFC 6936',
      exception: ELSEWHERE,
    },
    {
      level: 'SHOULD',
      sections: { '4.3.1': 1 },
      rule: 'without checksums the addresses are checked, and packets of others dropped',
      tests: [['udp-checksum', 'of the VTEPs that are known alone']],
    },
    {
      level: 'SHOULD',
      sections: { '4.3.1': 1 },
      rule: 'without checksums a source address is that of as few tunnels as can be',
      exception: `${OF_OPERATORS} geneve/listen_ip of a device is its source address.`,
    },
    {
      level: 'SHOULD',
      sections: { '4.3.1': 1 },
      rule: 'packets without checksums do not get out into the Internet',
      exception: `${OF_OPERATORS} geneve/device, geneve/ttl and geneve/mark are for that, and a filter at the edge.`,
    },
    // ─── Header ───────────────────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '3.4': 1 },
      rule: 'another version than 0 is dropped',
      tests: [['geneve', 'every value of every byte of a header with options']],
    },
    {
      level: 'MUST NOT',
      sections: { '3.4': 1 },
      rule: 'what a control packet carries is forwarded',
      tests: [['geneve', 'what is not for guests']],
    },
    {
      level: 'SHOULD',
      sections: { '3.4': 1 },
      rule: 'control packets go to a queue of their own, before others',
      exception:
        'There is no control protocol of Geneve here; they are dropped by name, `rx_control_packet`.',
      tests: [['geneve', 'what is not for guests']],
    },
    {
      level: 'MUST',
      sections: { '3.4': 1 },
      rule: 'where the C bit is set the options are looked at',
      tests: [['geneve', 'every length of a datagram with a whole chain of options']],
    },
    {
      level: 'MUST',
      sections: { '3.4': 1 },
      rule: 'an endpoint that knows no options drops what has the C bit',
      exception: 'It knows their form: they are looked at one by one, whatever the C bit says.',
      tests: [['geneve', 'every value of every byte of a header with options']],
    },
    {
      level: 'MUST',
      sections: { '3.4': 3, '3.5': 2 },
      rule: 'reserved bits, of the header and of options, are zero when sent and ignored when received',
      tests: [
        ['reserved', 'each alone, ignored and dropped'],
        ['geneve', 'a device: its port, both ways'],
        ['geneve', 'a device with options: sent with every frame'],
      ],
    },
    // ─── Options ──────────────────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '2.2.1': 1 },
      rule: 'options are made and taken off by endpoints',
      tests: [
        ['geneve', 'a device with options: sent with every frame'],
        ['geneve', 'a device: its port, both ways'],
      ],
    },
    {
      level: 'MUST',
      sections: { '3.5': 1, '3.5.1': 1 },
      rule: 'an unknown critical option drops the packet, whatever the C bit says',
      tests: [
        ['geneve', 'every value of every byte of a header with options'],
        ['geneve', 'every length of a datagram with a whole chain of options'],
        ['switch-peer', 'options of Geneve: ours are seen there'],
      ],
    },
    {
      level: 'IS',
      sections: { '3.5.1': 0 },
      rule: 'options are taken in any order, and those that are unknown and not critical passed over',
      tests: [['oracles', "datagrams of scapy's as we read them"]],
    },
    {
      level: 'MUST',
      sections: { '3.5': 1 },
      rule: 'the C bit is set when an option that is sent is critical, and else not',
      tests: [
        ['geneve', 'a device with options: sent with every frame'],
        ['oracles', 'of our frames as tshark reads them'],
      ],
    },
    {
      level: 'MUST',
      sections: { '3.5': 1 },
      rule: 'options that do not end where the header says are dropped',
      tests: [['geneve', 'every value of every byte of a header with options']],
    },
    {
      level: 'MUST',
      sections: { '3.5.1': 1 },
      rule: 'more options than an endpoint can look at drop the packet',
      exception: 'It looks at as many as there can be, 252 bytes of them.',
      tests: [['geneve', 'every length of a datagram with a whole chain of options']],
    },
    {
      level: 'MUST NOT',
      sections: { '3.5.1': 1 },
      rule: 'an option that was defined with a fixed length is defined with another one',
      exception:
        'For whoever defines options: an operator writes out their bytes, and none is known by itself.',
    },
    // ─── Through the tunnel ───────────────────────────────────────────────────────────────────────────────
    {
      level: 'MUST',
      sections: { '4.2': 1 },
      rule: 'what is inside controls congestion, or the network is managed so that there is none',
      exception: `${OF_OPERATORS} What guests send is theirs; nothing is added that would need it.`,
    },
    {
      level: 'SHOULD',
      sections: { '4.3': 1 },
      rule: 'where damage could mix up guests, integrity is protected by other means, such as IPsec',
      exception: `${OF_OPERATORS} IPsec is the host’s, and below the sockets.`,
    },
    {
      level: 'SHOULD',
      sections: { '4.4.1': 1 },
      rule: 'packets are not fragmented, and fit in the path as ICMP has it',
      tests: [
        ['sockets', 'no fragments, a right checksum, from a port of the range'],
        ['path-mtu', 'a stream of each family goes on, and the guests know'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.4.1': 1 },
      rule: 'the MTU has room for the longest options that a packet may have',
      tests: [
        ['mtu', 'the overhead of each encapsulation'],
        ['mtu', 'with four bytes more the kernel refuses it once'],
      ],
      exception:
        'For those of geneve/options, which every frame has. Where a target has longer ones of its own, what does not fit is dropped by name, and its sender told how much does: room for 252 bytes would be lost to all others.',
    },
    {
      level: 'IS',
      sections: { '4.4.2': 0 },
      rule: 'DSCP is mapped by what the operator says (RFC 2983)',
      tests: [['outer-header', 'TTL and DSCP as they were set']],
    },
    {
      level: 'MUST',
      sections: { '4.4.2': 1 },
      rule: 'ECN is by RFC 6040',
      tests: [
        ['outer-header', 'ECN of what is received: every pair of fields'],
        ['outer-header', 'inner ECN or none, own or inherited DSCP'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '4.4.2': 1 },
      rule: 'the TTL of the tunnel is its own, and that of guests as it was',
      tests: [['outer-header', 'TTL and DSCP as they were set']],
    },
    {
      level: 'MUST',
      sections: { '4.6': 1 },
      rule: 'each segment of a super-frame has the whole header with all options',
      tests: [['geneve', 'each segment has them all']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.6': 1 },
      rule: 'options change their order where frames are cut or joined',
      tests: [['geneve', 'each segment has them all']],
      exception:
        'Received frames are joined when the outer headers are off, so that none are left to be in an order.',
    },
    {
      level: 'MUST NOT',
      sections: { '4.6': 1 },
      rule: 'a network card drops packets for their options',
      exception:
        'For network cards. As an endpoint it drops those with critical options, as section 3.5 has it.',
    },
    // ─── Security ─────────────────────────────────────────────────────────────────────────────────────────
    {
      level: 'SHOULD',
      sections: { '6.1': 1, '6.1.1': 1 },
      rule: 'where it is needed, and between data centers, what guests send is encrypted',
      exception: `${OF_OPERATORS} IPsec is the host’s, and below the sockets; geneve/mark and geneve/device lead into it.`,
    },
    {
      level: 'MUST NOT',
      sections: { '6.2': 1 },
      rule: 'guests get to see packets of Geneve',
      tests: [
        ['geneve', 'a device: its port, both ways'],
        ['geneve', 'own packet of Geneve is a frame like others'],
      ],
    },
    {
      level: 'SHOULD',
      sections: { '6.2': 1 },
      rule: 'nothing passes between guests of different networks',
      tests: [
        ['vxlan', 'encap then decap gives the same frame back'],
        ['vxlan', 'unknown vnetid, stopped device'],
      ],
    },
    {
      level: 'MUST NOT',
      sections: { '6.2': 1 },
      rule: 'a packet of Geneve that a guest sends is anything but a frame',
      tests: [['geneve', 'own packet of Geneve is a frame like others']],
    },
    {
      level: 'SHOULD',
      sections: { '6.2': 1, '6.3': 1 },
      rule: 'where it is needed, integrity is protected and peers are authenticated, such as by IPsec',
      exception: `${OF_OPERATORS} IPsec is the host’s, and below the sockets; source_check knows peers by their address alone.`,
    },
  ],
};
