#!/usr/bin/env node
/**
 * `overlayd`: the daemon. Runs in the foreground, in the network namespace it is started in; logs to stderr.
 *
 * This module imports next to nothing: signals are heard and limits are checked before the rest of the program is loaded,
 * which takes a while and many descriptors.
 */
import { writeSync } from 'node:fs';
import { OverlayError } from '../errors.js';
import { checkLimits, readLimits } from './limits.js';
import { Signals } from './signals.js';

/** Faults of the settings, for which the exit code is 8. */
const configCodes = ['bad_config', 'config_unreadable', 'no_such_cpu'];

/** Until the better ones are loaded there is no thread of a plugin that could hold up the end. */
let exit: (code: number) => never = process.exit;
let write: (line: string) => void = (line) => writeSync(2, line);

const signals = new Signals();
process.on('uncaughtException', end);
try {
  checkLimits(readLimits());
  const { run, leave, LogStream } = await import('./program.js');
  exit = leave;
  const errors = new LogStream(2);
  write = (line) => errors.write(line);
  await run(signals);
} catch (error) {
  end(error);
}

/** Says what has gone wrong, and ends: a defect of ours loudly, everything else by a sentence. */
function end(error: unknown): never {
  if (!(error instanceof OverlayError)) {
    if (isStarved(error)) {
      say(
        `overlayd: the program cannot be loaded (${error.message}): raise the limit of open files (ulimit -Hn)`,
      );
    } else say(error instanceof Error ? (error.stack ?? error.message) : String(error));
    exit(1);
  }
  for (const text of [error.message, ...error.parts]) say(`overlayd: ${text}`);
  exit(configCodes.includes(error.code) ? 8 : 1);
}

function isStarved(error: unknown): error is Error {
  const { code } = error as NodeJS.ErrnoException;
  return error instanceof Error && (code === 'EMFILE' || code === 'ENFILE');
}

/** Where nobody reads any more there is nobody to tell. */
function say(text: string): void {
  try {
    write(`${text}\n`);
  } catch {}
}
