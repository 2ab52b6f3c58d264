/** Does the steps of a reload: all of them, or none that lasts. */
import { OverlayError } from '../errors.js';
import { MTU_DEFAULT_BYTES } from '../limits.js';
import type { Log } from '../log.js';
import type { DeviceProperty } from '../overlay/properties.js';
import type { OverlayRequest } from '../overlay/transaction.js';
import type { Overlay } from '../overlay.js';
import { type PropertyInfo, type PropertyValue, parseProperty } from '../property.js';
import type { Declared } from './declared.js';
import type { Access, Step } from './reload.js';

export interface ApplyTarget {
  readonly overlay: Overlay;
  readonly log: Log;
  /** Throws what the system refuses with; then nothing has changed. */
  setAccess(access: Access): void;
  setLogLevel(level: string): void;
}

/** How one thing that was done is taken back. */
interface Undo {
  readonly what: string;
  run(): void | Promise<void>;
}

/**
 * Throws the OverlayError of the first step that fails, when everything before it has been taken back. What could not be
 * taken back is a line each of its parts, and logged.
 */
export async function applySteps(steps: readonly Step[], target: ApplyTarget): Promise<void> {
  const undos: Undo[] = [];
  try {
    for (const step of steps) {
      await applyStep(step, target, undos);
      target.log.info(
        { step: step.kind, ...('name' in step ? { device: step.name } : {}) },
        'reload step done',
      );
    }
  } catch (error) {
    const left = await takeBack(undos, target.log);
    if (!(error instanceof OverlayError)) throw error;
    throw new OverlayError(error.errno, error.code, error.message, [...error.parts, ...left]);
  }
}

async function takeBack(undos: readonly Undo[], log: Log): Promise<string[]> {
  const left: string[] = [];
  for (const { what, run } of undos.toReversed()) {
    try {
      await run();
    } catch (error) {
      const text = `not taken back: ${what}: ${error instanceof Error ? error.message : String(error)}`;
      log.error({ err: error }, text);
      left.push(text);
    }
  }
  return left;
}

async function applyStep(step: Step, target: ApplyTarget, undos: Undo[]): Promise<void> {
  const { overlay } = target;
  switch (step.kind) {
    case 'access':
      target.setAccess(step.to);
      undos.push({ what: 'the access to the control socket', run: () => target.setAccess(step.from) });
      return;
    case 'log_level':
      target.setLogLevel(step.to);
      return;
    case 'delete':
      return remove(overlay, step.name, step.was, undos);
    case 'create':
      return ensure(overlay, step.name, step.to, undos);
    case 'change':
      return change(overlay, step, undos);
  }
}

/** One that an operator has deleted already is no matter. */
async function remove(overlay: Overlay, name: string, was: Declared, undos: Undo[]): Promise<void> {
  if (!overlay.names.includes(name)) return;
  const snapshot = snapshotOf(overlay, name, was);
  await overlay.delete(name, { force: true });
  undos.push({ what: `overlay '${name}' was deleted`, run: () => restore(overlay, snapshot) });
}

/**
 * Creates a declared overlay. One of that name that is there already, as declared, will do; throws EEXIST naming what
 * differs otherwise, and what creating it gives.
 */
export async function ensure(
  overlay: Overlay,
  name: string,
  declared: Declared,
  undos: Undo[] = [],
): Promise<void> {
  if (overlay.names.includes(name)) {
    const differing = differencesOf(overlay, name, declared);
    if (differing.length === 0) return;
    throw new OverlayError(
      'EEXIST',
      'differs_from_config',
      `overlay '${name}' exists already and is not what is declared: ${differing.join(', ')}; ` +
        'delete it, or set them',
    );
  }
  await overlay.createOverlay(requestOf(name, declared));
  undos.push({ what: `overlay '${name}' was created`, run: () => overlay.delete(name, { force: true }) });
}

function requestOf(name: string, { temporary = false, ...declared }: Declared): OverlayRequest {
  return { name, ...declared, isTemporary: temporary };
}

/** Names of what is not as declared. */
function differencesOf(overlay: Overlay, name: string, declared: Declared): string[] {
  const { encap, search, vnetid, properties } = declared;
  const list = new Map(overlay.properties(name).map((property) => [property.info.name, property]));
  return Object.entries({ encap, search, vnetid, ...properties })
    .filter(([property, value]) => {
      const has = list.get(property);
      return has === undefined || askedOf(has) !== parsed(has.info, value);
    })
    .map(([property]) => property);
}

