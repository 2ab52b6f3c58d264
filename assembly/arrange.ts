/**
 * How the frames of a transmit batch that passed are laid out as messages for sendmmsg: in the order of their send
 * sockets, so that a flow keeps its order; super-frames cut into segments; and what goes to one destination in one size
 * joined in one message, which the kernel cuts again (man 7 udp, UDP_SEGMENT).
 *
 * A batch of super-frames may need more room than there is: then a part is laid out and sent, and `txLayOut` goes on.
 */
import { check } from './check';
import { add, deviceCounters, dropDevice } from './counter';
import { encapFrame, hasNoPorts } from './encap/registry';
import { flowLabel } from './flow-hash';
import {
  ARENA_GROUPS,
  ARENA_SEND_FDS,
  ARENA_TX_CLASSES,
  ARENA_TX_CONTENTS,
  ARENA_TX_CONTROLS,
  ARENA_TX_COUNT_BYTES,
  ARENA_TX_COUNT_IDS,
  ARENA_TX_FAILED,
  ARENA_TX_FLOWS,
  ARENA_TX_FRAMES,
  ARENA_TX_GROUPS,
  ARENA_TX_HEADER_BYTES,
  ARENA_TX_HEADERS,
  ARENA_TX_IOVECS,
  ARENA_TX_MESSAGES,
  ARENA_TX_ORDER,
  ARENA_TX_PLACE,
  ARENA_TX_PLACES,
  ARENA_TX_REPLICAS,
  ARENA_TX_REPLICA_SOCKETS,
  ARENA_TX_ROUTES,
  ARENA_TX_SEGMENT,
  ARENA_TX_SEGMENT_BYTES,
  ARENA_TX_SINGLY,
  ARENA_TX_SOCKETS,
  ARENA_TX_STARTS,
  ARENA_TX_TARGETS,
  BANK_MAX,
  BATCH_MAX,
  COUNTER_TX_BYTES,
  COUNTER_TX_COPIES,
  COUNTER_TX_DATAGRAMS,
  COUNTER_TX_FRAMES,
  COUNTER_TX_MESSAGES,
  COUNTER_TX_SUPER_FRAMES,
  DESTINATION_CONTROL,
  DESTINATION_CONTROL_BYTES,
  DESTINATION_FRAME_MAX,
  DESTINATION_HEADER,
  DESTINATION_HEADER_BYTES,
  DESTINATION_IS_IPV6,
  DESTINATION_LIST,
  DESTINATION_LIST_COUNT,
  DESTINATION_NAME,
  DESTINATION_NAME_BYTES,
  DEVICE_ENCAP,
  DEVICE_FLAG_UDP_SEGMENT,
  DEVICE_FLAGS,
  DEVICE_MODE,
  DEVICE_MUX,
  DEVICE_TARGETS,
  DEVICE_VNETID,
  DEVICES_MAX,
  DROP_TX_PATH_MTU,
  DROP_TX_UNDERLAY_MTU,
  HEADER_BASE,
  HEADER_OFFSET,
  NONE,
  TARGET_MODE_DYNAMIC,
  TX_CONTENT_BYTES,
  TX_CONTROL_BYTES,
  TX_FRAME_BYTES,
  TX_GROUP_BYTES,
  TX_HEADERS_BYTES,
  TX_IOVECS_MAX,
  TX_MESSAGES_MAX,
  TX_SEGMENT_HEADER_BYTES_MAX,
  TX_SOCKET_REPLICATE,
  VNET_HDR_BYTES,
} from './layout';
import {
  FLOW_LABEL_BYTES,
  IOVEC_BYTES,
  isFlowLabel,
  MESSAGE_BYTES,
  MESSAGE_CONTROL,
  MESSAGE_CONTROL_BYTES,
  storeFlowLabel,
  storeIovec,
  storeMessage,
  storeSegmentSize,
  storeTrafficClass,
} from './message';
import { segmentBegin, segmentHeaders, segmentPayload, segmentPayloadBytes } from './segment';
import { destinationRow, deviceRow } from './table';
import { targetCount } from './target';
import { tellTooBig } from './too-big';

