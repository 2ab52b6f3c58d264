/*
 * The ring of records in C, for bench/ring.ts to compare with: the same layout, checks and order of stores. Argument: rounds.
 * Prints a line for each length of record: bytes, nanoseconds for a push and a pop, result.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CAPACITY = 1 << 20, RECORD_HEADER = 8, ALIGN = 8, RUNS = 9, BATCH = 64 };
static const uint32_t WRAP = UINT32_MAX;

static struct {
  _Alignas(64) uint32_t head;
  _Alignas(64) uint32_t tail;
  _Alignas(64) uint32_t capacity;
  _Alignas(64) uint8_t data[CAPACITY];
} ring = {.capacity = CAPACITY};
static uint8_t from[65536], into[65536];

#define READ(what) __atomic_load_n(&(what), __ATOMIC_SEQ_CST)
#define WRITE(what, value) __atomic_store_n(&(what), (value), __ATOMIC_SEQ_CST)

static uint32_t record_bytes(uint32_t length) { return (RECORD_HEADER + length + ALIGN - 1) & ~(ALIGN - 1u); }

static int __attribute__((noinline)) push(const uint8_t *payload, uint32_t length) {
  uint32_t capacity = ring.capacity, record = record_bytes(length);
  if (length >= capacity || record > capacity / 2) abort();
  uint32_t tail = READ(ring.tail), free_bytes = capacity - (tail - READ(ring.head));
  uint32_t at = tail & (capacity - 1), rest = capacity - at, skipped = record > rest ? rest : 0;
  if (skipped + record > free_bytes) return 0;
  if (skipped) {
    memcpy(ring.data + at, &WRAP, 4);
    at = 0;
  }
  memcpy(ring.data + at, &length, 4);
  memcpy(ring.data + at + RECORD_HEADER, payload, length);
  WRITE(ring.tail, tail + skipped + record);
  return 1;
}

static int32_t __attribute__((noinline)) pop(uint8_t *to, uint32_t max) {
  uint32_t capacity = ring.capacity, head = READ(ring.head), tail = READ(ring.tail), length;
  if (head == tail) return -1;
  uint32_t at = head & (capacity - 1);
  memcpy(&length, ring.data + at, 4);
  if (length == WRAP) {
    head += capacity - at;
    at = 0;
    memcpy(&length, ring.data, 4);
  }
  if (length >= capacity || head == tail) abort();
  memcpy(to, ring.data + at + RECORD_HEADER, length < max ? length : max);
  WRITE(ring.head, head + record_bytes(length));
  return (int32_t)length;
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

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  long rounds = atol(argv[1]);
  for (uint32_t i = 0; i < sizeof from; i++) from[i] = (uint8_t)i;
  static const uint32_t lengths[] = {64, 1410, 65536 - 64};
  for (int kind = 0; kind < 3; kind++) {
    uint32_t length = lengths[kind], batch = length > 2000 ? 4 : BATCH;
    double runs[RUNS];
    uint64_t result = 0;
    for (int run = -1; run < RUNS; run++) {
      double begun = now_ns();
      for (long round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < batch; i++) result += (uint64_t)push(from, length);
        for (uint32_t i = 0; i < batch; i++) result += (uint64_t)pop(into, sizeof into);
      }
      if (run >= 0) runs[run] = (now_ns() - begun) / (double)rounds / batch;
    }
    qsort(runs, RUNS, sizeof *runs, by_value);
    printf("%u %.3f %llu\n", length, runs[RUNS / 2], (unsigned long long)(result % 1000000007 + into[length - 1]));
  }
  return 0;
}
