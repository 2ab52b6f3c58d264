/**
 * Links and underlays in named network namespaces (the zones of illumos), with real TAPs: namespaces that come and go,
 * addresses and interfaces of the underlay that come and go, links that are renamed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MEMORY_DEFAULT_BYTES } from '../src/limits.js';
import { silent } from '../src/log.js';
import { TapSource } from '../src/overlay/tap-source.js';
import { Overlay } from '../src/overlay.js';
import { until } from './harness/hosts.js';
import { assertRefused, descriptors } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const zones = suite('zones');
const needs = ['root', '/dev/net/tun', 'ip', 'ping'];
const PREFIX = `oz${process.pid}`;
const name = (part: string) => `${PREFIX}${part}`;

function ip(...words: string[]): void {
  execFileSync('ip', words, { stdio: ['ignore', 'ignore', 'pipe'] });
}

const inside = (netns: string, ...words: string[]) => ip('-n', netns, ...words);

/** True when three pings in a row are answered. */
function pings(from: string, to: string): boolean {
  const words = ['netns', 'exec', from, 'ping', '-c', '3', '-i', '0.05', '-W', '1', to];
  return spawnSync('ip', words, { stdio: 'ignore' }).status === 0;
}

interface Side {
  readonly overlay: Overlay;
  /** Namespace of the underlay, and its address. */
  readonly underlay: string;
  readonly address: string;
  /** Namespace of the link. */
  readonly zone: string;
}