/** What sets a property to what it is. */
function askedOf({ asked, value }: DeviceProperty): PropertyValue | undefined {
  return asked ?? value;
}

/** The value that the text stands for; undefined when it stands for none. */
function parsed(info: PropertyInfo, text: string | number): PropertyValue | undefined {
  try {
    return parseProperty(info, text);
  } catch (error) {
    if (error instanceof OverlayError) return undefined;
    throw error;
  }
}

type Change = Step & { kind: 'change' };

/** Sets what can be set; where the device cannot change so, it is deleted and created as declared. */
async function change(overlay: Overlay, step: Change, undos: Undo[]): Promise<void> {
  const { name, was, to } = step;
  if (!overlay.names.includes(name)) return ensure(overlay, name, to, undos);
  const snapshot = snapshotOf(overlay, name, was);
  const sets = settingsOf(overlay, step);
  try {
    for (const [property, value] of sets ?? []) {
      const old = askedOf(overlay.property(name, property));
      await overlay.setprop(name, property, value);
      undos.push({
        what: `${property} of overlay '${name}' was set`,
        // What had no value cannot be without one again: only a new device is.
        run: () =>
          old === undefined ? recreate(overlay, snapshot) : overlay.setprop(name, property, String(old)),
      });
    }
    if (sets) return;
  } catch (error) {
    if (!(error instanceof OverlayError) || error.errno !== 'ENOTSUP') throw error;
  }
  await overlay.delete(name, { force: true });
  undos.push({ what: `overlay '${name}' was deleted`, run: () => restore(overlay, snapshot) });
  await ensure(overlay, name, to, undos);
}

/**
 * What is to be set, in an order in which no bound is in the way of a value; undefined when a property is to have no value
 * any more and has no default.
 */
function settingsOf(overlay: Overlay, { name, set, unset }: Change): [string, string | number][] | undefined {
  const settings = set.map(([property, value]) => [property, value] as [string, string | number]);
  for (const property of unset) {
    const { info } = overlay.property(name, property);
    if (info.default === undefined) return undefined;
    settings.push([property, String(info.default)]);
  }
  const mtu = settings.find(([property]) => property === 'mtu');
  const isRising = mtu !== undefined && Number(mtu[1]) > Number(overlay.property(name, 'mtu').value);
  return boundFirst(settings, isRising);
}

/** mtu_max before mtu when that rises, behind it otherwise. */
function boundFirst<Setting extends readonly [string, unknown]>(
  settings: Setting[],
  isRising: boolean,
): Setting[] {
  const bounds = settings.filter(([property]) => property === 'mtu_max');
  const others = settings.filter(([property]) => property !== 'mtu_max');
  return isRising ? [...bounds, ...others] : [...others, ...bounds];
}

/** A device as it is now: enough to make it again, without what it has learned and without its link's addresses. */
interface Snapshot {
  readonly request: OverlayRequest;
  readonly isActivated: boolean;
}

function snapshotOf(overlay: Overlay, name: string, { temporary }: Declared): Snapshot {
  const list = overlay.properties(name);
  const text = (property: string) => String(list.find(({ info }) => info.name === property)?.value);
  const given = list
    .map((property) => ({ info: property.info, asked: askedOf(property) }))
    .filter(({ info, asked }) => info.isWritable && asked !== undefined && asked !== info.default)
    .filter(({ info }) => info.name !== 'vnetid')
    .map(({ info, asked }) => [info.name, String(asked)] as const);
  const properties = Object.fromEntries(boundFirst(given, Number(text('mtu')) > MTU_DEFAULT_BYTES));
  const [encap, search, vnetid] = ['encap', 'search', 'vnetid'].map(text) as [string, string, string];
  const request = requestOf(name, { encap, search, vnetid, properties, temporary });
  return { request, isActivated: overlay.state(name) !== 'created' };
}

async function restore(overlay: Overlay, { request, isActivated }: Snapshot): Promise<void> {
  // An external device, whose activation is another's matter, is left in state created.
  if (isActivated || request.search === 'external') return overlay.createOverlay(request);
  await overlay.create(request.name, request.encap, request.search, request.vnetid);
  for (const [property, value] of Object.entries(request.properties)) {
    await overlay.setprop(request.name, property, value);
  }
}

async function recreate(overlay: Overlay, snapshot: Snapshot): Promise<void> {
  await overlay.delete(snapshot.request.name, { force: true });
  await restore(overlay, snapshot);
}
