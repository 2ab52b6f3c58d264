/**
 * Whom we have been seen to work with: what is published in the README, and what tests have to show. `test/interoperability.ts`
 * compares the README with it; every file of a row compares what its scenes have shown with it at its end.
 */
import { EncapRegistry } from '../../src/encap/registry.js';

export const TRAFFIC = ['ping', 'TCP', 'UDP', 'mDNS'] as const;
export type Traffic = (typeof TRAFFIC)[number];

/** Name of a test: its file in `test/`, and a part of its name. */
export type TestName = readonly [file: string, name: string];

export interface PeerRow {
  readonly peer: string;
  /** How frames find their way, or what is particular about them. */
  readonly how: string;
  readonly encapsulations: readonly string[];
  /** Of the underlay. */
  readonly families: readonly (4 | 6)[];
  /** Both ways, and over IPv4 and IPv6 within each. */
  readonly traffic: readonly Traffic[];
  readonly test: TestName;
}

export interface OracleRow {
  readonly oracle: string;
  readonly what: string;
  readonly encapsulations: readonly string[];
  readonly test: TestName;
}

/** The encapsulations that there are. */
const every = new EncapRegistry().names;

/** Of each encapsulation. */
export const ORACLE_FRAMES = 10_000;

export const peerRows: readonly PeerRow[] = [
  {
    peer: 'overlayd',
    how: 'direct',
    encapsulations: every,
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['own-peer', 'ping, TCP, UDP and mDNS, both ways'],
  },
  {
    peer: 'kernel VXLAN',
    how: 'direct',
    encapsulations: ['vxlan'],
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['kernel-peer', 'ping, TCP, UDP and mDNS, both ways'],
  },
  {
    peer: 'kernel VXLAN',
    how: 'learn, flood list',
    encapsulations: ['vxlan'],
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['learn-hosts', 'a flood list over IPv'],
  },
  {
    peer: 'kernel VXLAN',
    how: 'learn, multicast group',
    encapsulations: ['vxlan'],
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['learn-hosts', 'a multicast group over IPv'],
  },
  {
    peer: 'kernel VXLAN',
    how: 'learn, frames with VLAN tags',
    encapsulations: ['vxlan'],
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['learn-hosts', 'frames with VLAN tags'],
  },
  {
    peer: 'Open vSwitch, userspace',
    how: 'direct',
    encapsulations: every,
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['switch-peer', 'ping, TCP, UDP and mDNS, both ways'],
  },
  {
    peer: 'Open vSwitch, userspace',
    how: 'direct, options both ways',
    encapsulations: ['geneve'],
    families: [4, 6],
    traffic: TRAFFIC,
    test: ['switch-peer', 'options of Geneve: ours are seen there'],
  },
];

export const oracleRows: readonly OracleRow[] = [
  {
    oracle: 'tshark',
    what: `reads ${ORACLE_FRAMES.toLocaleString('en')} of our frames each, over IPv4 and IPv6 in turn`,
    encapsulations: [...every, 'geneve with options'],
    test: ['oracles', 'of our frames as tshark reads them'],
  },
  {
    oracle: 'scapy',
    what: `makes ${ORACLE_FRAMES.toLocaleString('en')} datagrams each, half of them with reserved bits set, which we read`,
    encapsulations: [...every, 'nvgre over IPv4'],
    test: ['oracles', 'datagrams of scapy'],
  },
  {
    oracle: 'the RFCs',
    what: 'every reserved bit of the header alone, ignored and dropped',
    encapsulations: every,
    test: ['reserved', 'each alone, ignored and dropped'],
  },
];
