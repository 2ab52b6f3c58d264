/**
 * Main's side of one instance of a third-party plugin: each of its functions is a call to the plugin's thread. What the
 * thread said last of `point`, `peers` and `save` is kept here, so that it is there while the thread is not.
 */
import { isDeepStrictEqual } from 'node:util';
import { assert, OverlayError } from '../../errors.js';
import { type PropertyInfo, PropertyStore } from '../../property.js';
import { after } from '../../sys/clock.js';
import { checkDestination, type Destination, formatDestination } from '../../target/destination.js';
import type { Answer, ArpQuery, LookupInstance, LookupRequest, LookupServices } from '../plugin.js';
import { readAnswer, readDestination, readMac, readPeers, readSaved } from './answer.js';
import type { KindDeclaration } from './declaration.js';
import { faultOf, lied } from './fault.js';
import { Accounts } from './outbox.js';
import type { Method, ServiceCall, SetArgument, StartArgument } from './protocol.js';
import { readServiceCall } from './service-call.js';
import { type InstanceEvent, type InstanceState, instanceTransitions, next } from './state.js';
import type { Inhabitant, Supervisor } from './supervisor.js';

/** The wait for another attempt to start it again doubles up to so many times. */
const DOUBLINGS_MAX = 5;
/** Characters of a reason within a longer sentence. */
const REASON_MAX = 128;

/** Values live in main; each change is passed on. */
class RemoteProperties extends PropertyStore {
  constructor(
    infos: readonly PropertyInfo[],
    readonly onSet: (name: string) => void,
  ) {
    super(infos);
  }

  override set(name: string, input: unknown): void {
    super.set(name, input);
    this.onSet(name);
  }
}

export class RemoteInstance implements LookupInstance, Inhabitant {
  readonly properties: PropertyStore;
  point?: () => Destination;
  lookup?: (request: LookupRequest) => Promise<Answer>;
  arp?: (query: ArpQuery) => Promise<string | undefined>;
  dhcp?: (request: LookupRequest) => Promise<string | undefined>;
  peers?: () => readonly string[];
  save?: () => unknown;
  restore?: (saved: unknown) => void;
  #state: InstanceState = 'idle';
  /** Number of this start; 0 while it is idle or away. */
  #session = 0;
  #services: LookupServices | undefined;
  #accounts = new Accounts();
  #point: Destination | undefined;
  #peers: readonly string[] = [];
  /** JSON. */
  #saved: string | undefined;
  #isFetching = false;
  #attempts = 0;
  #stopWaiting = () => {};
  /** Why it is degraded: what we found goes before what the plugin says. */
  #fault: string | undefined;
  #complaint: string | undefined;
  #told: string | undefined;

