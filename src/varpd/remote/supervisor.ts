/**
 * Keeps one plugin alive: a thread with all its instances, replaced when it dies, later each time. Instances that were
 * running are started again in the new one. States are in `state.ts`.
 */
import { isDeepStrictEqual } from 'node:util';
import { assert, OverlayError } from '../../errors.js';
import type { Log } from '../../log.js';
import { after, every, monotonicMs } from '../../sys/clock.js';
import type { Declaration } from './declaration.js';
import { faultOf } from './fault.js';
import { Life, type LifeOptions } from './life.js';
import { type Method, type ServiceCall, TEXT_MAX } from './protocol.js';
import { RareLog } from './rare-log.js';
import { next, type ThreadEvent, type ThreadState, threadTransitions } from './state.js';

/** The wait before a replacement doubles with each death of this window, up to so many times. */
const DEATHS_WINDOW_MS = 120_000;
const DOUBLINGS_MAX = 5;
/** Threads that were told to end and have not; beyond this no replacement is started. */
const ZOMBIES_MAX = 3;
/** What `save` gives is fetched so often: so much is lost when a thread dies. */
const SAVE_MS = 1000;

/** Milliseconds. */
export interface Deadlines {
  readonly lookupMs: number;
  readonly startMs: number;
  readonly stopMs: number;
}

export interface SupervisorOptions extends LifeOptions, Deadlines {
  readonly log: Log;
  /** The wait after the first death. */
  readonly backoffMs: number;
}

/** What lives in the thread: see `RemoteInstance`. */
export interface Inhabitant {
  /** The thread died. @param againMs until the next attempt */
  died(reason: string, againMs: number): void;
  /** There is a new one. */
  revive(): void;
  services(calls: readonly ServiceCall[], dropped: number): void;
  /** Time to fetch what a restart must not lose. */
  fetchSaved(): void;
}

/** What went wrong so far, for people and tests. */
export interface RemoteCounts {
  readonly deaths: number;
  /** Answers that nobody waited for: given twice, late, or made up. */
  readonly strayAnswers: number;
  readonly oddMessages: number;
  /** Uses of services that were too many. */
  readonly droppedCalls: number;
  /** Uses of services that were refused: bad, or no room. */
  readonly refusedCalls: number;
}

export class Supervisor {
  declaration!: Declaration;
  readonly refused: RareLog;
  readonly dropped: RareLog;
  readonly #stray: RareLog;
  readonly #odd: RareLog;
  readonly #unprinted: RareLog;
  readonly #inhabitants = new Map<number, Inhabitant>();
  readonly #watched = new Set<Inhabitant>();
  readonly #leaving = new Set<Life>();
  #deathsAtMs: number[] = [];
  #deaths = 0;
  #life: Life;
  #state: ThreadState = 'importing';
  #nextSession = 1;
  #stopWaiting = () => {};
  readonly #stopSaving: () => void;

