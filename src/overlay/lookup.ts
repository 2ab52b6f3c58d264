/**
 * A device's second question: its lookup instance with all that hangs on it. What the instance may do to the device is
 * in `#services`; what becomes of its answers, in `Dispatcher` and `TargetCache`.
 */
import * as layout from '../../assembly/layout.js';
import { dropReason } from '../datapath/drop.js';
import type { Engine } from '../datapath/engine.js';
import type { Device } from '../device.js';
import { assert, OverlayError } from '../errors.js';
import type { Fma } from '../fma.js';
import { familyOf, isMulticast, parseIp } from '../ip.js';
import { ROUTES_MS } from '../limits.js';
import type { Log } from '../log.js';
import { checkDestination, checkRoute, type Destination } from '../target/destination.js';
import { formatMac, parseMac } from '../target/mac.js';
import type { TargetRequest } from '../target/request.js';
import { Dispatcher } from '../varpd/dispatch.js';
import { external } from '../varpd/external-plugin.js';
import type { LookupServices } from '../varpd/plugin.js';
import { gratuitousArp } from '../varpd/proxy/arp.js';
import { isStationMac } from '../varpd/proxy/ethernet.js';
import { unsolicitedAdvertisement } from '../varpd/proxy/ndp.js';
import type { Varpd, VarpdInstance } from '../varpd/varpd.js';
import type { Route } from './attachment.js';
import { Dynamic } from './dynamic.js';
import type { Mtus } from './mtus.js';
import type { PortSource } from './ports.js';
import { SourcePolicy } from './source-policy.js';
import type { Targets } from './targets.js';
import { Vteps } from './vteps.js';

const ETHERNET_BYTES = 14;
const ETHERNET_AND_TAG_BYTES = 18;
/** IEEE 802.1Q: 4095 is reserved. */
const VLAN_MAX = 4094;
const learnCounters = {
  learned: layout.COUNTER_RX_LEARNED,
  moved: layout.COUNTER_RX_MOVED,
  unlearned: layout.COUNTER_RX_UNLEARNED,
};

export interface LookupContext {
  readonly engine: Engine;
  readonly varpd: Varpd;
  readonly targets: Targets;
  readonly mtus: Mtus;
  readonly ports: PortSource;
  readonly fma: Fma;
  readonly log: Log;
}

/** What the holder of the external handle has said the device is. */
export type Association =
  | { readonly mode: 'point'; readonly destination: Destination }
  | { readonly mode: 'dynamic' };

export class Lookup {
  dynamic: Dynamic | undefined;
  association: Association | undefined;
  readonly #sources: SourcePolicy;
  readonly vteps: Vteps;
  #dispatcher: Dispatcher | undefined;
  /** The instance may use its services. */
  #isOpen = false;

  constructor(
    readonly device: Device,
    readonly instance: VarpdInstance,
    readonly context: LookupContext,
  ) {
    this.#sources = new SourcePolicy(context.engine, device);
    this.vteps = new Vteps(device, context, () => this.groups);
  }

  get isExternal(): boolean {
    return this.instance.plugin === external;
  }

  get mode(): 'point' | 'dynamic' {
    return this.association?.mode ?? this.instance.plugin.mode;
  }

  /** Where everything goes; undefined before activation and for a DYNAMIC device. */
  get point(): Destination | undefined {
    if (!this.instance.isActive || this.mode !== 'point') return undefined;
    if (this.association?.mode === 'point') return this.association.destination;
    return this.instance.lookup.point?.();
  }

  /** It is known where frames go; of a DYNAMIC device, that can be so before its instance is active. */
  get isRouted(): boolean {
    return this.mode === 'dynamic' ? this.dynamic !== undefined : this.instance.isActive;
  }

  /**
   * After a restart: the target cache of a DYNAMIC device, before anybody answers. Throws ENOMEM when there is no room for
   * a target table.
   */
  prepare(): void {
    if (this.mode === 'dynamic') this.#open();
  }

