/**
 * VNICs: real TAPs with macvlans in named network namespaces, two hosts with an underlay between them; and what needs no
 * rights, on memory ports.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { showVnics } from '../src/cli/vnic.js';
import type { VnicView } from '../src/control/view.js';
import { OverlayError } from '../src/errors.js';
import { namespaceNameFault, type Space } from '../src/overlay/space.js';
import { TapVnics } from '../src/overlay/tap-vnics.js';
import { closeFd } from '../src/sys/fd.js';
import { Netlink } from '../src/sys/netlink/index.js';
import { createNamespace, inNamespace } from '../src/sys/netns.js';
import type { Port } from '../src/sys/port.js';
import { capture } from './harness/capture.js';
import { Daemon, type Host, Hosts, underlay, until } from './harness/hosts.js';
import { assertRefused, freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { type TestVnics, withVnics } from './harness/test-vnics.js';

const vnics = suite('VNICs');
const needs = ['root', '/dev/net/tun', 'ip', 'ping'];
const CLI = join(import.meta.dirname, '../src/cli/main.js');
const PREFIX = `ov${process.pid}`;
const zone = (part: string) => `${PREFIX}${part}`;
/** Of the test that looks for descriptors. */
const ROUNDS = 30;
const small = ['--workers', '1', '--memory', '64M'];

function ip(...words: string[]): void {
  execFileSync('ip', words, { stdio: ['ignore', 'ignore', 'pipe'] });
}

const inside = (netns: string, ...words: string[]) => ip('-n', netns, ...words);

/** True when three pings in a row are answered. */
function pings(netns: string, to: string, ...flags: string[]): boolean {
  const words = ['netns', 'exec', netns, 'ping', '-c', '3', '-i', '0.05', '-W', '1', ...flags, to];
  return spawnSync('ip', words, { stdio: 'ignore' }).status === 0;
}

interface Link {
  readonly ifname: string;
  readonly address: string;
  readonly mtu: number;
  readonly flags: readonly string[];
}

/** Links of a namespace by name, as ip shows them. */
function linksOf(netns: string): Map<string, Link> {
  const text = execFileSync('ip', ['-n', netns, '-j', 'link'], { encoding: 'utf8' });
  return new Map((JSON.parse(text) as Link[]).map((link) => [link.ifname, link]));
}

function address(netns: string, link: string, cidr: string): void {
  inside(netns, 'link', 'set', link, 'up');
  inside(netns, 'address', 'add', cidr, 'dev', link, 'nodad');
}

interface Scene {
  readonly hosts: Hosts;
  readonly a: Daemon;
  readonly b: Daemon;
}

/** Zones 1 and 2 for host a, 3 for host b; a daemon with overlay ov0 on each. */
async function withScene(work: (scene: Scene) => Promise<void>): Promise<void> {
  const zones = ['1', '2', '3'].map(zone);
  const hosts = new Hosts();
  try {
    for (const each of zones) ip('netns', 'add', each);
    const daemon = async (side: 'a' | 'b') => {
      const started = await hosts.daemon(side, { flags: small });
      await started.client.post('/v1/overlays', overlay('ov0', 42, side));
      return started;
    };
    await work({ hosts, a: await daemon('a'), b: await daemon('b') });
  } finally {
    await hosts.close();
    for (const each of zones) spawnSync('ip', ['netns', 'delete', each], { stdio: 'ignore' });
  }
}

const overlay = (name: string, vnetid: number, side: 'a' | 'b') => ({
  name,
  encap: 'vxlan',
  search: 'direct',
  vnetid,
  properties: {
    'vxlan/listen_ip': underlay[4][side],
    'direct/dest_ip': underlay[4][side === 'a' ? 'b' : 'a'],
    'direct/dest_port': 4789,
  },
});

