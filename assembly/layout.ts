/**
 * The contract between the WebAssembly core, the workers and the main thread: every offset, size, state,
 * verdict and drop-reason number, written once in the subset that both asc and tsc compile. Numbers only.
 * Start-up compares each constant with the global of the same name that the module exports.
 *
 * See the theory in `src/overlay.ts`. The shared memory, from low to high (every region line-aligned):
 *
 *   0        static data of the module (asc --memoryBase), read-only after instantiation
 *   64 KiB   HEADER            main writes before the workers start
 *            DEVICES           one row a device; main writes, workers read
 *            MUXES             one row an underlay address; main writes, workers read
 *            VNETS             hash (mux, vnetid) -> device; main writes, workers read
 *            OWN               ports of this daemon's own sockets, and where their addresses are; main writes, workers read
 *            DESTINATIONS      one row a VTEP: sockaddr, control message, encap header template
 *            ARENA 0..n        one a worker: control block, descriptors, counters, rings, batches, frames
 *            POOL              target tables, counter columns, lists, source sets, own addresses; main gives it out
 *
 * Each word has one writer. "main" and "worker" in the tables below say who.
 */

// ─── General ────────────────────────────────────────────────────────────────────────────────────────────
export const LAYOUT_MAGIC: u32 = 0x64796c6f; // "olyd", little endian
export const LAYOUT_VERSION: u32 = 1;
export const LINE_BYTES: u32 = 64;
/** An index that names nothing. */
export const NONE: u32 = 0xffffffff;

export const DEVICES_MAX: u32 = 1024;
export const MUXES_MAX: u32 = 64;
/** VTEPs and lists of VTEPs, over all muxes. */
export const DESTINATIONS_MAX: u32 = 16384;
/** Send sockets a mux has for each worker, at most (`--bank`). */
export const BANK_MAX: u32 = 64;
/** Frames or datagrams that one batch holds. */
export const BATCH_MAX: u32 = 64;

// ─── Header (main writes, before any worker starts) ─────────────────────────────────────────────────────
export const HEADER_OFFSET: u32 = 65536;
export const HEADER_BYTES: u32 = 4096;
export const HEADER_MAGIC: u32 = 0; // u32
export const HEADER_LAYOUT_VERSION: u32 = 4; // u32
/** Absolute address of byte 0 of the memory, for pointers that the kernel reads. */
export const HEADER_BASE: u32 = 8; // u64
/** Seed of the vnet hash and of the flow hash, random per start so that strangers cannot aim at a bucket. */
export const HEADER_SEED: u32 = 16; // u64
export const HEADER_ARENAS: u32 = 24; // u32, how many arenas lie behind ARENAS_OFFSET
export const HEADER_POOL: u32 = 28; // u32, offset of the pool
export const HEADER_POOL_BYTES: u32 = 32; // u32
/** What one device may have unread on one miss ring, in bytes as `missCost` counts them. */
export const HEADER_MISS_SHARE: u32 = 36; // u32
/** Bumped and notified by a worker that has put something on its event ring. */
export const HEADER_BELL: u32 = 64; // i32, any worker adds, main waits

// ─── Device row (main writes; a row is immutable while ACTIVE but for STATE and MTU) ────────────────────
export const DEVICES_OFFSET: u32 = HEADER_OFFSET + HEADER_BYTES;
export const DEVICE_BYTES: u32 = 128;
export const DEVICE_STATE: u32 = 0; // u32 atomic
export const DEVICE_MUX: u32 = 4; // u32
export const DEVICE_VNETID: u32 = 8; // u64
export const DEVICE_ENCAP: u32 = 16; // u32, an ENCAP_ number
export const DEVICE_FLAGS: u32 = 20; // u32, DEVICE_FLAG_ bits
export const DEVICE_MTU: u32 = 24; // u32 atomic, payload bytes of the largest frame
export const DEVICE_MODE: u32 = 28; // u32, a TARGET_MODE_ number
export const DEVICE_DESTINATION: u32 = 32; // u32, row of DESTINATIONS (POINT)
export const DEVICE_TARGETS: u32 = 36; // u32 atomic, offset of the target table (DYNAMIC)
export const DEVICE_SOURCES: u32 = 40; // u32 atomic, offset of the set of sources, or 0 for any
export const DEVICE_SOURCE_MODE: u32 = 44; // u32, a SOURCE_MODE_ number
/** DSCP of outer headers (RFC 2474), 0 to 63, or DSCP_INHERIT for that of the inner one. */
export const DEVICE_DSCP: u32 = 48; // u32
/** The largest segment that a TCP SYN may offer (RFC 9293 section 3.7.1), by family; 0 for any. */
export const DEVICE_MSS_IPV4: u32 = 52; // u32 atomic
export const DEVICE_MSS_IPV6: u32 = 56; // u32 atomic

