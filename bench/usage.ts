/** CPU time and memory that the kernel has counted (man 5 proc). */
import { readFileSync } from 'node:fs';

/** Linux counts in hundredths of a second for programs, whatever it does itself. */
const TICKS_PER_SECOND = 100;
const BYTES_PER_KIB = 1024;

/** Seconds that all CPUs together have been at work since the machine began, programs and kernel. */
export function busySeconds(): number {
  const [user, nice, system, , , irq, softirq] = cpuTicks();
  return (user! + nice! + system! + irq! + softirq!) / TICKS_PER_SECOND;
}

/**
 * Seconds that programs other than this one and those it has started and seen end have computed since the machine began.
 * Without what the kernel does for anybody, which is not to be told apart.
 */
export function othersSeconds(): number {
  const [user, nice] = cpuTicks();
  // utime and cutime: the latter of children that have been waited for.
  const fields = statOf(process.pid);
  return (user! + nice! - Number(fields[11]) - Number(fields[13])) / TICKS_PER_SECOND;
}

/** Seconds of CPU that the processes have used; one that is gone counts nothing. */
export function cpuSeconds(pids: readonly number[]): number {
  const ticks = pids.map((pid) => {
    // The name may have spaces and parentheses in it: what follows the last one is regular.
    const fields = readProcess(pid, 'stat')
      .replace(/^.*\) /s, '')
      .split(' ');
    return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  });
  return ticks.reduce((sum, each) => sum + each, 0) / TICKS_PER_SECOND;
}

/** Bytes that the processes have had in memory at most, summed. */
export function peakBytes(pids: readonly number[]): number {
  const sizes = pids.map((pid) => Number(/^VmHWM:\s+(\d+)/m.exec(readProcess(pid, 'status'))?.[1] ?? 0));
  return sizes.reduce((sum, each) => sum + each, 0) * BYTES_PER_KIB;
}

/** Of all CPUs, in the order of the first line of /proc/stat. */
function cpuTicks(): number[] {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  return line.split(/\s+/).slice(1).map(Number);
}

/** Fields of /proc/PID/stat from the third on: a name may have spaces in it, what follows its parenthesis is regular. */
function statOf(pid: number): string[] {
  return readProcess(pid, 'stat')
    .replace(/^.*\) /s, '')
    .split(' ');
}

function readProcess(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
