"""The picture of a packet that finds its way, drawn from a run of the simulated network.

`python -m tests.docs.aats_picture` makes `docs/images/aats.svg` anew. What moves in it moves as it
did in the run, `SLOWER` times as slowly; without movement all routes are drawn as arrows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daitn.oam.pictures.drawing import box, document, element, line, pair, text
from daitn.sim.forwarders import ForwarderNetwork
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Packet, PacketKind

FILE = Path(__file__).parents[2] / "docs/images/aats.svg"

TOPIC = "medicine/neurology"
PLACES = {
    "gate": 80 + 250j, "north": 230 + 150j, "south": 230 + 350j,
    "east": 410 + 150j, "hub": 410 + 350j, "clinic": 560 + 250j,
}  # fmt: skip
DELAYS_S = {
    ("gate", "north"): 0.02, ("gate", "south"): 0.03, ("north", "south"): 0.03,
    ("north", "east"): 0.02, ("south", "hub"): 0.03, ("east", "hub"): 0.02,
    ("east", "clinic"): 0.02, ("hub", "clinic"): 0.03,
}  # fmt: skip
KEY = bytes(16), 0
FAILS, FAILS_AFTER_S = ("east", "clinic"), 0.05
SERVE_S, REST_S, SLOWER = 0.05, 0.1, 30.0
COLOURS = {PacketKind.QUERY: "#1f6feb", PacketKind.ANSWER: "#1a7f37"}
FAULT = "#cf222e"


@dataclass
class Crossing:
    """A packet went over a link; or over a share of it, and was lost."""

    kind: PacketKind
    here: str
    there: str
    at_s: float
    until_s: float
    share: float = 1.0


class Watched(ForwarderNetwork):
    """Remembers what crosses its links."""

    began_s = served_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.crossings: list[Crossing] = []
        self.held: list[tuple[float, str]] = []

    def since_s(self) -> float:
        return self.now_s - self.began_s

    def _carry(self, site: str, neighbour: str, packet: Packet) -> None:
        at_s, delay_s = self.since_s(), self.links[frozenset((site, neighbour))]
        self.crossings.append(Crossing(packet.kind, site, neighbour, at_s, at_s + delay_s))
        super()._carry(site, neighbour, packet)

    def lose(self, a: str, b: str) -> None:
        """Cut a link, with what is on it."""
        self.disconnect(a, b)
        for one in self.crossings:
            if {one.here, one.there} == {a, b} and one.until_s > self.since_s():
                one.share = (self.since_s() - one.at_s) / (one.until_s - one.at_s)
                one.until_s = self.since_s()


def ran() -> Watched:
    """The run: a query sets out, and a link of its path fails while it is on it."""
    network = Watched()
    offer = Offer(f"{Capability.ANSWER}:{TOPIC}", fit=0.9, trust=2, serve_s=SERVE_S, amount=8)
    for site in PLACES:
        network.add(site, (offer,) * (site == "clinic"), serve_s=lambda packet: SERVE_S)
    for (a, b), delay_s in DELAYS_S.items():
        network.connect(a, b, delay_s)
    network.run(20.0)
    network.began_s = network.now_s
    network.on_deliver = lambda site, packet: setattr(network, "served_s", network.since_s())
    intent = encode_intent(PacketIntent(Capability.ANSWER, TOPIC, min_fit=0.8, tokens_out=100))
    network.send("gate", Packet(PacketKind.QUERY, KEY[0], intent, b"What causes migraine?"))
    network.run(FAILS_AFTER_S)
    network.lose(*FAILS)
    network.run(2.0)
    for site, station in network.sites.items():
        entry = station.forwarder.custody.pending.get(KEY)
        steps = entry.steps if entry else ()
        network.held += [(s.at_s - network.began_s, site) for s in steps if s.choice is None]
    return network


def picture() -> str:
    """The run as SVG that stands alone."""
    run = ran()
    back_s = run.returned[0].at_s - run.began_s
    all_s = back_s + REST_S
    parts = [
        text("A packet finds its way", 28 + 40j, "h1"),
        text("no destination address, no routing by a control centre", 28 + 62j, "soft"),
        *(line(PLACES[a], PLACES[b], class_="rule", stroke_width=6) for a, b in DELAYS_S),
        _failure(all_s),
        *(_arrow(one) for one in run.crossings),
        *(part for site in PLACES for part in _site(site, run)),
        *(_dot(one, all_s) for one in run.crossings),
        *_captions(run, back_s),
    ]
    return document(
        "\n".join(parts), 1010, 450, "A packet, a link that fails, and the route around it"
    )


def _failure(all_s: float) -> str:
    """A cross on the link; it shows up when the link fails."""
    a, b = PLACES[FAILS[0]], PLACES[FAILS[1]]
    ends = [f"M{pair((a + b) / 2 - arm)}L{pair((a + b) / 2 + arm)}" for arm in (9 + 9j, 9 - 9j)]
    cross = element("path", d="".join(ends), stroke=FAULT, stroke_width=3.5)
    seen = [(0, 0), (FAILS_AFTER_S, 0), (FAILS_AFTER_S, 1)]
    return element("g", cross + _animated("opacity", seen, all_s))


def _arrow(one: Crossing) -> str:
    """Beside the link, on the right of who goes there; dashes and no head where it was lost."""
    a, b = PLACES[one.here], PLACES[one.there]
    ahead = (b - a) / abs(b - a)
    start, end = a + (30 + 9j) * ahead, a + one.share * (b - a) + 9j * ahead
    look = {"fill": "none", "stroke": COLOURS[one.kind], "stroke_width": 2}
    if one.share < 1.0:
        return element("path", d=f"M{pair(start)}L{pair(end)}", stroke_dasharray="4 4", **look)
    end -= 30 * ahead
    left, right = (end + ahead * wing for wing in (-7 - 5j, -7 + 5j))
    d = f"M{pair(start)}L{pair(end)}M{pair(left)}L{pair(end)}L{pair(right)}"
    return element("path", d=d, **look)


def _site(site: str, run: Watched) -> Iterator[str]:
    """A site, with the pending entry that it keeps: from whom the query came."""
    at = PLACES[site]
    yield element("circle", cx=at.real, cy=at.imag, r=22, class_="node", stroke_width=2)
    yield text(site, at + 4j, "b", "middle")
    entry = run.sites[site].forwarder.custody.pending.get(KEY)
    label = at + (-30j if site in ("north", "east", "clinic") else 40j)
    if entry is not None:
        yield text(f"pending: {entry.upstreams[0] or 'its owner'}", label, "small halo", "middle")
    if site == "clinic":
        yield text("has the model", at - 46j, "small soft", "middle")


def _dot(one: Crossing, all_s: float) -> str:
    """The packet on the link, seen while it is there."""
    a, b = PLACES[one.here], PLACES[one.there]
    b, at_s, until_s = a + one.share * (b - a), one.at_s, one.until_s
    seen = [(0, 0), (at_s, 0), (at_s, 1), (until_s, 1), (until_s, 0)]
    moves = (
        _animated("cx", [(0, a.real), (at_s, a.real), (until_s, b.real)], all_s),
        _animated("cy", [(0, a.imag), (at_s, a.imag), (until_s, b.imag)], all_s),
        _animated("opacity", seen if at_s else seen[2:], all_s),
    )
    return element("circle", "".join(moves), r=8, fill=COLOURS[one.kind], opacity=0)


def _animated(name: str, at: Sequence[tuple[float, float]], all_s: float) -> str:
    """An attribute's values by time; the last one stays to the end."""
    at = [*at, (all_s, at[-1][1])]
    return element(
        "animate",
        attributeName=name,
        dur=f"{all_s * SLOWER:.1f}s",
        repeatCount="indefinite",
        keyTimes=";".join(f"{when / all_s:.4g}" for when, _ in at),
        values=";".join(f"{value:g}" for _, value in at),
    )


def _captions(run: Watched, back_s: float) -> Iterator[str]:
    query, answer = COLOURS[PacketKind.QUERY], COLOURS[PacketKind.ANSWER]
    rows = [(FAILS_AFTER_S, FAULT, f"the link {' – '.join(FAILS)} fails, with what is on it")]
    rows += [(at_s, query, f"{site} holds it, asks for a safe route") for at_s, site in run.held]
    rows += [(run.served_s, query, "clinic serves it"), (back_s, answer, "gate is answered, once")]
    sent: set[str] = set()
    for one in run.crossings:
        kept = "sent by another hop" if one.here in sent else f"{one.here} keeps a copy"
        words = f"query, {kept}" if one.kind is PacketKind.QUERY else "answer"
        rows.append((one.at_s, COLOURS[one.kind], f"{one.here} → {one.there}: {words}"))
        sent.add(one.here)
    for n, (at_s, colour, words) in enumerate(sorted(rows)):
        at = complex(640, 104 + 24 * n)
        yield box(at.real, at.imag - 10, 4, 12, fill=colour)
        yield text(f"{1000 * at_s:.0f} ms", at + 54, "small soft", "end")
        yield text(words, at + 66)


if __name__ == "__main__":
    FILE.write_text(picture())