export const DSCP_INHERIT: u32 = 64;
/** No such device. */
export const DEVICE_STATE_FREE: u32 = 0;
/** The device exists, its frames are dropped: stopped, or something is being changed or retired. */
export const DEVICE_STATE_DROP: u32 = 1;
export const DEVICE_STATE_ACTIVE: u32 = 2;
/** The encap carries VLAN tags, so frames may be four bytes longer. */
export const DEVICE_FLAG_VLAN: u32 = 1;
/** ARP, neighbour solicitations and DHCP to group addresses go the miss way even when the target is VALID. */
export const DEVICE_FLAG_PROXY: u32 = 2;
/** Datagrams of one size to one destination leave as one message that the kernel cuts (man 7 udp, UDP_SEGMENT). */
export const DEVICE_FLAG_UDP_SEGMENT: u32 = 4;
/** Received frames of a flow that follow one another are handed to the link as one. */
export const DEVICE_FLAG_COALESCE: u32 = 8;
/** Those of UDP too: kernels before Linux 6.2 take no super-frame of UDP. */
export const DEVICE_FLAG_COALESCE_UDP: u32 = 16;
/** Datagrams with reserved bits that are not zero in their outer header are dropped. */
export const DEVICE_FLAG_RESERVED: u32 = 32;
/** Inner source addresses that are not in the table, or behind another VTEP there, are reported. */
export const DEVICE_FLAG_LEARN: u32 = 64;
/** What the way to the destination takes counts for DEVICE_MSS_ too. */
export const DEVICE_FLAG_MSS_PATH: u32 = 128;
/** The ECN field of outer headers is zero (RFC 6040 section 4.1, "compatibility mode"). */
export const DEVICE_FLAG_ECN_CLEAR: u32 = 256;
/** Inner packets to a socket of this daemon pass, as the operator has allowed. */
export const DEVICE_FLAG_INNER_TO_MUX: u32 = 512;
export const TARGET_MODE_NONE: u32 = 0;
export const TARGET_MODE_POINT: u32 = 1;
export const TARGET_MODE_DYNAMIC: u32 = 2;
/** Whose datagrams are taken: from anyone; from a set of VTEPs; from the VTEP that the inner source belongs to. */
export const SOURCE_MODE_OFF: u32 = 0;
export const SOURCE_MODE_KNOWN: u32 = 1;
export const SOURCE_MODE_STRICT: u32 = 2;

// ─── Mux row (main writes) ──────────────────────────────────────────────────────────────────────────────
export const MUXES_OFFSET: u32 = DEVICES_OFFSET + DEVICES_MAX * DEVICE_BYTES;
export const MUX_BYTES: u32 = 64;
export const MUX_ENCAP: u32 = 0; // u32
/** Send sockets of each worker, 1 to BANK_MAX. */
export const MUX_BANK: u32 = 4; // u32
/** 1 where the sockets are of AF_INET6, 0 for AF_INET: the form of a sender's address. */
export const MUX_IS_IPV6: u32 = 8; // u32
/** 1 where the kernel hands datagrams over behind their IPv4 header: raw sockets of AF_INET (man 7 raw). */
export const MUX_HAS_IP_HEADER: u32 = 12; // u32
/** UDP port that the receive sockets have, 0 for GRE. */
export const MUX_PORT: u32 = 16; // u32

// ─── Vnet slots: open addressing, linear probing (main writes, DEVICE last) ─────────────────────────────
export const VNETS_OFFSET: u32 = MUXES_OFFSET + MUXES_MAX * MUX_BYTES;
/** A power of two, at least four times DEVICES_MAX, so that probes stay short. */
export const VNETS_MAX: u32 = 4096;
export const VNET_BYTES: u32 = 16;
export const VNET_VNETID: u32 = 0; // u64
export const VNET_MUX: u32 = 8; // u32
export const VNET_DEVICE: u32 = 12; // u32 atomic: 0 never used, NONE removed, else row + 1

// ─── Own sockets: where a received frame may not lead (main writes; `assembly/own.ts` reads) ────────────
export const OWN_OFFSET: u32 = VNETS_OFFSET + VNETS_MAX * VNET_BYTES;
export const OWN_SET: u32 = 0; // u32 atomic, offset of the set of addresses, or 0 for none
/** A bit for each UDP port that a mux listens on, by the port as a little-endian load sees it; that of port 0 stands for GRE. */
export const OWN_PORTS: u32 = LINE_BYTES; // u8[OWN_PORTS_BYTES]
export const OWN_PORTS_BYTES: u32 = 8192;
export const OWN_BYTES: u32 = OWN_PORTS + OWN_PORTS_BYTES;
// The set: a head, slots (open addressing by `sourceSlot`), prefixes. Immutable once published but for MUXES, where main
// clears the bit of a mux that leaves.
export const OWN_SET_SLOTS: u32 = 0; // u32, a power of two; at most half are used
export const OWN_SET_PREFIXES: u32 = 4; // u32
/** All muxes of the set, a bit for each row. */
export const OWN_SET_MUXES: u32 = 8; // u64 atomic
export const OWN_SET_BYTES: u32 = 64; // the slots come behind
export const OWN_SLOT_BYTES: u32 = 32;
/** IPv6 or IPv4-mapped address; `::` is an empty slot. */
export const OWN_SLOT_ADDRESS: u32 = 0; // u64, u64
export const OWN_SLOT_MUXES: u32 = 16; // u64 atomic, muxes that listen on the address
export const OWN_PREFIX_BYTES: u32 = 40;
export const OWN_PREFIX_ADDRESS: u32 = 0; // u64, u64
export const OWN_PREFIX_MASK: u32 = 16; // u64, u64
export const OWN_PREFIX_MUXES: u32 = 32; // u64 atomic
/** More prefixes or addresses than these count as all addresses there are. */
export const OWN_PREFIXES_MAX: u32 = 64;
export const OWN_ADDRESSES_MAX: u32 = 16384;

