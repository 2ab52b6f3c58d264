/** Processes of the demo: Node programs, in a namespace where one is given, that end with the demo. */
import { type ChildProcess, spawn } from 'node:child_process';
import { inNamespace } from '../sys/netns.js';
import type { Cleanup } from './cleanup.js';

const TERM_MS_MAX = 4000;
const KILL_MS_MAX = 2000;

export interface ChildOptions {
  readonly namespace?: number;
  /** A channel for messages; the child's output goes where ours goes. Without it the output comes to us. */
  readonly hasChannel?: boolean;
}

/** Starts a program of ours. A child that cannot be started exits like any other. */
export function startNode(
  cleanup: Cleanup,
  program: string,
  args: readonly string[],
  { namespace, hasChannel = false }: ChildOptions = {},
): ChildProcess {
  const start = () => {
    const child = spawn(process.execPath, [...process.execArgv, program, ...args], {
      stdio: hasChannel ? ['ignore', 'inherit', 'inherit', 'ipc'] : ['ignore', 'pipe', 'pipe'],
      // Out of the terminal's reach: a Ctrl-C is for the demo, which then ends its children in order.
      detached: true,
    });
    child.on('error', (error) => console.error(`demo: ${program}: ${error.message}`));
    return child;
  };
  return cleanup.hold(
    () => (namespace === undefined ? start() : inNamespace(namespace, start)),
    end,
    (child) => void (isAlive(child) && child.kill('SIGKILL')),
  );
}

/** Runs a program of ours to its end; its output. Throws what it said on stderr when it fails. */
export async function runNode(
  cleanup: Cleanup,
  program: string,
  args: readonly string[],
  msMax: number,
): Promise<string> {
  const child = startNode(cleanup, program, args);
  let output = '';
  let complaint = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const timer = setTimeout(() => child.kill('SIGKILL'), msMax);
  await closed;
  clearTimeout(timer);
  if (child.exitCode !== 0) throw new Error(complaint.trim() || `${program} ended: ${howEnded(child)}`);
  return output;
}

/** Asks a child to end, and makes it end when it does not. */
async function end(child: ChildProcess): Promise<void> {
  if (!isAlive(child)) return;
  const exited = new Promise<true>((resolve) => child.once('exit', () => resolve(true)));
  child.kill('SIGTERM');
  if (await exitedWithin(exited, TERM_MS_MAX)) return;
  child.kill('SIGKILL');
  if (!(await exitedWithin(exited, KILL_MS_MAX))) throw new Error(`process ${child.pid} does not end`);
}

async function exitedWithin(exited: Promise<true>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  const result = await Promise.race([exited, late]);
  clearTimeout(timer);
  return result;
}

function isAlive(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

/** The way a child ended, for people. */
export function howEnded({ exitCode, signalCode }: ChildProcess): string {
  return signalCode ?? `exit code ${exitCode}`;
}