/** The most one message holds: of an IPv4 datagram 65,535 bytes less the headers of IP and UDP. */
const MESSAGE_DATA_BYTES_MAX: u32 = 65507;
/** UDP_MAX_SEGMENTS of Linux before 6.9. */
const DATAGRAMS_MAX: u32 = 64;

/** Sorts the frames that passed by send socket and lays out the first messages. Returns how many groups there are. */
export function txArrange(arena: usize, device: u32, count: u32): u32 {
  check(count <= BATCH_MAX && device < DEVICES_MAX);
  const starts = arena + ARENA_TX_STARTS;
  memory.fill(starts, 0, BANK_MAX * 4);
  memory.fill(arena + ARENA_TX_FAILED, 0, BATCH_MAX);
  let passed: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const socket = u32(load<u8>(arena + i, ARENA_TX_SOCKETS));
    if (socket >= TX_SOCKET_REPLICATE) continue;
    check(socket < BANK_MAX);
    store<u32>(starts + socket * 4, load<u32>(starts + socket * 4) + 1);
    passed++;
  }
  store<u32>(arena, 0, ARENA_TX_PLACE);
  store<u32>(arena, passed, ARENA_TX_PLACES);
  store<u32>(arena, 0, ARENA_TX_SEGMENT);
  store<u32>(arena, 0, ARENA_TX_SINGLY);
  store<u32>(arena, 0, ARENA_GROUPS);
  if (passed == 0) return 0;
  let before: u32 = 0;
  for (let socket: u32 = 0; socket < BANK_MAX; socket++) {
    const size = load<u32>(starts + socket * 4);
    store<u32>(starts + socket * 4, before);
    before += size;
  }
  for (let i: u32 = 0; i < count; i++) {
    const socket = u32(load<u8>(arena + i, ARENA_TX_SOCKETS));
    if (socket >= TX_SOCKET_REPLICATE) continue;
    const place = load<u32>(starts + socket * 4);
    store<u32>(starts + socket * 4, place + 1);
    store<u8>(arena + place, u8(i), ARENA_TX_ORDER);
  }
  return txLayOut(arena, device);
}

// The message that is being laid out.
let messages: u32 = 0;
let iovecs: u32 = 0;
let firstIovec: u32 = 0;
let firstPlace: u32 = 0;
let firstSegment: u32 = 0;
let datagrams: u32 = 0;
let datagramBytes: u32 = 0;
let messageBytes: u32 = 0;
let isClosed: bool = true;
let messageClass: u32 = 0;
/** By the kernel, of the ports, where it is 0. */
let messageLabel: u32 = 0;

