/*
 * The yardstick for bench/end-to-end.ts: what plain C does with this design and no offloads. One VXLAN peer, one
 * thread, a TAP read and written frame by frame, batches of 64 on the UDP side. Learns nothing, checks little.
 *
 *   native LINK LOCAL_IP REMOTE_IP VNI
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BATCH = 64, HEADER = 8, FRAME = 9216, PORT = 4789, BUFFER_BYTES = 4 << 20 };

struct batch {
  uint8_t bytes[BATCH][HEADER + FRAME];
  struct iovec parts[BATCH];
  struct mmsghdr messages[BATCH];
};

static struct batch out, in;

static void prepare(struct batch *batch) {
  for (int i = 0; i < BATCH; i++) {
    batch->parts[i].iov_base = batch->bytes[i];
    batch->parts[i].iov_len = HEADER + FRAME;
    batch->messages[i].msg_hdr.msg_iov = &batch->parts[i];
    batch->messages[i].msg_hdr.msg_iovlen = 1;
  }
}

static int check(int result, const char *what) {
  if (result >= 0) return result;
  perror(what);
  exit(1);
}

static int open_tap(const char *name) {
  int tap = check(open("/dev/net/tun", O_RDWR | O_NONBLOCK), "/dev/net/tun");
  struct ifreq request = {0};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  check(ioctl(tap, TUNSETIFF, &request), "TUNSETIFF");
  return tap;
}

static int open_udp(const char *local, const char *remote) {
  int udp = check(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), "socket");
  int bytes = BUFFER_BYTES;
  check(setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes), "SO_RCVBUFFORCE");
  check(setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes), "SO_SNDBUFFORCE");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  inet_pton(AF_INET, local, &address.sin_addr);
  check(bind(udp, (struct sockaddr *)&address, sizeof address), "bind");
  inet_pton(AF_INET, remote, &address.sin_addr);
  check(connect(udp, (struct sockaddr *)&address, sizeof address), "connect");
  return udp;
}

static void transmit(int tap, int udp, uint32_t vni) {
  int count = 0;
  while (count < BATCH) {
    ssize_t length = read(tap, out.bytes[count] + HEADER, FRAME);
    if (length <= 0) break;
    uint32_t words[2] = {htonl(0x08000000), htonl(vni << 8)};
    memcpy(out.bytes[count], words, HEADER);
    out.parts[count++].iov_len = HEADER + length;
  }
  for (int sent = 0; sent < count;) {
    int done = sendmmsg(udp, out.messages + sent, count - sent, 0);
    sent += done > 0 ? done : 1;
  }
}

static void receive(int tap, int udp, uint32_t vni) {
  int count = recvmmsg(udp, in.messages, BATCH, MSG_DONTWAIT, NULL);
  for (int i = 0; i < count; i++) {
    uint32_t words[2];
    memcpy(words, in.bytes[i], HEADER);
    if (in.messages[i].msg_len < HEADER + 14 || ntohl(words[1]) >> 8 != vni) continue;
    if (write(tap, in.bytes[i] + HEADER, in.messages[i].msg_len - HEADER) < 0) continue;
  }
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  prepare(&out);
  prepare(&in);
  int tap = open_tap(argv[1]);
  int udp = open_udp(argv[2], argv[3]);
  uint32_t vni = strtoul(argv[4], NULL, 10);
  struct pollfd ready[2] = {{.fd = tap, .events = POLLIN}, {.fd = udp, .events = POLLIN}};
  for (;;) {
    poll(ready, 2, -1);
    if (ready[0].revents) transmit(tap, udp, vni);
    if (ready[1].revents) receive(tap, udp, vni);
  }
}