// ─── Destination row (main writes before publishing its index) ──────────────────────────────────────────
export const DESTINATIONS_OFFSET: u32 = OWN_OFFSET + OWN_BYTES;
export const DESTINATION_BYTES: u32 = 512;
export const DESTINATION_NAME_BYTES: u32 = 0; // u32, sockaddr length
export const DESTINATION_CONTROL_BYTES: u32 = 4; // u32, control message length
export const DESTINATION_HEADER_BYTES: u32 = 8; // u32, encap header length
export const DESTINATION_KIND: u32 = 12; // u32, a DESTINATION_KIND_ number
export const DESTINATION_NAME: u32 = 16; // sockaddr_in or sockaddr_in6
export const DESTINATION_LIST: u32 = 48; // u32, offset in the pool of the rows of a list
export const DESTINATION_LIST_COUNT: u32 = 52; // u32
/** 1 for an IPv6 address, 0 for IPv4, mapped or not: the form of control messages. */
export const DESTINATION_IS_IPV6: u32 = 56; // u32
/** Bytes of the largest inner frame that the path takes, 0 where nothing is known of it. */
export const DESTINATION_FRAME_MAX: u32 = 60; // u32 atomic
export const DESTINATION_NAME_BYTES_MAX: u32 = 28;
export const DESTINATION_CONTROL: u32 = 64;
export const DESTINATION_CONTROL_BYTES_MAX: u32 = 128;
export const DESTINATION_HEADER: u32 = 192; // template; the core patches the vnetid into it
export const DESTINATION_HEADER_BYTES_MAX: u32 = 264;

export const DESTINATION_KIND_UNICAST: u32 = 0;
/** A copy goes to each of the list. The row has the header all of them share. */
export const DESTINATION_KIND_REPLICATE: u32 = 1;
/** Each flow goes to one of the list. */
export const DESTINATION_KIND_SPREAD: u32 = 2;

// ─── Target table: open addressing, line by line (main writes, workers read without a lock) ─────────────
// A slot is two words. KEY is immutable while a worker may read it: a slot is given to another address only after a
// quiesce. ENTRY is all that changes, in one atomic store, so that no reader ever sees half of a change.
export const TABLE_SLOTS: u32 = 0; // u32, how many; a power of two
export const TABLE_IDS: u32 = 4; // u32, how many entries the columns have room for
export const TABLE_COLUMNS: u32 = 8; // u32, offset of the counter columns: arena by arena, id by id
export const TABLE_SHIFT: u32 = 12; // u32, 64 - log2(slots)
export const TABLE_MULTIPLIER: u32 = 16; // u64, odd and random: strangers cannot aim at a slot
export const TABLE_SEED: u32 = 24; // u64
export const TABLE_BYTES: u32 = 64; // the slots come behind
export const SLOT_BYTES: u32 = 16;
export const SLOT_KEY: u32 = 0; // u64 atomic: 0 never used, else KEY_TAKEN or KEY_FREE with a MAC address below it
export const SLOT_ENTRY: u32 = 8; // u64 atomic
/** Bits 48 and up of KEY. Of a slot that may be given out again, the address is 0. */
export const KEY_TAKEN: u32 = 1;
export const KEY_FREE: u32 = 2;
/** Of an entry that has left: nobody finds it any more, and its slot is not given out before a quiesce. */
export const KEY_LEFT: u32 = 3;
export const KEY_SHIFT: u32 = 48;
/** Slots of one cache line: all of a line are looked at before the next line. */
export const LINE_SLOTS: u32 = 4;
/** No entry is further than this from its slot; whole lines. */
export const TARGET_PROBES_MAX: u32 = 128;
// ENTRY: destination row, id (place in the columns), flags, low bits of the generation.
export const ENTRY_DESTINATION_BITS: u32 = 20;
export const ENTRY_ID_SHIFT: u32 = 20;
export const ENTRY_FLAGS_SHIFT: u32 = 40;
export const ENTRY_GENERATION_SHIFT: u32 = 48;
export const TARGETS_MAX: u32 = 1048576;
export const TARGET_VALID: u32 = 1;
export const TARGET_DROP: u32 = 2;
export const TARGET_PENDING: u32 = 4;
/** Answered; frames that wait are on their way back to the workers, and later ones queue behind them. */
export const TARGET_DRAINING: u32 = 8;
/** Holds as many frames as it may: the next ones are dropped where they come in. */
export const TARGET_FULL: u32 = 16;
// Counter column of one entry in one arena (worker writes).
export const COLUMN_BYTES: u32 = 32;
export const COLUMN_FRAMES: u32 = 0; // u64
export const COLUMN_TX_BYTES: u32 = 8; // u64
export const COLUMN_LAST_USE: u32 = 16; // u32, seconds by ARENA_NOW
/** When a frame from it came in, of a device that learns. */
export const COLUMN_LAST_SEEN: u32 = 20; // u32, likewise

// ─── Set of sources: open addressing of IPv6 or IPv4-mapped addresses (immutable once published) ────────
export const SOURCES_SLOTS: u32 = 0; // u32, a power of two; at most half are used
export const SOURCES_BYTES: u32 = 16; // the slots come behind, 16 bytes each; `::` is an empty one

// ─── Arena: one a worker ────────────────────────────────────────────────────────────────────────────────
export const ARENAS_OFFSET: u32 = DESTINATIONS_OFFSET + DESTINATIONS_MAX * DESTINATION_BYTES;

