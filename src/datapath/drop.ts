/**
 * Names and sentences of the drops and counters that `assembly/layout.ts` lists. The names are made from the
 * list, so CLI, API, events and documents cannot differ from it; the compiler insists on a sentence for each.
 */
import * as layout from '../../assembly/layout.js';

type DropKey = Extract<keyof typeof layout, `DROP_TX_${string}` | `DROP_RX_${string}`>;
/** For example `tx_short_frame`. */
export type DropName = DropKey extends `DROP_${infer Name}` ? Lowercase<Name> : never;

export const dropSentences: Readonly<Record<DropName, string>> = {
  tx_short_frame: 'a frame shorter than an Ethernet header came from the link',
  tx_too_big: 'a frame longer than MTU + 14 (+ 4 where VLAN tags are carried) came from the link',
  tx_vlan_not_carried: 'a tagged frame above MTU + 14, and the encapsulation does not carry VLAN tags',
  tx_bad_vnet_hdr: 'the link asked for an offload that was not offered',
  tx_device_stopped: 'the device was stopped, or something about it was being changed',
  tx_no_target: 'nothing says where the frame should go',
  tx_core_trap: 'the core trapped on the frame: a defect, please report it',
  tx_underlay_full: 'the send socket was full',
  tx_underlay_mtu:
    'the datagram was longer than the underlay takes, and that was not known yet: the sender is told, and mtu_sum says what fits',
  tx_unreachable: 'no route to the destination, or the underlay link is down',
  tx_not_permitted: 'the system refused to send (a firewall rule)',
  tx_underlay_error: 'the system refused to send for another reason',
  rx_short_datagram: 'a datagram too short for the outer header',
  rx_truncated: 'a datagram longer than the receive buffer',
  rx_bad_header:
    'the outer header was not valid (VXLAN: the I flag was not set; Geneve: an unknown version, or options longer than they say)',
  rx_unknown_vnetid: 'no started device has this vnetid on this underlay address',
  rx_device_stopped: 'the device was stopped, or something about it was being changed',
  rx_short_frame: 'an inner frame shorter than an Ethernet header',
  rx_too_big: 'an inner frame longer than MTU + 14 (+ 4 where VLAN tags are carried)',
  rx_vlan_not_carried: 'a tagged inner frame above MTU + 14, and the encapsulation does not carry VLAN tags',
  rx_core_trap: 'the core trapped on the datagram: a defect, please report it',
  rx_link_down: 'the link of the device was down',
  rx_link_full: 'the link took no more frames',
  rx_link_error: 'the link refused the frame',
  rx_source_unknown: 'the sender is not one of those that may send to the device (source_check)',
  rx_source_mac: 'the inner source address does not belong to the sender (source_check=strict)',
  tx_target_drop: 'the target is set to drop, or was looked up in vain a moment ago (negative_ttl)',
  tx_held_full: 'the target holds as many frames as it may while it is being looked up',
  tx_miss_ring_full: 'more frames without a known target came than the main thread could take',
  tx_wait_full: 'the wait queue of the worker was full while held frames were on their way out',
  tx_miss_share:
    'more frames without a known target came from the link than its share of what the main thread could take',
  tx_wait_share:
    'the link had its share of the wait queue of the worker while held frames were on their way out',
  tx_held_full_device: 'the device holds as many bytes as it may for targets that are being looked up',
  tx_held_full_process: 'the process holds as many bytes as it may for targets that are being looked up',
  tx_table_full: 'the target cache is full, and an unknown address never takes the place of a known one',
  tx_requests_full: 'as many lookups as may be are under way for the device',
  tx_lookup_drop: 'the lookup plugin said to drop the frame',
  tx_lookup_timeout: 'the lookup plugin did not answer in time, again and again',
  tx_target_removed:
    'the target was removed, flushed or set to drop, or the device went away, while frames were held',
  tx_bogon: 'the Ethernet header could not be parsed',
  tx_worker_lost: 'the worker that had the frame aside died, or was replaced',
  rx_inject_failed: 'the link refused a frame that varpd made',
  rx_control_packet:
    'a control packet of the other end (Geneve: the O flag was set), which is not for guests',
  rx_not_ethernet: 'the outer header says that something else than an Ethernet frame is in it',
  rx_reserved_bits:
    'reserved bits of the outer header were not zero, and the device wants them to be (<encap>/reserved)',
  rx_inner_to_mux:
    'the inner packet was for a socket of this daemon, by which it would reach another network (<encap>/inner_to_mux)',
  rx_congestion:
    'a router of the underlay was congested, and the inner packet is of a sender that wants to know by loss (RFC 6040)',
  tx_path_mtu:
    'the datagram would be longer than the path to its destination takes, as a router has said: the sender is told',
  rx_critical_option:
    'the outer header has an option that must be understood, and is not (Geneve: a critical option)',
};

const names = new Map<number, DropName>();
for (const [key, value] of Object.entries(layout)) {
  if (/^DROP_[TR]X_/.test(key)) names.set(value, key.slice('DROP_'.length).toLowerCase() as DropName);
}

/** Names by reason number, in the order of the list. */
export const dropNames: readonly DropName[] = Array.from(
  { length: layout.DROP_REASONS },
  (_, reason) => names.get(reason)!,
);

/** Number of a drop. */
export function dropReason(name: DropName): number {
  return dropNames.indexOf(name);
}

type CounterKey = Extract<keyof typeof layout, `COUNTER_${string}`>;
/** For example `tx_frames`. */
export type CounterName = Lowercase<
  Exclude<CounterKey, 'COUNTER_ROWS' | 'COUNTER_ROW_BYTES'> extends `COUNTER_${infer Name}` ? Name : never
>;

/** Number of each counter in its row. */
export const counterNumbers = Object.fromEntries(
  Object.entries(layout)
    .filter(([key]) => key.startsWith('COUNTER_') && key !== 'COUNTER_ROWS' && key !== 'COUNTER_ROW_BYTES')
    .map(([key, value]) => [key.slice('COUNTER_'.length).toLowerCase(), value]),
) as Readonly<Record<CounterName, number>>;
