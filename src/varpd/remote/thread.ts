/**
 * Entry of a plugin's thread. The first message brings a channel to main that the plugin's code has no name for, and
 * the worker's own channel is closed before that code runs: what it posts there reaches nobody.
 */
import vm from 'node:vm';
import { type MessagePort, parentPort } from 'node:worker_threads';
import { assert, OverlayError } from '../../errors.js';
import type { LookupPlugin } from '../plugin.js';
import { declarationOf, pluginOf } from './declaration.js';
import { faultOf } from './fault.js';
import { Hosted } from './hosted.js';
import { Memory } from './memory.js';
import { Outbox } from './outbox.js';
import { Printing } from './printing.js';
import type { FromThread, Load, ModuleAddress, ToThread } from './protocol.js';

type Exports = Readonly<Record<string, unknown>>;

class PluginThread {
  readonly #hosted = new Map<number, Hosted>();

  constructor(
    readonly port: MessagePort,
    readonly memory: Memory,
  ) {}

  async load(module: ModuleAddress): Promise<void> {
    let plugin: LookupPlugin | undefined;
    // From the beginning, so that the thread lives until main ends it, and whatever it said is heard.
    this.port.on('message', (message: ToThread) => {
      assert(plugin, 'main calls what is declared');
      this.#onMessage(plugin, message);
    });
    new Printing((message) => this.#post(message)).capture();
    try {
      plugin = pluginOf(await importModule(module));
      const declaration = declarationOf(plugin);
      this.#post({ kind: 'declared', declaration });
    } catch (error) {
      this.#post({ kind: 'refused', fault: faultOf(error) });
    }
  }

  #onMessage(plugin: LookupPlugin, message: ToThread): void {
    if (message.kind === 'ping') {
      this.#post({ kind: 'pong', usedBytes: this.memory.used() });
      return;
    }
    const { call, session, method, argument } = message;
    if (method === 'start') {
      const outbox = new Outbox(session, (services) => this.#post(services));
      this.#hosted.set(session, new Hosted(plugin, outbox));
    }
    const hosted = this.#hosted.get(session);
    if (!hosted) {
      const fault = faultOf(new OverlayError('ECANCELED', 'plugin_stopped', 'the instance was stopped'));
      this.#post({ kind: 'failed', call, fault });
      return;
    }
    if (method === 'stop') this.#hosted.delete(session);
    hosted.call(method, argument).then(
      (value) => {
        hosted.outbox.flush();
        this.#post({ kind: 'answer', call, value });
      },
      (error: unknown) => {
        hosted.outbox.flush();
        this.#post({ kind: 'failed', call, fault: faultOf(error) });
      },
    );
  }

  #post(message: FromThread): void {
    this.port.postMessage(message);
  }
}

/**
 * The module's exports. A package is imported as from a file in its directory, so that the conditions of `import` count
 * in its `exports`. Throws EINVAL with what the module throws.
 */
async function importModule(module: ModuleAddress): Promise<Exports> {
  try {
    if (module.kind === 'file') return (await import(module.url)) as Exports;
    const script = new vm.Script(`import(${JSON.stringify(module.name)})`, {
      filename: module.from,
      importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
    });
    return (await script.runInThisContext()) as Exports;
  } catch (error) {
    throw new OverlayError('EINVAL', 'bad_plugin_module', `its import failed: ${faultOf(error).message}`);
  }
}

assert(parentPort, 'this runs in a worker thread');
const own = parentPort;
own.once('message', ({ port, module, memoryBytes }: Load) => {
  own.close();
  void new PluginThread(port, new Memory(memoryBytes)).load(module);
});
