/**
 * The external handle: what /dev/overlay is to illumos. Requests of devices with `search=external` come here and wait,
 * in one queue, for a program that takes and answers them. At most one handle is a writer, which alone may answer and
 * change things; any number are readers. What a handle had taken is queued again when it closes, so that requests
 * outlive the program that died with them.
 *
 *   cache ─ ask ─► queue ─ lookup ─► outstanding on a handle ─ respond, drop ─► cache
 *                    ▲                        │
 *                    └──────── close ─────────┘
 *
 * No transport is in here; the control API has one.
 */
import { OverlayError } from '../errors.js';
import { after } from '../sys/clock.js';
import type { TargetRequest } from '../target/request.js';
import { type Ask, AskQueue } from './external/ask-queue.js';
import { Handle, handleClosed } from './external/handle.js';
import { questionOf } from './question.js';

/** A lookup that waits for a request. */
interface Waiter {
  readonly handle: Handle;
  take(ask: Ask): void;
  fail(error: OverlayError): void;
}

/** Lookups that wait at a time, and handles that are open: more than a control socket has connections. */
const WAITERS_MAX = 1024;
const HANDLES_MAX = 1024;

export class External {
  /** Told when the writer opens (true) and when it closes (false). */
  onWriter: ((isOpen: boolean) => void) | undefined;
  readonly #queue = new AskQueue();
  /** In the order in which they came; none waits while a request is queued. */
  readonly #waiters = new Set<Waiter>();
  readonly #handles = new Set<Handle>();
  #writer: Handle | undefined;

  get hasWriter(): boolean {
    return this.#writer !== undefined;
  }

  /** Queues a request of a device, behind all others, and wakes one who waits. */
  ask(overlay: string, vnetid: bigint, request: TargetRequest): void {
    const question = questionOf(overlay, vnetid, request);
    if (!question) {
      request.drop();
      return;
    }
    this.#queue.push({ request, question });
    this.#serve();
  }

  /** Throws EEXIST when a writer is there already, EAGAIN when too many handles are open. */
  open(write: boolean): Handle {
    if (this.#handles.size >= HANDLES_MAX) {
      throw new OverlayError(
        'EAGAIN',
        'too_many_handles',
        `${HANDLES_MAX} external handles are open already: close some`,
      );
    }
    if (write && this.#writer) {
      throw new OverlayError(
        'EEXIST',
        'writer_exists',
        'another program has the external handle for writing: end it first, or open the handle for reading',
      );
    }
    const handle = new Handle(write, {
      next: (taker, waitMs, signal) => this.#next(taker, waitMs, signal),
      requeue: (asks) => this.#requeue(asks),
      closed: (closing, asks) => this.#closed(closing, asks),
    });
    this.#handles.add(handle);
    if (write) {
      this.#writer = handle;
      this.onWriter?.(true);
    }
    return handle;
  }

  /** A device is deleted or disassociated: its requests, which end by themselves, are taken out. */
  forget(overlay: string): void {
    this.#queue.forget(overlay);
    for (const handle of this.#handles) handle.forget(overlay);
  }

  #next(handle: Handle, waitMs: number, signal: AbortSignal | undefined): Promise<Ask> {
    const ask = this.#queue.shift();
    if (ask) {
      handle.hold(ask);
      return Promise.resolve(ask);
    }
    if (this.#waiters.size >= WAITERS_MAX) {
      throw new OverlayError('EAGAIN', 'too_many_lookups', `${WAITERS_MAX} lookups wait already`);
    }
    return new Promise((resolve, reject) => {
      const done = () => {
        this.#waiters.delete(waiter);
        cancel();
        signal?.removeEventListener('abort', onTime);
      };
      const waiter: Waiter = {
        handle,
        take: (given) => {
          done();
          handle.hold(given);
          resolve(given);
        },
        fail: (error) => {
          done();
          reject(error);
        },
      };
      const onTime = () =>
        waiter.fail(new OverlayError('ETIME', 'no_request', 'there was no request in time; look again'));
      const cancel = after(waitMs, onTime);
      this.#waiters.add(waiter);
      if (signal?.aborted) onTime();
      else signal?.addEventListener('abort', onTime);
    });
  }

  /** Hands requests to those who wait, one each. */
  #serve(): void {
    for (const waiter of this.#waiters) {
      const ask = this.#queue.shift();
      if (!ask) return;
      waiter.take(ask);
    }
  }

  #requeue(asks: readonly Ask[]): void {
    for (const ask of asks) {
      ask.request.requeue();
      if (ask.request.isOpen) this.#queue.push(ask);
    }
    this.#serve();
  }

  #closed(handle: Handle, asks: readonly Ask[]): void {
    this.#handles.delete(handle);
    for (const waiter of this.#waiters) if (waiter.handle === handle) waiter.fail(handleClosed());
    this.#requeue(asks);
    if (this.#writer !== handle) return;
    this.#writer = undefined;
    this.onWriter?.(false);
  }
}
