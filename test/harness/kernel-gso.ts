/**
 * The kernel's own segmentation (GSO in software) as an oracle. In a network namespace of its own:
 *
 *   record ── write ──► TAP a ── bridge ── TAP b ── read ──► frames
 *
 * TAP b takes no offloads, so the kernel cuts every super-frame and finishes every checksum in front of it. Frames stay
 * in order: a mark of ours behind each record says when all of its frames have been read, without time passing.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { assert } from '../../src/errors.js';
import {
  AF_INET,
  macros,
  POLLIN,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  structs,
  TUNSETOFFLOAD,
} from '../../src/sys/abi.js';
import { EAGAIN, EINVAL, lastErrno, must, SystemError } from '../../src/sys/errno.js';
import { closeFd } from '../../src/sys/fd.js';
import * as libc from '../../src/sys/libc.js';
import { Netlink } from '../../src/sys/netlink/index.js';
import { encodeBody, text, u8 } from '../../src/sys/netlink/message.js';
import { RequestSocket } from '../../src/sys/netlink/socket.js';
import { createNamespace, inNamespace } from '../../src/sys/netns.js';
import { Tap } from '../../src/sys/tap.js';
import { bigEndian, concat, ethernet } from '../reference/frames.js';

/** linux/if_tun.h: TUN_F_CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6. */
const ALL_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40;
/** linux/sockios.h: sets the length of a link's transmit queue. */
const SIOCSIFTXQLEN = 0x8943;
/** linux/if_link.h. */
const IFLA_BR_MCAST_SNOOPING = 23;
/** A super-frame in segments of one byte must fit in TAP b's queue as a whole. */
const QUEUE_FRAMES = 70_000;
/** The most that a TAP can have: a plain frame may be as long as a super-frame. */
const MTU = 65_521;
const { size: VNET_HDR_BYTES } = structs.virtio_net_hdr;
const RECORD_BYTES_MAX = VNET_HDR_BYTES + 65_536 + 32;
/** IEEE 802 local experimental EtherType 1: the marks', and nobody else's. */
const MARK_ETHERTYPE = 0x88b5;
/** Everything happens within the write; the longest wait there is, is for the links to come up. */
const DEADLINE_MS = 5000;
/** How long a mark is waited for that may have been dropped. */
const RETRY_MS = 20;
/** VIRTIO_NET_HDR_F_DATA_VALID: a remark that asks nothing of the reader. */
const DATA_VALID = 2;

export class KernelGso {
  readonly #namespace = createNamespace();
  readonly #netlink = inNamespace(this.#namespace, () => new Netlink());
  readonly #a: Tap;
  readonly #b: Tap;
  readonly #buffer = new Uint8Array(RECORD_BYTES_MAX);
  #marks = 0;

