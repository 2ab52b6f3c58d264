/** One worker that can be held, a started device with its link, a guest on that, and a peer on the underlay. */
import * as assert from 'uvu/assert';
import * as layout from '../../assembly/layout.js';
import type { Workers } from '../../src/datapath/workers.js';
import { AF_INET, IPPROTO_IP, SOCK_CLOEXEC, SOCK_DGRAM } from '../../src/sys/abi.js';
import { must } from '../../src/sys/errno.js';
import { closeFd } from '../../src/sys/fd.js';
import * as libc from '../../src/sys/libc.js';
import { sockaddr } from '../../src/sys/sockaddr.js';
import type { LookupInstance } from '../../src/varpd/plugin.js';
import { encap } from '../reference/vxlan.js';
import { frameTo } from './frame-to.js';
import { before, Hold, heldEntry, turns } from './hold.js';
import { until } from './hosts.js';
import { freePort, MemoryOverlay, request } from './memory-overlay.js';
import { ScriptedLookup } from './scripted-lookup.js';

export const HERE = '127.0.0.1';
export const PEER = '127.0.0.2';
export const GROUP = '239.1.1.1';
export const MAC = 0x020820000007;
/** Of the device. */
export const ROW = 0;
const MAC_TEXT = '02:08:20:00:00:07';
const VNETID = 42;
const MULTICAST_IF = 32;

/** One worker that can be held, and a started device with its link in row 0. */
export class HeldScene {
  readonly hold: Hold;
  /** Offsets of the pool that were given back. */
  readonly freed: number[] = [];
  /** How often main has begun to wait for the workers. */
  waits = 0;
  readonly #socket = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');

  private constructor(
    readonly memory: MemoryOverlay,
    readonly plugin: ScriptedLookup,
    readonly port: number,
  ) {
    this.hold = new Hold(this.engine);
    const peer = sockaddr(AF_INET, PEER, 0);
    must(libc.bind(this.#socket, peer, peer.length), 'bind');
    before(this.engine.pool, 'free', (offset) => this.freed.push(offset as number));
    before(this.engine.workers as Workers, 'quiesce', () => this.waits++);
  }

  static async start(
    search: string,
    properties: Record<string, unknown> = {},
    more: Partial<LookupInstance> = {},
  ): Promise<HeldScene> {
    const plugin = new ScriptedLookup(() => 'drop', more);
    const memory = await MemoryOverlay.start({ entry: heldEntry, plugins: [plugin], poolBytes: 2 ** 22 });
    memory.links.netns = String(properties.netns ?? '');
    const scene = new HeldScene(memory, plugin, await freePort(HERE));
    await scene.create('ov0', VNETID, search, properties);
    return scene;
  }

  async create(name: string, vnetid: number, search: string, properties: Record<string, unknown> = {}) {
    const { memory, port } = this;
    const whole = request(name, vnetid, port, { search, properties });
    if (search !== 'direct') {
      const { 'direct/dest_ip': _ip, 'direct/dest_port': _port, ...others } = whole.properties;
      await memory.overlay.createOverlay({ ...whole, properties: others });
    } else await memory.overlay.createOverlay(whole);
    await memory.up(name);
    assert.is(memory.overlay.state(name), 'started', memory.overlay.status(name).message);
  }

  get overlay() {
    return this.memory.overlay;
  }

  get engine() {
    return this.memory.overlay.engine;
  }

  get tables() {
    return this.engine.tables;
  }

  link(name = 'ov0') {
    return this.memory.links.get(name).port;
  }

  /** A guest sends a frame. */
  readonly send = (name = 'ov0') => assert.ok(this.link(name).send(0, frameTo(MAC_TEXT, 0)));

  /** The peer sends a datagram. */
  readonly receive = (to = HERE, vnetid = VNETID) => {
    if (to === GROUP) {
      const local = new Uint8Array([127, 0, 0, 1]);
      must(libc.setsockopt(this.#socket, IPPROTO_IP, MULTICAST_IF, local, 4), 'setsockopt');
    }
    const datagram = encap(vnetid, new Uint8Array(60).fill(1));
    const address = sockaddr(AF_INET, to, this.port);
    must(libc.sendto(this.#socket, datagram, datagram.length, 0, address, address.length), 'sendto');
  };

  /** A word of the worker's arena. */
  word(table: number, index: number): number {
    return this.engine.views.i32[(this.hold.arena + table) / 4 + index]!;
  }

  tap(row = ROW): number {
    return this.word(layout.ARENA_TAP_FDS, row);
  }

  sockets(mux = 0): number[] {
    const bank = Array.from({ length: layout.BANK_MAX }, (_, index) =>
      this.word(layout.ARENA_SEND_FDS, mux * layout.BANK_MAX + index),
    );
    return [this.word(layout.ARENA_RECEIVE_FDS, mux), ...bank].filter((fd) => fd >= 0);
  }

  /** A word of the device's row. */
  deviceWord(word: number): number {
    return this.engine.views.u32[(layout.DEVICES_OFFSET + ROW * layout.DEVICE_BYTES + word) / 4]!;
  }

  /** Main has come to where it waits for the worker, or has not waited and gone on. */
  async reached(isGone: () => boolean): Promise<void> {
    const { waits } = this;
    await until('main waits for the worker', 5000, () => this.waits > waits || isGone());
    await turns();
  }

  async close(): Promise<void> {
    this.hold.close();
    closeFd(this.#socket);
    await this.memory.close();
  }
}

export async function withScene(
  search: string,
  work: (scene: HeldScene) => Promise<void>,
  properties: Record<string, unknown> = {},
  more: Partial<LookupInstance> = {},
): Promise<void> {
  const scene = await HeldScene.start(search, properties, more);
  try {
    await work(scene);
  } finally {
    await scene.close();
  }
}
