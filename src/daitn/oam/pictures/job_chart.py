"""Each objective along a job of any length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from daitn.oam.pictures.drawing import element, line, pair, shortened, text
from daitn.oam.pictures.visits import objective_colour
from daitn.objects.jobs import JobView, ObjectiveView

__all__ = ["ChartPoint", "job_chart"]

_WIDTH, _HEIGHT = 720.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 112.0, 16.0, 44.0
_DOTS = 60
"""Above this many points, they are small and without errors."""
_TICKS = 12
_APART = 28.0
"""Minimum distance of two names at the right."""


class ChartPoint(NamedTuple):
    """A measured model."""

    number: int
    """0 means untrained."""
    where: str
    values: dict[str, float]
    errors: dict[str, float]
    kept: bool
    """Whether the best model descends from it."""


def job_chart(job: JobView, points: Sequence[ChartPoint]) -> str:
    """An SVG without a style of its own. `points` is not empty."""
    body = "\n".join(_JobChart(job, points).drawn())
    label = f"Measured values along the job, {len(points)} models"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        f'class="wide">{body}</svg>'
    )


class _JobChart:
    def __init__(self, job: JobView, points: Sequence[ChartPoint]) -> None:
        self._job = job
        self._points = points
        self._last = max(point.number for point in points) or 1
        shown = [v for p in points for v in p.values.values()] + [o.target for o in job.objectives]
        self._low = max(0.0, min(shown) - 0.06)
        self._high = min(1.0, max(shown) + 0.06)
        if self._high - self._low < 0.1:
            self._low = max(0.0, self._high - 0.1)

    def _at(self, number: float, value: float) -> complex:
        x = _LEFT + 8 + (_WIDTH - _LEFT - _RIGHT - 16) * number / self._last
        share = (value - self._low) / (self._high - self._low)
        return complex(x, _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share))

    def drawn(self) -> Iterator[str]:
        yield from self._axes()
        for objective in self._job.objectives:
            yield from self._objective(objective)
        yield from self._names()

    def _axes(self) -> Iterator[str]:
        step = (
            0.2 if self._high - self._low > 0.5 else 0.1 if self._high - self._low > 0.2 else 0.05
        )
        for number in range(round(1 / step) + 1):
            value = number * step
            if self._low <= value <= self._high:
                y = self._at(0, value).imag
                yield line(complex(_LEFT, y), complex(_WIDTH - _RIGHT, y), class_="rule")
                yield text(f"{value:.2g}", complex(_LEFT - 6, y + 4), "soft small", "end")
        every = max(1, -(-len(self._points) // _TICKS))
        for point in self._points[::every]:
            x = self._at(point.number, 0).real
            name = shortened(point.where, 11) if len(self._points) <= _TICKS else str(point.number)
            yield text(name, complex(x, _HEIGHT - 24), "soft small", "middle")
        under = "where the model was" if len(self._points) <= _TICKS else "visits and rounds"
        middle = complex((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6)
        yield text(under, middle, "soft small", "middle")

    def _objective(self, objective: ObjectiveView) -> Iterator[str]:
        name, colour = objective.name, objective_colour(self._job, objective.name)
        y = self._at(0, objective.target).imag
        ends = complex(_LEFT, y), complex(_WIDTH - _RIGHT, y)
        yield line(*ends, stroke=colour, stroke_width=1.3, stroke_dasharray="6 4", opacity=0.8)
        known = [point for point in self._points if name in point.values]
        kept = [point for point in known if point.kept]
        if len(kept) > 1:
            way = " ".join(pair(self._at(p.number, p.values[name])) for p in kept)
            yield element(
                "polyline", points=way, fill="none", stroke=colour, stroke_width=2.2,
                stroke_linejoin="round", stroke_linecap="round",
            )  # fmt: skip
        if len(known) > _DOTS:
            for point in known:
                at = self._at(point.number, point.values[name])
                opacity = 1.0 if point.kept else 0.45
                yield element(
                    "circle", cx=at.real, cy=at.imag, r=1.5, fill=colour, opacity=str(opacity)
                )
            return
        for point in known:
            at = self._at(point.number, point.values[name])
            error = point.errors.get(name, 0.0)
            if error:
                low, high = (
                    self._at(point.number, point.values[name] + e) for e in (-error, error)
                )
                yield line(low, high, stroke=colour, stroke_width=1.2, opacity=0.55)
            point_of = {"class_": "node", "style": f"stroke:{colour}"}
            if point.kept:
                point_of = {"class_": "ring", "fill": colour}
            yield element("circle", cx=at.real, cy=at.imag, r=4.0, stroke_width=1.5, **point_of)

    def _names(self) -> Iterator[str]:
        """Names at the right, moved apart where two would touch."""
        lowest = -_APART
        reached = [o for o in self._job.objectives if o.reached is not None]
        for objective in sorted(reached, key=lambda o: -(o.reached or 0.0)):
            y = max(self._at(0, objective.reached or 0.0).imag, lowest + _APART)
            lowest = y
            colour = objective_colour(self._job, objective.name)
            at = complex(_WIDTH - _RIGHT + 8, y)
            yield text(shortened(objective.name, 14), at, "b", style=f"fill:{colour}")
            verdict = "reached" if objective.holds else "missed"
            yield text(f"{objective.reached:.3f} {verdict}", at + 13j, "small soft")
