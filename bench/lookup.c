/*
 * The target table in C, for bench/lookup.ts to compare with: the same slots, hash, probing and batches, with the pass
 * that reads all lines first, and a thread that writes. Reads a dump of the table and of the keys, and prints a line
 * for each measurement: kind, nanoseconds a frame, result.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BATCH = 32, CHUNK = 256, PROBES_MAX = 128, LINE_SLOTS = 4, FRAME_BYTES = 1000 };
enum { WRITES_PER_SECOND = 100000, WRITES_MAX = 1000, PAUSE_NS = 1000000 };

struct header {
  uint32_t slots, ids, columns, shift;
  uint64_t multiplier, seed;
  uint64_t unused[4];
};
struct slot { uint64_t key, entry; };
struct column { uint64_t frames, bytes; uint32_t last_use, unused[3]; };

static struct header *table;
static struct slot *slots;
static struct column *columns;
static uint64_t *hits, *misses;
static uint32_t keys;
static long chunks;
static int is_done;

/* What an arena has for a batch. */
static uint64_t scratch_keys[BATCH];
static uint32_t scratch_slots[BATCH];
static uint64_t scratch_entries[BATCH];
static uint32_t now_seconds = 1;

static inline uint32_t slot_of(uint64_t key, uint64_t seed, uint64_t multiplier, uint32_t shift) {
  uint64_t hash = (key ^ seed) * multiplier;
  return (uint32_t)(((hash ^ hash >> 32) * 0xbf58476d1ce4e5b9ULL) >> shift);
}

/* Entry of a key in a line, or 0, without a branch on what is there; whether a slot of the line was never used. */
static inline uint64_t find_in_line(const struct slot *line, uint64_t key, int *is_end) {
  uint64_t found = 0;
  int end = 0;
  for (int i = 0; i < LINE_SLOTS; i++) {
    uint64_t there = __atomic_load_n(&line[i].key, __ATOMIC_ACQUIRE);
    uint64_t entry = __atomic_load_n(&line[i].entry, __ATOMIC_ACQUIRE);
    found |= entry & -(uint64_t)(there == key);
    end |= there == 0;
  }
  *is_end = end;
  return found;
}

static void __attribute__((noinline)) lookup(uint32_t count) {
  uint64_t seed = table->seed, multiplier = table->multiplier;
  uint32_t shift = table->shift, mask = table->slots - 1, left = 0, further[BATCH];
  for (uint32_t i = 0; i < count; i++)
    scratch_slots[i] = slot_of(scratch_keys[i], seed, multiplier, shift) & ~(LINE_SLOTS - 1u);
  for (uint32_t i = 0; i < count; i++) {
    uint64_t there = __atomic_load_n(&slots[scratch_slots[i]].key, __ATOMIC_ACQUIRE);
    __asm__ volatile("" : : "r"(there));
  }
  for (uint32_t i = 0; i < count; i++) {
    int is_end;
    scratch_entries[i] = find_in_line(slots + scratch_slots[i], scratch_keys[i], &is_end);
    further[left] = i;
    left += !scratch_entries[i] & !is_end;
  }
  for (uint32_t probes = LINE_SLOTS; left && probes < PROBES_MAX; probes += LINE_SLOTS) {
    uint32_t searched = left;
    left = 0;
    for (uint32_t k = 0; k < searched; k++) {
      uint32_t i = further[k];
      int is_end;
      scratch_entries[i] = find_in_line(slots + ((scratch_slots[i] + probes) & mask), scratch_keys[i], &is_end);
      further[left] = i;
      left += !scratch_entries[i] & !is_end;
    }
  }
}

static inline uint32_t id_of(uint64_t entry) { return (uint32_t)(entry >> 20) & 0xfffff; }

