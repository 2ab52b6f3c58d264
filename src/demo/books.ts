/**
 * The books of the two hosts: every frame that went in must have come out on the other side, or be dropped
 * under a name. Only when traffic has stopped.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { ControlClient } from '../control/client.js';
import type { StatsView } from '../control/view.js';
import { monotonicMs } from '../sys/clock.js';
import { DEVICE, type Host, type Pair } from './pair.js';

const REST_MS = 150;
const REST_MS_MAX = 5000;

/** Counts of one host. */
export interface Book {
  readonly txRead: number;
  readonly txFrames: number;
  readonly txDatagrams: number;
  readonly txDrops: number;
  readonly rxRead: number;
  readonly rxFrames: number;
  readonly rxDrops: number;
  readonly socketOverflow: number;
  readonly linkOverflow: number;
  readonly underlayDrops: number;
}

export interface Books {
  readonly a: Book;
  readonly b: Book;
}

export interface Balance {
  readonly isBalanced: boolean;
  readonly lines: readonly string[];
}

/** Reads both books when they have come to rest. */
export async function readBooks(pair: Pair): Promise<Books> {
  const deadline = monotonicMs() + REST_MS_MAX;
  for (;;) {
    const before = { a: await readBook(pair.a), b: await readBook(pair.b) };
    await pause(REST_MS);
    const after = { a: await readBook(pair.a), b: await readBook(pair.b) };
    if (JSON.stringify(before) === JSON.stringify(after)) return after;
    if (monotonicMs() > deadline) throw new Error('the counters do not come to rest');
  }
}

async function readBook(host: Host): Promise<Book> {
  const { overlays, muxes } = await new ControlClient(host.socket).get<StatsView>('/v1/stats');
  const device = overlays[DEVICE];
  const mux = Object.values(muxes)[0];
  if (!device || !mux) throw new Error(`host ${host.name} has no started ${DEVICE}`);
  return {
    txRead: Number(device.counters.tx_read),
    txFrames: Number(device.counters.tx_frames),
    txDatagrams: Number(device.counters.tx_datagrams),
    txDrops: sum(device.drops, 'tx_'),
    rxRead: Number(mux.counters.rx_read),
    rxFrames: Number(device.counters.rx_frames),
    rxDrops: sum(device.drops, 'rx_') + sum(mux.drops, 'rx_'),
    socketOverflow: mux.socket_overflow,
    linkOverflow: Number(device.link_overflow),
    underlayDrops: host.underlayDrops(),
  };
}

function sum(counts: Readonly<Record<string, string | number | undefined>>, prefix: string): number {
  const named = Object.entries(counts).filter(([name]) => name.startsWith(prefix));
  return named.reduce((total, [, count]) => total + Number(count ?? 0), 0);
}

/** Compares what happened between two readings. */
export function balance(before: Books, after: Books): Balance {
  const a = difference(before.a, after.a);
  const b = difference(before.b, after.b);
  const ways = [way('a to b', a, b), way('b to a', b, a)];
  return { isBalanced: ways.every((each) => each.isBalanced), lines: ways.flatMap((each) => each.lines) };
}

function way(name: string, from: Book, to: Book): Balance {
  const rows: [text: string, left: number, right: number][] = [
    [
      `${from.txRead} frames read from the link = ${from.txFrames} sent + ${from.txDrops} dropped by name`,
      from.txRead,
      from.txFrames + from.txDrops,
    ],
    [
      `${from.txDatagrams} datagrams made of them = ${to.rxRead} read on the other side + ${to.socketOverflow} socket overflow` +
        ` + ${from.underlayDrops} not taken by the underlay`,
      from.txDatagrams,
      to.rxRead + to.socketOverflow + from.underlayDrops,
    ],
    [
      `${to.rxRead} read = ${to.rxFrames} delivered + ${to.rxDrops} dropped by name`,
      to.rxRead,
      to.rxFrames + to.rxDrops,
    ],
  ];
  return {
    isBalanced: rows.every(([, left, right]) => left === right),
    lines: rows.map(([text, left, right], index) => {
      const mark = left === right ? 'ok ' : `OFF BY ${left - right}`;
      return `${(index === 0 ? `${name}:` : '').padEnd(8)}${mark} ${text}`;
    }),
  };
}

function difference(before: Book, after: Book): Book {
  const names = Object.keys(after) as (keyof Book)[];
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as unknown as Book;
}
