/**
 * Probes of path MTUs (`path_mtu_probe`): hosts that devices send to are asked for echo with whole packets, from the address
 * and through the network device of the underlay. What is asked about when is `PathSearch`'s to say, and what comes of it
 * goes to `PathMtus`, beside what routers say.
 */
import type { Engine } from '../datapath/engine.js';
import { PathSearch, type SearchState } from '../datapath/path-search.js';
import type { Device } from '../device.js';
import { overheadBytes, taggedOverhead } from '../encap/overhead.js';
import { OverlayError } from '../errors.js';
import type { Fma } from '../fma.js';
import { type Family, familyOf, isMulticast } from '../ip.js';
import { PATH_AIMS_MS, PATH_PROBE_MS, PATH_PROBE_RATE } from '../limits.js';
import type { Log } from '../log.js';
import { isWildcard, type Mux, type Muxes } from '../mux.js';
import { every, monotonicMs } from '../sys/clock.js';
import { type EchoKey, EchoSocket } from '../sys/echo-socket.js';
import type { Destination } from '../target/destination.js';
import { Bucket } from '../varpd/remote/bucket.js';
import type { Entry } from './setprop.js';

/** Replies taken off a socket at a time. */
const REPLIES_MAX = 256;
/** Of all probes a second, what confirmations may take: the rest is for paths that are searched. */
const SHARE_PER_SECOND = PATH_PROBE_RATE.perSecond / 2;
/** Probes a second by which one destination is confirmed (`CONFIRM_MS`). */
const CONFIRM_PER_SECOND = 1 / 15;

/** Of one underlay address. */
export interface ProbeCounts {
  /** Probes that were sent, those that were answered, and those that this host could not send. */
  sent: number;
  answered: number;
  unsent: number;
}

export const NO_PROBES: Readonly<ProbeCounts> = { sent: 0, answered: 0, unsent: 0 };

/** The way to a destination, as far as it is known. */
export interface PathView {
  readonly ip: string;
  /** Of the largest IP packet that fits, where that is known. */
  readonly bytes: number | undefined;
  /** How far the search for that has come, where it is probed. */
  readonly probe: SearchState | undefined;
}

/** What decides which way packets take: devices of which that is the same share a search. */
type PathKey = string;

/** A destination that is probed. */
interface Aim {
  /** From whose address. */
  mux: Mux;
  readonly ip: string;
  readonly search: PathSearch;
  /** What a router has said that is looked at. */
  word: number | undefined;
  /** Probes of the size that is asked about, whose replies may still come, by their nonces. */
  readonly asked: Map<bigint, EchoKey>;
}

/** A destination as a device wants it. */
interface Wanted {
  readonly mux: Mux;
  readonly ip: string;
  /** Bytes of the largest packet that is ever sent there. */
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
  /** In the order of their turns. */
  readonly #aims = new Map<PathKey, Aim>();
  /** By namespace and address. */
  readonly #byAddress = new Map<string, Set<Aim>>();
  readonly #sockets = new Map<Mux, Map<Family, EchoSocket>>();
  readonly #byNonce = new Map<bigint, Aim>();
  readonly #counts = new WeakMap<Mux, ProbeCounts>();
  readonly #bucket = new Bucket(PATH_PROBE_RATE);
  readonly #stop: () => void;
  #lookAtMs = 0;

  constructor(readonly context: PathProbesContext) {
    this.#stop = every(PATH_PROBE_MS, () => this.#round());
  }