/** Lays out the next messages of the batch; 0 when there are none. */
export function txLayOut(arena: usize, device: u32): u32 {
  const row = deviceRow(device);
  const mux = load<u32>(row, DEVICE_MUX);
  const places = load<u32>(arena, ARENA_TX_PLACES);
  check(places <= BATCH_MAX);
  let place = load<u32>(arena, ARENA_TX_PLACE);
  let groups: u32 = 0;
  let group: usize = 0;
  let socket: u32 = NONE;
  let headers = arena + ARENA_TX_HEADERS;
  const headersEnd = headers + TX_HEADERS_BYTES - TX_SEGMENT_HEADER_BYTES_MAX;
  let route: u32 = NONE;
  messages = 0;
  iovecs = 0;
  datagrams = 0;
  const isJoining = load<u32>(row, DEVICE_FLAGS) & DEVICE_FLAG_UDP_SEGMENT && load<u32>(arena, ARENA_TX_SINGLY) == 0;
  const datagramsMax: u32 = isJoining ? DATAGRAMS_MAX : 1;
  const encap = load<u32>(row, DEVICE_ENCAP);
  const vnetid = load<u64>(row, DEVICE_VNETID);
  const isLabelled = hasNoPorts(encap);
  let isFull = false;
  for (; place < places && !isFull; place++) {
    const i = u32(load<u8>(arena + place, ARENA_TX_ORDER));
    check(i < BATCH_MAX);
    let next = u32(load<u8>(arena + i, ARENA_TX_SOCKETS));
    if (next == TX_SOCKET_REPLICATE) next = u32(load<u8>(arena + i, ARENA_TX_REPLICA_SOCKETS));
    check(next < BANK_MAX);
    const to = load<u32>(arena + i * 4, ARENA_TX_ROUTES);
    const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
    const frame: usize = load<u32>(entry) + VNET_HDR_BYTES;
    const length = load<u32>(entry, 4) - VNET_HDR_BYTES;
    const destination = destinationRow(to);
    const outer = load<u32>(destination, DESTINATION_HEADER_BYTES);
    const trafficClass = u32(load<u8>(arena + i, ARENA_TX_CLASSES));
    const inner = load<u32>(arena + i * 4, ARENA_TX_HEADER_BYTES);
    let segment: u32 = 0;
    let segments: u32 = 1;
    if (inner != 0) {
      segments = segmentBegin(frame, length, inner, load<u32>(arena + i * 4, ARENA_TX_SEGMENT_BYTES));
      segment = load<u32>(arena, ARENA_TX_SEGMENT);
    }
    if (datagrams != 0 && (next != socket || to != route || trafficClass != messageClass)) endMessage(arena, route, place, false);
    while (segment < segments) {
      const bytes = outer + (inner == 0 ? length : inner + segmentPayloadBytes(segment));
      if (datagrams != 0) {
        const fits = datagrams < datagramsMax && bytes <= datagramBytes && messageBytes + bytes <= MESSAGE_DATA_BYTES_MAX;
        if (isClosed || !fits) endMessage(arena, route, segment == 0 ? place : place + 1, segment != 0);
      }
      if (iovecs + 2 > TX_IOVECS_MAX || headers > headersEnd || (datagrams == 0 && messages == TX_MESSAGES_MAX)) {
        isFull = true;
        break;
      }
      if (datagrams == 0) {
        if (next != socket) {
          group = arena + ARENA_TX_GROUPS + groups * TX_GROUP_BYTES;
          store<i32>(group, load<i32>(arena + (mux * BANK_MAX + next) * 4, ARENA_SEND_FDS));
          store<u32>(group, messages, 4);
          store<u32>(group, 0, 8);
          groups++;
          socket = next;
        }
        route = to;
        firstIovec = iovecs;
        firstPlace = place;
        firstSegment = segment;
        datagramBytes = bytes;
        messageBytes = 0;
        messageClass = trafficClass;
        messageLabel = isLabelled ? flowLabel(load<u8>(arena + i, ARENA_TX_FLOWS)) : 0;
        isClosed = false;
        store<u32>(group, load<u32>(group, 8) + 1, 8);
      }
      const iovec = arena + ARENA_TX_IOVECS + iovecs * IOVEC_BYTES;
      if (inner == 0) {
        storeIovec(iovec, frame - outer, outer + length);
        iovecs++;
      } else {
        const into = headers + ((outer + 15) & ~15);
        segmentHeaders(segment, into);
        encapFrame(encap, into, destination + DESTINATION_HEADER, vnetid, load<u8>(arena + i, ARENA_TX_FLOWS));
        storeIovec(iovec, into - outer, outer + inner);
        storeIovec(iovec + IOVEC_BYTES, segmentPayload(segment), segmentPayloadBytes(segment));
        iovecs += 2;
        headers = (into + inner + 15) & ~15;
      }
      datagrams++;
      messageBytes += bytes;
      // Only the last datagram of a message may be shorter.
      isClosed = bytes < datagramBytes;
      segment++;
    }
    if (isFull) {
      if (datagrams != 0) endMessage(arena, route, segment == 0 ? place : place + 1, segment != 0);
      store<u32>(arena, segment, ARENA_TX_SEGMENT);
      place--;
    } else {
      store<u32>(arena, 0, ARENA_TX_SEGMENT);
    }
  }
  if (datagrams != 0) endMessage(arena, route, place, false);
  store<u32>(arena, place, ARENA_TX_PLACE);
  store<u32>(arena, groups, ARENA_GROUPS);
  return groups;
}

/** @param end place behind its last frame, @param goesOn that frame has segments in the next message */
function endMessage(arena: usize, route: u32, end: u32, goesOn: bool): void {
  const count = iovecs - firstIovec;
  storeBatchMessage(arena, messages, route, messageClass, messageLabel, firstIovec, count, datagrams, datagramBytes);
  storeContent(arena, messages, firstPlace, end, goesOn, datagrams, firstSegment, NONE);
  messages++;
  datagrams = 0;
}

