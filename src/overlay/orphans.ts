/**
 * Links without a record: ours by their alias, open nowhere, and no device of this daemon. A daemon that was killed may have left
 * them, or one that keeps its state in another directory and does not run now; the alias does not tell which. They are named, and an
 * operator deletes them.
 */
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import type { Log } from '../log.js';
import type { Devices } from './devices.js';
import type { LeftLink, PortSource } from './ports.js';

/** Links that the fault names; the log names all. */
const NAMED_MAX = 8;

export interface OrphansContext {
  readonly ports: PortSource;
  readonly devices: Devices;
  readonly fma: Fma;
  readonly events: Events;
  readonly log: Log;
}

/** What became of the links without a record. */
export interface Tidied {
  readonly deleted: readonly LeftLink[];
  /** They are up, and were not to be deleted by force. */
  readonly left: readonly LeftLink[];
}

export class Orphans {
  /** Overlays whose record is there and cannot be read by this version. */
  #unread: ReadonlySet<string> = new Set();

  constructor(readonly context: OrphansContext) {}

  get list(): LeftLink[] {
    const { ports, devices } = this.context;
    const zones = [...devices.entries.values()].map(({ device }) => device.netns);
    for (const { properties } of devices.missing.values()) zones.push(String(properties.netns ?? ''));
    const left = ports.left?.list(new Set(zones.filter((netns) => netns !== ''))) ?? [];
    return left.filter(({ overlay, netns }) => {
      const record = devices.missing.get(overlay);
      const isMissing = record !== undefined && String(record.properties.netns ?? '') === netns;
      return !isMissing && !this.#unread.has(overlay);
    });
  }

  /** At the start, when devices are back. @param unread overlays whose record cannot be read, and is left alone */
  begin(unread: Iterable<string>): void {
    this.#unread = new Set(unread);
    for (const link of this.#look()) {
      const text = `${placeOf(link)} says that it is of overlay '${link.overlay}', of which there is no record`;
      this.context.log.error({ link: link.name, netns: link.netns, code: 'link_orphaned' }, text);
    }
  }

  /** Deletes those of an overlay, or of that name. False when there is none. Throws EBUSY for one that is up, unless forced. */
  delete(name: string, force: boolean): boolean {
    const found = this.list.filter((link) => link.overlay === name || link.name === name);
    const up = found.find(({ isUp }) => isUp);
    if (up && !force) {
      const message = `${placeOf(up)} is up: take it down, or delete it with --force`;
      throw new OverlayError('EBUSY', 'link_up', message);
    }
    this.#deleteAll(found);
    return found.length > 0;
  }

  /** Deletes all of them; those that are up only by force. */
  tidy(force: boolean): Tidied {
    const all = this.list;
    const left = force ? [] : all.filter(({ isUp }) => isUp);
    const deleted = all.filter((link) => !left.includes(link));
    this.#deleteAll(deleted);
    return { deleted, left };
  }

  #deleteAll(links: readonly LeftLink[]): void {
    const { ports, events, log } = this.context;
    for (const link of links) {
      ports.left!.delete(link);
      log.info({ link: link.name, netns: link.netns }, 'a link without a record was deleted');
      events.emit('deleted', { device: link.overlay, text: 'a link without a record' });
    }
    this.#look();
  }

  /** Brings the fault up to date. */
  #look(): LeftLink[] {
    const { fma } = this.context;
    const { list } = this;
    if (list.length === 0) fma.restoreProcess('link_orphaned');
    else {
      const named = list.slice(0, NAMED_MAX).map(placeOf).join(', ');
      const more = list.length > NAMED_MAX ? ` and ${list.length - NAMED_MAX} more` : '';
      fma.degradeProcess('link_orphaned', `links of overlays without a record: ${named}${more}`);
    }
    return list;
  }
}

/** Where a link is, for people. */
export function placeOf({ name, netns }: LeftLink): string {
  return netns === '' ? name : `${name} in network namespace '${netns}'`;
}
