/** The demo proper: makes the overlay, sends traffic through it and shows what came of it. */
import { setTimeout as pause } from 'node:timers/promises';
import { formatTable } from '../cli/table.js';
import { ControlClient } from '../control/client.js';
import type { OverlayView } from '../control/view.js';
import { monotonicMs } from '../sys/clock.js';
import { type Books, balance, readBooks } from './books.js';
import type { Cleanup } from './cleanup.js';
import { within } from './cleanup.js';
import { overlayadm, overlayadmLine } from './cli.js';
import { DEVICE, type Host, type LinkRow, type Pair, VNETID } from './pair.js';
import { type PingResult, pingSeries } from './ping.js';
import { problemOf } from './problem.js';
import { gigabits, megabytes, Progress } from './progress.js';
import { indented, print, step, title } from './screen.js';
import type { TransferResult } from './transfer.js';

const STARTED_MS_MAX = 10_000;
const SHOW_MS_MAX = 60_000;
const POLL_MS = 20;
const PORT_DEFAULT = 4789;

/** What came of the traffic. A problem is a sentence; no problems is success. */
interface Outcome {
  ping: PingResult | undefined;
  transfer: TransferResult | undefined;
  readonly problems: string[];
}

/** Runs it all on two hosts; true when all traffic arrived and the books balance. */
export async function run(pair: Pair, cleanup: Cleanup, totalBytes: number): Promise<boolean> {
  const before = await Promise.race([createOverlays(pair, cleanup), pair.lost]);
  const over = new AbortController();
  const outcome: Outcome = { ping: undefined, transfer: undefined, problems: [] };
  try {
    await Promise.race([sendTraffic(pair, totalBytes, outcome, over.signal), pair.lost]);
  } catch (error) {
    // What is under way for a host that is lost must not go on below.
    over.abort(error);
    outcome.problems.push(problemOf(error));
  }
  try {
    await within(SHOW_MS_MAX, () => show(pair, cleanup, before, outcome), 'showing the counters');
  } catch (error) {
    outcome.problems.push(problemOf(error));
  }
  verdict(pair, outcome);
  return outcome.problems.length === 0;
}

// ─── The overlay ────────────────────────────────────────────────────────────────────────────────────────

/** Creates the device on both hosts and takes it up; the books before any traffic. */
async function createOverlays(pair: Pair, cleanup: Cleanup): Promise<Books> {
  const { a, b, port } = pair;
  title('An overlay between them');
  for (const [here, there] of [
    [a, b],
    [b, a],
  ] as const) {
    const args = ['create-overlay', '-e', 'vxlan', '-s', 'direct', '-v', `${VNETID}`];
    const listenPort = port === PORT_DEFAULT ? [] : [`vxlan/listen_port=${port}`];
    const properties = [`direct/dest_ip=${there.underlayIp}`, `direct/dest_port=${port}`];
    args.push('-p', [`vxlan/listen_ip=${here.underlayIp}`, ...listenPort, ...properties].join(','), DEVICE);
    step(`Host ${here.name} sends to ${there.underlayIp}:${port}`, overlayadmLine(here.socket, ...args));
    await overlayadm(cleanup, here.socket, ...args);
  }
  for (const host of [a, b]) {
    step(`Host ${host.name} is ${host.innerIp} on it`, ...host.takeUp());
  }
  await Promise.all([waitUntilStarted(a), waitUntilStarted(b)]);
  return readBooks(pair);
}

async function waitUntilStarted(host: Host): Promise<void> {
  const client = new ControlClient(host.socket);
  const deadline = monotonicMs() + STARTED_MS_MAX;
  for (;;) {
    const { overlays } = await client.get<{ overlays: Record<string, OverlayView> }>(
      `/v1/overlays/${DEVICE}`,
    );
    const { state = '', message = '' } = overlays[DEVICE] ?? {};
    if (state === 'started') return;
    if (monotonicMs() > deadline)
      throw new Error(`${DEVICE} of host ${host.name} is ${state}, not started: ${message}`);
    await pause(POLL_MS);
  }
}

// ─── Traffic ────────────────────────────────────────────────────────────────────────────────────────────

async function sendTraffic(
  pair: Pair,
  totalBytes: number,
  outcome: Outcome,
  over: AbortSignal,
): Promise<void> {
  const { a, b, carries } = pair;
  title(`Ping from ${a.innerIp} to ${b.innerIp}`);
  outcome.ping = await pingSeries(pair.echo, over);
  const { sent, answered } = outcome.ping;
  if (answered < sent) outcome.problems.push(`${sent - answered} of ${sent} pings were not answered`);

  title(`${megabytes(totalBytes)} MB of ${carries} from ${a.innerIp} to ${b.innerIp}`);
  const progress = new Progress(carries, totalBytes);
  const result = await pair.transfer(totalBytes, (bytes) => progress.update(bytes));
  progress.update(result.bytes);
  outcome.transfer = result;
  const { bytes, seconds, isIntact } = result;
  print(`  ${bytes} bytes arrived ${isIntact ? 'intact' : 'DAMAGED'} in ${seconds.toFixed(2)} s`);
  print(`  throughput ${gigabits(bytes, seconds)}`);
  if (bytes !== totalBytes) outcome.problems.push(`${bytes} of ${totalBytes} bytes arrived`);
  if (!isIntact) outcome.problems.push('the bytes that arrived are not those that were sent');
}

// ─── What came of it ────────────────────────────────────────────────────────────────────────────────────

async function show(pair: Pair, cleanup: Cleanup, before: Books, outcome: Outcome): Promise<void> {
  const { a, b } = pair;
  title('Links');
  for (const host of [a, b]) indented(`host ${host.name}\n${linkTable(host)}`);
  for (const [what, ...args] of [
    ['The overlay of host a: its properties', 'show-overlay'],
    ['... its fault state', 'show-overlay', '-f'],
    ['... where it sends', 'show-overlay', '-t'],
    ['... its counters and drops', 'show-stats'],
  ] as const) {
    title(what);
    print(`  $ ${overlayadmLine(a.socket, ...args)}`);
    indented(await overlayadm(cleanup, a.socket, ...args));
  }
  title('The books of both, while the traffic ran');
  const { isBalanced, lines } = balance(before, await readBooks(pair));
  for (const line of lines) print(`  ${line}`);
  if (!isBalanced) outcome.problems.push('the books do not balance');
}

const linkColumns = [
  { name: 'LINK', width: 12, value: (row: LinkRow) => row.name },
  { name: 'KIND', width: 10, value: (row: LinkRow) => row.kind },
  { name: 'MAC', width: 18, value: (row: LinkRow) => row.mac },
  { name: 'MTU', width: 6, value: (row: LinkRow) => `${row.mtu}` },
  { name: 'STATE', width: 12, value: (row: LinkRow) => row.state },
  { name: 'ADDRESSES', width: 12, value: (row: LinkRow) => row.addresses },
];

function linkTable(host: Host): string {
  return formatTable(linkColumns, host.links()).join('\n');
}

function verdict(pair: Pair, { ping, transfer, problems }: Outcome): void {
  title('Verdict');
  if (problems.length > 0 || !ping || !transfer) {
    print(`  FAILED: ${problems.join('; ') || 'not all of it was run'}`);
    return;
  }
  const { bytes, seconds } = transfer;
  print(
    `  OK: ${ping.answered} of ${ping.sent} pings answered, ${megabytes(bytes)} MB of ${pair.carries} ` +
      `arrived intact at ${gigabits(bytes, seconds)}, the books balance`,
  );
}
