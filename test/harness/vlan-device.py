"""A link on a VLAN of another, as the kernel's VLAN devices are, which not every kernel has: vlan-device.py LINK VLAN NAME. A TAP whose
frames leave by LINK with a tag, and which gets what comes there with that tag, of whoever is spoken to."""
import contextlib
import fcntl
import os
import select
import socket
import struct
import sys

link, vlan, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x2, 0x1000, 0x4000
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 3, 263, 8, 15
TP_STATUS_VLAN_VALID = 0x10
# Of a virtio_net_hdr, and of both addresses.
HEADER, ADDRESSES = 10, 12
BYTES_MAX = 1 << 17

tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
# What the kernel has joined, or has not finished the checksum of, goes on as such.
wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
wire.bind((link, ETH_P_ALL))
print("ready", flush=True)


def is_ours(ancillary):
    """The kernel takes the tag out of the frame and says it beside (struct tpacket_auxdata)."""
    for _, _, data in ancillary:
        status, tag = struct.unpack_from("I12xH", data)
        return status & TP_STATUS_VLAN_VALID and tag & 0xFFF == vlan
    return False


while True:
    ready, _, _ = select.select([tap, wire], [], [])
    if tap in ready:
        frame = os.read(tap, BYTES_MAX)
        at = HEADER + ADDRESSES
        wire.send(frame[:at] + struct.pack("!HH", 0x8100, vlan) + frame[at:])
    if wire in ready:
        frame, ancillary, _, (_, _, kind, *_) = wire.recvmsg(BYTES_MAX, 256)
        if kind != socket.PACKET_OUTGOING and is_ours(ancillary):
            # It cannot take any before it is up.
            with contextlib.suppress(OSError):
                os.write(tap, frame)
