"""One picture of a trained job: the network and the route, what each visit taught, baselines.

The SVG is self-contained: no script, no font, no link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daitn.oam.pictures.chart import BAR_ROW, COLUMN_WIDTH, Chart, bars, chart_height
from daitn.oam.pictures.drawing import document, element, line, text
from daitn.oam.pictures.route_map import Map
from daitn.oam.pictures.visits import LOSS_COLOUR, objective_colour
from daitn.oam.words import size
from daitn.objects.jobs import JobView
from daitn.topology.snapshot import SiteState

__all__ = ["network_picture"]

_MARGIN = 28.0
_TOP = 116.0
_MAP_WIDTH = 580.0
_CHART_LEFT = _MARGIN + _MAP_WIDTH + 84
_CHART_WIDTH = 520.0
"""Minimum; a longer route widens the picture."""
_RIGHT = 118.0
_HEIGHT = 700.0
"""Minimum; more baselines or objectives increase it."""


def network_picture(
    job: JobView,
    sites: Sequence[SiteState],
    baselines: Sequence[tuple[str, JobView]],
    data_source: str,
) -> str:
    """Draw a job as SVG: its network and route, its objectives along the route, its baselines.

    `baselines` are other jobs with the same objectives, with their display names.
    """
    width = max(_CHART_WIDTH, COLUMN_WIDTH * (len(job.route) + 1))
    bars_top = _TOP + chart_height(job) + 64
    height = max(bars_top + BAR_ROW * (len(baselines) + 2) + 50, _HEIGHT)
    hub = complex(_MARGIN + _MAP_WIDTH / 2, (_TOP + height - 120) / 2 + 8)
    parts = [
        *_heading(job),
        text("Network and route", complex(_MARGIN, _TOP - 24), "h2"),
        *Map(job, sites, hub).drawn(),
        *_legend(job, complex(_MARGIN, height - 78)),
        text("Accuracy along the route", complex(_CHART_LEFT - 44, _TOP - 24), "h2"),
        *Chart(job, complex(_CHART_LEFT, _TOP), width).drawn(),
        text("Beside other ways to train", complex(_CHART_LEFT - 44, bars_top - 34), "h2"),
        *bars(job, baselines, complex(_CHART_LEFT, bars_top), width + _RIGHT - 30),
        text(f"Data: {data_source}", complex(_MARGIN, height - 20), "soft small"),
    ]
    label = f"Network, route and accuracy of job {job.job}"
    return document("\n".join(parts), _CHART_LEFT + width + _RIGHT, height, label)


def _heading(job: JobView) -> Iterator[str]:
    yield text(f"{job.name}: {job.state}", complex(_MARGIN, 40), "h1")
    visits = "1 visit" if len(job.route) == 1 else f"{len(job.route)} visits"
    facts = (
        f"{job.recipe}, {job.needs.parameters:,} parameters",
        f"{visits}, {job.algorithm}",
        f"{job.examples:,} examples",
        f"{size(job.bytes_moved)} moved",
        f"{job.seconds:.0f} s",
    )
    yield text("  ·  ".join(facts), complex(_MARGIN, 62), "soft")


def _legend(job: JobView, at: complex) -> Iterator[str]:
    """Shapes on the first line, colours on the second."""
    grey = {"class_": "node", "stroke_width": 2}
    yield element("circle", cx=at.real + 7, cy=at.imag - 4, r=6, **grey)
    yield text("general data", at + 20, "small soft")
    yield _hexagon(at + 117 - 4j)
    yield text("speciality", at + 130, "small soft")
    yield element("rect", x=at.real + 204, y=at.imag - 10, width=12, height=12, rx=2, **grey)
    yield text("verifier", at + 222, "small soft")
    yield text("filled: visited  ·  area: records  ·  arrow width: bytes", at + 284, "small soft")
    x = at + 22j
    words = [(f"{o.name} gained most", objective_colour(job, o.name)) for o in job.objectives]
    for name, colour in (*words, ("nothing gained", LOSS_COLOUR)):
        yield line(x - 4j, x + 18 - 4j, stroke=colour, stroke_width=3.5, stroke_linecap="round")
        yield text(name, x + 26, "small soft")
        x += 46 + 6.4 * len(name)


def _hexagon(at: complex) -> str:
    corners = ((0, -7), (6, -3.5), (6, 3.5), (0, 7), (-6, 3.5), (-6, -3.5))
    points = " ".join(f"{at.real + x:.1f},{at.imag + y:.1f}" for x, y in corners)
    return element("polygon", points=points, class_="node", stroke_width=2)
