/**
 * The end of the daemon: by a stop, or by a restart as the program anew. It is over in bounded time whatever a lookup plugin,
 * a disk or the kernel makes of it. A restart hands the links over in any case: routes depend on their carrier.
 *
 *   running ─ restart ─► restarting ─ stop ─► stopping        running ─ stop ─► stopping
 */
import type { ControlServer } from '../control/server.js';
import { DRAIN_DEVICE_MS_MAX, DRAIN_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import type { Overlay } from '../overlay.js';
import { isOverWithin, monotonicMs, nextTurn } from '../sys/clock.js';
import { endLatestIn, leave } from '../sys/leave.js';
import type { Varpd } from '../varpd/varpd.js';
import { becomeAnew, type LinkFds } from './handover.js';
import type { Reloader } from './reloader.js';

/** How long after the time for all steps the kernel ends what has not ended. */
const KILL_AFTER_MS = 450;

export type End = 'stop' | 'restart';

/** What begins work of its own, and is closed before the devices are. */
export interface Sources {
  readonly server: ControlServer;
  readonly reloader: Reloader;
}

export interface EndingOptions {
  readonly overlay: Overlay;
  readonly varpd: Varpd;
  readonly log: Log;
}

export class Ending {
  #end: End | undefined;
  #signal = '';
  #sources: Sources | undefined;

  constructor(readonly options: EndingOptions) {}

  get isStopping(): boolean {
    return this.#end === 'stop';
  }

  get isUnderWay(): boolean {
    return this.#end !== undefined;
  }

  /** Ends the daemon, at once or when it has started. A stop wins over a restart that is under way. */
  begin(end: End, signal: string): void {
    if (this.#end === 'stop' || this.#end === end) return;
    const { varpd, log } = this.options;
    const isFirst = this.#end === undefined;
    this.#end = end;
    this.#signal = signal;
    log.info({ signal }, end === 'stop' ? 'stopping' : 'restarting');
    // Should this thread itself hang, in a call that nobody can break off.
    if (end === 'stop') endLatestIn(this.#drainMs + KILL_AFTER_MS);
    if (!isFirst) return;
    // The start of a plugin that hangs would hold up the daemon's start as well.
    varpd.windUp();
    if (this.#sources) void this.#run(this.#sources);
  }

  /** The daemon has started: what was begun before goes on now. */
  arm(sources: Sources): void {
    this.#sources = sources;
    if (this.isUnderWay) void this.#run(sources);
  }

  async #run({ server, reloader }: Sources): Promise<void> {
    const { overlay, log } = this.options;
    overlay.events.emit('daemon-stopping', { text: `by ${this.#signal}` });
    const end = monotonicMs() + this.#drainMs;
    endLatestIn(this.#drainMs + KILL_AFTER_MS);
    const restMs = () => Math.max(0, end - monotonicMs());
    try {
      await isOverWithin(Promise.all([server.close(), reloader.close()]), restMs());
      if (this.#end === 'restart') {
        const kept = await overlay.handOver(restMs());
        // A signal that has come meanwhile is heard first.
        await nextTurn();
        if (this.#isRestart) this.#restart(kept);
        this.#stopped(true);
      }
      this.#stopped(await isOverWithin(overlay.close(), restMs()));
    } catch (error) {
      log.error({ err: error }, 'the end failed by a defect');
      leave(1);
    }
  }

  /** Time for all steps of the end. */
  get #drainMs(): number {
    return DRAIN_MS_MAX + this.options.overlay.names.length * DRAIN_DEVICE_MS_MAX;
  }

  /** Not by its name: the compiler takes the field for what it was before the wait. */
  get #isRestart(): boolean {
    return this.#end === 'restart';
  }

  #restart(kept: LinkFds): void {
    const { log } = this.options;
    log.info({ links: Object.keys(kept).length }, 'starting anew');
    endLatestIn(0);
    try {
      becomeAnew(kept);
    } catch (error) {
      // Nothing is left that could go on.
      const why = (error as Error).message;
      log.error({ reason: why }, `the daemon cannot start anew and has stopped: ${why}; start it again`);
      leave(1);
    }
  }

  #stopped(isWhole: boolean): never {
    const { overlay, log } = this.options;
    if (isWhole) {
      log.info({}, 'stopped');
      leave(0);
    }
    const { busy } = overlay;
    const what =
      busy.length > 0 ? `what is done to ${busy.join(', ')}` : 'the workers or the state directory';
    log.error({ busy }, `stopped although not everything has ended in time: ${what}`);
    leave(1);
  }
}
