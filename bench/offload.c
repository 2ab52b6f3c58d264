/*
 * The work of the core's offloads in C, for bench/offload.ts to compare with: the same rules over the same frames. Reads a
 * file of three parts, each a u32 count and then a u32 length and the bytes of each: bytes to sum, a super-frame, frames to
 * join. Prints a line for each measurement: what, nanoseconds a unit, result.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 9, BATCH = 64, SLOT_BYTES = 4160, HEADROOM = 64, VXLAN = 8, L3 = 14, L4 = 34, HEADERS = 54, FLOWS = 256 };

#define LOAD(type, from) ({ type value_; memcpy(&value_, (from), sizeof value_); value_; })
#define STORE(type, to, what) \
  do { type value_ = (type)(what); memcpy((to), &value_, sizeof value_); } while (0)

struct iovec64 { uint64_t base, len; };

static uint8_t bytes[65536], super[65600], memory[BATCH * SLOT_BYTES], scratch[65536];
static uint32_t super_bytes, lengths[BATCH], frame_count;
static struct iovec64 iovecs[1024];
static uint32_t iovec_count;

static inline uint64_t sum_bytes(const uint8_t *from, uint32_t length) {
  uint32_t sum = 0;
  uint32_t i = 0;
  for (; i + 2 <= length; i += 2) sum += LOAD(uint16_t, from + i);
  return (uint64_t)sum + (i < length ? from[i] : 0);
}

static inline uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static uint64_t __attribute__((noinline)) checksum(uint32_t length) { return fold(sum_bytes(bytes, length)); }

static void put(const uint8_t *base, uint64_t length) {
  iovecs[iovec_count++] = (struct iovec64){(uint64_t)(uintptr_t)base, length};
}

/* Cuts the super-frame into segments of `size` bytes of payload, each behind a VXLAN header. Returns how many. */
static uint64_t __attribute__((noinline)) segment(uint32_t size) {
  uint32_t payload = super_bytes - HEADERS, count = (payload + size - 1) / size;
  const uint8_t *ip = super + L3, *tcp = super + L4;
  uint64_t network = sum_bytes(ip, 20) - LOAD(uint16_t, ip + 2) - LOAD(uint16_t, ip + 4) - LOAD(uint16_t, ip + 10);
  uint64_t transport = sum_bytes(tcp, 20) + (uint16_t)(0xffff - __builtin_bswap16((uint16_t)(payload + 20)));
  transport -= (uint64_t)LOAD(uint16_t, tcp + 4) + LOAD(uint16_t, tcp + 6) + LOAD(uint16_t, tcp + 12);
  uint32_t id = __builtin_bswap16(LOAD(uint16_t, ip + 4)), sequence = __builtin_bswap32(LOAD(uint32_t, tcp + 4));
  iovec_count = 0;
  uint8_t *into = scratch;
  for (uint32_t k = 0; k < count; k++, into += 64) {
    uint32_t part = payload - k * size < size ? payload - k * size : size;
    const uint8_t *data = super + HEADERS + k * size;
    STORE(uint32_t, into, 8);
    STORE(uint32_t, into + 4, 0x00010000);
    uint8_t *frame = into + VXLAN;
    memcpy(frame, super, HEADERS);
    uint16_t total = __builtin_bswap16((uint16_t)(40 + part)), number = __builtin_bswap16((uint16_t)(id + k));
    STORE(uint16_t, frame + L3 + 2, total);
    STORE(uint16_t, frame + L3 + 4, number);
    STORE(uint16_t, frame + L3 + 10, ~fold(network + total + number));
    uint8_t flags = tcp[13];
    if (k + 1 < count) flags &= 0xf6;
    if (k) flags &= 0x7f;
    frame[L4 + 13] = flags;
    uint32_t next = __builtin_bswap32(sequence + k * size);
    STORE(uint32_t, frame + L4 + 4, next);
    uint64_t sum = transport + __builtin_bswap16((uint16_t)(part + 20)) + sum_bytes(data, part) + (next & 0xffff) +
                   (next >> 16) + LOAD(uint16_t, frame + L4 + 12);
    STORE(uint16_t, frame + L4 + 16, ~fold(sum));
    put(into, VXLAN + HEADERS);
    put(data, part);
  }
  return count;
}

struct open { uint32_t stamp, first, last, next_sequence, next_id, segment, total, parts; };
static struct open flows[FLOWS];
static uint32_t stamp, next[BATCH], begun[BATCH], begun_count;
static struct open closed[BATCH];

