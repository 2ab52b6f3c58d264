/**
 * Proxy ARP, NDP and DHCP: what is taken for a question and what is not, check by check; the answers, byte by
 * byte and as another program (tshark) reads them.
 */
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AssertionError } from '../src/errors.js';
import { ipNativeBytes } from '../src/ip.js';
import { BROADCAST, macAt, macBytes } from '../src/target/mac.js';
import { arpReply, gratuitousArp, parseArpRequest } from '../src/varpd/proxy/arp.js';
import { onesComplementSum as sumOf } from '../src/varpd/proxy/checksum.js';
import { dhcpRequestTo, parseDhcpRequest } from '../src/varpd/proxy/dhcp.js';
import { parseEthernet } from '../src/varpd/proxy/ethernet.js';
import { advertisement, parseSolicitation, unsolicitedAdvertisement } from '../src/varpd/proxy/ndp.js';
import { testWith } from './harness/needs.js';
import { dissected } from './harness/tshark.js';
import {
  bigEndian,
  type ChecksumKind,
  concat,
  counting,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ethernet,
  ipv4,
  onesComplementSum,
  pseudoHeader,
  sampleFrames,
  udp,
  VLAN_STACK,
  VLAN_TAGS,
} from './reference/frames.js';

const proxy = suite('proxy');

const ASKER = 0x020000000001;
const OWNER = 0x0208200000aa;
const OTHER = 0x0208200000bb;
const GROUP = 0x0308200000aa;
const ALL_NODES_MAC = 0x333300000001;

type Tags = readonly { readonly type: number; readonly control: number }[];

/** Every way to carry a VLAN id, with the id that is to be seen. */
const TAGGINGS: readonly { name: string; tags: Tags; vlan: number }[] = [
  { name: 'untagged', tags: [], vlan: 0 },
  { name: 'tagged', tags: VLAN_TAGS, vlan: 5 },
  { name: 'tagged with priority', tags: [{ type: 0x8100, control: 0xe000 + 4094 }], vlan: 4094 },
  { name: 'priority-tagged', tags: [{ type: 0x8100, control: 0x6000 }], vlan: 0 },
  { name: 'service-tagged', tags: [{ type: 0x88a8, control: 0x1000 + 77 }], vlan: 77 },
  { name: 'stacked', tags: VLAN_STACK, vlan: 100 },
];

/** A copy with other bytes at `at`. */
function edited(bytes: Uint8Array, at: number, ...values: readonly number[]): Uint8Array {
  const copy = bytes.slice();
  assert.ok(at + values.length <= copy.length, 'the edit is inside');
  copy.set(values, at);
  return copy;
}

