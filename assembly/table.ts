/** The tables main writes and workers read: rows, and (mux, vnetid) -> device. See `layout.ts`. */
import { check } from './check';
import {
  DESTINATION_BYTES,
  DESTINATIONS_MAX,
  DESTINATIONS_OFFSET,
  DEVICE_BYTES,
  DEVICES_MAX,
  DEVICES_OFFSET,
  HEADER_OFFSET,
  HEADER_SEED,
  MUX_BYTES,
  MUXES_MAX,
  MUXES_OFFSET,
  NONE,
  VNET_BYTES,
  VNET_DEVICE,
  VNET_MUX,
  VNET_VNETID,
  VNETS_MAX,
  VNETS_OFFSET,
} from './layout';

const MULTIPLIER: u64 = 0x9e3779b97f4a7c15; // 2^64 / golden ratio

// @ts-expect-error: decorator
@inline
export function deviceRow(device: u32): usize {
  check(device < DEVICES_MAX);
  return DEVICES_OFFSET + device * DEVICE_BYTES;
}

// @ts-expect-error: decorator
@inline
export function muxRow(mux: u32): usize {
  check(mux < MUXES_MAX);
  return MUXES_OFFSET + mux * MUX_BYTES;
}

// @ts-expect-error: decorator
@inline
export function destinationRow(destination: u32): usize {
  check(destination < DESTINATIONS_MAX);
  return DESTINATIONS_OFFSET + destination * DESTINATION_BYTES;
}

/** Slot in which a probe for (mux, vnetid) begins. Main calls it too, to insert. */
export function vnetSlot(mux: u32, vnetid: u64): u32 {
  const seed = load<u64>(HEADER_OFFSET, HEADER_SEED);
  const hash = (vnetid ^ seed ^ (u64(mux) << 32)) * MULTIPLIER;
  return u32(hash >> 52) & (VNETS_MAX - 1);
}

/** Device of a vnetid on a mux, or NONE. */
export function findDevice(mux: u32, vnetid: u64): u32 {
  let slot = vnetSlot(mux, vnetid);
  for (let probes: u32 = 0; probes < VNETS_MAX; probes++) {
    const at: usize = VNETS_OFFSET + slot * VNET_BYTES;
    const device = atomic.load<u32>(at, VNET_DEVICE);
    if (device == 0) return NONE;
    if (device != NONE && load<u64>(at, VNET_VNETID) == vnetid && load<u32>(at, VNET_MUX) == mux) {
      return device - 1;
    }
    slot = (slot + 1) & (VNETS_MAX - 1);
  }
  return NONE;
}
