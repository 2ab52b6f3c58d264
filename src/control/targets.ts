/** Targets and destinations in requests, as numbers, text and routes. */
import { z } from 'zod';
import { OverlayError } from '../errors.js';
import {
  checkRoute,
  DESTINATION_OPTIONS_BYTES_MAX,
  type Destination,
  parseDestination,
  type Route,
} from '../target/destination.js';

/** Targets that one call gives, as in illumos. */
export const TARGETS_PAGE_MAX = 500;

/** A request with a list of ROUTE_DESTINATIONS_MAX destinations has room in this. */
export const ROUTE_BODY_BYTES_MAX = 256 * 1024;

/** More than any form of a MAC address or an IP address takes, and of a destination with its options. */
const TEXT_MAX = 128;
const DESTINATION_TEXT_MAX = TEXT_MAX + DESTINATION_OPTIONS_BYTES_MAX;

export const macText = z.string().max(TEXT_MAX);

const part = z.strictObject({
  mac: z.string().max(TEXT_MAX).optional(),
  ip: z.string().max(TEXT_MAX).optional(),
  port: z.number().optional(),
  options: z.string().max(DESTINATION_OPTIONS_BYTES_MAX).optional(),
});
const destination = z.union([z.string().max(DESTINATION_TEXT_MAX), part], {
  error: 'it is a destination such as "192.0.2.1:4789" or {"ip":"192.0.2.1","port":4789}',
});
const list = z.array(destination);

/** `"192.0.2.1:4789"`, `{"ip":"192.0.2.1","port":4789}`. */
export const destinationInput = destination;
/** A destination, or a list of them and what is done with it. */
export const routeInput = z.union(
  [z.strictObject({ replicate: list }), z.strictObject({ spread: list }), destination],
  { error: 'it is a destination such as "192.0.2.1:4789", {"replicate":[...]} or {"spread":[...]}' },
);

export type DestinationInput = z.infer<typeof destinationInput>;
export type RouteInput = z.infer<typeof routeInput>;

/** The destination with exactly the parts of `kinds` (DESTINATION_ bits). Throws EINVAL. */
export function destinationOf(given: DestinationInput, kinds: number): Destination {
  if (typeof given === 'string') return parseDestination(given, kinds);
  const { mac, ip, port, options } = given;
  return {
    ...(mac === undefined ? {} : { mac }),
    ...(ip === undefined ? {} : { ip }),
    ...(port === undefined ? {} : { port }),
    ...(options === undefined ? {} : { options }),
  };
}

/** The route in canonical form. Throws EINVAL naming what is wrong with it. */
export function routeOf(given: RouteInput, kinds: number): Route {
  const many = (those: readonly DestinationInput[]) => those.map((each) => destinationOf(each, kinds));
  if (typeof given === 'object' && 'replicate' in given) {
    return checkRoute({ replicate: many(given.replicate) }, kinds);
  }
  if (typeof given === 'object' && 'spread' in given) {
    return checkRoute({ spread: many(given.spread) }, kinds);
  }
  return checkRoute(destinationOf(given, kinds), kinds);
}

/** Throws EINVAL for 0 and E2BIG for more than one call gives. */
export function checkCount(count: number): void {
  if (count < 1) throw new OverlayError('EINVAL', 'bad_count', `a count is 1 to ${TARGETS_PAGE_MAX}`);
  if (count > TARGETS_PAGE_MAX) {
    throw new OverlayError('E2BIG', 'count_too_big', `a call gives ${TARGETS_PAGE_MAX} targets at most`);
  }
}
