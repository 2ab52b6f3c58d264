/** src/sys/netlink and src/sys/netns: against the kernel in namespaces of their own, and against played answers. */
import { readdirSync, readlinkSync } from 'node:fs';
import fc from 'fast-check';
import { suite as createSuite } from 'uvu';
import * as assert from 'uvu/assert';
import { AssertionError, OverlayError } from '../src/errors.js';
import {
  AF_INET,
  AF_NETLINK,
  AF_UNIX,
  macros,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCK_SEQPACKET,
} from '../src/sys/abi.js';
import { monotonicMs } from '../src/sys/clock.js';
import { must, SystemError } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { parseAddress, parseNeighbour } from '../src/sys/netlink/address.js';
import { EventSocket, type LinkEvent, Netlink } from '../src/sys/netlink/index.js';
import { parseLink } from '../src/sys/netlink/link.js';
import {
  type Attribute,
  encodeAttributes,
  encodeBody,
  encodeMessage,
  type Message,
  parseAttributes,
  parseMessages,
  readText,
  readU8,
  readU32,
  text,
  u32,
} from '../src/sys/netlink/message.js';
import { checkResult, parseEvent, RequestSocket } from '../src/sys/netlink/socket.js';
import { createNamespace, currentNamespace, inNamespace, namespaceOfPid } from '../src/sys/netns.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { testWith } from './harness/needs.js';

const suite = createSuite('netlink');

const {
  NETLINK_ROUTE,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} = macros['linux/netlink.h'];
const { RTM_GETADDR, RTM_GETLINK, RTM_NEWLINK, RTM_NEWADDR, RTM_DELLINK, RTM_NEWNEIGH } =
  macros['linux/rtnetlink.h'];
const { IFA_F_NODAD } = macros['linux/if_addr.h'];
const { NUD_PERMANENT } = macros['linux/neighbour.h'];
const ENOENT = 2;

/** A namespace with a request socket in it. */
interface Host {
  readonly fd: number;
  readonly netlink: Netlink;
}

/** Runs `work` with `count` new namespaces, which are gone afterwards with everything in them. */
function withHosts(count: number, work: (...hosts: Host[]) => void): void {
  const hosts: Host[] = [];
  try {
    for (let made = 0; made < count; made++) {
      const fd = createNamespace();
      hosts.push({ fd, netlink: inNamespace(fd, () => new Netlink()) });
    }
    work(...hosts);
  } finally {
    for (const { fd, netlink } of hosts) {
      netlink.close();
      closeFd(fd);
    }
  }
}

/** The error of `work`, which must be an OverlayError of that errno. */
function failure(errno: string, work: () => unknown): OverlayError {
  try {
    work();
  } catch (error) {
    assert.instance(error, OverlayError, String(error));
    assert.is((error as OverlayError).errno, errno, String(error));
    return error as OverlayError;
  }
  assert.unreachable(`no ${errno}`);
  throw new Error();
}

/** What `work` answers, or undefined when it throws an OverlayError; anything else that it throws passes. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof OverlayError) return undefined;
    throw error;
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Which namespace a descriptor is of. */
function identity(fd: number): string {
  return readlinkSync(`/proc/self/fd/${fd}`);
}

/** Which namespace `open` gives a descriptor of. */
function namespaceOf(open: () => number): string {
  const fd = open();
  try {
    return identity(fd);
  } finally {
    closeFd(fd);
  }
}

/** Sends a UDP datagram of four bytes from the namespace of the calling thread. */
function sendDatagram(ip: string): void {
  const fd = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    const address = sockaddr(AF_INET, ip, 9);
    must(libc.sendto(fd, u32(1), 4, 0, address, address.length), 'sendto');
  } finally {
    closeFd(fd);
  }
}

/** What `look` finds within a second, blocking the thread. */
function until<T>(look: () => T | undefined): T | undefined {
  const end = monotonicMs() + 1000;
  for (;;) {
    const found = look();
    if (found !== undefined || monotonicMs() > end) return found;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
  }
}

function addressesOf(events: readonly LinkEvent[]): Extract<LinkEvent, { kind: 'address' }>[] {
  return events.filter((event) => event.kind === 'address');
}

