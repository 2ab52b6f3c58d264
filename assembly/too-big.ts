/**
 * Frames that were dropped because they are too big for the device or for the way: main hears of them over the miss ring,
 * by their beginning, and tells their senders by ICMP (RFC 1191, RFC 8201). Of each arena so many a second at most, so that
 * the ring stays free for what waits for an answer.
 */
import { add, deviceCounters } from './counter';
import { missRecord, writeRecord } from './deferred';
import {
  ARENA_NOW,
  ARENA_TOO_BIG,
  ARENA_TOO_BIG_SECOND,
  ARENA_TOO_BIG_TELLS,
  COUNTER_TX_TOO_BIG_UNTOLD,
  FRAME_RECORD_BYTES,
  MISS_TOO_BIG,
  NONE,
  TOO_BIG_HEAD_BYTES,
  TOO_BIG_TELLS_MAX,
  VNET_HDR_BYTES,
} from './layout';
import { writeZero } from './vnet-hdr';
import { innerIpAt, isInnerIpv6 } from './wire';

const DESTINATION: usize = 8;
const FRAME_MAX: usize = 12;
const MAC_BYTES: u32 = 6;
const FRAGMENT_FIELD: u32 = 6;
/** Don't fragment, as a little-endian load sees it. */
const DF: u16 = 0x0040;

/**
 * @param destination row, or NONE, @param frameMax the largest frame that may pass, or 0 when it is not known
 */
export function tellTooBig(
  arena: usize,
  device: u32,
  frame: usize,
  length: u32,
  destination: u32,
  frameMax: u32,
): void {
  if (!isTold(frame, length)) return;
  const second = load<u32>(arena, ARENA_NOW);
  let tells: u32 = 0;
  if (load<u32>(arena, ARENA_TOO_BIG_SECOND) == second) tells = load<u32>(arena, ARENA_TOO_BIG_TELLS);
  else store<u32>(arena, second, ARENA_TOO_BIG_SECOND);
  if (tells < TOO_BIG_TELLS_MAX) {
    // Not in front of the frame: the outer header that may be there already may be needed.
    const vnetHdr = arena + ARENA_TOO_BIG + FRAME_RECORD_BYTES;
    const record = writeRecord(vnetHdr, device, MISS_TOO_BIG);
    store<u32>(record, destination, DESTINATION);
    store<u32>(record, frameMax, FRAME_MAX);
    writeZero(vnetHdr);
    const head = VNET_HDR_BYTES + min(length, TOO_BIG_HEAD_BYTES);
    memory.copy(vnetHdr + VNET_HDR_BYTES, frame, head - VNET_HDR_BYTES);
    if (missRecord(arena, device, record, FRAME_RECORD_BYTES + head) == NONE) {
      store<u32>(arena, tells + 1, ARENA_TOO_BIG_TELLS);
      return;
    }
  }
  store<u32>(arena, tells, ARENA_TOO_BIG_TELLS);
  add(deviceCounters(arena, device), COUNTER_TX_TOO_BIG_UNTOLD, 1);
}

/** Of one station to another, IPv6, or IPv4 that nobody may fragment: for others there is no such message. */
function isTold(frame: usize, length: u32): bool {
  if ((load<u8>(frame) | load<u8>(frame, MAC_BYTES)) & 1) return false;
  const at = innerIpAt(frame, length);
  if (at == 0) return false;
  return isInnerIpv6 || (load<u16>(frame + at, FRAGMENT_FIELD) & DF) != 0;
}
