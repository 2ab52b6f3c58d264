/*
 * The core's work per frame in C, for bench/core.ts to compare with: the same tables, rules and
 * hash. Reads a file of frames, prints a line for each measurement: kind, what, nanoseconds a frame, result.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64, RUNS = 9, BANK = 16, SLOTS = 4096, ETHERNET = 14, VLAN = 4 };
/* An odd number of lines for each frame, so that they do not all fall on one cache set. */
enum { SLOT_BYTES = 4160, HEADROOM = 320 };

struct device { uint32_t state, mux, flags, mtu, mode, destination; uint64_t vnetid; };
struct slot { uint64_t vnetid; uint32_t mux; uint32_t device; };
struct iovec64 { uint64_t base, len; };
struct write { int32_t fd; uint32_t offset, length, device, iovecs, frames, first, last; };
/* struct mmsghdr of a 64-bit Linux, and what is made of a received one. */
struct message { uint64_t name, name_bytes, iovecs, iovec_count, control, control_bytes; uint32_t flags, pad, length, pad_2; };
struct datagram { uint32_t offset, length, next, message; };
struct headers { uint32_t l3, l4, protocol, l4_bytes, family; };

static struct device devices[1024];
static struct slot slots[SLOTS];
static uint8_t memory[BATCH * SLOT_BYTES];
static uint8_t sockets[BATCH];
static uint8_t classes[BATCH];
static uint8_t controls[BATCH][128];
static uint32_t class_mask = 3, dscp_class;
static struct iovec64 iovecs[BATCH];
static struct { uint32_t offset, bytes; } frames[BATCH];
static struct write writes[BATCH];
static struct message messages[BATCH];
static struct iovec64 received[BATCH];
static struct datagram datagrams[BATCH];
static uint64_t drops[64];
static uint32_t write_count;
static const uint64_t seed = 0x123456789abcdefULL;
static const uint8_t template_header[8] = {8};
static struct headers at;

#define LOAD(type, from) ({ type value_; memcpy(&value_, (from), sizeof value_); value_; })
#define STORE(type, to, what) \
  do { type value_ = (type)(what); memcpy((to), &value_, sizeof value_); } while (0)

static void parse_ipv4(const uint8_t *frame, uint32_t l3, uint32_t length) {
  const uint8_t *ip = frame + l3;
  if (l3 + 20 > length || ip[0] >> 4 != 4) return;
  uint32_t header = (ip[0] & 15u) << 2, total = __builtin_bswap16(LOAD(uint16_t, ip + 2));
  if (header < 20 || total < header || l3 + total > length) return;
  at.family = 4;
  if (__builtin_bswap16(LOAD(uint16_t, ip + 6)) & 0x3fff) return;
  at.protocol = ip[9];
  at.l4 = l3 + header;
  at.l4_bytes = total - header;
}

static void parse_ipv6(const uint8_t *frame, uint32_t l3, uint32_t length) {
  const uint8_t *ip = frame + l3;
  if (l3 + 40 > length || ip[0] >> 4 != 6) return;
  uint32_t end = l3 + 40 + __builtin_bswap16(LOAD(uint16_t, ip + 4));
  if (end > length) return;
  at.family = 6;
  uint32_t next = ip[6], cursor = l3 + 40;
  for (int i = 0; i < 6; i++) {
    if (next == 6 || next == 17) break;
    if (next == 44) return;
    int options = next == 0 || next == 43 || next == 60;
    if (!options && next != 51) break;
    if (cursor + 8 > end) return;
    uint32_t units = frame[cursor + 1];
    next = frame[cursor];
    cursor += options ? (units + 1) << 3 : (units + 2) << 2;
    if (cursor > end) return;
  }
  at.protocol = next;
  at.l4 = cursor;
  at.l4_bytes = end - cursor;
}

static void parse_any(const uint8_t *frame, uint32_t length) {
  uint32_t l3 = 14;
  uint16_t type = LOAD(uint16_t, frame + 12);
  for (int tags = 0; tags < 2; tags++) {
    if (type != 0x0081 && type != 0xa888) break;
    if (l3 + 4 > length) break;
    type = LOAD(uint16_t, frame + l3 + 2);
    l3 += 4;
  }
  at.l3 = l3;
  at.l4 = 0;
  at.family = 0;
  if (type == 0x0008) parse_ipv4(frame, l3, length);
  else if (type == 0xdd86) parse_ipv6(frame, l3, length);
}

