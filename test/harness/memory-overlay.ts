/**
 * An overlay engine over memory ports whose links a test drives: up and down, MTU, gone, links on top. Needs
 * no rights; the underlay is loopback.
 */
import { createSocket } from 'node:dgram';
import { readdirSync } from 'node:fs';
import * as assert from 'uvu/assert';
import * as layout from '../../assembly/layout.js';
import { type DropName, dropNames } from '../../src/datapath/drop.js';
import { memoryBytesNeeded } from '../../src/datapath/memory.js';
import type { UnderlayMtu } from '../../src/device.js';
import type { EncapRegistry } from '../../src/encap/registry.js';
import { OverlayError } from '../../src/errors.js';
import { ARENAS_SPARE } from '../../src/limits.js';
import { type Log, silent } from '../../src/log.js';
import type { HeldNamespace } from '../../src/mux.js';
import type { SocketOffloads, SuperFrames } from '../../src/offload.js';
import type { Store } from '../../src/overlay/persistence.js';
import type { PortEvent, PortLeft, PortRequest, PortSource } from '../../src/overlay/ports.js';
import type { OverlayRequest } from '../../src/overlay/transaction.js';
import { Overlay } from '../../src/overlay.js';
import { MemoryPort } from '../../src/sys/memory-port.js';
import type { Port } from '../../src/sys/port.js';
import type { LookupPlugin } from '../../src/varpd/plugin.js';
import { Varpd, type VarpdInstance } from '../../src/varpd/varpd.js';

/** A memory port that looks like a link: name, index, alias, MTU, carrier, administrative state. */
export class TestLink implements Port {
  readonly port: MemoryPort;
  readonly fds: readonly number[];
  isUp = false;
  isReleased = false;
  /** What setCarrier throws, once. */
  carrierFailure: OverlayError | undefined;

  constructor(
    readonly name: string,
    readonly index: number,
    queues: number,
    public mtu: number,
    public alias: string,
  ) {
    this.port = new MemoryPort(queues);
    this.fds = this.port.fds;
  }

  get hasCarrier(): boolean {
    return this.port.hasCarrier;
  }

  setCarrier(on: boolean): void {
    const failure = this.carrierFailure;
    this.carrierFailure = undefined;
    if (failure) throw failure;
    this.port.setCarrier(on);
  }

  setMtu(bytes: number): void {
    this.mtu = bytes;
  }

  setAlias(text: string): void {
    this.alias = text;
  }

  readonly mac = '02:00:00:00:00:01';
  /** What `keep` was told last. */
  isKept = false;

  /** What `keep` throws, once. */
  keepFailure: OverlayError | undefined;

  keep(isKept: boolean): void {
    const failure = this.keepFailure;
    this.keepFailure = undefined;
    if (failure) throw failure;
    this.isKept = isKept;
  }

  handOver(): void {}

  readonly offloads = { checksum: false, tso: false, uso: false };
  readonly takes: SuperFrames = 'none';

  offer(): void {}

  /** The name is free, whether or not it is released. */
  isUnlinked = false;

  unlink(): void {
    this.isUnlinked = true;
  }

  async release(): Promise<void> {
    assert.is(this.isReleased, false, `link ${this.name} is released once`);
    this.isReleased = true;
    await this.port.release();
  }
}

/** Makes links and passes on what happens to them. */
export class TestLinks implements PortSource {
  /** The newest of each name, released or not. */
  readonly #links = new Map<string, TestLink>();
  readonly #listeners = new Set<(event: PortEvent) => void>();
  readonly #upper = new Map<string, string[]>();
  /** What the host takes for itself. */
  prefixes: readonly string[] = [];
  #nextIndex = 10;
  /** What the next `open` throws. */
  openFailure: OverlayError | undefined;
  isClosed = false;
  /** What is the matter with an underlay address. */
  faultOf: (ip: string) => string | undefined = () => undefined;

