"""Reads a trace: which sites to skip, and which site answered."""

from __future__ import annotations

from collections.abc import Set

from daitn.objects.errors import Corrupt
from daitn.steering.wire.packet import Action, Hop, Packet

__all__ = ["answered_by", "avoiding", "tried"]

_NAME_OFFSET = 6
"""Bytes before the site's name in a trace entry. The first of them is the name's size."""


def answered_by(answer: Packet) -> str:
    """The site that sent an answer: the first entry of its trace. Empty if the trace is."""
    trace = answer.trace
    if not trace:
        return ""
    return trace[_NAME_OFFSET : _NAME_OFFSET + trace[0]].decode("ascii", "replace")


def avoiding(packet: Packet, sites: Set[str], now_s: float) -> Packet:
    """The packet with these sites marked as tried. Each uses up a hop, except the last hop."""
    for site in sorted(sites):
        if packet.hop_limit > 1 and not packet.visited(site):
            packet = packet.stepped(site, int(now_s * 1000), Action.TRIED, packet.advertised_score)
    return packet


def tried(packet: Packet, refusal: Packet, sender: str, site: str) -> Packet | None:
    """The packet with all sites of the refusal's trace marked as tried; None if hops run out.

    A refusal with an unreadable trace marks its sender alone.
    """
    try:
        hops = refusal.hops()
    except Corrupt:
        hops = ()
    refused = {hop.site: hop for hop in hops if hop.site != site}
    refused.setdefault(sender, Hop(sender, hops[-1].at_ms if hops else 0, Action.TRIED))
    for name, hop in refused.items():
        if packet.visited(name):
            continue
        if not packet.hop_limit:
            return None
        packet = packet.stepped(name, hop.at_ms, Action.TRIED, packet.advertised_score)
    return packet
