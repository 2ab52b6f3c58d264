/** What has to do with the size of packets and with what is said of it: RFC 1191, 8201, 1122, 4443 and 9293; flow labels: RFC 6438. */
import { ON_THE_WAY, type Rfc } from './rfc.js';

const OF_TRANSPORTS =
  'For whoever sends again what was lost: that are the guests; what is dropped here is gone.';

export const rfc1191: Rfc = {
  number: 1191,
  keywords: { '3': [9, 0], '3.1': [0, 1], '4': [2, 0], '6.3': [1, 0], '6.4': [1, 0] },
  requirements: [
    {
      level: 'MUST',
      sections: { '3': 4 },
      rule: 'the path MTU that a router says is kept by destination, at once, and nothing larger is sent there',
      tests: [
        ['path-mtu', 'what is learned'],
        ['path-mtu', 'a stream of each family goes on, and the guests know'],
      ],
    },
    {
      level: 'MUST NOT',
      sections: { '3': 2 },
      rule: 'more is tried often, and within five minutes of a message',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'a message that does not say how much fits is understood',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'MUST NOT',
      sections: { '3': 1 },
      rule: 'a path MTU is estimated below 68 bytes',
      tests: [
        ['path-mtu', 'what is learned'],
        ['send-errors', 'not below the floor, not of others'],
      ],
    },
    {
      level: 'MUST NOT',
      sections: { '3': 1 },
      rule: 'a path MTU grows because a message says so',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'SHOULD NOT',
      sections: { '3.1': 1 },
      rule: 'TCP offers a smaller segment for paths that are not local',
      tests: [['mss', 'the property: off, auto by the MTU as it changes, or a number']],
      exception: 'What guests offer is left as it is, unless the operator sets tcp_mss.',
    },
    {
      level: 'MUST',
      sections: { '4': 2 },
      rule: 'whoever drops a packet that is too big and may not be fragmented says how much fits',
      tests: [['too-big', 'the answer, byte for byte']],
    },
    {
      level: 'IS',
      sections: { '6.3': 0 },
      rule: 'a path MTU is forgotten after ten minutes',
      tests: [['path-mtu', 'what is learned']],
    },
    {
      level: 'MUST NOT',
      sections: { '6.3': 1, '6.4': 1 },
      rule: 'packets are sent again because more fits, or once for each message',
      exception: OF_TRANSPORTS,
    },
  ],
};

export const rfc8201: Rfc = {
  number: 8201,
  keywords: {},
  requirements: [
    {
      level: 'IS',
      sections: { '4': 0 },
      rule: 'a path MTU does not go below 1280, nor up because a message says so',
      tests: [
        ['path-mtu', 'what is learned'],
        ['send-errors', 'not below the floor, not of others'],
      ],
    },
    {
      level: 'IS',
      sections: { '4': 0 },
      rule: 'messages are for whoever sent what they are about: others change nothing',
      tests: [['send-errors', 'not below the floor, not of others']],
    },
  ],
};

export const rfc1122: Rfc = {
  number: 1122,
  requirements: [
    {
      level: 'MUST NOT',
      sections: { '3.2.2': 1 },
      rule: 'an ICMP error is sent about ICMP errors, broadcasts and multicasts, later fragments, and what is from no single host',
      tests: [['too-big', 'nobody is told of what fits, of errors']],
    },
  ],
};

export const rfc4443: Rfc = {
  number: 4443,
  requirements: [
    {
      level: 'MUST',
      sections: { '2.2': 3 },
      rule: 'the source of an error is a unicast address of the node',
      exception:
        'There is no router between guests whose address that could be: errors come in the name of whom the packet was sent to.',
      tests: [['too-big', 'the answer, byte for byte']],
    },
    {
      level: 'MUST',
      sections: { '2.4 (c)': 1 },
      rule: 'an error quotes as much as fits in 1280 bytes',
      tests: [['too-big', 'the answer, byte for byte']],
    },
    {
      level: 'MUST NOT',
      sections: { '2.4 (e)': 1 },
      rule: 'an error is sent about errors and redirects, and about what is from no single node',
      tests: [['too-big', 'nobody is told of what fits, of errors']],
    },
    {
      level: 'MUST',
      sections: { '2.4 (f)': 1 },
      rule: 'errors are sent at a limited rate',
      tests: [['too-big', 'a device tells its guests, so often and no more']],
    },
    {
      level: 'SHOULD',
      sections: { '2.4 (f)': 1 },
      rule: 'the limit can be set',
      exception:
        'It is 50 a second for a device, more than a guest needs to learn of a path, and no burden to any.',
    },
    {
      level: 'MUST',
      sections: { '3.2': 1 },
      rule: 'packet too big is sent about what does not fit, with the MTU',
      tests: [
        ['too-big', 'the answer, byte for byte'],
        ['too-big', 'a device tells its guests, so often and no more'],
      ],
    },
    {
      level: 'MAY',
      sections: { '2.4 (e)': 0 },
      rule: 'packet too big is sent about packets to multicast addresses too',
      exception: 'There is no router between guests whose address could be its source.',
    },
  ],
};

export const rfc9293: Rfc = {
  number: 9293,
  requirements: [
    {
      level: 'IS',
      sections: { '3.7.1': 0 },
      rule: 'a segment size that is offered is what fits, where `tcp_mss` asks for it',
      tests: [
        ['mss', 'out: '],
        ['mss', 'the property: off, auto by the MTU as it changes, or a number'],
      ],
    },
  ],
};

export const rfc6438: Rfc = {
  number: 6438,
  keywords: { '1.2': [2, 1], '3': [4, 1] },
  requirements: [
    {
      level: 'MUST',
      sections: { '1.2': 2, '3': 1 },
      rule: 'flow labels are not changed on the way, nothing is read into them, and paths are chosen by them',
      exception: ON_THE_WAY,
    },
    {
      level: 'SHOULD NOT',
      sections: { '1.2': 1 },
      rule: 'routers are slow where labels are badly spread',
      exception: ON_THE_WAY,
    },
    {
      level: 'MUST',
      sections: { '3': 1 },
      rule: 'the outer addresses are those of the endpoints',
      tests: [['sockets', 'no fragments, a right checksum, from a port of the range']],
    },
    {
      level: 'SHOULD',
      sections: { '3': 1 },
      rule: 'the outer header has a flow label by RFC 6437',
      tests: [['sockets', 'over IPv6: one flow label a flow']],
    },
    {
      level: 'MUST',
      sections: { '3': 2 },
      rule: 'all of a guest’s flow has one label, for which packets are sorted into flows',
      tests: [['sockets', 'over IPv6: one flow label a flow']],
    },
  ],
};
