/** CACHE_ operations on a device's targets: of a DYNAMIC one on its cache; a POINT one shows the one that it has. */
import { OverlayError } from '../errors.js';
import type { TargetCache } from '../target/cache.js';
import { checkRoute, type Destination, type Route } from '../target/destination.js';
import type { TargetView } from '../target/entries.js';
import { formatMac } from '../target/mac.js';
import type { Lookup } from './lookup.js';
import type { Entry } from './setprop.js';

/** Throws ENXIO, ENOENT when there is none of that address. */
export function getTarget(entry: Entry, mac: number): TargetView {
  const { point, dynamic } = routedOf(entry);
  if (point) return pointView(point);
  return dynamic!.cache.get(mac) ?? refuseUnknown(entry, mac);
}

/** Throws ENXIO, ENOTSUP for a POINT device, EINVAL for a bad route, ENOSPC, ENOMEM. */
export function setTarget(entry: Entry, mac: number, to: Route | 'drop'): void {
  const cache = cacheOf(entry);
  if (to === 'drop') cache.setDrop(mac, 'operator');
  else cache.set(mac, checkRoute(to, entry.device.encap.destinations), 'operator');
}

/** Throws ENXIO, ENOTSUP for a POINT device, ENOENT when there is none of that address. */
export function removeTarget(entry: Entry, mac: number): void {
  if (!cacheOf(entry).remove(mac)) refuseUnknown(entry, mac);
  forgetLearned(entry, formatMac(mac));
}

/** Throws ENXIO, ENOTSUP for a POINT device. */
export function flushTargets(entry: Entry): void {
  cacheOf(entry).flush();
  forgetLearned(entry);
}

/** A lookup that learns must not bring a removed target back, nor hold it where it was. */
function forgetLearned({ lookup: { instance } }: Entry, mac?: string): void {
  if (instance.isActive) instance.lookup.forget?.(mac);
}

/** Targets from address `marker` on, at most `count`, and where to go on. Throws ENXIO. */
export function iterateTargets(
  entry: Entry,
  marker: number,
  count: number,
): { targets: TargetView[]; next: number | undefined } {
  const { point, dynamic } = routedOf(entry);
  if (point) return { targets: marker === 0 ? [pointView(point)] : [], next: undefined };
  return dynamic!.cache.iterate(marker, count);
}

/** Throws ENXIO before activation, ENOTSUP for a POINT device. */
function cacheOf(entry: Entry): TargetCache {
  const { dynamic } = routedOf(entry);
  if (dynamic) return dynamic.cache;
  throw new OverlayError(
    'ENOTSUP',
    'not_dynamic',
    `${entry.device.name} sends everything to one destination: it has no target cache`,
  );
}

/** Throws ENXIO before activation. */
function routedOf({ device, lookup }: Entry): Lookup {
  if (lookup.isRouted) return lookup;
  throw new OverlayError('ENXIO', 'not_associated', `${device.name} is not activated: it has no targets yet`);
}

function refuseUnknown({ device }: Entry, mac: number): never {
  throw new OverlayError('ENOENT', 'no_such_target', `${device.name} has no target ${formatMac(mac)}`);
}

function pointView(route: Destination): TargetView {
  return { mac: 0, state: 'valid', route, source: 'plugin', ageSeconds: 0, frames: 0, bytes: 0, lastUse: 0 };
}
