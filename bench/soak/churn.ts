/**
 * What goes on while a soak lasts, besides traffic of which nothing may be lost: addresses that come and go on every overlay, flushes,
 * properties that change, guests that move, devices that are made and deleted, readers that come and hang up.
 */
import { frameTo } from '../../test/harness/frame-to.js';
import type { Hosts } from '../../test/harness/hosts.js';
import { DYNAMIC, LOOKUPS, type LookupScene, linkOf, strangerMac } from '../../test/harness/lookup-scene.js';
import { PacketSocket } from '../../test/harness/packet-socket.js';

const TICK_MS = 50;
/** Of each overlay, addresses that are new a tick: 100 a second on all five. */
const NEW_A_TICK = 1;
/** Strangers that frames are sent to at a time. */
const WINDOW = 200;
const TICKS_A_SECOND = 1000 / TICK_MS;

export interface ChurnCounts {
  frames: number;
  addresses: number;
  flushes: number;
  settings: number;
  moves: number;
  devices: number;
  readers: number;
  handles: number;
  /** What was refused, by code. */
  readonly refusals: Record<string, number>;
}

export class Churn {
  readonly counts: ChurnCounts = {
    frames: 0,
    addresses: 0,
    flushes: 0,
    settings: 0,
    moves: 0,
    devices: 0,
    readers: 0,
    handles: 0,
    refusals: {},
  };
  readonly #sockets: ReadonlyMap<string, PacketSocket>;
  readonly #back: PacketSocket;
  #isOver = false;
  #done: Promise<unknown> = Promise.resolve();

  constructor(
    readonly scene: LookupScene,
    hosts: Hosts,
  ) {
    this.#sockets = new Map(LOOKUPS.map((lookup) => [lookup, new PacketSocket(hosts.a, linkOf(lookup))]));
    this.#back = new PacketSocket(hosts.b, linkOf('learn'));
  }

  start(): void {
    this.#done = Promise.all([this.#frames(), this.#operations(), this.#readers()]);
  }

  /** Resolves when the last operation has been answered. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#done;
    for (const socket of this.#sockets.values()) socket.close();
    this.#back.close();
  }

  /** A window of strangers that slides: each address is new once, and never again. */
  async #frames(): Promise<void> {
    const { counts } = this;
    for (let tick = 0; !this.#isOver; tick++) {
      const first = tick * NEW_A_TICK;
      counts.addresses += NEW_A_TICK * LOOKUPS.length;
      if (tick % TICKS_A_SECOND === 0) {
        this.scene.know(Array.from({ length: 2 * WINDOW }, (_, index) => first + index));
      }
      for (const socket of this.#sockets.values()) {
        for (const number of [first + WINDOW, first, first + (tick % WINDOW)]) {
          if (socket.send(frameTo(strangerMac(number), tick))) counts.frames++;
        }
      }
      // Their sources teach `learn` where half of the strangers are.
      if (tick % 2 === 0) {
        const frame = frameTo('02:08:20:00:01:01', tick);
        frame.set(Buffer.from(strangerMac(first + WINDOW).replaceAll(':', ''), 'hex'), 6);
        this.#back.send(frame);
      }
      await this.#pause(TICK_MS);
    }
  }

  async #operations(): Promise<void> {
    const { scene, counts } = this;
    const { client } = scene.daemons.a;
    for (let turn = 0; !this.#isOver; turn++) {
      await this.#try('flushes', () => scene.flush(DYNAMIC[turn % DYNAMIC.length]!));
      // Those without traffic of which nothing may be lost: the sockets are opened anew.
      if (turn % 10 === 0) {
        const lookup = DYNAMIC[(turn / 10) % DYNAMIC.length]!;
        await this.#try('settings', () => scene.set(lookup, 'vxlan/ttl', 32 + (turn % 64)));
      }
      if (turn % 20 === 5) await this.#try('moves', () => scene.move());
      if (turn % 50 === 7) {
        const request = {
          name: 'passing',
          encap: 'vxlan',
          search: 'direct',
          vnetid: 99,
          properties: {
            'vxlan/listen_ip': '192.0.2.1',
            'direct/dest_ip': '192.0.2.2',
            'direct/dest_port': 4789,
          },
        };
        await this.#try('devices', () => client.post('/v1/overlays', request));
        await this.#try('devices', () => client.delete('/v1/overlays/passing?force=true'));
      }
      // Once a minute, as a program that is started again.
      if (turn % 600 === 100) {
        await scene.takeHandle();
        counts.handles++;
      }
      await this.#pause(100);
    }
  }

  /** Readers of events that hang up, and pages of targets. */
  async #readers(): Promise<void> {
    const { client } = this.scene.daemons.a;
    for (let turn = 0; !this.#isOver; turn++) {
      await this.#try('readers', async () => {
        const lines = client.lines('/v1/events');
        await lines.next();
        await lines.return(undefined);
      });
      await this.#try('readers', () =>
        client.get(`/v1/overlays/${linkOf(LOOKUPS[turn % LOOKUPS.length]!)}/targets`),
      );
      await this.#pause(500);
    }
  }

  async #try(kind: Exclude<keyof ChurnCounts, 'refusals'>, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
      this.counts[kind]++;
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === undefined) throw error;
      this.counts.refusals[code] = (this.counts.refusals[code] ?? 0) + 1;
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }
}
