/** One life of a plugin's thread: from the start of its worker to its end, which is watched for and brought about. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { OverlayError } from '../../errors.js';
import { after, every } from '../../sys/clock.js';
import { Bucket, type Rate } from './bucket.js';
import { Calls } from './calls.js';
import type { Declaration } from './declaration.js';
import { errorOf, faultOf } from './fault.js';
import { readMessage } from './message.js';
import type { FromThread, Load, ModuleAddress, ServiceCall, ToThread } from './protocol.js';

/** Pings without an answer after which a thread is in an endless loop. Counted, so that a busy main harms nobody. */
const PINGS_MISSED_MAX = 4;
/** Messages of one thread: half of what main can read, and more than an honest plugin has to say. */
const MESSAGE_RATE: Rate = { perSecond: 50_000, burst: 50_000 };
/** Of those, what nobody asked for or can read. A source that was away may well bring this many late answers at once. */
const ODD_RATE: Rate = { perSecond: 2000, burst: 20_000 };
/**
 * The engine's own limit of the heap, as a multiple of ours. Above its limit the engine ends the thread, or the whole
 * process when one allocation is large (a map that doubles): a plugin has to be ended long before.
 */
const HEAP_LIMIT_FACTOR = 8;
const MEBIBYTE = 1024 * 1024;

export interface LifeOptions {
  /** What it was loaded from; for people. */
  readonly specifier: string;
  readonly module: ModuleAddress;
  readonly importMs: number;
  readonly pingMs: number;
  /** What it may hold, on its heap and beside it. */
  readonly memoryMb: number;
}

export interface LifeEvents {
  onServices(session: number, calls: readonly ServiceCall[], dropped: number): void;
  onPrinted(lines: readonly string[], dropped: number): void;
  /** An answer that nobody waits for: given twice, late, or made up. */
  onStray(): void;
  /** A message that is none. */
  onOdd(): void;
  /** Once, with a reason for people; also by `end`. */
  onEnd(reason: string): void;
}

export class Life {
  /** Rejects with EINVAL when the module or its plugin is no good, ETIME, EIO when the thread ends before. */
  readonly declared: Promise<Declaration>;
  /** The thread is no more; a while after its end, or never when it hangs in a system call. */
  readonly gone: Promise<void>;
  readonly calls: Calls;
  /** For people: the specifier until the plugin has said its name. */
  #name: string;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #messages = new Bucket(MESSAGE_RATE);
  readonly #oddities = new Bucket(ODD_RATE);
  #settleDeclared: ((outcome: Declaration | OverlayError) => void) | undefined;
  #isOver = false;
  /** Without an answer. */
  #pings = 0;
  /** Resident bytes of the process when the thread was last heard of. */
  #residentBytes = process.memoryUsage.rss();
  readonly #stopWatch: () => void;

