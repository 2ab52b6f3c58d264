/**
 * The calls on an open external handle, as a table: what the ioctls on /dev/overlay are to illumos. A call names the
 * handle by its token; errors are those of the ioctls.
 */
import { z } from 'zod';
import { OverlayError } from '../errors.js';
import type { Overlay } from '../overlay.js';
import { propertyToJson } from '../property.js';
import { formatMac, parseMac } from '../target/mac.js';
import { type Handle, LOOKUP_MS_MAX } from '../varpd/external/handle.js';
import type { Right } from './rights.js';
import { checkCount, destinationInput, destinationOf, macText, routeInput, routeOf } from './targets.js';
import { destinationKinds, requestsView, targetJson } from './view.js';

/** Whom a call is for. */
export interface CallContext {
  readonly overlay: Overlay;
  readonly handle: Handle;
  /** Aborted when the caller has gone. */
  readonly signal: AbortSignal;
}

export interface Call<Input> {
  readonly name: string;
  /** Only a handle that was opened for writing may. */
  readonly needsWriteHandle: boolean;
  /** The right that its caller needs, with whatever handle. */
  readonly needs: Right;
  readonly input: z.ZodType<Input>;
  /** What it answers with, besides the version. */
  run(context: CallContext, input: Input): object | Promise<object>;
}

/** Characters of a super-frame's base64, and some. */
const FRAME_TEXT_MAX = 90_000;
/** As in illumos: what would not fit the answer's size. */
const LIST_COUNT_MAX = Math.floor((2 ** 31 - 1) / 4);
/** As FMA keeps it. */
const FAULT_TEXT_MAX = 255;

const device = z.string().max(256);
const id = z.string().max(64);
const frame = z.base64({ error: 'it is base64' }).max(FRAME_TEXT_MAX);
/** Parts of the destinations that the program gives; they must be those that the device needs. */
const provides = z
  .array(z.enum(['mac', 'ip', 'port']))
  .max(3)
  .optional();
const onDevice = z.strictObject({ overlay: device });
const onRequest = z.strictObject({ request: id });
const onTarget = z.strictObject({ overlay: device, mac: macText });

function call<Input>(row: Call<Input>): Call<unknown> {
  return row as Call<unknown>;
}

const looking = { needsWriteHandle: false, needs: 'look' } as const;
const reading = { needsWriteHandle: false, needs: 'read' } as const;
const writing = { needsWriteHandle: true, needs: 'write' } as const;

