/**
 * Restarts of the real daemon under traffic: killed, stopped, and becoming itself anew. What must outlive it: the link with
 * its addresses and carrier as the README says, the configuration, the forwarding.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EventSocket } from '../src/sys/netlink/index.js';
import { inNamespace } from '../src/sys/netns.js';
import { Daemon, type Host, Hosts, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const restart = suite('restart');
const DAEMON = join(import.meta.dirname, '../src/daemon/main.js');
const needs = ['root', '/dev/net/tun', 'ping'];
const INNER = { a: '198.51.100.1', b: '198.51.100.2' } as const;

interface Pair {
  readonly hosts: Hosts;
  readonly daemon: Daemon;
  readonly directory: string;
}

async function withPair(work: (pair: Pair) => Promise<void>): Promise<void> {
  const hosts = new Hosts();
  try {
    const directory = mkdtempSync(join(hosts.directory, 'restarted-'));
    const daemon = await Daemon.start(hosts.a, directory);
    const other = await hosts.daemon('b');
    await daemon.createOverlay(hosts.a, 'ov0', 42, underlay[4].a, underlay[4].b);
    await other.createOverlay(hosts.b, 'ov0', 42, underlay[4].b, underlay[4].a);
    for (const side of ['a', 'b'] as const) hosts.address(side, 'ov0', `${INNER[side]}/24`);
    assert.ok(answers(hosts.a), 'traffic before');
    await work({ hosts, daemon, directory });
  } finally {
    await hosts.close();
  }
}

const answers = (host: Host) => host.attempt('ping', '-c', '1', '-W', '1', INNER.b).status === 0;

/** Kills a daemon as a crash would, and waits until it is gone. */
async function kill({ daemon }: Pair): Promise<void> {
  const gone = new Promise((resolve) => daemon.child.once('exit', resolve));
  daemon.child.kill('SIGKILL');
  await gone;
}

/** What an operator sees of the devices, less what counts time. */
async function shown(daemon: Daemon): Promise<unknown> {
  const { overlays } = await daemon.client.get<{
    overlays: Record<string, { properties: unknown; state: string }>;
  }>('/v1/overlays');
  return Object.entries(overlays).map(([name, { properties, state }]) => [name, properties, state]);
}

testWith(
  restart,
  needs,
  'kill -9 under traffic: link, addresses and configuration stay, and it goes on',
  () =>
    withPair(async (pair) => {
      const { hosts, daemon, directory } = pair;
      await daemon.client.put('/v1/overlays/ov0/properties/mtu', { value: 1300 });
      const before = await shown(daemon);
      const { mac, index } = hosts.a.netlink.getLink('ov0');
      hosts.a.start('ping', '-i', '0.01', INNER.b).stdout?.resume();
      await kill(pair);
      const link = hosts.a.netlink.getLink('ov0');
      assert.equal([link.index, link.mac, link.isUp, link.hasCarrier], [index, mac, true, false]);
      assert.ok(existsSync(daemon.socket), 'a dead daemon leaves its socket behind');
      const next = await Daemon.start(hosts.a, directory);
      assert.equal(await shown(next), before);
      assert.equal(
        hosts.a.netlink.listAddresses(index).map(({ address }) => address),
        [`${INNER.a}/24`],
      );
      await until('carrier', 1000, () => hosts.a.netlink.getLink('ov0').hasCarrier);
      await until('traffic', 2000, () => answers(hosts.a));
      await next.stop();
    }),
);

