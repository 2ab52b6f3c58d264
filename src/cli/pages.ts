/** Whole documents of what the API gives page by page. A daemon that knows no pages gives them whole. */
import type { ControlClient } from '../control/client.js';
import type { StatusView } from '../control/status.js';
import type { OverlayView, StatsView } from '../control/view.js';

export interface OverlaysPage {
  readonly overlays: Readonly<Record<string, OverlayView>>;
  readonly next?: string | null;
}

/** Names of all devices. */
export async function allNames(client: ControlClient): Promise<string[]> {
  const names: string[] = [];
  for await (const { devices } of client.pages<StatusView>('/v1/status')) names.push(...Object.keys(devices));
  return names;
}

export async function wholeStatus(client: ControlClient): Promise<StatusView> {
  return whole(client.pages<StatusView>('/v1/status'), (all, page) => ({
    ...all,
    devices: { ...all.devices, ...page.devices },
    faults: [...all.faults, ...page.faults],
  }));
}

export async function allStats(client: ControlClient): Promise<StatsView> {
  return whole(client.pages<StatsView>('/v1/stats'), (all, page) => ({
    ...all,
    meanings: { ...all.meanings, ...page.meanings },
    overlays: { ...all.overlays, ...page.overlays },
    muxes: { ...all.muxes, ...page.muxes },
  }));
}

/** Pages put together; what is not a list is that of the first. */
async function whole<T extends { readonly next: string | null }>(
  pages: AsyncIterable<T>,
  join: (all: T, page: T) => T,
): Promise<T> {
  let all: T | undefined;
  for await (const page of pages) all = all === undefined ? page : { ...join(all, page), next: null };
  return all!;
}
