/**
 * How the daemon ends, by SIGTERM and by SIGUSR2, when something is in the way: a plugin that hangs, a signal that comes
 * while it starts, a configuration or a program that the next start would fail of.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { StatusView } from '../src/control/status.js';
import { every, isOverWithin } from '../src/sys/clock.js';
import { EventSocket } from '../src/sys/netlink/index.js';
import { inNamespace } from '../src/sys/netns.js';
import { udpSocket } from './harness/guest.js';
import { Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { Stalls } from './harness/stalls.js';

const ending = suite('the end of the daemon');
const needs = ['root', '/dev/net/tun'];
const plugins = join(import.meta.dirname, 'plugins');
/** The bound of the daemon is some 4 s; a start on a busy machine takes a few more. */
const MS_MAX = 15_000;

interface Scene {
  readonly hosts: Hosts;
  readonly daemon: Daemon;
  /** How often it has been ready. */
  ready(): number;
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>;
  /** Links that have lost their carrier since the last call. */
  lost(): string[];
}

async function withDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-ending-'));
  try {
    await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A daemon with ov0, which is up. */
async function withDaemon(
  options: { flags?: readonly string[]; nodeFlags?: readonly string[] },
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const hosts = new Hosts();
  const directory = mkdtempSync(join(hosts.directory, 'ending-'));
  try {
    const { flags = [], nodeFlags = [] } = options;
    const small = ['--workers', '1', '--memory', '64M', ...flags];
    const daemon = await Daemon.start(hosts.a, directory, { flags: small, nodeFlags });
    const ended = new Promise<number | null>((resolve) => daemon.child.once('exit', resolve));
    await daemon.createOverlay(hosts.a, 'ov0', 42, underlay[4].a, underlay[4].b);
    const events = inNamespace(hosts.a.namespace, () => new EventSocket());
    const lost = () =>
      events
        .drain()
        .flatMap((event) =>
          event.kind === 'link' && event.isUp && !event.hasCarrier && !event.deleted ? [event.name] : [],
        );
    const ready = () => daemon.log.split('"ready"').length - 1;
    await until('it is ready', MS_MAX, () => ready() === 1);
    await work({ hosts, daemon, ready, ended, lost });
    events.close();
  } finally {
    await hosts.close();
  }
}

function create(daemon: Daemon, name: string, vnetid: number, search: string, more: object = {}) {
  const properties = { 'vxlan/listen_ip': underlay[4].a, ...more };
  return daemon.client.post('/v1/overlays', { name, encap: 'vxlan', search, vnetid, properties });
}

/** A device whose plugin does not end, and one whose plugin does not start, which is being created. */
async function hang(daemon: Daemon): Promise<void> {
  await create(daemon, 'ov1', 1, 'hangs', { 'hangs/at': 'stop' });
  create(daemon, 'ov2', 2, 'hangs', { 'hangs/at': 'start' }).catch(() => {});
  await until('ov2 is being created', MS_MAX, () =>
    daemon.state('ov2').then(
      (state) => state === 'created',
      () => false,
    ),
  );
}

// ─── A plugin that hangs ────────────────────────────────────────────────────────────────────────────────

const hanging = { flags: ['--plugin', join(plugins, 'hangs.js')] };

testWith(ending, needs, 'SIGUSR2 while plugins hang at start and end: no link loses its carrier', () =>
  withDaemon(hanging, async ({ hosts, daemon, ready, lost }) => {
    await hang(daemon);
    daemon.child.kill('SIGUSR2');
    await until('it is ready again', MS_MAX, () => ready() === 2 || daemon.child.exitCode !== null);
    assert.is(daemon.child.exitCode, null, daemon.log);
    assert.equal(lost(), []);
    const { overlays } = await daemon.client.get<{ overlays: object }>('/v1/overlays');
    assert.equal(Object.keys(overlays), ['ov0', 'ov1'], 'what was half made is not kept');
    assert.throws(() => hosts.a.netlink.getLink('ov2'));
    assert.match(daemon.log, /the end of 'hangs' was broken off/);
  }),
);

testWith(ending, needs, 'SIGTERM while plugins hang at start and end: it ends, with 0', () =>
  withDaemon(hanging, async ({ daemon, ended }) => {
    await hang(daemon);
    daemon.child.kill('SIGTERM');
    assert.is(await ended, 0, daemon.log);
    assert.match(daemon.log, /"stopped"/);
  }),
);

testWith(ending, needs, 'SIGTERM while a restart waits for a plugin: the stop wins', () =>
  withDaemon(hanging, async ({ daemon, ended, ready }) => {
    await hang(daemon);
    daemon.child.kill('SIGUSR2');
    await until('the restart has begun', MS_MAX, () => daemon.log.includes('"restarting"'));
    daemon.child.kill('SIGTERM');
    assert.is(await ended, 0, daemon.log);
    assert.is(ready(), 1, daemon.log);
  }),
);

/** A daemon that does not break a plugin's start off, as if something else hung that nobody can. */
function withStubborn(work: (scene: Scene) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    const preload = join(directory, 'preload.mjs');
    const varpd = join(import.meta.dirname, '../src/varpd/varpd.js');
    const text = `import { Varpd } from ${JSON.stringify(varpd)};\nVarpd.prototype.windUp = () => {};\n`;
    writeFileSync(preload, text);
    await withDaemon({ ...hanging, nodeFlags: ['--import', preload] }, work);
  });
}