/** The same bytes, but reading outside of them throws, also through views made of them. */
function guarded(bytes: Uint8Array): Uint8Array {
  return new Proxy(bytes, {
    get: (target, name) => {
      if (typeof name === 'string' && /^-?\d+$/.test(name) && !(name in target)) {
        throw new Error(`byte ${name} of ${target.length} was read`);
      }
      if (name === 'buffer') throw new Error('the memory below was read');
      if (name === 'subarray') return (from: number, to?: number) => guarded(target.subarray(from, to));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** What any of the parsers and builders makes of a frame. None may throw, or change the frame. */
function throughAll(given: Uint8Array): unknown[] {
  const before = given.slice();
  const frame = guarded(given);
  const solicitation = parseSolicitation(frame);
  const unfinished = parseSolicitation(frame, { isChecksumUnfinished: true });
  const results = [
    parseArpRequest(frame),
    arpReply(frame, OWNER),
    solicitation,
    unfinished,
    unfinished && advertisement(frame, unfinished, OWNER),
    parseDhcpRequest(frame),
  ];
  parseEthernet(frame);
  dhcpRequestTo(frame, OWNER);
  assert.equal(given, before, 'the frame was not changed');
  return results;
}

const isNothing = (results: readonly unknown[]) => results.every((result) => result === undefined);

// Ethernet

proxy('Ethernet: addresses, type and VLAN id behind up to two tags', () => {
  for (const { name, tags, vlan } of TAGGINGS) {
    const frame = ethernet(0x88cc, counting(50), { tags });
    const expected = {
      destination: 0x020000000002,
      source: ASKER,
      etherType: 0x88cc,
      vlan,
      headerBytes: 14 + 4 * tags.length,
    };
    assert.equal(parseEthernet(guarded(frame)), expected, name);
    for (let length = 0; length < frame.length; length++) {
      const isWhole = length >= expected.headerBytes;
      const cut = parseEthernet(guarded(frame.slice(0, length)));
      assert.equal(cut, isWhole ? expected : undefined, `${name}, ${length} bytes`);
    }
  }
});

proxy('Ethernet: lengths, unknown tags, three tags, and bogons', () => {
  const typeOf = (type: number, tags: Tags = []) =>
    parseEthernet(ethernet(type, counting(50), { tags }))?.etherType;
  const tag = { type: 0x8100, control: 5 };
  const canonical = { type: 0x8100, control: 0x1005 };
  assert.is(typeOf(0), 0, 'a length');
  assert.is(typeOf(0x5ff), 0, 'the largest that is no type');
  assert.is(typeOf(0x600), 0x600, 'the smallest type');
  assert.is(typeOf(100, [tag]), 0, 'a length behind a tag');
  assert.is(typeOf(0x9100), 0x9100, 'not a tag of a standard');
  assert.is(typeOf(0x800, [tag, tag, tag]), 0x8100, 'a third tag is not skipped');
  assert.is(typeOf(0x800, [tag, tag]), 0x800);
  assert.is(typeOf(0x800, [canonical]), undefined, 'CFI');
  assert.is(typeOf(0x800, [tag, canonical]), undefined, 'CFI in the inner tag');
  assert.is(typeOf(0x800, [{ type: 0x88a8, control: 0x1005 }]), 0x800, 'DEI');
});

// ARP

const HOST_4 = [10, 20, 30, 1];
const TARGET_4 = [10, 40, 50, 2];

interface ArpFields {
  readonly senderMac?: number;
  readonly senderIp?: readonly number[];
  readonly targetIp?: readonly number[];
  readonly macSource?: number;
  readonly macDestination?: number;
  readonly tags?: Tags;
  readonly type?: number;
  readonly padding?: number;
  /** Change to the packet: offset, then bytes. */
  readonly edit?: readonly [at: number, ...values: number[]];
}

function arpRequest(fields: ArpFields = {}): Uint8Array {
  const { senderMac = ASKER, senderIp = HOST_4, targetIp = TARGET_4, padding = 0, tags = [] } = fields;
  const { macSource = ASKER, macDestination = BROADCAST, type = ETHERTYPE_ARP, edit } = fields;
  const packet = Uint8Array.from([
    ...[0, 1, 8, 0, 6, 4, 0, 1],
    ...[...macBytes(senderMac), ...senderIp],
    ...[0, 0, 0, 0, 0, 0, ...targetIp],
  ]);
  return ethernet(type, concat(edit ? edited(packet, ...edit) : packet, new Uint8Array(padding)), {
    source: macBytes(macSource),
    destination: macBytes(macDestination),
    tags,
  });
}

const ARP_CASES: readonly [name: string, fields: ArpFields, isAnswered: boolean][] = [
  ['an ordinary request', {}, true],
  ['padded to the minimum', { padding: 18 }, true],
  ['of 1500 bytes', { padding: 1472 }, true],
  ['of 1501 bytes', { padding: 1473 }, false],
  ['a unicast poll', { macDestination: OWNER }, true],
  ['a probe', { senderIp: [0, 0, 0, 0] }, true],
  ['another EtherType', { type: 0x8035 }, false],
  ['hardware type 6', { edit: [0, 0, 6] }, false],
  ['hardware type 257', { edit: [0, 1, 1] }, false],
  ['protocol type IPv6', { edit: [2, 0x86, 0xdd] }, false],
  ['protocol type 0x0801', { edit: [3, 1] }, false],
  ['hardware length 5', { edit: [4, 5] }, false],
  ['hardware length 8', { edit: [4, 8] }, false],
  ['protocol length 16', { edit: [5, 16] }, false],
  ['operation 0', { edit: [6, 0, 0] }, false],
  ['a reply', { edit: [6, 0, 2] }, false],
  ['RARP', { edit: [6, 0, 3] }, false],
  ['operation 257', { edit: [6, 1, 1] }, false],
  ['an announcement', { senderIp: TARGET_4 }, false],
  ['for nobody, from nobody', { senderIp: [0, 0, 0, 0], targetIp: [0, 0, 0, 0] }, false],
  ['for the unspecified address', { targetIp: [0, 0, 0, 0] }, false],
  ['for a loopback address', { targetIp: [127, 0, 0, 1] }, false],
  ['for 126.0.0.1', { targetIp: [126, 0, 0, 1] }, true],
  ['for 128.0.0.1', { targetIp: [128, 0, 0, 1] }, true],
  ['for the first multicast address', { targetIp: [224, 0, 0, 0] }, false],
  ['for the last multicast address', { targetIp: [239, 255, 255, 255] }, false],
  ['for 223.255.255.255', { targetIp: [223, 255, 255, 255] }, true],
  ['for 240.0.0.1', { targetIp: [240, 0, 0, 1] }, true],
  ['for broadcast', { targetIp: [255, 255, 255, 255] }, false],
  ['from a loopback address', { senderIp: [127, 0, 0, 1] }, false],
  ['from a multicast address', { senderIp: [224, 0, 0, 1] }, false],
  ['from broadcast', { senderIp: [255, 255, 255, 255] }, false],
  ['sender MAC is not the source', { senderMac: OTHER }, false],
  ['sender MAC is the owner', { senderMac: OWNER }, false],
  ['sender MAC is zero', { senderMac: 0 }, false],
  ['sender MAC is broadcast', { senderMac: BROADCAST }, false],
  ['from a group', { senderMac: GROUP, macSource: GROUP }, false],
  ['from broadcast MAC', { senderMac: BROADCAST, macSource: BROADCAST }, false],
  ['from MAC zero', { senderMac: 0, macSource: 0 }, false],
];

proxy('ARP: every check, with every tagging', () => {
  for (const { name: tagging, tags, vlan } of TAGGINGS) {
    for (const [name, fields, isAnswered] of ARP_CASES) {
      const what = `${name}, ${tagging}`;
      const frame = arpRequest({ ...fields, tags });
      const request = parseArpRequest(guarded(frame));
      assert.is(request !== undefined, isAnswered, what);
      assert.is(arpReply(frame, OWNER) !== undefined, isAnswered, what);
      if (!request) continue;
      assert.equal(
        request,
        {
          ip: (fields.targetIp ?? TARGET_4).join('.'),
          asker: ASKER,
          askerIp: (fields.senderIp ?? HOST_4).join('.'),
          isProbe: name === 'a probe',
          vlan,
          headerBytes: 14 + 4 * tags.length,
        },
        what,
      );
    }
  }
  const bogon = arpRequest({ tags: [{ type: 0x8100, control: 0x1005 }] });
  assert.is(parseArpRequest(bogon), undefined, 'CFI');
});

proxy('ARP: the reply, byte by byte, tags kept and padding not', () => {
  for (const { name, tags } of TAGGINGS) {
    for (const senderIp of [HOST_4, [0, 0, 0, 0]]) {
      const frame = arpRequest({ tags, senderIp, padding: 18 });
      const expected = ethernet(
        ETHERTYPE_ARP,
        Uint8Array.from([
          ...[0, 1, 8, 0, 6, 4, 0, 2],
          ...[...macBytes(OWNER), ...TARGET_4],
          ...[...macBytes(ASKER), ...senderIp],
        ]),
        { source: macBytes(OWNER), destination: macBytes(ASKER), tags },
      );
      assert.equal(arpReply(frame, OWNER), expected, name);
    }
  }
});

proxy('ARP: silence when the address is the asker’s own, or at no interface', () => {
  for (const senderIp of [HOST_4, [0, 0, 0, 0]]) {
    const frame = arpRequest({ senderIp });
    for (const mac of [ASKER, 0, GROUP, BROADCAST]) assert.is(arpReply(frame, mac), undefined);
  }
});

proxy('ARP: an announcement, byte by byte', () => {
  for (const vlan of [0, 1, 4094]) {
    const frame = gratuitousArp({ mac: OWNER, ip: '10.40.50.2', vlan });
    const expected = ethernet(
      ETHERTYPE_ARP,
      Uint8Array.from([
        ...[0, 1, 8, 0, 6, 4, 0, 1],
        ...[...macBytes(OWNER), ...TARGET_4],
        ...[255, 255, 255, 255, 255, 255, ...TARGET_4],
      ]),
      {
        source: macBytes(OWNER),
        destination: macBytes(BROADCAST),
        tags: vlan === 0 ? [] : [{ type: 0x8100, control: vlan }],
      },
    );
    assert.equal(frame, expected, `vlan ${vlan}`);
    assert.is(frame.length, vlan === 0 ? 42 : 46);
    assert.is(parseArpRequest(frame), undefined, 'a proxy that hears it does not answer');
  }
});

// NDP

const HOST_6 = ipNativeBytes('fe80::1');
const TARGET_6 = ipNativeBytes('2001:db8::ab12:3456');
const SOLICITED_NODE = ipNativeBytes('ff02::1:ff12:3456');
const UNSPECIFIED = new Uint8Array(16);
const ALL_NODES = ipNativeBytes('ff02::1');
const optionOf = (type: number, ...content: readonly number[]) =>
  Uint8Array.of(type, (content.length + 2) / 8, ...content);
const sourceMac = (mac: number) => optionOf(1, ...macBytes(mac));
const NONCE = optionOf(14, 1, 2, 3, 4, 5, 6);
const NO_OPTIONS = new Uint8Array(0);

interface Solicit {
  readonly version?: number;
  readonly hopLimit?: number;
  readonly nextHeader?: number;
  readonly source?: Uint8Array;
  readonly destination?: Uint8Array;
  readonly type?: number;
  readonly code?: number;
  readonly target?: Uint8Array;
  readonly options?: Uint8Array;
  /** Bytes of the message, when the header is to say something else than there are. */
  readonly payloadLength?: number;
  readonly checksum?: ChecksumKind | 'wrong';
  readonly macSource?: number;
  readonly macDestination?: number;
  readonly etherType?: number;
  readonly tags?: Tags;
  readonly padding?: Uint8Array;
}

/** The group MAC address of RFC 2464, or an interface's. */
function macOf(ip: Uint8Array): number {
  return ip[0] === 0xff ? macAt(Uint8Array.of(0x33, 0x33, ...ip.subarray(12)), 0) : OWNER;
}

/** A solicitation with the right checksum of what it claims to be, so that one check alone can refuse it. */
function solicit(fields: Solicit = {}): Uint8Array {
  const { version = 6, hopLimit = 255, nextHeader = 58, type = 135, code = 0, target = TARGET_6 } = fields;
  const { source = HOST_6, destination = SOLICITED_NODE, options = sourceMac(ASKER) } = fields;
  const { etherType = ETHERTYPE_IPV6, tags = [], padding = NO_OPTIONS, macSource = ASKER } = fields;
  const message = concat(Uint8Array.of(type, code, 0, 0, 0, 0, 0, 0), target, options);
  const { payloadLength = message.length, macDestination = macOf(destination) } = fields;
  const counted = message.subarray(0, payloadLength);
  const pseudo = pseudoHeader(source, destination, 58, counted.length);
  const right = 0xffff - onesComplementSum(concat(pseudo, counted));
  const checksums = { finished: right, partial: onesComplementSum(pseudo), none: 0, wrong: right ^ 0x0100 };
  message.set(bigEndian(checksums[fields.checksum ?? 'finished'], 2), 2);
  const packet = concat(
    Uint8Array.of(version * 16, 0, 0, 0),
    bigEndian(payloadLength, 2),
    Uint8Array.of(nextHeader, hopLimit),
    source,
    destination,
    message,
    padding,
  );
  return ethernet(etherType, packet, {
    source: macBytes(macSource),
    destination: macBytes(macDestination),
    tags,
  });
}

const ip6 = ipNativeBytes;
const DAD: Solicit = { source: UNSPECIFIED, options: NO_OPTIONS };
const UNICAST: Solicit = { destination: TARGET_6 };

const NDP_CASES: readonly [name: string, fields: Solicit, isAnswered: boolean][] = [
  ['an ordinary one', {}, true],
  ['from a global address', { source: ip6('2001:db8::1') }, true],
  ['for a link-local address', { target: ip6('fe80::aa12:3456') }, true],
  ['padded', { padding: counting(5) }, true],
  ['of 1500 bytes', { padding: new Uint8Array(1428) }, true],
  ['of 1501 bytes', { padding: new Uint8Array(1429) }, false],
  ['DAD', DAD, true],
  ['DAD with a nonce', { ...DAD, options: NONCE }, true],
  ['to all nodes', { destination: ALL_NODES }, true],
  ['to a link-local group with the transient flag', { destination: ip6('ff12::1') }, true],
  ['a unicast poll', UNICAST, true],
  ['a unicast poll without its MAC address', { ...UNICAST, options: NO_OPTIONS }, true],
  ['to a group, in a unicast frame', { macDestination: OWNER }, true],
  ['another EtherType', { etherType: 0x86de }, false],
  ['version 4', { version: 4 }, false],
  ['version 7', { version: 7 }, false],
  ['next header UDP', { nextHeader: 17 }, false],
  ['next header hop-by-hop', { nextHeader: 0 }, false],
  ['hop limit 254', { hopLimit: 254 }, false],
  ['hop limit 64', { hopLimit: 64 }, false],
  ['type 134', { type: 134 }, false],
  ['type 136, code 0: an advertisement', { type: 136 }, false],
  ['type 133, code 0: a router solicitation', { type: 133 }, false],
  ['type 143, code 0: MLD', { type: 143 }, false],
  ['type 135, code 1', { code: 1 }, false],
  ['wrong checksum', { checksum: 'wrong' }, false],
  ['no checksum', { checksum: 'none' }, false],
  ['unfinished checksum', { checksum: 'partial' }, false],
  ['payload length 0', { payloadLength: 0 }, false],
  ['payload length 23', { payloadLength: 23 }, false],
  ['payload length 24: the option is padding', { payloadLength: 24 }, false],
  ['DAD, payload length 24: the option is padding', { source: UNSPECIFIED, payloadLength: 24 }, true],
  ['payload length one more than there is', { payloadLength: 33 }, false],
  ['payload length 65535', { payloadLength: 65535 }, false],
  ['target unspecified', { target: UNSPECIFIED, destination: ip6('ff02::1:ff00:0') }, false],
  ['target loopback', { target: ip6('::1'), destination: ip6('ff02::1:ff00:1') }, false],
  ['target ::2', { target: ip6('::2'), destination: ip6('ff02::1:ff00:2') }, true],
  ['target multicast', { target: ip6('ff02::1:ff12:3456') }, false],
  ['target multicast of wide scope', { target: ip6('ff0e::12:3456') }, false],
  [
    'target v4-mapped',
    { target: Uint8Array.from([...counting(10, 0).fill(0), 255, 255, 10, 0x12, 0x34, 0x56]) },
    false,
  ],
  ['solicited-node group of another address', { destination: ip6('ff02::1:ff12:3457') }, false],
  ['solicited-node group, third byte differs', { destination: ip6('ff02::1:ff13:3456') }, false],
  ['site-local group', { destination: ip6('ff05::1') }, false],
  ['interface-local group', { destination: ip6('ff01::1') }, false],
  ['global group', { destination: ip6('ff0e::1') }, false],
  ['group of scope 10', { destination: ip6('ff0a::1') }, false],
  ['unicast to another address', { destination: ip6('2001:db8::1') }, false],
  [
    'unicast to another address in a group frame',
    { ...UNICAST, macDestination: macOf(SOLICITED_NODE) },
    false,
  ],
  ['group frame whose MAC bits say target', { ...UNICAST, macDestination: 0x3333ab123456 }, false],
  ['in a broadcast frame', { macDestination: BROADCAST }, false],
  ['in the frame of another group', { macDestination: ALL_NODES_MAC }, false],
  ['in an IPv4 group frame', { macDestination: 0x01005e123456 }, false],
  ['from a group MAC', { macSource: GROUP, options: sourceMac(GROUP) }, false],
  ['from MAC zero', { macSource: 0, options: sourceMac(0) }, false],
  ['source multicast', { source: ip6('ff02::2') }, false],
  ['source loopback', { source: ip6('::1') }, false],
  [
    'source v4-mapped',
    { source: Uint8Array.from([...UNSPECIFIED.slice(0, 10), 255, 255, 10, 0, 0, 1]) },
    false,
  ],
  ['source is the target', { source: TARGET_6 }, false],
  ['DAD with a source link-layer address', { source: UNSPECIFIED }, false],
  ['DAD to all nodes', { ...DAD, destination: ALL_NODES }, false],
  ['DAD to the target', { ...DAD, destination: TARGET_6 }, false],
  ['DAD to another solicited-node group', { ...DAD, destination: ip6('ff02::1:ff12:3457') }, false],
  ['no options', { options: NO_OPTIONS }, false],
  ['only another option', { options: NONCE }, false],
  ['another option before', { options: concat(NONCE, sourceMac(ASKER)) }, true],
  ['another option behind', { options: concat(sourceMac(ASKER), NONCE) }, true],
  ['a long option before', { options: concat(optionOf(253, ...counting(22)), sourceMac(ASKER)) }, true],
  ['the option twice', { options: concat(sourceMac(ASKER), sourceMac(ASKER)) }, true],
  ['the option twice, once another', { options: concat(sourceMac(ASKER), sourceMac(OTHER)) }, false],
  ['option says another MAC', { options: sourceMac(OTHER) }, false],
  ['option says a group MAC', { options: sourceMac(BROADCAST) }, false],
  ['option of length 0', { options: edited(sourceMac(ASKER), 1, 0) }, false],
  ['another option of length 0', { options: concat(sourceMac(ASKER), edited(NONCE, 1, 0)) }, false],
  ['option of two units', { options: optionOf(1, ...macBytes(ASKER), ...counting(8)) }, false],
  ['option longer than the rest', { options: edited(sourceMac(ASKER), 1, 2) }, false],
  ['another option longer than the rest', { options: concat(sourceMac(ASKER), edited(NONCE, 1, 2)) }, false],
  ['another option of 255 units', { options: concat(sourceMac(ASKER), edited(NONCE, 1, 255)) }, false],
  ['option that reaches into padding', { payloadLength: 31 }, false],
  ['one byte of an option', { options: concat(sourceMac(ASKER), Uint8Array.of(14)) }, false],
  ['two bytes of an option', { options: concat(sourceMac(ASKER), Uint8Array.of(14, 1)) }, false],
  ['seven bytes of an option', { options: concat(sourceMac(ASKER), NONCE.subarray(0, 7)) }, false],
];

proxy('NDP: every check, with every tagging', () => {
  for (const { name: tagging, tags, vlan } of TAGGINGS) {
    for (const [name, fields, isAnswered] of NDP_CASES) {
      const what = `${name}, ${tagging}`;
      const frame = solicit({ ...fields, tags });
      const solicitation = parseSolicitation(guarded(frame));
      assert.is(solicitation !== undefined, isAnswered, what);
      if (!solicitation) continue;
      const { ip, askerIp, ...others } = solicitation;
      assert.equal(ipNativeBytes(ip), fields.target ?? TARGET_6, what);
      assert.equal(ipNativeBytes(askerIp), fields.source ?? HOST_6, what);
      const isDad = name.startsWith('DAD');
      assert.equal(others, { asker: ASKER, isDad, vlan, headerBytes: 14 + 4 * tags.length }, what);
      const answer = advertisement(frame, solicitation, OWNER)!;
      assert.equal(answer, advertisementTwin(fields, tags), what);
    }
  }
  const bogon = solicit({ tags: [{ type: 0x8100, control: 0x1005 }] });
  assert.is(parseSolicitation(bogon), undefined, 'CFI');
  const bare = ethernet(ETHERTYPE_IPV6, solicit().subarray(14, 14 + 63), {
    destination: macBytes(macOf(SOLICITED_NODE)),
  });
  assert.is(parseSolicitation(guarded(bare)), undefined, 'one byte less than a solicitation');
});

/** The answer that is due, put together in another way. */
function advertisementTwin(fields: Solicit, tags: Tags): Uint8Array {
  const isDad = fields.source === UNSPECIFIED;
  const target = fields.target ?? TARGET_6;
  const destination = isDad ? ALL_NODES : (fields.source ?? HOST_6);
  const message = concat(
    Uint8Array.of(136, 0, 0, 0, isDad ? 0x20 : 0x60, 0, 0, 0),
    target,
    Uint8Array.of(2, 1),
    macBytes(OWNER),
  );
  const pseudo = pseudoHeader(target, destination, 58, 32);
  message.set(bigEndian(0xffff - onesComplementSum(concat(pseudo, message)), 2), 2);
  return ethernet(
    ETHERTYPE_IPV6,
    concat(Uint8Array.of(0x60, 0, 0, 0, 0, 32, 58, 255), target, destination, message),
    { source: macBytes(OWNER), destination: macBytes(isDad ? ALL_NODES_MAC : ASKER), tags },
  );
}

proxy('NDP: canonical text of what is asked for', () => {
  for (const ip of ['fe80::12:3456', '2001:db8:0:1:1:1:12:3456', 'fd00:1:0:2::12:3456']) {
    assert.is(parseSolicitation(solicit({ target: ip6(ip) }))?.ip, ip);
  }
  assert.is(parseSolicitation(solicit({ source: ip6('2001:db8::1') }))?.askerIp, '2001:db8::1');
  assert.is(parseSolicitation(solicit(DAD))?.askerIp, '::');
});

proxy('NDP: an unfinished checksum passes only where the kernel says that it is one', () => {
  for (const { tags } of TAGGINGS) {
    for (const [checksum, finished, unfinished] of [
      ['finished', true, true],
      ['partial', false, true],
      ['wrong', false, false],
      ['none', false, false],
    ] as const) {
      const frame = solicit({ checksum, tags });
      const passes = (isChecksumUnfinished: boolean) =>
        parseSolicitation(frame, { isChecksumUnfinished }) !== undefined;
      assert.is(passes(false), finished, checksum);
      assert.is(passes(true), unfinished, `${checksum}, NEEDS_CSUM`);
    }
  }
});

proxy('NDP: silence when the address is the asker’s own, or at no interface', () => {
  for (const fields of [{}, DAD, UNICAST]) {
    const frame = solicit(fields);
    const solicitation = parseSolicitation(frame)!;
    for (const mac of [ASKER, 0, GROUP, BROADCAST]) {
      assert.is(advertisement(frame, solicitation, mac), undefined);
    }
    assert.ok(advertisement(frame, solicitation, OTHER), 'somebody else has it');
  }
});

proxy('NDP: an unsolicited advertisement, byte by byte', () => {
  for (const vlan of [0, 1, 4094]) {
    const frame = unsolicitedAdvertisement({ mac: OWNER, ip: '2001:db8::ab12:3456', vlan });
    const tags = vlan === 0 ? [] : [{ type: 0x8100, control: vlan }];
    assert.equal(frame, advertisementTwin({ source: UNSPECIFIED }, tags));
    assert.is(frame.length, vlan === 0 ? 86 : 90);
  }
});

proxy('announcements of what cannot be announced are our own mistake', () => {
  const isMistake = (error: Error) => error instanceof AssertionError;
  const four = { mac: OWNER, ip: '10.40.50.2', vlan: 0 };
  const six = { mac: OWNER, ip: '2001:db8::1', vlan: 0 };
  assert.throws(() => gratuitousArp({ ...four, ip: six.ip }), isMistake);
  assert.throws(() => unsolicitedAdvertisement({ ...six, ip: four.ip }), isMistake);
  for (const bad of [{ vlan: -1 }, { vlan: 4095 }, { vlan: 1.5 }, { mac: GROUP }, { mac: 0 }]) {
    assert.throws(() => gratuitousArp({ ...four, ...bad }), isMistake);
    assert.throws(() => unsolicitedAdvertisement({ ...six, ...bad }), isMistake);
  }
});

// DHCP

const NOBODY_TO_ALL = { source: Uint8Array.of(0, 0, 0, 0), destination: Uint8Array.of(255, 255, 255, 255) };
/** Discover, and the end. */
const DISCOVER = Uint8Array.of(53, 1, 1, 255);

/** A client's message up to its cookie. */
function bootp(): Uint8Array {
  const message = new Uint8Array(240);
  message.set([1, 1, 6, 0, 0xfe, 0xdc, 0xba, 0x98]);
  message.set(macBytes(ASKER), 28);
  message.set([0x63, 0x82, 0x53, 0x63], 236);
  return message;
}

interface Dhcp {
  readonly message?: Uint8Array;
  readonly ports?: readonly [source: number, destination: number];
  readonly checksum?: ChecksumKind;
  readonly protocol?: number;
  readonly ipOptions?: Uint8Array;
  readonly fragment?: { readonly offset: number; readonly more: boolean };
  readonly etherType?: number;
  readonly macSource?: number;
  readonly macDestination?: number;
  readonly tags?: Tags;
  readonly padding?: number;
  /** Change to the IPv4 packet: offset, then bytes. */
  readonly edit?: readonly [at: number, ...values: number[]];
}

function dhcp(fields: Dhcp = {}): Uint8Array {
  const { message = concat(bootp(), DISCOVER), ports = [68, 67], protocol = 17, edit, fragment } = fields;
  const { checksum = 'finished', ipOptions, macSource = ASKER, macDestination = BROADCAST } = fields;
  const datagram = udp({
    ends: NOBODY_TO_ALL,
    sourcePort: ports[0],
    destinationPort: ports[1],
    payload: message,
    checksum,
  });
  const packet = ipv4({
    ends: NOBODY_TO_ALL,
    protocol,
    payload: datagram,
    ...(ipOptions ? { options: ipOptions } : {}),
    ...(fragment ? { fragment } : {}),
  });
  const payload = concat(edit ? edited(packet, ...edit) : packet, new Uint8Array(fields.padding ?? 0));
  return ethernet(fields.etherType ?? ETHERTYPE_IPV4, payload, {
    source: macBytes(macSource),
    destination: macBytes(macDestination),
    tags: fields.tags ?? [],
  });
}

/** Bytes of the IPv4 packet of `dhcp()`. */
const DHCP_PACKET_BYTES = 20 + 8 + 244;

const DHCP_CASES: readonly [name: string, fields: Dhcp, isTaken: boolean][] = [
  ['a discover', {}, true],
  ['padded to 300 bytes', { message: concat(bootp(), DISCOVER, new Uint8Array(56)) }, true],
  ['without any option', { message: bootp() }, true],
  ['a byte less than the cookie', { message: bootp().subarray(0, 239) }, false],
  ['with an unfinished checksum', { checksum: 'partial' }, true],
  ['without checksum', { checksum: 'none' }, true],
  ['with IPv4 options', { ipOptions: counting(8, 1) }, true],
  ['with 40 bytes of IPv4 options', { ipOptions: new Uint8Array(40).fill(1) }, true],
  ['in a padded frame', { padding: 9 }, true],
  ['of 1500 bytes', { padding: 1500 - DHCP_PACKET_BYTES }, true],
  ['of 1501 bytes', { padding: 1501 - DHCP_PACKET_BYTES }, false],
  ['don’t fragment', { edit: [6, 0x40, 0] }, true],
  ['a first fragment', { fragment: { offset: 0, more: true } }, false],
  ['a later fragment', { fragment: { offset: 1, more: true } }, false],
  ['a last fragment', { fragment: { offset: 256, more: false } }, false],
  ['the largest offset', { edit: [6, 0x1f, 0xff] }, false],
  ['another EtherType', { etherType: 0x86dd }, false],
  ['to one interface', { macDestination: OWNER }, false],
  ['to a group', { macDestination: 0x01005e000001 }, false],
  ['from a group', { macSource: GROUP }, false],
  ['from MAC zero', { macSource: 0 }, false],
  ['version 6, protocol 17', { edit: [0, 0x65] }, false],
  ['version 4, protocol 6', { protocol: 6 }, false],
  ['version 6, protocol 6', { protocol: 6, edit: [0, 0x65] }, false],
  ['header length 0', { edit: [0, 0x40] }, false],
  ['header length 16', { edit: [0, 0x44] }, false],
  ['header length 24, none of them options', { edit: [0, 0x46] }, false],
  ['header length beyond the packet', { edit: [0, 0x4f, 0, 0, 21] }, false],
  ['total length 0', { edit: [2, 0, 0] }, false],
  ['total length 27', { edit: [2, 0, 27] }, false],
  ['total length one less', { edit: [2, 1, (DHCP_PACKET_BYTES - 1) % 256] }, false],
  ['total length one more', { edit: [2, 1, (DHCP_PACKET_BYTES + 1) % 256] }, false],
  ['total length one more, padded', { edit: [2, 1, (DHCP_PACKET_BYTES + 1) % 256], padding: 1 }, true],
  ['total length 65535', { edit: [2, 255, 255] }, false],
  ['from port 67: a relay', { ports: [67, 67] }, false],
  ['from port 67 to 68: a server', { ports: [67, 68] }, false],
  ['to port 69', { ports: [68, 69] }, false],
  ['from port 324', { ports: [0x144, 67] }, false],
  ['to port 323', { ports: [68, 0x143] }, false],
  ['UDP length 0', { edit: [24, 0, 0] }, false],
  ['UDP length 7', { edit: [24, 0, 7] }, false],
  ['UDP length that ends in the cookie', { edit: [24, 0, 247] }, false],
  ['UDP length that ends behind the cookie', { edit: [24, 0, 248] }, true],
  ['UDP length one more than there is', { edit: [24, 0, 253] }, false],
  ['UDP length that reaches into padding', { edit: [24, 0, 253], padding: 8 }, false],
  ['UDP length 65535', { edit: [24, 255, 255] }, false],
  ['operation 0', { edit: [28, 0] }, false],
  ['a reply', { edit: [28, 2] }, false],
  ['hardware type 6', { edit: [29, 6] }, false],
  ['hardware length 16', { edit: [30, 16] }, false],
  ['cookie, first byte', { edit: [28 + 236, 0x62] }, false],
  ['cookie, last byte', { edit: [28 + 239, 0x64] }, false],
  ['for another client', { edit: [28 + 28, 6] }, true],
];

proxy('DHCP: every check, with every tagging', () => {
  for (const { name: tagging, tags, vlan } of TAGGINGS) {
    for (const [name, fields, isTaken] of DHCP_CASES) {
      const what = `${name}, ${tagging}`;
      const frame = dhcp({ ...fields, tags });
      const request = parseDhcpRequest(guarded(frame));
      assert.is(request !== undefined, isTaken, what);
      if (!request) continue;
      const client = name === 'for another client' ? 0x060000000001 : ASKER;
      assert.equal(request, { asker: ASKER, client, transaction: 0xfedcba98, vlan }, what);
    }
  }
  // All of a datagram, behind the first 16 bytes of an IPv4 header that says it is no longer.
  const whole = dhcp({ edit: [0, 0x44] });
  const overlapped = concat(whole.subarray(0, 14 + 16), whole.subarray(14 + 20));
  assert.is(
    parseDhcpRequest(edited(overlapped, 16, 1, 12)),
    undefined,
    'header length 16, and the rest behind it',
  );
  const bogon = dhcp({ tags: [{ type: 0x8100, control: 0x1005 }] });
  assert.is(parseDhcpRequest(bogon), undefined, 'CFI');
});

proxy('DHCP: the request goes on with another destination alone', () => {
  for (const { tags } of TAGGINGS) {
    for (const checksum of ['finished', 'partial'] as const) {
      const frame = dhcp({ tags, checksum, padding: 3 });
      const before = frame.slice();
      const sent = dhcpRequestTo(frame, OWNER)!;
      assert.equal(sent, dhcp({ tags, checksum, padding: 3, macDestination: OWNER }));
      assert.equal(frame, before);
      assert.is(parseDhcpRequest(sent), undefined, 'it does not come back to the proxy');
    }
  }
});

proxy('DHCP: never to a group or nobody, for it would come back, nor to its sender', () => {
  for (const mac of [BROADCAST, GROUP, 0, ASKER]) assert.is(dhcpRequestTo(dhcp(), mac), undefined);
});

// All of them

/** One frame of each kind that is taken, without bytes to spare. */
const QUESTIONS: readonly Uint8Array[] = TAGGINGS.flatMap(({ tags }) => [
  arpRequest({ tags }),
  solicit({ tags }),
  solicit({ ...DAD, tags }),
  solicit({ options: concat(NONCE, sourceMac(ASKER), NONCE), tags }),
  dhcp({ message: bootp(), tags }),
  dhcp({ message: bootp(), ipOptions: counting(8, 1), tags }),
]);

proxy('cut anywhere, a question is none, and nothing is read behind the cut', () => {
  for (const frame of QUESTIONS) {
    assert.not.ok(isNothing(throughAll(frame)));
    for (let length = 0; length < frame.length; length++) {
      // In the memory of the whole frame, as in a ring.
      assert.ok(isNothing(throughAll(frame.subarray(0, length))), `${length} of ${frame.length} bytes`);
    }
  }
});

proxy('frames in the middle of other memory read the same', () => {
  for (const frame of QUESTIONS) {
    const memory = new Uint8Array(frame.length + 20).fill(0xff);
    memory.set(frame, 10);
    assert.equal(throughAll(memory.subarray(10, 10 + frame.length)), throughAll(frame));
  }
});

proxy('ordinary traffic is no question', () => {
  for (const payloadBytes of [0, 18, 300, 1400]) {
    for (const { name, frame } of sampleFrames(payloadBytes)) {
      if (name === 'arp') continue;
      assert.ok(isNothing(throughAll(frame)), name);
    }
  }
});

proxy('garbage throws nothing', () => {
  const whole = fc.uint8Array({ maxLength: 400 });
  const typed = fc
    .tuple(
      fc.constantFrom(ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6),
      fc.uint8Array({ maxLength: 400 }),
      fc.constantFrom(...TAGGINGS),
      fc.constantFrom(BROADCAST, OWNER, ALL_NODES_MAC),
    )
    .map(([type, payload, { tags }, destination]) =>
      ethernet(type, payload, { tags, destination: macBytes(destination) }),
    );
  const damaged = fc
    .tuple(
      fc.constantFrom(...QUESTIONS),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
      fc.nat({ max: 60 }),
      fc.uint8Array({ maxLength: 20 }),
    )
    .map(([question, edits, cut, tail]) => {
      const frame = concat(question.subarray(0, question.length - Math.min(cut, 40) * (cut % 2)), tail);
      for (const [at, value] of edits) frame[at % frame.length] = value;
      return frame;
    });
  fc.assert(
    fc.property(fc.oneof(whole, typed, damaged), (frame) => {
      throughAll(frame);
    }),
    { numRuns: 10_000 },
  );
});

/**
 * The options of a solicitation from `asker` in the plainest way: undefined when bad, else whether it names
 * itself.
 */
function optionsTwin(options: Uint8Array, asker: number): boolean | undefined {
  if (options.length === 0) return false;
  const units = options[1];
  if (units === undefined || units === 0 || units * 8 > options.length) return undefined;
  const isSource = options[0] === 1;
  if (isSource && (units !== 1 || macAt(options, 2) !== asker)) return undefined;
  const rest = optionsTwin(options.subarray(units * 8), asker);
  return rest === undefined ? undefined : isSource || rest;
}

proxy('NDP: options of any kind, compared with a slow twin', () => {
  const one = fc.oneof(
    fc.constant(sourceMac(ASKER)),
    fc.constant(NONCE),
    fc
      .tuple(fc.constantFrom(1, 2, 14, 253), fc.nat(3), fc.uint8Array({ maxLength: 24 }))
      .map(([type, units, content]) => Uint8Array.of(type, units, ...content)),
  );
  let taken = 0;
  fc.assert(
    fc.property(fc.array(one, { maxLength: 5 }), fc.boolean(), (list, isDad) => {
      const options = concat(...list);
      const expected = optionsTwin(options, ASKER);
      const frame = solicit({ options, ...(isDad ? { source: UNSPECIFIED } : {}) });
      const isTaken = parseSolicitation(guarded(frame)) !== undefined;
      assert.is(isTaken, expected === !isDad);
      if (isTaken) taken++;
    }),
    { numRuns: 20_000 },
  );
  assert.ok(taken > 500, `${taken} were taken`);
});

proxy('checksums: compared with a slow twin, any part of any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1500 }), fc.nat(40), fc.nat(40), (bytes, skip, leave) => {
      const from = Math.min(skip, bytes.length);
      const to = Math.max(from, bytes.length - leave);
      assert.is(sumOf(guarded(bytes), from, to), onesComplementSum(bytes.subarray(from, to)));
    }),
    { numRuns: 5000 },
  );
  const all = new Uint8Array(1500).fill(0xff);
  assert.is(sumOf(all, 0, 1500, 0xffff), 0xffff);
  assert.is(sumOf(all, 0, 0, 0x1ffff), 1);
});

