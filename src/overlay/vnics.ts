/**
 * VNICs: Ethernet links with addresses of their own on top of an overlay, each in the network namespace of whoever uses
 * it (dladm(8), create-vnic; the zones of illumos). One is a macvlan in bridge mode over the overlay's TAP: the kernel
 * switches unicast frames between VNICs of one overlay, so that they never reach the wire, and gives multicast and
 * broadcast to all of them and to the wire.
 *
 * Nothing is kept here. A VNIC is what the kernel has: one that was deleted, renamed, moved or made by somebody else is
 * shown so, and a restart of the daemon loses none. What the kernel does not tell is in the alias of the link.
 *
 * MTU: the kernel gives a VNIC that of the overlay's link, lowers it whenever that one is lowered below it, in every
 * namespace, and refuses to raise it above (EINVAL). It does not raise it again when the overlay's is raised: that is up
 * to whoever has the VNIC.
 */
import { checkDeviceName, type Device } from '../device.js';
import { OverlayError } from '../errors.js';
import { randomBetween } from '../sys/random.js';
import { formatMac, isGroupMac, parseMac } from '../target/mac.js';
import type { Perimeters } from './perimeter.js';
import type { PortSource, UpperLink, VnicSource } from './ports.js';
import { namespaceNameFault } from './space.js';

export interface VnicRequest {
  readonly name: string;
  readonly overlay: string;
  /** Any text of a MAC address; a random local one when left out. */
  readonly mac?: string;
  /** Name of a network namespace, '' for the daemon's own; that of the overlay when left out. */
  readonly netns?: string;
}

export interface Vnic {
  readonly name: string;
  readonly overlay: string;
  /** Name of its namespace, '' for the daemon's own. Where no name leads there any more, the one it had if that is known. */
  readonly netns: string | undefined;
  /** False when no name leads to its namespace any more: somebody keeps that alive, and the VNIC in it. */
  readonly isNamespaceThere: boolean;
  readonly index: number;
  readonly mac: string;
  /** How it came by its address; undefined for a macvlan that somebody else made. */
  readonly macType: 'random' | 'fixed' | undefined;
  readonly mtu: number;
  readonly isUp: boolean;
}

export interface VnicsContext {
  readonly ports: PortSource;
  readonly perimeters: Perimeters;
  /** Devices by name. */
  readonly entries: ReadonlyMap<string, { readonly device: Device }>;
  /** Throws ENOENT. */
  entry(name: string): { readonly device: Device };
}

interface Found {
  readonly device: Device;
  readonly link: UpperLink;
}

/** IFALIASZ (linux/if.h), with its NUL. */
const ALIAS_BYTES_MAX = 255;
const aliasRule = /^overlayd vnic, (random|fixed) mac ([0-9a-f:]{17})(?:, netns ([\x21-\x7e]+))?$/;

export class Vnics {
  constructor(readonly context: VnicsContext) {}

  /**
   * Makes a VNIC, down, and takes the overlay's link up where that was down. All of it or nothing. Throws EINVAL for a bad
   * name, address or namespace name, ENOENT for an unknown overlay or namespace, ENODEV when the overlay's link is gone,
   * EEXIST for a name that any link of the namespace has and for an address that is in use on the overlay, EBUSY for a
   * link that is in other use, EPERM, ENOTSUP for ports that are no links.
   */
  async create(request: VnicRequest): Promise<{ vnic: Vnic; hasTakenUp: boolean }> {
    const { name, overlay, netns } = request;
    checkDeviceName(name);
    const mac = request.mac === undefined ? randomMac() : checkMac(request.mac);
    if (netns !== undefined) checkNamespaceName(netns);
    return await this.context.perimeters.run(overlay, () => {
      const { device } = this.context.entry(overlay);
      const source = this.#source();
      if (!isThere(device)) {
        throw new OverlayError('ENODEV', 'link_gone', `the link of overlay '${overlay}' is not there now`);
      }
      this.#refuseMac(source, device, mac);
      const macType = request.mac === undefined ? 'random' : 'fixed';
      const alias = aliasOf(macType, mac, netns ?? device.netns);
      const link = source.create(device.port, { name, mac, alias, netns });
      try {
        return { hasTakenUp: this.#takeUp(source, device), vnic: vnicOf({ device, link }) };
      } catch (error) {
        source.delete(device.port, link);
        throw error;
      }
    });
  }

  /**
   * Deletes a VNIC, up or down. Throws ENOENT, EINVAL when several namespaces have one of that name and none is given,
   * EBUSY while other links stand on it, EPERM.
   */
  async delete(name: string, netns?: string): Promise<void> {
    const { device } = this.#find(name, netns);
    await this.context.perimeters.run(device.name, () => {
      // Others may have been before us.
      const found = this.#find(name, netns);
      const source = this.#source();
      const upper = source.above(found.device.port, found.link);
      if (upper.length > 0) {
        throw new OverlayError(
          'EBUSY',
          'links_on_top',
          `VNIC '${name}' carries ${upper.join(', ')}: delete them first`,
        );
      }
      source.delete(found.device.port, found.link);
    });
  }

  /** VNICs of an overlay, or of all; in the order of overlays, then as the kernel lists them. Throws ENOENT. */
  list(overlay?: string): Vnic[] {
    const { entries, entry } = this.context;
    const devices = overlay === undefined ? [...entries.values()] : [entry(overlay)];
    return this.#foundOn(devices.map(({ device }) => device)).map(vnicOf);
  }

  #foundOn(devices: readonly Device[]): Found[] {
    const { vnics } = this.context.ports;
    if (!vnics) return [];
    const there = devices.filter(isThere);
    const lists = vnics.list(there.map(({ port }) => port));
    return there.flatMap((device, index) =>
      lists[index]!.filter(({ kind }) => kind === 'macvlan').map((link) => ({ device, link })),
    );
  }