testWith(ending, needs, 'SIGUSR2 while something hangs that cannot be broken off: handed over in time', () =>
  withStubborn(async ({ daemon, ready, lost }) => {
    await hang(daemon);
    daemon.child.kill('SIGUSR2');
    await until('it is ready again', MS_MAX, () => ready() === 2 || daemon.child.exitCode !== null);
    assert.is(daemon.child.exitCode, null, daemon.log);
    assert.match(daemon.log, /"busy":\["ov2"\].*handed over all the same/);
    assert.equal(lost(), []);
  }),
);

testWith(ending, needs, 'SIGTERM while something hangs that cannot be broken off: 1, and what it was', () =>
  withStubborn(async ({ daemon, ended }) => {
    await hang(daemon);
    daemon.child.kill('SIGTERM');
    assert.is(await ended, 1, daemon.log);
    assert.match(daemon.log, /stopped although not everything has ended in time: what is done to ov2"/);
  }),
);

// ─── A plugin's thread that nobody can break off ────────────────────────────────────────────────────────

const blocking: { flags: string[]; nodeFlags: string[] } = {
  flags: ['--plugin', join(plugins, 'blocks.js')],
  nodeFlags: [],
};
/** The ending's bound of some 4 s, and what a machine with much else to do adds. */
const GONE_MS_MAX = 10_000;

/** A daemon whose plugin's thread is in a call that does not return; `way` is one of the plugin's. */
function withBlocked(way: string, work: (scene: Scene) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    execFileSync('mkfifo', [join(directory, 'fifo')]);
    writeFileSync(join(directory, 'locked'), '');
    const holder = spawn('flock', [join(directory, 'locked'), 'sleep', '1000'], { detached: true });
    try {
      await withDaemon(blocking, async (scene) => {
        const { daemon, hosts } = scene;
        await create(daemon, 'ov1', 1, 'blocks', { 'blocks/at': `${way}:${directory}` });
        hosts.address('a', 'ov1', '198.51.100.1/24');
        await until('ov1 is started', MS_MAX, async () => (await daemon.state('ov1')) === 'started');
        const socket = udpSocket({ host: hosts.a, link: 'ov1', inner: { 4: '198.51.100.1', 6: '::' } }, 4);
        socket.on('error', () => {});
        const send = every(50, () => socket.send('x', 9, '198.51.100.9'));
        await until('the plugin is blocked', MS_MAX, () => existsSync(join(directory, 'blocked')));
        send();
        socket.close();
        await work(scene);
      });
    } finally {
      process.kill(-holder.pid!, 'SIGKILL');
      const child = existsSync(join(directory, 'child'))
        ? readFileSync(join(directory, 'child'), 'utf8')
        : '';
      if (child !== '') process.kill(Number(child), 'SIGKILL');
    }
  });
}

