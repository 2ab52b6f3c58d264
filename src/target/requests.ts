/**
 * The requests of one device that are open: how many, which waits its turn to be put to varpd, and whether they are answered
 * in time. What an answer does is their owner's business (`pending.ts`, `proxy-requests.ts`).
 */
import { type RequestKind, type RequestOwner, TargetRequest } from './request.js';
import type { CacheServices } from './services.js';

/** How long an answer may take, doubled each time it is asked for again. */
export const LOOKUP_DEADLINE_MS = 2000;
/** Questions put within a window: more than a target holds frames, and more than any plugin answers. */
const QUESTIONS_PER_WINDOW_MAX = 4096;
const QUESTIONS_WINDOW_MS = 10;

/** Of the process, so that no two requests of any device have the same id. */
let requestNumber = 0;

export class Requests {
  #open = 0;
  readonly #waiting: TargetRequest[] = [];
  #isPutting = false;
  /** Questions put since then. */
  #put = 0;
  #putSinceMs = Number.NEGATIVE_INFINITY;
  #isLate = false;

  constructor(
    readonly services: Pick<CacheServices, 'ask' | 'onLate' | 'nowMs'>,
    /** Open at a time. */
    readonly max: number,
  ) {}

  get open(): number {
    return this.#open;
  }

  get isFull(): boolean {
    return this.#open >= this.max;
  }

  /** A request that is open from here on, until `end`; `put` follows. */
  create(
    kind: RequestKind,
    mac: number,
    generation: number,
    frame: Uint8Array,
    owner: RequestOwner,
  ): TargetRequest {
    this.#open++;
    requestNumber++;
    return new TargetRequest(requestNumber.toString(36), kind, mac, generation, frame, owner);
  }

  /** Puts a question. One that comes up while another is answered waits its turn: a thousand frames are no recursion. */
  put(request: TargetRequest): void {
    this.#waiting.push(request);
    this.putWaiting();
  }

  /** Bounded: a plugin that invalidates what it is asked about would never come to an end. The rest waits for a tick. */
  putWaiting(): void {
    if (this.#isPutting) return;
    this.#isPutting = true;
    try {
      const now = this.services.nowMs();
      if (now - this.#putSinceMs >= QUESTIONS_WINDOW_MS) {
        this.#putSinceMs = now;
        this.#put = 0;
      }
      for (; this.#put < QUESTIONS_PER_WINDOW_MAX; this.#put++) {
        const next = this.#waiting.shift();
        if (!next) break;
        if (next.isOpen) this.services.ask(next);
      }
    } finally {
      this.#isPutting = false;
    }
  }

  end(request: TargetRequest): void {
    request.end();
    this.#open--;
  }

  /** One was not answered in time. */
  late(): void {
    if (this.#isLate) return;
    this.#isLate = true;
    this.services.onLate(true);
  }

  /** One was answered, so that they are answered again. */
  answered(): void {
    if (!this.#isLate) return;
    this.#isLate = false;
    this.services.onLate(false);
  }
}