testWith(restart, needs, 'SIGTERM: persistent links stay, temporary ones go', () =>
  withPair(async ({ hosts, daemon, directory }) => {
    const properties = {
      'vxlan/listen_ip': underlay[4].a,
      'direct/dest_ip': underlay[4].b,
      'direct/dest_port': 4789,
    };
    const common = { encap: 'vxlan', search: 'direct', vnetid: 43, properties };
    await daemon.client.post('/v1/overlays', { ...common, name: 'ov1', temporary: true });
    await daemon.stop();
    assert.is(daemon.child.exitCode, 0);
    assert.is(hosts.a.netlink.getLink('ov0').hasCarrier, false);
    assert.throws(() => hosts.a.netlink.getLink('ov1'), /no such device|ENODEV/i);
    const next = await Daemon.start(hosts.a, directory);
    await until('traffic', 2000, () => answers(hosts.a));
    await next.client.delete('/v1/overlays/ov0?force=true');
    assert.throws(() => hosts.a.netlink.getLink('ov0'));
    assert.equal(readdirSync(join(directory, 'state', 'devices')), []);
    await next.stop();
  }),
);

testWith(restart, needs, 'a link that was renamed while no daemon ran is found by its alias', () =>
  withPair(async ({ hosts, daemon, directory }) => {
    const { index } = hosts.a.netlink.getLink('ov0');
    await daemon.stop();
    hosts.a.run('ip', 'link', 'set', 'ov0', 'down');
    hosts.a.run('ip', 'link', 'set', 'ov0', 'name', 'other0');
    hosts.a.run('ip', 'link', 'set', 'other0', 'up');
    const next = await Daemon.start(hosts.a, directory);
    await until('traffic', 3000, () => answers(hosts.a));
    assert.is(hosts.a.netlink.getLink('other0').index, index);
    assert.throws(() => hosts.a.netlink.getLink('ov0'));
    assert.is(await next.state('ov0'), 'started');
    await next.client.delete('/v1/overlays/ov0?force=true');
    assert.throws(() => hosts.a.netlink.getLink('other0'));
    await next.stop();
  }),
);

testWith(
  restart,
  needs,
  'a device whose plugin is not there any more: its link goes with it, or is taken over',
  () =>
    withPair(async ({ hosts, daemon, directory }) => {
      const plugin = ['--plugin', join(import.meta.dirname, 'plugins/good.js')];
      await daemon.stop();
      const first = await Daemon.start(hosts.a, directory, { flags: plugin });
      const properties = { 'vxlan/listen_ip': underlay[4].a, 'good/ip': underlay[4].b };
      for (const [name, vnetid] of [
        ['ov1', 1],
        ['ov2', 2],
      ] as const) {
        await first.client.post('/v1/overlays', { name, encap: 'vxlan', search: 'good', vnetid, properties });
      }
      await first.stop();
      const { index } = hosts.a.netlink.getLink('ov2');
      const next = await Daemon.start(hosts.a, directory);
      assert.match(
        JSON.stringify(await next.client.get('/v1/status')),
        /'ov1' did not come back.*delete-overlay/,
      );
      await next.client.delete('/v1/overlays/ov1');
      assert.throws(() => hosts.a.netlink.getLink('ov1'));
      await next.createOverlay(hosts.a, 'ov2', 2, underlay[4].a, underlay[4].b);
      assert.is(hosts.a.netlink.getLink('ov2').index, index, 'the same link');
      const { status } = await next.client.get<{ status: string }>('/v1/status');
      assert.is(status, 'ONLINE', 'nothing is missing any more');
      assert.equal(readdirSync(join(directory, 'state', 'devices')).sort(), ['ov0.json', 'ov2.json']);
      await next.stop();
    }),
);

