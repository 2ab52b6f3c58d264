/** What is to be done about what ports and the host's network tell, and to which devices. */
import { ROUTES_MS } from '../limits.js';
import type { Links } from './links.js';
import type { PortEvent } from './ports.js';
import type { Entry } from './setprop.js';
import { Underlays, type UnderlaysContext } from './underlays.js';

/** A device, and what is to be done in its perimeter. */
export type PortWork = readonly [device: string, work: () => void | Promise<void>];

export class PortEvents {
  readonly #underlays: Underlays;

  constructor(
    readonly context: UnderlaysContext,
    readonly links: Links,
  ) {
    this.#underlays = new Underlays(context);
  }

  /** What is to be done in perimeters about an event; what is a matter of a moment has been done then. */
  workOf(event: PortEvent): PortWork[] {
    const { links } = this;
    const entries = [...this.context.devices.entries.values()];
    if (event.kind === 'link') {
      const { index, netns } = event;
      const entry = entries.find(
        ({ device }) =>
          !device.isLinkGone && !device.isAway && device.port.index === index && device.netns === netns,
      );
      return entry ? [[entry.device.name, () => links.follow(entry, event)]] : [];
    }
    if (event.kind === 'routes') {
      this.context.mtus.followAll(ROUTES_MS);
      // A router's table may change all the time.
      this.context.attachments.muxes.followAddresses(false);
      return [];
    }
    if (event.kind === 'underlay') {
      this.#underlays.follow();
      const moved = entries.filter(({ device, lookup }) => device.isActivated && lookup.vteps.follow());
      return [
        ...moved.map(({ device, lookup }) => [device.name, () => lookup.dynamic?.rehold()] as const),
        ...this.#retries(entries.filter(({ device }) => device.cancelRetry)),
      ];
    }
    // The one event that comes by time.
    this.context.attachments.muxes.catchUp();
    const elsewhere = entries.filter(({ device }) => device.netns !== '');
    const lost = entries.filter(({ device }) => device.attachment?.mux.namespace.isThere === false);
    const waiting = entries.filter(({ device }) => device.cancelRetry && device.isNamespaceMissing);
    return [
      ...elsewhere.map((entry) => [entry.device.name, () => links.followNamespace(entry)] as const),
      ...lost.map((entry) => [entry.device.name, () => this.#underlays.leave(entry)] as const),
      ...this.#retries(waiting),
    ];
  }

  /** One for each device, however many events ask for it before its turn comes. */
  #retries(entries: readonly Entry[]): PortWork[] {
    return entries.flatMap((entry) => {
      const { device } = entry;
      if (device.isRetryQueued) return [];
      device.isRetryQueued = true;
      const work = () => {
        device.isRetryQueued = false;
        return this.context.starts.retry(entry);
      };
      return [[device.name, work] as const];
    });
  }
}