/** Throws unless it is gone in time; then kills it, so that the test ends. */
async function goneCode({ daemon, ended }: Scene): Promise<number | null> {
  const isGone = await isOverWithin(ended, GONE_MS_MAX);
  if (!isGone) daemon.child.kill('SIGKILL');
  assert.ok(isGone, `it is still there: ${daemon.log}`);
  return ended;
}

for (const way of ['fifo', 'child', 'flock', 'engine', 'memory']) {
  testWith(ending, needs, `SIGTERM while a plugin's thread is in a call (${way}): gone, with 0`, () =>
    withBlocked(way, async (scene) => {
      scene.daemon.child.kill('SIGTERM');
      await until('it is stopping', MS_MAX, () => scene.daemon.log.includes('"stopping"'));
      scene.daemon.child.kill('SIGTERM');
      assert.is(await goneCode(scene), 0, scene.daemon.log);
      assert.match(scene.daemon.log, /"stopped"\}\n$/);
    }),
  );
}

for (const way of ['fifo', 'engine']) {
  testWith(ending, needs, `SIGUSR2 while a plugin's thread is in a call (${way}): the program anew`, () =>
    withBlocked(way, async ({ daemon, ready, lost }) => {
      daemon.child.kill('SIGUSR2');
      await until('it is ready again', MS_MAX, () => ready() === 2 || daemon.child.exitCode !== null);
      assert.is(daemon.child.exitCode, null, daemon.log);
      assert.equal(lost(), []);
    }),
  );
}

testWith(ending, needs, 'a defect of ours while a plugin’s thread is in a call: gone, with 1', () =>
  withDirectory(async (directory) => {
    const preload = join(directory, 'preload.cjs');
    writeFileSync(preload, "process.on('SIGWINCH', () => { throw new Error('a defect'); });\n");
    blocking.nodeFlags = ['--require', preload];
    try {
      await withBlocked('fifo', async (scene) => {
        scene.daemon.child.kill('SIGWINCH');
        assert.is(await goneCode(scene), 1, scene.daemon.log);
        assert.match(scene.daemon.log, /Error: a defect/);
      });
    } finally {
      blocking.nodeFlags = [];
    }
  }),
);

testWith(ending, needs, 'SIGTERM to a main thread that never comes back: the kernel ends it within 4 s', () =>
  withDirectory(async (directory) => {
    const preload = join(directory, 'preload.cjs');
    writeFileSync(preload, "process.on('SIGTERM', () => setImmediate(() => { for (;;); }));\n");
    await withDaemon({ nodeFlags: ['--require', preload] }, async (scene) => {
      const begun = performance.now();
      scene.daemon.child.kill('SIGTERM');
      assert.is(await goneCode(scene), null, scene.daemon.log);
      assert.is(scene.daemon.child.signalCode, 'SIGALRM');
      // The kernel keeps the bound of 4 s and 50 ms a device; the rest is for the test to hear of it.
      assert.ok(performance.now() - begun < 4500);
    });
  }),
);

testWith(ending, needs, 'SIGUSR1 opens no debugger, and nothing stops', () =>
  withDaemon({}, async ({ daemon }) => {
    daemon.child.kill('SIGUSR1');
    daemon.child.kill('SIGHUP');
    await until('the next signal is acted on', MS_MAX, () => /reload/.test(daemon.log));
    assert.is(await daemon.state('ov0'), 'started');
    assert.not.match(daemon.log, /Debugger listening/);
  }),
);

// ─── Signals that come while it starts ──────────────────────────────────────────────────────────────────

/** A daemon with a device whose plugin stalls when it is told to. */
async function withStalls(work: (scene: Scene, stalls: Stalls) => Promise<void>): Promise<void> {
  await withDirectory(async (directory) => {
    const stalls = new Stalls(directory);
    await withDaemon({ flags: ['--plugin', stalls.module] }, async (scene) => {
      await create(scene.daemon, 'ov1', 1, 'stalls');
      await work(scene, stalls);
    });
  });
}