/** @param copyTo destination of a copy that is whole in this message, or NONE */
function storeContent(
  arena: usize,
  message: u32,
  first: u32,
  end: u32,
  goesOn: bool,
  count: u32,
  segment: u32,
  copyTo: u32,
): void {
  const content = arena + ARENA_TX_CONTENTS + message * TX_CONTENT_BYTES;
  store<u32>(content, first);
  store<u32>(content, end, 4);
  store<u32>(content, u32(goesOn), 8);
  store<u32>(content, count, 12);
  store<u32>(content, segment, 16);
  store<u32>(content, copyTo, 20);
}

function storeBatchMessage(
  arena: usize,
  message: u32,
  route: u32,
  trafficClass: u32,
  label: u32,
  iovec: u32,
  count: u32,
  datagrams: u32,
  bytes: u32,
): void {
  const destination = destinationRow(route);
  let control = destination + DESTINATION_CONTROL;
  let controlBytes = load<u32>(destination, DESTINATION_CONTROL_BYTES);
  const isIpv6 = load<u32>(destination, DESTINATION_IS_IPV6) != 0;
  const isLabelled = isIpv6 && label != 0;
  if (datagrams > 1 || trafficClass != 0 || isLabelled) {
    const from = control;
    control = arena + ARENA_TX_CONTROLS + message * TX_CONTROL_BYTES;
    memory.copy(control, from, controlBytes);
    if (trafficClass != 0) controlBytes += storeTrafficClass(control + controlBytes, isIpv6, trafficClass);
    if (isLabelled) controlBytes += storeFlowLabel(control + controlBytes, label);
    if (datagrams > 1) controlBytes += storeSegmentSize(control + controlBytes, bytes);
  }
  storeMessage(
    arena + ARENA_TX_MESSAGES + message * MESSAGE_BYTES,
    destination + DESTINATION_NAME,
    load<u32>(destination, DESTINATION_NAME_BYTES),
    arena + ARENA_TX_IOVECS + iovec * IOVEC_BYTES,
    count,
    control,
    controlBytes,
  );
}

/** True when a frame of the batch is to be replicated. */
export function txReplicas(arena: usize, count: u32): bool {
  check(count <= BATCH_MAX);
  for (let i: u32 = 0; i < count; i++) {
    if (u32(load<u8>(arena + i, ARENA_TX_SOCKETS)) == TX_SOCKET_REPLICATE) return true;
  }
  return false;
}

/**
 * Messages of frame `i`, which is replicated, to destinations `from` and on of its list: of a plain frame to as many as
 * there is room for, of a super-frame to one. Returns how many destinations, 0 behind the last; group 0 says where they
 * are sent from. Those whose path takes less are dropped, each copy by name. What does not fit is laid out by `txLayOut`.
 */