  /**
   * Starts the instance; the device can be started from then on. Rejects with what `Varpd.activate` does, and with
   * ENOMEM when there is no room for a target table; nothing is half done then.
   */
  async activate(): Promise<void> {
    const { varpd } = this.context;
    const isPrepared = this.dynamic !== undefined;
    this.#isOpen = true;
    try {
      if (this.mode === 'dynamic' && !isPrepared) this.#open();
      await varpd.activate(this.instance, this.#services());
      this.refuseVteps();
    } catch (error) {
      await this.#takeBack(isPrepared);
      throw error;
    }
    // There is somebody to ask now: what was known before the restart is asked about when it is next sent to.
    if (isPrepared) await this.dynamic?.forgetSaved();
  }

  /** The reverse of `activate`, for a device that did not get any further. */
  async deactivate(): Promise<void> {
    await this.#takeBack(false);
  }

  /** The instance is as it was created, with the properties it has; its table goes unless it was there before. */
  async #takeBack(isPrepared: boolean): Promise<void> {
    this.#isOpen = false;
    if (this.instance.isActive) await this.context.varpd.renew(this.instance);
    if (!isPrepared) await this.#closeDynamic();
  }

  /** Multicast groups of the underlay that the device is in while it is started. */
  get groups(): readonly string[] {
    if (this.mode === 'dynamic') return this.instance.lookup.groups?.() ?? [];
    const ip = this.point?.ip;
    return ip !== undefined && isMulticast(ip) ? [ip] : [];
  }

  /** Throws EINVAL when the lookup names a VTEP that the device's sockets can never send to. */
  refuseVteps(): void {
    if (this.mode === 'point') checkDestination(this.point ?? {}, this.device.encap.destinations);
    const point = this.point?.ip;
    for (const ip of point === undefined ? this.groups : [point]) this.vteps.refuse(ip);
  }

  /** Properties of the encapsulation have changed: every target follows, with the list of VTEPs judged anew. */
  async rehold(): Promise<void> {
    if (this.instance.isActive) this.refuseVteps();
    this.vteps.follow();
    await this.dynamic?.rehold();
  }

  /** Where frames of the device go, for its start. */
  route(): Route {
    if (this.mode === 'point') {
      const point = this.point!;
      return { point, groups: this.groups };
    }
    assert(this.dynamic, 'an active DYNAMIC device has a table');
    const { arp, dhcp, learn } = this.instance.lookup;
    return {
      targets: this.dynamic.offset,
      isProxied: arp !== undefined || dhcp !== undefined,
      isLearning: learn !== undefined,
      groups: this.groups,
    };
  }

  /** Puts the device's source policy into force; call before each start. Throws ENOTSUP, ENOMEM. */
  applySources(): void {
    const point = this.point?.ip;
    // Who is in a group cannot be told.
    const isKnown = point !== undefined && !isMulticast(point);
    const peers = this.mode === 'dynamic' ? this.peers : isKnown ? [point] : undefined;
    this.#sources.apply({ isDynamic: this.mode === 'dynamic', peers });
  }

  /**
   * VTEPs of a DYNAMIC device, which may send to it; before its instance is active, those that it knew. Undefined where they
   * cannot be listed.
   */
  get peers(): readonly string[] | undefined {
    const { lookup, isActive } = this.instance;
    return lookup.peers && !isActive ? this.dynamic?.vteps : lookup.peers?.();
  }

  /** No worker reads the device's row: what was put there for it is given back. */
  withdraw(): void {
    this.#sources.withdraw();
  }

  /** Nobody answers from here on; `renew` follows. */
  pause(): void {
    this.#isOpen = false;
    this.context.varpd.external.forget(this.device.name);
  }

  /** The reverse of `pause`, where `renew` was not called: the instance answers again. */
  goOn(): void {
    this.#isOpen = true;
  }