  /** Needs root. */
  constructor() {
    const netlink = this.#netlink;
    const tap = (name: string) => inNamespace(this.#namespace, () => new Tap({ name, queues: 1, netlink }));
    this.#a = tap('whole0');
    this.#b = tap('cut0');
    must(libc.ioctlValue(this.#a.fds[0]!, TUNSETOFFLOAD, ALL_OFFLOADS), 'TUNSETOFFLOAD');
    must(libc.ioctlValue(this.#b.fds[0]!, TUNSETOFFLOAD, 0), 'TUNSETOFFLOAD');
    inNamespace(this.#namespace, () => {
      passUnfiltered();
      createSilentBridge('bridge0');
    });
    const bridge = netlink.getLink('bridge0').index;
    // No addresses, so that the links have nothing to say by themselves.
    netlink.setLink(bridge, { addrGenModeNone: true });
    for (const port of [this.#a, this.#b]) {
      netlink.setLink(port.index, { addrGenModeNone: true });
      netlink.setLink(port.index, { mtu: MTU, master: bridge });
      inNamespace(this.#namespace, () => setQueueLength(port.name, QUEUE_FRAMES));
      port.setCarrier(true);
      port.isUp = true;
    }
    netlink.setLink(bridge, { up: true });
    this.#awaitForwarding();
  }

  /**
   * The frames that the kernel makes of a record: none when it drops it later on, undefined when it refuses to take it.
   *
   * @param record virtio_net_hdr and Ethernet frame, whose addresses are unicast and not of the links
   */
  segment(record: Uint8Array): Uint8Array[] | undefined {
    assert(record.length <= RECORD_BYTES_MAX, `${record.length} bytes are no record`);
    if (!this.#write(record)) return undefined;
    const mark = this.#mark();
    assert(this.#write(mark), 'the kernel takes a plain frame');
    const frames: Uint8Array[] = [];
    const deadline = performance.now() + DEADLINE_MS;
    for (;;) {
      const frame = this.#read(deadline);
      if (!frame) throw new Error(`the frames of a record have not come within ${DEADLINE_MS} ms`);
      if (isSame(frame, mark.subarray(VNET_HDR_BYTES))) return frames;
      frames.push(frame);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#a.release(), this.#b.release()]);
    this.#netlink.close();
    closeFd(this.#namespace);
  }

  /** The kernel turns links on in its own time, and drops what comes before. */
  #awaitForwarding(): void {
    const deadline = performance.now() + DEADLINE_MS;
    while (performance.now() < deadline) {
      const mark = this.#mark();
      // EIO until the link is up.
      if (libc.write(this.#a.fds[0]!, mark, mark.length) < 0) continue;
      const soon = performance.now() + RETRY_MS;
      // Marks before it may have come late.
      for (let frame = this.#read(soon); frame; frame = this.#read(soon)) {
        if (isSame(frame, mark.subarray(VNET_HDR_BYTES))) return;
      }
    }
    throw new Error(`the TAPs do not forward after ${DEADLINE_MS} ms`);
  }

  /** A record that is like no other. */
  #mark(): Uint8Array {
    this.#marks++;
    const frame = ethernet(MARK_ETHERTYPE, bigEndian(this.#marks, 46));
    return concat(new Uint8Array(VNET_HDR_BYTES), frame);
  }

  /** False when the kernel says that a record is malformed. */
  #write(record: Uint8Array): boolean {
    const written = libc.write(this.#a.fds[0]!, record, record.length);
    if (written === record.length) return true;
    const errno = lastErrno();
    if (errno === EINVAL) return false;
    throw new SystemError(errno, 'write to a TAP');
  }

  /** The next frame without its header; undefined when there is none until then. */
  #read(deadline: number): Uint8Array | undefined {
    const fd = this.#b.fds[0]!;
    for (;;) {
      const bytes = libc.read(fd, this.#buffer, this.#buffer.length);
      if (bytes >= 0) {
        const [flags, ...rest] = this.#buffer.subarray(0, VNET_HDR_BYTES);
        const isAsked = (flags !== 0 && flags !== DATA_VALID) || rest.some((byte) => byte !== 0);
        assert(!isAsked, 'of the reader of a TAP without offloads nothing is asked');
        return this.#buffer.slice(VNET_HDR_BYTES, bytes);
      }
      const errno = lastErrno();
      if (errno !== EAGAIN) throw new SystemError(errno, 'read of a TAP');
      const left = Math.ceil(deadline - performance.now());
      if (left <= 0) return undefined;
      const polled = new Int32Array([fd, POLLIN]);
      must(libc.poll(polled, 1, left), 'poll');
    }
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Keeps netfilter, where the kernel has it, from looking into bridged IP packets and dropping those it finds fault with. */
function passUnfiltered(): void {
  const folder = '/proc/sys/net/bridge';
  if (!existsSync(folder)) return;
  for (const kind of ['arptables', 'ip6tables', 'iptables']) {
    writeFileSync(`${folder}/bridge-nf-call-${kind}`, '0');
  }
}

/**
 * A bridge without multicast snooping, for which it would look into IP headers, drop what it finds wrong there, and speak IGMP.
 */
function createSilentBridge(name: string): void {
  const { RTM_NEWLINK } = macros['linux/rtnetlink.h'];
  const { NLM_F_CREATE, NLM_F_EXCL } = macros['linux/netlink.h'];
  const { IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA } = macros['linux/if_link.h'];
  const data = [{ type: IFLA_BR_MCAST_SNOOPING, value: u8(0) }];
  const details = [
    { type: IFLA_INFO_KIND, value: text('bridge') },
    { type: IFLA_INFO_DATA, value: data },
  ];
  const body = encodeBody(new Uint8Array(structs.ifinfomsg.size), [
    { type: IFLA_IFNAME, value: text(name) },
    { type: IFLA_LINKINFO, value: details },
  ]);
  const socket = new RequestSocket();
  try {
    const flags = NLM_F_CREATE | NLM_F_EXCL;
    socket.request({ type: RTM_NEWLINK, flags, body, what: `create bridge ${name}` });
  } finally {
    socket.close();
  }
}

/** man 7 netdevice. */
function setQueueLength(name: string, frames: number): void {
  const request = new Uint8Array(structs.ifreq.size);
  request.set(Buffer.from(name), structs.ifreq.ifr_name);
  new DataView(request.buffer).setInt32(structs.ifreq.ifr_flags, frames, true);
  const fd = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    must(libc.ioctl(fd, SIOCSIFTXQLEN, request), `queue length of ${name}`);
  } finally {
    closeFd(fd);
  }
}
