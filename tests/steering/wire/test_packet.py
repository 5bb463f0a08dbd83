from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.errors import Corrupt
from daitn.steering.wire.packet import (
    HEADER_BYTES,
    MOST_HOPS,
    Action,
    Hop,
    Packet,
    PacketKind,
    decode_packet,
    encode_packet,
)
from tests.steering.wire.oracle import examine
from tests.steering.wire.shapes import HOPS, SITES, packets

PACKET = Packet(PacketKind.QUERY, bytes(16), b"intent")


def through(*sites: str) -> Packet:
    packet = PACKET
    for at, site in enumerate(sites):
        packet = packet.stepped(site, at, Action.FORWARDED, 0)
    return packet


def with_trace(trace: bytes) -> Packet:
    return msgspec.structs.replace(PACKET, trace=trace)


@given(packets())
def test_a_packet_comes_back_as_it_was(packet: Packet) -> None:
    assert decode_packet(encode_packet(packet)) == packet


@given(packets(), st.data())
def test_a_packet_that_is_cut_is_refused(packet: Packet, data: st.DataObject) -> None:
    wire = encode_packet(packet)
    with pytest.raises(Corrupt):
        decode_packet(wire[: data.draw(st.integers(0, len(wire) - 1))])
    with pytest.raises(Corrupt):
        decode_packet(wire + b"\0")


@given(packets(), st.data())
def test_a_packet_that_was_changed_is_read_or_refused(packet: Packet, data: st.DataObject) -> None:
    wire = bytearray(encode_packet(packet))
    for at in data.draw(st.lists(st.integers(0, len(wire) - 1), min_size=1, max_size=4)):
        wire[at] = data.draw(st.integers(0, 255))
    examine("packet", bytes(wire))


@given(st.binary(max_size=200))
def test_any_trace_is_read_or_refused(trace: bytes) -> None:
    examine("packet", encode_packet(with_trace(trace)))


@given(HOPS)
def test_forwarders_write_down_where_a_packet_was(
    hops: list[tuple[str, int, Action, int]],
) -> None:
    packet = PACKET
    for hop in hops:
        packet = packet.stepped(*hop)
    assert packet.hops() == tuple(Hop(site, ms % 2**32, done) for site, ms, done, _ in hops)
    used = sum(done is not Action.DELIVERED for _, _, done, _ in hops)
    assert packet.hop_limit == PACKET.hop_limit - used
    assert packet.advertised_score == (hops[-1][3] if hops else 0)


@given(st.lists(SITES, max_size=5), SITES)
def test_visited_is_what_the_hops_say(sites: list[str], other: str) -> None:
    packet = through(*sites)
    for site in (*sites, other):
        assert packet.visited(site) == (site in sites)


def test_a_site_is_not_taken_for_another_that_contains_its_name() -> None:
    packet = through("ghr-west", "nighr", "ghr.ghr")
    assert not packet.visited("ghr")
    assert packet.stepped("ghr", 1, Action.DELIVERED, 0).visited("ghr")


def test_a_name_in_another_hops_time_is_no_visit() -> None:
    packet = PACKET.stepped("a", int.from_bytes(b"\0\0\0\x63"), Action.FORWARDED, 0)
    assert b"c" in packet.trace
    assert not packet.visited("c")


def test_the_source_is_where_it_set_out() -> None:
    assert PACKET.source() == ""
    assert through("gateway", "ninds").source() == "gateway"


@pytest.mark.parametrize(
    "trace",
    [b"\x05", b"\x05\0\0\0\0\x01ab", b"\0\0\0\0\0\x01", b"\x01\0\0\0\0\x01\xff",
     b"\x02\0\0\0\0\x01A\n"],
    ids=["cut head", "cut name", "no name", "no ASCII", "no site"],
)  # fmt: skip
def test_a_trace_that_is_none_is_refused_when_it_is_read(trace: bytes) -> None:
    packet = decode_packet(encode_packet(with_trace(trace)))
    for read in (packet.hops, packet.source):
        with pytest.raises(Corrupt) as raised:
            read()
        assert raised.value.field == "trace"


def test_a_site_in_a_trace_that_is_cut_is_no_visit() -> None:
    with pytest.raises(Corrupt) as raised:
        with_trace(b"\x05\0\0\0\0\x01ghr").visited("ghr")
    assert raised.value.field == "trace"


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(Corrupt, match="unknown action 9"):
        with_trace(b"\x01\0\0\0\0\x09a").hops()


def test_a_packet_goes_no_further_than_its_hop_limit() -> None:
    packet = msgspec.structs.replace(PACKET, hop_limit=MOST_HOPS)
    for _ in range(MOST_HOPS):
        packet = packet.stepped("x" * 63, 0, Action.FORWARDED, 0)
    assert decode_packet(encode_packet(packet)) == packet
    with pytest.raises(Corrupt) as raised:
        packet.stepped("x", 0, Action.FORWARDED, 0)
    assert raised.value.field == "hop_limit"
    assert packet.stepped("x", 0, Action.DELIVERED, 0).hop_limit == 0


def test_a_trace_that_is_full_is_not_appended_to() -> None:
    with pytest.raises(Corrupt) as raised:
        with_trace(b"\0" * 5120).stepped("x", 0, Action.FORWARDED, 0)
    assert raised.value.field == "trace"


def test_nothing_needs_more_than_a_header() -> None:
    assert len(encode_packet(Packet(PacketKind.PROBE, bytes(16), b""))) == HEADER_BYTES == 48