// ─── Links, addresses, neighbours ───────────────────────────────────────────────────────────────────────

testWith(suite, ['root'], 'a new namespace holds a loopback that is down', () => {
  withHosts(1, ({ netlink }) => {
    const lo = netlink.getLink('lo');
    assert.is(lo.index, 1);
    assert.is(lo.mac, '00:00:00:00:00:00');
    assert.is(lo.mtu, 65536);
    assert.is(lo.isUp, false);
    assert.is(lo.kind, undefined);
    assert.equal(netlink.getLink(1), lo);
    assert.ok(netlink.listLinks().some(({ name }) => name === 'lo'));
  });
});

testWith(suite, ['root'], 'a veth pair across two namespaces comes up and counts', () => {
  withHosts(2, (left, right) => {
    left.netlink.createVeth('left', 'right', { peerNamespaceFd: right.fd });
    const a = left.netlink.getLink('left');
    const b = right.netlink.getLink('right');
    assert.is(a.kind, 'veth');
    assert.is(a.linkIndex, b.index);
    assert.is(a.isUp, false);
    assert.is(a.hasCarrier, false);
    failure('ENODEV', () => left.netlink.getLink('right'));

    left.netlink.setLink(a.index, { up: true });
    assert.is(left.netlink.getLink('left').hasCarrier, false);
    right.netlink.setLink(b.index, { up: true });
    const up = left.netlink.getLink('left');
    assert.is(up.isUp, true);
    assert.is(up.hasCarrier, true);
    // The operational state follows a moment later (net/core/link_watch.c).
    assert.ok(['up', 'lowerlayerdown', 'down'].includes(up.operState), up.operState);

    left.netlink.addAddress(a.index, '192.0.2.1/24');
    right.netlink.addAddress(b.index, '192.0.2.2/24');
    // IPv6 of the links themselves (MLD, router solicitation) is sent by and by; a datagram is sent now.
    inNamespace(left.fd, () => sendDatagram('192.0.2.2'));
    const { stats } = right.netlink.getLink('right');
    assert.is(typeof stats.rxPackets, 'bigint');
    assert.ok(left.netlink.getLink('left').stats.txPackets > 0n);
    assert.ok(left.netlink.getLink('left').stats.txBytes > 0n);

    left.netlink.setLink(a.index, { up: false });
    assert.is(right.netlink.getLink('right').hasCarrier, false);
    left.netlink.deleteLink(a.index);
    failure('ENODEV', () => right.netlink.getLink('right'));
  });
});

testWith(suite, ['root'], 'a veth peer goes to the namespace of a process', () => {
  withHosts(1, ({ netlink }) => {
    const home = new Netlink();
    const name = `t${process.pid}`;
    try {
      netlink.createVeth('far', name, { peerNamespacePid: process.pid });
      assert.is(home.getLink(name).kind, 'veth');
      netlink.deleteLink(netlink.getLink('far').index);
      failure('ENODEV', () => home.getLink(name));
      netlink.createVeth(name, 'near');
      netlink.setLink(netlink.getLink(name).index, { namespacePid: process.pid });
      failure('ENODEV', () => netlink.getLink(name));
      home.deleteLink(home.getLink(name).index);
    } finally {
      home.close();
    }
  });
});

testWith(suite, ['root'], 'a link changes mtu, mac, alias and name in one request', () => {
  withHosts(1, ({ netlink }) => {
    netlink.createVeth('a', 'b');
    const { index } = netlink.getLink('a');
    netlink.setLink(index, { mtu: 1400, mac: '02:00:00:00:00:0A', alias: 'über', name: 'renamed', up: true });
    const link = netlink.getLink(index);
    assert.is(link.name, 'renamed');
    assert.is(link.mtu, 1400);
    assert.is(link.mac, '02:00:00:00:00:0a');
    assert.is(link.alias, 'über');
    assert.is(link.isUp, true);
    netlink.setLink(index, { alias: '' });
    assert.is(netlink.getLink(index).alias, undefined);
    netlink.setLink(index, {});
  });
});

