/**
 * The requests of one device that are open: how many, which waits its turn to be put to varpd, and whether they are answered
 * in time. What an answer does is their owner's business (`pending.ts`, `proxy-requests.ts`).
 */
import { KeyedQueue } from '../keyed-queue.js';
import { timeShare } from '../sys/clock.js';
import { type RequestKind, type RequestOwner, TargetRequest } from './request.js';
import type { CacheServices } from './services.js';

/** How long an answer may take, doubled each time it is asked for again. */
export const LOOKUP_DEADLINE_MS = 2000;
/** What questions may spend at a time of main's: each costs what the plugin does with it. */
export const PUT_MS = 2;
/** And how many they are, should no time pass. */
const QUESTIONS_MAX = 4096;

/** Of the process, so that no two requests of any device have the same id. */
let requestNumber = 0;

export class Requests {
  #open = 0;
  /** By id. Bounded by those that are open. */
  readonly #waiting = new KeyedQueue<string, TargetRequest>();
  #isPutting = false;
  #isLate = false;

  constructor(
    readonly services: Pick<CacheServices, 'ask' | 'onLate' | 'onWaiting' | 'nowMs'>,
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
    this.#waiting.put(request.id, request);
    this.putWaiting();
  }

  /** Bounded: a plugin that invalidates what it is asked about would never come to an end. The rest waits for another turn. */
  putWaiting(): void {
    if (this.#isPutting) return;
    this.#isPutting = true;
    try {
      const isSpent = timeShare(PUT_MS, this.services.nowMs);
      for (let put = 0; put < QUESTIONS_MAX; put++) {
        const next = this.#waiting.take();
        if (!next) return;
        this.services.ask(next);
        if (isSpent()) break;
      }
    } finally {
      this.#isPutting = false;
    }
    if (this.#waiting.size > 0) this.services.onWaiting();
  }

  end(request: TargetRequest): void {
    request.end();
    this.#waiting.delete(request.id);
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