  /** Throws EAGAIN when there can be no more threads. */
  constructor(
    readonly options: LifeOptions,
    readonly events: LifeEvents,
  ) {
    const { importMs, memoryMb, module } = options;
    this.#name = options.specifier;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.calls = new Calls({
      plugin: () => this.#name,
      send: (call, session, method, argument) =>
        this.#post({ kind: 'call', call, session, method, argument }),
      onBusy: (isBusy) => this.#holdProcess(isBusy),
    });
    this.#worker = startWorker(memoryMb);
    this.#stopWatch = every(options.pingMs, () => this.#watch());
    const stopImport = after(importMs, () => {
      this.#refuse('ETIME', 'plugin_import_slow', `its import takes more than ${importMs} ms`);
    });
    this.declared = new Promise((resolve, reject) => {
      this.#settleDeclared = (outcome) => {
        this.#settleDeclared = undefined;
        stopImport();
        if (outcome instanceof OverlayError) reject(outcome);
        else resolve(outcome);
      };
    });
    // Whoever wants it has it; its end is told by `onEnd` as well.
    this.declared.catch(() => {});
    this.gone = new Promise((resolve) => {
      this.#worker.on('exit', (code) => {
        this.#drain();
        this.end(`its thread ended by itself (code ${code})`);
        resolve();
      });
    });
    this.#worker.on('error', (error) => this.end(reasonOf(error)));
    port1.on('message', (message: unknown) => this.#onMessage(message));
    port1.on('messageerror', () => this.#odd('onOdd'));
    const load: Load = { port: port2, module, memoryBytes: memoryMb * MEBIBYTE };
    this.#worker.postMessage(load, [port2]);
    // While it imports, the worker holds the process, so that somebody who waits for it is not left alone.
    port1.unref();
  }

  /** Ends the thread, if it has not ended yet; open calls are rejected with ECANCELED at once. */
  end(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stopWatch();
    this.#port.close();
    this.#settleDeclared?.(new OverlayError('EIO', 'plugin_died', reason));
    this.calls.cancel(new OverlayError('ECANCELED', 'plugin_died', `the lookup plugin died: ${reason}`));
    void this.#worker.terminate();
    this.events.onEnd(reason);
  }

  /** Resolves when the thread is gone; holds the process until then. */
  async leave(): Promise<void> {
    this.#worker.ref();
    await this.gone;
  }

  #refuse(errno: string, code: string, text: string): void {
    this.#settleDeclared?.(new OverlayError(errno, code, text));
    this.end(text);
  }

  #holdProcess(isBusy: boolean): void {
    if (isBusy) this.#worker.ref();
    else this.#worker.unref();
  }

  #post(message: ToThread): void {
    this.#port.postMessage(message);
  }

  /** What the thread said before its end may still be on its way. */
  #drain(): void {
    if (this.#isOver) return;
    for (let last = receiveMessageOnPort(this.#port); last; last = receiveMessageOnPort(this.#port)) {
      this.#onMessage(last.message);
      if (this.#isOver) return;
    }
  }

  #onMessage(given: unknown): void {
    if (this.#isOver) return;
    if (!this.#messages.take()) {
      this.end(`it sent more than ${MESSAGE_RATE.burst} messages at once`);
      return;
    }
    const message = readMessage(given);
    if (message) this.#read(message);
    else this.#odd('onOdd');
  }

  #odd(event: 'onOdd' | 'onStray'): void {
    this.events[event]();
    if (!this.#oddities.take()) this.end('it sent too much that nobody asked for');
  }

  #read(message: FromThread): void {
    const { events } = this;
    switch (message.kind) {
      case 'declared':
        this.#onDeclared(message.declaration);
        break;
      case 'refused': {
        const { errno, code, message: text } = message.fault;
        this.#refuse(errno, code, text);
        break;
      }
      case 'pong':
        this.#onPong(message.usedBytes);
        break;
      case 'answer':
        if (!this.calls.answer(message.call, message.value)) this.#odd('onStray');
        break;
      case 'failed':
        if (!this.calls.fail(message.call, errorOf(message.fault))) this.#odd('onStray');
        break;
      case 'services':
        events.onServices(message.session, message.calls, message.dropped);
        break;
      case 'printed':
        events.onPrinted(message.lines, message.dropped);
        break;
    }
  }

  #onDeclared(declaration: Declaration): void {
    if (!this.#settleDeclared) {
      this.#odd('onOdd');
      return;
    }
    this.#name = declaration.name;
    this.#settleDeclared(declaration);
    this.#worker.unref();
  }

  #onPong(usedBytes: number): void {
    if (this.#pings === 0) {
      this.#odd('onOdd');
      return;
    }
    this.#pings = 0;
    this.#residentBytes = process.memoryUsage.rss();
    const { memoryMb } = this.options;
    if (usedBytes > memoryMb * MEBIBYTE) this.end(`it holds more than ${memoryMb} MiB of memory`);
  }

  /**
   * A thread that is busy cannot say what it holds. While it is not heard, what the process has grown by is taken for
   * its doing: it costs a wrong guess no more than a new start.
   */
  #watch(): void {
    const { memoryMb, pingMs } = this.options;
    const isImporting = this.#settleDeclared !== undefined;
    const isSilent = isImporting || this.#pings > 0;
    if (isSilent && process.memoryUsage.rss() - this.#residentBytes > memoryMb * MEBIBYTE) {
      this.end(`it is busy, and has taken more than ${memoryMb} MiB of memory meanwhile`);
      return;
    }
    if (isImporting) return;
    if (this.#pings >= PINGS_MISSED_MAX) {
      this.end(`it did not react for ${this.#pings * pingMs} ms: it may be in an endless loop`);
      return;
    }
    this.#pings++;
    this.#post({ kind: 'ping' });
  }
}

/** Nothing of the process is handed down; warnings would be written past the captured streams. Throws EAGAIN. */
function startWorker(memoryMb: number): Worker {
  try {
    return new Worker(new URL('./thread.js', import.meta.url), {
      name: 'overlayd lookup plugin',
      env: {},
      argv: [],
      execArgv: ['--no-warnings'],
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: memoryMb * HEAP_LIMIT_FACTOR },
    });
  } catch (error) {
    throw new OverlayError('EAGAIN', 'no_thread', `there is no thread for it: ${faultOf(error).message}`);
  }
}

function reasonOf(error: unknown): string {
  const { message } = faultOf(error);
  const isMemory = error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY';
  return isMemory ? 'it used up all memory of its heap' : `it threw where nobody catches: ${message}`;
}
