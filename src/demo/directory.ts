/** The directory with the demo's sockets and state. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cleanup } from './cleanup.js';

/** Makes a directory that is gone with the demo. */
export function makeDirectory(cleanup: Cleanup): string {
  const remove = (directory: string) => rmSync(directory, { recursive: true, force: true });
  return cleanup.hold(() => mkdtempSync(join(tmpdir(), 'overlayd-demo-')), remove, remove);
}
