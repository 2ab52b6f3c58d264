/** Overlays of every encapsulation from one of two hosts straight to the other, and who is on them. */
import { EncapRegistry } from '../../src/encap/registry.js';
import type { Family, Guest } from './guest.js';
import { type Daemon, type Hosts, type Side, underlay, until } from './hosts.js';

const LINK = 'ov0';
const encaps = new EncapRegistry();
/** Where each encapsulation listens unless told otherwise; undefined for GRE, which has no ports. */
export const PORTS: Readonly<Record<string, number | undefined>> = Object.fromEntries(
  encaps.names.map((name) => {
    const { properties, operations } = encaps.get(name);
    const port = properties.find((each) => each === `${name}/listen_port`);
    return [name, port === undefined ? undefined : Number(operations.propinfo(port).default)];
  }),
);
/** Addresses of the guests. */
export const inner = {
  a: { 4: '198.51.100.1', 6: '2001:db8:1::1' },
  b: { 4: '198.51.100.2', 6: '2001:db8:1::2' },
} as const;

export interface DirectRequest {
  readonly encapsulation: string;
  /** Of the underlay. */
  readonly family: Family;
  readonly vnetid: number;
  readonly properties?: Readonly<Record<string, string>>;
}

/** The guest on a link of a host that is down, which gets the side's addresses and is taken up. */
export function guestOn(hosts: Hosts, side: Side, link: string, daemon?: Daemon): Guest {
  const { netlink } = hosts[side];
  // Node names the link of a link-local sender, and that link is not in the namespace of this process.
  netlink.setLink(netlink.getLink(link).index, { addrGenModeNone: true });
  hosts.address(side, link, `${inner[side][4]}/24`, `${inner[side][6]}/64`);
  return { host: hosts[side], link, inner: inner[side], daemon };
}

/** Creates and starts the overlay of a side, with a guest on its link. */
export async function createDirect(
  hosts: Hosts,
  side: Side,
  daemon: Daemon,
  { encapsulation, family, vnetid, properties }: DirectRequest,
): Promise<Guest> {
  const port = PORTS[encapsulation];
  await daemon.client.post('/v1/overlays', {
    name: LINK,
    encap: encapsulation,
    search: 'direct',
    vnetid,
    properties: {
      [`${encapsulation}/listen_ip`]: underlay[family][side],
      'direct/dest_ip': underlay[family][side === 'a' ? 'b' : 'a'],
      ...(port === undefined ? {} : { 'direct/dest_port': port }),
      ...properties,
    },
  });
  const guest = guestOn(hosts, side, LINK, daemon);
  await until(`${LINK} is started`, 5000, async () => (await daemon.state(LINK)) === 'started');
  return guest;
}

/** Deletes what `createDirect` has made. */
export function deleteDirect({ client }: Daemon): Promise<unknown> {
  return client.delete(`/v1/overlays/${LINK}?force=true`);
}
