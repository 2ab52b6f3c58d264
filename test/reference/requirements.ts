/**
 * What the RFCs of the outer headers ask of a tunnel endpoint, in words of ours, and which test shows it, or why it is otherwise
 * here. `test/requirements.ts` looks whether the tests are there. RFC 7348 was gone through sentence by sentence; of the others
 * the list is of what concerns an endpoint that forwards Ethernet frames, without transit devices and control protocols.
 */

export interface Requirement {
  readonly rfc: 7348 | 8926 | 7637 | 2784 | 6040 | 6935 | 6936 | 1191 | 8201 | 1122 | 4443 | 9293;
  readonly section: string;
  readonly level: 'MUST' | 'SHOULD' | 'MAY';
  readonly rule: string;
  /** File in `test/`, and a part of the test's name. */
  readonly tests?: readonly (readonly [file: string, name: string])[];
  /** Why it is otherwise here. */
  readonly exception?: string;
}

export const requirements: readonly Requirement[] = [
  // ─── VXLAN ────────────────────────────────────────────────────────────────────────────────────────────
  {
    rfc: 7348,
    section: '4.1',
    level: 'SHOULD',
    rule: 'where an inner address is, is learned from the outer source address',
    tests: [['learn', 'a device floods what is unknown, once to each']],
  },
  {
    rfc: 7348,
    section: '4.2',
    level: 'SHOULD',
    rule: 'broadcast, unknown and multicast frames go to the group of the VNI, which is joined',
    tests: [['learn-hosts', 'a multicast group over IPv${family}']],
  },
  {
    rfc: 7348,
    section: '4.3',
    level: 'MUST',
    rule: 'VXLAN packets are not fragmented',
    tests: [['sockets', 'by itself: DF, a checksum']],
  },
  {
    rfc: 7348,
    section: '4.3',
    level: 'SHOULD',
    rule: 'the MTU of the underlay has room for the outer headers',
    tests: [['mtu', 'a set MTU stays, says so when it does not fit']],
  },
  {
    rfc: 7348,
    section: '5',
    level: 'MUST',
    rule: 'the I flag is set; without it a datagram is not valid',
    tests: [
      ['vxlan', 'golden packets, byte for byte'],
      ['vxlan', 'every value of every header byte of frames that fit'],
    ],
  },
  {
    rfc: 7348,
    section: '5',
    level: 'MUST',
    rule: 'the reserved flags and fields are zero when sent and ignored when received',
    tests: [
      ['vxlan', 'reserved bits are ignored on receive and zero on send'],
      ['reserved', 'each alone, ignored and dropped'],
    ],
  },
  {
    rfc: 7348,
    section: '5',
    level: 'MUST',
    rule: 'guests of different VNIs do not hear each other',
    tests: [['vxlan', 'unknown vnetid, stopped device']],
  },
  {
    rfc: 7348,
    section: '5',
    level: 'SHOULD',
    rule: 'the destination port is 4789 by default, and can be set',
    tests: [['cli', 'the commands, their tables and documents']],
  },
  {
    rfc: 7348,
    section: '5',
    level: 'SHOULD',
    rule: 'the source port is by a hash of the inner headers, of 49152 to 65535',
    tests: [
      ['vxlan', '10,000 flows spread over 16 sockets'],
      ['sockets', 'source ports: in the range'],
    ],
  },
  {
    rfc: 7348,
    section: '5',
    level: 'SHOULD',
    rule: 'the UDP checksum is sent as zero',
    exception:
      'It is sent, and right, which the same section allows: outer headers that were damaged are found, and the kernel offloads it.',
  },
  {
    rfc: 7348,
    section: '5',
    level: 'MUST',
    rule: 'a datagram without a UDP checksum is taken',
    tests: [['sockets', 'IPv6 without checksums: sent where told, taken where told']],
    exception:
      'Over IPv6 only where zerocsum6_rx says so: RFC 6935 and 6936 came to narrow it. Over IPv4 always, by the kernel.',
  },
  {
    rfc: 7348,
    section: '5',
    level: 'MUST',
    rule: 'a UDP checksum that is sent covers the whole packet and is right; one that is found wrong drops it',
    tests: [['oracles', 'of our frames as tshark reads them']],
    exception:
      'Both are the kernel’s, which makes and verifies it; tshark reads those of the tests’ own packets.',
  },
  {
    rfc: 7348,
    section: '6.1',
    level: 'SHOULD',
    rule: 'frames with an inner VLAN tag are neither sent nor taken, unless that is configured',
    exception: 'They are, as illumos does it: an overlay device is a link, and VLANs on it are the guests’.',
    tests: [['vxlan', 'the VLAN rule in plain numbers']],
  },
  // ─── Geneve ───────────────────────────────────────────────────────────────────────────────────────────
  {
    rfc: 8926,
    section: '3.3',
    level: 'SHOULD',
    rule: 'the source port is one for all of a flow, by a hash of the inner headers',
    tests: [['vxlan', 'frames of a flow keep to one socket']],
  },
  {
    rfc: 8926,
    section: '3.3',
    level: 'SHOULD',
    rule: 'the destination port is 6081 by default, and can be set',
    tests: [['geneve', 'a device: its port, both ways']],
  },
  {
    rfc: 8926,
    section: '3.3',
    level: 'MUST',
    rule: 'over IPv6 the UDP checksum is sent by default',
    tests: [['sockets', 'IPv6 without checksums: sent where told']],
  },
  {
    rfc: 8926,
    section: '3.4',
    level: 'MUST',
    rule: 'another version than 0 is dropped',
    tests: [['geneve', 'every value of every byte of a header with options']],
  },
  {
    rfc: 8926,
    section: '3.4',
    level: 'MUST',
    rule: 'what a control packet carries is not forwarded',
    tests: [['geneve', 'what is not for guests']],
  },
  {
    rfc: 8926,
    section: '3.4',
    level: 'SHOULD',
    rule: 'control packets are given to whoever handles them',
    exception: 'There is no control protocol of Geneve here; they are dropped by name, `rx_control_packet`.',
  },
  {
    rfc: 8926,
    section: '3.4',
    level: 'MUST',
    rule: 'the C bit is set when an option that is sent is critical, and else not',
    tests: [
      ['geneve', 'options as text: what they become'],
      ['oracles', 'of our frames as tshark reads them'],
    ],
  },
  {
    rfc: 8926,
    section: '3.4',
    level: 'MUST',
    rule: 'reserved bits are zero when sent and ignored when received',
    tests: [
      ['reserved', 'each alone, ignored and dropped'],
      ['oracles', 'of our frames as tshark reads them'],
    ],
  },
  {
    rfc: 8926,
    section: '3.5',
    level: 'MUST',
    rule: 'options that do not end where the header says are dropped',
    tests: [['geneve', 'every length of a datagram with a whole chain of options']],
  },
  {
    rfc: 8926,
    section: '3.5',
    level: 'MUST',
    rule: 'an unknown critical option drops the packet, whatever the C bit says',
    tests: [
      ['geneve', 'every length of a datagram with a whole chain of options'],
      ['switch-peer', 'options of Geneve: ours are seen there'],
    ],
  },
  {
    rfc: 8926,
    section: '3.5',
    level: 'MUST',
    rule: 'options are taken in any order, and those that are unknown and not critical passed over',
    tests: [['oracles', 'datagrams of scapy']],
  },
  {
    rfc: 8926,
    section: '4.4.1',
    level: 'SHOULD',
    rule: 'packets are not fragmented; DF is set',
    tests: [['sockets', 'by itself: DF, a checksum']],
  },
  {
    rfc: 8926,
    section: '4.4.2',
    level: 'SHOULD',
    rule: 'DSCP is mapped by what the operator says (RFC 2983)',
    tests: [['outer-header', 'on the wire, IPv${family}: TTL and DSCP']],
  },
  {
    rfc: 8926,
    section: '4.4.2',
    level: 'MUST',
    rule: 'ECN is by RFC 6040',
    tests: [['outer-header', 'ECN of what is received: every pair of fields']],
  },
  {
    rfc: 8926,
    section: '4.6',
    level: 'MUST',
    rule: 'each segment of a super-frame has the whole header with all options',
    tests: [['geneve', 'each segment has them all']],
  },
  // ─── NVGRE ────────────────────────────────────────────────────────────────────────────────────────────
  {
    rfc: 7637,
    section: '3.2',
    level: 'MUST',
    rule: 'the checksum and sequence number bits are zero, and the key bit one',
    tests: [
      ['nvgre', 'the ways of GRE that it is not'],
      ['oracles', 'of our frames as tshark reads them'],
    ],
  },
  {
    rfc: 7637,
    section: '3.2',
    level: 'MUST',
    rule: 'the protocol is transparent Ethernet bridging, 0x6558',
    tests: [['nvgre', 'every value of every byte of the header']],
  },
  {
    rfc: 7637,
    section: '3.2',
    level: 'MUST',
    rule: 'VSIDs 0 to 0xfff are not used, 0xffffff is for vendors',
    tests: [['nvgre', 'reserved vnetids are refused']],
  },
  {
    rfc: 7637,
    section: '3.2',
    level: 'SHOULD',
    rule: 'the FlowID tells flows apart, the same for all of a flow',
    tests: [['nvgre', 'FlowID: one a flow']],
  },
  {
    rfc: 7637,
    section: '3.2',
    level: 'MUST',
    rule: 'the inner frame has no 802.1Q tag; one that has is dropped when it is received',
    tests: [['nvgre', 'frames with a VLAN tag are carried neither way']],
  },
  {
    rfc: 7637,
    section: '3.2',
    level: 'MUST',
    rule: 'a tag is taken off before a frame is sent',
    exception:
      'The frame is dropped by name instead, `tx_vlan_not_carried`: without the tag it would be in another VLAN of the guests’.',
    tests: [['nvgre', 'frames with a VLAN tag are carried neither way']],
  },
  {
    rfc: 7637,
    section: '4.1',
    level: 'MAY',
    rule: 'ECMP by the outer headers and the key',
    tests: [['nvgre-hosts', 'each datagram by one of ${WORKERS} workers']],
  },
  {
    rfc: 2784,
    section: '2.3',
    level: 'MUST',
    rule: 'a packet with one of bits 1 to 5 that is not zero, but for the key, is dropped; bits 6 to 12 are ignored',
    tests: [
      ['nvgre', 'every value of every byte of the header'],
      ['reserved', 'each alone, ignored and dropped'],
    ],
  },
  {
    rfc: 2784,
    section: '2.3.1',
    level: 'MUST',
    rule: 'another version than 0 is not this GRE',
    tests: [['nvgre', 'the ways of GRE that it is not']],
  },
  // ─── ECN ──────────────────────────────────────────────────────────────────────────────────────────────
  {
    rfc: 6040,
    section: '4.1',
    level: 'MUST',
    rule: 'the ECN field that is sent is a copy of the inner one',
    tests: [
      ['outer-header', 'traffic class of what is sent to ${to}'],
      ['outer-header', 'ECN of the guests'],
    ],
  },
  {
    rfc: 6040,
    section: '4.2',
    level: 'MUST',
    rule: 'the ECN field that is received becomes what the table of outer and inner one says, or drops the packet',
    tests: [
      ['outer-header', 'ECN of what is received: every pair of fields'],
      ['outer-header', 'told to the guest that can hear of it, else a drop'],
    ],
  },
  {
    rfc: 6040,
    section: '4.2',
    level: 'SHOULD',
    rule: 'an outer CE on an inner packet that is not ECN-capable is logged, or told',
    tests: [['outer-header', 'told to the guest that can hear of it, else a drop']],
  },
  {
    rfc: 6040,
    section: '4.3',
    level: 'SHOULD',
    rule: 'compatibility mode towards endpoints that know no ECN',
    exception:
      'There is none: VXLAN, Geneve and NVGRE do not negotiate, and the kernel’s endpoints do as we do.',
  },
  // ─── UDP over IPv6 without checksums ──────────────────────────────────────────────────────────────────
  {
    rfc: 6935,
    section: '5',
    level: 'MUST',
    rule: 'zero checksums over IPv6 are off by default, both ways',
    tests: [['sockets', 'IPv6 without checksums: sent where told, taken where told']],
  },
  {
    rfc: 6936,
    section: '4',
    level: 'MUST',
    rule: 'zero checksums are for the ports of the tunnel alone, where they are turned on',
    tests: [['sockets', 'IPv6 without checksums: sent where told, taken where told']],
  },
  {
    rfc: 6936,
    section: '4',
    level: 'SHOULD',
    rule: 'the source address of what comes without a checksum is checked',
    tests: [['source-check', 'known']],
  },
  // ─── Path MTU, and what guests are told ───────────────────────────────────────────────────────────────
  {
    rfc: 1191,
    section: '3',
    level: 'MUST',
    rule: 'the path MTU that a router says is kept by destination, and nothing larger is sent there',
    tests: [
      ['path-mtu', 'what is learned'],
      ['path-mtu', 'a stream of each family goes on, and the guests know'],
    ],
  },
  {
    rfc: 1191,
    section: '3',
    level: 'MUST',
    rule: 'no path MTU is estimated below 68 bytes',
    tests: [['send-errors', 'spoofed ICMP over IPv${family}']],
  },
  {
    rfc: 1191,
    section: '6.3',
    level: 'SHOULD',
    rule: 'a path MTU is forgotten after ten minutes',
    tests: [['path-mtu', 'what is learned']],
  },
  {
    rfc: 1191,
    section: '4',
    level: 'MUST',
    rule: 'whoever drops a packet that is too big and may not be fragmented says how much fits',
    tests: [['too-big', 'the answer, byte for byte']],
  },
  {
    rfc: 1122,
    section: '3.2.2',
    level: 'MUST',
    rule: 'no ICMP error about ICMP errors, broadcasts and multicasts, later fragments, and what is from no single host',
    tests: [['too-big', 'nobody is told of what fits, of errors']],
  },
  {
    rfc: 8201,
    section: '4',
    level: 'MUST',
    rule: 'a path MTU does not go below 1280, nor above what is known because a message says so',
    tests: [
      ['path-mtu', 'what is learned'],
      ['send-errors', 'spoofed ICMP over IPv${family}'],
    ],
  },
  {
    rfc: 4443,
    section: '2.4 (e)',
    level: 'MUST',
    rule: 'no ICMPv6 error about ICMPv6 errors and redirects, and about what is from no single node',
    tests: [['too-big', 'nobody is told of what fits, of errors']],
  },
  {
    rfc: 4443,
    section: '2.4 (f)',
    level: 'MUST',
    rule: 'errors are sent at a limited rate',
    tests: [['too-big', 'a device tells its guests, so often and no more']],
  },
  {
    rfc: 4443,
    section: '3.2',
    level: 'MUST',
    rule: 'packet too big quotes as much as fits in 1280 bytes, and says the MTU',
    tests: [['too-big', 'the answer, byte for byte']],
  },
  {
    rfc: 4443,
    section: '3.2',
    level: 'MAY',
    rule: 'packet too big is sent about packets to multicast addresses too',
    exception: 'There is no router between guests whose address could be its source.',
  },
  {
    rfc: 9293,
    section: '3.7.1',
    level: 'SHOULD',
    rule: 'a segment size that is offered is what fits, where `tcp_mss` asks for it',
    tests: [['mss', 'out: ']],
  },
];
