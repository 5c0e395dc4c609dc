"""The translator that the tests of NATs use: its kinds differ as RFC 4787 says."""

import socket
import struct

import nat
import pytest

INSIDE = ("192.168.1.2", 4433)
NAT = "203.0.113.1"
ONE, SAME_HOST, OTHER = ("198.51.100.1", 7), ("198.51.100.1", 8), ("198.51.100.2", 7)
Place = tuple[str, int]
ALL: tuple[nat.Kind, ...] = (
    "endpoint-independent",
    "address-dependent",
    "address-and-port-dependent",
)


def datagram(source: Place, target: Place, data: bytes = b"hello") -> bytes:
    body = struct.pack(">HHHH", source[1], target[1], 8 + len(data), 0) + data
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    pseudo = addresses + struct.pack(">HH", 17, len(body))
    body = body[:6] + nat.checksum(pseudo + body).to_bytes(2) + body[8:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0) + addresses
    return head[:10] + nat.checksum(head).to_bytes(2) + head[12:] + body


def ends(packet: bytes | None) -> tuple[Place, Place]:
    """Read the two ends of a packet, and check its checksums."""
    assert packet is not None
    assert nat.checksum(packet[:20]) == 0
    pseudo = packet[12:20] + struct.pack(">HH", packet[9], len(packet) - 20)
    assert nat.checksum(pseudo + packet[20:]) == 0
    source, target = struct.unpack_from(">HH", packet, 20)
    return (socket.inet_ntoa(packet[12:16]), source), (socket.inet_ntoa(packet[16:20]), target)


def sent(made: nat.Nat, target: Place) -> int:
    """Send a datagram out; return the port at which it left."""
    source, seen = ends(made.translate(datagram(INSIDE, target)))
    assert (source[0], seen) == (NAT, target)
    return source[1]


@pytest.mark.parametrize(
    ("kind", "same"),
    [(ALL[0], [True, True]), (ALL[1], [True, False]), (ALL[2], [False, False])],
)
def test_the_port_outside_depends_on_what_the_kind_says(kind: nat.Kind, same: list[bool]) -> None:
    made = nat.Nat(kind, NAT)
    port = sent(made, ONE)
    assert [sent(made, target) == port for target in (SAME_HOST, OTHER)] == same
    assert sent(made, ONE) == port


@pytest.mark.parametrize("kind", ALL)
def test_only_those_are_let_in_to_whom_something_went_out(kind: nat.Kind) -> None:
    made = nat.Nat(kind, NAT)
    port = sent(made, ONE)
    assert ends(made.translate(datagram(ONE, (NAT, port)))) == (ONE, INSIDE)
    for stranger in (SAME_HOST, OTHER):
        assert made.translate(datagram(stranger, (NAT, port))) is None
    assert made.translate(datagram(ONE, (NAT, port ^ 1))) is None


def test_data_of_odd_length_and_large_packets_keep_their_checksums() -> None:
    made = nat.Nat("endpoint-independent", NAT)
    for size in (0, 1, 1_452, 1_453):
        packet = made.translate(datagram(INSIDE, ONE, bytes(range(256)) * 5 + bytes(size)))
        assert ends(packet)[1] == ONE


def test_what_is_no_udp_or_tcp_is_dropped() -> None:
    made = nat.Nat("endpoint-independent", NAT)
    packet = datagram(INSIDE, ONE)
    ping = packet[:9] + b"\x01" + packet[10:]
    version_6 = b"\x65" + packet[1:]
    fragment = packet[:6] + b"\x20\x00" + packet[8:]
    assert [made.translate(one) for one in (ping, version_6, fragment)] == [None] * 3


def test_a_full_table_takes_no_further_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat, "LIMIT", 1)
    made = nat.Nat("address-dependent", NAT)
    sent(made, ONE)
    assert made.translate(datagram(INSIDE, OTHER)) is None
    sent(made, SAME_HOST)
