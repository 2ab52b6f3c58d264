/** What a worker's fault says of the daemon, also of one that has no device. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { StatusView } from '../src/control/status.js';
import { withRig } from './harness/control-rig.js';
import { until } from './harness/hosts.js';

const workerStatus = suite('status of workers');
const CLI = join(import.meta.dirname, '../src/cli/main.js');

/** Exit code and output of `overlayadm status --check`. */
function check(socket: string): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [CLI, '-S', socket, 'status', '--check']);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, output })));
}

workerStatus('a worker that dies without a device: degraded until all run again', () =>
  withRig(async ({ memory }) => {
    const { events, fma, engine } = memory.overlay;
    const seen = () =>
      Array.from({ length: events.last }, (_, index) => events.at(index + 1)!)
        .filter(({ code }) => code === 'workers')
        .map(({ kind, device }) => [kind, device]);
    engine.workers.list[0]!.endThread();
    await until('it is well again', 5000, () => seen().length === 2);
    assert.equal(seen(), [
      ['degraded', undefined],
      ['restored', undefined],
    ]);
    assert.is(fma.processStatus, 'ONLINE');
  }),
);

for (const kind of ['died', 'stuck', 'lost'] as const) {
  workerStatus(`a worker that is ${kind} without a device: status --check ends with 1, then with 0`, () =>
    withRig(async ({ memory, client, socket }) => {
      const { overlay } = memory;
      assert.is((await check(socket)).code, 0);
      const reason = { worker: 0, reason: 'it rains' };
      overlay.reports.onWorker(kind === 'died' ? { ...reason, kind, again: true } : { ...reason, kind });
      const status = await client.get<StatusView>('/v1/status');
      assert.equal(
        [status.status, status.counts.devices, status.counts.faults],
        ['DEGRADED', 0, 1],
        JSON.stringify(status),
      );
      const { code, output } = await check(socket);
      assert.is(code, 1);
      assert.match(output, /^DEGRADED: 0 overlays, .*\n\nLINK .*\n-- +workers +major .*worker 0 .*it rains/);
      overlay.reports.onWorker({ kind: 'replaced', worker: 0, restarts: 1 });
      assert.is((await check(socket)).code, 0);
    }),
  );
}

workerStatus.run();
