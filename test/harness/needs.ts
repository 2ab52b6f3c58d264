/** Tests that need something of the machine: named when it is missing, never silently passed. */

import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import type { Test } from 'uvu';

export const skipped: string[] = [];

const probes: Record<string, () => boolean> = {
  root: () => process.getuid?.() === 0,
  '/dev/net/tun': () => {
    try {
      accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
      return true;
    } catch {
      return false;
    }
  },
};

/** True when the need is met: 'root', '/dev/net/tun', or the name of a program on the PATH. */
export function has(need: string): boolean {
  const probe = probes[need];
  if (probe) return probe();
  return spawnSync(need, ['--version'], { stdio: 'ignore' }).error === undefined;
}

/** Registers a test that is run only where all `needs` are met, and otherwise reported by name as not run. */
export function testWith(
  suite: Test<Record<string, unknown>>,
  needs: readonly string[],
  name: string,
  handler: () => void | Promise<void>,
): void {
  const missing = needs.filter((need) => !has(need));
  if (missing.length === 0) suite(name, handler);
  else skipped.push(`${name}: needs ${missing.join(', ')}`);
}
