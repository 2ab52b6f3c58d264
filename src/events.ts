/**
 * What has happened, newest last: a bounded ring that whoever listens may read from any place that is still there.
 * Everyone may read events, so that a text holds neither values of properties nor targets; those of faults may, and are told in
 * general words to whoever may not read properties.
 */
import { discreetText, type FaultCode, type ProcessFaultCode } from './fma.js';
import { wallTime } from './sys/clock.js';

/** Kinds of events, and what each tells. */
export const eventKinds = {
  'daemon-started': 'the daemon serves',
  'daemon-stopping': 'the daemon was told to stop',
  created: 'a device was made',
  recovered: 'a device was brought back after a restart',
  activated: 'a device has its properties for good, and its link has carrier',
  started: 'the link came up: the device forwards',
  stopped: 'the link went down: the device forwards nothing',
  deleted: 'a device is gone, with its link',
  degraded: 'there is a reason for which a device, or the daemon, is degraded; the code names it',
  restored: 'such a reason is gone',
  'property-changed': 'somebody has set a property; the text names it',
  'mtu-changed':
    'the MTU of a device has changed: somebody has changed that of its link, or the underlay has another one',
  'mtu-put-back': "the link's MTU was set to one the device cannot have, and was put back",
  'link-gone': 'the link was deleted, or moved away',
  'link-renamed': 'the link was renamed',
  'namespace-gone': 'a network namespace that a device needs is gone',
  'namespace-back': 'it is there again',
  worker: 'a worker died, is stuck, or was replaced',
  associated: 'the holder of the external handle has taken a device on',
  disassociated: 'nobody answers for an external device any more',
  'target-flush': 'all targets of a device were forgotten',
  'state-problem': 'what is kept of a device could not be read or written',
  'config-reloaded': 'the configuration was read again and is in force',
  'config-refused': 'it was read again and refused; the old one stays in force',
  lost: 'the reader was too slow, or asked too late: so many events are gone',
} as const;

export type EventKind = keyof typeof eventKinds;

/** What an emitter tells. */
export interface EventFields {
  readonly device?: string | undefined;
  /** One sentence for people; cut to EVENT_TEXT_BYTES_MAX. */
  readonly text: string;
  /** Of a fault or an error, for programs. */
  readonly code?: string | undefined;
}

export interface Event extends EventFields {
  /** From 1 on, without gaps, for as long as the daemon runs. */
  readonly seq: number;
  /** ISO 8601. */
  readonly time: string;
  readonly kind: EventKind;
  /** Of `lost`: how many. */
  readonly count?: number;
}

/** A busy host has some hundred in an hour: that much can be looked up afterwards. */
export const EVENTS_MAX = 1024;
/** With the ring's length this bounds what events can take: some 700 KiB. */
export const EVENT_TEXT_BYTES_MAX = 512;

export class Events {
  /** Event `seq` is at `seq % EVENTS_MAX`. */
  readonly #ring: Event[] = [];
  readonly #listeners = new Set<() => void>();
  #last = 0;

  /** Number of the newest event, 0 before the first. */
  get last(): number {
    return this.#last;
  }

  /** Number of the oldest that is still there; `last` + 1 when there is none. */
  get first(): number {
    return Math.max(1, this.#last - EVENTS_MAX + 1);
  }

  /** Tells what has happened. Never throws and waits for nobody. */
  emit(kind: Exclude<EventKind, 'lost'>, { device, text, code }: EventFields): void {
    const seq = ++this.#last;
    this.#ring[seq % EVENTS_MAX] = {
      seq,
      time: wallTime(),
      kind,
      ...(device === undefined ? {} : { device }),
      text: cut(text),
      ...(code === undefined ? {} : { code }),
    };
    for (const listener of this.#listeners) listener();
  }

  /** The event of that number; undefined when it is not there any more, or not yet. */
  at(seq: number): Event | undefined {
    return seq >= this.first && seq <= this.#last ? this.#ring[seq % EVENTS_MAX] : undefined;
  }

  /** Has `listener` called after each event until the returned function is called. It must not throw. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** How many listen. */
  get listeners(): number {
    return this.#listeners.size;
  }
}

/** One reader's place among the events. It holds no events, so that a slow reader costs nothing. */
export class EventReader {
  #next: number;
  /** Number of the last that is read; undefined for as long as there are more. */
  readonly #until: number | undefined;

  /**
   * @param since events behind that number are read: undefined for all that are there. A number that was not given yet
   *   is one of a daemon before this one, and all that are there are read, too.
   * @param follow reads on; otherwise what is there now is all
   */
  constructor(
    readonly events: Events,
    since: number | undefined,
    readonly follow: boolean,
    /** The reader may read properties, values of which the text of a fault may hold. */
    readonly mayRead = true,
  ) {
    const isKnown = since !== undefined && since <= events.last;
    this.#next = isKnown ? since + 1 : events.first;
    this.#until = follow ? undefined : events.last;
  }

  /** The next event; of kind `lost` in place of those that are gone; undefined when there is none now. */
  take(): Event | undefined {
    if (this.isEnded) return undefined;
    const { first } = this.events;
    if (this.#next < first) {
      const count = first - this.#next;
      this.#next = first;
      const text = `${count} events are gone: ${EVENTS_MAX} are kept, and they are read in time or not at all`;
      return { seq: first - 1, time: wallTime(), kind: 'lost', text, count };
    }
    const event = this.events.at(this.#next);
    if (event) this.#next++;
    if (!event || this.mayRead || (event.kind !== 'degraded' && event.kind !== 'restored')) return event;
    return { ...event, text: discreetText(event.code as FaultCode | ProcessFaultCode) };
  }

  /** There will be no more. */
  get isEnded(): boolean {
    return this.#until !== undefined && this.#next > this.#until;
  }
}

/** The text within EVENT_TEXT_BYTES_MAX, between two characters. */
function cut(text: string): string {
  if (Buffer.byteLength(text) <= EVENT_TEXT_BYTES_MAX) return text;
  const bytes = Buffer.from(text).subarray(0, EVENT_TEXT_BYTES_MAX);
  return new TextDecoder().decode(bytes, { stream: true });
}
