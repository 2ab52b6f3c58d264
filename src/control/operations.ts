/** The control operations, as a table: adding one is adding a row. */
import { z } from 'zod';
import type { Overlay } from '../overlay.js';
import { formatMac, parseMac } from '../target/mac.js';
import {
  checkCount,
  macText,
  ROUTE_BODY_BYTES_MAX,
  routeInput,
  routeOf,
  TARGETS_PAGE_MAX,
} from './targets.js';
import { API_VERSION, overlayView, propertyView, statsView, targetJson, targetsPage } from './view.js';

export interface Operation<Input> {
  readonly name: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  /** Only root and the daemon's own user may. */
  readonly needsWrite: boolean;
  /** Of the path's parameters, the query and the body, in one object. */
  readonly input: z.ZodType<Input>;
  /** Where the body may be longer than others. */
  readonly bodyBytesMax?: number;
  run(overlay: Overlay, input: Input): unknown;
}

const name = z.string().max(256);
const value = z.union([z.string().max(1024), z.number()]);
const named = z.strictObject({ name });
const propertyOf = z.strictObject({ name, property: z.string().max(256) });
const targetOf = z.strictObject({ name, mac: macText });
/** Targets in a list of all devices, together. */
const LIST_TARGETS_MAX = 5000;

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
    needsWrite: false,
    input: z.strictObject({}),
    run: (overlay) => {
      const { names } = overlay;
      const share = Math.floor(LIST_TARGETS_MAX / Math.max(1, names.length));
      const targetsMax = Math.max(1, Math.min(TARGETS_PAGE_MAX, share));
      const views = names.map((each) => [each, overlayView(overlay, each, targetsMax)]);
      return { version: API_VERSION, overlays: Object.fromEntries(views) };
    },
  }),
  operation({
    name: 'show',
    method: 'GET',
    path: '/v1/overlays/:name',
    needsWrite: false,
    input: named,
    run: (overlay, input) => ({
      version: API_VERSION,
      overlays: { [input.name]: overlayView(overlay, input.name, TARGETS_PAGE_MAX) },
    }),
  }),
  operation({
    name: 'status',
    method: 'GET',
    path: '/v1/overlays/:name/status',
    needsWrite: false,
    input: named,
    run: (overlay, input) => ({ version: API_VERSION, ...overlay.status(input.name) }),
  }),
  operation({
    name: 'getprop',
    method: 'GET',
    path: '/v1/overlays/:name/properties/:property',
    needsWrite: false,
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
    needsWrite: false,
    input: z.strictObject({}),
    run: (overlay) => ({ version: API_VERSION, ...statsView(overlay) }),
  }),
  operation({
    name: 'create',
    method: 'POST',
    path: '/v1/overlays',
    needsWrite: true,
    input: z.strictObject({
      name,
      encap: z.string().max(256),
      search: z.string().max(256),
      vnetid: value,
      properties: z.record(z.string().max(256), value).default({}),
      /** False leaves the device in state created, for SETPROP and ACTIVATE to follow. */
      activate: z.boolean().default(true),
    }),
    run: async (overlay, input) => {
      if (input.activate) await overlay.createOverlay(input);
      else await overlay.create(input.name, input.encap, input.search, input.vnetid);
      return { version: API_VERSION };
    },
  }),
  operation({
    name: 'setprop',
    method: 'PUT',
    path: '/v1/overlays/:name/properties/:property',
    needsWrite: true,
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
    needsWrite: true,
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
    needsWrite: true,
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
    needsWrite: false,
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
    needsWrite: false,
    input: targetOf,
    run: (overlay, input) => {
      const mac = parseMac(input.mac);
      return { version: API_VERSION, target: targetJson(overlay.cacheGet(input.name, mac), formatMac(mac)) };
    },
  }),
  operation({
    name: 'set-target',
    method: 'PUT',
    path: '/v1/overlays/:name/targets/:mac',
    needsWrite: true,
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
    needsWrite: true,
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
    needsWrite: true,
    input: named,
    run: (overlay, input) => {
      overlay.cacheFlush(input.name);
      return { version: API_VERSION };
    },
  }),
];
