"""The route of a model on a map of sites, however long: journeys are aggregated."""

from __future__ import annotations

import cmath
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from daitn.oam.pictures.drawing import element, pair, shortened, text
from daitn.objects.identifiers import SiteId
from daitn.topology.snapshot import SiteState

__all__ = ["MOST_SITES", "Move", "flows"]

Move = tuple[SiteId, SiteId]
MOST_SITES = 18
"""Maximum number of sites drawn; a larger ring is unreadable."""
_WIDTH = 640.0
_AXES = complex(205.0, 178.0)
_MARGIN = 62.0
"""Above and below the ring, for names."""
_FEW = 10
"""Number of sites for which a smaller ring is enough."""


def flows(
    sites: Sequence[SiteId],
    states: dict[SiteId, SiteState],
    visits: Counter[SiteId],
    moves: Counter[Move],
) -> str:
    """An SVG without a style of its own. `sites`: in the order of the ring, 1 to `MOST_SITES`;
    `moves`: number of moves from site to site."""
    places = {site: _place(number, len(sites)) for number, site in enumerate(sites)}
    shown = {
        (source, target): times
        for (source, target), times in moves.items()
        if source in places and target in places and source != target
    }
    most = max(shown.values(), default=1)
    body = [*_arrows(places, shown, most)]
    for site, at in places.items():
        body += _site(site, at, states.get(site), visits[site], max(visits.values(), default=1))
    label = f"Map of {len(sites)} sites and {sum(shown.values()):,} journeys of the model"
    top = min(at.imag for at in places.values()) - _MARGIN
    height = max(at.imag for at in places.values()) + _MARGIN - top
    return (
        f'<svg role="img" aria-label="{label}" class="wide" '
        f'viewBox="{-_WIDTH / 2:.0f} {top:.0f} {_WIDTH:.0f} {height:.0f}">{"".join(body)}</svg>'
    )


def _place(number: int, of: int) -> complex:
    """Position around 0."""
    turn = cmath.rect(min(1.0, 0.5 + 0.5 * of / _FEW), 2 * math.pi * (number + 0.5) / of)
    return complex(_AXES.real * turn.imag, -_AXES.imag * turn.real)


def _arrows(places: dict[SiteId, complex], moves: dict[Move, int], most: int) -> Iterator[str]:
    for (source, target), times in sorted(moves.items(), key=lambda one: one[1]):
        start, end = places[source], places[target]
        way = end - start
        bow = 0.12 * abs(way) * (way * -1j) / abs(way)
        middle = (start + end) / 2 + bow - 0.06 * (start + end)
        width = 1.2 + 4.5 * times / most
        head = (end - middle) / abs(end - middle)
        tip = end - 17 * head
        neck = tip - (5 + 1.5 * width) * head
        side = (3 + 0.8 * width) * head * 1j
        yield element(
            "path",
            d=f"M{pair(start)}Q{pair(middle)} {pair(neck)}",
            fill="none",
            class_="flow",
            stroke_width=width,
        )
        points = " ".join(pair(p) for p in (tip, neck + side, neck - side))
        yield element("polygon", points=points, class_="flowhead")


def _site(
    site: SiteId, at: complex, state: SiteState | None, visits: int, most: int
) -> Iterator[str]:
    measures = state is not None and state.descriptor.verifier is not None
    radius = 8 + 8 * math.sqrt(visits / most)
    look = {"class_": "visited" if visits else "node", "stroke_width": 2}
    if measures and not visits:
        yield element("rect", x=at.real - 8, y=at.imag - 8, width=16, height=16, rx=3, **look)
    else:
        yield element("circle", cx=at.real, cy=at.imag, r=radius, **look)
    out = at.real / _AXES.real
    anchor = "middle" if abs(out) < 0.3 else "start" if out > 0 else "end"
    below = at.imag > 0
    beside = complex(math.copysign(radius + 6, out), 1)
    label = at + (
        (1j * (radius + 15) if below else -1j * (radius + 20)) if anchor == "middle" else beside
    )
    yield text(shortened(site, 18), label, "b halo small", anchor)
    words = f"{visits:,} visits" if visits > 1 else "1 visit" if visits else ""
    words = words or ("measures" if measures else "not visited")
    yield text(words, label + 13j, "soft small halo", anchor)
