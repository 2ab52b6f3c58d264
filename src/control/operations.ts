/** The control operations, as a table: adding one is adding a row. */
import { z } from 'zod';
import { EventReader } from '../events.js';
import type { LeftLink } from '../overlay/ports.js';
import type { Overlay } from '../overlay.js';
import { formatMac, parseMac } from '../target/mac.js';
import type { Load } from './load.js';
import { pageInput, pageOf } from './page.js';
import type { Caller, Right } from './rights.js';
import { statusView } from './status.js';
import {
  checkCount,
  macText,
  ROUTE_BODY_BYTES_MAX,
  routeInput,
  routeOf,
  TARGETS_PAGE_MAX,
} from './targets.js';
import {
  API_VERSION,
  overlayView,
  propertyView,
  redactedView,
  statsView,
  targetJson,
  targetsPage,
  toldStatus,
} from './view.js';
import { vnicOperations } from './vnic-operations.js';

export interface Operation<Input> {
  readonly name: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  /** The right that its caller needs. */
  readonly needs: Right;
  /** Of the path's parameters, the query and the body, in one object. */
  readonly input: z.ZodType<Input>;
  /** Where the body may be longer than others. */
  readonly bodyBytesMax?: number;
  /** How many requests it counts for a user who may not write, where its size does not tell what it costs. */
  readonly weight?: number;
  run(overlay: Overlay, input: Input, caller: Caller, load: Load): unknown;
}

const name = z.string().max(256);
const value = z.union([z.string().max(1024), z.number()]);
const named = z.strictObject({ name });
const propertyOf = z.strictObject({ name, property: z.string().max(256) });
const targetOf = z.strictObject({ name, mac: macText });
/** Targets in a list of all devices, together. */
const LIST_TARGETS_MAX = 5000;
/** Counters are read from workers and the kernel; events are written one by one. */
const [STATS_WEIGHT, EVENTS_WEIGHT] = [32, 16];

function operation<Input>(row: Operation<Input>): Operation<unknown> {
  return row as Operation<unknown>;
}

/** By number or by name. */
function propertyKey(property: string): string | number {
  return /^-?\d+$/.test(property) ? Number(property) : property;
}

