/**
 * Streams of events (application/x-ndjson). A stream holds a place among the events and no events: it takes the next
 * when the one before has been read, and finds out then what it has missed.
 */
import type { FastifyReply } from 'fastify';
import { OverlayError } from '../errors.js';
import type { EventReader } from '../events.js';
import type { Caller } from './rights.js';
import { API_VERSION } from './view.js';

/** What may wait for a reader, besides what the kernel holds for it: a few dozen events. */
const READER_BYTES_MAX = 64 * 1024;
/** Readers at a time; each has a connection, and those are limited more narrowly for whoever may not write. */
const READERS_MAX = 32;
/** Of those who may not write, so that they leave room for the others. */
const USERS_READERS_MAX = 16;
/** Of one who may not write. */
const USER_READERS_MAX = 4;

/**
 * Runs `work` when the answer has been sent or can never be. One that waits behind others on its connection is not told
 * when that ends.
 */
export function onceGone({ raw, request }: FastifyReply, work: () => void): void {
  const { socket } = request.raw;
  const end = () => {
    raw.off('close', end);
    socket.off('close', end);
    work();
  };
  // As many as may wait on one connection, and each takes its own away: no leak to be warned of.
  socket.setMaxListeners(0);
  raw.once('close', end);
  socket.once('close', end);
}

export class EventStreams {
  /** The uid of each reader who may not write; undefined for one who may. */
  readonly #readers = new Set<{ readonly uid: number | undefined }>();

  /** How many read. */
  get size(): number {
    return this.#readers.size;
  }

  /** Answers with events until there are no more or the connection ends. Throws EAGAIN when too many read. */
  send(reader: EventReader, caller: Caller, reply: FastifyReply): void {
    const place = this.#place(caller);
    const { raw } = reply;
    const pump = () => {
      while (!raw.destroyed && !raw.writableEnded && raw.writableLength < READER_BYTES_MAX) {
        const event = reader.take();
        if (!event) break;
        raw.write(`${JSON.stringify({ version: API_VERSION, ...event })}\n`);
      }
      if (reader.isEnded && !raw.writableEnded) raw.end();
    };
    const stop = reader.follow ? reader.events.listen(pump) : () => {};
    raw.on('drain', pump);
    onceGone(reply, () => {
      stop();
      this.#readers.delete(place);
    });
    reply.hijack();
    // Nothing may happen for days.
    if (reader.follow) reply.request.raw.socket.setTimeout(0);
    raw.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    raw.flushHeaders();
    pump();
  }

  #place({ uid, mayWrite }: Caller): { readonly uid: number | undefined } {
    const users = [...this.#readers].filter((each) => each.uid !== undefined);
    const isFull = mayWrite
      ? this.#readers.size >= READERS_MAX
      : users.length >= USERS_READERS_MAX ||
        users.filter((each) => each.uid === uid).length >= USER_READERS_MAX;
    if (isFull) {
      throw new OverlayError(
        'EAGAIN',
        'too_many_readers',
        `too many read events for user ${uid}: end some of them, or try again later`,
      );
    }
    const place = { uid: mayWrite ? undefined : uid };
    this.#readers.add(place);
    return place;
  }
}
