/** Who may send to a device: `<encap>/source_check`, made into what the core checks (design, section 6). */
import * as layout from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import { createSources } from '../datapath/sources.js';
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import { ipBytes } from '../ip.js';

/**
 * auto: known where the senders are known, else off. off: anyone. known: the VTEPs that the lookup plugin may answer
 * with. strict: known, and the inner source address must be a target behind the sender.
 */
export const sourceChecks = ['auto', 'off', 'known', 'strict'] as const;
export type SourceCheck = (typeof sourceChecks)[number];

/** Value of the property, `off` for an encapsulation that does not have it. */
export function sourceCheckOf({ encap, properties }: Device): SourceCheck {
  const name = `${encap.name}/source_check`;
  if (!encap.properties.includes(name)) return 'off';
  return encap.operations.getprop(properties, name) as SourceCheck;
}

/** The senders a device knows: those of its lookup, or undefined when it cannot list them. */
export interface SenderList {
  readonly isDynamic: boolean;
  readonly peers: readonly string[] | undefined;
}

export class SourcePolicy {
  /** Offset of the set that the device's row has, or 0. */
  #set = 0;

  constructor(
    readonly engine: Engine,
    readonly device: Device,
  ) {}

  /** Puts the property into force. Throws ENOTSUP when it cannot be, ENOMEM; nothing has changed then. */
  apply(list: SenderList): void {
    const check = sourceCheckOf(this.device);
    const { peers, isDynamic } = list;
    if (check === 'known' && !peers) {
      throw new OverlayError(
        'ENOTSUP',
        'senders_unknown',
        `source_check=known needs a lookup plugin that can list its VTEPs; use strict, or off`,
      );
    }
    if (check === 'strict' && !isDynamic) {
      throw new OverlayError(
        'ENOTSUP',
        'senders_unknown',
        'source_check=strict needs a DYNAMIC lookup plugin',
      );
    }
    const isChecked = check !== 'off' && (check !== 'auto' || peers !== undefined);
    const addresses = peers?.map((ip) => ipBytes(ip)) ?? [];
    const { views, core, pool, tables } = this.engine;
    const set = isChecked && peers ? createSources(views, core, pool, addresses) : 0;
    const before = this.#set;
    this.#set = set;
    const { SOURCE_MODE_KNOWN, SOURCE_MODE_OFF, SOURCE_MODE_STRICT } = layout;
    const mode = !isChecked ? SOURCE_MODE_OFF : check === 'strict' ? SOURCE_MODE_STRICT : SOURCE_MODE_KNOWN;
    tables.setSources(this.device.row, mode, set);
    if (before !== 0) this.#free(before);
  }

  /** The device stops or goes away: the row's set is given back when no worker reads it. */
  withdraw(): void {
    const before = this.#set;
    this.#set = 0;
    this.engine.tables.setSources(this.device.row, layout.SOURCE_MODE_OFF, 0);
    if (before !== 0) this.#free(before);
  }

  #free(set: number): void {
    void this.engine.retire(`the senders of ${this.device.name}`, {
      memory: () => this.engine.pool.free(set),
    });
  }
}