// Control block: main's line, then the worker's.
export const ARENA_STOP: u32 = 0; // i32 atomic, main: 1 asks the worker to leave
/** Even: parked in a wait, reads no table. Odd: running. Moves at every park and unpark. */
export const ARENA_EPOCH: u32 = 64; // i32 atomic, worker
/** Node's thread id of the worker, for main to know which thread to end. */
export const ARENA_THREAD: u32 = 80; // u32, worker
export const ARENA_FRAME: u32 = 68; // u32, worker: index in the batch of the frame being decided
export const ARENA_WRITES: u32 = 72; // u32, worker: TAP writes that the receive batch has produced
export const ARENA_GROUPS: u32 = 76; // u32, worker: send groups that the transmit batch has produced
export const ARENA_NOW: u32 = 84; // u32, worker: seconds of the monotonic clock, as `monotonicSeconds` has them
/** Bytes of the wait queue in use. */
export const ARENA_WAIT_USED: u32 = 88; // u32, worker
/** What the inject batch is: an INJECT_ number, and the device. */
export const ARENA_INJECT_KIND: u32 = 92; // u32, worker
export const ARENA_INJECT_DEVICE: u32 = 96; // u32, worker
/** Addresses reported in a second, and which one. */
export const ARENA_LEARN_COUNT: u32 = 100; // u32, worker
export const ARENA_LEARN_SECOND: u32 = 104; // u32, worker
/** How many frames that are too big main has heard of, in which second. */
export const ARENA_TOO_BIG_TELLS: u32 = 108; // u32, worker
export const ARENA_TOO_BIG_SECOND: u32 = 112; // u32, worker
/** The kernel's number of the worker's thread, for main to ask after it; 0 where it is not known. */
export const ARENA_KERNEL_THREAD: u32 = 116; // u32, worker

// Descriptors of the queue (main writes; -1 is none).
export const ARENA_TAP_FDS: u32 = 4096; // i32[DEVICES_MAX]
export const ARENA_RECEIVE_FDS: u32 = ARENA_TAP_FDS + DEVICES_MAX * 4; // i32[MUXES_MAX]
export const ARENA_SEND_FDS: u32 = ARENA_RECEIVE_FDS + MUXES_MAX * 4; // i32[MUXES_MAX][BANK_MAX]

// Counters (worker writes): a row for each device, then for each mux, then one for the worker itself.
export const COUNTERS_MAX: u32 = 104;
export const COUNTER_ROW_BYTES: u32 = COUNTERS_MAX * 8;
export const COUNTER_ROWS: u32 = DEVICES_MAX + MUXES_MAX + 1;
export const ARENA_COUNTERS: u32 = ARENA_SEND_FDS + MUXES_MAX * BANK_MAX * 4;

// Event ring, worker -> main.
export const RING_HEAD: u32 = 0; // u32 atomic, consumer's cursor in bytes, free running
export const RING_TAIL: u32 = 64; // u32 atomic, producer's cursor in bytes, free running
export const RING_CAPACITY: u32 = 128; // u32, a power of two
export const RING_DATA: u32 = 192;
/** Every record starts with its payload length and is padded to this. */
export const RING_ALIGN_BYTES: u32 = 8;
export const EVENT_RING_BYTES: u32 = 16384;
export const ARENA_EVENTS: u32 = ARENA_COUNTERS + COUNTER_ROWS * COUNTER_ROW_BYTES;
export const ARENA_SCRATCH: u32 = ARENA_EVENTS + RING_DATA + EVENT_RING_BYTES;
export const SCRATCH_BYTES: u32 = 64;

// What epoll_wait fills in.
export const ARENA_READY: u32 = ARENA_SCRATCH + SCRATCH_BYTES;
export const READY_MAX: u32 = 64;
export const READY_BYTES: u32 = 16; // room for the padded form of struct epoll_event too

// Transmit batch, TAP -> underlay.
export const ARENA_TX_FRAMES: u32 = ARENA_READY + READY_MAX * READY_BYTES; // {u32 offset of vnet_hdr, u32 length with it}
export const TX_FRAME_BYTES: u32 = 8;
/** Send socket of each frame, or TX_SOCKET_DROPPED. */
export const ARENA_TX_SOCKETS: u32 = ARENA_TX_FRAMES + BATCH_MAX * TX_FRAME_BYTES; // u8[BATCH_MAX]
export const TX_SOCKET_DROPPED: u32 = 0xff;
export const TX_SOCKET_REPLICATE: u32 = 0xfe;
/** Send socket of each frame that is replicated. */
export const ARENA_TX_REPLICA_SOCKETS: u32 = ARENA_TX_SOCKETS + BATCH_MAX; // u8[BATCH_MAX]
export const ARENA_TX_ROUTES: u32 = ARENA_TX_REPLICA_SOCKETS + BATCH_MAX; // u32[BATCH_MAX], destination rows
export const ARENA_TX_TARGETS: u32 = ARENA_TX_ROUTES + BATCH_MAX * 4; // u32[BATCH_MAX], entry ids or NONE
export const ARENA_TX_KEYS: u32 = ARENA_TX_TARGETS + BATCH_MAX * 4; // u64[BATCH_MAX]
export const ARENA_TX_ENTRIES: u32 = ARENA_TX_KEYS + BATCH_MAX * 8; // u64[BATCH_MAX], 0 for absent
// Scratch of the lookup: slot of each key, and which keys are searched further. Of the counting: ids and bytes.
export const ARENA_TX_SLOTS: u32 = ARENA_TX_ENTRIES + BATCH_MAX * 8; // u32[BATCH_MAX]
export const ARENA_TX_FURTHER: u32 = ARENA_TX_SLOTS + BATCH_MAX * 4; // u32[BATCH_MAX]
export const ARENA_TX_COUNT_IDS: u32 = ARENA_TX_FURTHER + BATCH_MAX * 4; // u32[BATCH_MAX]
export const ARENA_TX_COUNT_BYTES: u32 = ARENA_TX_COUNT_IDS + BATCH_MAX * 4; // u32[BATCH_MAX]
export const ARENA_TX_STARTS: u32 = ARENA_TX_COUNT_BYTES + BATCH_MAX * 4; // u32[BANK_MAX], messages before each socket
/** Super-frames: bytes of the headers that each segment begins with, or 0 for a frame that goes as it is. */
export const ARENA_TX_HEADER_BYTES: u32 = ARENA_TX_STARTS + BANK_MAX * 4; // u32[BATCH_MAX]
/** Super-frames: payload bytes of each segment but the last. */
export const ARENA_TX_SEGMENT_BYTES: u32 = ARENA_TX_HEADER_BYTES + BATCH_MAX * 4; // u32[BATCH_MAX]
/** Frames that passed, in the order of their send sockets. */
export const ARENA_TX_ORDER: u32 = ARENA_TX_SEGMENT_BYTES + BATCH_MAX * 4; // u8[BATCH_MAX]
/** Frames of which a message failed: 1 and dropped, else 0. */
export const ARENA_TX_FAILED: u32 = ARENA_TX_ORDER + BATCH_MAX; // u8[BATCH_MAX]
/** Traffic class of each frame's outer header: DSCP and ECN. */
export const ARENA_TX_CLASSES: u32 = ARENA_TX_FAILED + BATCH_MAX; // u8[BATCH_MAX]
/** Low byte of each frame's flow hash, for headers that tell flows apart themselves. */
export const ARENA_TX_FLOWS: u32 = ARENA_TX_CLASSES + BATCH_MAX; // u8[BATCH_MAX]
/** Lists of the frames that are replicated. */
export const ARENA_TX_REPLICAS: u32 = ARENA_TX_FLOWS + BATCH_MAX; // u32[BATCH_MAX]
export const ARENA_TX_GROUPS: u32 = ARENA_TX_REPLICAS + BATCH_MAX * 4; // {i32 fd, u32 first, u32 count, u32 0}
export const TX_GROUP_BYTES: u32 = 16;
/** Messages that are laid out at a time; a batch of super-frames may take several times. */
export const TX_MESSAGES_MAX: u32 = 128;
export const TX_IOVECS_MAX: u32 = 1024;
export const ARENA_TX_MESSAGES: u32 = ARENA_TX_GROUPS + BANK_MAX * TX_GROUP_BYTES; // struct mmsghdr
/**
 * What each message holds: {u32 place of its first frame in ORDER, u32 behind its last, u32 1 if that goes on in the next
 * message, u32 datagrams, u32 segment of the first frame that it begins with, u32 destination where it is one copy of many, or NONE}.
 */
