/** Length rules of inner frames, the same both ways: design section 5. */
import { DEVICE_FLAG_VLAN, DEVICE_FLAGS, DEVICE_MTU } from './layout';
import { ETHERNET_BYTES, VLAN_TAG_BYTES } from './wire';

/** Bytes of the longest frame the device passes: MTU + 14, and 4 more when the encap carries VLAN tags. */
// @ts-expect-error: decorator
@inline
export function frameBytesMax(device: usize): u32 {
  const vlan = load<u32>(device, DEVICE_FLAGS) & DEVICE_FLAG_VLAN ? VLAN_TAG_BYTES : 0;
  return atomic.load<u32>(device, DEVICE_MTU) + ETHERNET_BYTES + vlan;
}

/** True when the encap carries no VLAN tags, so that a tagged frame is dropped, however long it is. */
// @ts-expect-error: decorator
@inline
export function refusesTags(device: usize): bool {
  return (load<u32>(device, DEVICE_FLAGS) & DEVICE_FLAG_VLAN) == 0;
}