testWith(suite, ['root'], 'a link moves to another namespace and is set up there', () => {
  withHosts(2, (left, right) => {
    left.netlink.createVeth('a', 'b');
    left.netlink.setLink(left.netlink.getLink('b').index, { namespaceFd: right.fd, name: 'moved', up: true });
    failure('ENODEV', () => left.netlink.getLink('b'));
    assert.is(right.netlink.getLink('moved').isUp, true);
  });
});

testWith(suite, ['root'], 'a bridge takes a port and lets go of it', () => {
  withHosts(1, ({ netlink }) => {
    netlink.createBridge('br0');
    netlink.createVeth('a', 'b');
    const bridge = netlink.getLink('br0');
    const { index } = netlink.getLink('a');
    assert.is(bridge.kind, 'bridge');
    netlink.setLink(index, { master: bridge.index });
    assert.is(netlink.getLink('a').master, bridge.index);
    netlink.setLink(index, { master: null });
    assert.is(netlink.getLink('a').master, undefined);
  });
});

testWith(suite, ['root'], 'a macvlan is made over a veth, here and in another namespace', () => {
  withHosts(2, (left, right) => {
    left.netlink.createVeth('a', 'b');
    const lower = left.netlink.getLink('a').index;
    left.netlink.createMacvlan('mv0', lower, { mode: 'bridge', mac: '02:00:00:00:00:01' });
    const link = left.netlink.getLink('mv0');
    assert.is(link.kind, 'macvlan');
    assert.is(link.linkIndex, lower);
    assert.is(link.mac, '02:00:00:00:00:01');
    left.netlink.createMacvlan('mv1', lower, { mode: 'bridge', namespaceFd: right.fd });
    assert.is(right.netlink.getLink('mv1').kind, 'macvlan');
    failure('ENODEV', () => left.netlink.getLink('mv1'));
  });
});

testWith(suite, ['root'], 'addresses of both families come and go', () => {
  withHosts(1, ({ netlink }) => {
    netlink.createVeth('a', 'b');
    const { index } = netlink.getLink('a');
    netlink.setLink(index, { addrGenModeNone: true });
    netlink.setLink(netlink.getLink('b').index, { up: true, addrGenModeNone: true });
    netlink.setLink(index, { up: true });
    assert.equal(netlink.listAddresses(index), [], 'no link-local address of its own');

    netlink.addAddress(index, '192.0.2.1/24');
    netlink.addAddress(index, '198.51.100.7/31');
    netlink.addAddress(index, '2001:DB8:0::1/64', { noDad: true });
    const addresses = netlink.listAddresses(index);
    assert.equal(
      addresses.map(({ address }) => address),
      ['192.0.2.1/24', '198.51.100.7/31', '2001:db8::1/64'],
    );
    assert.ok(addresses[2]!.flags & IFA_F_NODAD);
    assert.is(netlink.listAddresses().length, 3);
    assert.equal(netlink.listAddresses(index + 1000), []);
    failure('EEXIST', () => netlink.addAddress(index, '192.0.2.1/24'));

    netlink.removeAddress(index, '2001:db8::1/64');
    netlink.removeAddress(index, '192.0.2.1/24');
    assert.is(netlink.listAddresses(index).length, 1);
    failure('EADDRNOTAVAIL', () => netlink.removeAddress(index, '192.0.2.1/24'));
    failure('ENODEV', () => netlink.addAddress(9999, '192.0.2.1/24'));

    // Up again with a link-local address made from the MAC.
    netlink.setLink(index, { up: false, addrGenModeNone: false, mac: '02:00:00:00:00:0a' });
    netlink.setLink(index, { up: true });
    assert.ok(netlink.listAddresses(index).some(({ address }) => address === 'fe80::ff:fe00:a/64'));
  });
});