export const TX_CONTENT_BYTES: u32 = 24;
export const ARENA_TX_CONTENTS: u32 = ARENA_TX_MESSAGES + TX_MESSAGES_MAX * 64;
/** Control messages: the destination's, then the traffic class, then the segment size. */
export const TX_CONTROL_BYTES: u32 = 192;
export const ARENA_TX_CONTROLS: u32 = ARENA_TX_CONTENTS + TX_MESSAGES_MAX * TX_CONTENT_BYTES;
export const ARENA_TX_IOVECS: u32 = ARENA_TX_CONTROLS + TX_MESSAGES_MAX * TX_CONTROL_BYTES; // struct iovec
/** Room for the outer header and for all headers of a segment. */
export const TX_SEGMENT_HEADER_BYTES_MAX: u32 = 1024;
/** The headers of segments, one behind the other. */
export const TX_HEADERS_BYTES: u32 = 65536;
export const ARENA_TX_HEADERS: u32 = ARENA_TX_IOVECS + TX_IOVECS_MAX * 16;
/** Where the layout goes on: place in ORDER, how many there are, segment of that frame; 1 when no message is to be cut. */
export const ARENA_TX_PLACE: u32 = ARENA_TX_HEADERS + TX_HEADERS_BYTES; // u32
export const ARENA_TX_PLACES: u32 = ARENA_TX_PLACE + 4; // u32
export const ARENA_TX_SEGMENT: u32 = ARENA_TX_PLACE + 8; // u32
export const ARENA_TX_SINGLY: u32 = ARENA_TX_PLACE + 12; // u32

// Receive batch, underlay -> TAP.
export const ARENA_RX_MESSAGES: u32 = ARENA_TX_PLACE + LINE_BYTES; // struct mmsghdr
export const ARENA_RX_IOVECS: u32 = ARENA_RX_MESSAGES + BATCH_MAX * 64;
/** Sender of each message: sockaddr_in or sockaddr_in6. */
export const ARENA_RX_NAMES: u32 = ARENA_RX_IOVECS + BATCH_MAX * 16;
export const RX_NAME_BYTES: u32 = 32;
export const ARENA_RX_CONTROLS: u32 = ARENA_RX_NAMES + BATCH_MAX * RX_NAME_BYTES;
/** For the size of datagrams and the traffic class, of either family. */
export const RX_CONTROL_BYTES: u32 = 128;
/** What is to be unfolded next: message, how many there are, offset in it. */
export const ARENA_RX_MESSAGE: u32 = ARENA_RX_CONTROLS + BATCH_MAX * RX_CONTROL_BYTES; // u32
export const ARENA_RX_MESSAGE_COUNT: u32 = ARENA_RX_MESSAGE + 4; // u32
export const ARENA_RX_MESSAGE_OFFSET: u32 = ARENA_RX_MESSAGE + 8; // u32
/** Tells open super-frames of this batch from those of others. */
export const ARENA_RX_STAMP: u32 = ARENA_RX_MESSAGE + 12; // u32
/** 1 when a write of the batch is not in one piece. */
export const ARENA_RX_SCATTERED: u32 = ARENA_RX_MESSAGE + 16; // u32
/**
 * The datagrams of the messages, as many as fit: {u32 offset, u32 length, u32 the next one of the same super-frame, u32 message
 * with RX_DATAGRAM_ flags}. Of one that has passed offset and length are those of its frame, of one that was joined to
 * another those of its payload.
 */