  /** What an underlay takes. */
  underlayMtuOf: (from: string, to: string | undefined, netns: string) => UnderlayMtu | undefined = () =>
    undefined;

  open({ name, queues, mtu, alias }: PortRequest): TestLink {
    const failure = this.openFailure;
    this.openFailure = undefined;
    if (failure) throw failure;
    const link = new TestLink(name, this.#nextIndex++, queues, mtu, alias);
    this.#links.set(name, link);
    return link;
  }

  reopen(left: PortLeft): TestLink {
    return this.open(left);
  }

  isLeftUp(): boolean {
    return false;
  }

  discard(): void {}

  move(): void {}

  /** The one that links are in, and whether it is there. */
  netns = '';
  isThere = true;

  isNamespaceThere(): boolean {
    return this.isThere;
  }

  underlayFault(ip: string): string | undefined {
    return this.faultOf(ip);
  }

  /** Addresses of the host, for devices that listen on all. */
  addresses: ReadonlySet<string> = new Set();

  hostAddresses(): ReadonlySet<string> {
    return this.addresses;
  }

  underlayMtu(from: string, to: string | undefined, netns: string): UnderlayMtu | undefined {
    return this.underlayMtuOf(from, to, netns);
  }

  linkIndex(): undefined {
    return undefined;
  }

  ownPrefixes(): readonly string[] {
    return this.prefixes;
  }

  holdNamespace(): HeldNamespace {
    return { isThere: true, leave: () => {} };
  }

  inNamespace<T>(_netns: string, work: () => T): T {
    return work();
  }

  isUp(port: Port): boolean {
    return (port as TestLink).isUp;
  }

  mtu(port: Port): number {
    return (port as TestLink).mtu;
  }

  upperLinks(port: Port): string[] {
    return this.#upper.get((port as TestLink).name) ?? [];
  }

  overflows(ports: readonly Port[]): bigint[] {
    return ports.map(() => 0n);
  }

  watch(listener: (event: PortEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.isClosed = true;
  }

  /** Links that nobody has released. */
  get unreleased(): string[] {
    return [...this.#links.values()].filter(({ isReleased }) => !isReleased).map(({ name }) => name);
  }

  get(name: string): TestLink {
    const link = this.#links.get(name);
    if (!link) throw new Error(`there is no link ${name}`);
    return link;
  }

  has(name: string): boolean {
    return this.#links.has(name);
  }

  /** Links on top of a link, from here on. */
  setUpper(name: string, upper: string[]): void {
    this.#upper.set(name, upper);
  }

  setUp(name: string, isUp: boolean): void {
    this.get(name).isUp = isUp;
    this.tell(name);
  }

  /** As `ip link set <name> mtu`. */
  changeMtu(name: string, mtu: number): void {
    this.get(name).mtu = mtu;
    this.tell(name);
  }

  /** As `ip link delete`: by somebody else than the engine. */
  remove(name: string): void {
    this.tell(name, true);
  }

  /** An address of the host came or went. */
  addressChanged(): void {
    for (const listener of this.#listeners) listener({ kind: 'underlay' });
  }

  /** The namespace of the links came or went. */
  namespaceChanged(isThere: boolean): void {
    this.isThere = isThere;
    for (const listener of this.#listeners) listener({ kind: 'netns' });
  }

  /** Routes came or went. */
  routesChanged(): void {
    for (const listener of this.#listeners) listener({ kind: 'routes' });
  }

  /** Tells the link's state, changed or not. */
  tell(name: string, isDeleted = false): void {
    const { index, isUp, mtu, mac } = this.get(name);
    const event: PortEvent = { kind: 'link', netns: this.netns, index, isUp, mtu, mac, name, isDeleted };
    for (const listener of this.#listeners) listener(event);
  }
}

/** varpd that knows how many instances live. */
export class CountingVarpd extends Varpd {
  readonly live = new Set<VarpdInstance>();

  override create(search: string, destinations: number): VarpdInstance {
    const instance = super.create(search, destinations);
    this.live.add(instance);
    return instance;
  }

  override forget(instance: VarpdInstance): void {
    super.forget(instance);
    this.live.delete(instance);
  }

  override async destroy(instance: VarpdInstance): Promise<void> {
    await super.destroy(instance);
    this.live.delete(instance);
  }
}

export interface MemoryOverlayOptions {
  /** Lookup plugins besides the built-in ones. */
  readonly plugins?: readonly LookupPlugin[];
  /** Bytes of the pool beyond the least there can be. */
  readonly poolBytes?: number;
  readonly workers?: number;
  readonly bank?: number;
  readonly encaps?: EncapRegistry;
  readonly log?: Log;
  /** Where devices are kept. */
  readonly store?: Store;
  readonly sockets?: SocketOffloads;
  readonly offloadRetryMs?: number;
  /** Another loop module for the workers. */
  readonly entry?: URL;
}

export class MemoryOverlay {
  private constructor(
    readonly overlay: Overlay,
    readonly links: TestLinks,
    readonly varpd: CountingVarpd,
  ) {}

  static async start(options: MemoryOverlayOptions = {}): Promise<MemoryOverlay> {
    const { workers = 1, bank = 2, log = silent, encaps, store, plugins = [], poolBytes = 0 } = options;
    const { sockets, offloadRetryMs, entry } = options;
    const links = new TestLinks();
    const varpd = new CountingVarpd();
    for (const plugin of plugins) varpd.register(plugin);
    const overlay = await Overlay.start({
      workers,
      memoryBytes: memoryBytesNeeded(workers + ARENAS_SPARE) + poolBytes,
      cpus: [],
      bank,
      ports: links,
      log,
      varpd,
      ...(encaps ? { encaps } : {}),
      ...(store ? { store } : {}),
      ...(sockets ? { sockets } : {}),
      ...(offloadRetryMs ? { offloadRetryMs } : {}),
      ...(entry ? { entry } : {}),
    });
    return new MemoryOverlay(overlay, links, varpd);
  }

  /** Resolves when what was reported of links so far has been dealt with. */
  async settle(): Promise<void> {
    await this.overlay.idle();
  }

  async up(name: string): Promise<void> {
    this.links.setUp(name, true);
    await this.settle();
  }

  async down(name: string): Promise<void> {
    this.links.setUp(name, false);
    await this.settle();
  }

  close(): Promise<void> {
    return this.overlay.close();
  }

  /** Rows that are not in use, and slots of the vnet table that are. */
  tables(): { devices: number; muxes: number; destinations: number; vnets: number } {
    const { tables, views } = this.overlay.engine;
    let vnets = 0;
    for (let slot = 0; slot < layout.VNETS_MAX; slot++) {
      const at = layout.VNETS_OFFSET + slot * layout.VNET_BYTES + layout.VNET_DEVICE;
      const held = views.u32[at / 4]!;
      if (held !== 0 && held !== layout.NONE) vnets++;
    }
    const { devices, muxes, destinations } = tables;
    return { devices: free(devices), muxes: free(muxes), destinations: free(destinations), vnets };
  }

  /** Everything that a device takes and gives back. */
  holdings(): object {
    return {
      names: this.overlay.names,
      links: this.links.unreleased,
      instances: this.varpd.live.size,
      underlays: this.overlay.muxStats().map(({ name }) => name),
      descriptors: descriptors(),
      ...this.tables(),
    };
  }
}

function free(pool: { take(): number; free(row: number): void }): number {
  const rows: number[] = [];
  try {
    for (;;) rows.push(pool.take());
  } catch (error) {
    if (!(error instanceof OverlayError) || error.errno !== 'ENOSPC') throw error;
  }
  for (const row of rows) pool.free(row);
  return rows.length;
}

/** Descriptors this process has open. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** A UDP port of the address that nobody had a moment ago. */
export async function freePort(ip: string): Promise<number> {
  const holder = await holdPort(ip, 0);
  const { port } = holder;
  await holder.release();
  return port;
}

/** Takes a UDP port as a foreign program would. */
export async function holdPort(
  ip: string,
  wanted: number,
): Promise<{ port: number; release(): Promise<void> }> {
  const socket = createSocket(ip.includes(':') ? 'udp6' : 'udp4');
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(wanted, ip, resolve);
  });
  return {
    port: socket.address().port,
    release: () => new Promise((resolve) => socket.close(() => resolve())),
  };
}

/** A request for a point-to-point vxlan overlay on loopback. */
export function request(
  name: string,
  vnetid: unknown,
  port: number,
  given: {
    ip?: string;
    peer?: string;
    encap?: string;
    search?: string;
    properties?: Record<string, unknown>;
  } = {},
): OverlayRequest {
  const { ip = '127.0.0.1', peer = '127.0.0.2', encap = 'vxlan', search = 'direct', properties = {} } = given;
  return {
    name,
    encap,
    search,
    vnetid,
    properties: {
      'vxlan/listen_ip': ip,
      'vxlan/listen_port': port,
      'direct/dest_ip': peer,
      'direct/dest_port': port,
      ...properties,
    },
  };
}

/** The OverlayError that `work` ends in; anything else fails the test. */
export async function refusal(work: Promise<unknown> | (() => unknown)): Promise<OverlayError> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (error) {
    if (error instanceof OverlayError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

/** Asserts errno and code of a refusal, and that its message is a sentence. */
export async function assertRefused(
  work: Promise<unknown> | (() => unknown),
  errno: string,
  code: string,
  message?: RegExp,
): Promise<OverlayError> {
  const error = await refusal(work);
  assert.equal([error.errno, error.code], [errno, code], error.message);
  assert.match(error.message, /\S+ \S+/);
  if (message) assert.match(error.message, message);
  return error;
}

const sum = (drops: Readonly<Record<DropName, bigint>>, prefix: string): bigint =>
  dropNames.reduce((total, name) => total + (name.startsWith(prefix) ? drops[name] : 0n), 0n);

/** For a worker that has sent something and not counted it yet to get its turn. */
const REST_MS_MAX = 2000;

/** What the engine has counted, when that rests: a frame may have arrived before its sender has counted it. */
async function restOf(overlay: Overlay): Promise<void> {
  const counts = () =>
    [...overlay.allDeviceStats(), ...overlay.muxStats()].flatMap(({ counts: { counters, drops } }) => [
      ...Object.values(counters),
      ...Object.values(drops),
    ]);
  const isOpen = () =>
    overlay.allDeviceStats().some(({ counts: { counters, drops } }) => {
      return counters.tx_read !== counters.tx_frames + sum(drops, 'tx_');
    });
  const begun = performance.now();
  for (let before = ''; performance.now() - begun < REST_MS_MAX; ) {
    const now = counts().join();
    if (now === before && !isOpen()) return;
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * Asserts, when traffic has stopped, that every frame and datagram is accounted for: of each device, read from the link = sent
 * + named drops; of its mux, on which the devices are the only ones, read = delivered + named drops of mux and devices.
 */
export async function assertBooks(overlay: Overlay, mux: string): Promise<void> {
  await restOf(overlay);
  let received = 0n;
  for (const name of overlay.names) {
    const { counters, drops } = overlay.deviceStats(name).counts;
    assert.is(
      counters.tx_read,
      counters.tx_frames + sum(drops, 'tx_'),
      `${name}: read = sent + dropped by name`,
    );
    received += counters.rx_frames + sum(drops, 'rx_');
  }
  const row = overlay.muxStats().find(({ name }) => name === mux);
  assert.ok(row, `${mux} is open`);
  const { counters, drops } = row.counts;
  assert.is(counters.rx_read, received + sum(drops, 'rx_'), `${mux}: read = delivered + dropped by name`);
}