testWith(
  restart,
  needs,
  'SIGUSR2: the daemon becomes itself anew, and the link never loses its carrier',
  () =>
    withPair(async ({ hosts, daemon, directory }) => {
      const events = inNamespace(hosts.a.namespace, () => new EventSocket());
      const { pid } = daemon.child;
      const ready = () => daemon.log.split('"ready"').length - 1;
      for (let turn = 1; turn <= 3; turn++) {
        daemon.child.kill('SIGUSR2');
        await until('it is ready again', 10_000, () => ready() === turn + 1);
        await until('traffic', 2000, () => answers(hosts.a));
      }
      const lost = events
        .drain()
        .filter((event) => event.kind === 'link' && event.name === 'ov0' && !event.hasCarrier);
      events.close();
      assert.equal(lost, [], 'carrier changes');
      assert.is(daemon.child.pid, pid);
      assert.is(daemon.child.exitCode, null);
      // Descriptors do not pile up.
      const open = readdirSync(`/proc/${pid}/fd`).length;
      daemon.child.kill('SIGUSR2');
      await until('it is ready again', 10_000, () => ready() === 5);
      assert.is(readdirSync(`/proc/${pid}/fd`).length, open);
      // A second daemon on the same state is refused.
      const words = ['--socket', join(directory, 'other'), '--state-dir', join(directory, 'state')];
      const { status, output } = hosts.a.attempt(process.execPath, DAEMON, ...words);
      assert.is(status, 1);
      assert.match(output, /another overlayd uses/);
    }),
);

testWith(restart, needs, 'SIGUSR2 with a configuration at fault is refused, and nothing stops', async () => {
  const hosts = new Hosts();
  try {
    const file = join(hosts.directory, 'overlayd.yaml');
    writeFileSync(file, 'bank: 3\n');
    const daemon = await hosts.daemon('a', { flags: ['--config', file] });
    const faults = async () => {
      const { faults: all } = await daemon.client.get<{ faults: { code: string }[] }>('/v1/status');
      return all.map(({ code }) => code);
    };
    const { pid } = daemon.child;
    const signal = async (name: NodeJS.Signals, text: string) => {
      const before = daemon.log.split(text).length;
      daemon.child.kill(name);
      await until(text, 10_000, () => daemon.log.split(text).length > before);
    };
    writeFileSync(file, 'bank: 0\n');
    await signal('SIGUSR2', 'restart refused');
    assert.equal(await faults(), ['config_refused']);
    assert.not.match(daemon.log, /starting anew/);
    writeFileSync(file, 'bank: 3\n');
    await signal('SIGHUP', 'configuration reloaded');
    assert.equal(await faults(), []);
    await signal('SIGUSR2', '"ready"');
    assert.is(daemon.child.pid, pid);
    assert.equal(await faults(), []);
  } finally {
    await hosts.close();
  }
});

testWith(restart, needs, 'a link of the name that is not ours is left alone, and the others come back', () =>
  withPair(async (pair) => {
    const { hosts, daemon, directory } = pair;
    const properties = {
      'vxlan/listen_ip': underlay[4].a,
      'direct/dest_ip': underlay[4].b,
      'direct/dest_port': 4789,
    };
    await daemon.client.post('/v1/overlays', {
      name: 'ov1',
      encap: 'vxlan',
      search: 'direct',
      vnetid: 43,
      properties,
    });
    await kill(pair);
    hosts.a.netlink.deleteLink(hosts.a.netlink.getLink('ov1').index);
    hosts.a.netlink.createBridge('ov1');
    writeFileSync(join(directory, 'state', 'devices', 'bad.json'), '{');
    const next = await Daemon.start(hosts.a, directory);
    assert.match(next.log, /'ov1' did not come back: there is a link 'ov1' that is not ours/);
    assert.match(next.log, /bad\.json/);
    assert.is(hosts.a.netlink.getLink('ov1').kind, 'bridge');
    await until('traffic', 2000, () => answers(hosts.a));
    await next.stop();
    hosts.a.netlink.deleteLink(hosts.a.netlink.getLink('ov1').index);
    const last = await Daemon.start(hosts.a, directory);
    // As after a reboot: made anew, with the address it had.
    assert.is(await last.state('ov1'), 'activated');
    const saved = JSON.parse(readFileSync(join(directory, 'state', 'devices', 'ov1.json'), 'utf8')) as object;
    assert.ok(JSON.stringify(saved).includes(hosts.a.netlink.getLink('ov1').mac));
    await last.stop();
  }),
);

restart.run();