export const RX_DATAGRAMS_MAX: u32 = 1024;
export const RX_DATAGRAM_BYTES: u32 = 16;
export const ARENA_RX_DATAGRAMS: u32 = ARENA_RX_MESSAGE + LINE_BYTES;
export const RX_DATAGRAM_MESSAGE: u32 = 0xff;
/** The first of its message: what lies before it is ours. */
export const RX_DATAGRAM_FIRST: u32 = 0x100;
export const RX_DATAGRAM_TRUNCATED: u32 = 0x200;
/** ECN field of its outer header. */
export const RX_DATAGRAM_ECN: u32 = 0xc00;
export const RX_DATAGRAM_ECN_SHIFT: u32 = 10;
/**
 * {i32 fd, u32 offset, u32 length, u32 device, u32 iovecs, u32 frames, u32 first datagram, u32 last}. Offset is that of the bytes,
 * or of the iovecs when there are any; length is that of all, with the vnet_hdr.
 */
export const RX_WRITE_BYTES: u32 = 32;
export const ARENA_RX_WRITES: u32 = ARENA_RX_DATAGRAMS + RX_DATAGRAMS_MAX * RX_DATAGRAM_BYTES;
/** vnet_hdr of each write that cannot have it in front of its frame. */
export const RX_HEADER_BYTES: u32 = 16;
export const ARENA_RX_HEADERS: u32 = ARENA_RX_WRITES + RX_DATAGRAMS_MAX * RX_WRITE_BYTES;
export const ARENA_RX_WRITE_IOVECS: u32 = ARENA_RX_HEADERS + RX_DATAGRAMS_MAX * RX_HEADER_BYTES; // two a datagram
/** Super-frames that are open, by flow. A power of two. */
export const RX_FLOWS_MAX: u32 = 256;
export const RX_FLOW_BYTES: u32 = 64;
export const ARENA_RX_FLOWS: u32 = ARENA_RX_WRITE_IOVECS + RX_DATAGRAMS_MAX * 32;

/** What was reported a moment ago: a digest of address, sender and second. A power of two. */
export const RX_LEARNED_MAX: u32 = 1024;
export const ARENA_RX_LEARNED: u32 = ARENA_RX_FLOWS + RX_FLOWS_MAX * RX_FLOW_BYTES; // u64[RX_LEARNED_MAX]
/** Addresses that a worker reports in a second, at most. */
export const LEARN_REPORTS_MAX: u32 = 4096;

// Miss ring, worker -> main, and inject ring, main -> worker: records {u32 device, u32 kind, u32 generation, u32 0},
// vnet_hdr, frame. Generation: on the inject ring, that with which the frame's target began to drain, or NONE. The wait queue has records of the same form, each behind its u32 length padded to 8 bytes.
export const FRAME_RECORD_BYTES: u32 = 16;
export const MISS_RING_BYTES: u32 = 1048576;
export const ARENA_MISSES: u32 = ARENA_RX_LEARNED + RX_LEARNED_MAX * 8;
export const INJECT_RING_BYTES: u32 = 1048576;
export const ARENA_INJECTS: u32 = ARENA_MISSES + RING_DATA + MISS_RING_BYTES;
/** What a record on the miss ring counts at least: main spends as much on a short frame as on a long one. */
export const MISS_COST_MIN: u32 = 1024;
export const WAIT_BYTES: u32 = 524288;
export const ARENA_WAIT: u32 = ARENA_INJECTS + RING_DATA + INJECT_RING_BYTES;
/** A frame to a target that is not VALID. */
export const MISS_TARGET: u32 = 0;
/** A frame that varpd answers although its target is VALID. */
export const MISS_PROXY: u32 = 1;
/** A received frame whose source is not in the table (SOURCE_MODE_STRICT): its Ethernet header alone. */
export const MISS_SOURCE: u32 = 2;
/** A received frame whose source is to be learned: its Ethernet header, then 16 bytes of the sender's address. */
export const MISS_LEARN: u32 = 3;
/**
 * A frame that was dropped because it is too big: the beginning of it. In place of the generation the destination row or NONE,
 * behind it the bytes of the largest frame that may pass, or 0 when only the kernel knows.
 */
export const MISS_TOO_BIG: u32 = 4;
/** As much of one as an answer can quote (RFC 4443 section 3.2: 1,280 bytes with its own headers), with tags. */
export const TOO_BIG_HEAD_BYTES: u32 = 1280;
/** Of so many a second, in one arena, main hears. */
export const TOO_BIG_TELLS_MAX: u32 = 128;
/** Out, the ordinary way. */
export const INJECT_TX: u32 = 0;
/** Out, but never back to varpd: it has seen the frame. */
export const INJECT_TX_ROUTED: u32 = 1;
/** In, to the guests on the link. */
export const INJECT_RX: u32 = 2;
/** From the wait queue. */
export const INJECT_WAITED: u32 = 3;

// Frame buffers.
export const VNET_HDR_BYTES: u32 = 10; // struct virtio_net_hdr without num_buffers
/**
 * Room before the vnet_hdr of every frame read from a TAP: the largest encap header goes there. The vnet_hdr begins a
 * cache line, which then holds it with the Ethernet, IP and TCP headers: one line a frame is all the core reads.
 */