testWith(suite, ['root'], 'neighbours of both families come, change and go', () => {
  withHosts(1, ({ netlink }) => {
    netlink.createVeth('a', 'b');
    const { index } = netlink.getLink('a');
    netlink.setLink(index, { up: true });
    netlink.addAddress(index, '192.0.2.1/24');
    netlink.addNeighbour(index, '192.0.2.2', '02:00:00:00:00:02');
    netlink.addNeighbour(index, '192.0.2.2', '02:00:00:00:00:03');
    netlink.addNeighbour(index, '2001:db8::2', '02:00:00:00:00:04');
    const permanent = netlink.listNeighbours(index).filter(({ state }) => state === NUD_PERMANENT);
    assert.equal(permanent.map(({ ip, mac }) => `${ip} ${mac}`).sort(), [
      '192.0.2.2 02:00:00:00:00:03',
      '2001:db8::2 02:00:00:00:00:04',
    ]);
    netlink.removeNeighbour(index, '192.0.2.2');
    netlink.removeNeighbour(index, '2001:db8::2');
    assert.is(netlink.listNeighbours(index).filter(({ state }) => state === NUD_PERMANENT).length, 0);
    failure('ENOENT', () => netlink.removeNeighbour(index, '192.0.2.9'));
  });
});

testWith(suite, ['root'], 'dumps of more than one datagram are whole', () => {
  withHosts(1, ({ netlink }) => {
    for (let pair = 0; pair < 105; pair++) netlink.createVeth(`a${pair}`, `b${pair}`);
    const links = netlink.listLinks();
    assert.ok(links.length >= 211, `${links.length} links`);
    const names = new Set(links.map(({ name }) => name));
    for (let pair = 0; pair < 105; pair++) assert.ok(names.has(`a${pair}`) && names.has(`b${pair}`));

    const expected: string[] = [];
    for (let host = 1; host <= 250; host++) {
      expected.push(`10.0.${host}.1/32`, `2001:db8::${host.toString(16)}/128`);
      netlink.addAddress(1, expected.at(-2)!);
      netlink.addAddress(1, expected.at(-1)!);
    }
    const found = netlink.listAddresses(1).map(({ address }) => address);
    assert.equal(found.sort(), expected.sort());
  });
});

// ─── Errors ─────────────────────────────────────────────────────────────────────────────────────────────

testWith(suite, ['root'], 'the kernel’s refusals are errors with a name and a purpose', () => {
  withHosts(1, ({ netlink }) => {
    const missing = failure('ENODEV', () => netlink.getLink('nowhere'));
    assert.instance(missing, SystemError);
    assert.match(missing.message, /^netlink: get link nowhere.*: .*\(ENODEV\)$/);
    failure('ENODEV', () => netlink.getLink(9999));
    failure('ENODEV', () => netlink.deleteLink(9999));
    failure('ENODEV', () => netlink.setLink(9999, { up: true }));
    netlink.createVeth('a', 'b');
    assert.match(failure('EEXIST', () => netlink.createVeth('a', 'c')).message, 'create veth a');
    failure('EEXIST', () => netlink.createBridge('b'));
    const { index } = netlink.getLink('a');
    failure('EEXIST', () => netlink.setLink(index, { name: 'b' }));
    const mtu = failure('EINVAL', () => netlink.setLink(index, { mtu: 1 }));
    assert.match(mtu.message, `netlink: set link ${index} mtu 1 (mtu less than device minimum): `);
    failure('EINVAL', () => netlink.setLink(index, { mtu: 1e6 }));
    // And the socket still works.
    assert.is(netlink.getLink(index).mtu, 1500);
  });
});

suite('what cannot be is refused before the kernel sees it', () => {
  const netlink = new Netlink();
  try {
    for (const name of ['', 'lo\0x', 'sixteen-bytes-xx', 'ü'.repeat(8)]) {
      assert.is(failure('EINVAL', () => netlink.getLink(name)).code, 'bad_link_name');
    }
    for (const mac of ['', '02:00:00:00:00', '02:00:00:00:00:0g', '2:0:0:0:0:1', '02:00:00:00:00:01:02']) {
      assert.is(failure('EINVAL', () => netlink.setLink(1, { mac })).code, 'bad_mac');
    }
    const wrong = ['', '192.0.2.1', '192.0.2.1/', '192.0.2.1/33', '2001:db8::1/129', '192.0.2.1/24/1', '1/8'];
    for (const address of [...wrong, '192.0.2.1/ 8', '192.0.2.1/-1', 'fe80::1%lo/64', '192.0.2.1/24/']) {
      assert.is(failure('EINVAL', () => netlink.addAddress(1, address)).code, 'bad_address', address);
    }
    failure('EINVAL', () => netlink.setLink(1, { alias: 'x'.repeat(70000) }));
  } finally {
    netlink.close();
  }
});