export const calls: readonly Call<unknown>[] = [
  call({
    name: 'info',
    ...writing,
    input: onDevice,
    run: ({ overlay }, input) => {
      const { needs, isActive, isDegraded, vnetid } = overlay.info(own(overlay, input.overlay));
      return {
        overlay: input.overlay,
        vnetid: propertyToJson(vnetid),
        needs: destinationKinds(needs),
        active: isActive,
        degraded: isDegraded,
        requests: requestsView(overlay, input.overlay),
      };
    },
  }),
  call({
    name: 'associate',
    ...writing,
    input: z.discriminatedUnion('mode', [
      z.strictObject({ overlay: device, provides, mode: z.literal('point'), destination: destinationInput }),
      z.strictObject({ overlay: device, provides, mode: z.literal('dynamic') }),
    ]),
    run: async ({ overlay }, input) => {
      const kinds = overlay.encapNeeds(own(overlay, input.overlay));
      if (input.provides) checkProvides(input.provides, kinds);
      await overlay.associate(
        input.overlay,
        input.mode === 'dynamic'
          ? { mode: 'dynamic' }
          : { mode: 'point', destination: destinationOf(input.destination, kinds) },
      );
      return {};
    },
  }),
  call({
    name: 'disassociate',
    ...writing,
    input: onDevice,
    run: async ({ overlay }, input) => {
      await overlay.disassociate(own(overlay, input.overlay));
      return {};
    },
  }),
  call({
    name: 'degrade',
    ...writing,
    input: onDevice.extend({ text: z.string().min(1).max(FAULT_TEXT_MAX) }),
    run: ({ overlay }, input) => {
      overlay.degradeExternal(own(overlay, input.overlay), input.text);
      return {};
    },
  }),
  call({
    name: 'restore',
    ...writing,
    input: onDevice,
    run: ({ overlay }, input) => {
      overlay.restoreExternal(own(overlay, input.overlay));
      return {};
    },
  }),
  call({
    name: 'lookup',
    needsWriteHandle: false,
    // Whoever takes a request keeps it from whoever would answer it.
    needs: 'write',
    input: z.strictObject({ wait_ms: z.int().min(0).max(LOOKUP_MS_MAX).default(LOOKUP_MS_MAX) }),
    run: async ({ handle, signal }, input) => {
      const question = await handle.lookup(input.wait_ms, signal);
      if (signal.aborted) handle.putBack(question.id);
      const { etherType, headerBytes, isDhcp, payloadBytes, vnetid, ...rest } = question;
      return {
        ...rest,
        vnetid: propertyToJson(vnetid),
        ether_type: etherType,
        is_dhcp: isDhcp,
        header_bytes: headerBytes,
        payload_bytes: payloadBytes,
      };
    },
  }),
  call({
    name: 'respond',
    ...writing,
    input: onRequest.extend({ to: routeInput }),
    run: ({ overlay, handle }, input) => {
      const kinds = overlay.encapNeeds(handle.overlayOf(input.request));
      handle.respond(input.request, routeOf(input.to, kinds));
      return {};
    },
  }),
  call({
    name: 'drop',
    ...writing,
    input: onRequest.extend({ as: z.enum(['drop', 'unknown', 'proxied']).default('drop') }),
    run: ({ handle }, input) => {
      handle.drop(input.request, input.as);
      return {};
    },
  }),
  call({
    name: 'packet',
    ...writing,
    input: onRequest.extend({ size: z.int().min(0).optional() }),
    run: ({ handle }, input) => {
      const { vnetHdr, frame } = handle.packet(input.request);
      const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } = vnetHdr;
      const given = frame.subarray(0, input.size ?? frame.length);
      return {
        frame: Buffer.from(given).toString('base64'),
        size: given.length,
        frame_bytes: frame.length,
        vnet_hdr: {
          flags,
          gso_type: gsoType,
          hdr_len: hdrLen,
          gso_size: gsoSize,
          csum_start: csumStart,
          csum_offset: csumOffset,
        },
      };
    },
  }),
  call({
    name: 'inject',
    ...writing,
    input: z.strictObject({ overlay: device.optional(), request: id.optional(), frame }),
    run: (context, input) => {
      context.overlay.inject(deviceOf(context, input), Buffer.from(input.frame, 'base64'));
      return {};
    },
  }),
  call({
    name: 'resend',
    ...writing,
    input: z.strictObject({ overlay: device.optional(), request: id.optional(), frame }),
    run: (context, input) => {
      context.overlay.resend(deviceOf(context, input), Buffer.from(input.frame, 'base64'));
      return {};
    },
  }),
  call({
    name: 'list',
    ...looking,
    input: z.strictObject({
      count: z
        .int()
        .min(0)
        .max(LIST_COUNT_MAX - 1)
        .default(LIST_COUNT_MAX - 1),
    }),
    run: ({ overlay }, input) => {
      const names = overlay.names.filter((name) => searchOf(overlay, name) === 'external');
      return { total: names.length, overlays: names.slice(0, input.count) };
    },
  }),
  call({
    name: 'cache-get',
    ...reading,
    input: onTarget,
    run: ({ overlay }, input) => {
      const mac = parseMac(input.mac);
      const name = own(overlay, input.overlay);
      const view = overlay.cacheGet(name, mac);
      if (view.state !== 'pending') return { target: targetJson(overlay, name, view, formatMac(view.mac)) };
      throw new OverlayError(
        'ENOENT',
        'no_such_target',
        `${formatMac(mac)} is being looked up and not known yet`,
      );
    },
  }),
  call({
    name: 'cache-set',
    ...writing,
    input: onTarget.extend({ to: routeInput }),
    run: ({ overlay }, input) => {
      const { mac, to } = input;
      const name = own(overlay, input.overlay);
      overlay.cacheSet(name, parseMac(mac), to === 'drop' ? to : routeOf(to, overlay.encapNeeds(name)));
      return {};
    },
  }),
  call({
    name: 'cache-remove',
    ...writing,
    input: onTarget,
    run: ({ overlay }, input) => {
      overlay.cacheRemove(own(overlay, input.overlay), parseMac(input.mac));
      return {};
    },
  }),
  call({
    name: 'cache-flush',
    ...writing,
    input: onDevice,
    run: ({ overlay }, input) => {
      overlay.cacheFlush(own(overlay, input.overlay));
      return {};
    },
  }),
  call({
    name: 'cache-iterate',
    ...reading,
    input: onDevice.extend({ marker: macText.nullable(), count: z.int().min(0) }),
    run: ({ overlay }, input) => {
      checkCount(input.count);
      if (input.marker === null) return { targets: [], marker: null };
      let next: number | undefined = parseMac(input.marker);
      const name = own(overlay, input.overlay);
      const targets: object[] = [];
      // A page may be all pending targets; whoever iterates takes an empty answer for the end.
      while (next !== undefined && targets.length === 0) {
        const page = overlay.cacheIterate(name, next, input.count);
        const known = page.targets.filter(({ state }) => state !== 'pending');
        targets.push(...known.map((view) => targetJson(overlay, name, view, formatMac(view.mac))));
        next = page.next;
      }
      return { targets, marker: next === undefined ? null : formatMac(next) };
    },
  }),
];

function searchOf(overlay: Overlay, name: string): unknown {
  return overlay.property(name, 'search').value;
}

/** The name, of a device that the handle is for. Throws ENOENT, and ENOTSUP for one of a plugin in the daemon. */
function own(overlay: Overlay, name: string): string {
  const search = searchOf(overlay, name);
  if (search === 'external') return name;
  throw new OverlayError(
    'ENOTSUP',
    'not_external',
    `overlay '${name}' is looked up for by '${search}' inside the daemon; it is not on the external handle`,
  );
}

/** By name, or that of an outstanding request. Throws ENOENT for neither, EINVAL when not one of them is given. */
function deviceOf(
  { overlay, handle }: CallContext,
  given: { overlay?: string | undefined; request?: string | undefined },
): string {
  if ((given.overlay === undefined) === (given.request === undefined)) {
    throw new OverlayError('EINVAL', 'bad_request', 'name the device by one of overlay and request');
  }
  if (given.overlay !== undefined) return own(overlay, given.overlay);
  try {
    return handle.overlayOf(given.request!);
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    throw new OverlayError('ENOENT', error.code, error.message);
  }
}

function checkProvides(provides: readonly string[], needs: number): void {
  const needed = destinationKinds(needs);
  if (needed.length === new Set(provides).size && needed.every((kind) => provides.includes(kind))) return;
  throw new OverlayError(
    'EINVAL',
    'bad_provides',
    `the device needs ${needed.join(' and ')} of a destination, not ${provides.join(' and ') || 'nothing'}`,
  );
}