static inline void parse(const uint8_t *frame, uint32_t length) {
  if (LOAD(uint16_t, frame + 12) == 0x0008 && length >= 34) {
    uint32_t total = __builtin_bswap16(LOAD(uint16_t, frame + 16));
    if (frame[14] == 0x45 && !(LOAD(uint16_t, frame + 20) & 0xff3f) && total - 20 <= length - 34) {
      at.l3 = 14;
      at.family = 4;
      at.protocol = frame[23];
      at.l4 = 34;
      at.l4_bytes = total - 20;
      return;
    }
  }
  parse_any(frame, length);
}

#define A 0xbf58476d1ce4e5b9ULL
#define B 0x94d049bb133111ebULL
#define C 0x9e3779b97f4a7c15ULL
#define D 0xd6e8feb86659fd93ULL

static inline uint32_t flow_hash(const uint8_t *frame, uint32_t length) {
  parse(frame, length);
  uint64_t hash = (LOAD(uint64_t, frame) ^ seed) * A + LOAD(uint32_t, frame + 8) * D;
  const uint8_t *ip = frame + at.l3;
  if (at.family == 4) {
    hash += LOAD(uint64_t, ip + 12) * B;
  } else if (at.family == 6) {
    uint64_t source = LOAD(uint64_t, ip + 8) * B + LOAD(uint64_t, ip + 16) * C;
    hash += (source >> 29 | source << 35) + LOAD(uint64_t, ip + 24) * D + LOAD(uint64_t, ip + 32) * A;
  } else {
    hash += LOAD(uint16_t, frame + 12) * B;
  }
  uint32_t protocol = at.protocol;
  if (at.l4 && at.l4_bytes >= 4 && (protocol == 6 || protocol == 17 || protocol == 132 || protocol == 50))
    hash += ((uint64_t)at.protocol << 32 | LOAD(uint32_t, frame + at.l4)) * C;
  hash ^= hash >> 32;
  return (uint32_t)(hash * B >> 32);
}

static int is_tagged(const uint8_t *frame) {
  uint16_t type = LOAD(uint16_t, frame + 12);
  return type == 0x0081 || type == 0xa888;
}

/* Traffic class of the inner IP header. */
static inline uint32_t inner_class(const uint8_t *frame, uint32_t length) {
  uint32_t l3 = 14;
  uint16_t type = LOAD(uint16_t, frame + 12);
  if (type == 0x0008) return length >= 34 && frame[14] >> 4 == 4 ? frame[15] : 0;
  for (int tags = 0; tags < 2 && (type == 0x0081 || type == 0xa888); tags++) {
    if (l3 + 4 > length) return 0;
    type = LOAD(uint16_t, frame + l3 + 2);
    l3 += 4;
  }
  if (type == 0x0008) return l3 + 20 <= length && frame[l3] >> 4 == 4 ? frame[l3 + 1] : 0;
  if (type != 0xdd86 || l3 + 40 > length || frame[l3] >> 4 != 6) return 0;
  return __builtin_bswap16(LOAD(uint16_t, frame + l3)) >> 4 & 0xff;
}

static uint32_t tx_frame(const struct device *device, int i) {
  if (__atomic_load_n(&device->state, __ATOMIC_SEQ_CST) != 2) return 4;
  uint32_t offset = frames[i].offset, bytes = frames[i].bytes;
  if (bytes < 24) return 0;
  uint8_t *frame = memory + offset + 10;
  uint32_t length = bytes - 10;
  if (LOAD(uint16_t, memory + offset)) return 3;
  uint32_t max = __atomic_load_n(&device->mtu, __ATOMIC_SEQ_CST) + ETHERNET + (device->flags & 1 ? VLAN : 0);
  if (length > max) return length <= max + VLAN && is_tagged(frame) ? 2 : 1;
  if (device->mode != 1) return 5;
  uint32_t hash = flow_hash(frame, length);
  classes[i] = (uint8_t)((inner_class(frame, length) & class_mask) | dscp_class);
  memcpy(frame - 8, template_header, 4);
  STORE(uint32_t, frame - 4, __builtin_bswap32((uint32_t)device->vnetid << 8));
  iovecs[i].base = (uint64_t)(uintptr_t)(frame - 8);
  iovecs[i].len = length + 8;
  sockets[i] = (uint8_t)((uint64_t)hash * BANK >> 32);
  return 0x100;
}

