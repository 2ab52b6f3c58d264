/** Several hosts on one switch, each with a daemon and an overlay device that is looked up by `files`. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon, Host, until } from './hosts.js';

export const VNI = 4711;
export const BRIDGE = 'switch0';

/** What a mapping file says of one guest. */
export interface Mapping {
  readonly ip: string;
  readonly port: number;
  readonly arp?: string;
  readonly ndp?: string;
  readonly 'dhcp-proxy'?: string;
}

/** One host: its place on the underlay and the guest behind its overlay device. */
export class NetworkHost {
  readonly host = new Host();
  readonly underlay: string;
  readonly inner: { readonly 4: string; readonly 6: string };
  readonly mac: string;
  daemon: Daemon | undefined;

  constructor(readonly index: number) {
    this.underlay = `192.0.2.${index + 1}`;
    this.inner = { 4: `198.51.100.${index + 1}`, 6: `2001:db8:1::${index + 1}` };
    this.mac = `02:08:20:00:00:0${index + 1}`;
  }

  get mapping(): Mapping {
    return { ip: this.underlay, port: 4789, arp: this.inner[4], ndp: this.inner[6] };
  }
}

export class Network {
  readonly switch = new Host();
  readonly hosts: readonly NetworkHost[];
  readonly directory = mkdtempSync(join(tmpdir(), 'overlayd-test-'));
  /** The mapping file that every host reads. */
  readonly file = join(this.directory, 'overlay.json');
  readonly mappings = new Map<string, unknown>();

  constructor(count: number) {
    this.hosts = Array.from({ length: count }, (_, index) => new NetworkHost(index));
    const { netlink } = this.switch;
    netlink.createBridge(BRIDGE);
    const bridge = netlink.getLink(BRIDGE).index;
    netlink.setLink(bridge, { up: true });
    for (const { host, index, underlay, mac, mapping } of this.hosts) {
      netlink.createVeth(`port${index}`, 'underlay0', { peerNamespaceFd: host.namespace });
      netlink.setLink(netlink.getLink(`port${index}`).index, { master: bridge, up: true });
      host.netlink.setLink(host.netlink.getLink('lo').index, { up: true });
      const link = host.netlink.getLink('underlay0').index;
      host.netlink.setLink(link, { addrGenModeNone: true });
      host.netlink.setLink(link, { up: true });
      host.netlink.addAddress(link, `${underlay}/24`);
      this.mappings.set(mac, mapping);
    }
    this.write();
  }

  /** Puts the mappings into the file in one step, as an operator should. */
  write(): void {
    writeFileSync(`${this.file}.new`, JSON.stringify(Object.fromEntries(this.mappings), null, 2));
    renameSync(`${this.file}.new`, this.file);
  }

  /** Starts the daemons, the overlay devices and the guests on them. */
  async start(properties: Readonly<Record<string, string | number>> = {}): Promise<void> {
    for (const each of this.hosts) {
      const { host, index, underlay, inner, mac } = each;
      const directory = mkdtempSync(join(this.directory, `${index}-`));
      const daemon = await Daemon.start(host, directory);
      each.daemon = daemon;
      await daemon.client.post('/v1/overlays', {
        name: 'ov0',
        encap: 'vxlan',
        search: 'files',
        vnetid: VNI,
        properties: {
          'vxlan/listen_ip': underlay,
          'files/config': this.file,
          'files/local_ip': underlay,
          ...properties,
        },
      });
      const link = host.netlink.getLink('ov0').index;
      host.netlink.setLink(link, { mac });
      host.netlink.addAddress(link, `${inner[4]}/24`, { noDad: true });
      host.netlink.addAddress(link, `${inner[6]}/64`, { noDad: true });
      host.netlink.setLink(link, { up: true });
      await until('started', 5000, async () => (await daemon.state('ov0')) === 'started');
    }
  }

  async close(): Promise<void> {
    for (const { host } of this.hosts) await host.close();
    await this.switch.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
