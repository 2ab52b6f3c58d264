/** The control operations, as a table: adding one is adding a row. */
import { z } from 'zod';
import type { Overlay } from '../overlay.js';
import { API_VERSION, overlayView, propertyView, statsView } from './view.js';

export interface Operation<Input> {
  readonly name: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  /** Only root and the daemon's own user may. */
  readonly needsWrite: boolean;
  /** Of the path's parameters, the query and the body, in one object. */
  readonly input: z.ZodType<Input>;
  run(overlay: Overlay, input: Input): unknown;
}

const name = z.string().max(256);
const value = z.union([z.string().max(1024), z.number()]);
const named = z.strictObject({ name });
const propertyOf = z.strictObject({ name, property: z.string().max(256) });

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
    run: (overlay) => ({
      version: API_VERSION,
      overlays: Object.fromEntries(overlay.names.map((each) => [each, overlayView(overlay, each)])),
    }),
  }),
  operation({
    name: 'show',
    method: 'GET',
    path: '/v1/overlays/:name',
    needsWrite: false,
    input: named,
    run: (overlay, input) => ({
      version: API_VERSION,
      overlays: { [input.name]: overlayView(overlay, input.name) },
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
];