static uint64_t __attribute__((noinline)) tx_decide(uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t verdict = tx_frame(&devices[0], (int)i);
    if (verdict == 0x100) continue;
    sockets[i] = 0xff;
    drops[verdict]++;
  }
  return sockets[count - 1];
}

static uint32_t find_device(uint32_t mux, uint64_t vnetid) {
  uint64_t hash = (vnetid ^ seed ^ (uint64_t)mux << 32) * 0x9e3779b97f4a7c15ULL;
  uint32_t slot = (uint32_t)(hash >> 52) & (SLOTS - 1);
  for (int probes = 0; probes < SLOTS; probes++, slot = (slot + 1) & (SLOTS - 1)) {
    uint32_t device = __atomic_load_n(&slots[slot].device, __ATOMIC_SEQ_CST);
    if (!device) return UINT32_MAX;
    if (device != UINT32_MAX && slots[slot].vnetid == vnetid && slots[slot].mux == mux) return device - 1;
  }
  return UINT32_MAX;
}

/* The sum modulo 65535, compared with the field by a multiplication. */
static int is_unfinished(const uint8_t *frame, uint16_t field) {
  const uint8_t *ip = frame + at.l3;
  uint64_t sum = (uint64_t)(at.protocol + at.l4_bytes) << 8;
  if (at.family == 4) sum += (uint64_t)LOAD(uint32_t, ip + 12) + LOAD(uint32_t, ip + 16);
  else for (int i = 8; i < 40; i += 4) sum += LOAD(uint32_t, ip + i);
  return (sum + 65535 - field) * 0xfffefffefffeffffULL <= 0x0001000100010001ULL;
}

static uint32_t unfinished(const uint8_t *frame) {
  if (!at.l4) return 0;
  uint32_t offset;
  if (at.protocol == 6 && at.l4_bytes >= 20) offset = 16;
  else if (at.protocol == 17 && at.l4_bytes >= 8) offset = 6;
  else return 0;
  return is_unfinished(frame, LOAD(uint16_t, frame + at.l4 + offset)) ? offset : 0;
}

static uint64_t last_vnetid;
static uint32_t last_row;

/* Messages into datagrams: each may be several of one size, which a control message says. */
static uint32_t __attribute__((noinline)) rx_unfold(uint32_t count) {
  uint32_t made = 0;
  for (uint32_t i = 0; i < count && made < BATCH; i++) {
    struct message *message = &messages[i];
    uint32_t bytes = message->length, offset = 0, size = 0;
    uint32_t data = (uint32_t)(received[i].base - (uint64_t)(uintptr_t)memory);
    uint32_t flags = message->flags & 0x20 ? i | 0x200 : i;
    uint32_t ecn = 0;
    const uint8_t *control = (const uint8_t *)(uintptr_t)message->control, *end = control + message->control_bytes;
    for (; control + 24 <= end; control += 24) {
      uint64_t key = LOAD(uint64_t, control + 8);
      if (key == (104ULL << 32 | 17)) size = LOAD(uint16_t, control + 16);
      else if (key == 1ULL << 32 || key == (67ULL << 32 | 41)) ecn = control[16];
      else break;
    }
    flags |= ecn << 10 & 0xc00;
    uint32_t step = size ? size : bytes ? bytes : 1;
    do {
      uint32_t left = bytes - offset;
      datagrams[made++] = (struct datagram){data + offset, left < step ? left : step, 0, offset ? flags : flags | 0x100};
      offset += step;
    } while (offset < bytes && made < BATCH);
    message->control_bytes = sizeof controls[i];
  }
  return made;
}