export const TX_HEADROOM_BYTES: u32 = 320;
/** The largest frame a TAP or a datagram can hand over: an IP packet of 65,535 bytes behind two VLAN tags and a vnet_hdr. */
export const FRAME_BYTES_MAX: u32 = 65568;
/** Where the record of a frame that is too big is put together. */
export const ARENA_TOO_BIG: u32 = ARENA_WAIT + WAIT_BYTES;
export const TOO_BIG_BYTES: u32 = 1344;
// Shares of what all devices have in common, by device. Cost of all that was put on the miss ring, and of all that was taken
// from it: free running, so that each has one writer.
export const ARENA_MISSES_PUT: u32 = ARENA_TOO_BIG + TOO_BIG_BYTES; // u32[DEVICES_MAX], worker
export const ARENA_MISSES_TAKEN: u32 = ARENA_MISSES_PUT + DEVICES_MAX * 4; // u32[DEVICES_MAX] atomic, main
/** Bytes in the wait queue. */
export const ARENA_WAIT_SHARES: u32 = ARENA_MISSES_TAKEN + DEVICES_MAX * 4; // u32[DEVICES_MAX], worker
export const ARENA_TX_BUFFER: u32 = ARENA_WAIT_SHARES + DEVICES_MAX * 4;
/** Frames are packed one after the other; a batch ends when less than one largest frame fits. */
export const TX_BUFFER_BYTES: u32 = 1048576;
/** An odd number of lines, so that the slots do not all fall on one cache set. */
export const RX_SLOT_BYTES: u32 = 66112;
/** The vnet_hdr of a decapsulated VXLAN frame then begins a cache line (a line, and 10 less 8 bytes). */
export const RX_HEADROOM_BYTES: u32 = 66;
export const RX_DATAGRAM_BYTES_MAX: u32 = 65535;
export const ARENA_RX_BUFFER: u32 = ARENA_TX_BUFFER + TX_BUFFER_BYTES;
export const ARENA_BYTES: u32 = ARENA_RX_BUFFER + BATCH_MAX * RX_SLOT_BYTES;

// ─── What epoll reports: kind << 16 | row ───────────────────────────────────────────────────────────────
export const SOURCE_WAKE: u32 = 0;
export const SOURCE_TAP: u32 = 1;
export const SOURCE_UNDERLAY: u32 = 2;

// ─── Encapsulations ─────────────────────────────────────────────────────────────────────────────────────
export const ENCAP_VXLAN: u32 = 1;
export const ENCAP_GENEVE: u32 = 2;
export const ENCAP_NVGRE: u32 = 3;
export const ENCAP_VXLAN_GPE: u32 = 4;

// ─── Verdicts: exactly one a frame ──────────────────────────────────────────────────────────────────────
// A value below DROP_REASONS is a drop of that name; the others are no drops.
export const VERDICT_PASS: u32 = 0x100;
/** Handed to main over the miss ring. */
export const VERDICT_MISS: u32 = 0x101;
export const VERDICT_MISS_PROXY: u32 = 0x102;
/** Put behind the frames that are on their way back to this worker. */
export const VERDICT_WAIT: u32 = 0x103;

// ─── Drop reasons, the closed list. `src/datapath/drop.ts` has a sentence for each. ─────────────────────
// Out: from the TAP to the underlay.
export const DROP_TX_SHORT_FRAME: u32 = 0;
export const DROP_TX_TOO_BIG: u32 = 1;
export const DROP_TX_VLAN_NOT_CARRIED: u32 = 2;
export const DROP_TX_BAD_VNET_HDR: u32 = 3;
export const DROP_TX_DEVICE_STOPPED: u32 = 4;
export const DROP_TX_NO_TARGET: u32 = 5;
export const DROP_TX_CORE_TRAP: u32 = 6;
export const DROP_TX_UNDERLAY_FULL: u32 = 7;
export const DROP_TX_UNDERLAY_MTU: u32 = 8;
export const DROP_TX_UNREACHABLE: u32 = 9;
export const DROP_TX_NOT_PERMITTED: u32 = 10;
export const DROP_TX_UNDERLAY_ERROR: u32 = 11;
// In: from the underlay to the TAP.
export const DROP_RX_SHORT_DATAGRAM: u32 = 12;
export const DROP_RX_TRUNCATED: u32 = 13;
export const DROP_RX_BAD_HEADER: u32 = 14;
export const DROP_RX_UNKNOWN_VNETID: u32 = 15;
export const DROP_RX_DEVICE_STOPPED: u32 = 16;
export const DROP_RX_SHORT_FRAME: u32 = 17;
export const DROP_RX_TOO_BIG: u32 = 18;
export const DROP_RX_VLAN_NOT_CARRIED: u32 = 19;
export const DROP_RX_CORE_TRAP: u32 = 20;
export const DROP_RX_LINK_DOWN: u32 = 21;
export const DROP_RX_LINK_FULL: u32 = 22;
export const DROP_RX_LINK_ERROR: u32 = 23;
export const DROP_RX_SOURCE_UNKNOWN: u32 = 24;
export const DROP_RX_SOURCE_MAC: u32 = 25;
// Out, to targets that are not VALID: by workers,
export const DROP_TX_TARGET_DROP: u32 = 26;
export const DROP_TX_HELD_FULL: u32 = 27;
export const DROP_TX_MISS_RING_FULL: u32 = 28;
export const DROP_TX_WAIT_FULL: u32 = 29;
// and by main.
export const DROP_TX_HELD_FULL_DEVICE: u32 = 30;
export const DROP_TX_HELD_FULL_PROCESS: u32 = 31;
export const DROP_TX_TABLE_FULL: u32 = 32;
export const DROP_TX_REQUESTS_FULL: u32 = 33;
export const DROP_TX_LOOKUP_DROP: u32 = 34;
export const DROP_TX_LOOKUP_TIMEOUT: u32 = 35;
export const DROP_TX_TARGET_REMOVED: u32 = 36;
export const DROP_TX_BOGON: u32 = 37;
export const DROP_RX_INJECT_FAILED: u32 = 38;
export const DROP_TX_WORKER_LOST: u32 = 39;
// In, by what the outer header says.
export const DROP_RX_CONTROL_PACKET: u32 = 40;
export const DROP_RX_NOT_ETHERNET: u32 = 41;
export const DROP_RX_CRITICAL_OPTION: u32 = 42;
/** Congestion was met on the way by a frame whose sender could not be told of it otherwise. */
export const DROP_RX_CONGESTION: u32 = 43;
/** Where a device wants them to be zero. */
export const DROP_RX_RESERVED_BITS: u32 = 44;
// Out, again.
/** Longer than the path to the destination takes, as ICMP has said. */
export const DROP_TX_PATH_MTU: u32 = 45;
// In, again.
/** Led to a socket of this daemon, by which a guest would reach other networks. */
export const DROP_RX_INNER_TO_MUX: u32 = 46;
// Out, again.
/** The device has its share of the miss ring, or of the wait queue, while others may have theirs. */
export const DROP_TX_MISS_SHARE: u32 = 47;
export const DROP_TX_WAIT_SHARE: u32 = 48;
export const DROP_REASONS: u32 = 49;