testWith(ending, needs, 'SIGUSR2 while it starts: done when it can be, and the carrier stays', () =>
  withStalls(async ({ daemon, ready, lost }, stalls) => {
    // Before there is anything: its plugins are being loaded.
    stalls.hold('import');
    daemon.child.kill('SIGUSR2');
    await until('it starts anew', MS_MAX, () => stalls.count('import') === 2);
    daemon.child.kill('SIGUSR2');
    stalls.release('import');
    await until('it starts once more', MS_MAX, () => stalls.count('import') === 3);
    await until('it is ready', MS_MAX, () => ready() === 2);
    // While devices are brought back: the plugin of one does not start.
    stalls.hold('start');
    const starts = stalls.count('start');
    daemon.child.kill('SIGUSR2');
    await until('ov1 is being brought back', MS_MAX, () => stalls.count('start') === starts + 1);
    daemon.child.kill('SIGUSR2');
    await until('it starts once more', MS_MAX, () => stalls.count('start') === starts + 2);
    stalls.release('start');
    await until('it is ready', MS_MAX, () => ready() === 3);
    assert.is(stalls.count('import'), 5);
    assert.is(daemon.child.exitCode, null, daemon.log);
    assert.equal(lost(), []);
  }),
);

for (const [stage, when] of [
  ['import', 'its plugins are loaded'],
  ['start', 'devices are brought back'],
] as const) {
  testWith(ending, needs, `SIGTERM while ${when}: it ends, with 0`, () =>
    withStalls(async ({ daemon, ended }, stalls) => {
      stalls.hold(stage);
      const before = stalls.count(stage);
      daemon.child.kill('SIGUSR2');
      await until('it starts anew', MS_MAX, () => stalls.count(stage) === before + 1);
      daemon.child.kill('SIGTERM');
      assert.is(await ended, 0, daemon.log);
      assert.is(daemon.child.signalCode, null);
    }),
  );
}

// ─── What the next start would fail of ──────────────────────────────────────────────────────────────────

testWith(ending, needs, 'SIGUSR2 with a faulty configuration: events say it, and nothing stops', () =>
  withDirectory(async (directory) => {
    const file = join(directory, 'overlayd.yaml');
    writeFileSync(file, 'logLevel: info\n');
    await withDaemon({ flags: ['--config', file] }, async ({ daemon, lost }) => {
      const status = () => daemon.client.get<StatusView>('/v1/status');
      const before = await status();
      writeFileSync(file, 'bank: 0\n');
      daemon.child.kill('SIGUSR2');
      await until('it is refused', MS_MAX, () => daemon.log.includes('restart refused'));
      const after = await status();
      assert.equal([after.pid, after.devices.ov0?.state], [before.pid, 'started']);
      assert.match(after.faults[0]!.text, /^the restart was refused: .*overlayd\.yaml:1:7: bank/);
      let events = '';
      for await (const line of daemon.client.lines(`/v1/events?since=${before.event}`)) events += line;
      assert.match(events, /"kind":"config-refused"/);
      assert.not.match(events, /daemon-stopping/);
      assert.equal(lost(), []);
    });
  }),
);

testWith(ending, needs, 'a program that is not there, or is none: refused, or ended with the reason', () =>
  withDirectory(async (directory) => {
    const program = join(directory, 'node');
    const preload = join(directory, 'preload.cjs');
    writeFileSync(preload, `process.execPath = ${JSON.stringify(program)};\n`);
    await withDaemon({ nodeFlags: ['--require', preload] }, async ({ daemon, ended }) => {
      daemon.child.kill('SIGUSR2');
      await until('it is refused', MS_MAX, () => daemon.log.includes('restart refused'));
      assert.match(daemon.log, /restart: the program is not where it was: .*ENOENT/);
      assert.is(await daemon.state('ov0'), 'started');
      // Of no format that the kernel knows.
      writeFileSync(program, 'no program\n', { mode: 0o755 });
      daemon.child.kill('SIGUSR2');
      assert.is(await ended, 1);
      assert.match(daemon.log, /the daemon cannot start anew and has stopped: .*ENOEXEC/);
    });
  }),
);

ending.run();
