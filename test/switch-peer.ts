/** Our daemon against Open vSwitch's userspace datapath: Geneve, VXLAN and NVGRE, over IPv4 and IPv6, options both ways. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { iperf } from './harness/iperf.js';
import { testWith } from './harness/needs.js';
import { meetNeighbour, SWITCH_LINK, SWITCH_NEEDS, type Switch, startSwitch } from './harness/openvswitch.js';

const switchPeer = suite('Open vSwitch as the peer');
const needs = ['root', '/dev/net/tun', 'ip', 'ping', 'iperf3', 'ethtool', 'ovs-ofctl', ...SWITCH_NEEDS];
const VNI = 0x4242;
const MTU = 1400;
const inner = {
  4: { a: '198.51.100.1', b: '198.51.100.2' },
  6: { a: '2001:db8:1::1', b: '2001:db8:1::2' },
} as const;
const PORTS = { vxlan: 4789, geneve: 6081, nvgre: undefined, 'vxlan-gpe': 4790 } as const;
type Encap = keyof typeof PORTS;
const SWITCH_TYPES = { vxlan: 'vxlan', geneve: 'geneve', nvgre: 'gre', 'vxlan-gpe': 'vxlan' } as const;

/** All drops of the device and its underlay address. */
async function dropsOf(daemon: Daemon): Promise<unknown> {
  const { overlays, muxes } = await daemon.stats();
  return [overlays.ov0!.drops, ...Object.values(muxes).map(({ drops }) => drops)];
}

interface Scene {
  readonly hosts: Hosts;
  readonly daemon: Daemon;
  readonly peer: Switch;
}

/** a: overlayd; b: Open vSwitch. */
async function withPeers(
  type: Encap,
  family: 4 | 6,
  properties: Readonly<Record<string, string>>,
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const hosts = new Hosts();
  try {
    // It reads the wire through a packet socket, where a veth pair shows checksums that nobody has finished.
    hosts.a.run('ethtool', '-K', 'underlay0', 'tx', 'off');
    const daemon = await hosts.daemon('a');
    await daemon.client.post('/v1/overlays', {
      name: 'ov0',
      encap: type,
      search: 'direct',
      vnetid: VNI,
      properties: {
        [`${type}/listen_ip`]: underlay[family].a,
        'direct/dest_ip': underlay[family].b,
        ...(PORTS[type] ? { 'direct/dest_port': PORTS[type] } : {}),
        ...properties,
      },
    });
    const serve = (program: string, args: readonly string[]) => {
      const child = hosts.b.start(program, ...args);
      child.stdout?.resume();
      child.stderr?.resume();
    };
    const peer = await startSwitch(hosts, 'b', {
      underlayMtu: 1500,
      mtu: MTU,
      type: SWITCH_TYPES[type],
      options: type === 'vxlan-gpe' ? ['options:exts=gpe', `options:dst_port=${PORTS[type]}`] : [],
      // There the FlowID is part of the key.
      vnetid: type === 'nvgre' ? undefined : VNI,
      family,
      serve,
    });
    if (type === 'nvgre') exchangeKeys(peer);
    await meetNeighbour(hosts, 'b', family);
    hosts.address('a', 'ov0', `${inner[4].a}/24`, `${inner[6].a}/64`);
    hosts.address('b', SWITCH_LINK, `${inner[4].b}/24`, `${inner[6].b}/64`);
    await until('the peers see each other', 10_000, () => {
      return hosts.a.attempt('ping', '-c', '1', '-W', '1', inner[4].b).status === 0;
    });
    await work({ hosts, daemon, peer });
  } finally {
    await hosts.close();
  }
}

/** What is ours whatever its FlowID, and back with another one. */
function exchangeKeys(peer: Switch): void {
  const tunnel = portOf(peer);
  const key = (flowId: number) => `0x${(VNI * 256 + flowId).toString(16)}`;
  peer.openflow('del-flows');
  peer.openflow('add-flow', `in_port=${tunnel},tun_id=${key(0)}/0xffffff00,actions=LOCAL`);
  peer.openflow('add-flow', `in_port=LOCAL,actions=set_field:${key(0xa5)}->tun_id,output:${tunnel}`);
}

