/** Two daemons on two hosts, real links and a real underlay: traffic, the link's life, ports, leaks. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { assertBooks } from './harness/books.js';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const twoHosts = suite('two hosts');
const needs = ['root', '/dev/net/tun'];
const VNETID = 0xabcdef;
const CYCLES = Number(process.env.CYCLES ?? 1000);
const WARM_UP = 200;
const REPORT_MEMORY = join(import.meta.dirname, 'harness/report-memory.js');

async function withHosts(work: (hosts: Hosts) => Promise<void>): Promise<void> {
  const hosts = new Hosts();
  try {
    await work(hosts);
  } finally {
    await hosts.close();
  }
}

const properties = (side: 'a' | 'b') => ({
  'vxlan/listen_ip': underlay[4][side],
  'direct/dest_ip': underlay[4][side === 'a' ? 'b' : 'a'],
  'direct/dest_port': 4789,
});

const request = (name: string, vnetid: number, side: 'a' | 'b') => ({
  name,
  encap: 'vxlan',
  search: 'direct',
  vnetid,
  properties: properties(side),
});

testWith(twoHosts, [...needs, 'ping', 'iperf3'], 'traffic over both underlays, books balance on both', () =>
  withHosts(async (hosts) => {
    for (const family of [4, 6] as const) {
      const a = await hosts.daemon('a');
      const b = await hosts.daemon('b');
      await a.createOverlay(hosts.a, 'ov0', VNETID, underlay[family].a, underlay[family].b);
      await b.createOverlay(hosts.b, 'ov0', VNETID, underlay[family].b, underlay[family].a);
      hosts.address('a', 'ov0', '198.51.100.1/24');
      hosts.address('b', 'ov0', '198.51.100.2/24');
      assert.match(hosts.a.run('ping', '-q', '-c', '20', '-i', '0.01', '198.51.100.2'), / 0% packet loss/);
      assert.match(
        hosts.b.run('ping', '-q', '-c', '20', '-i', '0.01', '-s', '1372', '198.51.100.1'),
        / 0% packet loss/,
      );
      hosts.b.start('iperf3', '-s', '-1').stdout?.resume();
      await until('iperf3 answers', 5000, () => {
        return hosts.a.attempt('iperf3', '-c', '198.51.100.2', '-t', '1').status === 0;
      });
      const mux = (side: 'a' | 'b') =>
        family === 4 ? `${underlay[4][side]}:4789` : `[${underlay[6][side]}]:4789`;
      await assertBooks(hosts.a, a, 'ov0', mux('a'));
      await assertBooks(hosts.b, b, 'ov0', mux('b'));
      const [sent, received] = [await a.stats(), await b.stats()];
      assert.is(
        Number(sent.overlays.ov0!.counters.tx_datagrams),
        Number(received.muxes[mux('b')]!.counters.rx_read) + received.muxes[mux('b')]!.socket_overflow,
        'what a sent, b read or the kernel dropped at its sockets',
      );
      for (const daemon of [a, b]) {
        await daemon.client.delete('/v1/overlays/ov0?force=true');
        await daemon.stop();
      }
      assert.is(a.child.exitCode, 0, a.log);
      assert.is(b.child.exitCode, 0, b.log);
    }
  }),
);

testWith(
  twoHosts,
  needs,
  'the link: alias, carrier, MTU both ways, no IPv6 by itself, up before activation',
  () =>
    withHosts(async (hosts) => {
      const a = await hosts.daemon('a');
      await a.client.post('/v1/overlays', {
        ...request('ov0', VNETID, 'a'),
        properties: {},
        activate: false,
      });
      const { netlink } = hosts.a;
      const before = netlink.getLink('ov0');
      assert.is(before.alias, `overlayd overlay ov0, vxlan vnetid ${VNETID}`);
      assert.is(before.mtu, 1400);
      assert.is(before.isUp, false);
      netlink.setLink(before.index, { up: true });
      await new Promise((resolve) => setTimeout(resolve, 200));
      assert.is(await a.state('ov0'), 'created', 'up before activation waits');
      assert.is(netlink.getLink('ov0').hasCarrier, false, 'no carrier before activation');
      await a.client.put('/v1/overlays/ov0/properties/mtu', { value: '1300' });
      assert.is(netlink.getLink('ov0').mtu, 1300, 'the property sets the link');
      for (const [name, value] of Object.entries(properties('a'))) {
        await a.client.put(`/v1/overlays/ov0/properties/${encodeURIComponent(name)}`, { value });
      }
      await a.client.post('/v1/overlays/ov0/activate');
      assert.is(await a.state('ov0'), 'started', 'and starts on activation');
      await until('carrier', 2000, () => netlink.getLink('ov0').hasCarrier);

      netlink.setLink(before.index, { mtu: 1250 });
      const mtu = async () => {
        const path = '/v1/overlays/ov0/properties/mtu';
        return (await a.client.get<{ property: { value: number } }>(path)).property.value;
      };
      await until('the link sets the property', 2000, async () => (await mtu()) === 1250);
      netlink.setLink(before.index, { mtu: 9500 });
      await until('an MTU out of range is put back', 2000, () => netlink.getLink('ov0').mtu === 1250);

      const six = netlink.listAddresses(before.index).filter(({ address }) => address.includes(':'));
      assert.equal(six, [], 'no IPv6 address by itself');

      netlink.setLink(before.index, { up: false });
      await until('down stops', 2000, async () => (await a.state('ov0')) === 'activated');
      assert.is((await a.stats()).muxes[`${underlay[4].a}:4789`], undefined, 'and leaves the mux');
      netlink.setLink(before.index, { up: true });
      await until('up starts', 2000, async () => (await a.state('ov0')) === 'started');

      await assertRejects(a.client.delete('/v1/overlays/ov0'), 'EBUSY', 'link_up');
      netlink.setLink(before.index, { up: false });
      await until('down', 2000, async () => (await a.state('ov0')) === 'activated');
      netlink.createMacvlan('vnic0', before.index);
      await assertRejects(a.client.delete('/v1/overlays/ov0'), 'EBUSY', 'links_on_top');
      netlink.deleteLink(netlink.getLink('vnic0').index);
      await a.client.delete('/v1/overlays/ov0');
      assert.throws(() => netlink.getLink('ov0'), /ENODEV|No such device|no such device/);
    }),
);

async function assertRejects(promise: Promise<unknown>, errno: string, code: string): Promise<void> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, OverlayError);
    assert.equal([(error as OverlayError).errno, (error as OverlayError).code], [errno, code]);
    return;
  }
  assert.unreachable(`expected ${code}`);
}

testWith(twoHosts, needs, 'a start that fails degrades with the reason and is tried again', () =>
  withHosts(async (hosts) => {
    const first = await hosts.daemon('a', { name: 'first' });
    const second = await hosts.daemon('a', { name: 'second' });
    await first.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
    await second.client.post('/v1/overlays', request('ov1', 2, 'a'));
    hosts.a.netlink.setLink(hosts.a.netlink.getLink('ov1').index, { up: true });
    const status = (daemon: Daemon, name: string) =>
      daemon.client.get<{ status: string; message: string }>(`/v1/overlays/${name}/status`);
    await until('degraded', 2000, async () => (await status(second, 'ov1')).status === 'DEGRADED');
    assert.match((await status(second, 'ov1')).message, /another program has the port.*EADDRINUSE/);
    assert.is(hosts.a.netlink.getLink('ov1').isUp, true, 'the link is not touched');
    await first.client.delete('/v1/overlays/ov0?force=true');
    await until('restored by itself', 10_000, async () => (await status(second, 'ov1')).status === 'ONLINE');
    assert.is(await second.state('ov1'), 'started');

    const { index } = hosts.a.netlink.getLink('underlay0');
    await second.client.delete('/v1/overlays/ov1?force=true');
    hosts.a.netlink.removeAddress(index, `${underlay[4].a}/24`);
    await second.client.post('/v1/overlays', request('ov2', 3, 'a'));
    hosts.a.netlink.setLink(hosts.a.netlink.getLink('ov2').index, { up: true });
    await until('degraded', 2000, async () => (await status(second, 'ov2')).status === 'DEGRADED');
    assert.match(
      (await status(second, 'ov2')).message,
      /no interface of this host has the address.*EADDRNOTAVAIL/,
    );
    const returned = performance.now();
    hosts.a.netlink.addAddress(index, `${underlay[4].a}/24`);
    await until('the address is back', 5000, async () => (await second.state('ov2')) === 'started');
    assert.ok(performance.now() - returned < 1500, 'an address event hastens the retry');

    hosts.a.netlink.deleteLink(hosts.a.netlink.getLink('ov2').index);
    await until(
      'a deleted link is noticed',
      2000,
      async () => (await status(second, 'ov2')).status === 'DEGRADED',
    );
    assert.match((await status(second, 'ov2')).message, /was deleted or moved away; delete and create/);
    await second.client.delete('/v1/overlays/ov2');
  }),
);

testWith(
  twoHosts,
  needs,
  `create and delete ${CYCLES} times: no descriptor, link or memory stays behind`,
  () =>
    withHosts(async (hosts) => {
      const nodeFlags = ['--expose-gc', '--import', pathToFileURL(REPORT_MEMORY).href];
      const a = await hosts.daemon('a', { flags: ['--log-level', 'error'], nodeFlags });
      const descriptors = () => readdirSync(`/proc/${a.child.pid!}/fd`).length;
      const memoryKib = async () => {
        const reports = () => [...a.log.matchAll(/^memory (\d+) (\d+)$/gm)];
        const before = reports().length;
        a.child.kill('SIGWINCH');
        await until('it says what memory it has', 5000, () => reports().length > before);
        const [, heap, rest] = reports().at(-1)!;
        return { heap: Number(heap) / 1024, rest: Number(rest) / 1024 };
      };
      const cycle = async (count: number) => {
        for (let i = 0; i < count; i++) {
          await a.client.post('/v1/overlays', request('ov0', VNETID, 'a'));
          await a.client.delete('/v1/overlays/ov0');
        }
      };
      // Until what is compiled and what is kept of events are there.
      await cycle(WARM_UP);
      const before = { descriptors: descriptors(), ...(await memoryKib()) };
      await cycle(CYCLES - WARM_UP);
      await until('descriptors are back', 5000, () => descriptors() <= before.descriptors);
      let [heap, rest] = [0, 0];
      // A leaked page a cycle would be 3,000 KiB and more, a leaked device in the heap some 5,000.
      const isBack = async () => {
        const after = await memoryKib();
        [heap, rest] = [after.heap - before.heap, after.rest - before.rest];
        return heap < 1500 && rest < 2500;
      };
      // Pages go back to the system by and by.
      await until('memory is back', 10_000, isBack).catch((error: Error) => {
        throw new Error(
          `${error.message}: grew by ${heap.toFixed(0)} KiB of heap and ${rest.toFixed(0)} others`,
        );
      });
      console.log(`  grew by ${heap.toFixed(0)} KiB of heap and ${rest.toFixed(0)} others`);
      assert.equal(
        hosts.a.netlink
          .listLinks()
          .map(({ name }) => name)
          .sort(),
        ['lo', 'underlay0'],
      );
      assert.equal((await a.stats()).overlays, {});
    }),
);

twoHosts.run();