static inline uint32_t flow_hash(const uint8_t *frame) {
  uint64_t hash = LOAD(uint64_t, frame) * 0xbf58476d1ce4e5b9ULL + LOAD(uint32_t, frame + 8) * 0xd6e8feb86659fd93ULL;
  hash += LOAD(uint64_t, frame + L3 + 12) * 0x94d049bb133111ebULL;
  hash += ((uint64_t)6 << 32 | LOAD(uint32_t, frame + L4)) * 0x9e3779b97f4a7c15ULL;
  hash ^= hash >> 32;
  return (uint32_t)(hash * 0x94d049bb133111ebULL >> 32);
}

/* A TCP segment without options that fills its packet, with right checksums. */
static inline int is_part(const uint8_t *frame, uint32_t length) {
  if (LOAD(uint16_t, frame + 12) != 0x0008 || frame[L3] != 0x45 || frame[L3 + 9] != 6) return 0;
  if (LOAD(uint16_t, frame + L3 + 6) & 0xff3f) return 0;
  if (L3 + __builtin_bswap16(LOAD(uint16_t, frame + L3 + 2)) != length || frame[L4 + 12] != 0x50) return 0;
  if ((frame[L4 + 13] & 0xb7) != 0x10 || length <= HEADERS) return 0;
  if (fold(sum_bytes(frame + L3, 20)) != 0xffff) return 0;
  uint64_t sum = (6u << 8) + __builtin_bswap16((uint16_t)(length - L4)) + sum_bytes(frame + L3 + 12, 8);
  return fold(sum + sum_bytes(frame + L4, length - L4)) == 0xffff;
}

static int follows(const struct open *flow, const uint8_t *first, const uint8_t *frame, uint32_t payload) {
  return payload <= flow->segment && flow->total + payload <= 65535 &&
         LOAD(uint64_t, first) == LOAD(uint64_t, frame) && LOAD(uint64_t, first + 6) == LOAD(uint64_t, frame + 6) &&
         LOAD(uint16_t, first + L3) == LOAD(uint16_t, frame + L3) &&
         LOAD(uint32_t, first + L3 + 6) == LOAD(uint32_t, frame + L3 + 6) &&
         LOAD(uint64_t, first + L3 + 12) == LOAD(uint64_t, frame + L3 + 12) &&
         flow->next_id == __builtin_bswap16(LOAD(uint16_t, frame + L3 + 4)) &&
         LOAD(uint32_t, first + L4) == LOAD(uint32_t, frame + L4) &&
         flow->next_sequence == __builtin_bswap32(LOAD(uint32_t, frame + L4 + 4)) &&
         LOAD(uint32_t, first + L4 + 8) == LOAD(uint32_t, frame + L4 + 8) &&
         !((first[L4 + 13] ^ frame[L4 + 13]) & 0x40) && LOAD(uint16_t, first + L4 + 14) == LOAD(uint16_t, frame + L4 + 14) &&
         LOAD(uint16_t, first + L4 + 18) == LOAD(uint16_t, frame + L4 + 18);
}

/* Joins the batch; returns how many records there are, whose iovecs are in `iovecs`. */
static uint64_t __attribute__((noinline)) coalesce(void) {
  stamp++;
  begun_count = 0;
  iovec_count = 0;
  for (uint32_t i = 0; i < frame_count; i++) {
    uint8_t *datagram = memory + i * SLOT_BYTES + HEADROOM, *frame = datagram + VXLAN;
    uint32_t length = lengths[i], payload = length - HEADERS;
    if (!(datagram[0] & 8) || LOAD(uint32_t, datagram + 4) != 0x00010000 || !is_part(frame, length)) continue;
    struct open *flow = &flows[flow_hash(frame) & (FLOWS - 1)];
    uint8_t *first = memory + flow->first * SLOT_BYTES + HEADROOM + VXLAN;
    if (flow->stamp == stamp && follows(flow, first, frame, payload)) {
      next[flow->last] = i;
      flow->last = i;
      flow->next_sequence += payload;
      flow->next_id = (flow->next_id + 1) & 0xffff;
      flow->total += payload;
      flow->parts++;
      if (frame[L4 + 13] & 8) first[L4 + 13] |= 8, flow->stamp = 0;
      closed[flow->first] = *flow;
      continue;
    }
    *flow = (struct open){frame[L4 + 13] & 8 ? 0 : stamp, i, i,
                          __builtin_bswap32(LOAD(uint32_t, frame + L4 + 4)) + payload,
                          (__builtin_bswap16(LOAD(uint16_t, frame + L3 + 4)) + 1u) & 0xffff, payload, length, 1};
    closed[i] = *flow;
    begun[begun_count++] = i;
  }
  for (uint32_t r = 0; r < begun_count; r++) {
    uint32_t i = begun[r];
    const struct open *flow = &closed[i];
    uint8_t *frame = memory + i * SLOT_BYTES + HEADROOM + VXLAN;
    memset(frame - 10, 0, 10);
    put(frame - 10, 10 + lengths[i]);
    if (flow->parts == 1) continue;
    STORE(uint16_t, frame + L3 + 2, __builtin_bswap16((uint16_t)(flow->total - L3)));
    STORE(uint16_t, frame + L3 + 10, 0);
    STORE(uint16_t, frame + L3 + 10, ~fold(sum_bytes(frame + L3, 20)));
    STORE(uint16_t, frame + L4 + 16, fold(((uint64_t)(6 + flow->total - L4) << 8) + sum_bytes(frame + L3 + 12, 8)));
    frame[-10] = 1;
    frame[-9] = 1;
    STORE(uint16_t, frame - 8, HEADERS);
    STORE(uint16_t, frame - 6, lengths[i] - HEADERS);
    STORE(uint16_t, frame - 4, L4);
    STORE(uint16_t, frame - 2, 16);
    for (uint32_t part = 1, j = i; part < flow->parts; part++) {
      j = next[j];
      put(memory + j * SLOT_BYTES + HEADROOM + VXLAN + HEADERS, lengths[j] - HEADERS);
    }
  }
  return begun_count;
}

