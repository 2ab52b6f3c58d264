import * as assert from 'uvu/assert';
import type { EncapPlugin } from '../../src/encap/plugin.js';
import { vxlan } from '../../src/encap/vxlan.js';
import type { OverlayError } from '../../src/errors.js';
import { assertRefused, MemoryOverlay, type MemoryOverlayOptions } from './memory-overlay.js';

export const HERE = '127.0.0.1';
export const CYCLES = Number(process.env.CYCLES ?? 1000);

/** vxlan that counts the devices it was told of and those it was told are gone. */
export function counting(changes: Partial<EncapPlugin> = {}): EncapPlugin & { alive: number } {
  const plugin = {
    ...vxlan,
    ...changes,
    alive: 0,
    operations: {
      ...vxlan.operations,
      ...changes.operations,
      init: () => {
        plugin.alive++;
        return vxlan.operations.init();
      },
      fini: () => {
        plugin.alive--;
      },
    },
  };
  return plugin;
}

export async function withMemory(
  work: (memory: MemoryOverlay) => Promise<void>,
  options: MemoryOverlayOptions = {},
): Promise<void> {
  const memory = await MemoryOverlay.start(options);
  try {
    await work(memory);
  } finally {
    await memory.close();
  }
}

/** Runs `work`, which must be refused, and asserts that it has left nothing behind. */
export async function withoutTrace(
  memory: MemoryOverlay,
  work: () => Promise<unknown>,
  errno: string,
  code: string,
  message?: RegExp,
): Promise<OverlayError> {
  const before = memory.holdings();
  const error = await assertRefused(work, errno, code, message);
  assert.equal(memory.holdings(), before, `${code} leaves nothing behind`);
  return error;
}

export const force = { force: true };
export const gently = { force: false };

/** Text of the device’s fault, empty when it has none. */
export function faultOf(memory: MemoryOverlay, name: string): string {
  const { status, message } = memory.overlay.status(name);
  return status === 'ONLINE' ? '' : message;
}
