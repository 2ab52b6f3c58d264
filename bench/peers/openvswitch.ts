/**
 * Open vSwitch with its userspace datapath: the underlay's link is a port of one bridge, the tunnel a port of another,
 * whose own TAP is what the guest uses.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Side, underlay, until } from '../../test/harness/hosts.js';
import { inner, other, sides, type Testbed } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'br-int';
const UNDERLAY = 'br-phy';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const START_MS_MAX = 10_000;

async function start(bed: Testbed, side: Side): Promise<void> {
  const { hosts, scene } = bed;
  const host = hosts[side];
  const folder = join(hosts.directory, `ovs-${side}`);
  mkdirSync(folder);
  // Its own of everything: another one may be running on this machine.
  const folders = ['RUN', 'LOG', 'DB', 'SYSCONF'].map((name) => `OVS_${name}DIR=${folder}`);
  const run = (program: string, ...args: string[]) => host.run('env', ...folders, program, ...args);
  const [file, socket] = [join(folder, 'conf.db'), `unix:${join(folder, 'db.sock')}`];
  const control = (...words: string[]) => run('ovs-vsctl', `--db=${socket}`, '--timeout=10', ...words);
  const serve = (program: string, ...args: string[]) =>
    bed.start(side, 'env', [...folders, program, ...args]);

  run('ovsdb-tool', 'create', file, SCHEMA);
  await serve('ovsdb-server', file, `--remote=p${socket}`, `--unixctl=${join(folder, 'db.ctl')}`);
  await until('the database of Open vSwitch answers', START_MS_MAX, () => {
    const { status } = host.attempt('ovs-vsctl', `--db=${socket}`, '--timeout=1', '--no-wait', 'init');
    return status === 0;
  });
  await serve('ovs-vswitchd', socket, `--unixctl=${join(folder, 'switch.ctl')}`);

  const { netlink } = host;
  const { index, mac } = netlink.getLink('underlay0');
  const address = `${underlay[4][side]}/24`;
  netlink.removeAddress(index, address);
  const bridge = (name: string, mtu: number) => {
    const settings = ['datapath_type=netdev', 'fail-mode=standalone'];
    const own = ['--', 'set', 'interface', name, `mtu_request=${mtu}`];
    return ['add-br', name, '--', 'set', 'bridge', name, ...settings, ...own];
  };
  const hardware = ['--', 'set', 'bridge', UNDERLAY, `other-config:hwaddr="${mac}"`];
  control(...bridge(UNDERLAY, scene.mtu), ...hardware, '--', 'add-port', UNDERLAY, 'underlay0');
  hosts.address(side, UNDERLAY, address);
  const options = [`options:remote_ip=${underlay[4][other(side)]}`, `options:key=${VNI}`];
  const tunnel = ['add-port', LINK, 'tunnel0', '--', 'set', 'interface', 'tunnel0', 'type=vxlan', ...options];
  control(...bridge(LINK, scene.mtu - VXLAN_OVERHEAD), '--', ...tunnel);
}

export const openvswitch: Peer = {
  name: 'openvswitch',
  what: "Open vSwitch's userspace datapath, VXLAN",
  needs: ['ovs-vswitchd', 'ovsdb-server', 'ovsdb-tool', 'ovs-vsctl'],
  packages: ['openvswitch-switch'],
  layer: 2,
  overhead: VXLAN_OVERHEAD,
  up: async (bed) => {
    await Promise.all(sides.map((side) => start(bed, side)));
    // It does not ask for the neighbour of a tunnel by itself; what the host finds out it overhears.
    for (const side of sides) {
      await until(`${inner[side]}'s underlay is there`, START_MS_MAX, () => {
        const ping = ['-q', '-c', '1', '-W', '0.3', underlay[4][other(side)]];
        return bed.hosts[side].attempt('ping', ...ping).status === 0;
      });
    }
    return { a: LINK, b: LINK };
  },
};
