/** Multicast DNS (RFC 6762): one question, and one answer to it; who asks and who answers. */
import { ipNativeBytes } from '../../src/ip.js';
import { bigEndian, concat } from '../reference/frames.js';
import { type Family, type Guest, joinGroup, udpSocket } from './guest.js';
import { until } from './hosts.js';

const PORT = 5353;
const GROUPS = { 4: '224.0.0.251', 6: 'ff02::fb' } as const;
const ANSWER_MS_MAX = 5000;
/** Of addresses: A and AAAA. */
const TYPES = { 4: 1, 6: 28 } as const;
const CLASS_IN = 1;
/** The record is the only one of its name and type. */
const CACHE_FLUSH = 0x8000;
const AUTHORITATIVE_ANSWER = 0x8400;
const TTL_SECONDS = 120;

const words = (...values: readonly number[]) => concat(...values.map((value) => bigEndian(value, 2)));

/** Number 0, as all messages to the group have, flags, and how much of what there is. */
const header = (flags: number, questions: number, answers: number) =>
  words(0, flags, questions, answers, 0, 0);

function nameBytes(name: string): Uint8Array {
  const labels = name.split('.').flatMap((label) => [Uint8Array.of(label.length), Buffer.from(label)]);
  return concat(...labels, Uint8Array.of(0));
}

/** A question for the address of a name. */
export function mdnsQuestion(name: string, family: Family): Uint8Array {
  return concat(header(0, 1, 0), nameBytes(name), words(TYPES[family], CLASS_IN));
}

/** The answer to it, which does not repeat the question (section 6). */
export function mdnsAnswer(name: string, address: string): Uint8Array {
  const bytes = ipNativeBytes(address);
  const record = words(
    TYPES[bytes.length === 4 ? 4 : 6],
    CLASS_IN | CACHE_FLUSH,
    0,
    TTL_SECONDS,
    bytes.length,
  );
  return concat(header(AUTHORITATIVE_ANSWER, 0, 1), nameBytes(name), record, bytes);
}

const nameOf = (place: number) => `guest-${place}.local`;

/**
 * Each guest asks the group of the family for the address of every other one, which answers to the group; number, name and record of
 * each message are compared byte for byte. Nobody says anything twice, so that one that is lost is missed.
 */
export async function askByMdns(guests: readonly Guest[], family: Family): Promise<void> {
  const group = GROUPS[family];
  const answers = guests.map(({ inner }, place) => mdnsAnswer(nameOf(place), inner[family]));
  const questions = guests.map((_, place) => mdnsQuestion(nameOf(place), family));
  const heard = guests.map((): Buffer[] => []);
  const sockets = guests.map((guest) => udpSocket(guest, family, PORT));
  try {
    for (const [place, socket] of sockets.entries()) {
      joinGroup(guests[place]!, socket, family, group);
      socket.on('message', (message) => {
        heard[place]!.push(message);
        if (message.equals(questions[place]!)) socket.send(answers[place]!, PORT, group);
      });
    }
    for (const [asker, socket] of sockets.entries()) {
      for (const asked of guests.keys()) {
        if (asked === asker) continue;
        heard[asker]!.length = 0;
        socket.send(questions[asked]!, PORT, group);
        await until(`${nameOf(asked)} answers ${nameOf(asker)} by IPv${family}`, ANSWER_MS_MAX, () =>
          heard[asker]!.some((message) => message.equals(answers[asked]!)),
        );
      }
    }
  } finally {
    for (const socket of sockets) socket.close();
  }
}
