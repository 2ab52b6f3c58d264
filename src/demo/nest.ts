/** Starts the demo once more as root of a user namespace of its own. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { DEMO } from './programs.js';
import { UNSHARE } from './requirements.js';

/** What the inner demo may take to clean up before it is ended. */
const LEAVE_MS_MAX = 60_000;
export const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs the demo with `args` in there; its exit code. */
export function runNested(args: readonly string[]): Promise<number> {
  const [unshare, ...words] = [...UNSHARE, process.execPath, ...process.execArgv, DEMO, '--nested', ...args];
  return new Promise((resolve, reject) => {
    // The channel tells the inner demo when this one is gone. Out of the terminal's reach, so that a Ctrl-C
    // comes once, from here.
    const child = spawn(unshare!, words, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], detached: true });
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? signalCode(signal ?? 'SIGKILL')));
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        child.kill(signal);
        setTimeout(() => child.kill('SIGKILL'), LEAVE_MS_MAX).unref();
      });
    }
  });
}

/** Exit code of a program that a signal ended, as shells have it. */
export function signalCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
