// mac-storm LINK FRAMES SECONDS: sends frames on a link, each to another address and from another, evenly over the time.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define FRAME_BYTES 60
#define BURST 16

// An odd factor: no two numbers below 2^40 give the same address.
static void address(unsigned char *at, uint64_t number, uint64_t factor) {
  uint64_t bits = (number + 1) * factor;
  at[0] = 2;
  memcpy(at + 1, &bits, 5);
}

int main(int count, char **words) {
  if (count != 4) return 2;
  long frames = atol(words[2]);
  double seconds = atof(words[3]);
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[1])};
  if (fd < 0 || name.sll_ifindex == 0 || bind(fd, (void *)&name, sizeof name) != 0) {
    perror(words[1]);
    return 1;
  }
  unsigned char frame[FRAME_BYTES] = {[12] = 0x88, [13] = 0xb5};
  struct timespec begun;
  clock_gettime(CLOCK_MONOTONIC, &begun);
  long failed = 0;
  for (long sent = 0; sent < frames; sent++) {
    address(frame, sent, 0x9e3779b97f4a7c15u);
    address(frame + 6, sent, 0xc2b2ae3d27d4eb4fu);
    if (send(fd, frame, sizeof frame, 0) != sizeof frame) failed++;
    if (sent % BURST != 0) continue;
    uint64_t due = begun.tv_sec * 1000000000ull + begun.tv_nsec + (uint64_t)(seconds * 1e9 * sent / frames);
    struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
  }
  printf("%ld\n", frames - failed);
  return 0;
}
