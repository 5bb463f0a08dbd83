"""The left of the demo's picture: sites, verifiers and the route that the model took."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from daitn.oam.pictures.drawing import box, element, line, pair, shortened, text
from daitn.oam.pictures.visits import objective_colour, start_of, visit_colour
from daitn.objects.descriptors import covers_topic
from daitn.objects.jobs import JobView, VisitView
from daitn.topology.snapshot import SiteState

__all__ = ["Map", "is_speciality", "is_verifier"]

_RING = complex(176, 188)
"""Half axes of the ellipse of sites."""
_HUB_CLEARANCE = 52.0
_OUTSIDE = 400.0
"""Penalty for an arrow that leaves the ring, where the sites' labels are."""
_BENDS = (0.12, -0.12, 0.22, -0.22, 0.34, -0.34, 0.48, -0.48, 0.64, -0.64)
"""How far an arrow may bow out, as shares of its length."""
_BADGE_RADIUS = 9.5
_SHARES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
"""Candidate positions of an arrow's number along the arrow."""


@dataclass(frozen=True)
class _Place:
    """A site and its position."""

    state: SiteState
    at: complex
    radius: float


@dataclass(frozen=True)
class _Curve:
    """A cubic Bezier curve."""

    start: complex
    first: complex
    second: complex
    end: complex

    def at(self, share: float) -> complex:
        """The point at a share in [0, 1] of the curve's parameter."""
        rest = 1 - share
        return (
            rest**3 * self.start
            + 3 * rest**2 * share * self.first
            + 3 * rest * share**2 * self.second
            + share**3 * self.end
        )

    def path(self) -> str:
        return f"M{pair(self.start)}C{pair(self.first)} {pair(self.second)} {pair(self.end)}"