// As others read it

const ASKER_TEXT = '02:00:00:00:00:01';
const OWNER_TEXT = '02:08:20:00:00:aa';
const BROADCAST_TEXT = 'ff:ff:ff:ff:ff:ff';
/** Ids of the service tag and of the other one, in the order of TAGGINGS. */
const VLAN_IDS = ['|', '|5', '|4094', '|0', '77|', '100|5'];

testWith(proxy, ['tshark'], 'tshark reads our ARP as we mean it', () => {
  const fields = ['eth.dst', 'eth.src', 'ieee8021ad.id', 'vlan.id', 'arp.opcode', 'arp.isgratuitous'];
  fields.push('arp.src.hw_mac', 'arp.src.proto_ipv4', 'arp.dst.hw_mac', 'arp.dst.proto_ipv4');
  const replies = TAGGINGS.map(({ tags }) => arpReply(arpRequest({ tags }), OWNER)!);
  const toProbe = arpReply(arpRequest({ senderIp: [0, 0, 0, 0] }), OWNER)!;
  const announcements = [0, 9].map((vlan) => gratuitousArp({ mac: OWNER, ip: '10.40.50.2', vlan }));
  const reply = (vlan: string, askerIp: string) =>
    `${ASKER_TEXT}|${OWNER_TEXT}|${vlan}|2||${OWNER_TEXT}|10.40.50.2|${ASKER_TEXT}|${askerIp}`;
  const announcement = (vlan: string) =>
    `${BROADCAST_TEXT}|${OWNER_TEXT}|${vlan}|1|1|${OWNER_TEXT}|10.40.50.2|${BROADCAST_TEXT}|10.40.50.2`;
  assert.equal(dissected([...replies, toProbe, ...announcements], fields), [
    ...VLAN_IDS.map((vlan) => reply(vlan, '10.20.30.1')),
    reply('|', '0.0.0.0'),
    announcement('|'),
    announcement('|9'),
  ]);
});