  private constructor(readonly options: SupervisorOptions) {
    const rare = (message: string) =>
      new RareLog((text, more) => options.log.warn({ plugin: this.#name, text, more }, message));
    this.refused = rare('a lookup plugin asked for what is refused');
    this.dropped = rare('a lookup plugin asks for too much; what is beyond is dropped');
    this.#stray = rare('a lookup plugin gave an answer that nobody waits for');
    this.#odd = rare('a lookup plugin sent what is no message');
    this.#unprinted = rare('a lookup plugin prints too much; lines are left out');
    this.#life = this.#live();
    this.#stopSaving = every(SAVE_MS, () => {
      if (this.#state === 'working') for (const one of this.#watched) one.fetchSaved();
    });
  }

  /** Rejects as `Life.declared`, and with EAGAIN when there can be no more threads; nothing is left then. */
  static async start(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options);
    try {
      supervisor.declaration = await supervisor.#life.declared;
      supervisor.#change('declared');
      return supervisor;
    } catch (error) {
      await supervisor.close();
      throw error;
    }
  }

  get isWorking(): boolean {
    return this.#state === 'working';
  }

  get counts(): RemoteCounts {
    return {
      deaths: this.#deaths,
      strayAnswers: this.#stray.count,
      oddMessages: this.#odd.count,
      droppedCalls: this.dropped.count,
      refusedCalls: this.refused.count,
    };
  }

  /** Number for one start of an instance; its services come to the inhabitant until `leave`. */
  enter(inhabitant: Inhabitant): number {
    const session = this.#nextSession++;
    this.#inhabitants.set(session, inhabitant);
    return session;
  }

  /** Its open calls are rejected with ECANCELED, and nothing of it is heard any more. */
  leave(session: number): void {
    this.#inhabitants.delete(session);
    const text = `the instance of lookup plugin '${this.#name}' was stopped`;
    this.#life.calls.cancel(new OverlayError('ECANCELED', 'plugin_stopped', text), session);
  }

  /** Deaths and new threads are told to it from here on. */
  watch(inhabitant: Inhabitant): void {
    this.#watched.add(inhabitant);
  }

  unwatch(inhabitant: Inhabitant): void {
    this.#watched.delete(inhabitant);
  }

  /** Rejects as `Calls.ask`, and with EAGAIN while there is no thread. */
  ask(session: number, method: Method, argument: unknown, ms: number): Promise<unknown> {
    if (this.#state === 'working') return this.#life.calls.ask(session, method, argument, ms);
    return Promise.reject(this.away());
  }

  away(): OverlayError {
    const text =
      this.#state === 'closed'
        ? `lookup plugin '${this.#name}' is closed`
        : `lookup plugin '${this.#name}' died and is being started again`;
    return new OverlayError('EAGAIN', 'plugin_away', text);
  }

  /** Ends the thread for good. Resolves when every thread there was is gone. */
  async close(): Promise<void> {
    this.#change('close');
    this.#stopWaiting();
    this.#stopSaving();
    this.#life.end('it is closed');
    await Promise.all([...this.#leaving, this.#life].map((life) => life.leave()));
  }

  get #name(): string {
    return this.declaration?.name ?? this.options.specifier;
  }

  #change(event: ThreadEvent): void {
    this.#state = next(threadTransitions, this.#state, event);
  }

  #live(): Life {
    const { log } = this.options;
    const life: Life = new Life(this.options, {
      onServices: (session, calls, dropped) => this.#inhabitants.get(session)?.services(calls, dropped),
      onPrinted: (lines, dropped) => {
        for (const line of lines) log.info({ plugin: this.#name, line }, 'a lookup plugin printed');
        this.#unprinted.note('lines were left out', dropped);
      },
      onStray: () => this.#stray.note('given twice, or too late'),
      onOdd: () => this.#odd.note('ignored'),
      onEnd: (reason) => this.#onEnd(life, reason),
    });
    return life;
  }

  #onEnd(life: Life, reason: string): void {
    this.#leaving.add(life);
    void life.gone.then(() => this.#leaving.delete(life));
    // A first import that failed is told to whoever waits for it; a close is no death.
    if (this.#state === 'closed' || !this.declaration) return;
    assert(life === this.#life, 'a life that is over ends once');
    this.#died(reason);
  }

  #died(reason: string): void {
    this.#change('died');
    this.#deaths++;
    const now = monotonicMs();
    this.#deathsAtMs = [...this.#deathsAtMs.filter((atMs) => now - atMs < DEATHS_WINDOW_MS), now];
    const doublings = Math.min(this.#deathsAtMs.length - 1, DOUBLINGS_MAX);
    const againMs = this.options.backoffMs * 2 ** doublings;
    const { log } = this.options;
    log.error({ plugin: this.#name, reason: reason.slice(0, TEXT_MAX), againMs }, 'a lookup plugin died');
    this.#waitAndRetry(againMs);
    for (const one of [...this.#watched]) one.died(reason, againMs);
  }

  #waitAndRetry(ms: number): void {
    this.#stopWaiting = after(ms, () => {
      if (this.#leaving.size > ZOMBIES_MAX) {
        this.#waitAndRetry(ms);
        return;
      }
      this.#change('retry');
      try {
        this.#life = this.#live();
      } catch (error) {
        this.#died(faultOf(error).message);
        return;
      }
      void this.#welcome(this.#life);
    });
  }

  async #welcome(life: Life): Promise<void> {
    try {
      const declaration = await life.declared;
      if (life !== this.#life || this.#state !== 'importing') return;
      if (!isDeepStrictEqual(declaration, this.declaration)) {
        life.end('its module has changed and declares something else; restart the daemon to take it');
        return;
      }
      this.#change('declared');
      this.options.log.info({ plugin: this.#name }, 'a lookup plugin works again');
      for (const one of [...this.#watched]) one.revive();
    } catch (error) {
      // The life has told its end already.
      assert(error instanceof OverlayError, faultOf(error).message);
    }
  }
}