// ─── Events ─────────────────────────────────────────────────────────────────────────────────────────────

testWith(suite, ['root'], 'the event stream tells what happens to links and addresses, in order', () => {
  withHosts(1, ({ fd, netlink }) => {
    const events = inNamespace(fd, () => new EventSocket());
    try {
      assert.equal(events.drain(), []);
      netlink.createVeth('a', 'b');
      const { index } = netlink.getLink('a');
      netlink.setLink(index, { addrGenModeNone: true });
      netlink.setLink(netlink.getLink('b').index, { up: true, addrGenModeNone: true });
      events.drain();

      const next = (): LinkEvent[] =>
        events.drain().filter((event) => !('index' in event) || event.index === index);
      netlink.setLink(index, { up: true, mac: '02:00:00:00:00:0a' });
      const up = next().at(-1);
      assert.equal(
        { ...up, hasCarrier: undefined },
        {
          kind: 'link',
          index,
          name: 'a',
          isUp: true,
          hasCarrier: undefined,
          mtu: 1500,
          mac: '02:00:00:00:00:0a',
          deleted: false,
        },
      );
      netlink.setLink(index, { mtu: 1400 });
      assert.ok(next().some((event) => event.kind === 'link' && event.mtu === 1400));
      netlink.addAddress(index, '192.0.2.1/24');
      assert.equal(addressesOf(next()), [
        { kind: 'address', index, address: '192.0.2.1/24', deleted: false },
      ]);
      netlink.addAddress(index, '2001:db8::1/64', { noDad: true });
      // Of an IPv6 address the kernel tells from a work queue (net/ipv6/addrconf.c, addrconf_dad_work).
      const v6 = until(() => addressesOf(next())[0]);
      assert.equal(v6, { kind: 'address', index, address: '2001:db8::1/64', deleted: false });
      netlink.removeAddress(index, '192.0.2.1/24');
      assert.equal(addressesOf(next()), [{ kind: 'address', index, address: '192.0.2.1/24', deleted: true }]);
      netlink.setLink(index, { up: false });
      assert.ok(next().some((event) => event.kind === 'link' && !event.isUp && !event.deleted));
      netlink.deleteLink(index);
      const last = next().filter((event) => event.kind === 'link' && event.deleted);
      assert.is(last.length, 1);
      assert.equal(events.drain(), []);
    } finally {
      events.close();
    }
  });
});

testWith(suite, ['root'], 'leaving a bridge is not told as a deletion', () => {
  withHosts(1, ({ fd, netlink }) => {
    const events = inNamespace(fd, () => new EventSocket());
    try {
      netlink.createBridge('br0');
      netlink.createVeth('a', 'b');
      const { index } = netlink.getLink('a');
      netlink.setLink(index, { master: netlink.getLink('br0').index });
      netlink.setLink(index, { master: null });
      const told = events.drain();
      assert.ok(told.some((event) => event.kind === 'link' && event.index === index));
      assert.not.ok(told.some((event) => event.kind === 'link' && event.deleted));
    } finally {
      events.close();
    }
  });
});

testWith(suite, ['root'], 'a full event queue yields one overrun, and the stream goes on', () => {
  withHosts(1, ({ fd, netlink }) => {
    const events = inNamespace(fd, () => new EventSocket(4096));
    try {
      for (let mtu = 1000; mtu < 1200; mtu++) netlink.setLink(1, { mtu });
      const told = events.drain();
      assert.is(told.filter(({ kind }) => kind === 'overrun').length, 1);
      netlink.setLink(1, { mtu: 1300 });
      const [event] = events.drain();
      assert.ok(event?.kind === 'link' && event.mtu === 1300);
    } finally {
      events.close();
    }
  });
});

testWith(suite, ['root'], 'a call to drain is bounded', () => {
  withHosts(1, ({ fd, netlink }) => {
    const events = inNamespace(fd, () => new EventSocket(1 << 24));
    try {
      for (let turn = 0; turn < 150; turn++) {
        netlink.addAddress(1, '192.0.2.1/32');
        netlink.removeAddress(1, '192.0.2.1/32');
      }
      const first = events.drain();
      assert.is(first.length, first.some(({ kind }) => kind === 'overrun') ? first.length : 256);
      assert.ok(events.drain().length > 0 || first.length < 256);
    } finally {
      events.close();
    }
  });
});

