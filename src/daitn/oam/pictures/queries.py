"""The picture of the demo's queries: which deployment served which stream, and how well.

Streams are on the left, deployments on the right; a band's width is its number of queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from daitn.oam.pictures.drawing import box, document, element, text

__all__ = ["StreamServed", "queries_picture"]

_MARGIN = 28.0
_TOP = 104.0
_LEFT = 330.0
"""Right edge of the streams' bars."""
_RIGHT = 690.0
"""Left edge of the deployments' bars."""
_WIDTH = 1010.0
_BAR = 12.0
_PER_QUERY = 0.62
_GAP = 34.0
_LEAST = 26.0
"""Room for a label's two lines."""
_COLOURS = ("#1f6feb", "#bf3989", "#9a6700", "#1a7f37", "#8250df")


class StreamServed(msgspec.Struct, frozen=True, kw_only=True):
    """How one stream was served."""

    name: str
    constraints: dict[str, Any]
    queries: int
    answered: int
    accuracy: float
    """Share of all queries that were answered correctly."""
    standard_error: float
    where: dict[str, int]
    """`model@facility` to queries answered there."""
    topics: dict[str, int]
    """Topic under which the query was classified, to number of queries."""
    p50_ms: float
    overhead_p50_ms: float
    """The part of it spent in the gateway."""
    cost_usd: float
    decision: str
    """Id of the last query, for `daitn explain`."""
    failures: tuple[str, ...]


def queries_picture(queries: Sequence[StreamServed]) -> str:
    """Draw how streams of queries found their models, as a self-contained SVG."""
    places = sorted({where for served in queries for where in served.where})
    totals = {p: sum(served.where.get(p, 0) for served in queries) for p in places}
    lefts = _stacked([float(served.queries) for served in queries])
    rights = dict(zip(places, _stacked([float(totals[p]) for p in places]), strict=True))
    height = max(_end(lefts), _end(list(rights.values()))) + 56
    body = [
        text("Queries find models", complex(_MARGIN, 40), "h1"),
        text("what was asked through one gateway, and who answered", complex(_MARGIN, 62), "soft"),
        *_bands(queries, lefts, rights),
        *(part for served, at in zip(queries, lefts, strict=True) for part in _stream(served, at)),
        *(part for place in places for part in _place(place, totals[place], rights[place])),
    ]
    return document("\n".join(body), _WIDTH, height, "Streams of queries and their deployments")


def _stacked(counts: list[float]) -> list[tuple[float, float]]:
    """Top and height of a bar for each count."""
    bars, y = [], _TOP
    for count in counts:
        bars.append((y, max(count * _PER_QUERY, 1.0)))
        y += max(count * _PER_QUERY, _LEAST) + _GAP
    return bars


def _end(bars: list[tuple[float, float]]) -> float:
    return max((top + max(height, _LEAST) for top, height in bars), default=_TOP)


def _bands(
    queries: Sequence[StreamServed],
    lefts: list[tuple[float, float]],
    rights: dict[str, tuple[float, float]],
) -> Iterator[str]:
    filled = {place: top for place, (top, _) in rights.items()}
    for index, (served, (top, _)) in enumerate(zip(queries, lefts, strict=True)):
        y = top
        for place, count in sorted(served.where.items()):
            width = count * _PER_QUERY
            start, end = complex(_LEFT, y + width / 2), complex(_RIGHT, filled[place] + width / 2)
            middle = (start.real + end.real) / 2
            path = (
                f"M{start.real:.1f},{start.imag:.1f}C{middle:.1f},{start.imag:.1f} "
                f"{middle:.1f},{end.imag:.1f} {end.real:.1f},{end.imag:.1f}"
            )
            yield element(
                "path",
                d=path,
                fill="none",
                stroke=_COLOURS[index % len(_COLOURS)],
                stroke_width=width,
                stroke_opacity=0.45,
            )
            y += width
            filled[place] += width


def _stream(served: StreamServed, bar: tuple[float, float]) -> Iterator[str]:
    top, height = bar
    yield box(_LEFT - _BAR, top, _BAR, height, class_="dark")
    at = complex(_LEFT - _BAR - 10, top + 14)
    constraints = (
        ", ".join(f"{name} {value}" for name, value in served.constraints.items())
        or "no constraints"
    )
    yield text(served.name, at, "b", "end")
    yield text(constraints, at + 16j, "small soft", "end")
    yield text(
        f"{served.accuracy:.3f} right, {served.p50_ms:.0f} ms, {served.overhead_p50_ms:.1f} ms in "
        "the gateway",
        at + 32j,
        "small soft",
        "end",
    )


def _place(place: str, count: int, bar: tuple[float, float]) -> Iterator[str]:
    top, height = bar
    yield box(_RIGHT, top, _BAR, height, class_="dark")
    yield text(place, complex(_RIGHT + _BAR + 10, top + 14), "b")
    yield text(f"{count} queries", complex(_RIGHT + _BAR + 10, top + 30), "small soft")