static uint8_t saved[BATCH * 128];

static void __attribute__((noinline)) restore(void) {
  for (uint32_t i = 0; i < frame_count; i++) memcpy(memory + i * SLOT_BYTES + HEADROOM, saved + i * 128, 128);
  __asm__ volatile("" ::: "memory");
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

static double measure(uint64_t (*work)(uint32_t), uint32_t with, long rounds) {
  double runs[RUNS];
  for (int run = -1; run < RUNS; run++) {
    double begun_ns = now_ns();
    for (long round = 0; round < rounds; round++) {
      work(with);
      __asm__ volatile("" ::: "memory");
    }
    if (run >= 0) runs[run] = (now_ns() - begun_ns) / (double)rounds;
  }
  qsort(runs, RUNS, sizeof *runs, by_value);
  return runs[RUNS / 2];
}

static uint64_t both(uint32_t unused) { (void)unused; restore(); return coalesce(); }
static uint64_t alone(uint32_t unused) { (void)unused; restore(); return 0; }

static uint32_t read_one(FILE *file, uint8_t *into) {
  uint32_t length;
  if (fread(&length, 4, 1, file) != 1 || fread(into, length, 1, file) != 1) exit(1);
  return length;
}

/* Arguments: file, rounds, payload bytes of a segment, names of the kinds to join. */
int main(int argc, char **argv) {
  if (argc < 5) return 2;
  FILE *file = fopen(argv[1], "rb");
  if (!file) return 1;
  long rounds = atol(argv[2]);
  uint32_t size = (uint32_t)atol(argv[3]);
  read_one(file, bytes);
  static const uint32_t sizes[] = {1400, 65536};
  for (int i = 0; i < 2; i++) {
    double ns = measure(checksum, sizes[i], sizes[i] > 2000 ? rounds / 16 + 1 : rounds);
    printf("checksum-%u %.3f %llu\n", sizes[i], ns, (unsigned long long)checksum(sizes[i]));
  }
  super_bytes = read_one(file, super);
  double ns = measure(segment, size, rounds / 16 + 1);
  uint64_t count = segment(size), result = count;
  for (uint64_t k = 0; k < count; k++) result = (result * 31 + LOAD(uint16_t, scratch + k * 64 + VXLAN + L4 + 16)) % 1000000007;
  printf("segment %.3f %llu\n", ns / (double)count, (unsigned long long)result);
  for (int kind = 4; kind < argc; kind++) {
    frame_count = BATCH;
    for (uint32_t i = 0; i < BATCH; i++) {
      uint8_t *datagram = memory + i * SLOT_BYTES + HEADROOM;
      STORE(uint32_t, datagram, 8);
      STORE(uint32_t, datagram + 4, 0x00010000);
      lengths[i] = read_one(file, datagram + VXLAN);
      memcpy(saved + i * 128, datagram, 128);
    }
    double with = measure(both, 0, rounds), without = measure(alone, 0, rounds);
    restore();
    result = coalesce();
    for (uint32_t k = 0; k < iovec_count; k++) result = (result * 31 + iovecs[k].len) % 1000000007;
    printf("%s %.3f %llu\n", argv[kind], (with - without) / BATCH, (unsigned long long)result);
  }
  return 0;
}
