/**
 * What recvmmsg has filled becomes a list of datagrams: the kernel joins datagrams of one sender and size into one message
 * and says their size in a control message (man 7 udp, UDP_GRO); only the last of a message may be shorter.
 *
 *   message   | outer header, frame | outer header, frame | outer header, fr |
 *   datagrams   0, FIRST              1                     2
 *
 * There may be more datagrams than the list has room for; `rxUnfold` then goes on where it left off.
 */
import { check } from './check';
import { add, muxCounters } from './counter';
import {
  ARENA_RX_BUFFER,
  ARENA_RX_CONTROLS,
  ARENA_RX_DATAGRAMS,
  ARENA_RX_IOVECS,
  ARENA_RX_MESSAGE,
  ARENA_RX_MESSAGE_COUNT,
  ARENA_RX_MESSAGE_OFFSET,
  ARENA_RX_MESSAGES,
  ARENA_RX_NAMES,
  BATCH_MAX,
  COUNTER_RX_MESSAGES,
  COUNTER_RX_READ,
  HEADER_BASE,
  HEADER_OFFSET,
  MUX_HAS_IP_HEADER,
  MUXES_MAX,
  RX_CONTROL_BYTES,
  RX_DATAGRAM_BYTES,
  RX_DATAGRAM_BYTES_MAX,
  RX_DATAGRAM_ECN,
  RX_DATAGRAM_ECN_SHIFT,
  RX_DATAGRAM_FIRST,
  RX_DATAGRAM_TRUNCATED,
  RX_DATAGRAMS_MAX,
  RX_HEADROOM_BYTES,
  RX_NAME_BYTES,
  RX_SLOT_BYTES,
} from './layout';
import {
  IOVEC_BYTES,
  loadControls,
  MESSAGE_BYTES,
  MESSAGE_CONTROL_BYTES,
  MESSAGE_FLAGS,
  MESSAGE_LENGTH,
  MESSAGE_NAME_BYTES,
  segmentSize,
  storeIovec,
  storeMessage,
  trafficClass,
} from './message';
import { muxRow } from './table';

const MSG_TRUNC: u32 = 0x20;

/** Lays out the messages and iovecs that recvmmsg fills, once for each arena. */
export function rxPrepare(arena: usize): void {
  for (let i: u32 = 0; i < BATCH_MAX; i++) {
    const iovec = arena + ARENA_RX_IOVECS + i * IOVEC_BYTES;
    const slot = arena + ARENA_RX_BUFFER + i * RX_SLOT_BYTES;
    storeIovec(iovec, slot + RX_HEADROOM_BYTES, RX_DATAGRAM_BYTES_MAX);
    const name = arena + ARENA_RX_NAMES + i * RX_NAME_BYTES;
    const control = arena + ARENA_RX_CONTROLS + i * RX_CONTROL_BYTES;
    storeMessage(
      arena + ARENA_RX_MESSAGES + i * MESSAGE_BYTES,
      name,
      RX_NAME_BYTES,
      iovec,
      1,
      control,
      RX_CONTROL_BYTES,
    );
  }
}

/** Begins with `count` messages that recvmmsg has filled. */
export function rxBegin(arena: usize, mux: u32, count: u32): void {
  check(count <= BATCH_MAX && mux < MUXES_MAX);
  add(muxCounters(arena, mux), COUNTER_RX_MESSAGES, count);
  store<u32>(arena, count, ARENA_RX_MESSAGE_COUNT);
  store<u32>(arena, 0, ARENA_RX_MESSAGE);
  store<u32>(arena, 0, ARENA_RX_MESSAGE_OFFSET);
}

/** Length of the IPv4 header that a message of `bytes` begins with (RFC 791 section 3.1); all of it when there is no more. */
function ipHeaderBytes(data: usize, bytes: u32): u32 {
  return bytes == 0 ? 0 : min(bytes, (u32(load<u8>(data)) & 15) * 4);
}

/** Lists the next datagrams of the messages; returns how many, 0 when there are no more. */
export function rxUnfold(arena: usize, mux: u32): u32 {
  check(mux < MUXES_MAX);
  const messages = load<u32>(arena, ARENA_RX_MESSAGE_COUNT);
  let message = load<u32>(arena, ARENA_RX_MESSAGE);
  let offset = load<u32>(arena, ARENA_RX_MESSAGE_OFFSET);
  check(messages <= BATCH_MAX);
  const base = load<u64>(HEADER_OFFSET, HEADER_BASE);
  const hasIpHeader = load<u32>(muxRow(mux), MUX_HAS_IP_HEADER) != 0;
  let count: u32 = 0;
  for (; message < messages && count < RX_DATAGRAMS_MAX; message++) {
    const at = arena + ARENA_RX_MESSAGES + message * MESSAGE_BYTES;
    let bytes = load<u32>(at, MESSAGE_LENGTH);
    let data = usize(load<u64>(arena + ARENA_RX_IOVECS + message * IOVEC_BYTES) - base);
    if (hasIpHeader) {
      const header = ipHeaderBytes(data, bytes);
      data += header;
      bytes -= header;
    }
    const controlBytes = load<u32>(at, MESSAGE_CONTROL_BYTES);
    check(controlBytes <= RX_CONTROL_BYTES);
    loadControls(arena + ARENA_RX_CONTROLS + message * RX_CONTROL_BYTES, controlBytes);
    const truncated: u32 = load<u32>(at, MESSAGE_FLAGS) & MSG_TRUNC ? RX_DATAGRAM_TRUNCATED : 0;
    const flags = message | truncated | ((trafficClass << RX_DATAGRAM_ECN_SHIFT) & RX_DATAGRAM_ECN);
    const step = segmentSize ? segmentSize : max<u32>(bytes, 1);
    // One without any bytes is a datagram too.
    do {
      const entry = arena + ARENA_RX_DATAGRAMS + count * RX_DATAGRAM_BYTES;
      store<u64>(entry, u64(u32(data) + offset) | (u64(min(step, bytes - offset)) << 32));
      store<u32>(entry, offset ? flags : flags | RX_DATAGRAM_FIRST, 12);
      count++;
      offset += step;
    } while (offset < bytes && count < RX_DATAGRAMS_MAX);
    if (offset < bytes) break;
    offset = 0;
    // The kernel has written how long they were: a sender of IPv6 would not fit where one of IPv4 was.
    store<u32>(at, RX_NAME_BYTES, MESSAGE_NAME_BYTES);
    store<u64>(at, RX_CONTROL_BYTES, MESSAGE_CONTROL_BYTES);
  }
  store<u32>(arena, message, ARENA_RX_MESSAGE);
  store<u32>(arena, offset, ARENA_RX_MESSAGE_OFFSET);
  add(muxCounters(arena, mux), COUNTER_RX_READ, count);
  return count;
}
