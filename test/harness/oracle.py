"""Makes datagrams of an encapsulation with scapy, every other with reserved bits set at random: oracle.py NAME COUNT SEED. Records on
standard output, in network order: vnetid, length of the frame, length of the datagram (u32 each), the frame, the datagram."""
import random
import struct
import sys

from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)


def mac():
    return "02:%02x:%02x:%02x:%02x:%02x" % tuple(draw.randrange(256) for _ in range(5))


def payload():
    return Raw(draw.randbytes(draw.randrange(1, 1400)))


def inner():
    ether = Ether(dst=mac(), src=mac())
    ip4 = IP(src="198.51.100.1", dst="198.51.100.2")
    ip6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
    tag = Dot1Q(vlan=draw.randrange(1, 4095))
    kinds = [
        lambda: ether / ip4 / TCP(sport=draw.randrange(65536)) / payload(),
        lambda: ether / ip4 / UDP(sport=draw.randrange(65536)) / payload(),
        lambda: ether / ip4 / ICMP() / payload(),
        lambda: ether / ip6 / UDP() / payload(),
        lambda: ether / ip6 / TCP() / payload(),
        lambda: Ether(dst="ff:ff:ff:ff:ff:ff", src=mac()) / ARP(psrc="198.51.100.1", pdst="198.51.100.2"),
        lambda: Ether(dst=mac(), src=mac(), type=0x88B5) / payload(),
    ]
    if not name.startswith("nvgre"):
        kinds.append(lambda: ether / tag / ip4 / UDP() / payload())
        kinds.append(lambda: ether / Dot1Q(vlan=7) / tag / ip6 / UDP() / payload())
    return bytes(draw.choice(kinds)())


# Few of them, so that there are not more vnetids than devices.
vnetids = [draw.randrange(0x1000, 0xFFFFFF) for _ in range(500)]
# Building is slow: each frame goes into several datagrams.
frames = [inner() for _ in range(1000)]


def option(spare):
    return GeneveOptions(
        classid=draw.randrange(65536),
        type=draw.randrange(128),
        reserved=spare(3),
        data=draw.randbytes(4 * draw.randrange(8)),
    )


def header(vnetid, spare):
    """The outer header. @param spare gives a field of reserved bits, of a number of them"""
    if name == "vxlan":
        return VXLAN(vni=vnetid, flags="Instance", reserved1=spare(24), reserved2=spare(8))
    if name == "vxlan-gpe":
        flags = "Instance+NextProtocol"
        return VXLAN(vni=vnetid, flags=flags, NextProtocol=3, reserved0=spare(16), reserved2=spare(8))
    if name == "geneve":
        options = [option(spare) for _ in range(draw.randrange(4))]
        # Said by us: scapy 2.5 masks what it works out with 0x2f, where six bits are meant.
        words = sum(len(bytes(each)) for each in options) // 4
        more = {"reserved": spare(6), "reserved2": spare(8)}
        return GENEVE(vni=vnetid, proto=0x6558, optionlen=words, options=options, **more)
    key = vnetid << 8 | draw.randrange(256)
    # Of the bits for the control of recursion the highest is not among those that are ignored (RFC 2784 section 2.3).
    return GRE(key_present=1, key=key, proto=0x6558, recursion_control=spare(2), flags=spare(5))


def datagram(vnetid, frame, spare):
    made = bytes(header(vnetid, spare)) + frame
    if name != "nvgre over IPv4":
        return made
    outer = IP(src="192.0.2.1", dst="192.0.2.2", proto=47, tos=draw.randrange(64) << 2, len=20 + len(made))
    return bytes(outer) + made


for number in range(count):
    vnetid, frame = draw.choice(vnetids), frames[number % len(frames)]
    made = datagram(vnetid, frame, draw.getrandbits if number & 1 else lambda bits: 0)
    sys.stdout.buffer.write(struct.pack(">III", vnetid, len(frame), len(made)) + frame + made)