export function txReplicate(arena: usize, device: u32, i: u32, from: u32): u32 {
  check(i < BATCH_MAX && device < DEVICES_MAX);
  if (u32(load<u8>(arena + i, ARENA_TX_SOCKETS)) != TX_SOCKET_REPLICATE) return 0;
  const list = destinationRow(load<u32>(arena + i * 4, ARENA_TX_REPLICAS));
  const total = load<u32>(list, DESTINATION_LIST_COUNT);
  if (from >= total) return 0;
  const rows: usize = load<u32>(list, DESTINATION_LIST) + from * 4;
  const socket = u32(load<u8>(arena + i, ARENA_TX_REPLICA_SOCKETS));
  check(socket < BANK_MAX);
  store<u8>(arena, u8(i), ARENA_TX_ORDER);
  store<u8>(arena + i, 0, ARENA_TX_FAILED);
  store<u32>(arena, 0, ARENA_TX_PLACE);
  store<u32>(arena, 1, ARENA_TX_PLACES);
  store<u32>(arena, 0, ARENA_TX_SEGMENT);
  store<u32>(arena, 0, ARENA_TX_SINGLY);
  store<u32>(arena, 0, ARENA_GROUPS);
  const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
  const frame = load<u32>(entry) + VNET_HDR_BYTES;
  const length = load<u32>(entry, 4) - VNET_HDR_BYTES;
  const inner = load<u32>(arena + i * 4, ARENA_TX_HEADER_BYTES);
  const largest = inner == 0 ? length : min(length, inner + load<u32>(arena + i * 4, ARENA_TX_SEGMENT_BYTES));
  let count: u32 = 1;
  if (inner != 0) {
    store<u32>(arena + i * 4, load<u32>(rows), ARENA_TX_ROUTES);
    if (copyFits(arena, device, load<u32>(rows), frame, length, largest)) txLayOut(arena, device);
  } else {
    count = min(total - from, BATCH_MAX);
    const outer = load<u32>(list, DESTINATION_HEADER_BYTES);
    storeIovec(arena + ARENA_TX_IOVECS, frame - outer, outer + length);
    const trafficClass = u32(load<u8>(arena + i, ARENA_TX_CLASSES));
    const isLabelled = hasNoPorts(load<u32>(deviceRow(device), DEVICE_ENCAP));
    const label = isLabelled ? flowLabel(load<u8>(arena + i, ARENA_TX_FLOWS)) : 0;
    let copies: u32 = 0;
    for (let slot: u32 = 0; slot < count; slot++) {
      const to = load<u32>(rows + slot * 4);
      if (!copyFits(arena, device, to, frame, length, largest)) continue;
      storeBatchMessage(arena, copies, to, trafficClass, label, 0, 1, 1, 0);
      storeContent(arena, copies, 0, 1, false, 1, 0, to);
      copies++;
    }
    if (copies != 0) {
      const group = arena + ARENA_TX_GROUPS;
      const mux = load<u32>(deviceRow(device), DEVICE_MUX);
      store<i32>(group, load<i32>(arena + (mux * BANK_MAX + socket) * 4, ARENA_SEND_FDS));
      store<u32>(group, 0, 4);
      store<u32>(group, copies, 8);
      store<u32>(arena, 1, ARENA_GROUPS);
    }
    store<u32>(arena, 1, ARENA_TX_PLACE);
  }
  // The first copy is the frame itself.
  add(deviceCounters(arena, device), COUNTER_TX_COPIES, from == 0 ? count - 1 : count);
  return count;
}

/** Whether the path to a destination takes a copy; one that it does not take is dropped. @param largest bytes of a frame of it */
function copyFits(arena: usize, device: u32, to: u32, frame: usize, length: u32, largest: u32): bool {
  const most = load<u32>(destinationRow(to), DESTINATION_FRAME_MAX);
  // Less 1, so that 0 is beyond every length.
  if (largest - 1 <= most - 1) return true;
  dropDevice(arena, device, DROP_TX_PATH_MTU, 1);
  tellTooBig(arena, device, frame, length, to, most);
  return false;
}

/** Counts messages `first` to `first + count - 1` as sent, and the frames that end in them. */
export function txSent(arena: usize, device: u32, first: u32, count: u32): void {
  check(first + count <= TX_MESSAGES_MAX);
  let frames: u32 = 0;
  let bytes: u64 = 0;
  let sent: u64 = 0;
  for (let message = first; message < first + count; message++) {
    const content = arena + ARENA_TX_CONTENTS + message * TX_CONTENT_BYTES;
    const end = load<u32>(content, 4) - load<u32>(content, 8);
    check(end <= BATCH_MAX);
    sent += load<u32>(content, 12);
    // Others of its copies may have failed.
    const isCopy = load<u32>(content, 20) != NONE;
    for (let place = load<u32>(content); place < end; place++) {
      const i = u32(load<u8>(arena + place, ARENA_TX_ORDER));
      check(i < BATCH_MAX);
      if (!isCopy && load<u8>(arena + i, ARENA_TX_FAILED)) continue;
      const length = load<u32>(arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES, 4) - VNET_HDR_BYTES;
      bytes += length;
      if (frames == BATCH_MAX) {
        countTargets(arena, device, frames);
        frames = 0;
      }
      store<u32>(arena + frames * 4, load<u32>(arena + i * 4, ARENA_TX_TARGETS), ARENA_TX_COUNT_IDS);
      store<u32>(arena + frames * 4, length, ARENA_TX_COUNT_BYTES);
      frames++;
      add(deviceCounters(arena, device), COUNTER_TX_FRAMES, 1);
      if (load<u32>(arena + i * 4, ARENA_TX_HEADER_BYTES)) add(deviceCounters(arena, device), COUNTER_TX_SUPER_FRAMES, 1);
    }
  }
  countTargets(arena, device, frames);
  const counters = deviceCounters(arena, device);
  add(counters, COUNTER_TX_BYTES, bytes);
  add(counters, COUNTER_TX_DATAGRAMS, sent);
  add(counters, COUNTER_TX_MESSAGES, count);
}

