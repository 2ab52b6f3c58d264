/** RFC 6040: ECN through tunnels. */
import type { Rfc } from './rfc.js';

const NO_NEGOTIATION =
  'VXLAN, Geneve and NVGRE negotiate nothing and discover no endpoints: the operator knows the peer, and says so by `ecn`.';

export const rfc6040: Rfc = {
  number: 6040,
  keywords: { '4': [0, 1], '4.1': [2, 0], '4.2': [6, 2], '4.3': [7, 2], '4.4': [2, 2], '5.1': [1, 0] },
  requirements: [
    {
      level: 'SHOULD',
      sections: { '4': 1 },
      rule: 'there is one way for all DSCPs, and no other scheme',
      tests: [
        ['outer-header', 'inner ECN or none, own or inherited DSCP'],
        ['outer-header', 'ECN of what is received: every pair of fields'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.1': 2, '4.3': 1 },
      rule: 'in normal mode, which there has to be, the ECN field that is sent is a copy of the inner one',
      tests: [
        ['outer-header', 'inner ECN or none, own or inherited DSCP'],
        ['outer-header', 'ECN of the guests or none'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.2': 1 },
      rule: 'the ECN field that is received becomes what the table of inner and outer one says',
      tests: [['outer-header', 'ECN of what is received: every pair of fields']],
    },
    {
      level: 'MUST NOT',
      sections: { '4.2': 1 },
      rule: 'an inner packet that is not ECN-capable becomes one that is',
      tests: [['outer-header', 'ECN of what is received: every pair of fields']],
    },
    {
      level: 'MUST',
      sections: { '4.2': 2 },
      rule: 'one that is not ECN-capable is dropped when the outer field is CE, and passes as it is otherwise',
      tests: [
        ['outer-header', 'ECN of what is received: every pair of fields'],
        ['outer-header', 'told to the guest that can hear of it, else a drop'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.2': 1 },
      rule: 'one that is has the more severe of both fields: CE, ECT(1), ECT(0)',
      tests: [['outer-header', 'ECN of what is received: every pair of fields']],
    },
    {
      level: 'SHOULD',
      sections: { '4.2': 1 },
      rule: 'pairs that no tunnel makes are logged',
      tests: [['outer-header', 'told to the guest that can hear of it, else a drop']],
      exception:
        'Of the five the one that costs a frame is counted, `rx_congestion`. The others pass, and to find them the inner header of every ECN-capable frame would have to be looked for.',
    },
    {
      level: 'SHOULD',
      sections: { '4.2': 1 },
      rule: 'alarms are limited in rate',
      exception: 'There are none: a counter counts, and nobody is woken by it.',
    },
    {
      level: 'MUST',
      sections: { '4.2': 1 },
      rule: 'alarms and logging of those pairs can be turned off',
      exception: 'There are neither: a counter counts, and nobody is woken by it.',
    },
    {
      level: 'MUST',
      sections: { '4.3': 1 },
      rule: 'a compatibility mode, with an outer field of zero, is there for endpoints that do not look at it',
      tests: [
        ['outer-header', 'inner ECN or none, own or inherited DSCP'],
        ['outer-header', 'ECN of the guests or none'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.3': 1 },
      rule: 'both modes are there where endpoints are discovered',
      exception: NO_NEGOTIATION,
      tests: [['outer-header', 'ECN of the guests or none']],
    },
    {
      level: 'MUST',
      sections: { '4.3': 2 },
      rule: 'the mode is that of compatibility while an endpoint is being discovered, and stays it if that one knows no other',
      exception: NO_NEGOTIATION,
    },
    {
      level: 'MUST NOT',
      sections: { '4.3': 1 },
      rule: 'compatibility mode is the only one',
      tests: [['outer-header', 'ECN of the guests or none']],
    },
    {
      level: 'SHOULD',
      sections: { '4.3': 1 },
      rule: 'normal mode is used where the peer is known to understand it',
      tests: [
        ['outer-header', 'ECN of the guests or none'],
        ['setprop', 'properties: order, permissions'],
      ],
    },
    {
      level: 'MUST',
      sections: { '4.3': 1 },
      rule: 'a remark on the MUST of normal mode',
      exception: 'It explains a requirement of the same section, which has a line of its own.',
    },
    {
      level: 'SHOULD',
      sections: { '4.3': 1 },
      rule: 'a remark on the SHOULD of normal mode',
      exception: 'It explains a requirement of the same section, which has a line of its own.',
    },
    {
      level: 'MUST',
      sections: { '4.4': 1 },
      rule: 'requests for any of the older modes are agreed to, since there is one way to receive',
      exception: NO_NEGOTIATION,
    },
    {
      level: 'MUST',
      sections: { '4.4': 1 },
      rule: 'where no mode is asked for, there is no error and no warning',
      tests: [['outer-header', 'ECN of what is received: every pair of fields']],
    },
    {
      level: 'SHOULD',
      sections: { '4.4': 2 },
      rule: 'a request for an unknown mode is warned of, and what works goes on',
      exception: NO_NEGOTIATION,
    },
    {
      level: 'MUST',
      sections: { '5.1': 1 },
      rule: 'a remark on what IPsec’s endpoints do',
      exception: 'It compares RFC 4301 with this one, and asks nothing of a tunnel of Ethernet frames.',
    },
  ],
};