static void __attribute__((noinline)) count_entries(uint32_t count, uint32_t bytes) {
  uint32_t known = 0, ids[BATCH];
  for (uint32_t i = 0; i < count; i++) {
    uint32_t id = id_of(scratch_entries[i]);
    if (!scratch_entries[i] || id >= table->ids) continue;
    uint64_t frames = __atomic_load_n(&columns[id].frames, __ATOMIC_RELAXED);
    __asm__ volatile("" : : "r"(frames));
    ids[known++] = id;
  }
  for (uint32_t i = 0; i < known; i++) {
    /* One writer: relaxed is enough for a reader to see whole words. */
    struct column *at = &columns[ids[i]];
    __atomic_store_n(&at->frames, __atomic_load_n(&at->frames, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&at->bytes, __atomic_load_n(&at->bytes, __ATOMIC_RELAXED) + bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&at->last_use, now_seconds, __ATOMIC_RELAXED);
  }
}

static void __attribute__((noinline)) take_keys(const uint64_t *from) {
  memcpy(scratch_keys, from, sizeof scratch_keys);
  __asm__ volatile("" ::: "memory");
}

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Changes entries in random order, as main does it: one store each. */
static void *write_entries(void *unused) {
  uint32_t random = 1, mask = table->slots - 1;
  uint64_t generation = 0;
  double due_ns = now_ns();
  while (!__atomic_load_n(&is_done, __ATOMIC_RELAXED)) {
    double now = now_ns();
    for (int writes = 0; due_ns < now && writes < WRITES_MAX; writes++, due_ns += 1e9 / WRITES_PER_SECOND) {
      random ^= random << 13, random ^= random >> 17, random ^= random << 5;
      uint64_t key = hits[random % keys];
      uint32_t first = slot_of(key, table->seed, table->multiplier, table->shift), slot = first;
      for (uint32_t probes = 1; slots[slot].key != key; probes++)
        slot = ((first & ~3u) + (probes & ~3u) + ((first + probes) & 3)) & mask;
      uint64_t entry = (slots[slot].entry & 0xffffffffffffULL) | (++generation & 0xffff) << 48;
      __atomic_store_n(&slots[slot].entry, entry, __ATOMIC_SEQ_CST);
    }
    if (due_ns < now) due_ns = now;
    nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
  }
  return unused;
}

static void *room(size_t bytes) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) exit(1);
  /* As the core's memory is: pages of 2 MiB where the kernel has them. */
  madvise(at, bytes, MADV_HUGEPAGE);
  return at;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum step { COPY, LOOKUP, COUNT };

/* Median over the chunks: what else runs on the machine disturbs a few of them. The first run is for the caches. */
static double measure(const uint64_t *from, enum step step) {
  double *times = room(sizeof *times * (size_t)chunks);
  uint32_t at = 0;
  for (int run = 0; run < 2; run++) {
    for (long chunk = 0; chunk < chunks; chunk++) {
      double begun = now_ns();
      for (int batch = 0; batch < CHUNK; batch++) {
        take_keys(from + at);
        if (step != COPY) lookup(BATCH);
        if (step == COUNT) count_entries(BATCH, FRAME_BYTES);
        at = at + BATCH < keys ? at + BATCH : 0;
      }
      times[chunk] = (now_ns() - begun) / CHUNK / BATCH;
    }
  }
  qsort(times, (size_t)chunks, sizeof *times, by_value);
  return times[chunks / 2];
}

/* Of all entries found, what the writer does not change. */
static uint64_t result_of(const uint64_t *from) {
  uint64_t result = 0;
  for (uint32_t at = 0; at < keys; at += BATCH) {
    take_keys(from + at);
    lookup(BATCH);
    for (int i = 0; i < BATCH; i++)
      if (scratch_entries[i]) result = (result * 31 + id_of(scratch_entries[i]) + 1) % 1000000007;
  }
  return result;
}

static void report(const char *kind, const uint64_t *from) {
  uint64_t result = result_of(from);
  double copy = measure(from, COPY);
  double found = measure(from, LOOKUP) - copy, counted = measure(from, COUNT) - copy;
  printf("%s-lookup %.3f %llu\n", kind, found, (unsigned long long)result);
  printf("%s-count %.3f %llu\n", kind, counted, (unsigned long long)result);
}

static uint64_t *read_keys(FILE *file) {
  uint64_t *into = room(keys * sizeof *into);
  if (fread(into, sizeof *into, keys, file) != keys) exit(1);
  return into;
}

/* File: the table, the keys that are in it, and as many that are not. Arguments: file, keys of each, chunks of a run. */
int main(int argc, char **argv) {
  if (argc != 4) return 2;
  FILE *file = fopen(argv[1], "rb");
  keys = (uint32_t)atol(argv[2]);
  chunks = atol(argv[3]);
  if (!file || keys % BATCH || chunks < 1) return 1;
  struct header header;
  if (fread(&header, sizeof header, 1, file) != 1) return 1;
  table = room(sizeof header + header.slots * sizeof *slots);
  *table = header;
  slots = (struct slot *)(table + 1);
  if (fread(slots, sizeof *slots, header.slots, file) != header.slots) return 1;
  hits = read_keys(file);
  misses = read_keys(file);
  columns = room(header.ids * sizeof *columns);
  memset(columns, 0, header.ids * sizeof *columns);
  pthread_t writer;
  if (pthread_create(&writer, NULL, write_entries, NULL)) return 1;
  report("hit", hits);
  report("miss", misses);
  __atomic_store_n(&is_done, 1, __ATOMIC_RELAXED);
  return pthread_join(writer, NULL);
}