function adm(daemon: Daemon, ...args: string[]): { status: number; out: string; error: string } {
  const done = spawnSync(process.execPath, [CLI, '-S', daemon.socket, ...args], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  return { status: done.status ?? -1, out: done.stdout, error: done.stderr };
}

function administer(daemon: Daemon, ...args: string[]): string {
  const { status, out, error } = adm(daemon, ...args);
  assert.is(status, 0, `${args.join(' ')}: ${error}`);
  return out;
}

async function list(daemon: Daemon): Promise<readonly VnicView[]> {
  return (await daemon.client.get<{ vnics: VnicView[] }>('/v1/vnics')).vnics;
}

const create = (daemon: Daemon, body: object) =>
  daemon.client.post<{ vnic: VnicView; link_taken_up: boolean }>('/v1/vnics', { overlay: 'ov0', ...body });

/** VNICs v1 and v2 in zones 1 and 2 on a, v3 in zone 3 on b, with addresses 198.51.100.1 to .3. */
async function populate({ a, b }: Scene): Promise<void> {
  for (const [index, daemon] of [a, a, b].entries()) {
    const netns = zone(`${index + 1}`);
    await create(daemon, { name: `v${index + 1}`, netns, mac: `2:8:20:0:0:${index + 1}` });
    address(netns, `v${index + 1}`, `198.51.100.${index + 1}/24`);
    inside(netns, 'link', 'set', 'lo', 'up');
  }
  for (const daemon of [a, b])
    await until('started', 5000, async () => (await daemon.state('ov0')) === 'started');
}

/** Every VNIC reaches every other one. */
function assertMesh(flags: readonly string[] = []): void {
  for (const from of [1, 2, 3]) {
    for (const to of [1, 2, 3]) {
      if (from === to) continue;
      assert.ok(pings(zone(`${from}`), `198.51.100.${to}`, ...flags), `${from} to ${to} ${flags.join(' ')}`);
    }
  }
}

// ─── With the kernel ────────────────────────────────────────────────────────────────────────────────────

testWith(
  vnics,
  needs,
  'three VNICs in zones on two hosts: the link is taken up, all reach each other, show-vnic',
  () =>
    withScene(async (scene) => {
      const { a, b, hosts } = scene;
      assert.is(hosts.a.netlink.getLink('ov0').isUp, false);
      const first = administer(a, 'create-vnic', '-l', 'ov0', '-n', zone('1'), '-m', '2:8:20:0:0:1', 'v1');
      assert.is(first, 'ov0 was down and has been taken up\n');
      assert.is(administer(a, 'create-vnic', '-l', 'ov0', '-n', zone('2'), '-m', '2:8:20:0:0:2', 'v2'), '');
      const json = JSON.parse(administer(b, 'create-vnic', '-l', 'ov0', '-n', zone('3'), '--json', 'v3'));
      assert.is(json.link_taken_up, true);
      assert.match(json.vnic.mac, /^.[26ae](:..){5}$/, 'a local unicast address');
      for (const index of [1, 2, 3]) address(zone(`${index}`), `v${index}`, `198.51.100.${index}/24`);
      for (const daemon of [a, b]) {
        await until('started', 5000, async () => (await daemon.state('ov0')) === 'started');
      }
      assertMesh();
      assertMesh(['-s', '1372', '-M', 'do']);

      await create(a, { name: 'v4' });
      const table = administer(a, 'show-vnic').trimEnd().split('\n');
      assert.equal(table[0]!.split(/ +/), [
        'LINK',
        'OVER',
        'SPEED',
        'MACADDRESS',
        'MACADDRTYPE',
        'VID',
        'NETNS',
      ]);
      const v4 = (await list(a)).find(({ name }) => name === 'v4')!;
      assert.equal(
        table.slice(1).map((line) => line.split(/ +/)),
        [
          ['v4', 'ov0', '0', v4.mac.replace(/\b0(?=[0-9a-f]\b)/g, ''), 'random', '0', '--'],
          ['v1', 'ov0', '0', '2:8:20:0:0:1', 'fixed', '0', zone('1')],
          ['v2', 'ov0', '0', '2:8:20:0:0:2', 'fixed', '0', zone('2')],
        ],
      );
      assert.is(
        administer(a, 'show-vnic', '-p', '-o', 'link,netns,mtu,state', 'v1'),
        `v1:${zone('1')}:1446:up\n`,
      );
      assert.is(JSON.parse(administer(a, 'show-vnic', '--json', '-l', 'ov0')).vnics.length, 3);
      const absent = adm(a, 'show-vnic', '-p', '-o', 'link', 'v2', 'nope');
      assert.equal([absent.status, absent.out], [3, 'v2\n']);
      assert.match(absent.error, /there is no VNIC 'nope'/);
      assert.is(adm(a, 'show-vnic', '-p').status, 2);
      assert.is(adm(a, 'show-vnic', '-l', 'nope').status, 3);
      assert.is(adm(a, 'create-vnic', 'v9').status, 2, 'without -l');

      for (const name of ['v1', 'v2', 'v4']) administer(a, 'delete-vnic', name);
      assert.equal(await list(a), []);
      assert.is(linksOf(zone('1')).has('v1'), false);
      assert.is(adm(a, 'delete-vnic', 'v1').status, 3);
    }),
);

testWith(
  vnics,
  [...needs, 'tcpdump'],
  'unicast between VNICs of one overlay never reaches the wire; broadcast does both',
  () =>
    withScene(async (scene) => {
      await populate(scene);
      assertMesh();
      const local = await capture(scene.hosts.a, 'udp port 4789');
      // Neighbours are known, so that all of this is unicast.
      for (const [from, to] of [
        [1, 2],
        [2, 1],
      ] as const) {
        const mac = `02:08:20:00:00:0${to}`;
        inside(
          zone(`${from}`),
          'neighbour',
          'replace',
          `198.51.100.${to}`,
          'lladdr',
          mac,
          'dev',
          `v${from}`,
          'nud',
          'permanent',
        );
      }
      assert.ok(pings(zone('1'), '198.51.100.2', '-s', '1000'));
      assert.ok(pings(zone('2'), '198.51.100.1', '-s', '1000'));
      const stillUnicast = await local();
      assert.is(
        /198\.51\.100\.1 > 198\.51\.100\.2|198\.51\.100\.2 > 198\.51\.100\.1/.test(stillUnicast),
        false,
        stillUnicast,
      );

      const wire = await capture(scene.hosts.a, 'udp port 4789');
      for (const each of [2, 3]) {
        const sysctl = 'net.ipv4.icmp_echo_ignore_broadcasts=0';
        execFileSync('ip', ['netns', 'exec', zone(`${each}`), 'sysctl', '-qw', sysctl]);
      }
      const words = [
        'netns',
        'exec',
        zone('1'),
        'ping',
        '-b',
        '-c',
        '3',
        '-i',
        '0.2',
        '-W',
        '1',
        '198.51.100.255',
      ];
      const answers = spawnSync('ip', words, { encoding: 'utf8' }).stdout;
      assert.match(answers, /from 198\.51\.100\.2/, 'the VNIC beside it heard the broadcast');
      assert.match(answers, /from 198\.51\.100\.3/, 'and the one behind the wire');
      const seen = await wire();
      assert.match(seen, /198\.51\.100\.1 > 198\.51\.100\.255/, 'it was on the wire');
      assert.is(/198\.51\.100\.2 > 198\.51\.100\.1:/.test(seen), false, 'the answer from beside was not');
      assert.match(seen, /198\.51\.100\.3 > 198\.51\.100\.1/);
    }),
);

testWith(
  vnics,
  needs,
  'MTU: that of the overlay, lowered with it in any namespace, not raised again, never above',
  () =>
    withScene(async ({ a, hosts }) => {
      await a.client.put('/v1/overlays/ov0/properties/mtu', { value: 1300 });
      for (const body of [{ name: 'v0' }, { name: 'v1', netns: zone('1') }]) {
        assert.is((await create(a, body)).vnic.mtu, 1300);
      }
      const mtus = async () => (await list(a)).map(({ mtu }) => mtu);
      await a.client.put('/v1/overlays/ov0/properties/mtu', { value: 1200 });
      assert.equal(await mtus(), [1200, 1200], 'lowered by the kernel');
      await a.client.put('/v1/overlays/ov0/properties/mtu', { value: 1400 });
      assert.equal(await mtus(), [1200, 1200], 'not raised');
      inside(zone('1'), 'link', 'set', 'v1', 'mtu', '1400');
      assert.throws(() => inside(zone('1'), 'link', 'set', 'v1', 'mtu', '1401'), /Invalid argument/);
      hosts.a.netlink.setLink(hosts.a.netlink.getLink('ov0').index, { mtu: 1350 });
      assert.equal(await mtus(), [1200, 1350], 'by the link as by the property');
    }),
);

testWith(
  vnics,
  needs,
  'what the kernel has is what is listed: deleted, renamed, moved, made by hand, a name that is gone',
  () =>
    withScene(async ({ a, hosts }) => {
      const names = async () => (await list(a)).map(({ name, netns }) => `${name} ${netns}`).sort();
      for (const [name, netns] of [
        ['v0', undefined],
        ['v1', zone('1')],
        ['v2', zone('2')],
      ] as const) {
        await create(a, { name, ...(netns ? { netns } : {}) });
      }
      assert.equal(await names(), ['v0 null', `v1 ${zone('1')}`, `v2 ${zone('2')}`]);
      inside(zone('1'), 'link', 'delete', 'v1');
      assert.equal(await names(), ['v0 null', `v2 ${zone('2')}`]);
      inside(zone('2'), 'link', 'set', 'v2', 'name', 'other');
      inside(zone('2'), 'link', 'set', 'other', 'netns', zone('1'));
      const { index } = hosts.a.netlink.getLink('ov0');
      hosts.a.netlink.createMacvlan('byhand', index);
      hosts.a.run(
        'ip',
        'link',
        'add',
        'link',
        'ov0',
        'netns',
        zone('2'),
        'name',
        'direct',
        'type',
        'macvlan',
        'mode',
        'bridge',
      );
      assert.equal(await names(), ['byhand null', `direct ${zone('2')}`, `other ${zone('1')}`, 'v0 null']);
      const types = (await list(a)).map(({ name, mac_type }) => [name, mac_type]);
      assert.equal(Object.fromEntries(types), { byhand: null, direct: null, other: 'random', v0: 'random' });
      hosts.a.netlink.setLink(hosts.a.netlink.getLink('v0').index, { mac: '02:08:20:00:00:07' });
      assert.is((await list(a)).find(({ name }) => name === 'v0')!.mac_type, 'fixed');

      // Somebody keeps the namespace alive, though its name is gone.
      const keeper = spawn('ip', ['netns', 'exec', zone('1'), 'sleep', '60'], { stdio: 'ignore' });
      await until('it runs', 5000, () => pidsOf(zone('1')).includes(`${keeper.pid}`));
      ip('netns', 'delete', zone('1'));
      const lost = (await list(a)).find(({ name }) => name === 'other')!;
      assert.equal([lost.netns, lost.netns_there], [zone('2'), false], 'the name that it was made in');
      assert.match(administer(a, 'show-vnic', 'other'), new RegExp(`${zone('2')} \\(gone\\)`));
      ip('netns', 'add', zone('1'));
      assert.is(
        (await list(a)).find(({ name }) => name === 'other')!.netns_there,
        false,
        'another of that name',
      );
      await assertRefused(a.client.delete('/v1/overlays/ov0'), 'EBUSY', 'link_up');
      await takeDown(hosts.a, a);
      for (const name of ['v0', 'byhand', 'direct']) await a.client.delete(`/v1/vnics/${name}`);
      await assertRefused(
        a.client.delete('/v1/overlays/ov0'),
        'EBUSY',
        'links_on_top',
        /other \(in a network namespace without a name\)/,
      );
      await a.client.delete('/v1/vnics/other');
      assert.equal(await list(a), []);
      const ended = new Promise((resolve) => keeper.once('exit', resolve));
      keeper.kill();
      await ended;

      await create(a, { name: 'v1', netns: zone('1') });
      ip('netns', 'delete', zone('1'));
      await until('it went with its namespace', 5000, async () => (await list(a)).length === 0);
      await takeDown(hosts.a, a);
      await a.client.delete('/v1/overlays/ov0');
    }),
);

function pidsOf(netns: string): string[] {
  return execFileSync('ip', ['netns', 'pids', netns], { encoding: 'utf8' }).split('\n');
}

async function takeDown(host: Host, daemon: Daemon): Promise<void> {
  host.netlink.setLink(host.netlink.getLink('ov0').index, { up: false });
  await until('stopped', 5000, async () => (await daemon.state('ov0')) === 'activated');
}

testWith(
  vnics,
  needs,
  'delete-overlay sees VNICs in other namespaces, made by whomever; by force they go with it',
  () =>
    withScene(async ({ a, hosts }) => {
      const { netlink } = hosts.a;
      const { index } = netlink.getLink('ov0');
      const refused = async (text: RegExp) => {
        await takeDown(hosts.a, a);
        await assertRefused(a.client.delete('/v1/overlays/ov0'), 'EBUSY', 'links_on_top', text);
      };
      await create(a, { name: 'v1', netns: zone('1') });
      await refused(new RegExp(`ov0 carries v1 \\(in network namespace '${zone('1')}'\\)`));
      await a.client.delete('/v1/vnics/v1');

      netlink.createMacvlan('byhand', index);
      hosts.a.run('ip', 'link', 'set', 'byhand', 'netns', zone('2'));
      await refused(/byhand/);
      inside(zone('2'), 'link', 'delete', 'byhand');

      // Another link of the same number in another namespace carries that one, not ours.
      inside(zone('1'), 'link', 'add', 'x', 'index', `${index}`, 'type', 'veth', 'peer', 'name', 'y');
      inside(zone('1'), 'link', 'add', 'link', 'x', 'name', 'theirs', 'type', 'macvlan', 'mode', 'bridge');
      inside(zone('1'), 'link', 'add', 'link', 'x', 'name', 'moved', 'type', 'macvlan', 'mode', 'bridge');
      ip('-n', zone('1'), 'link', 'set', 'moved', 'netns', zone('2'));
      assert.equal(await list(a), []);
      const child = hosts.a.start('sleep', '60');
      inside(zone('1'), 'link', 'add', 'link', 'x', 'name', 'guest', 'type', 'macvlan', 'mode', 'bridge');
      inside(zone('1'), 'link', 'set', 'guest', 'netns', `${child.pid}`);
      assert.equal(await list(a), [], 'one in our namespace over a link of that number elsewhere');

      await create(a, { name: 'v1', netns: zone('1') });
      await create(a, { name: 'v0' });
      await a.client.delete('/v1/overlays/ov0?force=true');
      assert.is(linksOf(zone('1')).has('v1'), false, 'they went with it');
      assert.throws(() => netlink.getLink('v0'), /ENODEV/);
      assert.equal(await list(a), []);
    }),
);

testWith(vnics, needs, 'refusals, each of which leaves nothing', () =>
  withScene(async ({ a, hosts }) => {
    const { netlink } = hosts.a;
    const stale = zone('stale');
    const before = () =>
      JSON.stringify([
        netlink.listLinks().map(({ name, isUp }) => [name, isUp]),
        ...['1', '2'].map((each) => [...linksOf(zone(each)).keys()]),
      ]);
    inside(zone('1'), 'link', 'add', 'taken', 'type', 'veth', 'peer', 'name', 'taken2');
    writeFileSync(`/run/netns/${stale}`, '');
    try {
      const links = before();
      const table: readonly [object, string, string][] = [
        [{ name: '' }, 'EINVAL', 'bad_device_name'],
        [{ name: 'a/b' }, 'EINVAL', 'bad_device_name'],
        [{ name: 'sixteen-bytes-on' }, 'EINVAL', 'bad_device_name'],
        [{ name: 'v%d' }, 'EINVAL', 'bad_device_name'],
        [{ name: 'v1', mac: 'x' }, 'EINVAL', 'bad_mac'],
        [{ name: 'v1', mac: '0:0:0:0:0:0' }, 'EINVAL', 'bad_mac'],
        [{ name: 'v1', mac: '1:0:5e:0:0:1' }, 'EINVAL', 'bad_mac'],
        [{ name: 'v1', mac: 'ff:ff:ff:ff:ff:ff' }, 'EINVAL', 'bad_mac'],
        [{ name: 'v1', mac: netlink.getLink('ov0').mac }, 'EEXIST', 'mac_in_use'],
        [{ name: 'v1', overlay: 'nope' }, 'ENOENT', 'no_such_device'],
        [{ name: 'v1', netns: 'no-such-zone' }, 'ENOENT', 'no_such_netns'],
        [{ name: 'v1', netns: stale }, 'ENOENT', 'no_such_netns'],
        ...['../netns/x', 'a/b', '/etc/passwd', '..', '.', `${zone('1')}\0x`, 'x'.repeat(256)].map(
          (netns) => [{ name: 'v1', netns }, 'EINVAL', 'bad_netns'] as [object, string, string],
        ),
        [{ name: 'underlay0' }, 'EEXIST', 'link_exists'],
        [{ name: 'ov0' }, 'EEXIST', 'link_exists'],
        [{ name: 'taken', netns: zone('1') }, 'EEXIST', 'link_exists'],
      ];
      for (const [body, errno, code] of table) {
        await assertRefused(create(a, body), errno, code);
        assert.is(before(), links, JSON.stringify(body));
      }
      await assertRefused(a.client.delete('/v1/vnics/ov0'), 'ENOENT', 'no_such_vnic');
      await assertRefused(a.client.delete('/v1/vnics/underlay0'), 'ENOENT', 'no_such_vnic');

      // A name is in use only where it is: here and in each zone is one of its own.
      const mac = '02:08:20:00:00:01';
      await create(a, { name: 'underlay0', netns: zone('1'), mac });
      await create(a, { name: 'underlay0', netns: zone('2') });
      await assertRefused(create(a, { name: 'v2', mac }), 'EEXIST', 'mac_in_use', /VNIC 'underlay0'/);
      await assertRefused(a.client.delete('/v1/vnics/underlay0'), 'EINVAL', 'ambiguous_vnic');
      const first = `/v1/vnics/underlay0?netns=${zone('1')}`;
      await a.client.delete(first);
      await a.client.delete('/v1/vnics/underlay0');

      hosts.a.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
      hosts.a.run('ip', 'link', 'set', 'ov0', 'master', 'br0');
      await assertRefused(create(a, { name: 'v1', netns: zone('1') }), 'EBUSY', 'link_in_use');
      await takeDown(hosts.a, a);
      await assertRefused(a.client.delete('/v1/overlays/ov0'), 'EBUSY', 'links_on_top', /carries br0/);
      hosts.a.run('ip', 'link', 'delete', 'br0');
      assert.is(before().replace('["ov0",true]', '["ov0",false]'), links);
    } finally {
      rmSync(`/run/netns/${stale}`);
    }
  }),
);

testWith(
  vnics,
  needs,
  'promiscuous, multicast and MAC changes on overlay links and VNICs change no forwarding',
  () =>
    withScene(async (scene) => {
      await populate(scene);
      assertMesh();
      const { hosts } = scene;
      const links = [
        (...words: string[]) => hosts.a.run('ip', 'link', 'set', 'dev', 'ov0', ...words),
        (...words: string[]) => hosts.b.run('ip', 'link', 'set', 'dev', 'ov0', ...words),
        ...[1, 2, 3].map(
          (each) =>
            (...words: string[]) =>
              inside(zone(`${each}`), 'link', 'set', 'dev', `v${each}`, ...words),
        ),
      ];
      for (const change of [
        ['promisc', 'on'],
        ['allmulticast', 'on'],
        ['promisc', 'off'],
        ['allmulticast', 'off'],
        ['multicast', 'off'],
        ['multicast', 'on'],
      ]) {
        for (const set of links) set(...change);
        assertMesh();
      }
      hosts.a.run('ip', 'maddress', 'add', '33:33:00:00:12:34', 'dev', 'ov0');
      inside(zone('1'), 'maddress', 'add', '33:33:00:00:12:34', 'dev', 'v1');
      assertMesh();
      for (const [index, set] of links.entries()) set('address', `02:08:21:00:00:0${index + 1}`);
      for (const each of [1, 2, 3]) inside(zone(`${each}`), 'neighbour', 'flush', 'dev', `v${each}`);
      assertMesh();
      assert.equal(
        (await list(scene.a)).map(({ mac }) => mac),
        ['02:08:21:00:00:03', '02:08:21:00:00:04'],
      );
      for (const daemon of [scene.a, scene.b]) assert.is(await daemon.state('ov0'), 'started');
    }),
);

testWith(
  vnics,
  needs,
  'a restart of the daemon loses no VNIC, and what is between VNICs goes on meanwhile',
  () =>
    withScene(async (scene) => {
      await populate(scene);
      assertMesh();
      const { a, hosts } = scene;
      const before = await list(a);
      assert.is(before.length, 2);
      await a.stop();
      const again = await Daemon.start(hosts.a, dirname(a.socket), { flags: small });
      await until('started', 5000, async () => (await again.state('ov0')) === 'started');
      assert.equal(await list(again), before);
      assertMesh();
      await again.client.delete('/v1/vnics/v1');
      assert.equal(
        (await list(again)).map(({ name }) => name),
        ['v2'],
      );
    }),
);

testWith(vnics, needs, 'an overlay in a zone: its VNICs are there, or in the namespace of the daemon', () =>
  withScene(async ({ a, hosts }) => {
    const zoned = overlay('ov1', 43, 'a');
    await a.client.post('/v1/overlays', { ...zoned, properties: { ...zoned.properties, netns: zone('3') } });
    const there = await create(a, { name: 'v1', overlay: 'ov1' });
    assert.equal([there.vnic.netns, there.vnic.over, there.link_taken_up], [zone('3'), 'ov1', true]);
    const home = await create(a, { name: 'v2', overlay: 'ov1', netns: '' });
    assert.equal([home.vnic.netns, home.vnic.netns_there], [null, true]);
    assert.is(hosts.a.netlink.getLink('v2').kind, 'macvlan');
    // By another name of the same namespace.
    await create(a, { name: 'v3', overlay: 'ov1', netns: zone('3') });
    await create(a, { name: 'v4' });
    assert.equal(
      (await list(a)).map(({ name, over }) => [name, over]),
      [
        ['v4', 'ov0'],
        ['v1', 'ov1'],
        ['v3', 'ov1'],
        ['v2', 'ov1'],
      ],
    );
    await a.client.delete('/v1/vnics/v1');
    await a.client.delete('/v1/vnics/v3');
    inside(zone('3'), 'link', 'set', 'ov1', 'down');
    await until('stopped', 5000, async () => (await a.state('ov1')) === 'activated');
    await assertRefused(
      a.client.delete('/v1/overlays/ov1'),
      'EBUSY',
      'links_on_top',
      /v2 \(in the network namespace of overlayd\)/,
    );
    await a.client.delete('/v1/vnics/v2?netns=');
    await a.client.delete('/v1/overlays/ov1');
  }),
);

testWith(vnics, needs, `${ROUNDS} times made, refused, listed and deleted: no descriptor stays open`, () =>
  withScene(async ({ a }) => {
    inside(zone('1'), 'link', 'add', 'taken', 'type', 'veth', 'peer', 'name', 'taken2');
    const open = () => readdirSync(`/proc/${a.child.pid}/fd`).length;
    const rounds = async (count: number) => {
      for (let round = 0; round < count; round++) {
        await create(a, { name: 'v1', netns: zone('1') });
        await assertRefused(create(a, { name: 'taken', netns: zone('1') }), 'EEXIST', 'link_exists');
        await list(a);
        await a.client.delete('/v1/vnics/v1');
      }
    };
    await rounds(3);
    const before = open();
    await rounds(ROUNDS);
    await until('descriptors are back', 5000, () => open() <= before);
  }),
);

testWith(vnics, ['root'], 'netlink: namespaces by their ids, links in them without entering', () => {
  const [home, away] = [createNamespace(), createNamespace()];
  const [netlink, other] = [home, away].map((fd) => inNamespace(fd, () => new Netlink())) as [
    Netlink,
    Netlink,
  ];
  try {
    assert.equal(netlink.listNamespaceIds(), []);
    const id = netlink.namespaceId(away);
    assert.is(netlink.namespaceId(away), id, 'once given it stays');
    const self = netlink.namespaceId(home);
    assert.is.not(self, id);
    assert.equal(netlink.listNamespaceIds().sort(), [id, self].sort());
    other.createBridge('br0');
    other.createMacvlan('m0', other.getLink('br0').index);
    assert.equal(
      netlink.listLinks(id).map(({ name }) => name),
      ['lo', 'br0', 'm0'],
    );
    // What stands on a link, by the example of a bridge: not every kernel has links that can stand on a macvlan.
    const source = new TapVnics(() => ({ netlink }) as Space);
    const link = { ...other.getLink('br0'), netns: 'z', namespaceId: id };
    assert.equal(source.above({} as Port, link), ['m0']);
    other.setLink(other.getLink('m0').index, { name: 'm\x1b[2J' });
    assert.equal(source.above({} as Port, link), ['m?[2J'], 'safe to print');
    assert.equal(
      source.above({} as Port, { ...link, namespaceId: undefined }),
      [],
      'elsewhere it is another link',
    );
    netlink.deleteLink(other.getLink('br0').index, id);
    assert.equal(
      other.listLinks().map(({ name }) => name),
      ['lo'],
    );
    assert.equal(
      netlink.listLinks(self).map(({ name }) => name),
      ['lo'],
    );
    assert.throws(() => netlink.listLinks(77), /EINVAL/);
    const file = openSync('/dev/null', 'r');
    assert.throws(() => netlink.namespaceId(file), /EINVAL/);
    closeSync(file);
  } finally {
    for (const each of [netlink, other]) each.close();
    for (const fd of [home, away]) closeFd(fd);
  }
});

// ─── Without rights ─────────────────────────────────────────────────────────────────────────────────────

async function withMemoryVnics(
  work: (memory: MemoryOverlay, source: TestVnics) => Promise<void>,
): Promise<void> {
  const memory = await MemoryOverlay.start();
  const source = withVnics(memory);
  try {
    await memory.overlay.createOverlay(request('ov0', 1, await freePort('127.0.0.1')));
    await work(memory, source);
  } finally {
    await memory.close();
  }
}

vnics('made first, then the link is taken up once; a link that cannot be taken up leaves no VNIC', () =>
  withMemoryVnics(async ({ overlay }, source) => {
    source.takeUpFailure = new OverlayError('EPERM', 'test', 'it may not be');
    await assertRefused(overlay.vnics.create({ name: 'v1', overlay: 'ov0' }), 'EPERM', 'test');
    assert.equal(source.calls.splice(0), ['create v1', 'up', 'delete v1']);
    source.takeUpFailure = undefined;
    const made = await overlay.vnics.create({ name: 'v1', overlay: 'ov0' });
    assert.is(made.hasTakenUp, true);
    assert.is((await overlay.vnics.create({ name: 'v2', overlay: 'ov0' })).hasTakenUp, false);
    assert.equal(source.calls.splice(0), ['create v1', 'up', 'create v2']);
    source.above = () => ['tagged'];
    await assertRefused(overlay.vnics.delete('v1'), 'EBUSY', 'links_on_top', /carries tagged/);
    source.above = () => [];
    await overlay.vnics.delete('v1');
    assert.equal(
      overlay.vnics.list('ov0').map(({ name }) => name),
      ['v2'],
    );
  }),
);

vnics('what the request says is refused before anything is made', () =>
  withMemoryVnics(async ({ overlay, links }, source) => {
    const refused = (body: object, errno: string, code: string) =>
      assertRefused(overlay.vnics.create({ name: 'v1', overlay: 'ov0', ...body }), errno, code);
    for (const name of ['', '1v', 'a b', 'all', 'v'.repeat(16)])
      await refused({ name }, 'EINVAL', 'bad_device_name');
    for (const mac of ['', '1:2:3', '0:0:0:0:0:0', '1:0:0:0:0:0', 'ff:ff:ff:ff:ff:ff'])
      await refused({ mac }, 'EINVAL', 'bad_mac');
    for (const netns of ['.', '..', '../x', 'a/b', 'a\0b', 'x'.repeat(256)]) {
      await refused({ netns }, 'EINVAL', 'bad_netns');
      assert.is.not(namespaceNameFault(netns), undefined);
    }
    await refused({ overlay: 'nope' }, 'ENOENT', 'no_such_device');
    await refused({ mac: links.get('ov0').mac }, 'EEXIST', 'mac_in_use');
    assert.throws(() => overlay.vnics.list('nope'), /there is no overlay/);
    await assertRefused(overlay.vnics.delete('nope'), 'ENOENT', 'no_such_vnic');
    links.remove('ov0');
    await overlay.idle();
    await refused({}, 'ENODEV', 'link_gone');
    assert.equal(overlay.vnics.list(), []);
    assert.equal(source.calls, []);
  }),
);

vnics('addresses: random ones are local, unicast and differ; given ones in any notation', () =>
  withMemoryVnics(async ({ overlay }) => {
    const macs = new Set<string>();
    for (let index = 0; index < 200; index++) {
      const { vnic } = await overlay.vnics.create({ name: `v${index}`, overlay: 'ov0' });
      assert.match(vnic.mac, /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
      assert.is(vnic.macType, 'random');
      macs.add(vnic.mac);
    }
    assert.is(macs.size, 200);
    const { vnic } = await overlay.vnics.create({ name: 'w', overlay: 'ov0', mac: '2-8-20-A-b-1' });
    assert.equal([vnic.mac, vnic.macType], ['02:08:20:0a:0b:01', 'fixed']);
    await assertRefused(
      overlay.vnics.create({ name: 'x', overlay: 'ov0', mac: '2:8:20:a:b:1' }),
      'EEXIST',
      'mac_in_use',
    );
  }),
);

vnics('what an alias says is read with care: anybody in the namespace can write one', () =>
  withMemoryVnics(async ({ overlay }, source) => {
    const mac = '02:08:20:00:00:01';
    const shown = (alias: string | undefined, netns: string | undefined) => {
      const link = {
        name: 'v1',
        mac,
        alias,
        netns,
        index: 7,
        kind: 'macvlan',
        mtu: 1,
        isUp: true,
        namespaceId: 1,
      };
      source.links.splice(0, 1, link);
      const [vnic] = overlay.vnics.list();
      return [vnic!.macType, vnic!.netns, vnic!.isNamespaceThere];
    };
    assert.equal(shown(undefined, 'z'), [undefined, 'z', true]);
    assert.equal(shown(undefined, undefined), [undefined, undefined, false]);
    const ours = `overlayd vnic, random mac ${mac}, netns z`;
    assert.equal(shown(ours, 'y'), ['random', 'y', true]);
    assert.equal(shown(ours, undefined), ['random', 'z', false]);
    assert.equal(shown(ours.replace('01,', '02,'), undefined), ['fixed', 'z', false]);
    for (const bad of [`${ours}\x1b[2J`, `${ours} z`, `x${ours}`, 'overlayd vnic']) {
      assert.equal(shown(bad, undefined), [undefined, undefined, false]);
    }
    source.links.splice(0, 1, { ...source.links[0]!, kind: 'macvtap' });
    assert.equal(overlay.vnics.list(), [], 'another kind of link is none');
    const netns = 'x'.repeat(255);
    source.links.splice(0);
    await overlay.vnics.create({ name: 'v1', overlay: 'ov0', netns });
    assert.ok(source.links[0]!.alias!.length < 256, 'as much as the kernel takes');
    assert.equal([overlay.vnics.list()[0]!.netns, overlay.vnics.list()[0]!.macType], [netns, 'random']);
  }),
);

vnics('several of one name: the namespace says which', () =>
  withMemoryVnics(async ({ overlay }, source) => {
    for (const netns of ['', 'a', 'b']) await overlay.vnics.create({ name: 'v1', overlay: 'ov0', netns });
    source.calls.splice(0);
    await assertRefused(
      overlay.vnics.delete('v1'),
      'EINVAL',
      'ambiguous_vnic',
      /VNICs 'v1' in the network namespace of overlayd, 'a', 'b': say which with -n/,
    );
    await assertRefused(
      overlay.vnics.delete('v1', 'c'),
      'ENOENT',
      'no_such_vnic',
      /in network namespace 'c'/,
    );
    assert.equal(source.calls, []);
    await overlay.vnics.delete('v1', 'b');
    assert.equal(source.calls, ['delete v1']);
  }),
);

vnics('ports in memory have none', async () => {
  const memory = await MemoryOverlay.start();
  try {
    await memory.overlay.createOverlay(request('ov0', 1, await freePort('127.0.0.1')));
    assert.equal(memory.overlay.vnics.list(), []);
    await assertRefused(
      memory.overlay.vnics.create({ name: 'v1', overlay: 'ov0' }),
      'ENOTSUP',
      'memory_port',
    );
    await assertRefused(memory.overlay.vnics.delete('v1'), 'ENOENT', 'no_such_vnic');
  } finally {
    await memory.close();
  }
});

vnics('show-vnic: the columns of dladm and the namespace; more when asked for', async () => {
  const vnic: VnicView = {
    name: 'v1',
    over: 'ov0',
    netns: 'z',
    netns_there: true,
    index: 7,
    mac: '02:08:20:00:00:01',
    mac_type: 'random',
    mtu: 1400,
    up: true,
  };
  assert.equal(showVnics([vnic], {}), [
    'LINK           OVER           SPEED  MACADDRESS        MACADDRTYPE VID  NETNS',
    'v1             ov0            0      2:8:20:0:0:1      random      0    z',
  ]);
  const namespaces = [
    vnic,
    { ...vnic, netns: null },
    { ...vnic, netns_there: false },
    { ...vnic, netns: null, netns_there: false, mac_type: null, up: false },
  ];
  assert.equal(showVnics(namespaces, { parsable: true, output: 'netns' }), [
    'z',
    '--',
    'z (gone)',
    '(no name)',
  ]);
  assert.equal(
    showVnics(namespaces, { parsable: true, output: 'macaddrtype,state,mtu' }).at(-1),
    '--:down:1400',
  );
  assert.is(
    showVnics([vnic], { parsable: true, output: 'all' })[0],
    'v1:ov0:0:2\\:8\\:20\\:0\\:0\\:1:random:0:z:1400:up',
  );
  await assertRefused(
    () => showVnics([], { output: 'zone' }),
    'EINVAL',
    'no_such_column',
    /netns, mtu, state$/,
  );
});

vnics.run();