  #find(name: string, netns: string | undefined): Found {
    const devices = [...this.context.entries.values()].map(({ device }) => device);
    const found = this.#foundOn(devices).filter(
      (each) => each.link.name === name && (netns === undefined || vnicOf(each).netns === netns),
    );
    if (found.length > 1) {
      const where = found.map((each) => namespaceText(vnicOf(each))).join(', ');
      const message = `there are VNICs '${name}' in ${where}: say which with -n`;
      throw new OverlayError('EINVAL', 'ambiguous_vnic', message);
    }
    if (found[0]) return found[0];
    const where = netns === undefined || netns === '' ? '' : ` in network namespace '${netns}'`;
    throw new OverlayError('ENOENT', 'no_such_vnic', `there is no VNIC '${name}'${where}`);
  }

  /** The kernel would refuse the second one only when it comes up. */
  #refuseMac(source: VnicSource, device: Device, mac: string): void {
    const [links] = source.list([device.port]);
    const other = links!.find((link) => link.mac === mac)?.name;
    if (other === undefined && device.port.mac !== mac) return;
    const owner = other === undefined ? `the overlay's own link` : `VNIC '${other}'`;
    throw new OverlayError('EEXIST', 'mac_in_use', `${mac} is the address of ${owner}; choose another one`);
  }

  #takeUp(source: VnicSource, { port }: Device): boolean {
    if (this.context.ports.isUp(port)) return false;
    source.takeUp(port);
    return true;
  }

  #source(): VnicSource {
    const { vnics } = this.context.ports;
    if (vnics) return vnics;
    throw new OverlayError('ENOTSUP', 'memory_port', 'there are no VNICs on ports in memory');
  }
}

/** The port can be asked about. */
function isThere(device: Device): boolean {
  return !device.isLinkGone && !device.isAway;
}

/** A random unicast address that is locally administered (IEEE 802c). */
function randomMac(): string {
  const local = 0x02;
  const first = (randomBetween(0, 0xff) & 0xfc) | local;
  return formatMac(first * 2 ** 40 + randomBetween(0, 2 ** 40 - 1));
}

function checkMac(text: string): string {
  const mac = parseMac(text);
  if (mac !== 0 && !isGroupMac(mac)) return formatMac(mac);
  const why = mac === 0 ? 'zero' : 'a multicast address';
  const message = `${formatMac(mac)} is ${why}: a VNIC has a unicast address, such as 2:8:20:1:2:3`;
  throw new OverlayError('EINVAL', 'bad_mac', message);
}

function checkNamespaceName(netns: string): void {
  const fault = namespaceNameFault(netns);
  if (fault === undefined) return;
  const shown = JSON.stringify(netns.slice(0, 64));
  throw new OverlayError('EINVAL', 'bad_netns', `${shown} cannot be a network namespace: ${fault}`);
}

/** What the link says of itself; without the namespace where that has no room. */
function aliasOf(macType: string, mac: string, netns: string): string {
  const short = `overlayd vnic, ${macType} mac ${mac}`;
  const alias = netns === '' ? short : `${short}, netns ${netns}`;
  return Buffer.byteLength(alias) > ALIAS_BYTES_MAX ? short : alias;
}

function vnicOf({ device, link }: Found): Vnic {
  const { name, index, mac, mtu, isUp, netns, alias = '' } = link;
  const [, macType, firstMac, firstNetns] = aliasRule.exec(alias) ?? [];
  return {
    name,
    overlay: device.name,
    netns: netns ?? firstNetns,
    isNamespaceThere: netns !== undefined,
    index,
    mac,
    macType: macType === undefined ? undefined : mac === firstMac ? (macType as 'random' | 'fixed') : 'fixed',
    mtu,
    isUp,
  };
}

function namespaceText({ netns, isNamespaceThere }: Vnic): string {
  if (netns === '') return 'the network namespace of overlayd';
  const gone = isNamespaceThere ? '' : ' (whose name is gone)';
  return netns === undefined ? 'a network namespace without a name' : `'${netns}'${gone}`;
}
