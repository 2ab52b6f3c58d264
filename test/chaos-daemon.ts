/** What befalls a whole daemon: it is stopped and goes on, has no descriptors left, has a full disk; and many devices. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { allNames } from '../src/cli/pages.js';
import { OverlayError } from '../src/errors.js';
import { Daemon, type Host, Hosts, underlay, until } from './harness/hosts.js';
import { has, testWith } from './harness/needs.js';
import { inRounds, type Moment } from './harness/rounds.js';

const chaos = suite('chaos around the daemon');
const needs = ['root', '/dev/net/tun', 'ping'];
const INNER = { a: '198.51.100.1', b: '198.51.100.2' } as const;
/** As many as the kernel makes and takes away in some seconds; MANY_DEVICES=1024 for all there can be. */
const MANY = Number(process.env.MANY_DEVICES ?? 200);

async function withHosts(work: (hosts: Hosts) => Promise<void>): Promise<void> {
  const hosts = new Hosts();
  try {
    await work(hosts);
  } finally {
    await hosts.close();
  }
}

/** A row, as often as it is asked for. */
function row(needed: readonly string[], name: string, work: (moment: Moment) => Promise<void>): void {
  inRounds(name, (named, moment) => testWith(chaos, needed, named, () => work(moment)));
}

const direct = (vnetid: number, side: 'a' | 'b' = 'a') => ({
  encap: 'vxlan',
  search: 'direct',
  vnetid,
  properties: {
    'vxlan/listen_ip': underlay[4][side],
    'direct/dest_ip': underlay[4][side === 'a' ? 'b' : 'a'],
    'direct/dest_port': 4789,
  },
});

const answers = (host: Host) => host.attempt('ping', '-c', '1', '-W', '1', INNER.b).status === 0;

