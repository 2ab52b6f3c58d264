/** Which CPUs a thread may run on (man 2 sched_setaffinity). */
import { OverlayError } from '../errors.js';
import { must } from './errno.js';
import * as libc from './libc.js';

const MASK_BYTES = 128;
const CPUS_MAX = MASK_BYTES * 8;

/** CPUs the calling thread may run on. */
export function allowedCpus(): number[] {
  const mask = new Uint8Array(MASK_BYTES);
  must(libc.schedGetaffinity(0, MASK_BYTES, mask), 'sched_getaffinity');
  const cpus: number[] = [];
  for (let cpu = 0; cpu < CPUS_MAX; cpu++) {
    if (mask[cpu >> 3]! & (1 << (cpu & 7))) cpus.push(cpu);
  }
  return cpus;
}

/** Binds the calling thread to the CPUs. Throws EINVAL naming them when the machine has none of them. */
export function pinThread(cpus: readonly number[]): void {
  const mask = new Uint8Array(MASK_BYTES);
  for (const cpu of cpus) if (cpu < CPUS_MAX) mask[cpu >> 3]! |= 1 << (cpu & 7);
  if (libc.schedSetaffinity(0, MASK_BYTES, mask) < 0) {
    throw new OverlayError('EINVAL', 'no_such_cpu', `no CPU ${cpus.join(', ')} on this machine; see --pin`);
  }
}
