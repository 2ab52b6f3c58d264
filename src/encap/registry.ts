/** The encap plugins there are, with a count of the devices that use each. Mirror of `assembly/encap/registry.ts`. */
import { assert, OverlayError } from '../errors.js';
import { PropertyStore } from '../property.js';
import { geneve } from './geneve.js';
import { nvgre } from './nvgre.js';
import { checkEncapPlugin, type EncapPlugin, vnetidRange } from './plugin.js';
import { vxlan } from './vxlan.js';
import { vxlanGpe } from './vxlan-gpe.js';

/** Those that we ship, in the order in which they are shown. */
const shipped: readonly EncapPlugin[] = [vxlan, vxlanGpe, geneve, nvgre];

interface Row {
  readonly plugin: EncapPlugin;
  devices: number;
}

export class EncapRegistry {
  readonly #rows = new Map<string, Row>();

  /** A registry of the plugins we ship, or of those given. */
  constructor(plugins: readonly EncapPlugin[] = shipped) {
    for (const plugin of plugins) this.register(plugin);
  }

  get names(): string[] {
    return [...this.#rows.keys()];
  }

  /** Throws EINVAL or ENOTSUP for a bad declaration, EEXIST for a name that is taken. */
  register(plugin: EncapPlugin): void {
    checkEncapPlugin(plugin);
    if (this.#rows.has(plugin.name)) {
      throw new OverlayError('EEXIST', 'encap_exists', `encap plugin '${plugin.name}' is registered already`);
    }
    const highest = vnetidRange(plugin).max;
    const { operations } = plugin;
    const properties = new PropertyStore(plugin.properties.map((name) => operations.propinfo(name)));
    const seen = operations.decap(operations.encap(highest, properties));
    assert(seen?.vnetid === highest, `encap plugin '${plugin.name}': decap does not undo encap`);
    this.#rows.set(plugin.name, { plugin, devices: 0 });
  }

  /** Throws ENOENT for an unknown name, EBUSY while devices use it. */
  unregister(name: string): void {
    const row = this.#row(name);
    if (row.devices > 0) {
      throw new OverlayError(
        'EBUSY',
        'encap_busy',
        `encap plugin '${name}' is used by ${row.devices} devices`,
      );
    }
    this.#rows.delete(name);
  }

  /** The plugin, without a hold on it. Throws ENOENT. */
  get(name: string): EncapPlugin {
    return this.#row(name).plugin;
  }

  /** The plugin, held until `release`. Throws ENOENT naming those there are. */
  hold(name: string): EncapPlugin {
    const row = this.#row(name);
    row.devices++;
    return row.plugin;
  }

  release(plugin: EncapPlugin): void {
    const row = this.#row(plugin.name);
    assert(row.devices > 0, `encap plugin '${plugin.name}' is released once too often`);
    row.devices--;
  }

  #row(name: string): Row {
    const row = this.#rows.get(name);
    if (row) return row;
    throw new OverlayError(
      'ENOENT',
      'no_such_encap',
      `there is no encap plugin '${name}'; there are: ${this.names.join(', ')}`,
    );
  }
}
