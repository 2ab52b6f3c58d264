/**
 * A host without a namespace: an engine with ports in memory, its control API, and a station on the overlay
 * that answers echo requests and blocks of data.
 */
import { join } from 'node:path';
import { ControlServer } from '../control/server.js';
import { bankFor, MEMORY_DEFAULT_BYTES } from '../limits.js';
import type { Log } from '../log.js';
import { Overlay } from '../overlay.js';
import { decodeEcho, ECHO_REPLY, ECHO_REQUEST, type Echo, encodeEcho } from '../sys/icmp-echo.js';
import type { Cleanup } from './cleanup.js';
import {
  type Block,
  blockFrame,
  blockOf,
  ETHERTYPE_BLOCK,
  ETHERTYPE_IPV4,
  ethertypeOf,
  icmpFrame,
  icmpOf,
  type Station,
} from './frame.js';
import { MemorySource } from './memory-source.js';
import { DEVICE, type Host, type LinkRow } from './pair.js';
import { print } from './screen.js';

export const WORKERS = 2;
/** Frames taken in one turn, so that signals and timers are heard in between. */
const FRAMES_A_TURN_MAX = 256;

export interface MemoryHostOptions {
  readonly name: 'a' | 'b';
  readonly underlayIp: string;
  readonly innerIp: string;
  readonly mac: string;
  readonly directory: string;
}

export class MemoryHost implements Host {
  readonly name: 'a' | 'b';
  readonly socket: string;
  readonly underlayIp: string;
  readonly innerIp: string;
  readonly station: Station;
  readonly #source = new MemorySource();
  #isClosed = false;
  /** Where replies and blocks go; replaced by whoever waits for them. */
  onEcho: (echo: Echo) => void = () => {};
  onBlock: (block: Block | undefined) => void = () => {};

  private constructor(options: MemoryHostOptions) {
    this.name = options.name;
    this.socket = join(options.directory, `${options.name}.sock`);
    this.underlayIp = options.underlayIp;
    this.innerIp = options.innerIp;
    this.station = { mac: options.mac, ip: options.innerIp };
  }

  /** Starts the engine and its control API. */
  static async start(cleanup: Cleanup, options: MemoryHostOptions): Promise<MemoryHost> {
    const host = new MemoryHost(options);
    const log = logOf(host.name);
    const overlay = await Overlay.start({
      workers: WORKERS,
      memoryBytes: MEMORY_DEFAULT_BYTES,
      cpus: [],
      bank: bankFor(WORKERS),
      ports: host.#source,
      log,
    });
    cleanup.hold(
      () => overlay,
      (each) => {
        host.#isClosed = true;
        return each.close();
      },
    );
    const server = await ControlServer.start(overlay, host.socket, log);
    cleanup.hold(
      () => server,
      (each) => each.close(),
    );
    return host;
  }

  takeUp(): readonly string[] {
    this.#source.takeUp(DEVICE);
    return []; // no command knows this link
  }

  links(): LinkRow[] {
    const { name, mtu, isUp, hasCarrier } = this.#source.link(DEVICE);
    const state = `${isUp ? 'up' : 'down'}, ${hasCarrier ? 'carrier' : 'no carrier'}`;
    return [{ name, kind: 'memory', mac: this.station.mac, mtu, state, addresses: `${this.innerIp}/24` }];
  }

  underlayDrops(): number {
    return 0; // the loopback has none
  }

  /** Takes the frames that are waiting and answers them; how many there were. */
  turn(peer: Station): number {
    let frames = 0;
    while (frames < FRAMES_A_TURN_MAX && !this.#isClosed) {
      const frame = this.#source.link(DEVICE).receive();
      if (!frame) break;
      frames++;
      const type = ethertypeOf(frame);
      if (type === ETHERTYPE_BLOCK) this.onBlock(blockOf(frame));
      else if (type === ETHERTYPE_IPV4) this.#onIpv4(frame, peer);
    }
    return frames;
  }

  #onIpv4(frame: Uint8Array, peer: Station): void {
    const echo = decodeEcho(icmpOf(frame, this.station) ?? new Uint8Array());
    if (!echo) return;
    if (echo.type === ECHO_REQUEST) this.sendEcho(peer, { ...echo, type: ECHO_REPLY });
    else this.onEcho(echo);
  }

  /** False when the link takes no more for now. */
  sendEcho(peer: Station, echo: Echo): boolean {
    return this.#send(0, icmpFrame(this.station, peer, encodeEcho(echo)));
  }

  /** False when the link takes no more for now. Blocks go through all queues in turn. */
  sendBlock(peer: Station, block: Block): boolean {
    return this.#send(block.number % WORKERS, blockFrame(this.station, peer, block));
  }

  #send(queue: number, frame: Uint8Array): boolean {
    return !this.#isClosed && this.#source.link(DEVICE).send(queue, frame);
  }
}

/** Warnings and errors of an engine, among the output of the demo. */
function logOf(name: string): Log {
  const tell = (fields: object, message: string) =>
    print(`  [engine of host ${name}] ${message} ${JSON.stringify(fields)}`);
  return { debug: () => {}, info: () => {}, warn: tell, error: tell };
}
