from __future__ import annotations

import base64
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.identity.keys import SigningKey
from daitn.identity.sealing import SEALING_BYTES, ReceiverKey, class_id, open_sealed, seal
from daitn.node.forwarder.protection import (
    check_packet,
    open_payload,
    seal_payload,
    sign_packet,
)
from daitn.objects.errors import Corrupt, InvalidInput, Refused
from daitn.steering.wire.packet import (
    Action,
    Flag,
    Packet,
    PacketKind,
    decode_packet,
    encode_packet,
)
from tests.steering.wire.shapes import packets

KEY, READER, OTHER = SigningKey.generate(), ReceiverKey.generate(), ReceiverKey.generate()
PACKET = Packet(PacketKind.QUERY, bytes(16), b"intent", b"question", deadline_ms=5)
MUTABLE = {"hop_limit", "attempt", "advertised_score", "trace"}
LOW_ORDER = base64.b64encode(bytes(32)).decode()


@given(packets())
def test_a_signature_holds_on_the_way(packet: Packet) -> None:
    signed = sign_packet(packet, KEY)
    passed = signed
    if signed.hop_limit:
        passed = signed.stepped("ninds", 1, Action.FORWARDED, 9)
    assert check_packet(decode_packet(encode_packet(passed))) == KEY.public


@pytest.mark.parametrize("name", sorted(set(Packet.__struct_fields__) - MUTABLE))
def test_nothing_else_can_be_changed_on_the_way(name: str) -> None:
    signed = sign_packet(PACKET, KEY)
    value = getattr(signed, name)
    change = {
        "kind": PacketKind.PROBE,
        "flags": value ^ Flag.SEALED if name == "flags" else None,
    }.get(name) or (bytes([value[0] ^ 1]) + value[1:] if isinstance(value, bytes) else value + 1)
    changed = msgspec.structs.replace(signed, **{name: change})
    with pytest.raises(Corrupt) as raised:
        check_packet(decode_packet(encode_packet(changed)))
    assert raised.value.field == "seal"


def test_a_packet_without_signature_is_told() -> None:
    with pytest.raises(Corrupt, match="not signed"):
        check_packet(PACKET)


@given(st.binary(max_size=100), st.binary(max_size=30), st.binary(max_size=30))
def test_sealed_bytes_open_in_their_context_alone(
    payload: bytes, context: bytes, other: bytes
) -> None:
    sealed = seal(payload, READER.public, context)
    assert len(sealed) == len(payload) + SEALING_BYTES
    assert sealed[:8] == class_id(READER.public)
    assert open_sealed(sealed, READER, context) == payload
    if other != context:
        with pytest.raises(Corrupt):
            open_sealed(sealed, READER, other)


@given(st.data())
def test_sealed_bytes_that_were_changed_do_not_open(data: st.DataObject) -> None:
    sealed = bytearray(seal(b"question", READER.public, b""))
    at = data.draw(st.integers(8, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    # Bit 255 of a public key is ignored (RFC 7748), but not in the key that is derived from it.
    with pytest.raises(Corrupt):
        open_sealed(bytes(sealed), READER, b"")


@given(st.binary(max_size=150))
def test_garbage_does_not_open(garbage: bytes) -> None:
    with pytest.raises((Corrupt, Refused)):
        open_sealed(garbage, READER, b"")
    with pytest.raises(Corrupt):
        open_sealed((class_id(READER.public) + garbage).ljust(SEALING_BYTES, b"\0"), READER, b"")


def test_other_classes_are_refused() -> None:
    with pytest.raises(Refused, match="another class"):
        open_sealed(seal(b"question", READER.public, b""), OTHER, b"")


def test_the_same_payload_is_never_sealed_the_same() -> None:
    assert seal(b"question", READER.public, b"") != seal(b"question", READER.public, b"")


@pytest.mark.parametrize("public", ["", "no key", "AAAA", LOW_ORDER])
def test_what_is_no_public_key_is_told(public: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        seal(b"question", public, b"")
    assert raised.value.field == "class"


def test_a_payload_is_bound_to_its_packet() -> None:
    sealed = seal_payload(PACKET, READER.public)
    assert Flag.SEALED in sealed.flags
    assert open_payload(decode_packet(encode_packet(sealed)), READER) == b"question"
    for change in ({"object_id": bytes(15) + b"1"}, {"branch": 1}, {"kind": PacketKind.ANSWER}):
        with pytest.raises(Corrupt):
            open_payload(msgspec.structs.replace(sealed, **change), READER)
    with pytest.raises(Refused):
        open_payload(sealed, OTHER)


@pytest.mark.parametrize("flags", [Flag(0), Flag.SEALED | Flag.DIGEST])
def test_a_payload_that_is_not_sealed_is_not_opened(flags: Flag) -> None:
    with pytest.raises(Corrupt) as raised:
        open_payload(msgspec.structs.replace(PACKET, flags=flags, payload=bytes(32)), READER)
    assert raised.value.field == "flags"


def test_a_receivers_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "class"
    first = ReceiverKey.at(path)
    assert ReceiverKey.at(path).public == first.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_receivers_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "class"
    path.write_bytes(b"not a key")
    with pytest.raises(InvalidInput, match="no X25519 key"):
        ReceiverKey.at(path)
    assert path.read_bytes() == b"not a key"
