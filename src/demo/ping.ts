/** The pings: ten as `ping` sends them, the smallest, and the largest the overlay carries whole. */
import { setTimeout as pause } from 'node:timers/promises';
import { MTU_DEFAULT_BYTES } from '../limits.js';
import { ICMP_HEADER_BYTES, IPV4_HEADER_BYTES } from '../sys/icmp-echo.js';
import { problemOf } from './problem.js';
import { print } from './screen.js';

const ECHOES = 10;
const ECHO_BYTES = 56;
const INTERVAL_MS = 100;
const REPLY_MS_MAX = 2000;
/** Fills the MTU to the byte. */
export const ECHO_BYTES_MAX = MTU_DEFAULT_BYTES - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;

/** Sends one echo request; milliseconds until its reply, undefined when there was none. */
export type Echoer = (payloadBytes: number, msMax: number) => Promise<number | undefined>;

export interface PingResult {
  readonly sent: number;
  readonly answered: number;
}

/** Pings and prints each answer and the summary; throws when it is over before. */
export async function pingSeries(echo: Echoer, over: AbortSignal): Promise<PingResult> {
  const sizes = [...Array.from({ length: ECHOES }, () => ECHO_BYTES), 0, ECHO_BYTES_MAX];
  const times: number[] = [];
  for (const [index, size] of sizes.entries()) {
    if (index > 0) await pause(INTERVAL_MS);
    const outcome = await attempt(echo, size);
    over.throwIfAborted();
    if (typeof outcome === 'number') times.push(outcome);
    const text = typeof outcome === 'number' ? `answered in ${outcome.toFixed(3)} ms` : outcome;
    print(`  ${`${size}`.padStart(4)} bytes: ${text}`);
  }
  const sent = sizes.length;
  const answered = times.length;
  const lossPercent = ((1 - answered / sent) * 100).toFixed(0);
  print(`  ${sent} sent, ${answered} answered, ${lossPercent} % lost${spread(times)}`);
  return { sent, answered };
}

async function attempt(echo: Echoer, size: number): Promise<number | string> {
  try {
    return (await echo(size, REPLY_MS_MAX)) ?? 'no answer';
  } catch (error) {
    return `failed: ${problemOf(error)}`;
  }
}

function spread(times: readonly number[]): string {
  if (times.length === 0) return '';
  const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
  const values = [Math.min(...times), mean, Math.max(...times)].map((ms) => ms.toFixed(3));
  return `; round trip min/avg/max ${values.join('/')} ms`;
}
