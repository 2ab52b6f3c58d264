/** One opening of the external handle: the requests that it has taken and not answered. */
import { OverlayError } from '../../errors.js';
import { random64 } from '../../sys/random.js';
import type { Route } from '../../target/destination.js';
import type { LookupRequest } from '../plugin.js';
import type { Ask } from './ask-queue.js';
import { type Packet, packetOf } from './packet.js';

/** What a handle needs of the rest. */
export interface HandleHost {
  /** Has the oldest request handed to `handle.hold`, now or when there is one. */
  next(handle: Handle, waitMs: number, signal: AbortSignal | undefined): Promise<Ask>;
  /** Queues requests again, behind all others. */
  requeue(asks: readonly Ask[]): void;
  /** The handle is closed; `asks` are what it had taken. */
  closed(handle: Handle, asks: readonly Ask[]): void;
}

/** How a request ends without a route. */
export type DropKind =
  /** The frame is dropped, the next one is asked about. */
  | 'drop'
  /** The same, and the target may be remembered as unknown. */
  | 'unknown'
  /** The frame has been answered in its addressee's name, so that it is no drop. */
  | 'proxied';

/** How long a lookup waits, as in illumos. */
export const LOOKUP_MS_MAX = 1000;
/** Requests held that are swept for ended ones at the earliest. */
const SWEEP_MIN = 64;

export class Handle {
  /** Names the handle to the calls: 128 random bits. */
  readonly token = Array.from({ length: 2 }, () => random64().toString(16).padStart(16, '0')).join('');
  /** Bounded like the queue: ended ones are swept out when it has doubled. */
  readonly #outstanding = new Map<string, Ask>();
  #sweepAt = SWEEP_MIN;
  #isOpen = true;

  constructor(
    readonly isWriter: boolean,
    readonly host: HandleHost,
  ) {}

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Takes the oldest request. Rejects with ETIME when there is none within `waitMs` (1,000 at most) or when `signal`
   * says that nobody waits any more, with EBADF when the handle is closed, with EAGAIN when too many wait.
   */
  async lookup(waitMs = LOOKUP_MS_MAX, signal?: AbortSignal): Promise<LookupRequest> {
    if (!this.#isOpen) throw handleClosed();
    return (await this.host.next(this, Math.min(waitMs, LOOKUP_MS_MAX), signal)).question;
  }

  /** Called by the host alone: the request is this handle's from here on. */
  hold(ask: Ask): void {
    if (this.#outstanding.size >= this.#sweepAt) this.#sweep();
    ask.request.take();
    this.#outstanding.set(ask.request.id, ask);
  }

  /** Answers a request with a checked route. Throws EINVAL when it is not outstanding here, ENOSPC. */
  respond(id: string, route: Route): void {
    this.#get(id).request.respond(route);
    this.#outstanding.delete(id);
  }

  /** Answers a request without a route. Throws EINVAL when it is not outstanding here. */
  drop(id: string, kind: DropKind = 'drop'): void {
    const { request } = this.#get(id);
    this.#outstanding.delete(id);
    if (kind === 'unknown') request.unknown();
    else request.drop(kind === 'proxied');
  }

  /** The frame that a request is about. Throws EINVAL when it is not outstanding here. */
  packet(id: string): Packet {
    return packetOf(this.#get(id).request.frame);
  }

  /** Device of a request. Throws EINVAL when it is not outstanding here. */
  overlayOf(id: string): string {
    return this.#get(id).question.overlay;
  }

  /** Whoever asked has gone before it was told: the request is queued again. */
  putBack(id: string): void {
    const ask = this.#outstanding.get(id);
    if (!ask) return;
    this.#outstanding.delete(id);
    this.host.requeue([ask]);
  }

  /** A device is gone or no longer associated; its requests have ended. */
  forget(overlay: string): void {
    for (const [id, { question }] of this.#outstanding) {
      if (question.overlay === overlay) this.#outstanding.delete(id);
    }
  }

  /** Queues again what it has taken, in that order. Nothing happens the second time. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const asks = [...this.#outstanding.values()];
    this.#outstanding.clear();
    this.host.closed(this, asks);
  }

  #get(id: string): Ask {
    const ask = this.#outstanding.get(id);
    if (ask?.request.isOpen) return ask;
    this.#outstanding.delete(id);
    throw new OverlayError(
      'EINVAL',
      'request_not_outstanding',
      `request '${id.slice(0, 32)}' is not outstanding on this handle: it never took it, or answered it, or the ` +
        'request has ended because its target was set, removed or asked about again',
    );
  }

  #sweep(): void {
    for (const [id, { request }] of this.#outstanding) {
      if (!request.isOpen) this.#outstanding.delete(id);
    }
    this.#sweepAt = Math.max(SWEEP_MIN, 2 * this.#outstanding.size);
  }
}

export function handleClosed(): OverlayError {
  return new OverlayError('EBADF', 'handle_closed', 'the handle is closed: open another');
}
