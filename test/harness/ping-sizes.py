"""Pings with payloads of all sizes: ping-sizes.py ADDRESS MOST [SIZE ...] sends those from 0 to MOST, then the others. Each answer
has to bring back what was sent. Prints the sizes that were not answered."""
import os
import socket
import struct
import sys
import time

address, most, *more = sys.argv[1], *map(int, sys.argv[2:])
sizes = [*range(most + 1), *more]
# So few that nothing on the way has to hold more than it can.
AT_ONCE = 8
SECONDS_MAX = 2
ECHO_REPLY, ECHO = 0, 8
identifier = os.getpid() & 0xFFFF
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def checksum(data):
    data += bytes(len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def message(kind, number):
    rest = struct.pack("!HH", identifier, number) + bytes((number + at) & 0xFF for at in range(sizes[number]))
    return struct.pack("!BBH", kind, 0, checksum(struct.pack("!BBH", kind, 0, 0) + rest)) + rest


unanswered = []
for first in range(0, len(sizes), AT_ONCE):
    numbers = range(first, min(first + AT_ONCE, len(sizes)))
    awaited = {message(ECHO_REPLY, number): sizes[number] for number in numbers}
    for number in numbers:
        link.sendto(message(ECHO, number), (address, 0))
    deadline = time.monotonic() + SECONDS_MAX
    while awaited and (left := deadline - time.monotonic()) > 0:
        link.settimeout(left)
        try:
            # Behind the IP header.
            awaited.pop(link.recv(65535)[20:], None)
        except TimeoutError:
            break
    unanswered += awaited.values()
print(*unanswered)
