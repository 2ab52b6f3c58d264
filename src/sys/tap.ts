/**
 * A TAP link with one queue a worker (Linux Documentation/networking/tuntap.rst). Its surface keeps the shape of the
 * `tuntap2` package: `name`, `mac`, `mtu`, `isUp`, `ipv4`, `ipv6`, `release()`; multi-queue, the vnet_hdr and
 * carrier are added.
 */
import { VNET_HDR_BYTES } from '../../assembly/layout.js';
import { OverlayError } from '../errors.js';
import { familyOf } from '../ip.js';
import type { LinkOffloads, SuperFrames } from '../offload.js';
import {
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_TUN_EXCL,
  IFF_VNET_HDR,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  structs,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUNSETCARRIER,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETPERSIST,
  TUNSETVNETHDRSZ,
} from './abi.js';
import {
  EACCES,
  EBUSY,
  EEXIST,
  EINVAL,
  ENODEV,
  ENOENT,
  EPERM,
  lastErrno,
  must,
  SystemError,
} from './errno.js';
import { closeFd, closeFdAside, setInherited } from './fd.js';
import * as libc from './libc.js';
import { forgetSpeed } from './link-speed.js';
import type { Netlink } from './netlink/index.js';
import type { Port } from './port.js';

const FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;

export interface TapOptions {
  /** 1 to 15 bytes. */
  readonly name: string;
  /** Queues, one a worker. */
  readonly queues: number;
  /** Request socket in the namespace of the calling thread, where the link is made. */
  readonly netlink: Netlink;
  /**
   * The link is there: it is attached as it is, with the descriptors of its first queues where there are some. They are the
   * caller's still when this throws.
   */
  readonly existing?: { readonly fds: readonly number[] };
  /** The tun node; another one in tests. */
  readonly node?: string;
  /** Likewise the call that says what the link may leave to us. */
  readonly calls?: Pick<typeof libc, 'ioctlValue'>;
}

export class Tap implements Port {
  readonly name: string;
  readonly fds: readonly number[];
  readonly calls: Pick<typeof libc, 'ioctlValue'>;
  /** Called once, when it is released. */
  onRelease: () => void = () => {};
  #index: number;
  #netlink: Netlink;
  #released: Promise<void> | undefined;

  /**
   * Creates the link, down and without carrier, or attaches the one that is there. Throws EEXIST when there is one of that name, ENODEV without a tun
   * node, EPERM without CAP_NET_ADMIN.
   */
  constructor(options: TapOptions) {
    const { name, queues, netlink, existing, node = '/dev/net/tun', calls = libc } = options;
    const given = existing?.fds ?? [];
    const fds = given.slice(0, queues);
    try {
      for (const fd of given) setInherited(fd, false);
      for (let queue = fds.length; queue < queues; queue++) {
        const fd = openNode(node);
        fds.push(fd);
        // Without EXCL on the first queue an existing link would be taken over silently.
        attach(fd, name, queue === 0 && !existing ? FLAGS | IFF_TUN_EXCL : FLAGS);
        const size = new Int32Array([VNET_HDR_BYTES]);
        must(libc.ioctl(fd, TUNSETVNETHDRSZ, size), 'TUNSETVNETHDRSZ');
        if (queue === 0 && !existing) {
          setCarrier(fd, false);
          forgetSpeed(name);
        }
      }
      this.#index = netlink.getLink(name).index;
    } catch (error) {
      for (const fd of fds.slice(given.length)) closeFd(fd);
      throw error;
    }
    // With fewer workers than before there are queues that nobody would read.
    for (const fd of given.slice(queues)) closeFd(fd);
    this.name = name;
    this.fds = fds;
    this.calls = calls;
    this.#netlink = netlink;
  }

  get index(): number {
    return this.#index;
  }

  /** Puts the link into another namespace. @param netlink request socket there */
  moveTo(namespaceFd: number, netlink: Netlink): void {
    this.#netlink.setLink(this.#index, { namespaceFd });
    this.#netlink = netlink;
    this.#index = netlink.getLink(this.name).index;
  }

  get mac(): string {
    return this.#netlink.getLink(this.#index).mac;
  }

  set mac(mac: string) {
    this.#netlink.setLink(this.#index, { mac });
  }

  get mtu(): number {
    return this.#netlink.getLink(this.#index).mtu;
  }

  set mtu(bytes: number) {
    this.#netlink.setLink(this.#index, { mtu: bytes });
  }

  setMtu(bytes: number): void {
    this.mtu = bytes;
  }

  offloads = NO_OFFLOADS;
  takes: SuperFrames = 'tcp';
  /** It is known what the kernel takes. */
  #isAsked = false;

