"""What must hold of any bytes that a forwarder gets, whoever made them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from daitn.objects.errors import Corrupt
from daitn.steering.wire.intent import decode_intent, encode_intent
from daitn.steering.wire.offers import decode_advertised, encode_summary
from daitn.steering.wire.packet import (
    MOST_TRACE_BYTES,
    Action,
    Packet,
    decode_packet,
    encode_packet,
)

__all__ = ["FORMS", "examine", "split"]

LOCAL = "here"


def examine(form: str, wire: bytes) -> str:
    """Read `wire` as one of `FORMS`; what came of it, in a word. Fails where something is off."""
    try:
        return FORMS[form](wire)
    except Corrupt as error:
        assert error.field, error
        return f"{form}: {error.field}: {error.problem}"


def _packet(wire: bytes) -> str:
    packet = decode_packet(wire)
    assert encode_packet(packet) == wire
    try:
        hops = packet.hops()
    except Corrupt as error:
        _harmless(packet)
        return f"packet: {error.problem}"
    sites = [hop.site for hop in hops]
    again = msgspec.structs.replace(packet, hop_limit=len(hops), trace=b"")
    for hop in hops:
        again = again.stepped(hop.site, hop.at_ms, hop.action, 0)
    assert again.trace == packet.trace
    did_more = [hop.site for hop in hops if hop.action is not Action.TRIED]
    assert packet.source() == (did_more[0] if did_more else "")
    assert all(packet.visited(site) for site in sites)
    assert packet.visited(LOCAL) == (LOCAL in sites)
    if packet.hop_limit and len(packet.trace) < MOST_TRACE_BYTES - 10:
        stepped = decode_packet(encode_packet(packet.stepped(LOCAL, 1, Action.FORWARDED, 0)))
        assert stepped.visited(LOCAL)
        assert stepped.signed_bytes() == packet.signed_bytes()
    return f"packet: {packet.kind.name} {packet.flags} {min(len(sites), 3)}"


def _harmless(packet: Packet) -> None:
    """A trace that is no trace may be refused at any step, and not otherwise fail."""
    for ask in (packet.source, lambda: packet.visited(LOCAL)):
        try:
            ask()
        except Corrupt as error:
            assert error.field == "trace"


def _intent(wire: bytes) -> str:
    intent = decode_intent(wire)
    again = encode_intent(intent)
    assert decode_intent(again) == intent
    assert encode_intent(decode_intent(again)) == again
    return "intent"


def _summary(wire: bytes) -> str:
    summary = decode_advertised(wire)
    assert decode_advertised(encode_summary(summary)) == summary
    return f"summary: {type(summary).__name__}"


FORMS: dict[str, Callable[[bytes], str]] = {
    "packet": _packet,
    "intent": _intent,
    "summary": _summary,
}


def split(data: bytes) -> tuple[str, bytes]:
    """Of an input of the fuzzer, the form that its first byte chooses, and the bytes to read."""
    return tuple(FORMS)[data[0] % len(FORMS)], data[1:]