function countTargets(arena: usize, device: u32, frames: u32): void {
  const row = deviceRow(device);
  if (load<u32>(row, DEVICE_MODE) != TARGET_MODE_DYNAMIC) return;
  const table: usize = atomic.load<u32>(row, DEVICE_TARGETS);
  if (table != 0) targetCount(table, arena, frames);
}

/** Counts the frames of a message that was not sent as dropped: each once, however many messages it is in, and each copy. */
export function txFailed(arena: usize, device: u32, message: u32, reason: u32): void {
  check(message < TX_MESSAGES_MAX);
  const content = arena + ARENA_TX_CONTENTS + message * TX_CONTENT_BYTES;
  const end = load<u32>(content, 4);
  const copyTo = load<u32>(content, 20);
  check(end <= BATCH_MAX);
  for (let place = load<u32>(content); place < end; place++) {
    const i = u32(load<u8>(arena + place, ARENA_TX_ORDER));
    check(i < BATCH_MAX);
    if (copyTo == NONE && load<u8>(arena + i, ARENA_TX_FAILED)) continue;
    store<u8>(arena + i, 1, ARENA_TX_FAILED);
    dropDevice(arena, device, reason, 1);
    if (reason == DROP_TX_UNDERLAY_MTU) {
      const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
      const frame = load<u32>(entry) + VNET_HDR_BYTES;
      const route = copyTo == NONE ? load<u32>(arena + i * 4, ARENA_TX_ROUTES) : copyTo;
      tellTooBig(arena, device, frame, load<u32>(entry, 4) - VNET_HDR_BYTES, route, 0);
    }
  }
}

/** Goes back to where a message begins: from there on every datagram gets a message of its own. Then call `txLayOut`. */
export function txRetreat(arena: usize, message: u32): void {
  check(message < TX_MESSAGES_MAX);
  const content = arena + ARENA_TX_CONTENTS + message * TX_CONTENT_BYTES;
  store<u32>(arena, load<u32>(content), ARENA_TX_PLACE);
  store<u32>(arena, load<u32>(content, 16), ARENA_TX_SEGMENT);
  store<u32>(arena, 1, ARENA_TX_SINGLY);
}

/**
 * Takes the flow label off a message, which has it last: the kernel takes none while anybody in the network namespace has leased
 * one for himself alone. False where there is none.
 */
export function txUnlabel(arena: usize, message: u32): bool {
  check(message < TX_MESSAGES_MAX);
  const at = arena + ARENA_TX_MESSAGES + message * MESSAGE_BYTES;
  const bytes = load<u32>(at, MESSAGE_CONTROL_BYTES);
  const control = arena + ARENA_TX_CONTROLS + message * TX_CONTROL_BYTES;
  if (bytes < FLOW_LABEL_BYTES || bytes > TX_CONTROL_BYTES) return false;
  if (!isFlowLabel(control + bytes - FLOW_LABEL_BYTES)) return false;
  store<u64>(at, bytes - FLOW_LABEL_BYTES, MESSAGE_CONTROL_BYTES);
  if (bytes == FLOW_LABEL_BYTES) store<u64>(at, 0, MESSAGE_CONTROL);
  return true;
}

/** Datagrams of a message. */
export function txDatagrams(arena: usize, message: u32): u32 {
  check(message < TX_MESSAGES_MAX);
  return load<u32>(arena + ARENA_TX_CONTENTS + message * TX_CONTENT_BYTES, 12);
}
