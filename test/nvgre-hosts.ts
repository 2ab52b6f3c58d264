/** NVGRE between hosts: raw sockets over IPv4 and IPv6, shared out to workers by FlowID, seen on the wire. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { capture } from './harness/capture.js';
import { guestOn, inner } from './harness/direct.js';
import type { Guest } from './harness/guest.js';
import { type Daemon, Hosts, type Side, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { GUEST_MTU, interoperate, seeEachOther } from './harness/traffic.js';

const nvgreHosts = suite('nvgre between hosts');
const needs = ['root', '/dev/net/tun', 'ip', 'ping', 'tcpdump'];
const VSID = 0x123456;
const WORKERS = 4;
const macs = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;
const sides = ['a', 'b'] as const;

const other = (side: Side): Side => (side === 'a' ? 'b' : 'a');

interface Scene {
  readonly hosts: Hosts;
  readonly daemons: Readonly<Record<Side, Daemon>>;
  readonly guests: readonly [Guest, Guest];
}

type PropertiesOf = (side: Side, hosts: Hosts) => Readonly<Record<string, string>>;

async function withHosts(
  search: string,
  propertiesOf: PropertiesOf,
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const hosts = new Hosts();
  try {
    const start = async (side: Side) => {
      const daemon = await hosts.daemon(side, { flags: ['--workers', `${WORKERS}`] });
      const properties = propertiesOf(side, hosts);
      await daemon.client.post('/v1/overlays', {
        name: 'ov0',
        encap: 'nvgre',
        search,
        vnetid: VSID,
        properties,
      });
      hosts[side].run('ip', 'link', 'set', 'ov0', 'address', macs[side]);
      return daemon;
    };
    const [a, b] = await Promise.all([start('a'), start('b')]);
    const guests = [guestOn(hosts, 'a', 'ov0', a), guestOn(hosts, 'b', 'ov0', b)] as const;
    await seeEachOther(...guests);
    await work({ hosts, daemons: { a, b }, guests });
  } finally {
    await hosts.close();
  }
}

/** What each side has sent, and what has become of it. */
async function countsOf({ hosts, daemons }: Scene) {
  const stats = { a: await daemons.a.stats(), b: await daemons.b.stats() };
  return sides.map((side) => {
    const from = stats[side].overlays.ov0!;
    const to = stats[other(side)];
    const [mux] = Object.values(to.muxes);
    const drops = [from.drops, to.overlays.ov0!.drops, mux!.drops];
    return {
      sent: Number(from.counters.tx_datagrams),
      read: Number(mux!.counters.rx_read),
      delivered: Number(to.overlays.ov0!.counters.rx_frames),
      drops: drops.flatMap((each) => Object.values(each)).reduce<number>((sum, n) => sum + Number(n), 0),
      writes: Number(to.overlays.ov0!.counters.rx_writes),
      link: Number(hosts[other(side)].linkStats('ov0').rxPackets),
    };
  });
}

type Counts = Awaited<ReturnType<typeof countsOf>>[number];

/** Likewise when nothing is on its way: read again when a frame passed in between. */
async function countsAtRest(scene: Scene): Promise<Counts[]> {
  let counts = await countsOf(scene);
  await until('the counters rest', 3000, async () => {
    const before = JSON.stringify(counts);
    counts = await countsOf(scene);
    return JSON.stringify(counts) === before;
  });
  return counts;
}

