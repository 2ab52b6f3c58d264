/** In the plugin's thread: one instance, from `start` to `stop`. Every answer is checked before it leaves. */
import { OverlayError } from '../../errors.js';
import { checkDestination, checkRoute, type Destination } from '../../target/destination.js';
import { formatMac, parseMac } from '../../target/mac.js';
import type {
  Answer,
  ArpQuery,
  LookupInstance,
  LookupPlugin,
  LookupRequest,
  LookupServices,
} from '../plugin.js';
import { readAnswer, readDestination, readMac, readPeers, readRoute, readSaved } from './answer.js';
import { faultOf, lied } from './fault.js';
import type { Outbox } from './outbox.js';
import { type Method, type SetArgument, type StartArgument, TEXT_MAX } from './protocol.js';

/** What `start` brings to main. */
export interface Started {
  readonly point?: Destination;
  readonly peers?: readonly string[];
}

export class Hosted {
  #instance: LookupInstance | undefined;
  #destinations = 0;
  /** It may use its services. */
  #isOpen = false;
  #starting: Promise<unknown> = Promise.resolve();

  constructor(
    readonly plugin: LookupPlugin,
    readonly outbox: Outbox,
  ) {}

  /** Carries out a call of main. Rejects with whatever the plugin throws, EINVAL `plugin_lied` for a bad answer. */
  async call(method: Method, argument: unknown): Promise<unknown> {
    if (method === 'start') return this.#start(argument as StartArgument);
    if (method === 'stop') return this.#stop();
    // A property may be set while it starts.
    await this.#starting;
    const instance = this.#instance;
    if (!instance) throw new OverlayError('ECANCELED', 'plugin_stopped', 'the instance was stopped');
    switch (method) {
      case 'lookup': {
        const answer: unknown = await instance.lookup?.(argument as LookupRequest);
        return read('lookup', () => this.#answer(readAnswer(answer)));
      }
      case 'arp': {
        const mac: unknown = await instance.arp?.(argument as ArpQuery);
        return read('arp', () => readMac(mac));
      }
      case 'dhcp': {
        const mac: unknown = await instance.dhcp?.(argument as LookupRequest);
        return read('dhcp', () => readMac(mac));
      }
      case 'save':
        return this.#save(instance);
      case 'set': {
        const { name, text } = argument as SetArgument;
        instance.properties.set(name, text);
        return undefined;
      }
    }
  }

  #start(argument: StartArgument): Promise<Started> {
    const starting = this.#begin(argument);
    this.#starting = starting.catch(() => {});
    return starting;
  }

  async #begin(argument: StartArgument): Promise<Started> {
    const { destinations, values, saved } = argument;
    this.#destinations = destinations;
    const instance = this.plugin.create(destinations);
    for (const [name, text] of values) {
      if (instance.properties.info(name).isWritable) instance.properties.set(name, text);
    }
    if (saved !== undefined) instance.restore?.(JSON.parse(saved));
    this.#isOpen = true;
    try {
      await instance.start(this.#services(argument, instance));
    } catch (error) {
      this.#isOpen = false;
      throw error;
    }
    // From here on it has to be stopped, even where nobody waits for its start any more.
    this.#instance = instance;
    const [point, peers]: unknown[] = [instance.point?.(), instance.peers?.()];
    return {
      ...(instance.point ? { point: read('point', () => this.#destination(point)) } : {}),
      ...(instance.peers ? { peers: read('peers', () => readPeers(peers)) } : {}),
    };
  }

  /** Waits for a start that is under way, so that the plugin sees one after the other. */
  async #stop(): Promise<{ saved: string | undefined }> {
    this.#isOpen = false;
    await this.#starting;
    const instance = this.#instance;
    this.#instance = undefined;
    if (!instance) return { saved: undefined };
    try {
      return { saved: this.#save(instance) };
    } finally {
      await instance.stop();
    }
  }

  #save(instance: LookupInstance): string | undefined {
    const saved: unknown = instance.save?.();
    return read('save', () => readSaved(JSON.stringify(saved)));
  }

  #answer(answer: Answer): Answer {
    return typeof answer === 'string' ? answer : checkRoute(answer, this.#destinations);
  }

  #destination(value: unknown): Destination {
    return checkDestination(readDestination(value), this.#destinations);
  }

  #services({ overlay, vnetid }: StartArgument, instance: LookupInstance): LookupServices {
    const open = (what: string) => {
      if (!this.#isOpen) {
        throw new OverlayError('ENXIO', 'not_active', `${what}: the instance for ${overlay} is not active`);
      }
      return this.outbox;
    };
    const text = (value: unknown) => String(value).slice(0, TEXT_MAX);
    return {
      overlay,
      vnetid,
      set: (mac, route) => {
        const checkedRoute = checkRoute(readRoute(route), this.#destinations);
        open('set').push({ what: 'set', mac: formatMac(parseMac(mac)), route: checkedRoute });
      },
      invalidate: (mac) => open('invalidate').push({ what: 'invalidate', mac: formatMac(parseMac(mac)) }),
      invalidateAll: () => open('invalidateAll').push({ what: 'invalidateAll' }),
      gratuitousArp: ({ mac, ip, vlan }) =>
        open('gratuitousArp').push({
          what: 'gratuitousArp',
          mac: text(mac),
          ip: text(ip),
          vlan: Number(vlan),
        }),
      peersChanged: () => {
        const outbox = open('peersChanged');
        outbox.push({ what: 'peersChanged', peers: readPeers(instance.peers?.() ?? []) });
      },
      degrade: (reason) => open('degrade').push({ what: 'degrade', text: text(reason) }),
      restore: () => open('restore').push({ what: 'restore' }),
      log: (level, message) => {
        if (level !== 'info' && level !== 'warn' && level !== 'error')
          throw lied('a log level is info, warn or error');
        this.outbox.push({ what: 'log', level, message: text(message) });
      },
    };
  }
}

/** Whatever the reading of an answer refuses is the plugin's lie. */
function read<Value>(method: string, work: () => Value): Value {
  try {
    return work();
  } catch (error) {
    throw lied(`${method}: ${faultOf(error).message}`);
  }
}
