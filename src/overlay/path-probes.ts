/**
 * Probes of path MTUs (`path_mtu_probe`): hosts that devices send to are asked for echo with whole packets, from the address
 * and through the network device of the underlay. What is asked about when is `PathSearch`'s to say, and what comes of it
 * goes to `PathMtus`, beside what routers say.
 */
import type { Engine } from '../datapath/engine.js';
import type { PathMtu } from '../datapath/path-mtus.js';
import { PathSearch, type SearchState } from '../datapath/path-search.js';
import type { Device } from '../device.js';
import { overheadBytes, taggedOverhead } from '../encap/overhead.js';
import { OverlayError } from '../errors.js';
import type { Fma } from '../fma.js';
import { type Family, familyOf, isMulticast } from '../ip.js';
import { PATH_AIMS_MS, PATH_PROBE_MS, PATH_PROBE_RATE } from '../limits.js';
import type { Log } from '../log.js';
import { isWildcard, keyOf, type Mux, type Muxes } from '../mux.js';
import { every, monotonicMs } from '../sys/clock.js';
import { type EchoKey, EchoSocket } from '../sys/echo-socket.js';
import type { Destination } from '../target/destination.js';
import { Bucket } from '../varpd/remote/bucket.js';
import type { Entry } from './setprop.js';

/** Replies taken in at a time. */
const REPLIES_MAX = 1024;

/** Of one underlay address. */
export interface ProbeCounts {
  /** Probes that were sent, those that were answered, and those that this host could not send. */
  sent: number;
  answered: number;
  unsent: number;
}

/** The way to a destination, as far as it is known. */
export interface PathView {
  readonly ip: string;
  /** Of the largest IP packet that fits, where that is known. */
  readonly bytes: number | undefined;
  /** How far the search for that has come, where it is probed. */
  readonly probe: SearchState | undefined;
}

export const NO_PROBES: Readonly<ProbeCounts> = { sent: 0, answered: 0, unsent: 0 };

/** A destination that is probed from an underlay address. */
interface Aim {
  readonly mux: Mux;
  readonly ip: string;
  search: PathSearch;
  /** What a router has said last. */
  heard: PathMtu | undefined;
  /** Of the size that is asked about: those whose replies may still come. */
  asked: EchoKey[];
}

/** Where a device's packets go, and how large they can be. */
interface Wanted {
  readonly mux: Mux;
  readonly ip: string;
  readonly most: number;
}

export interface PathProbesContext {
  readonly engine: Engine;
  readonly muxes: Muxes;
  readonly fma: Fma;
  readonly log: Log;
  entries(): Iterable<Entry>;
}

export class PathProbes {
  /** By underlay address, then by destination. */
  readonly #aims = new Map<Mux, Map<string, Aim>>();
  readonly #sockets = new Map<Mux, Map<Family, EchoSocket>>();
  readonly #counts = new WeakMap<Mux, ProbeCounts>();
  readonly #bucket = new Bucket(PATH_PROBE_RATE);
  readonly #stop: () => void;
  #lookAtMs = 0;

  constructor(readonly context: PathProbesContext) {
    this.#stop = every(PATH_PROBE_MS, () => this.#round());
  }