// ─── Counters of a row: the drops by reason, then these ─────────────────────────────────────────────────
/** Frames read from the TAP, whatever became of them. */
export const COUNTER_TX_READ: u32 = 64;
export const COUNTER_TX_FRAMES: u32 = 65;
/** Bytes of the inner frames, without any outer header; likewise RX_BYTES. */
export const COUNTER_TX_BYTES: u32 = 66;
/** Datagrams read from the underlay (mux row), whatever became of them. */
export const COUNTER_RX_READ: u32 = 67;
export const COUNTER_RX_FRAMES: u32 = 68;
export const COUNTER_RX_BYTES: u32 = 69;
/** Super-frames of a kernel on the same host, handed to the TAP as GSO frames; part of RX_FRAMES. */
export const COUNTER_RX_SUPER_FRAMES: u32 = 70;
/** Sends tried again because an error of an earlier datagram was in the way (ECONNREFUSED and its like). */
export const COUNTER_TX_RETRIES: u32 = 71;
/** Frames that were put aside: on the miss ring or in the wait queue. */
export const COUNTER_TX_DEFERRED: u32 = 72;
/** Frames that came back from there, and those that varpd sent. */
export const COUNTER_TX_RESUMED: u32 = 73;
/** Copies made beyond the first by replication. */
export const COUNTER_TX_COPIES: u32 = 74;
/** Frames that varpd made for the guests of this host. */
export const COUNTER_RX_INJECTED: u32 = 75;
/** Main's: frames that a proxy took and answered. */
export const COUNTER_TX_PROXIED: u32 = 76;
/** Main's: frames that varpd sent, as if a guest had. */
export const COUNTER_TX_RESENT: u32 = 77;
/** Datagrams that the frames sent have become: more than those by the segments of super-frames. */
export const COUNTER_TX_DATAGRAMS: u32 = 78;
/** Messages by which they were handed to the kernel. */
export const COUNTER_TX_MESSAGES: u32 = 79;
/** Messages that the kernel would not cut, so that their datagrams went one by one. */
export const COUNTER_TX_UNCUT: u32 = 80;
/** Super-frames from the link, part of TX_FRAMES. */
export const COUNTER_TX_SUPER_FRAMES: u32 = 81;
/** Frames of super-frames that were joined for the link, part of RX_FRAMES. */
export const COUNTER_RX_JOINED: u32 = 82;
/** Records written to the TAP, part of RX_FRAMES: as many as the frames less those joined. */
export const COUNTER_RX_WRITES: u32 = 83;
/** Messages by which the kernel handed over the datagrams of RX_READ (mux row). */
export const COUNTER_RX_MESSAGES: u32 = 84;
/** Frames that were marked because their outer header was: the sender is told of congestion by them. */
export const COUNTER_RX_MARKED: u32 = 85;
/** Sources that were not reported for learning, since there are many or main is behind: they are when they send again. */
export const COUNTER_RX_LEARN_LIMITED: u32 = 86;
/** Main's: addresses learned, those that were found behind another VTEP, and those that were not learned. */
export const COUNTER_RX_LEARNED: u32 = 87;
export const COUNTER_RX_MOVED: u32 = 93;
export const COUNTER_RX_UNLEARNED: u32 = 94;
/** Main's: senders that were told that their frame was too big, by ICMP. */
export const COUNTER_TX_TOO_BIG_TOLD: u32 = 95;
/** Those that were not, since too many were in that second. */
export const COUNTER_TX_TOO_BIG_UNTOLD: u32 = 96;
/** Messages that the kernel did not take with their flow label, and were sent with one of the kernel's. */
export const COUNTER_TX_UNLABELLED: u32 = 97;
// Worker row only.
export const COUNTER_WAKEUPS: u32 = 88;
export const COUNTER_TX_BATCHES: u32 = 89;
export const COUNTER_RX_BATCHES: u32 = 90;
export const COUNTER_SEND_CALLS: u32 = 91;
export const COUNTER_EVENTS_LOST: u32 = 92;

// ─── Events, worker -> main: {u32 kind, u32 row, u32 a, u32 b} ──────────────────────────────────────────
export const EVENT_BYTES: u32 = 16;
export const EVENT_TX_TRAP: u32 = 1; // row: device, a: bytes of the frame
export const EVENT_RX_TRAP: u32 = 2; // row: mux, a: bytes of the datagram
export const EVENT_TX_UNCUT: u32 = 3; // row: device, a: errno of sendmmsg
export const EVENT_RX_UNTAKEN: u32 = 4; // row: device, a: errno of writev of a super-frame
