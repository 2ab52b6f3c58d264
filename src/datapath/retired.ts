/**
 * Rows, memory and descriptors that left use and that a worker may still be reading. Every wait for workers whose purpose is to
 * free something goes through here, with one policy: the caller never fails. A part is reclaimed at once when all workers move on;
 * otherwise it is retained, named, and tried again until they do.
 *
 *   retire ─► workers moved on ─► steps done                     the usual case, within a millisecond
 *      └────► a worker does not respond, or a step throws ─► retained ─ every RETRY_MS ─► steps done
 *                                                               └─ a step has failed STEP_TRIES_MAX times ─► given up, still named
 *
 * A step that has succeeded never runs again; a step that throws keeps no other step from running.
 */
import { after, wallTime } from '../sys/clock.js';

const RETRY_MS = 2000;
/** A step fails by a defect or by a refusal of the system; neither goes away by many repetitions. */
const STEP_TRIES_MAX = 10;

/** Name of each step and what it gives back. Steps run in this order; none may depend on the success of another. */
export type Steps = Readonly<Record<string, () => unknown>>;

/** A part that waits to be reclaimed. */
export interface RetainedPart {
  readonly what: string;
  /** Names of the steps that are left. */
  readonly steps: readonly string[];
  /** Why it is not reclaimed: the worker that does not respond, or what a step threw. */
  readonly reason: string;
  /** ISO 8601. */
  readonly since: string;
  /** A step has failed too often: the part stays until the process ends. */
  readonly isGivenUp: boolean;
}

export interface RetiredChange {
  readonly kind: 'retained' | 'reclaimed' | 'given up';
  readonly part: RetainedPart;
}

interface Part {
  readonly what: string;
  readonly left: Map<string, () => unknown>;
  /** Resolves when no worker can be reading the part; rejects when one does not respond. */
  readonly settled: () => Promise<void>;
  readonly since: string;
  isSettled: boolean;
  reason: string;
  failures: number;
}

export class Retired {
  readonly #parts = new Set<Part>();
  #cancel: (() => void) | undefined;
  #isClosed = false;
  #running: Promise<void> | undefined;

  /** @param onChange hears of each part that is retained, and of what becomes of it */
  constructor(
    readonly quiesce: () => Promise<void>,
    readonly onChange: (change: RetiredChange) => void,
  ) {}

  /** Parts that are not reclaimed yet, the oldest first. */
  get list(): RetainedPart[] {
    return [...this.#parts].map(viewOf);
  }

  /**
   * Runs the steps once no worker can be reading what they give back. Never rejects. Resolves with false when something is
   * retained.
   *
   * @param what names the part for an operator
   * @param settled what to wait for instead of a quiesce
   */
  async retire(what: string, steps: Steps, settled = this.quiesce): Promise<boolean> {
    const left = new Map(Object.entries(steps));
    const part: Part = { what, left, settled, since: wallTime(), isSettled: false, reason: '', failures: 0 };
    await reclaim(part);
    if (part.left.size === 0) return true;
    this.#parts.add(part);
    this.onChange({ kind: 'retained', part: viewOf(part) });
    this.#retryLater();
    return false;
  }

  /** A worker has been replaced, so that it is worth while to try again now. Resolves when every part has been tried. */
  async retryNow(): Promise<void> {
    // Two rounds at a time would run a step twice.
    this.#running ??= this.#round().finally(() => {
      this.#running = undefined;
    });
    await this.#running;
  }

  /** The workers have ended: reclaims what is left, unless a thread is still alive. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel?.();
    await this.#running;
    if (this.#parts.size === 0) return;
    const reason = await failureOf(this.quiesce);
    if (reason !== undefined) return;
    for (const part of this.#parts) {
      part.isSettled = true;
      await this.#tryAgain(part);
    }
  }

  #retryLater(): void {
    if (this.#isClosed || ![...this.#parts].some((part) => !isGivenUp(part))) return;
    this.#cancel ??= after(RETRY_MS, () => {
      this.#cancel = undefined;
      void this.retryNow();
    });
  }

  async #round(): Promise<void> {
    if (this.#parts.size === 0) return;
    // One wait for all of them: each would take as long as a worker is given to respond.
    const reason = await failureOf(this.quiesce);
    for (const part of [...this.#parts]) {
      if (isGivenUp(part) || this.#isClosed) continue;
      if (reason === undefined || part.isSettled) await this.#tryAgain(part);
      else part.reason = reason;
    }
    this.#retryLater();
  }

  async #tryAgain(part: Part): Promise<void> {
    await reclaim(part);
    if (part.left.size === 0) {
      this.#parts.delete(part);
      this.onChange({ kind: 'reclaimed', part: viewOf(part) });
    } else if (isGivenUp(part)) this.onChange({ kind: 'given up', part: viewOf(part) });
  }
}

async function reclaim(part: Part): Promise<void> {
  if (!part.isSettled) {
    const reason = await failureOf(part.settled);
    if (reason !== undefined) {
      part.reason = reason;
      return;
    }
    part.isSettled = true;
  }
  let failure: string | undefined;
  for (const [name, step] of [...part.left]) {
    const reason = await failureOf(step);
    if (reason === undefined) part.left.delete(name);
    else failure ??= `${name}: ${reason}`;
  }
  if (failure === undefined) return;
  part.failures++;
  part.reason = failure;
}

/** Message of the error that the work ends in, undefined when it succeeds. */
async function failureOf(work: () => unknown): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function isGivenUp(part: Part): boolean {
  return part.failures >= STEP_TRIES_MAX;
}

function viewOf(part: Part): RetainedPart {
  const { what, left, reason, since } = part;
  return { what, steps: [...left.keys()], reason, since, isGivenUp: isGivenUp(part) };
}
