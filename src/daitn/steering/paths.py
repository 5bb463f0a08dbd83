"""What traces say: where an object need not be tried, and who answered it."""

from __future__ import annotations

from collections.abc import Set

from daitn.objects.errors import Corrupt
from daitn.steering.wire.packet import Action, Hop, Packet

__all__ = ["answered_by", "avoiding", "tried"]

_BEFORE_NAME = 6
"""Bytes of a trace's entry before the site's name, whose size is the first of them."""


def answered_by(answer: Packet) -> str:
    """The site where an answer set out, by the only entry that it got there; empty: it has none."""
    trace = answer.trace
    if not trace:
        return ""
    return trace[_BEFORE_NAME : _BEFORE_NAME + trace[0]].decode("ascii", "replace")


def avoiding(packet: Packet, sites: Set[str], now_s: float) -> Packet:
    """The packet, not to go to these sites, nor by them; each takes a hop, and the last is left."""
    for site in sorted(sites):
        if packet.hop_limit > 1 and not packet.visited(site):
            packet = packet.stepped(site, int(now_s * 1000), Action.TRIED, packet.promise)
    return packet


def tried(packet: Packet, refusal: Packet, sender: str, site: str) -> Packet | None:
    """The packet, with all sites tried that the refusal tells of; None where that uses up its hops.

    A refusal whose trace cannot be read tells of its sender alone.
    """
    try:
        hops = refusal.hops()
    except Corrupt:
        hops = ()
    told = {hop.site: hop for hop in hops if hop.site != site}
    told.setdefault(sender, Hop(sender, hops[-1].at_ms if hops else 0, Action.TRIED))
    for name, hop in told.items():
        if packet.visited(name):
            continue
        if not packet.hop_limit:
            return None
        packet = packet.stepped(name, hop.at_ms, Action.TRIED, packet.promise)
    return packet
