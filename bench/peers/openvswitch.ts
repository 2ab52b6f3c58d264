/** Open vSwitch with its userspace datapath. */
import type { Side } from '../../test/harness/hosts.js';
import { meetNeighbour, SWITCH_LINK, SWITCH_NEEDS, startSwitch } from '../../test/harness/openvswitch.js';
import { sides, type Testbed } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

async function start(bed: Testbed, side: Side): Promise<void> {
  const { hosts, scene } = bed;
  const { connect } = await startSwitch(hosts, side, {
    underlayMtu: scene.mtu,
    mtu: scene.mtu - VXLAN_OVERHEAD,
    serve: (program, args) => bed.start(side, program, args),
  });
  connect({ type: 'vxlan', vnetid: VNI, family: 4 });
}

export const openvswitch: Peer = {
  name: 'openvswitch',
  what: "Open vSwitch's userspace datapath, VXLAN",
  needs: SWITCH_NEEDS,
  packages: ['openvswitch-switch'],
  layer: 2,
  overhead: VXLAN_OVERHEAD,
  up: async (bed) => {
    await Promise.all(sides.map((side) => start(bed, side)));
    for (const side of sides) await meetNeighbour(bed.hosts, side);
    return { a: SWITCH_LINK, b: SWITCH_LINK };
  },
};