/** The tunnel's port in flows. */
function portOf(peer: Switch): string {
  return /^ *(\d+)\(tunnel0\)/m.exec(peer.openflow('show'))![1]!;
}

for (const [type, family] of [
  ['geneve', 4],
  ['geneve', 6],
  ['vxlan', 4],
  ['vxlan', 6],
  ['nvgre', 4],
  ['nvgre', 6],
  ['vxlan-gpe', 4],
] as const) {
  testWith(
    switchPeer,
    needs,
    `${type} over IPv${family}: ping of all sorts of sizes, TCP and UDP, both ways`,
    () =>
      withPeers(type, family, {}, async ({ hosts, daemon }) => {
        const before = await dropsOf(daemon);
        for (const from of ['a', 'b'] as const) {
          const to = from === 'a' ? 'b' : 'a';
          // 28 bytes of headers; those above the MTU go in fragments.
          for (const size of [0, 1, 500, MTU - 29, MTU - 28, MTU - 27, 4000]) {
            const { status } = hosts[from].attempt(
              'ping',
              '-q',
              '-c',
              '1',
              '-W',
              '2',
              '-s',
              `${size}`,
              inner[4][to],
            );
            assert.is(status, 0, `${size} bytes from ${from}`);
          }
          assert.is(hosts[from].attempt('ping', '-q', '-c', '1', '-W', '2', inner[6][to]).status, 0);
          const { bytes } = await iperf(hosts, from, inner[4][to], '-t', '1');
          assert.ok(bytes > 1_000_000, `TCP from ${from}: ${bytes} bytes`);
          const udp = await iperf(hosts, from, inner[6][to], '-u', '-b', '20M', '-l', '1200', '-t', '1');
          assert.ok(udp.packets! > 500 && udp.lostPackets! < udp.packets! / 20, `UDP from ${from}`);
        }
        assert.equal(await dropsOf(daemon), before);
      }),
  );
}

testWith(
  switchPeer,
  needs,
  'options of Geneve: ours are seen there, theirs are skipped here, a critical one is not',
  () =>
    withPeers('geneve', 4, { 'geneve/options': '0102:3:0a0b0c0d' }, async ({ hosts, daemon, peer }) => {
      const ping = () =>
        hosts.a.attempt('ping', '-q', '-c', '3', '-i', '0.1', '-W', '1', inner[4].b).status === 0;
      const tunnel = portOf(peer);
      peer.openflow(
        'add-tlv-map',
        '{class=0x102,type=3,len=4}->tun_metadata0,{class=0x102,type=0x84,len=4}->tun_metadata1',
      );
      const flows = (back: string) => {
        peer.openflow('del-flows');
        peer.openflow('add-flow', `priority=2,in_port=${tunnel},tun_metadata0=0x0a0b0c0d,actions=LOCAL`);
        peer.openflow('add-flow', `priority=1,in_port=${tunnel},actions=drop`);
        peer.openflow('add-flow', `in_port=LOCAL,actions=${back}output:${tunnel}`);
      };
      const rxDrops = async () => Object.values((await daemon.stats()).muxes)[0]!.drops;

      flows('set_field:0x01020304->tun_metadata0,');
      assert.ok(ping(), 'with an option that is not critical');
      assert.match(peer.openflow('dump-flows'), /n_packets=[1-9].*tun_metadata0=0xa0b0c0d/);
      assert.match(peer.openflow('dump-flows'), /n_packets=0.*actions=drop/);
      assert.equal(await rxDrops(), {});

      flows('set_field:0x01020304->tun_metadata1,');
      assert.not.ok(ping(), 'with a critical one');
      assert.ok(Number((await rxDrops()).rx_critical_option) >= 1);

      await daemon.client.put('/v1/overlays/ov0/properties/geneve%2Foptions', { value: '0102:3:ffffffff' });
      flows('');
      assert.not.ok(ping(), 'another value than the flow wants');
      assert.match(peer.openflow('dump-flows'), /n_packets=[1-9].*actions=drop/);
    }),
);

switchPeer.run();
