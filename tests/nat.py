"""A translator of addresses (NAT) for tests: UDP and TCP over IPv4, between two ends of a tun.

The kinds are the mappings of RFC 4787 §4.1. All filter by address and port (§5), as a firewall
does: a packet from outside comes in only if one went out to its address and port by that mapping.

    python tests/nat.py KIND ADDRESS

makes the device `nat0` and translates what it reads there: packets to ADDRESS come from outside,
all others from inside.
"""

import fcntl
import os
import random
import socket
import struct
import sys
from typing import Literal, get_args

Kind = Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"]

# Most mappings. One more is refused, so that a mistake of a test can't fill the memory.
LIMIT = 10_000
DEVICE = "nat0"
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_INFO = 0x0001 | 0x1000
_CHECKSUMS = {socket.IPPROTO_TCP: 16, socket.IPPROTO_UDP: 6}  # where each has its checksum

Endpoint = tuple[bytes, int]
Key = tuple[int, Endpoint, bytes, int]


class Nat:
    """The mappings of one translator. A test can drive it without a network."""

    def __init__(self, kind: Kind, address: str, seed: int = 0) -> None:
        """Translate to an address outside, by ports in an order that the seed gives."""
        self.kind = kind
        self.address = socket.inet_aton(address)
        ports = list(range(20_000, 60_000))
        random.Random(seed).shuffle(ports)
        self._ports = ports
        self._mapped: dict[Key, int] = {}
        self._inside: dict[tuple[int, int], Endpoint] = {}
        self._allowed: set[tuple[int, int, Endpoint]] = set()

    def translate(self, packet: bytes) -> bytes | None:
        """Return the packet as it goes on, or `None` if it is dropped."""
        head = (packet[0] & 15) * 4
        protocol = packet[9]
        fragment = int.from_bytes(packet[6:8]) & 0x3FFF
        if packet[0] >> 4 != 4 or protocol not in _CHECKSUMS or fragment:
            return None
        ports = struct.unpack_from(">HH", packet, head)
        source, target = (packet[12:16], ports[0]), (packet[16:20], ports[1])
        if target[0] == self.address:
            return self._come_in(packet, protocol, source, target[1])
        return self._go_out(packet, protocol, source, target)

    def _go_out(
        self, packet: bytes, protocol: int, source: Endpoint, target: Endpoint
    ) -> bytes | None:
        address = target[0] if self.kind != "endpoint-independent" else b""
        port = target[1] if self.kind == "address-and-port-dependent" else 0
        key = (protocol, source, address, port)
        if key not in self._mapped:
            if len(self._mapped) >= LIMIT:
                return None
            self._mapped[key] = self._ports.pop()
            self._inside[protocol, self._mapped[key]] = source
        outside = self._mapped[key]
        self._allowed.add((protocol, outside, target))
        return _rewrite(packet, (self.address, outside), target)

    def _come_in(self, packet: bytes, protocol: int, source: Endpoint, port: int) -> bytes | None:
        if (protocol, port, source) not in self._allowed:
            return None
        return _rewrite(packet, source, self._inside[protocol, port])


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071): 0 for data that has its own checksum inside."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total) ^ 0xFFFF


def _rewrite(packet: bytes, source: Endpoint, target: Endpoint) -> bytes:
    head = (packet[0] & 15) * 4
    new = bytearray(packet[: int.from_bytes(packet[2:4])])
    new[12:20] = source[0] + target[0]
    new[10:12] = bytes(2)
    new[10:12] = checksum(bytes(new[:head])).to_bytes(2)
    struct.pack_into(">HH", new, head, source[1], target[1])
    at = head + _CHECKSUMS[new[9]]
    new[at : at + 2] = bytes(2)
    pseudo = bytes(new[12:20]) + struct.pack(">HH", new[9], len(new) - head)
    # For UDP 0 means that there is no checksum.
    new[at : at + 2] = (checksum(pseudo + bytes(new[head:])) or 0xFFFF).to_bytes(2)
    return bytes(new)


def main() -> None:
    """Translate until the process is ended."""
    kinds: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    nat = Nat(kinds[sys.argv[1]], sys.argv[2], seed=os.getpid())
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN_NO_INFO))
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    while True:
        translated = nat.translate(os.read(tun, 65_536))
        if translated is not None:
            os.write(tun, translated)


if __name__ == "__main__":
    main()