class Map:
    """Draws the network of a job around a hub, its control centre."""

    def __init__(self, job: JobView, sites: Sequence[SiteState], hub: complex) -> None:
        self._job = job
        self._hub = hub
        self._places = _places(job, sites, hub)
        self._midpoints: list[complex] = []
        self._badges: list[complex] = []
        self._most_bytes = max((visit.bytes_in for visit in job.route), default=0) or 1

    def drawn(self) -> Iterator[str]:
        """Links, then arrows, sites and numbers: later ones are drawn over earlier ones."""
        for place in self._places.values():
            yield line(
                self._hub,
                place.at,
                class_="rule",
                stroke_width=1.5,
                stroke_dasharray="1 4",
                stroke_linecap="round",
            )
        badges: list[str] = []
        for position, visit in enumerate(self._job.route):
            target = self._places.get(visit.site)
            if target is None:
                continue
            curve = self._curve(position, target)
            yield from self._arrow(curve, visit)
            badges += self._badge(curve, position)
        yield box(self._hub.real - 28, self._hub.imag - 18, 56, 36, rx=8, class_="dark")
        yield text("control", self._hub - 2j, "small b on", "middle")
        yield text("centre", self._hub + 10j, "small b on", "middle")
        for place in self._places.values():
            yield from _site(self._job, place, self._hub)
        yield from badges

    def _curve(self, position: int, target: _Place) -> _Curve:
        start = start_of(self._job, position)
        source = self._places.get(self._job.route[start].site) if start >= 0 else None
        if source is None:
            inward = _unit(self._hub - target.at)
            away = target.at + inward * (target.radius + 44)
            near = target.at + inward * (target.radius + 3)
            return _Curve(away, away, near, near)
        if source.at == target.at:
            return self._loop(target)
        curves = [_bowed(source, target, bend) for bend in _BENDS]
        best = min(curves, key=lambda curve: self._crowding(curve, source, target))
        self._midpoints.append(best.at(0.5))
        return best

    def _loop(self, place: _Place) -> _Curve:
        """Further training at the same site: out and back on the inner side."""
        inward = _unit(self._hub - place.at)
        turns = [cmath.rect(1, turn) for turn in (0, 0.75, -0.75, 1.4, -1.4)]
        apexes = [place.at + (place.radius + 34) * inward * turn for turn in turns]
        apex = max(apexes, key=lambda at: min([60.0, *(abs(at - m) for m in self._midpoints)]))
        self._midpoints.append(apex)
        outward = _unit(apex - place.at)
        side = outward * 1j
        return _Curve(
            place.at + place.radius * outward * cmath.rect(1, -0.5),
            apex + 14 * outward - 26 * side,
            apex + 14 * outward + 26 * side,
            place.at + (place.radius + 3) * outward * cmath.rect(1, 0.5),
        )

    def _crowding(self, curve: _Curve, source: _Place, target: _Place) -> float:
        """Less is better: proximity to sites, hub, labels and other arrows, plus the bow itself."""
        points = [curve.at(n / 12) for n in range(1, 12)]
        bow = abs(curve.at(0.5) - (curve.start + curve.end) / 2)
        crowding = 0.12 * bow
        for point in points:
            away = point - self._hub
            crowding += max(0.0, _HUB_CLEARANCE - abs(away))
            out = abs(complex(away.real / _RING.real, away.imag / _RING.imag))
            crowding += _OUTSIDE * max(0.0, out - 1.06)
            for place in self._places.values():
                if place.at not in (source.at, target.at):
                    crowding += max(0.0, place.radius + 16 - abs(point - place.at))
        middle = curve.at(0.5)
        return crowding + sum(3 * max(0.0, 26 - abs(middle - m)) for m in self._midpoints)

    def _arrow(self, curve: _Curve, visit: VisitView) -> Iterator[str]:
        width = 1.8 + 3.4 * visit.bytes_in / self._most_bytes
        colour = visit_colour(self._job, visit)
        head = 6 + 1.7 * width
        back = _unit(curve.at(0.9) - curve.end) if curve.start != curve.end else 1
        neck = curve.end + head * 0.8 * back
        shaft = _Curve(curve.start, curve.first, curve.second, neck)
        yield element(
            "path",
            d=shaft.path(),
            fill="none",
            stroke=colour,
            stroke_width=width,
            stroke_linecap="round",
            opacity=0.85,
        )
        base, side = curve.end + head * back, head * 0.5 * back * 1j
        yield element(
            "polygon",
            points=" ".join(pair(p) for p in (curve.end, base + side, base - side)),
            fill=colour,
        )

    def _badge(self, curve: _Curve, position: int) -> Iterator[str]:
        def room(share: float) -> float:
            at = curve.at(share)
            others = [abs(at - other) for other in self._badges]
            nodes = [abs(at - p.at) - p.radius for p in self._places.values()]
            return min([2.4 * _BADGE_RADIUS, *others, *nodes, abs(at - self._hub) - 20])

        short = abs(curve.start - curve.end) < 60 and curve.first == curve.start
        at = curve.start if short else curve.at(max(_SHARES, key=room))
        self._badges.append(at)
        yield element(
            "circle",
            cx=at.real,
            cy=at.imag,
            r=_BADGE_RADIUS,
            class_="dark ring",
            stroke_width=1.5,
        )
        yield text(str(position + 1), at + 4j, "small b on", "middle")


def _places(job: JobView, sites: Sequence[SiteState], hub: complex) -> dict[str, _Place]:
    """Positions of visited sites, the others, and verifiers, in this order.

    Visited sites are in the order of their first visit, clockwise from the top, so that a route
    runs around the ring where possible.
    """
    order = {site: n for n, site in enumerate(dict.fromkeys(v.site for v in job.route))}

    def key(state: SiteState) -> tuple[bool, int, str]:
        site = state.descriptor.site
        return (is_verifier(state), order.get(site, len(order)), site)

    places: dict[str, _Place] = {}
    most = max((_samples(state) for state in sites), default=0) or 1
    for number, state in enumerate(sorted(sites, key=key)):
        turn = cmath.rect(1, 2 * math.pi * (number + 0.5) / len(sites) - math.pi / 2)
        at = hub + complex(_RING.real * turn.real, _RING.imag * turn.imag)
        radius = 14 + 11 * math.sqrt(_samples(state) / most)
        places[state.descriptor.site] = _Place(state, at, radius)
    return places


def _bowed(source: _Place, target: _Place, bend: float) -> _Curve:
    """From rim to rim; a positive bend bows to the left of the direction of travel."""
    way = target.at - source.at
    out = way * -1j * bend
    first, second = source.at + way / 3 + out, source.at + 2 * way / 3 + out
    start = source.at + (source.radius + 2) * _unit(first - source.at)
    end = target.at + (target.radius + 3) * _unit(second - target.at)
    return _Curve(start, first, second, end)


