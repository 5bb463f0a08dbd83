"""What a refusal says of where an object need not be tried."""

from __future__ import annotations

from daitn.steering.wire.packet import Action, Hop, Packet

__all__ = ["tried"]


def tried(packet: Packet, refusal: Packet, sender: str, site: str) -> Packet | None:
    """The packet, with all sites tried that the refusal tells of; None where that uses up its hops.

    Raises `Corrupt` where the refusal's trace is malformed.
    """
    hops = refusal.hops()
    told = {hop.site: hop for hop in hops if hop.site != site}
    told.setdefault(sender, Hop(sender, hops[-1].at_ms if hops else 0, Action.TRIED))
    for name, hop in told.items():
        if packet.visited(name):
            continue
        if not packet.hop_limit:
            return None
        packet = packet.stepped(name, hop.at_ms, Action.TRIED, packet.promise)
    return packet