  close(): void {
    this.#stop();
    for (const mux of [...this.#aims.keys()]) this.#leave(mux);
  }

  /** What is known of the ways of a device to destinations, by routers or probes. */
  paths(device: Device, destinations: readonly Destination[]): PathView[] {
    const { pathMtus } = this.context.engine.destinations;
    return destinations.flatMap(({ ip }) => {
      if (ip === undefined) return [];
      const bytes = pathMtus.get(device.underlayNetns, ip)?.bytes;
      return [{ ip, bytes, probe: this.#stateOf(device, ip) }];
    });
  }

  counts(mux: Mux): ProbeCounts {
    const known = this.#counts.get(mux) ?? { ...NO_PROBES };
    this.#counts.set(mux, known);
    return known;
  }

  #round(): void {
    const now = monotonicMs();
    if (now >= this.#lookAtMs) {
      this.#lookAtMs = now + PATH_AIMS_MS;
      this.#look(now);
    }
    for (const [mux, aims] of this.#aims) {
      this.#receive(mux, aims, now);
      for (const aim of aims.values()) {
        if (!this.#probe(aim, now)) return;
      }
    }
  }

  /** Which destinations there are by now. */
  #look(now: number): void {
    const wanted = new Map<Mux, Map<string, Wanted>>();
    const failed = new Map<Mux, OverlayError>();
    for (const { device, lookup } of this.context.entries()) {
      if (!device.probesPaths || !device.attachment) {
        this.context.fma.restore(device.name, 'paths_unprobed');
        continue;
      }
      const { mux } = device.attachment;
      for (const each of wantedOf(device, mux, lookup)) {
        const byIp = wanted.get(mux) ?? new Map<string, Wanted>();
        wanted.set(mux, byIp);
        const other = byIp.get(each.ip);
        if (!other || other.most < each.most) byIp.set(each.ip, each);
      }
      const families = new Set([...(wanted.get(mux)?.keys() ?? [])].map(familyOf));
      const error = failed.get(mux) ?? this.#open(mux, families);
      if (error) failed.set(mux, error);
      this.#judge(device, error);
    }
    for (const mux of [...this.#aims.keys()]) if (!wanted.has(mux)) this.#leave(mux);
    for (const [mux, byIp] of wanted) {
      const aims = this.#aims.get(mux) ?? new Map<string, Aim>();
      this.#aims.set(mux, aims);
      for (const ip of [...aims.keys()]) if (!byIp.has(ip)) aims.delete(ip);
      for (const { ip, most } of byIp.values()) {
        const known = aims.get(ip);
        // More or less can be sent by now: everything is asked again.
        if (known?.search.most === most) this.#tell(known, now);
        else aims.set(ip, aimAt(mux, ip, new PathSearch(familyOf(ip), most, now)));
      }
    }
  }

  /** What a router has said meanwhile. */
  #tell(aim: Aim, now: number): void {
    const news = this.#newsOf(aim);
    if (!news) return;
    aim.heard = news;
    aim.search.told(news.bytes, now);
  }

  #stateOf({ attachment }: Device, ip: string): SearchState | undefined {
    return attachment && this.#aims.get(attachment.mux)?.get(ip)?.search.state;
  }

  #newsOf({ mux, ip, heard }: Aim): PathMtu | undefined {
    const known = this.context.engine.destinations.pathMtus.get(mux.netns, ip);
    return known && known.source !== 'probe' && known !== heard ? known : undefined;
  }

  /** Sends what is due. False when there were so many that the rest has to wait. */
  #probe(aim: Aim, now: number): boolean {
    const { mux, ip, search } = aim;
    const socket = this.#sockets.get(mux)?.get(search.family);
    if (!socket || !search.isDue(now)) return true;
    if (!this.#bucket.take()) return false;
    const before = search.asked;
    const bytes = search.next(now);
    if (bytes !== before) aim.asked = [];
    if (bytes !== undefined) {
      const request = socket.request(ip, bytes);
      if (typeof request === 'object') {
        this.counts(mux).sent++;
        aim.asked.push(request);
      } else {
        this.counts(mux).unsent++;
        if (request === 'too_big') search.refused(now);
      }
    }
    this.#publish(aim);
    return true;
  }

  #receive(mux: Mux, aims: ReadonlyMap<string, Aim>, now: number): void {
    for (const socket of this.#sockets.get(mux)?.values() ?? []) {
      const replies = new Map<bigint, EchoKey>();
      for (let reply = socket.receive(); reply; reply = socket.receive()) {
        replies.set(reply.nonce, reply);
        if (replies.size >= REPLIES_MAX) break;
      }
      if (replies.size === 0) continue;
      for (const aim of aims.values()) {
        if (!aim.asked.some((request) => isReply(request, replies.get(request.nonce)))) continue;
        this.counts(mux).answered++;
        aim.asked = [];
        aim.search.answered(now);
        this.#publish(aim);
      }
    }
  }

  #publish(aim: Aim): void {
    const { mux, ip, search } = aim;
    const { found } = search;
    // What has just been said is looked at first.
    if (found === undefined || this.#newsOf(aim)) return;
    const { pathMtus } = this.context.engine.destinations;
    const before = pathMtus.get(mux.netns, ip)?.bytes;
    pathMtus.probed(mux.netns, ip, found);
    const after = pathMtus.get(mux.netns, ip)?.bytes;
    if (before === after) return;
    this.context.log.info(
      { mux: keyOf(mux.ip, mux.port, mux.netns), ip, before, found },
      'path MTU by probes',
    );
  }

  /** Opens the sockets that there are not yet. */
  #open(mux: Mux, families: ReadonlySet<Family>): OverlayError | undefined {
    const sockets = this.#sockets.get(mux) ?? new Map<Family, EchoSocket>();
    this.#sockets.set(mux, sockets);
    for (const family of families) {
      if (sockets.has(family)) continue;
      const ip = isWildcard(mux.ip) ? { 4: '0.0.0.0', 6: '::' }[family] : mux.ip;
      try {
        const open = () => new EchoSocket(family, ip, mux.settings);
        sockets.set(family, this.context.muxes.namespaces.inNamespace(mux.netns, open));
      } catch (error) {
        if (!(error instanceof OverlayError)) throw error;
        return error;
      }
    }
    return undefined;
  }

  #judge({ name }: Device, error: OverlayError | undefined): void {
    const { fma } = this.context;
    if (error) fma.degrade(name, 'paths_unprobed', `path MTUs are not probed: ${error.message}`);
    else fma.restore(name, 'paths_unprobed');
  }

  #leave(mux: Mux): void {
    this.#aims.delete(mux);
    for (const socket of this.#sockets.get(mux)?.values() ?? []) socket.close();
    this.#sockets.delete(mux);
  }
}

function aimAt(mux: Mux, ip: string, search: PathSearch): Aim {
  return { mux, ip, search, heard: undefined, asked: [] };
}

function isReply(request: EchoKey, reply: EchoKey | undefined): boolean {
  return reply?.sequence === request.sequence && reply.bytes === request.bytes;
}

function wantedOf(device: Device, mux: Mux, { point, dynamic }: Entry['lookup']): Wanted[] {
  const ips = point ? [point.ip] : (dynamic?.vteps ?? []);
  const { encap, mtu, mtuSum, properties } = device;
  const encapBytes = encap.operations.encap(0n, properties).length;
  return ips.flatMap((ip) => {
    if (ip === undefined || isMulticast(ip)) return [];
    const family = familyOf(ip);
    const needed = mtu + overheadBytes(taggedOverhead({ encap, encapBytes, family }));
    return [{ mux, ip, most: Math.min(needed, mtuSum?.underlay.bytes ?? needed) }];
  });
}
