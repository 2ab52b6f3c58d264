/** varpd: the lookup plugins and their instances, one for each overlay. */
import { isPluginName } from '../encap/plugin.js';
import { assert, OverlayError } from '../errors.js';
import { direct } from './direct.js';
import { LOOKUP_VERSION, type LookupInstance, type LookupPlugin } from './plugin.js';

/** A lookup plugin at work for one overlay. */
export interface VarpdInstance {
  /** 1 and up; the property `varpd/id`. */
  readonly id: number;
  readonly plugin: LookupPlugin;
  readonly lookup: LookupInstance;
  isActive: boolean;
}

export class Varpd {
  readonly #plugins = new Map<string, LookupPlugin>();
  readonly #instances = new Map<number, VarpdInstance>();
  #nextId = 1;

  constructor(plugins: readonly LookupPlugin[] = [direct]) {
    for (const plugin of plugins) this.register(plugin);
  }

  get pluginNames(): string[] {
    return [...this.#plugins.keys()];
  }

  /** Throws EINVAL for a bad declaration, EEXIST for a name that is taken. */
  register(plugin: LookupPlugin): void {
    if (plugin.version !== LOOKUP_VERSION || !isPluginName(plugin.name)) {
      throw new OverlayError(
        'EINVAL',
        'bad_lookup_plugin',
        `lookup plugin '${plugin.name}' is not well declared`,
      );
    }
    if (this.#plugins.has(plugin.name)) {
      throw new OverlayError(
        'EEXIST',
        'lookup_exists',
        `lookup plugin '${plugin.name}' is registered already`,
      );
    }
    this.#plugins.set(plugin.name, plugin);
  }

  /** A new instance. Throws ENOENT for an unknown plugin, ENOTSUP when it cannot serve the destination kinds. */
  create(search: string, destinations: number): VarpdInstance {
    const plugin = this.#plugins.get(search);
    if (!plugin) {
      throw new OverlayError(
        'ENOENT',
        'no_such_lookup',
        `there is no lookup plugin '${search}'; there are: ${this.pluginNames.join(', ')}`,
      );
    }
    const lookup = plugin.create(destinations);
    const instance: VarpdInstance = { id: this.#nextId++, plugin, lookup, isActive: false };
    this.#instances.set(instance.id, instance);
    return instance;
  }

  /** Starts the plugin: the instance is associated from here on. Throws EEXIST, or EAGAIN naming what is missing. */
  activate(instance: VarpdInstance): void {
    if (instance.isActive) {
      throw new OverlayError('EEXIST', 'already_active', `varpd instance ${instance.id} is active already`);
    }
    instance.lookup.start();
    instance.isActive = true;
  }

  destroy(instance: VarpdInstance): void {
    assert(this.#instances.delete(instance.id), `varpd instance ${instance.id} is destroyed twice`);
    if (instance.isActive) instance.lookup.stop();
    instance.isActive = false;
  }
}
