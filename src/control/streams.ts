/**
 * Streams of events (application/x-ndjson). A stream holds a place among the events and no events: it takes the next
 * when the one before has been read, and finds out then what it has missed.
 */
import type { FastifyReply } from 'fastify';
import { OverlayError } from '../errors.js';
import type { EventReader } from '../events.js';
import { CONTROL_READERS } from '../limits.js';
import { Places } from './places.js';
import type { Refusals } from './refusals.js';
import type { Caller } from './rights.js';
import { API_VERSION } from './view.js';

/** What may wait for a reader, besides what the kernel holds for it: a few dozen events. */
const READER_BYTES_MAX = 64 * 1024;
/** Each write is a system call: many events make one. */
const WRITE_CHARACTERS = 16 * 1024;
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
  readonly #places = new Places(CONTROL_READERS);

  constructor(readonly refusals: Refusals) {}

  /** Answers with events until there are no more or the connection ends. Throws EAGAIN when too many read. */
  send(reader: EventReader, caller: Caller, reply: FastifyReply): void {
    const leave = this.#enter(caller);
    const { raw } = reply;
    const pump = () => {
      while (!raw.destroyed && !raw.writableEnded && raw.writableLength < READER_BYTES_MAX) {
        const lines = linesOf(reader);
        if (lines === '') break;
        raw.write(lines);
      }
      if (reader.isEnded && !raw.writableEnded) raw.end();
    };
    const stop = reader.follow ? reader.events.listen(pump) : () => {};
    raw.on('drain', pump);
    onceGone(reply, () => {
      stop();
      leave();
    });
    reply.hijack();
    // Nothing may happen for days.
    if (reader.follow) reply.request.raw.socket.setTimeout(0);
    raw.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    raw.flushHeaders();
    pump();
  }

  #enter(caller: Caller): () => void {
    const leave = this.#places.take(caller);
    if (leave) return leave;
    this.refusals.note('readers', caller.uid);
    throw new OverlayError(
      'EAGAIN',
      'too_many_readers',
      `too many read events for user ${caller.uid}: end some of them, or try again later`,
    );
  }
}

/** Events that are there, as many as are written at a time; empty when there are none. */
function linesOf(reader: EventReader): string {
  let lines = '';
  while (lines.length < WRITE_CHARACTERS) {
    const event = reader.take();
    if (!event) break;
    lines += `${JSON.stringify({ version: API_VERSION, ...event })}\n`;
  }
  return lines;
}