// ─── Namespaces and descriptors ─────────────────────────────────────────────────────────────────────────

testWith(suite, ['root'], 'the thread is in the namespace during the work, and back after it', () => {
  const here = namespaceOf(currentNamespace);
  assert.is(
    namespaceOf(() => namespaceOfPid(process.pid)),
    here,
  );
  const fd = createNamespace();
  try {
    assert.is(namespaceOf(currentNamespace), here, 'after createNamespace');
    const there = inNamespace(fd, () => namespaceOf(currentNamespace));
    assert.is.not(there, here);
    assert.is(identity(fd), there);
    assert.throws(
      () =>
        inNamespace(fd, () => {
          throw new RangeError('work failed');
        }),
      /work failed/,
    );
    assert.is(namespaceOf(currentNamespace), here, 'after work that threw');
    assert.is(
      inNamespace(fd, () => inNamespace(fd, () => 7)),
      7,
    );
    assert.throws(
      () => inNamespace(fd, async () => 1),
      (error: unknown) => error instanceof AssertionError,
    );
    assert.is(namespaceOf(currentNamespace), here);
  } finally {
    closeFd(fd);
  }
  failure('EBADF', () => inNamespace(-1, () => 1));
  failure('ENOENT', () => namespaceOfPid(2 ** 22 + 1));
  assert.is(namespaceOf(currentNamespace), here);
});

testWith(suite, ['root'], 'nothing leaks over 200 turns', () => {
  const turn = () => {
    new Netlink().close();
    const events = new EventSocket();
    events.close();
    events.close();
    const fd = createNamespace();
    inNamespace(fd, () => closeFd(currentNamespace()));
    attempt(() => inNamespace(-1, () => 1));
    closeFd(fd);
  };
  turn();
  const before = openDescriptors();
  for (let turns = 0; turns < 200; turns++) turn();
  assert.is(openDescriptors(), before);
});

// ─── A played kernel ────────────────────────────────────────────────────────────────────────────────────

/** A request socket whose kernel has answered before it is asked. Sequence numbers start at 1. */
function withPlayedKernel(
  answers: readonly Uint8Array[],
  work: (socket: RequestSocket, answer: (bytes: Uint8Array) => void) => void,
): void {
  const pair = new Int32Array(2);
  must(libc.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 'socketpair');
  const socket = new RequestSocket(pair[0]!, 60);
  try {
    const answer = (bytes: Uint8Array) => void must(libc.send(pair[1]!, bytes, bytes.length, 0), 'send');
    answers.forEach(answer);
    work(socket, answer);
  } finally {
    socket.close();
    closeFd(pair[1]!);
  }
}

const dump = { type: RTM_GETLINK, flags: NLM_F_DUMP, body: new Uint8Array(16), what: 'list links' };