  /** Starts a new instance of the plugin with the properties of the old one, for the device as it is now. */
  async renew(): Promise<void> {
    const { varpd, fma } = this.context;
    const { instance, device } = this;
    await varpd.renew(instance);
    // What was wrong with the old one.
    for (const code of ['lookup_failed', 'lookup_late', 'lookup_stale', 'plugin'] as const)
      fma.restore(device.name, code);
    this.#isOpen = true;
    this.#dispatcher = this.#createDispatcher();
    await varpd.activate(instance, this.#services());
    this.refuseVteps();
  }

  /** Ends the instance and every request; the table is given back by `free`, after a quiesce. */
  async close(): Promise<void> {
    this.#isOpen = false;
    this.dynamic?.close();
    await this.context.varpd.destroy(this.instance);
    if (this.instance.fault) {
      this.context.log.warn({ device: this.device.name, fault: this.instance.fault }, 'lookup plugin');
    }
  }

  /** The device's row may be another's by now: `targets` has forgotten it before the wait. */
  free(): void {
    this.dynamic?.free();
    this.dynamic = undefined;
  }

  /** In, to the guests of this host. Throws EINVAL for a frame that is too short or too long. */
  inject(frame: Uint8Array): void {
    this.#send(layout.INJECT_RX, this.#withVnetHdr(frame));
  }

  /** Out, as if a guest had sent it. Throws EINVAL for a frame that is too short or too long. */
  resend(frame: Uint8Array): void {
    this.#send(layout.INJECT_TX, this.#withVnetHdr(frame));
  }

  #withVnetHdr(frame: Uint8Array): Uint8Array {
    const most = this.device.mtu + ETHERNET_AND_TAG_BYTES;
    if (frame.length < ETHERNET_BYTES || frame.length > most) {
      throw new OverlayError(
        'EINVAL',
        'bad_frame',
        `a frame of ${frame.length} bytes cannot be sent on ${this.device.name}: it has ${ETHERNET_BYTES} to ${most}`,
      );
    }
    const whole = new Uint8Array(layout.VNET_HDR_BYTES + frame.length);
    whole.set(frame, layout.VNET_HDR_BYTES);
    return whole;
  }