row(needs, 'SIGSTOP and SIGCONT: it forwards again at once, and no worker is thought dead', (moment) =>
  withHosts(async (hosts) => {
    const daemons = { a: await hosts.daemon('a'), b: await hosts.daemon('b') };
    for (const side of ['a', 'b'] as const) {
      const other = side === 'a' ? 'b' : 'a';
      await daemons[side].createOverlay(hosts[side], 'ov0', 42, underlay[4][side], underlay[4][other]);
      hosts.address(side, 'ov0', `${INNER[side]}/24`);
    }
    assert.ok(answers(hosts.a));
    await moment();
    daemons.a.child.kill('SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, 3000));
    daemons.a.child.kill('SIGCONT');
    await until('traffic', 1000, () => answers(hosts.a));
    const stats = await daemons.a.stats();
    assert.equal(
      stats.workers.map(({ state, restarts }) => [state, restarts]),
      stats.workers.map(() => ['running', 0]),
    );
  }),
);

row([...needs, 'prlimit'], 'no descriptors left: a new device is refused, those there forward', (moment) =>
  withHosts(async (hosts) => {
    const daemons = {
      a: await hosts.daemon('a', { flags: ['--workers', '1'] }),
      b: await hosts.daemon('b'),
    };
    for (const side of ['a', 'b'] as const) {
      const other = side === 'a' ? 'b' : 'a';
      await daemons[side].createOverlay(hosts[side], 'ov0', 42, underlay[4][side], underlay[4][other]);
      hosts.address(side, 'ov0', `${INNER[side]}/24`);
    }
    await moment();
    // What it has open, and a few for connections.
    const open = Number(hosts.a.run('sh', '-c', `ls /proc/${daemons.a.child.pid}/fd | wc -l`));
    hosts.a.run('prlimit', '--pid', `${daemons.a.child.pid}`, `--nofile=${open + 6}:`);
    let refused: unknown;
    let made = 0;
    for (let i = 1; i <= 12 && !refused; i++, made++) {
      await daemons.a.client
        .post('/v1/overlays', { name: `ov${i}`, ...direct(42 + i) })
        .catch((error: unknown) => {
          refused = error;
        });
    }
    assert.instance(refused, OverlayError);
    assert.match((refused as OverlayError).message, /\S+ \S+/);
    assert.ok(answers(hosts.a), 'those that are there forward');
    hosts.a.run('prlimit', '--pid', `${daemons.a.child.pid}`, '--nofile=1024:');
    await daemons.a.client.post('/v1/overlays', { name: 'later', ...direct(99) });
    const names = await allNames(daemons.a.client);
    assert.is(names.length, 1 + (made - 1) + 1, 'nothing is half made');
  }),
);

row(needs, 'a full disk: changes are refused, forwarding goes on', (moment) =>
  withHosts(async (hosts) => {
    if (!has('mount')) throw new Error('mount is part of every system');
    const directory = mkdtempSync(join(hosts.directory, 'full-'));
    const state = join(directory, 'state');
    hosts.a.run('mkdir', state);
    hosts.a.run('mount', '-t', 'tmpfs', '-o', 'size=64k,mode=0700', 'overlayd-test', state);
    try {
      const daemon = await Daemon.start(hosts.a, directory);
      const other = await hosts.daemon('b');
      await daemon.createOverlay(hosts.a, 'ov0', 42, underlay[4].a, underlay[4].b);
      await other.createOverlay(hosts.b, 'ov0', 42, underlay[4].b, underlay[4].a);
      for (const side of ['a', 'b'] as const) hosts.address(side, 'ov0', `${INNER[side]}/24`);
      await moment();
      hosts.a.attempt('dd', 'if=/dev/zero', `of=${join(state, 'filler')}`, 'bs=4k');
      const refused = await daemon.client.post('/v1/overlays', { name: 'ov1', ...direct(43) }).then(
        () => undefined,
        (error: unknown) => error as OverlayError,
      );
      assert.equal([refused?.errno, refused?.code], ['ENOSPC', 'state_failed']);
      assert.throws(() => hosts.a.netlink.getLink('ov1'), undefined, 'nothing is half made');
      assert.ok(answers(hosts.a));
      hosts.a.run('rm', join(state, 'filler'));
      await daemon.client.post('/v1/overlays', { name: 'ov1', ...direct(43) });
      await daemon.stop();
    } finally {
      hosts.a.run('umount', state);
    }
  }),
);

row(needs, `${MANY} devices: the last one forwards, and deleting all keeps nobody waiting`, (moment) =>
  withHosts(async (hosts) => {
    const daemon = await hosts.daemon('a', { flags: ['--workers', '2'] });
    const other = await hosts.daemon('b');
    for (let i = 0; i < MANY; i++) {
      await daemon.client.post('/v1/overlays', { name: `m${i}`, ...direct(i + 1), temporary: i % 2 === 0 });
    }
    const last = `m${MANY - 1}`;
    hosts.address('a', last, `${INNER.a}/24`);
    await other.createOverlay(hosts.b, 'ov0', MANY, underlay[4].b, underlay[4].a);
    hosts.address('b', 'ov0', `${INNER.b}/24`);
    await until('the last one forwards', 5000, () => answers(hosts.a));
    let isOver = false;
    let longest = 0;
    const asking = (async () => {
      for (let turn = 0; !isOver; turn++) {
        const begun = performance.now();
        await (turn % 2 ? daemon.stats() : daemon.client.get('/v1/status'));
        longest = Math.max(longest, performance.now() - begun);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    const waiting = Array.from({ length: MANY }, (_, i) => `m${i}`);
    const remove = async () => {
      for (let name = waiting.shift(); name; name = waiting.shift()) {
        await daemon.client.delete(`/v1/overlays/${name}?force=true`);
      }
    };
    await moment();
    await Promise.all(Array.from({ length: 8 }, remove));
    isOver = true;
    await asking;
    console.log(
      `  ${MANY} devices; while they were deleted an answer took ${Math.round(longest)} ms at most`,
    );
    assert.equal(
      hosts.a.netlink
        .listLinks()
        .map(({ name }) => name)
        .filter((name) => /^m\d/.test(name)),
      [],
    );
  }),
);

chaos.run();
