/** Reads the configuration again on demand and puts it into force, or keeps everything as it is and says why. */
import { OverlayError } from '../errors.js';
import { type ApplyTarget, applySteps, ensure } from './apply.js';
import type { Config } from './config.js';
import type { Declared } from './declared.js';
import { checkProgram } from './handover.js';
import type { Health } from './health.js';
import { planReload } from './reload.js';

/** Declared overlays that are created at a time: one whose plugin hangs must not hold up all others. */
const CREATIONS_AT_ONCE = 16;

export interface ReloaderOptions extends ApplyTarget {
  readonly health: Health;
  /** The configuration as it is now. Throws EINVAL with its faults. */
  read(): Config;
}

export class Reloader {
  /** In force; of the overlays, those that have come about. */
  #config: Config;
  #running: Promise<void> = Promise.resolve();
  #isWaiting = false;
  #isClosed = false;

  constructor(
    readonly options: ReloaderOptions,
    config: Config,
  ) {
    this.#config = config;
  }

  /** Creates the declared overlays that are not there. One that fails is logged and degrades the process. */
  start(): Promise<void> {
    this.#running = this.#createDeclared();
    return this.#running;
  }

  /** One reload after the other; while one waits, another is the same one. Resolves when it is done; never rejects. */
  reload(): Promise<void> {
    if (this.#isWaiting || this.#isClosed) return this.#running;
    this.#isWaiting = true;
    this.#running = this.#running.then(() => {
      this.#isWaiting = false;
      return this.#isClosed ? undefined : this.#reload();
    });
    return this.#running;
  }

  /**
   * True when there is a program to start anew, and it could read the configuration. Otherwise the restart is refused as a
   * reload is: it would leave nothing running.
   */
  mayRestart(): boolean {
    try {
      this.options.read();
      checkProgram();
      return true;
    } catch (error) {
      this.#refuse('restart', error);
      return false;
    }
  }

  /** Resolves when nothing is under way any more; nothing begins after it. */
  close(): Promise<void> {
    this.#isClosed = true;
    return this.#running;
  }

  async #createDeclared(): Promise<void> {
    const { overlay, health, log } = this.options;
    const waiting = [...this.#config.overlays];
    const done = new Map<string, Declared>();
    const work = async () => {
      for (let next = waiting.shift(); next && !this.#isClosed; next = waiting.shift()) {
        const [name, declared] = next;
        try {
          await ensure(overlay, name, declared);
          done.set(name, declared);
        } catch (error) {
          const text = `declared overlay '${name}' is not there: ${messageOf(error)}`;
          log.error({ device: name, ...partsOf(error) }, text);
          health.degrade('overlay_missing', name, text);
        }
      }
    };
    await Promise.all(Array.from({ length: CREATIONS_AT_ONCE }, work));
    // Those that failed are tried again by the next reload, since the plan finds them missing.
    const overlays = new Map([...this.#config.overlays].filter(([name]) => done.has(name)));
    this.#config = { ...this.#config, overlays };
  }

  async #reload(): Promise<void> {
    const { log, health, overlay } = this.options;
    try {
      const after = this.options.read();
      const plan = planReload(this.#config, after);
      if ('refused' in plan) {
        throw new OverlayError('EBUSY', 'needs_restart', `needs a restart: ${plan.refused.join(', ')}`);
      }
      await applySteps(plan.steps, this.options);
      this.#config = after;
      health.clear('overlay_missing');
      health.clear('config_refused');
      overlay.events.emit('config-reloaded', { text: `${plan.steps.length} changes` });
      log.info({ steps: plan.steps.length }, 'configuration reloaded');
    } catch (error) {
      this.#refuse('reload', error);
    }
  }

  /** Everything stays as it is, and log, health and events say so. */
  #refuse(what: 'reload' | 'restart', error: unknown): void {
    const { log, health, overlay } = this.options;
    const messages = [messageOf(error), ...(error instanceof OverlayError ? error.parts : [])];
    for (const message of messages) log.error({}, `${what}: ${message}`);
    if (!(error instanceof OverlayError)) log.error({ err: error }, `the ${what} failed by a defect`);
    log.error({}, `${what} refused: the settings of before stay in force`);
    health.degrade('config_refused', what, `the ${what} was refused: ${messages[0]}`);
    // Which value is at fault is not for everyone.
    overlay.events.emit('config-refused', { text: 'see the log for what is at fault' });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function partsOf(error: unknown): { details?: readonly string[] } {
  return error instanceof OverlayError && error.parts.length > 0 ? { details: error.parts } : {};
}