testWith(proxy, ['tshark'], 'tshark reads our NDP as we mean it', () => {
  const fields = [
    'eth.dst',
    'eth.src',
    'ieee8021ad.id',
    'vlan.id',
    'ipv6.src',
    'ipv6.dst',
    'ipv6.hlim',
    'ipv6.plen',
  ];
  fields.push('icmpv6.type', 'icmpv6.code', 'icmpv6.checksum.status');
  fields.push('icmpv6.nd.na.flag.r', 'icmpv6.nd.na.flag.s', 'icmpv6.nd.na.flag.o');
  fields.push('icmpv6.nd.na.target_address', 'icmpv6.opt.type', 'icmpv6.opt.length');
  fields.push('icmpv6.opt.target_linkaddr');
  const answer = (asked: Solicit) => {
    const frame = solicit(asked);
    return advertisement(frame, parseSolicitation(frame)!, OWNER)!;
  };
  const answers = TAGGINGS.map(({ tags }) => answer({ tags }));
  const dadAnswers = TAGGINGS.map(({ tags }) => answer({ ...DAD, tags }));
  const unsolicited = [0, 9].map((vlan) =>
    unsolicitedAdvertisement({ mac: OWNER, ip: '2001:db8::ab12:3456', vlan }),
  );
  const target = '2001:db8::ab12:3456';
  const body = (isSolicited: string) => `255|32|136|0|1|0|${isSolicited}|1|${target}|2|1|${OWNER_TEXT}`;
  const solicited = (vlan: string) => `${ASKER_TEXT}|${OWNER_TEXT}|${vlan}|${target}|fe80::1|${body('1')}`;
  const toAll = (vlan: string) => `33:33:00:00:00:01|${OWNER_TEXT}|${vlan}|${target}|ff02::1|${body('0')}`;
  assert.equal(dissected([...answers, ...dadAnswers, ...unsolicited], fields), [
    ...VLAN_IDS.map(solicited),
    ...VLAN_IDS.map(toAll),
    toAll('|'),
    toAll('|9'),
  ]);
});

testWith(proxy, ['tshark'], 'tshark reads our DHCP as we mean it', () => {
  const fields = ['eth.dst', 'eth.src', 'ieee8021ad.id', 'vlan.id', 'ip.dst', 'udp.srcport', 'udp.dstport'];
  fields.push('udp.checksum.status', 'dhcp.type', 'dhcp.hw.mac_addr', 'dhcp.option.dhcp');
  const frames = TAGGINGS.map(({ tags }) => dhcpRequestTo(dhcp({ tags }), OWNER)!);
  const row = (vlan: string) =>
    `${OWNER_TEXT}|${ASKER_TEXT}|${vlan}|255.255.255.255|68|67|1|1|${ASKER_TEXT}|1`;
  assert.equal(dissected(frames, fields), VLAN_IDS.map(row));
});

proxy.run();