function played(type: number, sequence: number, body: Uint8Array, flags = 0): Uint8Array {
  return encodeMessage({ type, flags, sequence, port: 0, body });
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

suite('a silent kernel is ETIME, and its late answer is not mistaken for the next', () => {
  withPlayedKernel([], (socket, answer) => {
    const begun = monotonicMs();
    const error = failure('ETIME', () => socket.request(dump));
    assert.is(error.code, 'netlink_timeout');
    assert.match(error.message, 'list links');
    const took = monotonicMs() - begun;
    assert.ok(took >= 55 && took < 1000, `${took} ms`);
    answer(played(RTM_NEWLINK, 1, Uint8Array.of(1), NLM_F_MULTI));
    answer(played(NLMSG_DONE, 1, u32(0), NLM_F_MULTI));
    answer(joined(played(RTM_NEWLINK, 2, Uint8Array.of(2)), played(NLMSG_DONE, 2, u32(0))));
    assert.equal(socket.request(dump), [Uint8Array.of(2)]);
  });
});

suite('a dump that was interrupted is asked for again, three times', () => {
  const interrupted = (sequence: number) =>
    joined(
      played(RTM_NEWLINK, sequence, Uint8Array.of(1), NLM_F_MULTI | NLM_F_DUMP_INTR),
      played(NLMSG_DONE, sequence, u32(0), NLM_F_MULTI),
    );
  const whole = joined(played(RTM_NEWLINK, 4, Uint8Array.of(4), NLM_F_MULTI), played(NLMSG_DONE, 4, u32(0)));
  withPlayedKernel([interrupted(1), interrupted(2), interrupted(3), whole], (socket) => {
    assert.equal(socket.request(dump), [Uint8Array.of(4)]);
  });
  withPlayedKernel([1, 2, 3, 4].map(interrupted), (socket) => {
    assert.is(failure('EAGAIN', () => socket.request(dump)).code, 'netlink_dump_interrupted');
  });
});

suite('errors carry the kernel’s words, whether the request is repeated in them or not', () => {
  const words = encodeAttributes([{ type: 1, value: text('no such thing') }]);
  const error = Uint8Array.of(...u32(-ENOENT >>> 0), ...played(RTM_GETLINK, 1, new Uint8Array()), ...words);
  const request = played(RTM_GETLINK, 1, new Uint8Array(16));
  const repeated = Uint8Array.of(...u32(-ENOENT >>> 0), ...request, ...words);
  const done = Uint8Array.of(...u32(-ENOENT >>> 0), ...words);
  for (const answer of [
    played(NLMSG_ERROR, 1, error, NLM_F_CAPPED | NLM_F_ACK_TLVS),
    played(NLMSG_ERROR, 1, repeated, NLM_F_ACK_TLVS),
    played(NLMSG_DONE, 1, done, NLM_F_ACK_TLVS | NLM_F_MULTI),
  ]) {
    withPlayedKernel([answer], (socket) => {
      const { message } = failure('ENOENT', () => socket.request(dump));
      assert.is(message, 'netlink: list links (no such thing): no such file or directory (ENOENT)');
    });
  }
  withPlayedKernel([played(NLMSG_ERROR, 1, u32(-ENOENT >>> 0))], (socket) => {
    assert.is(failure('ENOENT', () => socket.request(dump)).message.includes('('), true);
  });
});

suite('answers that make no sense are EIO', () => {
  const positive = played(NLMSG_ERROR, 1, u32(5));
  const short = played(NLMSG_ERROR, 1, Uint8Array.of(1, 2));
  for (const answer of [positive, short, new Uint8Array(7), new Uint8Array(40), new Uint8Array(70000)]) {
    withPlayedKernel([answer], (socket) => {
      assert.is(failure('EIO', () => socket.request(dump)).code, 'netlink_malformed');
    });
  }
});

// ─── Bytes ──────────────────────────────────────────────────────────────────────────────────────────────

/** Puts bytes through everything that reads what the kernel sends. */
function parseEverything(bytes: Uint8Array): void {
  for (const parse of [parseMessages, parseAttributes, parseLink, parseAddress, parseNeighbour]) {
    attempt(() => parse(bytes));
  }
  for (const message of attempt(() => parseMessages(bytes)) ?? []) {
    attempt(() => parseEvent(message));
    attempt(() => parseLink(message.body));
    attempt(() => parseAddress(message.body));
    attempt(() => parseNeighbour(message.body));
    attempt(() => checkResult(message, 'test'));
  }
}

/** The datagrams of a real dump. */
function captureDump(type: number): Uint8Array[] {
  const netlink = must(libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), 'socket');
  try {
    const request = encodeMessage({
      type,
      flags: NLM_F_DUMP | NLM_F_REQUEST,
      sequence: 1,
      port: 0,
      body: new Uint8Array(16),
    });
    must(libc.send(netlink, request, request.length, 0), 'send');
    const buffer = new Uint8Array(65536);
    const datagrams: Uint8Array[] = [];
    for (;;) {
      datagrams.push(buffer.slice(0, must(libc.recv(netlink, buffer, buffer.length, 0), 'recv')));
      if (parseMessages(datagrams.at(-1)!).some((message) => message.type === NLMSG_DONE)) return datagrams;
    }
  } finally {
    closeFd(netlink);
  }
}

