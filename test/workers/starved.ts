/** The real loop on a thread to which the scheduler gives what nobody else wants, and which has some way to go before it begins. */
import { execFileSync } from 'node:child_process';
import { pinThread } from '../../src/sys/affinity.js';
import { ownThread, threadState } from '../../src/sys/thread-state.js';
import type { WorkerTask } from '../../workers/context.js';
import { kernel } from '../../workers/kernel.js';
import { runLoop } from '../../workers/loop.js';

export const STARVED_CPU = 0;
/** CPU time that the start takes; 0 by default. */
export const START_CPU_MS = 'OVERLAYD_TEST_START_CPU_MS';

export default function run(task: WorkerTask): void {
  const thread = ownThread();
  pinThread([STARVED_CPU]);
  execFileSync('chrt', ['--idle', '--pid', '0', `${thread}`]);
  const spent = () => threadState(thread)!.cpuMs;
  const begun = spent();
  while (spent() - begun < Number(process.env[START_CPU_MS] ?? 0));
  runLoop(task, kernel);
}