/** Two underlays with a wire between them, two zones, and an engine on each side. */
async function withSides(work: (a: Side, b: Side) => Promise<void>): Promise<void> {
  const spaces = ['ua', 'ub', 'za', 'zb'].map(name);
  const overlays: Overlay[] = [];
  try {
    for (const space of spaces) ip('netns', 'add', space);
    inside(name('ua'), 'link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'wire', 'netns', name('ub'));
    for (const [index, space] of [name('ua'), name('ub')].entries()) {
      inside(space, 'address', 'add', `192.0.2.${index + 1}/24`, 'dev', 'wire');
      inside(space, 'link', 'set', 'wire', 'up');
      inside(space, 'link', 'set', 'lo', 'up');
    }
    const side = async (index: 0 | 1): Promise<Side> => {
      const overlay = await Overlay.start({
        workers: 1,
        memoryBytes: MEMORY_DEFAULT_BYTES,
        cpus: [],
        bank: 4,
        ports: new TapSource(),
        log: silent,
      });
      overlays.push(overlay);
      const letter = 'ab'[index]!;
      const [underlay, zone] = [name(`u${letter}`), name(`z${letter}`)];
      const address = `192.0.2.${index + 1}`;
      await overlay.createOverlay({
        name: `oz${letter}`,
        encap: 'vxlan',
        search: 'direct',
        vnetid: 77,
        properties: {
          netns: zone,
          underlay_netns: underlay,
          'vxlan/listen_ip': address,
          'direct/dest_ip': `192.0.2.${2 - index}`,
          'direct/dest_port': 4789,
        },
      });
      inside(zone, 'address', 'add', `198.51.100.${index + 1}/24`, 'dev', `oz${letter}`);
      inside(zone, 'link', 'set', `oz${letter}`, 'up');
      return { overlay, underlay, address, zone };
    };
    const [a, b] = [await side(0), await side(1)];
    const isStarted = () => a.overlay.state('oza') === 'started' && b.overlay.state('ozb') === 'started';
    await until('both are started', 5000, isStarted);
    assert.ok(pings(a.zone, '198.51.100.2'), 'traffic from zone to zone');
    await work(a, b);
  } finally {
    for (const overlay of overlays) await overlay.close();
    for (const space of spaces) spawnSync('ip', ['netns', 'delete', space], { stdio: 'ignore' });
  }
}

testWith(zones, needs, 'the link is in one namespace, the sockets in another, and neither in ours', () =>
  withSides(async (a) => {
    assert.equal(
      a.overlay.muxStats().map((mux) => mux.name),
      [`${a.underlay}/192.0.2.1:4789`],
    );
    const links = (netns: string) => execFileSync('ip', ['-n', netns, '-o', 'link'], { encoding: 'utf8' });
    assert.match(links(a.zone), /oza/);
    assert.is(/oza/.test(execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' })), false);
    const { overlay } = a;
    await assertRefused(overlay.setprop('oza', 'netns', a.underlay), 'ENOTSUP', 'already_active');
    await overlay.create('ozc', 'vxlan', 'direct', 78);
    await assertRefused(
      overlay.setprop('ozc', 'netns', 'no-such-zone'),
      'ENOENT',
      'no_such_netns',
      /ip netns add/,
    );
    for (const bad of ['../run', 'a/b', '..', '.']) {
      await assertRefused(overlay.setprop('ozc', 'netns', bad), 'EINVAL', 'bad_property_value');
    }
    assert.is(overlay.property('ozc', 'netns').value, undefined);
    // A reopen to where there is no such address keeps what there was.
    await assertRefused(
      overlay.setprop('oza', 'underlay_netns', a.zone),
      'EADDRNOTAVAIL',
      'address_not_here',
    );
    assert.is(overlay.property('oza', 'underlay_netns').value, a.underlay);
    assert.ok(pings(a.zone, '198.51.100.2'));
  }),
);

testWith(zones, needs, 'an address that goes and comes back: degraded, and by itself well again', () =>
  withSides(async (a) => {
    const fault = () => a.overlay.status('oza').message;
    inside(a.underlay, 'address', 'delete', '192.0.2.1/24', 'dev', 'wire');
    await until('it says so', 1000, () => /no interface of this host has 192\.0\.2\.1/.test(fault()));
    assert.is(a.overlay.state('oza'), 'started');
    inside(a.underlay, 'address', 'add', '192.0.2.1/24', 'dev', 'wire');
    await until('it is well', 1000, () => fault() === '');
    assert.ok(pings(a.zone, '198.51.100.2'));
    inside(a.underlay, 'link', 'set', 'wire', 'down');
    await until('it names the interface', 1000, () => /wire, which has 192\.0\.2\.1, is down/.test(fault()));
    inside(a.underlay, 'link', 'set', 'wire', 'up');
    await until('it is well again', 1000, () => fault() === '');
    assert.ok(pings(a.zone, '198.51.100.2'));
  }),
);

testWith(zones, needs, 'a namespace that goes: degraded; when it is back, the link is made anew in it', () =>
  withSides(async (a) => {
    const fault = () => a.overlay.status('oza').message;
    const mac = macOf(a.zone);
    ip('netns', 'delete', a.zone);
    await until('it says so', 2000, () => fault().includes(`network namespace '${a.zone}' is gone`));
    assert.is(a.overlay.state('oza'), 'activated');
    // Its descriptors are closed, and may be another's.
    await assertRefused(a.overlay.setprop('oza', 'mtu', 1300), 'ENODEV', 'netns_gone', /make it again/);
    ip('netns', 'add', a.zone);
    await until('it is back', 2000, () => fault() === '');
    assert.is(macOf(a.zone), mac, 'with the address it had');
    inside(a.zone, 'address', 'add', '198.51.100.1/24', 'dev', 'oza');
    inside(a.zone, 'link', 'set', 'oza', 'up');
    await until('it is started', 2000, () => a.overlay.state('oza') === 'started');
    assert.ok(pings(a.zone, '198.51.100.2'));
  }),
);

function macOf(netns: string): string {
  const [link] = JSON.parse(
    execFileSync('ip', ['-n', netns, '-j', 'link', 'show', 'oza'], { encoding: 'utf8' }),
  ) as [{ address: string }];
  return link.address;
}

testWith(zones, needs, 'activation while the namespace is gone: refused, and no other link is touched', () =>
  withSides(async (a) => {
    const zone = name('zc');
    ip('netns', 'add', zone);
    const { overlay } = a;
    await overlay.create('ozc', 'vxlan', 'direct', 78);
    const ours = {
      netns: zone,
      'vxlan/listen_ip': '127.0.0.1',
      'direct/dest_ip': '127.0.0.2',
      'direct/dest_port': 9,
    };
    for (const [property, value] of Object.entries(ours)) await overlay.setprop('ozc', property, value);
    ip('netns', 'delete', zone);
    await until('it says so', 2000, () => overlay.status('ozc').message.includes('is gone'));
    await assertRefused(overlay.activate('ozc'), 'ENODEV', 'netns_gone', /make it again/);
    await overlay.delete('ozc', { force: false });
    assert.ok(pings(a.zone, '198.51.100.2'));
  }),
);

testWith(
  zones,
  needs,
  'an underlay namespace that goes: degraded; made anew, the sockets are opened there',
  () =>
    withSides(async (a) => {
      const fault = () => a.overlay.status('oza').message;
      const missing = `there is no network namespace '${a.underlay}'`;
      ip('netns', 'delete', a.underlay);
      await until('it says so', 2000, () => fault().includes(missing));
      assert.is(a.overlay.state('oza'), 'activated');
      ip('netns', 'add', a.underlay);
      inside(a.underlay, 'link', 'set', 'lo', 'up');
      inside(a.underlay, 'address', 'add', '192.0.2.1/24', 'dev', 'lo');
      await until('it is started', 2000, () => a.overlay.state('oza') === 'started');
      assert.is(fault(), '');
      const sockets = execFileSync('ip', ['netns', 'exec', a.underlay, 'cat', '/proc/net/udp6'], {
        encoding: 'utf8',
      });
      assert.match(sockets, /:12B5 /, 'port 4789 in the new namespace');
      // At once, between two looks at it.
      ip('netns', 'delete', a.underlay);
      ip('netns', 'add', a.underlay);
      inside(a.underlay, 'link', 'set', 'lo', 'up');
      inside(a.underlay, 'address', 'add', '192.0.2.1/24', 'dev', 'lo');
      const opened = () =>
        /:12B5 /.test(
          execFileSync('ip', ['netns', 'exec', a.underlay, 'cat', '/proc/net/udp6'], { encoding: 'utf8' }),
        );
      await until('they are opened in the newest one', 2000, opened);
      await until('it is started', 2000, () => a.overlay.state('oza') === 'started');
    }),
);

testWith(zones, needs, 'a link that is renamed is followed; one that is moved away degrades its device', () =>
  withSides(async (a) => {
    inside(a.zone, 'link', 'set', 'oza', 'down');
    inside(a.zone, 'link', 'set', 'oza', 'name', 'other');
    inside(a.zone, 'link', 'set', 'other', 'up');
    await until('it is started', 2000, () => a.overlay.state('oza') === 'started');
    assert.ok(pings(a.zone, '198.51.100.2'), 'by its index, whatever its name');
    inside(a.zone, 'link', 'set', 'other', 'netns', a.underlay);
    await until('it says so', 2000, () => /moved away/.test(a.overlay.status('oza').message));
    await a.overlay.delete('oza', { force: true });
  }),
);

testWith(zones, needs, 'nothing is left open', async () => {
  await withSides(async () => {});
  const before = descriptors();
  await withSides(async () => {});
  assert.is(descriptors(), before);
});

zones.run();
