from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from daitn.node.forwarder.protection import check_packet, open_payload
from daitn.objects.errors import Corrupt
from daitn.steering.wire.intent import PacketIntent, decode_intent, encode_intent
from daitn.steering.wire.offers import (
    INFINITE,
    Greeting,
    Summary,
    decode_advertised,
    encode_summary,
)
from daitn.steering.wire.packet import (
    Action,
    Flag,
    Packet,
    PacketKind,
    decode_packet,
    encode_packet,
)
from tests.steering.wire.vectors import (
    DECODERS,
    FILE,
    PACKETS,
    READER,
    SIGNER,
    plain,
    text,
    vectors,
    written,
)

KEPT = json.loads(FILE.read_text())


def _named(group: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "vector", [pytest.param(vector, id=vector["name"]) for vector in KEPT[group]]
    )


def _read(fields: dict[str, Any]) -> Packet:
    """A packet of the fields in the file, hops apart."""
    values = {name: value for name, value in fields.items() if name != "hops"}
    for name in ("object_id", "intent", "payload", "trace", "seal"):
        values[name] = bytes.fromhex(values[name])
    values["kind"] = PacketKind[values["kind"]]
    values["flags"] = Flag(sum(Flag[name] for name in values["flags"]))
    return Packet(**values)


def _infinite(value: Any) -> Any:
    if isinstance(value, list):
        return [_infinite(item) for item in value]
    return INFINITE if value == "infinite" else value


def test_the_file_is_what_the_script_writes() -> None:
    assert vectors() == KEPT
    assert text() == FILE.read_text()


@_named("packets")
def test_packets_are_written_and_read_as_the_file_says(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["wire"])
    packet = decode_packet(wire)
    assert written(packet) == vector["fields"]
    assert encode_packet(_read(vector["fields"])) == wire


@_named("packets")
def test_traces_are_written_as_the_file_says(vector: dict[str, Any]) -> None:
    packet = msgspec.structs.replace(_read(vector["fields"]), trace=b"", hop_limit=64)
    for site, at_ms, action in vector["fields"]["hops"]:
        packet = packet.stepped(site, at_ms, Action[action], 0)
    assert packet.trace.hex() == vector["fields"]["trace"]


@_named("intents")
def test_intents_are_written_and_read_as_the_file_says(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["wire"])
    assert plain(decode_intent(wire)) == vector["fields"]
    assert encode_intent(msgspec.convert(vector["fields"], PacketIntent)) == wire


@_named("summaries")
def test_summaries_are_written_and_read_as_the_file_says(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["wire"])
    assert plain(decode_advertised(wire)) == vector["fields"]
    summary: Summary | Greeting = msgspec.convert(_infinite(vector["fields"]), Summary | Greeting)
    assert encode_summary(summary) == wire


@_named("malformed")
def test_what_is_malformed_is_refused_by_its_field(vector: dict[str, Any]) -> None:
    with pytest.raises(Corrupt) as raised:
        DECODERS[vector["decoder"]](bytes.fromhex(vector["wire"]))
    assert raised.value.field == vector["field"]


def test_every_kind_and_flag_is_there() -> None:
    assert {packet.kind for packet in PACKETS.values()} == set(PacketKind)
    assert {flag for packet in PACKETS.values() for flag in packet.flags} == set(Flag)


def test_signatures_and_seals_are_good() -> None:
    plain_text = {"query, sealed": "query", "query, sealed, signed, traced": "query"}
    for name, packet in PACKETS.items():
        if Flag.SIGNED in packet.flags:
            assert check_packet(packet) == SIGNER.public
        if Flag.SEALED in packet.flags:
            held = PACKETS[plain_text.get(name, "answer")].payload
            assert open_payload(packet, READER) == held
