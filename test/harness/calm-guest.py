"""A guest that asks for one address after the other, and the host that hears it.

calm-guest.py send LINK COUNT INTERVAL_MS    a frame to a new address each time, with the time in it
calm-guest.py receive ADDRESS SINK SECONDS   says READY, then for each frame on ADDRESS port 4789 how many ms it took; SINK is not read
"""
import select
import socket
import struct
import sys
import time

ETHERTYPE = b"\x88\xb5"
VXLAN_AND_ETHERNET_BYTES = 22


def send(link, count, interval_ms):
    guest = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    guest.bind((link, 0))
    for number in range(int(count)):
        to = b"\x02\xc0\x00\x00" + struct.pack(">H", number)
        stamp = struct.pack(">Q", time.monotonic_ns())
        guest.send(to + b"\x02\xc1\x00\x00\x00\x01" + ETHERTYPE + stamp + bytes(40))
        time.sleep(int(interval_ms) / 1000)


def receive(address, sink, seconds):
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind((sink, 4789))
    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    heard.bind((address, 4789))
    print("READY", flush=True)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        if not select.select([heard], [], [], 0.1)[0]:
            continue
        frame = heard.recv(2048)
        stamp = struct.unpack_from(">Q", frame, VXLAN_AND_ETHERNET_BYTES)[0]
        print((time.monotonic_ns() - stamp) / 1e6, flush=True)


{"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
