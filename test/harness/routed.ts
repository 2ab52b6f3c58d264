/**
 * Two hosts with two routers between them. Everything is taken down by `close`, whatever happened.
 *
 *   a ── r ══ s ── b        the link in the middle may take less than the others
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Host, until } from './hosts.js';

/** Addresses of the hosts and routers on the three links, by family. */
export const links = {
  4: [
    ['192.0.2.1', '192.0.2.254'],
    ['203.0.113.1', '203.0.113.2'],
    ['198.18.0.254', '198.18.0.1'],
  ],
  6: [
    ['2001:db8:1::1', '2001:db8:1::254'],
    ['2001:db8:2::1', '2001:db8:2::2'],
    ['2001:db8:3::254', '2001:db8:3::1'],
  ],
} as const;
export const prefix = { 4: 24, 6: 64 } as const;

export class Routed {
  readonly hosts = [new Host(), new Host(), new Host(), new Host()] as const;
  readonly directory = mkdtempSync(join(tmpdir(), 'overlayd-test-'));

  constructor() {
    for (const [left, host] of this.hosts.entries()) {
      host.netlink.setLink(host.netlink.getLink('lo').index, { up: true });
      const right = this.hosts[left + 1];
      if (!right) continue;
      host.netlink.createVeth('right', 'left', { peerNamespaceFd: right.namespace });
      for (const [end, [at, name]] of (
        [
          [host, 'right'],
          [right, 'left'],
        ] as const
      ).entries()) {
        const { index } = at.netlink.getLink(name);
        // Routers need their link-local addresses.
        at.netlink.setLink(index, { up: true });
        for (const family of [4, 6] as const) {
          at.netlink.addAddress(index, `${links[family][left]![end]}/${prefix[family]}`, { noDad: true });
        }
      }
    }
    const [a, r, s, b] = this.hosts;
    for (const router of [r, s]) {
      router.setting('net/ipv4/ip_forward', '1');
      router.setting('net/ipv6/conf/all/forwarding', '1');
    }
    for (const family of [4, 6] as const) {
      const way = (host: Host, to: string) =>
        host.run('ip', `-${family}`, 'route', 'add', 'default', 'via', to);
      way(a, links[family][0]![1]!);
      way(r, links[family][1]![1]!);
      way(s, links[family][1]![0]!);
      way(b, links[family][2]![0]!);
    }
  }

  /** Resolves when the routers have found each other. */
  async ready(): Promise<void> {
    const [a] = this.hosts;
    for (const family of [4, 6] as const) {
      const to = links[family][2]![1]!;
      await until(`${to} answers`, 10_000, () => a.attempt('ping', '-c', '1', '-W', '1', to).status === 0);
    }
  }

  /**
   * The same, but nobody knows: a packet from r that is larger is lost without a word. A link takes 4 bytes more than its MTU, for
   * a tag.
   */
  set silentMiddle(bytes: number) {
    const [, r, s] = this.hosts;
    // What r would leave to be cut by the link would pass whole.
    r.run('ethtool', '-K', 'right', 'gso', 'off', 'tso', 'off', 'tx-udp-segmentation', 'off', 'tx', 'off');
    s.netlink.setLink(s.netlink.getLink('left').index, { mtu: bytes - 4 });
  }

  /** What the link in the middle takes. */
  set middle(mtu: number) {
    const [, r, s] = this.hosts;
    r.netlink.setLink(r.netlink.getLink('right').index, { mtu });
    s.netlink.setLink(s.netlink.getLink('left').index, { mtu });
  }

  async close(): Promise<void> {
    for (const host of this.hosts) await host.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
