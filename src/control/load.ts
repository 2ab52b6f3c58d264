/** How busy the control sockets are, as JSON: what is open, and what was refused to whom. */
import { type RefusalName, type Refusals, refusalNames } from './refusals.js';

/** Where that is known. */
export interface Load {
  /** Connections that are open. */
  readonly size: number;
  readonly refusals: Refusals;
}

export interface ControlView {
  readonly connections: number;
  /** By name; what never happened is left out. */
  readonly refused: Readonly<Partial<Record<RefusalName, number>>>;
  /** User who was refused something last; null while nobody was. */
  readonly last_refused_uid: number | null;
}

export function controlView({ size, refusals }: Load): ControlView {
  const happened = refusalNames.filter((name) => refusals.counts[name] > 0);
  return {
    connections: size,
    refused: Object.fromEntries(happened.map((name) => [name, refusals.counts[name]])),
    last_refused_uid: refusals.lastUid ?? null,
  };
}
