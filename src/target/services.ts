/** What a target cache needs of the rest of main: it does no I/O, so that the data path, varpd and the clock are handed in. */
import type { Route } from './destination.js';
import type { TargetRequest } from './request.js';

/** Why main drops a frame. */
export type CacheDrop =
  | 'tx_held_full'
  | 'tx_held_full_device'
  | 'tx_held_full_process'
  | 'tx_table_full'
  | 'tx_requests_full'
  | 'tx_target_drop'
  | 'tx_lookup_drop'
  | 'tx_lookup_timeout'
  | 'tx_target_removed';

/** A frame with its vnet_hdr, and the worker that handed it over. */
export interface HeldFrame {
  readonly frame: Uint8Array;
  readonly worker: number;
}

export interface CacheServices {
  /** Row of the route, made when it is new; counted. Throws EINVAL for a bad route, ENOSPC, ENOMEM. */
  holdRoute(route: Route): number;
  /** The reverse; the row is given out again after a quiesce. */
  releaseRoute(row: number): void;
  /** Releases every row as often as it is held. */
  releaseRoutes(): void;
  routeOf(row: number): Route;
  /** Hands a request to varpd, which may answer it at once. */
  ask(request: TargetRequest): void;
  /** The target is draining: call `drain` when every worker has seen that, then `drained`. */
  settle(mac: number, generation: number): void;
  /**
   * Hands frames back to their workers, in order; `isRouted` for those that varpd has seen. A frame that comes back to a
   * target that began to drain in another generation is looked up again, behind those that went to main before it.
   */
  send(frames: readonly HeldFrame[], isRouted: boolean, generation?: number): void;
  drop(reason: CacheDrop, frames: number): void;
  proxied(frames: number): void;
  /** A request was not answered in time, or one was after that. */
  onLate(isLate: boolean): void;
  /** Questions wait their turn: `putWaiting` is to be called soon. */
  onWaiting(): void;
  nowMs(): number;
  nowSeconds(): number;
}
