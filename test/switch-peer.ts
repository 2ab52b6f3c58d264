/** Our daemon against Open vSwitch's userspace datapath: every encapsulation, over IPv4 and IPv6, options of Geneve both ways. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createDirect, type DirectRequest, deleteDirect, guestOn, inner, PORTS } from './harness/direct.js';
import type { Guest } from './harness/guest.js';
import { type Daemon, Hosts } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import {
  meetNeighbour,
  SWITCH_LINK,
  SWITCH_NEEDS,
  type Switch,
  startSwitch,
  type Tunnel,
} from './harness/openvswitch.js';
import { Shown } from './harness/shown.js';
import { GUEST_MTU, seeEachOther } from './harness/traffic.js';

const switchPeer = suite('Open vSwitch as the peer');
const needs = ['root', '/dev/net/tun', 'ping', 'ethtool', 'ovs-ofctl', ...SWITCH_NEEDS];
const shown = new Shown('switch-peer');
const VNI = 0x4242;

/** How it calls them; of GRE the FlowID is part of the key, which flows then say. */
const tunnels: Readonly<Record<string, Omit<Tunnel, 'family'>>> = {
  vxlan: { type: 'vxlan', vnetid: VNI },
  'vxlan-gpe': {
    type: 'vxlan',
    vnetid: VNI,
    options: ['options:exts=gpe', `options:dst_port=${PORTS['vxlan-gpe']}`],
  },
  geneve: { type: 'geneve', vnetid: VNI },
  nvgre: { type: 'gre', vnetid: undefined },
};

/** a: overlayd; b: Open vSwitch. One of each for all encapsulations and families, one after the other. */
class Scene {
  private constructor(
    readonly hosts: Hosts,
    readonly daemon: Daemon,
    readonly peer: Switch,
    readonly theirs: Guest,
  ) {}

  static async run(work: (scene: Scene) => Promise<void>): Promise<void> {
    const hosts = new Hosts();
    try {
      // It reads the wire through a packet socket, where a veth pair shows checksums that nobody has finished.
      hosts.a.run('ethtool', '-K', 'underlay0', 'tx', 'off');
      const serve = (program: string, args: readonly string[]) => {
        const child = hosts.b.start(program, ...args);
        child.stdout?.resume();
        child.stderr?.resume();
      };
      const request = { underlayMtu: 1500, mtu: GUEST_MTU, serve };
      const [daemon, peer] = await Promise.all([hosts.daemon('a'), startSwitch(hosts, 'b', request)]);
      const theirs = guestOn(hosts, 'b', SWITCH_LINK);
      for (const family of [4, 6] as const) await meetNeighbour(hosts, 'b', family);
      await work(new Scene(hosts, daemon, peer, theirs));
    } finally {
      await hosts.close();
    }
  }

  /** Connects both, for as long as the work takes. */
  async connected(
    request: Omit<DirectRequest, 'vnetid'>,
    work: (ours: Guest) => Promise<void>,
  ): Promise<void> {
    const { hosts, daemon, peer, theirs } = this;
    const { encapsulation, family } = request;
    peer.connect({ ...tunnels[encapsulation]!, family });
    if (encapsulation === 'nvgre') exchangeKeys(peer);
    const properties = { mtu: `${GUEST_MTU}`, ...request.properties };
    const ours = await createDirect(hosts, 'a', daemon, { ...request, vnetid: VNI, properties });
    await seeEachOther(ours, theirs);
    await work(ours);
    await deleteDirect(daemon);
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

testWith(switchPeer, needs, 'each encapsulation: ping, TCP, UDP and mDNS, both ways', () =>
  Scene.run(async (scene) => {
    for (const place of shown.places('direct')) {
      const [encapsulation, family] = place;
      await scene.connected({ encapsulation, family }, (ours) =>
        shown.show('direct', place, [ours, scene.theirs]),
      );
    }
  }),
);

testWith(
  switchPeer,
  needs,
  'options of Geneve: ours are seen there, theirs are skipped here, a critical one is not',
  () =>
    Scene.run(async (scene) => {
      const { daemon, hosts, peer, theirs } = scene;
      const how = 'direct, options both ways';
      const ours = '0102:3:0a0b0c0d';
      const ping = () => hosts.a.attempt('ping', '-q', '-c', '1', '-W', '0.5', inner.b[4]).status === 0;
      const flows = (back: string) => {
        const tunnel = portOf(peer);
        peer.openflow('del-flows');
        peer.openflow('add-flow', `priority=2,in_port=${tunnel},tun_metadata0=0x0a0b0c0d,actions=LOCAL`);
        peer.openflow('add-flow', `priority=1,in_port=${tunnel},actions=drop`);
        peer.openflow('add-flow', `in_port=LOCAL,actions=${back}output:${tunnel}`);
      };
      const rxDrops = async () => Object.values((await daemon.stats()).muxes)[0]!.drops;
      peer.openflow(
        'add-tlv-map',
        '{class=0x102,type=3,len=4}->tun_metadata0,{class=0x102,type=0x84,len=4}->tun_metadata1',
      );
      for (const place of shown.places(how)) {
        const [encapsulation, family] = place;
        const properties = { 'geneve/options': ours };
        await scene.connected({ encapsulation, family, properties }, async (guest) => {
          flows('set_field:0x01020304->tun_metadata0,');
          await shown.show(how, place, [guest, theirs]);
          assert.match(peer.openflow('dump-flows'), /n_packets=[1-9].*tun_metadata0=0xa0b0c0d/);
          assert.match(peer.openflow('dump-flows'), /n_packets=0.*actions=drop/);

          flows('set_field:0x01020304->tun_metadata1,');
          assert.not.ok(ping(), 'with a critical one');
          assert.ok(Number((await rxDrops()).rx_critical_option) >= 1);

          await daemon.client.put('/v1/overlays/ov0/properties/geneve%2Foptions', {
            value: '0102:3:ffffffff',
          });
          flows('');
          assert.not.ok(ping(), 'another value than the flow wants');
          assert.match(peer.openflow('dump-flows'), /n_packets=[1-9].*actions=drop/);
        });
      }
    }),
);

testWith(switchPeer, needs, 'all that is to be shown has been', () => shown.assertAll());

switchPeer.run();
