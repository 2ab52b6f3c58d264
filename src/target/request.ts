/**
 * One question to varpd, about one frame. A request is answered once; when its target was set, removed or asked about
 * anew in the meantime it has ended, and its answer changes nothing.
 *
 *   queued ─ take ─► outstanding ─ respond, drop, unknown ─► ended
 *     ▲                   │
 *     └───── requeue ─────┘            end (by the cache) from either
 */
import type { Route } from './destination.js';

/** target: the answer is for the address. proxy: for this frame alone; its target is VALID. */
export type RequestKind = 'target' | 'proxy';

/** What a request tells its cache. */
export interface RequestOwner {
  respond(request: TargetRequest, route: Route): void;
  /** @param proxied a proxy took the frame, so that it is no drop */
  drop(request: TargetRequest, proxied: boolean): void;
  unknown(request: TargetRequest): void;
}

export class TargetRequest {
  state: 'queued' | 'outstanding' | 'ended' = 'queued';

  constructor(
    /** Names it; no other has the same. */
    readonly id: string,
    readonly kind: RequestKind,
    readonly mac: number,
    readonly generation: number,
    /** The frame it is about, vnet_hdr first. */
    readonly frame: Uint8Array,
    readonly owner: RequestOwner,
  ) {}

  get isOpen(): boolean {
    return this.state !== 'ended';
  }

  take(): void {
    if (this.state === 'queued') this.state = 'outstanding';
  }

  /** Whoever took it has gone: it can be taken again. */
  requeue(): void {
    if (this.state === 'outstanding') this.state = 'queued';
  }

  end(): void {
    this.state = 'ended';
  }

  /** Each of the answers: true when it counted, false when the request had ended. A bad route throws EINVAL, and the request stays. */
  respond(route: Route): boolean {
    if (!this.isOpen) return false;
    this.owner.respond(this, route);
    return true;
  }

  drop(proxied = false): boolean {
    if (!this.isOpen) return false;
    this.owner.drop(this, proxied);
    return true;
  }

  unknown(): boolean {
    if (!this.isOpen) return false;
    this.owner.unknown(this);
    return true;
  }
}
