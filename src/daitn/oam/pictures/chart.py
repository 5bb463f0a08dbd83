"""The right of the demo's picture: each objective along the route, and other ways to train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daitn.oam.pictures.drawing import box, element, line, pair, shortened, text
from daitn.oam.pictures.visits import LOSS_COLOUR, objective_colour, start_of, successful
from daitn.objects.jobs import JobView, ObjectiveView

__all__ = ["BAR_ROW", "FULL_TINT", "Chart", "bars", "chart_height"]

COLUMN_WIDTH = 39.0
"""Width of one visit: room for `0.812`."""
BAR_ROW = 25.0
_PLOT = 250.0
_NAMES = 74.0
_TOOK = 92.0
"""Width of the costs of each way to train: room for `12,345, 1234 s`."""
_STRIP = 38.0
FULL_TINT = 0.25
"""A gain or loss of this size gets the strongest tint."""


def chart_height(job: JobView) -> float:
    """Height from the top of the plot to the end of the strips below it."""
    return _PLOT + _NAMES + _STRIP * len(job.objectives) + 8


class Chart:
    """Accuracy after each visit; below each visit its site and what the model gained or forgot."""

    def __init__(self, job: JobView, corner: complex, width: float) -> None:
        self._job = job
        self._corner = corner
        self._column = width / (len(job.route) + 1)
        self._width = width
        self._successful = successful(job)

    def drawn(self) -> Iterator[str]:
        yield from self._axes()
        for objective in self._job.objectives:
            yield from self._target(objective)
        for objective in self._job.objectives:
            yield from self._line(objective)
        yield from self._ends()
        yield from self._visits()
        for number, objective in enumerate(self._job.objectives):
            yield from self._strip(objective, number)

    def _at(self, position: int, value: float) -> complex:
        """Position of the value after visit `position` (-1: untrained)."""
        x = self._column * (position + 1.5)
        return self._corner + complex(x, _PLOT * (1 - value))

    def _axes(self) -> Iterator[str]:
        for tenth in range(0, 11, 2):
            at = self._corner + 1j * _PLOT * (1 - tenth / 10)
            yield line(at, at + self._width, class_="axis" if tenth == 0 else "rule")
            yield text(f"{tenth / 10:.1f}", at - 8 + 4j, "soft small", "end")

    def _target(self, objective: ObjectiveView) -> Iterator[str]:
        colour = objective_colour(self._job, objective.name)
        at = self._corner + 1j * _PLOT * (1 - objective.target)
        yield line(at, at + self._width, stroke=colour, stroke_width=1.5, stroke_dasharray="6 4")
        words = f"target {shortened(objective.name, 14)} {objective.target:.2f}"
        yield text(words, at + 4 - 5j, "small b halo", style=f"fill:{colour}")

    def _line(self, objective: ObjectiveView) -> Iterator[str]:
        """Join each visit to the model it started from; an abandoned visit is hollow."""
        name, colour = objective.name, objective_colour(self._job, objective.name)
        points = {-1: self._job.untrained.get(name)}
        points |= {n: visit.values.get(name) for n, visit in enumerate(self._job.route)}
        for position in range(len(self._job.route)):
            start = start_of(self._job, position)
            before, after = points[start], points[position]
            if before is None or after is None:
                continue
            led = position in self._successful
            yield element(
                "path",
                d=f"M{pair(self._at(start, before))}L{pair(self._at(position, after))}",
                fill="none",
                stroke=colour,
                stroke_width=2.4 if led else 1.3,
                stroke_linecap="round",
                opacity=1 if led else 0.6,
            )
        for position, value in points.items():
            if value is None:
                continue
            at, led = self._at(position, value), position in {-1, *self._successful}
            fill = {"fill": colour} if led else {"class_": "node"}
            rim = {"class_": "ring"} if led else {"style": f"stroke:{colour}"}
            yield element(
                "circle", cx=at.real, cy=at.imag, r=4.2, stroke_width=1.5, **{**fill, **rim}
            )

    def _ends(self) -> Iterator[str]:
        """Reached values at the right, moved apart where two would touch."""
        reached = [o for o in self._job.objectives if o.reached is not None]
        x = self._corner.real + self._width + 10
        lowest = self._corner.imag - 40
        for objective in sorted(reached, key=lambda o: -(o.reached or 0.0)):
            y = max(self._at(0, objective.reached or 0.0).imag, lowest + 34)
            lowest = y
            colour = objective_colour(self._job, objective.name)
            words = shortened(objective.name, 14)
            yield text(words, complex(x, y - 2), "b", style=f"fill:{colour}")
            verdict = "reached" if objective.holds else "missed"
            yield text(f"{objective.reached:.3f} {verdict}", complex(x, y + 12), "small soft")

    def _visits(self) -> Iterator[str]:
        top = self._corner.imag + _PLOT
        for position in range(-1, len(self._job.route)):
            x = self._at(position, 0).real
            if position >= 0:
                yield element("circle", cx=x, cy=top + 15, r=9.0, class_="dark")
                yield text(str(position + 1), complex(x, top + 19), "small b on", "middle")
            name = "untrained" if position < 0 else shortened(self._job.route[position].site, 11)
            at = complex(x + 5, top + (32 if position >= 0 else 16))
            turned = f"rotate(-40 {pair(at)})"
            yield text(name, at, "small soft", "end", transform=turned)

    def _strip(self, objective: ObjectiveView, number: int) -> Iterator[str]:
        """Per visit the measured value, and the gain over its start on a tint of that size."""
        name, colour = objective.name, objective_colour(self._job, objective.name)
        left, top = self._corner.real, self._corner.imag + _PLOT + _NAMES + _STRIP * number
        head = complex(left - 8, top + 14)
        yield text(shortened(name, 12), head, "small b", "end", style=f"fill:{colour}")
        yield text("gain", head + 15j, "small soft", "end")
        untrained = self._job.untrained.get(name)
        if untrained is not None:
            x = self._at(-1, 0).real
            yield text(f"{untrained:.3f}", complex(x, top + 14), "small soft", "middle")
        for position, visit in enumerate(self._job.route):
            x, gain = self._at(position, 0).real, visit.gains.get(name, 0.0)
            strength = min(1.0, abs(gain) / FULL_TINT)
            yield box(
                x - self._column / 2 + 1,
                top,
                self._column - 2,
                _STRIP - 4,
                rx=3,
                fill=colour if gain >= 0 else LOSS_COLOUR,
                fill_opacity=f"{0.06 + 0.34 * strength:.2f}",
            )
            if name in visit.values:
                yield text(f"{visit.values[name]:.3f}", complex(x, top + 14), "small", "middle")
            shown = {"style": f"fill:{LOSS_COLOUR}"} if gain < 0 else {}
            class_ = "small b" if gain < 0 else "small soft"
            yield text(_signed(gain), complex(x, top + 29), class_, "middle", **shown)


def bars(
    job: JobView, baselines: Sequence[tuple[str, JobView]], corner: complex, width: float
) -> Iterator[str]:
    """One small panel per objective with each way to train against the target, then their costs."""
    trained = (*baselines, ("planned route", job))
    ways = [("untrained", job.untrained), *((name, _reached(other)) for name, other in trained)]
    for row, (name, _) in enumerate(ways):
        at = corner + 1j * (BAR_ROW * row + 15)
        class_ = "b" if row == len(ways) - 1 else "soft"
        yield text(shortened(name, 19), at + 58, class_, "end")
    panel = (width - 70 - _TOOK) / len(job.objectives)
    for number, objective in enumerate(job.objectives):
        at = corner + complex(70 + panel * number, 0)
        yield from _panel(job, objective, ways, at, panel - 92)
    end = corner + width
    yield text("examples, time", end - 8j, "small b", "end")
    for row, (_, other) in enumerate(trained, 1):
        class_ = "small b" if other is job else "small soft"
        words = f"{other.examples:,}, {other.seconds:.0f} s"
        yield text(words, end + 1j * (BAR_ROW * row + 15), class_, "end")


def _panel(
    job: JobView,
    objective: ObjectiveView,
    ways: Sequence[tuple[str, dict[str, float]]],
    corner: complex,
    width: float,
) -> Iterator[str]:
    colour = objective_colour(job, objective.name)
    title = f"{shortened(objective.name, 16)} (target {objective.target:.2f})"
    yield text(title, corner - 8j, "small b", style=f"fill:{colour}")
    for row, (_, values) in enumerate(ways):
        value = values.get(objective.name)
        if value is None:
            yield text("not measured", corner + 1j * (BAR_ROW * row + 15), "small soft")
            continue
        last = row == len(ways) - 1
        look: dict[str, object] = {"fill": colour} if last else {"class_": "bar"}
        top = corner + 1j * BAR_ROW * row
        yield box(top.real, top.imag + 3, max(1.0, width * value), 15, rx=2.5, **look)
        mark = "✓" if value >= objective.target else "✗"
        at = top + max(width * value, width * objective.target) + 8 + 15j
        yield text(f"{value:.3f} {mark}", at, "small b" if last else "small soft")
    x = corner + width * objective.target
    yield line(
        x,
        x + 1j * (BAR_ROW * len(ways) - 2),
        stroke=colour,
        stroke_width=1.5,
        stroke_dasharray="6 4",
    )


def _reached(job: JobView) -> dict[str, float]:
    return {o.name: o.reached for o in job.objectives if o.reached is not None}


def _signed(gain: float) -> str:
    """Three decimals with a sign, as wide as the value above it."""
    return f"{gain:+.3f}".replace("0.", ".", 1).replace("-", "−")
