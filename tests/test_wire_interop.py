"""The wire format, from outside: docs/wire.cddl and an independent implementation of it.

Nothing here uses the package. The bytes come from the encoders of rust/proto (example
`wire_samples`), and what Python makes goes through its decoders (example `verify_record`).
"""

import hashlib
import random
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pycose.algorithms import EdDSA
from pycose.headers import KID, Algorithm
from pycose.keys.curves import Ed25519
from pycose.keys.okp import OKPKey
from pycose.messages.sign1message import Sign1Message
from zcbor.zcbor.zcbor import CddlValidationError, DataTranslator

CDDL = Path(__file__).resolve().parent.parent / "docs" / "wire.cddl"

Cbor: TypeAlias = "int | float | str | bytes | cbor2.CBORTag | list[Cbor] | dict[Cbor, Cbor] | None"
Verify = Callable[[Iterable[tuple[bytes, bytes]]], list[str]]
REQUESTS = {
    "request-message",
    "request-message-channel",
    "request-stream",
    "request-reason",
    "answer",
}
FORGED = "error the signature does not verify for the record's id"


class Sample(NamedTuple):
    name: str
    data: bytes


class Malleable(NamedTuple):
    """A record taken apart, to be put together in another way."""

    topic: bytes
    key: Ed25519PrivateKey
    header: dict[Cbor, Cbor]
    node: dict[Cbor, Cbor]

    @property
    def id(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def signature(self, header: bytes, payload: bytes, kind: bytes = b"node/1") -> bytes:
        external = b"iroh-gossip-discovery/" + kind + self.topic
        return self.key.sign(encode(["Signature1", header, external, payload]))

    def accepted(self) -> str:
        return f"ok {self.id.hex()} {self.node[0]!r} {self.node[2]!s}"

    def record(self) -> bytes:
        header, payload = encode(self.header), encode(self.node)
        return encode([header, {}, payload, self.signature(header, payload)])


def encode(value: Cbor) -> bytes:
    """Encode in the deterministic form of RFC 8949, section 4.2.1."""
    if isinstance(value, dict):
        entries = sorted((encode(key), encode(item)) for key, item in value.items())
        return head(5, len(entries)) + b"".join(key + item for key, item in entries)
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    return cbor2.dumps(value)


def head(major: int, argument: int) -> bytes:
    encoded = bytearray(cbor2.dumps(argument))
    encoded[0] |= major << 5
    return bytes(encoded)


def topic_id(name: str) -> bytes:
    return hashlib.sha256(b"iroh-gossip-discovery/topic/1\0" + name.encode()).digest()


def verify_with_cryptography(
    topic: bytes, record: bytes, kind: bytes = b"node/1"
) -> dict[Cbor, Cbor]:
    """Verify a record as docs/wire.cddl says, and return its payload."""
    header, unprotected, payload, signature = cbor2.loads(record)
    assert unprotected == {}
    algorithm_and_key = cbor2.loads(header)
    assert algorithm_and_key[1] == -8
    external = b"iroh-gossip-discovery/" + kind + topic
    signed = encode(["Signature1", header, external, payload])
    Ed25519PublicKey.from_public_bytes(algorithm_and_key[4]).verify(signature, signed)
    node: dict[Cbor, Cbor] = cbor2.loads(payload)
    return node


def verify_with_pycose(topic: bytes, record: bytes) -> bool:
    message = Sign1Message.from_cose_obj(cbor2.loads(record), allow_unknown_attributes=False)
    # It has a setter, but the types do not say so.
    message.external_aad = b"iroh-gossip-discovery/node/1" + topic  # type: ignore[misc]
    message.key = OKPKey(crv=Ed25519, x=message.phdr[KID])
    return bool(message.verify_signature())


@pytest.fixture(scope="session")
def schema() -> Mapping[str, DataTranslator]:
    translator = DataTranslator.from_cddl(CDDL.read_text(), default_max_qty=4096)
    return translator.my_types  # type: ignore[no-any-return]


@pytest.fixture
def valid(
    schema: Mapping[str, DataTranslator], capsys: pytest.CaptureFixture[str]
) -> Callable[[str, bytes], bool]:
    """Return whether a rule of docs/wire.cddl describes the bytes."""

    def check(rule: str, data: bytes) -> bool:
        try:
            schema[rule].validate_str(data)
        except CddlValidationError:
            capsys.readouterr()  # it also prints what it tried
            return False
        return True

    return check


@pytest.fixture(scope="session")
def samples(rust_example: Callable[[str], Path]) -> list[Sample]:
    command = [str(rust_example("wire_samples"))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return [Sample(name, bytes.fromhex(data)) for name, data in lines]


@pytest.fixture(scope="session")
def frames(samples: list[Sample]) -> list[Sample]:
    others = {"topic-id", "content", "record-alive", "record-left", "accusation"}
    others |= {"broadcast", "broadcast-channel", "broadcast-content", "invitation", "revocation"}
    return [sample for sample in samples if sample.name not in others | REQUESTS]


@pytest.fixture(scope="session")
def accusation(samples: list[Sample]) -> bytes:
    return dict(samples)["accusation"]


@pytest.fixture(scope="session")
def said(samples: list[Sample]) -> bytes:
    return dict(samples)["broadcast"]


@pytest.fixture(scope="session")
def records(
    samples: list[Sample], frames: list[Sample], accusation: bytes, said: bytes
) -> list[bytes]:
    """All records that travel in the frames."""

    def find(value: Cbor) -> Iterable[bytes]:
        if isinstance(value, list):
            for item in value:
                yield from find(item)
        elif isinstance(value, bytes) and value.startswith(b"\x84\x58"):
            yield value

    found = [signed for frame in frames for signed in find(cbor2.loads(frame.data))]
    assert accusation in found
    others = {accusation, said, dict(samples)["revocation"]}
    return [signed for signed in found if signed not in others]


@pytest.fixture
def verify(rust_example: Callable[[str], Path]) -> Verify:
    """Ask our own verification: for topic ids with records, `ok id sequence name` or `error …`."""

    def ask(pairs: Iterable[tuple[bytes, bytes]]) -> list[str]:
        lines = [f"{topic.hex()} {record.hex()}\n" for topic, record in pairs]
        command = [str(rust_example("verify_record"))]
        done = subprocess.run(
            command, input="".join(lines), stdout=subprocess.PIPE, text=True, check=True, timeout=60
        )
        answers = done.stdout.splitlines()
        assert len(answers) == len(lines)
        return answers

    return ask


@pytest.fixture
def mine() -> Malleable:
    """A record that Python makes, with every known field."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key for the tests").digest())
    node: dict[Cbor, Cbor] = {
        0: 1_760_000_000_000_000,
        1: 0xFEED_FACE_CAFE_BEEF,
        2: "Zoë",
        3: [[bytes([192, 0, 2, 1]), 4433], [bytes(15) + b"\1", 1], "https://relay.example/"],
        4: {"role": "cache", "zone": "eu-1"},
        5: 0,
        6: 900,
        7: [b"chat/1"],
    }
    header: dict[Cbor, Cbor] = {1: -8, 4: key.public_key().public_bytes_raw()}
    return Malleable(topic_id("fleet"), key, header, node)


# ------------------------------------------------------------------ docs/wire.cddl


def test_every_kind_of_frame_has_a_sample(frames: list[Sample]) -> None:
    described = {line.split("=")[1].split("[")[1].split(",")[0].strip() for line in rules("frame")}
    assert described == {str(cbor2.loads(frame.data)[0]) for frame in frames}


def rules(name: str) -> list[str]:
    """Give the lines that define the choices of a rule."""
    text = CDDL.read_text()
    choices = text.split(f"\n{name} = ")[1].split("\n\n")[0].replace("\n", " ").split("/")
    return [
        next(line for line in text.splitlines() if line.split(" =")[0].rstrip() == choice.strip())
        for choice in choices
    ]


def test_real_frames_are_what_the_cddl_says(
    frames: list[Sample], valid: Callable[[str, bytes], bool]
) -> None:
    assert [frame.name for frame in frames if not valid("frame", frame.data)] == []


def test_real_requests_and_answers_are_what_the_cddl_says(
    samples: list[Sample], valid: Callable[[str, bytes], bool]
) -> None:
    seen = [sample for sample in samples if sample.name in REQUESTS]
    assert {sample.name for sample in seen} == REQUESTS
    for name, data in seen:
        rule = name.partition("-")[0]
        assert valid(rule, data), name
        assert encode(cbor2.loads(data)) == data
        kind, *fields = cbor2.loads(data)
        assert valid(rule, encode([kind, *fields, "later"])), name
        assert not valid(rule, encode([99, *fields])), name
        short = fields[:-1]
        optional = name == "request-message-channel"
        assert not fields or valid(rule, encode([kind, *short])) is optional, name


def test_real_records_and_broadcasts_are_what_the_cddl_says(
    frames: list[Sample], records: list[bytes], valid: Callable[[str, bytes], bool]
) -> None:
    for record in records:
        header, _, payload, _ = cbor2.loads(record)
        assert valid("record", record)
        assert valid("header", header)
        assert valid("node", payload)
    broadcasts = [cbor2.loads(frame.data)[3] for frame in frames if frame.data[1:2] == b"\x07"]
    assert broadcasts
    assert all(valid("broadcast", content) for content in broadcasts)


def test_the_cddl_refuses_what_is_not_a_frame(
    frames: list[Sample], valid: Callable[[str, bytes], bool]
) -> None:
    for name, data in frames:
        kind, *fields = cbor2.loads(data)
        assert not valid("frame", encode([99, *fields])), name
        assert not fields or not valid("frame", encode([kind, *fields[:-1]])), name
        for place, field in enumerate(fields):
            wrong: list[Cbor] = [*fields]
            wrong[place] = "text" if not isinstance(field, dict) else {}
            assert not valid("frame", encode([kind, *wrong])), (name, place)
        # … and leaves room for a later version.
        assert valid("frame", encode([kind, *fields, "later", {"than": 1}])), name


def test_real_bytes_are_deterministic_cbor(frames: list[Sample], records: list[bytes]) -> None:
    inner = [part for record in records for part in cbor2.loads(record)[0:3:2]]
    for data in [*(frame.data for frame in frames), *records, *inner]:
        assert encode(cbor2.loads(data)) == data


# ------------------------------------------------------------------ our records, their verifiers


def test_independent_implementations_verify_our_records(
    samples: list[Sample], records: list[bytes]
) -> None:
    topic = dict(samples)["topic-id"]
    for record in records:
        node = verify_with_cryptography(topic, record)
        assert isinstance(node[2], str)
        assert verify_with_pycose(topic, record)


def test_an_accusation_is_what_the_cddl_says_and_is_signed_as_such(
    samples: list[Sample], accusation: bytes, valid: Callable[[str, bytes], bool]
) -> None:
    topic = dict(samples)["topic-id"]
    assert valid("accusation", accusation)
    accused = verify_with_cryptography(topic, accusation, b"accusation/1")
    assert valid("accused", encode(accused))
    assert accused[1] == 5
    for kind, of in [(b"node/1", topic), (b"accusation/1", topic_id("another"))]:
        with pytest.raises(InvalidSignature):
            verify_with_cryptography(of, accusation, kind)


@pytest.mark.parametrize("name", ["invitation", "revocation"])
def test_what_an_issuer_signs_is_what_the_cddl_says_and_is_signed_as_such(
    samples: list[Sample], valid: Callable[[str, bytes], bool], name: str
) -> None:
    topic, signed = dict(samples)["topic-id"], dict(samples)[name]
    assert valid(name, signed)
    admitted = verify_with_cryptography(topic, signed, f"{name}/1".encode())
    assert valid("admitted", encode(admitted))
    assert (admitted[0], admitted[1]) == (topic, bytes([6] * 32))
    assert (admitted[2], admitted[3]) == (1_800_000_000, 1_802_592_000)
    for kind, of in [(b"node/1", topic), (f"{name}/1".encode(), topic_id("another"))]:
        with pytest.raises(InvalidSignature):
            verify_with_cryptography(of, signed, kind)


def test_a_broadcast_is_what_the_cddl_says_and_is_signed_as_such(
    samples: list[Sample], said: bytes, valid: Callable[[str, bytes], bool]
) -> None:
    topic = dict(samples)["topic-id"]
    assert valid("said", said)
    saying = verify_with_cryptography(topic, said, b"broadcast/1")
    assert saying == {0: 7, 1: 12, 2: b"hello, all"}
    assert valid("saying", encode(saying))
    assert not valid("saying", encode({**saying, 2: bytes(8193)}))
    on_channel = verify_with_cryptography(topic, dict(samples)["broadcast-channel"], b"broadcast/1")
    assert on_channel == {0: 7, 1: 13, 2: b"stale", 3: "cache"}
    assert valid("saying", encode(on_channel))
    assert not valid("saying", encode({**on_channel, 3: ""}))
    for kind, of in [
        (b"node/1", topic),
        (b"accusation/1", topic),
        (b"broadcast/1", topic_id("another")),
    ]:
        with pytest.raises(InvalidSignature):
            verify_with_cryptography(of, said, kind)
    content = dict(samples)["broadcast-content"]
    assert cbor2.loads(content) == [[2, said]]
    assert valid("broadcast", content)
    assert not valid("broadcast", encode([[2, said], [2, said]])), "it travels alone"


def test_independent_implementations_refuse_our_records_in_another_topic(
    records: list[bytes],
) -> None:
    for record in records:
        assert not verify_with_pycose(topic_id("another"), record)
        with pytest.raises(InvalidSignature):
            verify_with_cryptography(topic_id("another"), record)


# ------------------------------------------------------------------ their records, our verifier


def test_a_record_made_with_cryptography_is_accepted(mine: Malleable, verify: Verify) -> None:
    assert verify([(mine.topic, mine.record())]) == [mine.accepted()]
    assert verify_with_pycose(mine.topic, mine.record())


def test_a_record_made_with_pycose_is_accepted(mine: Malleable, verify: Verify) -> None:
    message = Sign1Message(
        phdr={Algorithm: EdDSA, KID: mine.id},
        payload=encode(mine.node),
        external_aad=b"iroh-gossip-discovery/node/1" + mine.topic,
    )
    message.key = OKPKey(crv=Ed25519, x=mine.id, d=mine.key.private_bytes_raw())
    record = message.encode(tag=False)
    assert record == mine.record()
    assert verify([(mine.topic, record)]) == [mine.accepted()]


def test_records_with_any_values_within_the_limits_are_accepted(
    mine: Malleable, verify: Verify, valid: Callable[[str, bytes], bool]
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    def some(limit: int) -> bytes:
        return rng.randbytes(rng.randint(1, limit))

    def text(limit: int) -> str:
        # Not blank: a name needs something to see.
        return "a" + "".join(rng.choices("abc-_./ 0éß漢", k=limit // 3 - 1))

    made = []
    for _ in range(300):
        node: dict[Cbor, Cbor] = {
            0: rng.getrandbits(rng.choice([1, 8, 16, 32, 62])),
            1: rng.getrandbits(rng.choice([1, 32, 64])),
            2: text(rng.randint(3, 64)),
            5: rng.choice([0, 1]),
            6: rng.choice([1, 900, 30 * 86_400]),
        }
        sizes = [4, 16]
        optional: dict[Cbor, Cbor] = {
            3: [
                # The first byte of an address that can be a peer's, IPv4 or IPv6; a port above 0.
                [b"\x20" + rng.randbytes(rng.choice(sizes) - 1), rng.randint(1, 65_535)]
                for _ in range(rng.randint(0, 8))
            ],
            4: {text(rng.randint(0, 30)): text(rng.randint(0, 90)) for _ in range(6)},
            7: [some(32) for _ in range(rng.randint(0, 8))],
        }
        node |= {key: value for key, value in optional.items() if rng.random() < 0.7}
        made.append(mine._replace(node=node))
        assert valid("node", encode(node))
    answers = verify((mine.topic, record.record()) for record in made)
    assert answers == [record.accepted() for record in made]


@pytest.mark.parametrize(
    "later",
    [
        {8: "a new field"},
        {8: [1, [2, {"deep": "enough"}]], 200: None, 2**63: True, -1: b"bytes"},
        {"text": 1, b"bytes": 2},
        {3: [[bytes(6), 1], None, True, 7, b"mac", {"kind": "later"}]},
        {3: [[bytes([192, 0, 2, 1]), 1, "scope"]]},
    ],
    ids=["key", "keys", "types", "addresses", "address"],
)
def test_fields_of_a_later_version_are_accepted(
    mine: Malleable, verify: Verify, valid: Callable[[str, bytes], bool], later: dict[Cbor, Cbor]
) -> None:
    record = mine._replace(node=mine.node | later)
    assert verify([(record.topic, record.record())]) == [record.accepted()]
    assert valid("node", encode(record.node))


# ------------------------------------------------------------------ forged and malformed records


def test_a_record_with_any_bit_changed_is_refused(mine: Malleable, verify: Verify) -> None:
    record = mine.record()
    altered = []
    for place in range(len(record)):
        for bit in range(8):
            changed = bytearray(record)
            changed[place] ^= 1 << bit
            altered.append((mine.topic, bytes(changed)))
    assert all(answer.startswith("error ") for answer in verify(altered))


def test_a_record_cut_short_or_longer_is_refused(mine: Malleable, verify: Verify) -> None:
    record = mine.record()
    wrong = [record[:length] for length in range(len(record))] + [record + b"\0", record + record]
    answers = verify((mine.topic, data) for data in wrong)
    assert all(answer.startswith("error malformed ") for answer in answers)


def test_a_record_of_another_topic_kind_or_key_is_refused(mine: Malleable, verify: Verify) -> None:
    header, payload = encode(mine.header), encode(mine.node)
    another_kind = mine.signature(header, payload, kind=b"accusation/1")
    another_key = mine._replace(key=Ed25519PrivateKey.generate())
    forged = [
        (topic_id("another"), mine.record()),
        (mine.topic, encode([header, {}, payload, another_kind])),
        (mine.topic, another_key.record()),
    ]
    assert verify(forged) == [FORGED] * 3


def test_signatures_that_only_lenient_verifiers_take_are_refused(
    mine: Malleable, verify: Verify
) -> None:
    header, payload = encode(mine.header), encode(mine.node)
    signature = mine.signature(header, payload)
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    # The neutral element as key: this signature holds for every message.
    neutral = b"\1" + bytes(31)
    weak = encode([encode({1: -8, 4: neutral}), {}, payload, neutral + bytes(32)])
    pairs = [(mine.topic, encode([header, {}, payload, malleable])), (mine.topic, weak)]
    assert verify(pairs) == [FORGED] * 2


@pytest.mark.parametrize(
    "node",
    [
        {0: 2**62},
        {0: -1},
        {0: None},
        {0: "5"},
        {1: None},
        {1: 2**64 - 1, 2: ""},
        {2: "x" * 65},
        {2: "line\nbreak"},
        {2: "\u202egnirts"},
        {2: "e\u0301"},
        {2: b"bytes"},
        {3: [[bytes(4), 1]] * 9},
        {3: [[bytes(4), 65_536]]},
        {3: [[bytes(4)]]},
        {3: ["not a url"]},
        {3: ["https://" + "x" * 130]},
        {4: {"k": 1}},
        {4: {1: "v"}},
        {4: {"k": "x" * 1024}},
        {5: 2},
        {5: None},
        {6: 0},
        {6: 30 * 86_400 + 1},
        {6: None},
        {7: [b"x"] * 9},
        {7: [b"x" * 33]},
        {7: [b""]},
        {7: ["text"]},
        {8: [[[[["deep"]]]]]},
        {8: 1.5},
        {8: cbor2.CBORTag(1, 0)},
        {8: b"x" * 1900},
    ],
    ids=lambda node: repr(node)[:64],
)
def test_a_well_signed_payload_that_breaks_a_rule_is_refused(
    mine: Malleable, verify: Verify, node: dict[Cbor, Cbor]
) -> None:
    broken = mine.node | node
    for key in [key for key, value in node.items() if value is None]:
        del broken[key]
    [answer] = verify([(mine.topic, mine._replace(node=broken).record())])
    assert answer.startswith("error malformed ")


@pytest.mark.parametrize(
    "header",
    [{}, {1: -8}, {1: -7}, {1: -8, 4: b"short"}, {1: -8, 2: [4]}, {1: -8, 33: b"x"}],
    ids=["empty", "no kid", "ES256", "short kid", "crit", "x5chain"],
)
def test_a_well_signed_header_that_is_not_ours_is_refused(
    mine: Malleable, verify: Verify, header: dict[Cbor, Cbor]
) -> None:
    if header not in ({}, {1: -8}):
        header.setdefault(4, mine.id)
    [answer] = verify([(mine.topic, mine._replace(header=header).record())])
    assert answer.startswith("error malformed ")


def test_encodings_that_are_not_deterministic_are_refused(mine: Malleable, verify: Verify) -> None:
    header = encode(mine.header)

    def signed(payload: bytes) -> bytes:
        return encode([header, {}, payload, mine.signature(header, payload)])

    def entries(keys: Iterable[Cbor]) -> bytes:
        return b"".join(encode(key) + encode(mine.node[key]) for key in keys)

    count = len(mine.node)
    payloads = {
        "as it should be": head(5, count) + entries(sorted(mine.node, key=encode)),
        "unsorted": head(5, count) + entries(sorted(mine.node, key=encode, reverse=True)),
        "twice": head(5, count + 1) + entries([*sorted(mine.node, key=encode), 7]),
        "indefinite": b"\xbf" + entries(sorted(mine.node, key=encode)) + b"\xff",
        "long length": b"\xb8" + bytes([count]) + entries(sorted(mine.node, key=encode)),
        "trailing": encode(mine.node) + b"\0",
        "not a map": encode([1, 2]),
    }
    answers = verify((mine.topic, signed(payload)) for payload in payloads.values())
    first, *others = answers
    assert first == mine.accepted()
    assert all(answer.startswith("error malformed ") for answer in others), answers


def test_envelopes_that_are_not_ours_are_refused(mine: Malleable, verify: Verify) -> None:
    header, payload = encode(mine.header), encode(mine.node)
    signature = mine.signature(header, payload)
    envelopes: list[Cbor] = [
        [header, {4: mine.id}, payload, signature],
        [header, {}, payload, signature, 0],
        [header, {}, payload],
        [header, {}, None, signature],
        [header, {}, payload, signature[:-1]],
        {1: header},
    ]
    tagged = b"\xd2" + mine.record()
    data = [tagged, *map(encode, envelopes)]
    answers = verify((mine.topic, envelope) for envelope in data)
    assert all(answer.startswith("error malformed ") for answer in answers), answers