static uint32_t rx_datagram(uint32_t i) {
  struct datagram *entry = &datagrams[i];
  uint8_t *datagram = memory + entry->offset;
  uint32_t bytes = entry->length;
  if (entry->offset + bytes > sizeof memory || entry->message & 0x200) return 13;
  if (bytes < 8) return 12;
  if (!(datagram[0] & 8)) return 14;
  uint64_t vnetid = __builtin_bswap32(LOAD(uint32_t, datagram + 4)) >> 8;
  if (last_row == UINT32_MAX || last_vnetid != vnetid) {
    last_row = find_device(0, vnetid);
    last_vnetid = vnetid;
    if (last_row == UINT32_MAX) return 15;
  }
  uint32_t row = last_row;
  const struct device *device = &devices[row];
  if (__atomic_load_n(&device->state, __ATOMIC_SEQ_CST) != 2) return 16;
  uint8_t *frame = datagram + 8;
  uint32_t length = bytes - 8;
  if (length < 14) return 17;
  if (entry->message & 0xc00) return 43; /* not met here */
  uint32_t max = __atomic_load_n(&device->mtu, __ATOMIC_SEQ_CST) + ETHERNET + (device->flags & 1 ? VLAN : 0);
  if (length > max) return 18;
  memset(frame - 10, 0, 10);
  parse(frame, length);
  uint32_t offset = unfinished(frame);
  if (offset) {
    frame[-10] = 1;
    STORE(uint16_t, frame - 4, at.l4);
    STORE(uint16_t, frame - 2, offset);
  }
  struct write *write = &writes[write_count++];
  entry->offset = (uint32_t)(frame - memory);
  entry->length = length;
  *write = (struct write){7, (uint32_t)(frame - 10 - memory), length + 10, row, 0, 1, i, i};
  return 0x100;
}

static uint64_t __attribute__((noinline)) rx_decide(uint32_t count) {
  write_count = 0;
  last_row = UINT32_MAX;
  count = rx_unfold(count);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t verdict = rx_datagram(i);
    if (verdict != 0x100) drops[verdict]++;
  }
  return write_count;
}

static void __attribute__((noinline)) restore(uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *datagram = memory + i * SLOT_BYTES + HEADROOM;
    STORE(uint32_t, datagram, 8);
    STORE(uint32_t, datagram + 4, 0x00010000);
    __asm__ volatile("" ::: "memory");
  }
}

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double measure(int what, long rounds) {
  double runs[RUNS];
  for (int run = -1; run < RUNS; run++) {
    double begun = now_ns();
    for (long round = 0; round < rounds; round++) {
      if (what == 0) tx_decide(BATCH);
      else restore(BATCH);
      if (what == 1) rx_decide(BATCH);
      __asm__ volatile("" ::: "memory");
    }
    if (run >= 0) runs[run] = (now_ns() - begun) / (double)rounds / BATCH;
  }
  qsort(runs, RUNS, sizeof *runs, by_value);
  return runs[RUNS / 2];
}

/* File: for each kind, 64 times a u32 length and the frame. Arguments: file, rounds, kind names. */
int main(int argc, char **argv) {
  if (argc < 4) return 2;
  FILE *file = fopen(argv[1], "rb");
  if (!file) return 1;
  long rounds = atol(argv[2]);
  devices[0] = (struct device){2, 0, 1, 1500, 1, 0, 1};
  slots[((1 ^ seed) * 0x9e3779b97f4a7c15ULL >> 52) & (SLOTS - 1)] = (struct slot){1, 0, 1};
  for (int kind = 3; kind < argc; kind++) {
    for (uint32_t i = 0; i < BATCH; i++) {
      uint32_t bytes;
      uint8_t *frame = memory + i * SLOT_BYTES + HEADROOM + 8;
      if (fread(&bytes, 4, 1, file) != 1 || bytes > SLOT_BYTES - HEADROOM - 8) return 1;
      memset(frame - 10, 0, 10);
      if (fread(frame, bytes, 1, file) != 1) return 1;
      frames[i].offset = i * SLOT_BYTES + HEADROOM - 2;
      frames[i].bytes = bytes + 10;
      received[i] = (struct iovec64){(uint64_t)(uintptr_t)(frame - 8), 65535};
      messages[i] = (struct message){0, 0, (uint64_t)(uintptr_t)&received[i], 1, (uint64_t)(uintptr_t)controls[i], sizeof controls[i], 0, 0, bytes + 8, 0};
    }
    uint64_t result = 0;
    double encap = measure(0, rounds);
    for (int i = 0; i < BATCH; i++) result = (result * 31 + sockets[i] * 65536 + iovecs[i].len) % 1000000007;
    printf("%s encap %.3f %llu\n", argv[kind], encap, (unsigned long long)result);
    double both = measure(1, rounds), alone = measure(2, rounds);
    restore(BATCH);
    rx_decide(BATCH);
    result = 0;
    for (int i = 0; i < BATCH; i++)
      result = (result * 31 + memory[writes[i].offset] * 65536 + writes[i].length) % 1000000007;
    printf("%s decap %.3f %llu\n", argv[kind], both - alone, (unsigned long long)result);
  }
  return drops[0] != 0;
}
