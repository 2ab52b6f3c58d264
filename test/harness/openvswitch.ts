/**
 * Open vSwitch with its userspace datapath on a host: the underlay's link is a port of one bridge, the tunnel a port of another,
 * whose own TAP is what the guest uses. One tunnel after the other may be on it.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Hosts, type Side, underlay, until } from './hosts.js';

/** The bridge whose link is the guest's. */
export const SWITCH_LINK = 'br-int';
export const SWITCH_NEEDS = ['ovs-vswitchd', 'ovsdb-server', 'ovsdb-tool', 'ovs-vsctl'] as const;
const UNDERLAY = 'br-phy';
const TUNNEL = 'tunnel0';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const START_MS_MAX = 10_000;

export interface SwitchRequest {
  /** Of the underlay and of the guest's link. */
  readonly underlayMtu: number;
  readonly mtu: number;
  /** Starts a program that stays, and resolves when it runs. */
  readonly serve: (program: string, args: readonly string[]) => Promise<void> | void;
}

export interface Tunnel {
  readonly type: 'vxlan' | 'geneve' | 'gre';
  /** Undefined: flows say what is sent, and match what is received. */
  readonly vnetid: number | undefined;
  /** Of the underlay. */
  readonly family: 4 | 6;
  /** Further words about it. */
  readonly options?: readonly string[];
}

/** What may be asked of one that runs. */
export interface Switch {
  /** Has this tunnel to the other side, in the place of the last one, and forwards as a switch that learns. */
  connect(tunnel: Tunnel): void;
  /** ovs-ofctl on the guest's bridge. */
  openflow(...words: string[]): string;
}

/** Resolves when it runs. */
export async function startSwitch(
  hosts: Hosts,
  side: Side,
  { underlayMtu, mtu, serve }: SwitchRequest,
): Promise<Switch> {
  const host = hosts[side];
  const folder = join(hosts.directory, `ovs-${side}`);
  mkdirSync(folder);
  // Its own of everything: another one may be running on this machine.
  const folders = ['RUN', 'LOG', 'DB', 'SYSCONF'].map((name) => `OVS_${name}DIR=${folder}`);
  const run = (program: string, ...args: string[]) => host.run('env', ...folders, program, ...args);
  const [file, socket] = [join(folder, 'conf.db'), `unix:${join(folder, 'db.sock')}`];
  const control = (...words: string[]) => run('ovs-vsctl', `--db=${socket}`, '--timeout=10', ...words);
  const openflow = (command: string, ...words: string[]) =>
    run('ovs-ofctl', '--timeout=10', command, `unix:${join(folder, `${SWITCH_LINK}.mgmt`)}`, ...words);

  run('ovsdb-tool', 'create', file, SCHEMA);
  const database = [`--remote=p${socket}`, `--unixctl=${join(folder, 'db.ctl')}`];
  await serve('env', [...folders, 'ovsdb-server', file, ...database]);
  await until('the database of Open vSwitch answers', START_MS_MAX, () => {
    const { status } = host.attempt('ovs-vsctl', `--db=${socket}`, '--timeout=1', '--no-wait', 'init');
    return status === 0;
  });
  await serve('env', [...folders, 'ovs-vswitchd', socket, `--unixctl=${join(folder, 'switch.ctl')}`]);

  const { netlink } = host;
  const { index, mac } = netlink.getLink('underlay0');
  const addresses = [`${underlay[4][side]}/24`, `${underlay[6][side]}/64`];
  for (const address of addresses) netlink.removeAddress(index, address);
  const bridge = (name: string, bytes: number) => {
    const settings = ['datapath_type=netdev', 'fail-mode=standalone'];
    const own = ['--', 'set', 'interface', name, `mtu_request=${bytes}`];
    return ['add-br', name, '--', 'set', 'bridge', name, ...settings, ...own];
  };
  const hardware = ['--', 'set', 'bridge', UNDERLAY, `other-config:hwaddr="${mac}"`];
  const ports = ['--', 'add-port', UNDERLAY, 'underlay0', '--', ...bridge(SWITCH_LINK, mtu)];
  control(...bridge(UNDERLAY, underlayMtu), ...hardware, ...ports);
  hosts.address(side, UNDERLAY, ...addresses);

  const connect = ({ type, vnetid, family, options = [] }: Tunnel) => {
    const far = underlay[family][side === 'a' ? 'b' : 'a'];
    const settings = [`options:remote_ip=${far}`, `options:key=${vnetid ?? 'flow'}`, ...options];
    const port = ['add-port', SWITCH_LINK, TUNNEL, '--', 'set', 'interface', TUNNEL, `type=${type}`];
    control('--if-exists', 'del-port', SWITCH_LINK, TUNNEL, '--', ...port, ...settings);
    openflow('del-flows');
    openflow('add-flow', 'actions=NORMAL');
  };
  return { connect, openflow };
}

/** It does not ask for the neighbour of a tunnel by itself; what the host finds out it overhears. */
export async function meetNeighbour(hosts: Hosts, side: Side, family: 4 | 6 = 4): Promise<void> {
  const far = underlay[family][side === 'a' ? 'b' : 'a'];
  await until(`the underlay of ${side} is there`, START_MS_MAX, () => {
    return hosts[side].attempt('ping', '-q', '-c', '1', '-W', '0.3', far).status === 0;
  });
}