  #send(kind: number, frame: Uint8Array): void {
    const { injects, counters } = this.context.engine;
    if (kind === layout.INJECT_TX) counters.add(this.device.row, layout.COUNTER_TX_RESENT, 1);
    const isPushed = injects.push(injects.anyWorker, this.device.row, kind, frame);
    // What goes in is in the books of nobody who sends.
    if (!isPushed && kind === layout.INJECT_TX) {
      counters.add(this.device.row, dropReason('tx_worker_lost'), 1);
    }
    injects.wake();
  }

  #open(): void {
    const { engine, fma, targets } = this.context;
    const { device } = this;
    const { name, targetsMax, negativeTtl } = device;
    this.#dispatcher = this.#createDispatcher();
    this.dynamic = new Dynamic({
      engine,
      device,
      vteps: this.vteps,
      held: targets.held,
      targetsMax,
      negativeMs: negativeTtl * 1000,
      isExternal: this.isExternal,
      ask: (request: TargetRequest) => this.#ask(request),
      onLate: (isLate) => {
        if (!isLate) fma.restore(name, 'lookup_late');
        else
          fma.degrade(
            name,
            'lookup_late',
            'lookups are not answered in time; frames to unknown addresses wait',
          );
      },
      onWaiting: (dynamic) => targets.onWaiting(dynamic),
      settle: (dynamic, mac, generation) => targets.settle(dynamic, mac, generation),
      onSource: (mac, ip) => this.#learn(mac, ip),
    });
    targets.add(device.row, this.dynamic);
  }

  #ask(request: TargetRequest): void {
    const { device, instance, context } = this;
    if (this.isExternal) context.varpd.external.ask(device.name, device.vnetid, request);
    // Not started yet after a restart: asked again at the request's deadline.
    else if (instance.isActive) this.#dispatcher!.ask(request);
  }

  #learn(mac: number, ip: string): void {
    const { instance, device, context } = this;
    if (!this.#isOpen || !instance.isActive) return;
    // The link's own address is here, whoever sends from it.
    if (formatMac(mac) === device.mac) {
      context.engine.counters.add(device.row, learnCounters.unlearned, 1);
      return;
    }
    try {
      instance.lookup.learn?.(formatMac(mac), ip);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      context.fma.degrade(
        device.name,
        'lookup_failed',
        `${formatMac(mac)} behind ${ip} was not learned: ${why}`,
      );
    }
  }

  #createDispatcher(): Dispatcher {
    const { device, instance } = this;
    const { name } = device;
    const { fma } = this.context;
    // An answer may come when the device has gone, or has another instance.
    const { lookup } = instance;
    const isCurrent = () => this.#isOpen && instance.lookup === lookup;
    return new Dispatcher(lookup, {
      overlay: name,
      vnetid: device.vnetid,
      destinations: device.encap.destinations,
      inject: (frame) => isCurrent() && this.inject(frame),
      resend: (frame) => isCurrent() && this.#send(layout.INJECT_TX, frame),
      fault: (text) => isCurrent() && fma.degrade(name, 'lookup_failed', text),
      recovered: () => isCurrent() && fma.restore(name, 'lookup_failed'),
    });
  }

  async #closeDynamic(): Promise<void> {
    if (!this.dynamic) return;
    const { dynamic, device } = this;
    dynamic.close();
    this.context.targets.remove(device.row);
    this.dynamic = undefined;
    await this.context.engine.retire(`the targets of ${device.name}`, { table: () => dynamic.free() });
  }

  #services(): LookupServices {
    const { fma, log } = this.context;
    const { device, instance } = this;
    const { name: overlay, vnetid } = device;
    const { lookup } = instance;
    const open = (what: string): Dynamic | undefined => {
      if (!this.#isOpen || instance.lookup !== lookup)
        throw new OverlayError('ENXIO', 'not_active', `${what}: ${overlay} is not active`);
      return this.dynamic;
    };
    return {
      overlay,
      vnetid,
      set: (mac, route) => {
        const checked = checkRoute(route, device.encap.destinations);
        open('set')?.cache.set(parseMac(mac), checked, 'plugin');
      },
      invalidate: (mac) => {
        open('invalidate')?.cache.remove(parseMac(mac));
      },
      invalidateAll: () => open('invalidateAll')?.cache.flush(),
      gratuitousArp: ({ mac, ip, vlan }) => {
        open('gratuitousArp');
        const announcement = checkAnnouncement(mac, ip, vlan);
        this.inject(
          familyOf(announcement.ip) === 4
            ? gratuitousArp(announcement)
            : unsolicitedAdvertisement(announcement),
        );
      },
      peersChanged: () => {
        open('peersChanged');
        if (device.isStarted) this.applySources();
        this.context.mtus.followAll(ROUTES_MS);
      },
      degrade: (text) => {
        open('degrade');
        fma.degrade(overlay, 'plugin', text);
      },
      restore: () => {
        open('restore');
        fma.restore(overlay, 'plugin');
      },
      log: (level, message) => log[level]({ device: overlay }, message),
      optionsFault: (text) => optionsFault(device, text),
      refuseVtep: (ip) => this.vteps.refuse(ip),
      learning: {
        lastSeen: (mac) => open('lastSeen')?.lastSeen(parseMac(mac)) ?? 0,
        isStatic: (mac) => open('isStatic')?.cache.get(parseMac(mac))?.source === 'operator',
        isSettled: (mac) => open('isSettled')?.cache.isSettled(parseMac(mac)) ?? true,
        count: (what) => this.context.engine.counters.add(device.row, learnCounters[what], 1),
      },
    };
  }
}

/** The check of the encapsulation itself, as when a target with such options is set. */
function optionsFault({ encap, properties }: Device, options: string): string | undefined {
  try {
    encap.operations.encap(0n, properties, options);
    return undefined;
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    return error.message;
  }
}

/** What a plugin announces, in the form that packets are made of. Throws EINVAL for what no guest can have. */
function checkAnnouncement(mac: string, ip: string, vlan: number): { mac: number; ip: string; vlan: number } {
  const address = parseMac(mac);
  if (!isStationMac(address))
    throw new OverlayError('EINVAL', 'bad_mac', `no guest has the MAC address ${mac}`);
  if (!Number.isInteger(vlan) || vlan < 0 || vlan > VLAN_MAX) {
    throw new OverlayError('EINVAL', 'bad_vlan', `VLAN ${vlan} is not 0 to ${VLAN_MAX}`);
  }
  return { mac: address, ip: parseIp(ip), vlan };
}
