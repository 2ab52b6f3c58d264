/** `events`: what has happened, as it happens. */
import type { ControlClient } from '../control/client.js';
import { OverlayError } from '../errors.js';
import type { Event } from '../events.js';
import { print, printable } from './output.js';
import { unset } from './table.js';

export interface EventsOptions {
  readonly follow?: boolean;
  readonly since?: string;
  readonly json?: boolean;
}

/** Of a time in ISO 8601 the whole, of a device's name and a kind the longest. */
const DEVICE_WIDTH = 15;
const KIND_WIDTH = 16;

/** Prints events. Throws ECONNREFUSED when it follows and the daemon goes. */
export async function showEvents(client: ControlClient, options: EventsOptions): Promise<void> {
  const { follow = false, since, json = false } = options;
  const query = new URLSearchParams({ follow: `${follow}`, ...(since === undefined ? {} : { since }) });
  for await (const line of client.lines(`/v1/events?${query}`)) {
    await print([json ? line : formatEvent(JSON.parse(line) as Event)]);
  }
  if (!follow) return;
  throw new OverlayError(
    'ECONNREFUSED',
    'daemon_gone',
    `the daemon on ${client.socket} has gone: no more events come`,
  );
}

/** Time, device, kind and text. */
export function formatEvent({ time, device = unset, kind, text }: Event): string {
  return printable(`${time} ${device.padEnd(DEVICE_WIDTH)} ${kind.padEnd(KIND_WIDTH)} ${text}`);
}