/** Since `before`, every datagram that one side sent was read once by the other, and delivered as the kernel counts. */
async function assertOnceEach(scene: Scene, before: readonly Counts[]): Promise<void> {
  let seen: Counts[] = [];
  const fits = ({ sent, read, delivered, drops, writes, link }: Counts) =>
    read === sent && delivered === sent && drops === 0 && link === writes;
  await until('each is there once', 3000, async () => {
    const after = await countsOf(scene);
    seen = after.map((counts, side) => {
      const names = Object.keys(counts) as (keyof Counts)[];
      return Object.fromEntries(names.map((name) => [name, counts[name] - before[side]![name]])) as Counts;
    });
    return seen.every(fits);
  }).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(seen)}`);
  });
}

for (const family of [4, 6] as const) {
  const direct: PropertiesOf = (side) => ({
    'nvgre/listen_ip': underlay[family][side],
    'direct/dest_ip': underlay[family][other(side)],
    mtu: `${GUEST_MTU}`,
  });

  testWith(
    nvgreHosts,
    needs,
    `IPv${family}: ping, TCP and UDP both ways, each datagram by one of ${WORKERS} workers; on the wire key, TTL, DSCP, DF, and the guests' ECN`,
    () =>
      withHosts('direct', direct, async (scene) => {
        const { hosts, daemons, guests } = scene;
        const counts = await countsAtRest(scene);
        await interoperate(['ping', 'TCP', 'UDP'], guests);
        await assertOnceEach(scene, counts);
        for (const side of sides) {
          const { workers } = await daemons[side].stats();
          const busy = Object.values(workers).filter(({ counters }) => Number(counters.rx_batches) > 0);
          assert.ok(busy.length > 1, `${busy.length} workers of ${side} have read something`);
        }

        const set = (property: string, value: string) =>
          daemons.a.client.put(`/v1/overlays/ov0/properties/${encodeURIComponent(property)}`, { value });
        const seenOf = async (trafficClass: number) => {
          const seen = await capture(hosts.b, 'proto 47 or ip6 proto 47', { flags: ['-v', '-Q', 'in'] });
          const flags = ['-q', '-c', '2', '-i', '0.2', '-W', '1', '-Q', `${trafficClass}`];
          assert.is(hosts.a.attempt('ping', ...flags, inner.b[4]).status, 0);
          return await seen();
        };
        const header = family === 4 ? 'flags \\[DF\\], proto GRE \\(47\\)' : 'next-header GRE \\(47\\)';
        const key = `GREv0, Flags \\[key present\\], key=0x${VSID.toString(16)}[0-9a-f]{2}, `;
        const before = await seenOf(0xba);
        assert.match(before, new RegExp(header));
        assert.match(before, new RegExp(key));
        assert.match(
          before,
          family === 4 ? /IP \(tos 0x2,ECT\(0\), ttl 64,/ : /IP6 \(class 0x02, .*hlim 64,/,
        );
        await set('nvgre/ttl', '9');
        await set('nvgre/dscp', 'inherit');
        assert.match(
          await seenOf(0xba),
          family === 4 ? /IP \(tos 0xba,ECT\(0\), ttl 9,/ : /IP6 \(class 0xba, .*hlim 9,/,
        );
      }),
  );
}

testWith(nvgreHosts, needs, 'looked up by files: destinations without a port', () => {
  const propertiesOf: PropertiesOf = (side, hosts) => {
    const file = join(hosts.directory, 'mappings.json');
    const mapping = (at: Side) => ({ arp: inner[at][4], ndp: inner[at][6], ip: underlay[4][at] });
    // What kernels say to groups of their own accord goes to the other side.
    writeFileSync(file, JSON.stringify({ [macs.a]: mapping('a'), [macs.b]: mapping('b'), flood: true }));
    return { 'nvgre/listen_ip': underlay[4][side], 'files/config': file };
  };
  return withHosts('files', propertiesOf, async ({ daemons, guests }) => {
    await interoperate(['TCP'], guests);
    const targets = await daemons.a.client.get<{ targets: readonly { destination: string }[] }>(
      '/v1/overlays/ov0/targets',
    );
    assert.match(JSON.stringify(targets), /"192\.0\.2\.2"/);
  });
});

testWith(
  nvgreHosts,
  [...needs, 'setpriv'],
  'without CAP_NET_RAW: the device says what it lacks',
  async () => {
    const hosts = new Hosts();
    try {
      const daemon = await hosts.daemon('a', { under: ['setpriv', '--bounding-set=-net_raw'] });
      const properties = { 'nvgre/listen_ip': underlay[4].a, 'direct/dest_ip': underlay[4].b };
      const request = { name: 'ov0', encap: 'nvgre', search: 'direct', vnetid: VSID, properties };
      await daemon.client.post('/v1/overlays', request);
      hosts.address('a', 'ov0');
      await until('it says so', 3000, async () =>
        JSON.stringify(await daemon.client.get('/v1/status')).includes('needs CAP_NET_RAW'),
      );
    } finally {
      await hosts.close();
    }
  },
);

nvgreHosts.run();
