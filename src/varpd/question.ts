/** What a lookup tells of the frame that it is about. */
import { VNET_HDR_BYTES } from '../../assembly/layout.js';
import { BROADCAST, formatMac, isGroupMac } from '../target/mac.js';
import type { TargetRequest } from '../target/request.js';
import type { LookupRequest } from './plugin.js';
import { parseDhcpRequest } from './proxy/dhcp.js';
import { parseEthernet } from './proxy/ethernet.js';

/** Undefined when the request's frame has no Ethernet header that is whole and sane. */
export function questionOf(
  overlay: string,
  vnetid: bigint,
  { id, mac, frame }: TargetRequest,
): LookupRequest | undefined {
  const inner = frame.subarray(VNET_HDR_BYTES);
  const header = parseEthernet(inner);
  if (!header) return undefined;
  const { source, etherType, vlan, headerBytes } = header;
  return {
    id,
    overlay,
    vnetid,
    source: formatMac(source),
    destination: formatMac(mac),
    kind: mac === BROADCAST ? 'broadcast' : isGroupMac(mac) ? 'multicast' : 'unicast',
    etherType,
    isDhcp: mac === BROADCAST && parseDhcpRequest(inner) !== undefined,
    vlan,
    headerBytes,
    payloadBytes: inner.length - headerBytes,
  };
}