def _site(job: JobView, place: _Place, hub: complex) -> Iterator[str]:
    node = place.state.descriptor
    visits = [visit for visit in job.route if visit.site == node.site]
    yield from _symbol(job, place, bool(visits))
    side = (place.at - hub).real / _RING.real
    anchor = "middle" if abs(side) < 0.3 else ("start" if side > 0 else "end")
    gap = place.radius + 8
    corner = place.at + (gap if side > 0 else -gap) - 6j
    if anchor == "middle":
        corner = place.at + (-1j * (gap + 28) if place.at.imag < hub.imag else 1j * (gap + 9))
    yield text(shortened(node.site, 16), corner, "b halo", anchor)
    for number, words in enumerate(_about(job, place.state, visits), 1):
        yield text(words, corner + 14j * number, "soft small halo", anchor)


def _symbol(job: JobView, place: _Place, visited: bool) -> Iterator[str]:
    colour = _site_colour(job, place.state)
    dashes: dict[str, object] = {} if place.state.alive else {"stroke_dasharray": "4 3"}
    rim: dict[str, object] = {"style": f"stroke:{colour}"} if colour else {}
    yield _shape(place, 0, class_="node", stroke_width=2, **dashes, **rim)
    if visited and colour:
        yield _shape(place, 4.5, fill=colour, opacity=0.9)


def _shape(place: _Place, inset: float, **attributes: object) -> str:
    """A circle for general data, a hexagon for a speciality, a square for a verifier."""
    radius, at = place.radius - inset, place.at
    if is_verifier(place.state):
        return box(at.real - radius, at.imag - radius, 2 * radius, 2 * radius, rx=4, **attributes)
    if not is_speciality(place.state):
        return element("circle", cx=at.real, cy=at.imag, r=radius, **attributes)
    corners = [at + cmath.rect(radius * 1.1, math.pi * (n / 3 + 1 / 6)) for n in range(6)]
    points = " ".join(pair(corner) for corner in corners)
    return element("polygon", points=points, stroke_linejoin="round", **attributes)


def _about(job: JobView, state: SiteState, visits: Sequence[VisitView]) -> tuple[str, ...]:
    if is_verifier(state):
        measured = [o.name for o in job.objectives if o.verifier == state.descriptor.site]
        return ("verifier", f"measures {', '.join(measured)}") if measured else ("verifier",)
    topics = [topic.rpartition("/")[2] for topic in _topics(state)]
    about = shortened(", ".join(topics) or "no data", 18)
    if not state.alive:
        return (about, "away")
    if not visits:
        return (about, f"{_samples(state):,} records")
    times = "1 visit" if len(visits) == 1 else f"{len(visits)} visits"
    return (about, f"{times}, {sum(visit.seconds for visit in visits):.1f} s")


def _topics(state: SiteState) -> tuple[str, ...]:
    topics = (topic for data in state.descriptor.datasets for topic in data.topics)
    return tuple(dict.fromkeys(topics))


def _samples(state: SiteState) -> int:
    return sum(data.samples for data in state.descriptor.datasets)


def is_speciality(state: SiteState) -> bool:
    """Whether all its topics are branches of a tree, and none is the tree's general branch."""
    topics = _topics(state)
    return bool(topics) and all("/" in t and not t.endswith("/general") for t in topics)


def is_verifier(state: SiteState) -> bool:
    """Whether it measures models and has no training data."""
    return state.descriptor.verifier is not None and not state.descriptor.datasets


def _site_colour(job: JobView, state: SiteState) -> str | None:
    """Colour of the objective with the narrowest topic that its data (or its measuring) serves."""
    site, topics = state.descriptor.site, _topics(state)
    if is_verifier(state):
        serves = [o for o in job.objectives if o.verifier == site]
    else:
        serves = [o for o in job.objectives if any(covers_topic(o.topic, t) for t in topics)]
    narrowest = max(serves, key=lambda o: o.topic.count("/"), default=None)
    return objective_colour(job, narrowest.name) if narrowest else None


def _unit(way: complex) -> complex:
    return way / abs(way) if way else 1 + 0j