  close(): void {
    this.#stop();
    for (const mux of [...this.#sockets.keys()]) this.#close(mux);
  }

  /**
   * A router says how large a packet to an address may be. True where that may be believed at once: what probes have found
   * is looked at first.
   */
  told(netns: string, ip: string, bytes: number): boolean {
    const now = monotonicMs();
    let isBelieved = true;
    for (const aim of this.#byAddress.get(`${netns} ${ip}`) ?? []) {
      if (aim.search.told(bytes, now)) continue;
      isBelieved = false;
      if (aim.search.state === 'complete') aim.word = bytes;
    }
    return isBelieved;
  }

  /** What is known of the ways of a device to destinations, by routers or probes. */
  paths(device: Device, destinations: readonly Destination[]): PathView[] {
    const { pathMtus } = this.context.engine.destinations;
    return destinations.flatMap(({ ip }) => {
      if (ip === undefined) return [];
      const mux = device.probesPaths ? device.attachment?.mux : undefined;
      const probe = mux && this.#aims.get(pathKey(mux, ip))?.search.state;
      return [{ ip, bytes: pathMtus.get(device.underlayNetns, ip)?.bytes, probe }];
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
      this.#look(now);
      // A small part of the time, however many there are.
      this.#lookAtMs = now + Math.max(PATH_AIMS_MS, this.#aims.size);
    }
    for (const sockets of this.#sockets.values()) {
      for (const socket of sockets.values()) this.#receive(socket, now);
    }
    const served: PathKey[] = [];
    for (const [key, aim] of this.#aims) {
      if (now < aim.search.dueMs) continue;
      if (!this.#bucket.take()) break;
      served.push(key);
      this.#probe(aim, now);
    }
    // Whoever had its turn goes behind those that wait for theirs.
    for (const key of served) {
      const aim = this.#aims.get(key)!;
      this.#aims.delete(key);
      this.#aims.set(key, aim);
    }
  }

  /** Which destinations there are by now. */
  #look(now: number): void {
    const wanted = new Map<PathKey, Wanted>();
    const families = new Map<Mux, Set<Family>>();
    const probing: Device[] = [];
    for (const { device, lookup } of this.context.entries()) {
      const mux = device.probesPaths ? device.attachment?.mux : undefined;
      if (!mux) {
        this.context.fma.restore(device.name, 'paths_unprobed');
        continue;
      }
      probing.push(device);
      const mostOf = packetsOf(device);
      for (const ip of ipsOf(lookup)) {
        const family = familyOf(ip);
        families.set(mux, (families.get(mux) ?? new Set()).add(family));
        const key = pathKey(mux, ip);
        const most = mostOf(family);
        if ((wanted.get(key)?.most ?? 0) < most) wanted.set(key, { mux, ip, most });
      }
    }
    for (const mux of [...this.#sockets.keys()]) if (!families.has(mux)) this.#close(mux);
    const failed = new Map([...families].map(([mux, those]) => [mux, this.#open(mux, those)] as const));
    for (const device of probing) this.#judge(device, failed.get(device.attachment!.mux));
    for (const key of [...this.#aims.keys()]) if (!wanted.has(key)) this.#leave(key);
    const pace = Math.max(1, (wanted.size * CONFIRM_PER_SECOND) / SHARE_PER_SECOND);
    for (const [key, { mux, ip, most }] of wanted) {
      let aim = this.#aims.get(key);
      // More or less can be sent by now: everything is asked again.
      if (aim && aim.search.most !== most) {
        this.#leave(key);
        aim = undefined;
      }
      if (!aim) {
        aim = { mux, ip, search: new PathSearch(familyOf(ip), most, now), word: undefined, asked: new Map() };
        this.#aims.set(key, aim);
        const address = addressOf(aim);
        this.#byAddress.set(address, (this.#byAddress.get(address) ?? new Set()).add(aim));
      }
      aim.mux = mux;
      aim.search.pace = pace;
      // A row may have come anew meanwhile.
      this.#publish(aim);
    }
  }

  #probe(aim: Aim, now: number): void {
    const { mux, ip, search, word } = aim;
    const socket = this.#sockets.get(mux)?.get(search.family);
    if (!socket) return;
    const before = search.asked;
    let bytes = search.next(now);
    if (word !== undefined && search.isShaken) {
      this.context.engine.destinations.pathMtus.learn(mux.netns, ip, word, false);
      aim.word = undefined;
      search.believe(word, now);
      bytes = search.next(now);
    }
    if (bytes !== before) this.#forget(aim);
    if (bytes !== undefined) {
      const request = socket.request(ip, bytes);
      if (typeof request === 'object') {
        this.counts(mux).sent++;
        aim.asked.set(request.nonce, request);
        this.#byNonce.set(request.nonce, aim);
      } else {
        this.counts(mux).unsent++;
        if (request === 'too_big') search.refused(now);
        else search.unsent(now);
      }
    }
    this.#publish(aim);
  }

  #receive(socket: EchoSocket, now: number): void {
    for (let count = 0; count < REPLIES_MAX; count++) {
      const reply = socket.receive();
      if (!reply) return;
      const aim = this.#byNonce.get(reply.nonce);
      const request = aim?.asked.get(reply.nonce);
      if (!aim || request?.sequence !== reply.sequence || request.bytes !== reply.bytes) continue;
      this.counts(aim.mux).answered++;
      this.#forget(aim);
      aim.search.answered(now);
      // It was not so.
      aim.word = undefined;
      this.#publish(aim);
    }
  }

  /** No reply to what was asked so far is waited for. */
  #forget({ asked }: Aim): void {
    for (const nonce of asked.keys()) this.#byNonce.delete(nonce);
    asked.clear();
  }

  #publish({ mux, ip, search }: Aim): void {
    const { found, limit } = search;
    if (found === undefined) return;
    const { pathMtus } = this.context.engine.destinations;
    const before = pathMtus.get(mux.netns, ip)?.bytes;
    pathMtus.probed(mux.netns, ip, found, limit);
    const after = pathMtus.get(mux.netns, ip)?.bytes;
    if (before === after) return;
    this.context.log.info({ netns: mux.netns, ip, before, after }, 'path MTU by probes');
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

  #leave(key: PathKey): void {
    const aim = this.#aims.get(key)!;
    const address = addressOf(aim);
    const those = this.#byAddress.get(address)!;
    those.delete(aim);
    if (those.size === 0) this.#byAddress.delete(address);
    this.#forget(aim);
    this.#aims.delete(key);
  }

  #close(mux: Mux): void {
    for (const socket of this.#sockets.get(mux)!.values()) socket.close();
    this.#sockets.delete(mux);
  }
}

function pathKey({ netns, settings }: Mux, ip: string): PathKey {
  return `${netns} ${settings.mark} ${settings.device} ${ip}`;
}

function addressOf({ mux, ip }: Aim): string {
  return `${mux.netns} ${ip}`;
}

/** Hosts that a device sends to: those that its targets are behind. */
function ipsOf({ point, dynamic }: Entry['lookup']): string[] {
  const ips = point ? [point.ip] : (dynamic?.vteps ?? []);
  return ips.filter((ip) => ip !== undefined && !isMulticast(ip)) as string[];
}

/** Bytes of the largest packet of a device over a family. */
function packetsOf({ encap, mtu, properties }: Device): (family: Family) => number {
  const encapBytes = encap.operations.encap(0n, properties).length;
  const of = (family: Family) => mtu + overheadBytes(taggedOverhead({ encap, encapBytes, family }));
  const most = { 4: of(4), 6: of(6) };
  return (family) => most[family];
}