suite('random bytes never make the parsers fail in an unforeseen way', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => parseEverything(bytes)),
    { numRuns: 5000 },
  );
  const types = [RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWNEIGH, NLMSG_ERROR, NLMSG_DONE];
  fc.assert(
    fc.property(
      fc.constantFrom(...types),
      fc.constantFrom(0, 2, 10),
      fc.integer({ min: 0, max: 0xffff }),
      fc.uint8Array({ maxLength: 200 }),
      (type, family, flags, body) => {
        body[0] = family;
        parseEverything(encodeMessage({ type, flags, sequence: 0, port: 0, body }));
      },
    ),
    { numRuns: 5000 },
  );
});

suite('every truncation of a real dump is refused or read, and so is every changed byte', () => {
  for (const type of [RTM_GETLINK, RTM_GETADDR]) {
    const datagram = captureDump(type)[0]!.slice(0, 4096);
    for (let length = 0; length <= datagram.length; length++) parseEverything(datagram.slice(0, length));
    const [first] = parseMessages(captureDump(type)[0]!);
    const body = first!.body;
    const parse = type === RTM_GETLINK ? parseLink : parseAddress;
    assert.ok(parse(body));
    for (let length = 0; length < body.length; length++) {
      attempt(() => parse(body.slice(0, length)));
      const changed = body.slice();
      for (const value of [0, 1, 0x7f, 0xff]) {
        changed[length] = value;
        attempt(() => parse(changed));
      }
    }
  }
});

/** Attributes of types 1 to 50 with bytes or with attributes as value. */
const attributeList = fc.letrec<{ list: Attribute[]; attribute: Attribute; bytes: Uint8Array }>((tie) => ({
  bytes: fc.uint8Array({ maxLength: 40 }),
  attribute: fc.record({
    type: fc.integer({ min: 1, max: 50 }),
    value: fc.oneof({ depthSize: 'small' }, tie('bytes'), tie('list')),
  }),
  list: fc.array(tie('attribute'), { maxLength: 6 }),
})).list;

/** Compares what was parsed with what was built; of two of one type the last counts. */
function compareAttributes(bytes: Uint8Array, from: number, attributes: readonly Attribute[]): void {
  const parsed = parseAttributes(bytes, from);
  const last = new Map(attributes.map(({ type, value }) => [type, value]));
  assert.is(parsed.size, last.size);
  for (const [type, value] of last) {
    if (value instanceof Uint8Array) assert.equal(parsed.get(type)!.slice(), value);
    else compareAttributes(parsed.get(type)!, 0, value);
  }
}

suite('messages that are built are parsed to the same', () => {
  const header = fc.record({
    type: fc.integer({ min: 0, max: 0xffff }),
    flags: fc.integer({ min: 0, max: 0xffff }),
    sequence: fc.integer({ min: 0, max: 0xffffffff }),
    port: fc.integer({ min: 0, max: 0xffffffff }),
  });
  const message = fc.tuple(header, fc.uint8Array({ maxLength: 24 }), attributeList);
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), (built) => {
      const datagram = joined(
        ...built.map(([fields, fixed, list]) => encodeMessage({ ...fields, body: encodeBody(fixed, list) })),
      );
      const parsed: Message[] = parseMessages(datagram);
      assert.is(parsed.length, built.length);
      for (const [row, [fields, fixed, list]] of built.entries()) {
        const { body, ...rest } = parsed[row]!;
        assert.equal(rest, { ...fields });
        assert.equal(body.slice(0, fixed.length), fixed);
        compareAttributes(body, fixed.length, list);
      }
    }),
    { numRuns: 1000 },
  );
});

suite('values of attributes are read with their lengths checked', () => {
  assert.is(readU32(u32(0xfffffffe)), 0xfffffffe);
  assert.is(readU32(undefined), undefined);
  assert.is(readU8(Uint8Array.of(200)), 200);
  assert.is(readText(text('lo')), 'lo');
  assert.is(readText(Uint8Array.of(0x6c, 0x6f)), 'lo');
  failure('EIO', () => readU32(Uint8Array.of(1, 2, 3)));
  failure('EIO', () => readU8(new Uint8Array()));
});

suite.run();
