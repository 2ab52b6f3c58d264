/** Transfers between the guests of two hosts, by `stream-end.ts`: what arrives must be what was sent, byte for byte. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Host, Hosts } from './hosts.js';

const END = join(import.meta.dirname, 'stream-end.js');
const DATAGRAMS = 3000;

/** Lines of a program that ends by itself. */
export function lines(host: Host, ...args: (string | number)[]): { next(): Promise<string> } {
  const child = host.start(process.execPath, END, ...args.map(String));
  let text = '';
  let errors = '';
  child.stdout?.setEncoding('utf8').on('data', (data: string) => {
    text += data;
  });
  child.stderr?.setEncoding('utf8').on('data', (data: string) => {
    errors += data;
  });
  return {
    async next() {
      const deadline = performance.now() + 60_000;
      while (!text.includes('\n')) {
        if (child.exitCode !== null && child.exitCode !== 0) throw new Error(`${args[0]}: ${errors}`);
        if (performance.now() > deadline) throw new Error(`${args[0]} says nothing`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const [line = '', ...rest] = text.split('\n');
      text = rest.join('\n');
      return line;
    },
  };
}

export interface Transfer {
  readonly hosts: Hosts;
  readonly from: 'a' | 'b';
  /** Address of the guest that takes. */
  readonly to: string;
  readonly seed: number;
  /** Of the TCP stream. */
  readonly bytes: number;
  /** Both when left out. */
  readonly kinds?: readonly ('give' | 'give-udp')[];
}

/** Ports of the transfers of this process. */
let port = 6000;

/** One that nobody else uses. */
export function nextPort(): number {
  return ++port;
}

/** A TCP stream and datagrams from one side to the other. */
export async function transfer({ hosts, from, to, seed, bytes, kinds }: Transfer): Promise<void> {
  for (const [give, take, amount] of [
    ['give', 'take', bytes],
    ['give-udp', 'take-udp', DATAGRAMS],
  ] as const) {
    if (kinds && !kinds.includes(give)) continue;
    const at = nextPort();
    const taker = lines(hosts[from === 'a' ? 'b' : 'a'], take, to, at);
    assert.is(await taker.next(), 'ready');
    const giver = lines(hosts[from], give, to, at, amount, seed);
    assert.is(await taker.next(), await giver.next(), `${give} from ${from}`);
  }
}
