/** What `create-overlay` does: CREATE, SETPROP for each property and ACTIVATE, all of it or nothing. */
import { OverlayError } from '../errors.js';
import type { Life } from './life.js';
import type { Persistence } from './persistence.js';
import type { Entry } from './setprop.js';

/** What `create-overlay` asks for, as one transaction. */
export interface OverlayRequest {
  readonly name: string;
  readonly encap: string;
  readonly search: string;
  readonly vnetid: unknown;
  readonly properties: Readonly<Record<string, unknown>>;
  /** Not kept over a restart. */
  readonly isTemporary?: boolean;
}

export interface TransactionContext {
  readonly life: Life;
  readonly persistence: Persistence;
  /** SETPROP. */
  set(entry: Entry, property: string, value: unknown): Promise<void>;
}

/** In the device's perimeter. Rejects with a line for each part at fault; nothing is left of the device then. */
export async function createOverlay(
  { life, persistence, set }: TransactionContext,
  request: OverlayRequest,
): Promise<void> {
  const { name, encap, search, vnetid, properties, isTemporary = false } = request;
  const entry = life.create(name, encap, search, vnetid);
  const details: string[] = [];
  let first: OverlayError | undefined;
  const attempt = async (what: string, work: () => void | Promise<void>) => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof OverlayError)) {
        await life.deletion.remove(entry);
        throw error;
      }
      first ??= error;
      details.push(`${what}: ${error.message}`);
    }
  };
  for (const [property, value] of Object.entries(properties)) {
    await attempt(property, () => set(entry, property, value));
  }
  // An external device activates when it is associated.
  if (!first && !entry.lookup.isExternal) await attempt('activation', () => life.activate(entry));
  if (!first && !isTemporary) await attempt('state', () => persistence.begin(entry));
  if (!first) await attempt('state', () => life.settle(name, isTemporary));
  if (!first) return;
  await life.deletion.remove(entry);
  for (const property of missingOf(entry)) {
    if (!Object.hasOwn(properties, property)) details.push(`${property}: it is required and has no value`);
  }
  throw new OverlayError(
    first.errno,
    first.code,
    `overlay '${name}' was not created: ${first.message}`,
    details,
  );
}

function missingOf({ device, lookup }: Entry): string[] {
  return [...device.properties.missing(), ...lookup.instance.lookup.properties.missing()];
}