  /** Bit by bit where not all are taken; none of them is needed. */
  offer(wanted: LinkOffloads): void {
    // A kernel that can hand over super-frames of UDP takes them, too; asking puts nothing into force that stays.
    if (!this.#isAsked && this.#accepts(TUN_F_CSUM | TUN_F_USO)) this.takes = 'tcp and udp';
    this.#isAsked = true;
    const asked = offers.filter(([name]) => wanted[name]);
    const all = asked.reduce((bits, [, bit]) => bits | bit, 0);
    let taken = all;
    if (!this.#accepts(all)) {
      taken = 0;
      for (const [, bits] of asked) if (this.#accepts(taken | bits)) taken |= bits;
      // What was refused last may have been put into force by half.
      must(libc.ioctlValue(this.fds[0]!, TUNSETOFFLOAD, taken), 'TUNSETOFFLOAD');
    }
    const has = (name: keyof LinkOffloads) =>
      asked.some(([each, bits]) => each === name && (taken & bits) === bits);
    this.offloads = { checksum: has('checksum'), tso: has('tso'), uso: has('uso') };
  }

  #accepts(bits: number): boolean {
    return this.calls.ioctlValue(this.fds[0]!, TUNSETOFFLOAD, bits) >= 0;
  }

  setAlias(text: string): void {
    this.#netlink.setLink(this.#index, { alias: text });
  }

  get isUp(): boolean {
    return this.#netlink.getLink(this.#index).isUp;
  }

  set isUp(up: boolean) {
    this.#netlink.setLink(this.#index, { up });
  }

  /** First IPv4 address with its prefix length, or undefined. */
  get ipv4(): string | undefined {
    return this.#address(4);
  }

  set ipv4(address: string) {
    this.#netlink.addAddress(this.#index, address);
  }

  /** First IPv6 address with its prefix length, or undefined. */
  get ipv6(): string | undefined {
    return this.#address(6);
  }

  set ipv6(address: string) {
    this.#netlink.addAddress(this.#index, address);
  }

  setCarrier(on: boolean): void {
    setCarrier(this.fds[0]!, on);
  }

  keep(isKept: boolean): void {
    must(libc.ioctlValue(this.fds[0]!, TUNSETPERSIST, isKept ? 1 : 0), 'TUNSETPERSIST');
  }

  handOver(): void {
    for (const fd of this.fds) setInherited(fd, true);
  }

  unlink(): void {
    if (this.#released) return;
    try {
      this.#netlink.deleteLink(this.#index);
    } catch (error) {
      // Somebody else has deleted it.
      if (!(error instanceof SystemError) || error.number !== ENODEV) throw error;
    }
  }

  release(): Promise<void> {
    this.#released ??= this.#close();
    return this.#released;
  }

  async #close(): Promise<void> {
    this.onRelease();
    // One after the other: the last one takes the link away.
    for (const fd of this.fds) await closeFdAside(fd);
  }

  #address(family: 4 | 6): string | undefined {
    return this.#netlink
      .listAddresses(this.#index)
      .map(({ address }) => address)
      .find((address) => familyOf(address) === family);
  }
}

function openNode(node: string): number {
  const fd = libc.open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd >= 0) return fd;
  const errno = lastErrno();
  if (errno === ENOENT || errno === ENODEV) {
    throw new OverlayError(
      'ENODEV',
      'no_tun_device',
      `${node} is missing: load the tun module (modprobe tun)`,
    );
  }
  if (errno === EACCES || errno === EPERM) {
    throw new OverlayError(
      'EPERM',
      'no_tun_access',
      `${node} may not be opened: make it readable and writable`,
    );
  }
  throw new SystemError(errno, `open of ${node}`);
}

function attach(fd: number, name: string, flags: number): void {
  const request = new Uint8Array(structs.ifreq.size);
  request.set(Buffer.from(name), structs.ifreq.ifr_name);
  new DataView(request.buffer).setUint16(structs.ifreq.ifr_flags, flags, true);
  if (libc.ioctl(fd, TUNSETIFF, request) >= 0) return;
  const errno = lastErrno();
  if (errno === EPERM) {
    throw new OverlayError(
      'EPERM',
      'no_cap_net_admin',
      'creating a link needs CAP_NET_ADMIN: run overlayd as root',
    );
  }
  // EINVAL: a link of that name that is not a TAP.
  if (errno === EBUSY || errno === EEXIST || errno === EINVAL) {
    throw new OverlayError('EEXIST', 'link_exists', `there is a link '${name}' already; choose another name`);
  }
  throw new SystemError(errno, `creating the link ${name}`);
}

/** Segments of UDP over IPv4 and IPv6, from Linux 6.2: the headers of older ones do not have them. */
const TUN_F_USO = 0x20 | 0x40;
/** What each offload asks of the kernel, in the order in which each needs those before it. */
const offers: readonly [keyof LinkOffloads, number][] = [
  ['checksum', TUN_F_CSUM],
  ['tso', TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN],
  ['uso', TUN_F_USO],
];
const NO_OFFLOADS: LinkOffloads = { checksum: false, tso: false, uso: false };

function setCarrier(fd: number, on: boolean): void {
  must(libc.ioctl(fd, TUNSETCARRIER, new Int32Array([on ? 1 : 0])), 'TUNSETCARRIER');
}
