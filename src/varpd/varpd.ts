/** varpd: the lookup plugins and their instances, one for each overlay. */
import { isPluginName } from '../encap/plugin.js';
import { assert, OverlayError } from '../errors.js';
import { PLUGIN_END_MS_MAX } from '../limits.js';
import { after } from '../sys/clock.js';
import { direct } from './direct.js';
import { External } from './external.js';
import { external } from './external-plugin.js';
import { files } from './files.js';
import { learn } from './learn.js';
import { LOOKUP_VERSION, type LookupInstance, type LookupPlugin, type LookupServices } from './plugin.js';

/** A lookup plugin at work for one overlay. */
export interface VarpdInstance {
  /** 1 and up; the property `varpd/id`. */
  readonly id: number;
  readonly plugin: LookupPlugin;
  lookup: LookupInstance;
  readonly destinations: number;
  isActive: boolean;
  /** Why its end went wrong, for the log. */
  fault: string | undefined;
}

export class Varpd {
  /** Who answers for devices with `search=external`. */
  readonly external = new External();
  readonly #plugins = new Map<string, LookupPlugin>();
  readonly #instances = new Map<number, VarpdInstance>();
  #nextId = 1;
  readonly #waits = new Waits();

  constructor(plugins: readonly LookupPlugin[] = [direct, files, learn, external]) {
    for (const plugin of plugins) this.register(plugin);
  }

  get pluginNames(): string[] {
    return [...this.#plugins.keys()];
  }

  /** Throws EINVAL for a bad declaration, EEXIST for a name that is taken. */
  register(plugin: LookupPlugin): void {
    checkLookupPlugin(plugin);
    if (this.#plugins.has(plugin.name)) {
      throw new OverlayError(
        'EEXIST',
        'lookup_exists',
        `lookup plugin '${plugin.name}' is registered already`,
      );
    }
    this.#plugins.set(plugin.name, plugin);
  }

  /** A new instance, with the number it had before a restart. Throws ENOENT for an unknown plugin, ENOTSUP when it cannot serve the destination kinds. */
  create(search: string, destinations: number, id?: number): VarpdInstance {
    const plugin = this.#plugins.get(search);
    if (!plugin) {
      throw new OverlayError(
        'ENOENT',
        'no_such_lookup',
        `there is no lookup plugin '${search}'; there are: ${this.pluginNames.join(', ')}`,
      );
    }
    const lookup = plugin.create(destinations);
    const instance: VarpdInstance = {
      id: id !== undefined && !this.#instances.has(id) ? id : this.#nextId++,
      plugin,
      lookup,
      destinations,
      isActive: false,
      fault: undefined,
    };
    this.#instances.set(instance.id, instance);
    this.#nextId = Math.max(this.#nextId, instance.id + 1);
    return instance;
  }

  /**
   * Starts the plugin: the instance is associated from here on. Rejects with EEXIST, EAGAIN naming what is missing,
   * ETIME when the start takes too long, ECANCELED after `windUp`, and whatever else the plugin refuses with.
   */
  async activate(instance: VarpdInstance, services: LookupServices): Promise<void> {
    if (instance.isActive) {
      throw new OverlayError('EEXIST', 'already_active', `varpd instance ${instance.id} is active already`);
    }
    const { name } = instance.plugin;
    await this.#waits.bounded(`the start of lookup plugin '${name}'`, START_MS, () =>
      instance.lookup.start(services),
    );
    instance.isActive = true;
  }

  /**
   * The process is about to end: starts that are under way are broken off, no other begins, and whatever a plugin does, the
   * end of an instance takes PLUGIN_END_MS_MAX at most.
   */
  windUp(): void {
    this.#waits.windUp();
  }

  /** A new start for an instance, with the properties it has: `activate` follows. Its id stays. */
  async renew(instance: VarpdInstance): Promise<void> {
    const { lookup, plugin, destinations } = instance;
    await this.#stop(instance);
    const next = plugin.create(destinations);
    next.properties.reset(lookup.properties.given);
    instance.lookup = next;
  }

