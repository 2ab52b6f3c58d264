/** What the throughput bench compares: each brings a link up between two hosts, addressed 10.99.0.1 and .2. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Hosts, type Side, underlay, until } from '../test/harness/hosts.js';

const VNI = 100;
const sides: readonly Side[] = ['a', 'b'];
export const inner = { a: '10.99.0.1', b: '10.99.0.2' } as const;

export interface Peer {
  readonly name: string;
  readonly what: string;
  /** Programs it needs besides ours. */
  readonly needs: readonly string[];
  /** Brings both sides up with the given MTU inside. */
  up(hosts: Hosts, mtu: number): Promise<void>;
}

const other = (side: Side): Side => (side === 'a' ? 'b' : 'a');

function address(hosts: Hosts, side: Side, link: string, mtu: number): void {
  const { netlink } = hosts[side];
  netlink.setLink(netlink.getLink(link).index, { mtu });
  hosts.address(side, link, `${inner[side]}/24`);
}

const source = join(import.meta.dirname, '../../bench/native.c');
let nativeProgram: string | undefined;

/** Compiles the C yardstick once a run. */
function native(): string {
  if (nativeProgram === undefined) {
    nativeProgram = join(mkdtempSync(join(tmpdir(), 'overlayd-bench-')), 'native');
    execFileSync('gcc', ['-O3', '-o', nativeProgram, source]);
  }
  return nativeProgram;
}

export const peers: readonly Peer[] = [
  {
    name: 'veth',
    what: 'no overlay: the bare veth pair',
    needs: [],
    up: async (hosts) => {
      for (const side of sides) hosts.address(side, 'underlay0', `${inner[side]}/24`);
    },
  },
  {
    name: 'kernel',
    what: "the kernel's VXLAN device",
    needs: ['ip'],
    up: async (hosts, mtu) => {
      for (const side of sides) {
        const [local, remote] = [underlay[4][side], underlay[4][other(side)]];
        const vxlan = ['type', 'vxlan', 'id', `${VNI}`, 'local', local, 'remote', remote, 'dstport', '4789'];
        hosts[side].run('ip', 'link', 'add', 'vx0', ...vxlan);
        address(hosts, side, 'vx0', mtu);
      }
    },
  },
  {
    name: 'native',
    what: 'minimal C forwarder, no offloads (bench/native.c)',
    needs: ['gcc'],
    up: async (hosts, mtu) => {
      for (const side of sides) {
        hosts[side].start(native(), 'tap0', underlay[4][side], underlay[4][other(side)], `${VNI}`);
        await until('its link', 3000, () =>
          hosts[side].netlink.listLinks().some(({ name }) => name === 'tap0'),
        );
        address(hosts, side, 'tap0', mtu);
      }
    },
  },
  {
    name: 'overlayd',
    what: 'this project',
    needs: [],
    up: async (hosts, mtu) => {
      for (const side of sides) {
        const daemon = await hosts.daemon(side, { flags: ['--log-level', 'error'] });
        await daemon.createOverlay(hosts[side], 'ov0', VNI, underlay[4][side], underlay[4][other(side)]);
        address(hosts, side, 'ov0', mtu);
      }
    },
  },
];
