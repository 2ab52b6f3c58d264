/**
 * A queue is what a worker works on: its epoll set, eventfd, TAP queues and sockets. With one thread for each direction two
 * queues share a lane, a TAP queue and a receive socket, of which each waits for one. Main owns the descriptors, so a
 * worker's death closes nothing, and its successor gets the same ones. They stand in the descriptor tables of
 * the arena that the queue has at the moment.
 */
import * as layout from '../../assembly/layout.js';
import { createEpoll, unwatch, watch } from '../sys/epoll.js';
import { closeFd, createEventfd } from '../sys/fd.js';
import type { MemoryViews } from './memory.js';

/** What a queue's worker waits for: frames of links, datagrams of underlays, or both. It may write to either. */
export type Directions = 'out' | 'in' | 'both';

export class Queue {
  readonly epoll = createEpoll();
  readonly wake = createEventfd();
  readonly #taps = new Map<number, number>();
  readonly #muxes = new Map<number, { receive: number; send: readonly number[] }>();

  /**
   * @param lane TAP queue and receive socket of each device and mux that are the queue's
   * @param arena offset of the arena the queue's worker uses
   */
  constructor(
    readonly index: number,
    readonly lane: number,
    readonly directions: Directions,
    readonly views: MemoryViews,
    public arena: number,
  ) {
    watch(this.epoll, this.wake, layout.SOURCE_WAKE, 0);
    this.#fillArena();
  }

  addTap(device: number, fd: number): void {
    this.#taps.set(device, fd);
    this.#store(layout.ARENA_TAP_FDS, device, fd);
    if (this.directions !== 'in') watch(this.epoll, fd, layout.SOURCE_TAP, device);
  }

  /** The worker no longer hears of it; close the descriptor only after a quiesce. */
  removeTap(device: number): void {
    const fd = this.#taps.get(device);
    if (fd === undefined) return;
    if (this.directions !== 'in') unwatch(this.epoll, fd);
    this.#taps.delete(device);
    this.#store(layout.ARENA_TAP_FDS, device, -1);
  }

  /** @param receive -1 when another queue has the only one */
  addMux(mux: number, receive: number, send: readonly number[]): void {
    this.#muxes.set(mux, { receive, send });
    this.#storeMux(mux, receive, send);
    if (this.#waitsFor(receive)) watch(this.epoll, receive, layout.SOURCE_UNDERLAY, mux);
  }

  /** The worker no longer hears of it; close the descriptors only after a quiesce. */
  removeMux(mux: number): void {
    const sockets = this.#muxes.get(mux);
    if (sockets === undefined) return;
    if (this.#waitsFor(sockets.receive)) unwatch(this.epoll, sockets.receive);
    this.#muxes.delete(mux);
    this.#storeMux(mux, -1, new Array<number>(sockets.send.length).fill(-1));
  }

  #waitsFor(receive: number): boolean {
    return this.directions !== 'out' && receive >= 0;
  }

  /** Gives the queue another arena, descriptors and all. */
  moveTo(arena: number): void {
    this.arena = arena;
    this.#fillArena();
  }

  close(): void {
    closeFd(this.wake);
    closeFd(this.epoll);
  }

  #fillArena(): void {
    const { i32 } = this.views;
    i32.fill(-1, (this.arena + layout.ARENA_TAP_FDS) / 4, (this.arena + layout.ARENA_COUNTERS) / 4);
    for (const [device, fd] of this.#taps) this.#store(layout.ARENA_TAP_FDS, device, fd);
    for (const [mux, { receive, send }] of this.#muxes) this.#storeMux(mux, receive, send);
  }

  #storeMux(mux: number, receive: number, send: readonly number[]): void {
    this.#store(layout.ARENA_RECEIVE_FDS, mux, receive);
    for (const [index, fd] of send.entries()) {
      this.#store(layout.ARENA_SEND_FDS, mux * layout.BANK_MAX + index, fd);
    }
  }

  #store(table: number, index: number, fd: number): void {
    Atomics.store(this.views.i32, (this.arena + table) / 4 + index, fd);
  }
}
