/** A planned restart in its parts: what passes from a program to the one that it becomes, and how the first ends in time. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkProgram } from '../src/daemon/handover.js';
import { until } from './harness/hosts.js';
import { force, HERE, withMemory } from './harness/lifecycle.js';
import { assertRefused, freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { MemoryStore } from './harness/memory-store.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const handover = suite('handover');
const CHILD = join(import.meta.dirname, 'harness/handover-child.js');
const POOL_BYTES = 2 ** 24;

function child(args: readonly string[], env: Record<string, string> = {}) {
  const { pid, stdout, stderr } = spawnSync(process.execPath, [CHILD, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { pid, stdout, stderr };
}

// ─── From program to program ────────────────────────────────────────────────────────────────────────────

handover('as many links as there can be pass on: 64 workers, 1,024 devices', () => {
  for (const count of [1, 24 * 1024, 64 * 1024]) {
    const { pid, stdout, stderr } = child([`${count}`]);
    assert.ok(stdout.length > 0, stderr);
    const given = JSON.parse(stdout) as { links: { ov0: number[] }; lists: number; pid: number };
    assert.equal([given.pid, given.lists], [pid, 0], 'the same process, with no descriptor more');
    assert.equal(given.links, { ov0: Array.from({ length: count }, (_, fd) => 1000 + fd) });
  }
});

handover('a program that cannot be run: said, and the links are for this process alone', () => {
  const { stdout, stderr } = child(['0', '/nonexistent/program']);
  assert.ok(stdout.length > 0, stderr);
  assert.equal(JSON.parse(stdout), { errno: 'ENOENT', inherited: [], lists: 0 });
});

handover('a variable that names no links is refused by name', () => {
  for (const text of ['{"ov0":[3]}', '', '999999', '-1', '/etc/passwd']) {
    const { stderr } = child(['1'], { OVERLAYD_LINKS: text });
    assert.match(stderr, /OVERLAYD_LINKS=.* names no links .*unset it/, text);
  }
});

handover('a program that is gone is known before anything stops', async () => {
  checkProgram();
  const [, script] = process.argv;
  process.argv[1] = '/nonexistent/main.js';
  try {
    await assertRefused(() => checkProgram(), 'ENOENT', 'program_gone', /not where it was/);
  } finally {
    process.argv[1] = script!;
  }
});

// ─── In bounded time ────────────────────────────────────────────────────────────────────────────────────

const dynamic = (name: string, vnetid: number, port: number) => ({
  name,
  encap: 'vxlan',
  search: 'scripted',
  vnetid,
  properties: { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port },
});

handover('a device that something hangs on: after the time, every link that is kept passes on', async () => {
  const releases: (() => void)[] = [];
  const hanging = new ScriptedLookup(() => 'drop', {
    start: () => new Promise<void>((resolve) => void releases.push(resolve)),
  });
  const store = new MemoryStore();
  const memory = await MemoryOverlay.start({ plugins: [hanging], poolBytes: POOL_BYTES, store });
  const { overlay, links } = memory;
  const port = await freePort(HERE);
  await overlay.createOverlay(request('ov0', 1, port));
  await memory.up('ov0');
  await overlay.createOverlay({ ...request('ov1', 2, port), isTemporary: true });
  await overlay.create('ov2', 'vxlan', 'scripted', 3);
  await overlay.setprop('ov2', 'vxlan/listen_ip', HERE);
  const activation = overlay.activate('ov2');
  const creation = overlay.createOverlay(dynamic('ov3', 4, port));
  const fds = await overlay.handOver(100);
  assert.equal(
    fds,
    { ov0: links.get('ov0').fds, ov2: links.get('ov2').fds },
    'neither a temporary one nor one that has not come about',
  );
  assert.equal(overlay.busy.filter((name) => name !== 'ov0' && name !== 'ov1').toSorted(), ['ov2', 'ov3']);
  // In a daemon the process is another by now; here it ends.
  for (const release of releases) release();
  await Promise.allSettled([activation, creation]);
  await until('it has ended', 10_000, () =>
    overlay.engine.workers.list.every(({ state }) => state === 'stopped'),
  );
  for (const name of ['ov0', 'ov2']) await links.get(name).release();
});

handover('winding up: a start is broken off, none begins, and an end that hangs ends', async () => {
  let hangs = true;
  let starts = 0;
  const never = () => new Promise<void>(() => {});
  const plugin = new ScriptedLookup(() => 'drop', {
    start: () => {
      starts++;
      return hangs ? never() : undefined;
    },
    stop: never,
  });
  await withMemory(
    async ({ overlay, varpd, links }) => {
      const port = await freePort(HERE);
      hangs = false;
      await overlay.createOverlay(dynamic('ov0', 1, port));
      hangs = true;
      const slow = overlay.createOverlay(dynamic('ov1', 2, port));
      const ending = overlay.delete('ov0', force);
      await until('it is being started', 5000, () => starts === 2);
      varpd.windUp();
      await assertRefused(slow, 'ECANCELED', 'daemon_ends', /start of .*'scripted' was broken off/);
      await assertRefused(overlay.createOverlay(dynamic('ov2', 3, port)), 'ECANCELED', 'daemon_ends');
      assert.is(starts, 2, 'no other was begun');
      await ending;
      assert.equal([overlay.names, links.unreleased], [[], []]);
    },
    { plugins: [plugin], poolBytes: POOL_BYTES },
  );
});

handover.run();
