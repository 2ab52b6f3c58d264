/** Main's end of the workers' event rings. */
import * as layout from '../../assembly/layout.js';
import type { FallibleOffload } from '../offload.js';
import { nextTurn } from '../sys/clock.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';
import type { Workers } from './workers.js';

/** A core trap, with the row it happened on and the bytes of the frame or datagram. */
export interface TrapEvent {
  readonly kind: 'tx_trap' | 'rx_trap';
  readonly row: number;
  readonly bytes: number;
}

const EVENTS_PER_DRAIN_MAX = 4096;

/** Who hears of what workers report. */
export interface EventListener {
  readonly onTrap: (event: TrapEvent) => void;
  /** @param errno of sendmmsg or writev */
  readonly onRefused: (device: number, name: FallibleOffload, errno: number) => void;
  /** The bell has rung: there may be misses, or room on an inject ring. */
  readonly onBell: () => void;
}

/** What becomes of each kind of event. */
const handlers = new Map<number, (listener: EventListener, row: number, detail: number) => void>([
  [layout.EVENT_TX_TRAP, ({ onTrap }, row, bytes) => onTrap({ kind: 'tx_trap', row, bytes })],
  [layout.EVENT_RX_TRAP, ({ onTrap }, row, bytes) => onTrap({ kind: 'rx_trap', row, bytes })],
  [layout.EVENT_TX_UNCUT, ({ onRefused }, row, errno) => onRefused(row, 'udp_segment', errno)],
  [layout.EVENT_RX_UNTAKEN, ({ onRefused }, row, errno) => onRefused(row, 'gro', errno)],
]);

export class Events {
  #isClosed = false;
  /** Where main copies records to: the scratch line of an arena would be the worker's. */
  readonly #into = layout.HEADER_OFFSET + 128;

  constructor(
    readonly views: MemoryViews,
    readonly core: Core,
    readonly workers: Workers,
    readonly listener: EventListener,
  ) {
    this.#listen();
  }

  /** Takes what is on the rings; bounded, since workers may go on filling them. */
  drain(): void {
    // All arenas: what a replaced worker reported last is on the ring it had.
    for (const arena of this.workers.arenas) {
      for (let taken = 0; taken < EVENTS_PER_DRAIN_MAX; taken++) {
        const length = this.core.ringPop(arena + layout.ARENA_EVENTS, this.#into, layout.EVENT_BYTES);
        if (length < 0) break;
        const at = this.#into / 4;
        const [kind, row, detail] = [this.views.u32[at]!, this.views.u32[at + 1]!, this.views.u32[at + 2]!];
        const handle = handlers.get(kind);
        if (handle) handle(this.listener, row, detail);
      }
    }
  }

  close(): void {
    this.#isClosed = true;
    Atomics.notify(this.views.i32, this.workers.bell);
  }

  #listen(): void {
    if (this.#isClosed) return;
    const { bell } = this.workers;
    const seen = Atomics.load(this.views.i32, bell);
    this.drain();
    this.listener.onBell();
    const wait = Atomics.waitAsync(this.views.i32, bell, seen);
    // By way of a turn of the event loop: a worker that reports all the time must not starve the timers.
    Promise.resolve(wait.value)
      .then(nextTurn)
      .then(() => this.#listen());
  }
}