export const operations: readonly Operation<unknown>[] = [
  operation({
    name: 'list',
    method: 'GET',
    path: '/v1/overlays',
    needs: 'look',
    input: z.strictObject(pageInput),
    run: (overlay, wanted, { mayRead }) => {
      const { names } = overlay;
      const share = Math.floor(LIST_TARGETS_MAX / Math.max(1, names.length));
      const targetsMax = Math.max(1, Math.min(TARGETS_PAGE_MAX, share));
      const { rows, next } = pageOf(names, wanted, (each) =>
        mayRead ? overlayView(overlay, each, targetsMax) : redactedView(overlay, each),
      );
      return { version: API_VERSION, overlays: Object.fromEntries(rows), next };
    },
  }),
  operation({
    name: 'show',
    method: 'GET',
    path: '/v1/overlays/:name',
    needs: 'look',
    input: named,
    run: (overlay, { name }, { mayRead }) => ({
      version: API_VERSION,
      overlays: {
        [name]: mayRead ? overlayView(overlay, name, TARGETS_PAGE_MAX) : redactedView(overlay, name),
      },
    }),
  }),
  operation({
    name: 'status',
    method: 'GET',
    path: '/v1/overlays/:name/status',
    needs: 'look',
    input: named,
    run: (overlay, input, { mayRead }) => ({
      version: API_VERSION,
      ...toldStatus(overlay.status(input.name), mayRead),
    }),
  }),
  operation({
    name: 'getprop',
    method: 'GET',
    path: '/v1/overlays/:name/properties/:property',
    needs: 'read',
    input: propertyOf,
    run: (overlay, input) => {
      const property = overlay.property(input.name, propertyKey(input.property));
      const id = overlay.properties(input.name).findIndex(({ info }) => info.name === property.info.name);
      return { version: API_VERSION, property: propertyView(property, id) };
    },
  }),
  operation({
    name: 'stats',
    method: 'GET',
    path: '/v1/stats',
    needs: 'look',
    input: z.strictObject(pageInput),
    weight: STATS_WEIGHT,
    run: (overlay, wanted, { mayRead }, load) => ({
      version: API_VERSION,
      ...statsView(overlay, mayRead, wanted, load),
    }),
  }),
  operation({
    name: 'daemon-status',
    method: 'GET',
    path: '/v1/status',
    needs: 'look',
    input: z.strictObject(pageInput),
    run: (overlay, wanted, { mayRead }, load) => ({
      version: API_VERSION,
      ...statusView(overlay, mayRead, wanted, load),
    }),
  }),
  operation({
    name: 'events',
    method: 'GET',
    path: '/v1/events',
    needs: 'look',
    weight: EVENTS_WEIGHT,
    input: z.strictObject({
      /** Events behind that number; all that are there when it is left out. */
      since: z
        .string()
        .regex(/^\d{1,15}$/, 'it is the number of an event')
        .optional(),
      /** True: those to come, too, for as long as the connection lasts. */
      follow: z.enum(['true', 'false']).default('false'),
    }),
    run: ({ events }, { since, follow }, { mayRead }) =>
      new EventReader(events, since === undefined ? undefined : Number(since), follow === 'true', mayRead),
  }),
  operation({
    name: 'create',
    method: 'POST',
    path: '/v1/overlays',
    needs: 'write',
    input: z.strictObject({
      name,
      encap: z.string().max(256),
      search: z.string().max(256),
      vnetid: value,
      properties: z.record(z.string().max(256), value).default({}),
      /** False leaves the device in state created, for SETPROP and ACTIVATE to follow. */
      activate: z.boolean().default(true),
      /** Not kept over a restart of the daemon. */
      temporary: z.boolean().default(false),
    }),
    run: async (overlay, input) => {
      const { name, encap, search, vnetid, temporary: isTemporary } = input;
      if (input.activate) await overlay.createOverlay({ ...input, isTemporary });
      else await overlay.create(name, encap, search, vnetid, { isTemporary });
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'setprop',
    method: 'PUT',
    path: '/v1/overlays/:name/properties/:property',
    needs: 'write',
    input: propertyOf.extend({ value }),
    run: async (overlay, input) => {
      await overlay.setprop(input.name, propertyKey(input.property), input.value);
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'activate',
    method: 'POST',
    path: '/v1/overlays/:name/activate',
    needs: 'write',
    input: named,
    run: async (overlay, input) => {
      await overlay.activate(input.name);
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'delete',
    method: 'DELETE',
    path: '/v1/overlays/:name',
    needs: 'write',
    input: named.extend({ force: z.enum(['true', 'false']).default('false') }),
    run: async (overlay, input) => {
      await overlay.delete(input.name, { force: input.force === 'true' });
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'targets',
    method: 'GET',
    path: '/v1/overlays/:name/targets',
    needs: 'read',
    input: named.extend({
      marker: macText.default('0:0:0:0:0:0'),
      count: z
        .string()
        .regex(/^\d{1,9}$/, 'it is a whole number')
        .default(`${TARGETS_PAGE_MAX}`),
    }),
    run: (overlay, input) => {
      const count = Number(input.count);
      checkCount(count);
      return { version: API_VERSION, ...targetsPage(overlay, input.name, parseMac(input.marker), count) };
    },
  }),
  operation({
    name: 'target',
    method: 'GET',
    path: '/v1/overlays/:name/targets/:mac',
    needs: 'read',
    input: targetOf,
    run: (overlay, input) => {
      const mac = parseMac(input.mac);
      const view = overlay.cacheGet(input.name, mac);
      return { version: API_VERSION, target: targetJson(overlay, input.name, view, formatMac(mac)) };
    },
  }),
  operation({
    name: 'set-target',
    method: 'PUT',
    path: '/v1/overlays/:name/targets/:mac',
    needs: 'write',
    input: targetOf.extend({ to: routeInput }),
    bodyBytesMax: ROUTE_BODY_BYTES_MAX,
    run: (overlay, input) => {
      const { name, mac, to } = input;
      const kinds = overlay.encapNeeds(name);
      overlay.cacheSet(name, parseMac(mac), to === 'drop' ? to : routeOf(to, kinds));
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'remove-target',
    method: 'DELETE',
    path: '/v1/overlays/:name/targets/:mac',
    needs: 'write',
    input: targetOf,
    run: (overlay, input) => {
      overlay.cacheRemove(input.name, parseMac(input.mac));
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'flush-targets',
    method: 'DELETE',
    path: '/v1/overlays/:name/targets',
    needs: 'write',
    input: named,
    run: (overlay, input) => {
      overlay.cacheFlush(input.name);
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'tidy',
    method: 'POST',
    path: '/v1/tidy',
    needs: 'write',
    input: z.strictObject({ force: z.boolean() }),
    run: (overlay, { force }) => {
      const { deleted, left } = overlay.tidy({ force });
      const view = ({ name, netns, overlay }: LeftLink) => ({ link: name, netns, overlay });
      return { version: API_VERSION, deleted: deleted.map(view), left: left.map(view) };
    },
  }),
  ...vnicOperations.map((row) => operation(row as Operation<unknown>)),
];
