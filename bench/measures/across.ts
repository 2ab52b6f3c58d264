/** Runs of bench/udp-rate.c between the guests. */
import { compile } from '../compile.js';
import { inner, type Testbed } from '../testbed.js';

/**
 * What the program printed, by name. Throws what it says when it fails.
 * @param bytes of UDP payload
 * @param more what the mode wants besides
 */
export async function across(
  bed: Testbed,
  mode: 'flood' | 'search' | 'echo',
  bytes: number,
  seconds: number,
  ...more: number[]
): Promise<Readonly<Record<string, number>>> {
  const numbers = [bed.cpu('a'), bed.cpu('b'), bytes, seconds, ...more].map(String);
  const { status, stdout, stderr } = await bed.runAcross(compile('udp-rate'), [mode, inner.b, ...numbers]);
  if (status !== 0) throw new Error(`udp-rate ${mode} ended with ${status}: ${stderr}`);
  return JSON.parse(stdout) as Record<string, number>;
}