  /** An instance whose device did not come about; it was never started. */
  forget(instance: VarpdInstance): void {
    this.#instances.delete(instance.id);
  }

  /** Ends the instance, whatever its plugin makes of it. */
  async destroy(instance: VarpdInstance): Promise<void> {
    assert(this.#instances.delete(instance.id), `varpd instance ${instance.id} is destroyed twice`);
    await this.#stop(instance);
  }

  async #stop(instance: VarpdInstance): Promise<void> {
    if (!instance.isActive) return;
    instance.isActive = false;
    try {
      await this.#waits.bounded(`the end of '${instance.plugin.name}'`, STOP_MS, () =>
        instance.lookup.stop(),
      );
    } catch (error) {
      instance.fault = error instanceof Error ? error.message : String(error);
    }
  }
}

/** What a plugin's start and stop may take, in milliseconds, also when the process is about to end. */
interface Bound {
  readonly ms: number;
  /** 0: it is not begun any more. */
  readonly windingUpMs: number;
}

const START_MS: Bound = { ms: 30_000, windingUpMs: 0 };
const STOP_MS: Bound = { ms: 2000, windingUpMs: PLUGIN_END_MS_MAX };

/** Waits for plugins, each bounded; all of them are cut short when the process is about to end. */
class Waits {
  readonly #cuts = new Set<() => void>();
  #isWindingUp = false;

  windUp(): void {
    this.#isWindingUp = true;
    for (const cut of [...this.#cuts]) cut();
  }

  /** Rejects with ETIME or ECANCELED when the work takes longer, with EIO when it throws what is no OverlayError. */
  async bounded(what: string, bound: Bound, work: () => void | Promise<void>): Promise<void> {
    const { ms, windingUpMs } = bound;
    if (this.#isWindingUp && windingUpMs === 0) throw brokenOff(what);
    let cancel = () => {};
    let cut = () => {};
    const late = new Promise<never>((_, reject) => {
      const slow = () => reject(new OverlayError('ETIME', 'lookup_slow', `${what} took more than ${ms} ms`));
      cut = () => {
        cancel();
        cancel = after(windingUpMs, () => reject(brokenOff(what)));
      };
      cancel = after(ms, slow);
    });
    if (this.#isWindingUp) cut();
    this.#cuts.add(cut);
    try {
      await Promise.race([work(), late]);
    } catch (error) {
      if (error instanceof OverlayError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new OverlayError('EIO', 'lookup_failed', `${what} failed: ${why}`);
    } finally {
      cancel();
      this.#cuts.delete(cut);
    }
  }
}

function brokenOff(what: string): OverlayError {
  return new OverlayError('ECANCELED', 'daemon_ends', `${what} was broken off: the daemon ends`);
}

/** Throws EINVAL naming what is wrong with a plugin's declaration. */
export function checkLookupPlugin(plugin: LookupPlugin): void {
  const refuse = (what: string): never => {
    const name = typeof plugin?.name === 'string' ? plugin.name : '';
    throw new OverlayError(
      'EINVAL',
      'bad_lookup_plugin',
      `lookup plugin '${name}' is not well declared: ${what}`,
    );
  };
  if (typeof plugin !== 'object' || plugin === null) refuse('it is no object');
  if (plugin.version !== LOOKUP_VERSION) refuse(`version is ${plugin.version}, it must be ${LOOKUP_VERSION}`);
  if (!isPluginName(plugin.name)) refuse("the name is 1 to 31 bytes without '/'");
  if (plugin.mode !== 'point' && plugin.mode !== 'dynamic') refuse('mode is neither point nor dynamic');
  for (const operation of ['properties', 'create'] as const) {
    if (typeof plugin[operation] !== 'function') refuse(`${operation} is missing`);
  }
}