  constructor(
    readonly supervisor: Supervisor,
    readonly destinations: number,
    readonly declaration: KindDeclaration,
  ) {
    this.properties = new RemoteProperties(declaration.infos, (name) => this.#passOn(name));
    this.#offer();
  }

  /** Rejects with whatever the plugin refuses with, ETIME, ECANCELED when it dies, EAGAIN while it is dead. */
  async start(services: LookupServices): Promise<void> {
    this.#change('start');
    this.#services = services;
    this.#accounts = new Accounts();
    this.#point = undefined;
    this.#peers = [];
    this.#fault = this.#complaint = this.#told = undefined;
    this.supervisor.watch(this);
    const session = this.#enter();
    try {
      await this.#begin(session);
    } catch (error) {
      if (this.#session === session) {
        this.#change('failed');
        this.#end();
      }
      throw error;
    }
  }

  /** Rejects with whatever the plugin throws, and with ETIME; it has ended all the same. */
  async stop(): Promise<void> {
    const [before, session] = [this.#state, this.#session];
    this.#change('stop');
    this.#end();
    if (session === 0) return;
    this.supervisor.leave(session);
    // A start under way is cancelled by that, and undone where it was made.
    if (before !== 'running') return;
    try {
      const { stopMs } = this.supervisor.options;
      this.#keep(read('stop', await this.supervisor.ask(session, 'stop', undefined, stopMs), savedIn));
    } catch (error) {
      // It died, and so it has stopped.
      const code = error instanceof OverlayError ? error.code : '';
      if (code !== 'plugin_died' && code !== 'plugin_away') throw error;
    }
  }

  died(reason: string, againMs: number): void {
    this.#stopWaiting();
    const isStarting = this.#state === 'starting';
    this.#change('died');
    // Its call was rejected; that ends the start.
    if (isStarting) return;
    if (this.#session !== 0) this.supervisor.leave(this.#session);
    this.#session = 0;
    this.#attempts = 0;
    this.#complaint = undefined;
    this.#fault = `the lookup plugin died: ${reason.slice(0, REASON_MAX)}; it is started again in ${againMs} ms`;
    this.#tell();
  }

  revive(): void {
    if (this.#state === 'away') void this.#revive();
  }

  services(calls: readonly unknown[], dropped: number): void {
    const { dropped: tooMuch, refused } = this.supervisor;
    tooMuch.note('in its thread', dropped);
    for (const given of calls) {
      try {
        const call = readServiceCall(given);
        if (this.#accounts.take(call)) this.#serve(call);
        else tooMuch.note(call.what);
      } catch (error) {
        refused.note(faultOf(error).message);
      }
    }
  }

  fetchSaved(): void {
    if (this.#state !== 'running' || this.#isFetching || !this.save) return;
    this.#isFetching = true;
    const { refused, options } = this.supervisor;
    this.supervisor
      .ask(this.#session, 'save', undefined, options.lookupMs)
      .then((given) => this.#keep(read('save', given, readSaved)))
      .catch((error: unknown) => {
        // That it died is told elsewhere.
        const { errno, message } = faultOf(error);
        if (errno !== 'ECANCELED') refused.note(message);
      })
      .finally(() => {
        this.#isFetching = false;
      });
  }

  /** Only what the plugin has: a device without `arp` does not ask for it. */
  #offer(): void {
    const has = (name: KindDeclaration['functions'][number]) => this.declaration.functions.includes(name);
    if (has('lookup')) {
      this.lookup = async (request) => read('lookup', await this.#ask('lookup', request), readAnswer);
    }
    if (has('arp')) this.arp = async (query) => read('arp', await this.#ask('arp', query), readMac);
    if (has('dhcp')) this.dhcp = async (request) => read('dhcp', await this.#ask('dhcp', request), readMac);
    if (has('peers')) this.peers = () => this.#peers;
    if (has('point')) this.point = () => this.#pointOrThrow();
    if (has('save')) this.save = () => parseSaved(this.#saved);
    if (has('restore')) {
      this.restore = (saved) => {
        this.#saved = readSaved(JSON.stringify(saved));
      };
    }
  }

  #pointOrThrow(): Destination {
    if (this.#point) return this.#point;
    throw new OverlayError(
      'EAGAIN',
      'not_started',
      'the lookup plugin names its destination when it is started',
    );
  }

  #ask(method: Method, argument: unknown): Promise<unknown> {
    const { supervisor } = this;
    if (this.#state === 'running') {
      return supervisor.ask(this.#session, method, argument, supervisor.options.lookupMs);
    }
    assert(this.#state !== 'idle', 'what is not started is not asked');
    return Promise.reject(supervisor.away());
  }

  #enter(): number {
    this.#session = this.supervisor.enter(this);
    return this.#session;
  }

  /** Idle, or on the way there. */
  #end(): void {
    this.#stopWaiting();
    this.#session = 0;
    this.#attempts = 0;
    this.#services = undefined;
    this.supervisor.unwatch(this);
  }

  /** Starts the instance in the thread. What is half done when it rejects is undone there. */
  async #begin(session: number): Promise<void> {
    const { supervisor } = this;
    const { startMs, stopMs } = supervisor.options;
    try {
      const given = await supervisor.ask(session, 'start', this.#argument(), startMs);
      const { point, peers } = read('start', given, startedIn);
      // Stopped at the same moment.
      if (this.#session !== session) throw new OverlayError('ECANCELED', 'plugin_stopped', 'it was stopped');
      const isRevived = this.#state === 'reviving';
      const changed = this.#takePoint(point);
      const before = this.#takePeers(peers);
      this.#change('started');
      this.#attempts = 0;
      this.#fault = changed;
      this.#tell();
      // After its first start the device asks by itself.
      const isSame = isDeepStrictEqual(before, this.#peers);
      if (isRevived && !isSame) this.#use((services) => services.peersChanged());
    } catch (error) {
      supervisor.leave(session);
      supervisor.ask(session, 'stop', undefined, stopMs).catch(() => {});
      throw error;
    }
  }

  #argument(): StartArgument {
    const { overlay, vnetid } = this.#services!;
    const values = this.properties.infos.flatMap(({ name, isWritable }) => {
      const value = this.properties.get(name);
      return value === undefined || !isWritable ? [] : [[name, String(value)] as const];
    });
    return { destinations: this.destinations, overlay, vnetid, values, saved: this.#saved };
  }

  /** A device that runs has its destination in the workers' tables: another one needs a new start of the device. */
  #takePoint(given: unknown): string | undefined {
    if (!this.point) return undefined;
    const point = read('point', given, (value) =>
      checkDestination(readDestination(value), this.destinations),
    );
    this.#point ??= point;
    if (isDeepStrictEqual(point, this.#point)) return undefined;
    return `since it was started again the lookup plugin says ${formatDestination(point)}; frames go where they went`;
  }

  /** Gives those there were before. */
  #takePeers(given: unknown): readonly string[] {
    const before = this.#peers;
    if (this.peers) this.#peers = read('peers', given, readPeers);
    return before;
  }

  async #revive(): Promise<void> {
    const { supervisor } = this;
    this.#change('revive');
    this.#accounts = new Accounts();
    const session = this.#enter();
    try {
      await this.#begin(session);
    } catch (error) {
      // Stopped, or its thread died again.
      if (this.#session !== session) return;
      this.#session = 0;
      this.#change('failed');
      const ms = supervisor.options.backoffMs * 2 ** Math.min(this.#attempts++, DOUBLINGS_MAX);
      const reason = faultOf(error).message.slice(0, REASON_MAX);
      this.#fault = `the lookup plugin could not be started again: ${reason}; next attempt in ${ms} ms`;
      this.#tell();
      this.#stopWaiting = after(ms, () => this.revive());
    }
  }

  #serve(call: ServiceCall): void {
    const services = this.#services;
    if (!services) return;
    switch (call.what) {
      case 'set':
        services.set(call.mac, call.route);
        break;
      case 'invalidate':
        services.invalidate(call.mac);
        break;
      case 'invalidateAll':
        services.invalidateAll();
        break;
      case 'gratuitousArp':
        services.gratuitousArp({ mac: call.mac, ip: call.ip, vlan: call.vlan });
        break;
      case 'peersChanged':
        this.#peers = call.peers;
        services.peersChanged();
        break;
      case 'degrade':
        this.#complaint = call.text;
        this.#tell();
        break;
      case 'restore':
        this.#complaint = undefined;
        this.#tell();
        break;
      case 'log':
        services.log(call.level, call.message);
        break;
    }
  }

  #tell(): void {
    const text = this.#fault ?? this.#complaint;
    if (text === this.#told) return;
    this.#told = text;
    this.#use((services) => (text === undefined ? services.restore() : services.degrade(text)));
  }

  /** Never throws: what a device refuses of itself is for the log. */
  #use(work: (services: LookupServices) => void): void {
    try {
      if (this.#services) work(this.#services);
    } catch (error) {
      this.supervisor.refused.note(faultOf(error).message);
    }
  }

  /** A property was set. Where the plugin refuses it, the device says so: main has no way to know before. */
  #passOn(name: string): void {
    const session = this.#session;
    if (session === 0) return;
    const { lookupMs } = this.supervisor.options;
    const argument: SetArgument = { name, text: String(this.properties.get(name)) };
    this.supervisor.ask(session, 'set', argument, lookupMs).catch((error: unknown) => {
      if (this.#session !== session) return;
      this.#complaint = `the lookup plugin refuses ${name}: ${faultOf(error).message.slice(0, REASON_MAX)}`;
      this.#tell();
    });
  }

  #keep(saved: string | undefined): void {
    if (saved !== undefined) this.#saved = saved;
  }

  #change(event: InstanceEvent): void {
    this.#state = next(instanceTransitions, this.#state, event);
  }
}

/** Whatever the reading of an answer refuses is the plugin's lie. */
function read<Value>(method: string, given: unknown, work: (given: unknown) => Value): Value {
  try {
    return work(given);
  } catch (error) {
    throw lied(`${method}: ${faultOf(error).message}`);
  }
}

/** Undefined for what is no JSON: the thread made it, and yet it may come from somewhere else. */
function parseSaved(saved: string | undefined): unknown {
  try {
    return saved === undefined ? undefined : JSON.parse(saved);
  } catch {
    return undefined;
  }
}

function startedIn(given: unknown): { point: unknown; peers: unknown } {
  if (typeof given !== 'object' || given === null) throw lied('start gave no object');
  const { point, peers } = given as Record<string, unknown>;
  return { point, peers };
}

function savedIn(given: unknown): string | undefined {
  if (typeof given !== 'object' || given === null) throw lied('stop gave no object');
  return readSaved((given as Record<string, unknown>).saved);
}
