/** Workers to which the machine gives no CPU are told from those that hang, and left alone. */
import { type ChildProcess, spawn } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Finding, Watch } from '../src/datapath/watch.js';
import {
  SUPERVISE_MS,
  WORKER_FED_MS,
  WORKER_SPIN_CPU_MS,
  WORKER_START_MS_MAX,
  WORKER_STUCK_MS,
} from '../src/limits.js';
import { until } from './harness/hosts.js';
import { freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { START_CPU_MS, STARVED_CPU } from './workers/starved.js';

const starved = suite('starved workers');
const entry = new URL('./workers/starved.js', import.meta.url);
const HERE = '127.0.0.1';
const WAIT_MS_MAX = 60_000;

/** Finding of a watch when the kernel says these things one after the other, from when it was last seen to move. */
function findingOf(states: readonly { letter: string; cpuMs: number }[]): Finding {
  const watch = new Watch();
  let finding: Finding = 'moving';
  for (const [index, state] of states.entries()) {
    const now = index * SUPERVISE_MS;
    finding = watch.look(now, now, () => state);
    if (finding !== 'moving') return finding;
  }
  return finding;
}

const LOOKS = 100;
const looks = (stateOf: (look: number) => { letter: string; cpuMs: number }) =>
  findingOf(Array.from({ length: LOOKS }, (_, look) => stateOf(look)));

starved('what a thread that does not move is doing', () => {
  assert.is(
    looks(() => ({ letter: 'R', cpuMs: 7 })),
    'starved',
    'ready to run all the time, and given nothing',
  );
  assert.is(
    looks((look) => ({ letter: 'R', cpuMs: look * 0.1 })),
    'starved',
    'given a little',
  );
  assert.is(
    looks((look) => ({ letter: 'R', cpuMs: look * WORKER_SPIN_CPU_MS })),
    'spinning',
  );
  assert.is(
    looks(() => ({ letter: 'S', cpuMs: 7 })),
    'blocked',
  );
  assert.is(
    looks(() => ({ letter: 'D', cpuMs: 7 })),
    'blocked',
  );
  assert.is(
    looks((look) => ({ letter: look % 2 === 0 ? 'S' : 'R', cpuMs: 7 })),
    'starved',
    'it is woken, and waits for a CPU in between',
  );
  for (const letter of ['T', 't']) {
    assert.is(
      looks(() => ({ letter, cpuMs: 7 })),
      'moving',
      'stopped by somebody',
    );
  }
  const watch = new Watch();
  const unknown = () => undefined;
  assert.is(watch.look(WORKER_STUCK_MS, 0, unknown), 'moving');
  assert.is(watch.look(WORKER_STUCK_MS + 1, 0, unknown), 'silent', 'where the kernel says nothing');
});

/** A process that wants all of the CPU. */
class Glutton {
  readonly #child: ChildProcess;
  readonly #gone: Promise<unknown>;

  private constructor(nice: number) {
    const spin = ['taskset', '-c', `${STARVED_CPU}`, process.execPath, '-e', 'console.log();for(;;);'];
    const [program, ...args] = nice === 0 ? spin : ['nice', '-n', `${nice}`, ...spin];
    this.#child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#gone = new Promise((resolve) => this.#child.once('close', resolve));
  }

  static async start(nice: number): Promise<Glutton> {
    const glutton = new Glutton(nice);
    await new Promise((resolve) => glutton.#child.stdout!.once('data', resolve));
    return glutton;
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#gone;
  }
}

const needs = ['root', 'chrt', 'taskset', 'nice'];

testWith(
  starved,
  needs,
  'a worker without CPU is no fault of its own: it is said, not replaced, and goes on',
  async () => {
    const memory = await MemoryOverlay.start({ entry });
    let glutton: Glutton | undefined;
    try {
      const { overlay } = memory;
      await overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
      await memory.up('ov0');
      const worker = overlay.engine.workers.list[0]!;
      const { arena } = worker.queue;
      const kinds = () =>
        Array.from({ length: overlay.events.last }, (_, index) => overlay.events.at(index + 1)!)
          .filter(({ kind }) => kind === 'worker')
          .map(({ text }) => text);
      glutton = await Glutton.start(-20);
      await until('it is starved', WAIT_MS_MAX, () => worker.condition === 'starved');
      assert.match(overlay.status('ov0').message, /worker 0 is starved: .*no CPU.*load.*CPU limit of/);
      assert.is(overlay.fma.processStatus, 'DEGRADED');
      assert.is(overlay.workerStats()[0]!.state, 'starved');
      assert.ok(worker.starvations > 0);
      // Longer than one that hangs is given.
      await new Promise((resolve) => setTimeout(resolve, 3 * WORKER_STUCK_MS));
      assert.equal([worker.state, worker.restarts, worker.queue.arena], ['running', 0, arena]);
      await glutton.stop();
      glutton = undefined;
      await until('it is well', WAIT_MS_MAX, () => worker.condition === 'running');
      assert.is(overlay.status('ov0').status, 'ONLINE');
      assert.equal(kinds()[0], 'worker 0 is starved');
      assert.equal(kinds().at(-1), 'worker 0 is fed');
      assert.not.ok(
        kinds().some((text) => /stuck|died|replaced|lost/.test(text)),
        kinds().join(),
      );
    } finally {
      await glutton?.stop();
      await memory.close();
    }
  },
);

testWith(starved, needs, 'a start without CPU takes as long as it takes', async () => {
  process.env[START_CPU_MS] = '200';
  const glutton = await Glutton.start(0);
  try {
    const begun = performance.now();
    const starting = MemoryOverlay.start({ entry });
    setTimeout(() => void glutton.stop(), WORKER_START_MS_MAX + WORKER_FED_MS);
    const memory = await starting;
    const ms = performance.now() - begun;
    await memory.close();
    assert.ok(ms > WORKER_START_MS_MAX, `it took longer than a start may otherwise: ${ms} ms`);
  } finally {
    delete process.env[START_CPU_MS];
    await glutton.stop();
  }
});

starved.run();
