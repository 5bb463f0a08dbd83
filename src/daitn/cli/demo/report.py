"""The demo's report: targets, results, route and costs."""

from __future__ import annotations

import msgspec

from daitn.cli.demo.asking import SampleAnswers
from daitn.cli.demo.base import Base
from daitn.cli.demo.expected import ExpectedRoute
from daitn.oam.pictures.queries import StreamServed
from daitn.objects.jobs import JobState, JobView

__all__ = ["BaseReport", "Baseline", "DemoOutcome", "DemoReport", "RouteVisit", "make_report"]


class DemoOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One objective."""

    name: str
    target: float
    reached: float | None
    verifier: str | None
    untrained: float | None
    standard_error: float | None
    items: int | None


class RouteVisit(msgspec.Struct, frozen=True, kw_only=True):
    """One visit of the route."""

    site: str
    work: int
    """Training examples."""
    seconds: float
    """Training only."""
    transfer_s: float
    overhead_s: float
    verify_s: float
    bytes_in: int
    values: dict[str, float]
    gains: dict[str, float]


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The results of another way to train, measured by the same verifiers."""

    name: str
    reached: dict[str, float]
    passes: dict[str, bool]
    holds: bool
    """Whether all targets held for one model."""
    route: tuple[str, ...]
    """Its visits, one site for each."""
    examples: int
    bytes_moved: int
    seconds: float
    """From submission to the last verification."""


class BaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """A base before training, and the verifiers' measurements and answers of both models."""

    base: Base
    measured: dict[str, float]
    """Result of each test before training."""
    asked: dict[str, dict[str, float]]
    """Model to topic to accuracy, as measured by querying the deployments."""
    answers: tuple[SampleAnswers, ...]


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """`out/demo/report.json`."""

    objectives: tuple[DemoOutcome, ...]
    route: tuple[RouteVisit, ...]
    examples: int
    algorithm: str
    seconds: float
    """From submission to the last verification."""
    bytes_moved: int
    data_source: str
    reached: bool
    expected: tuple[ExpectedRoute, ...]
    """What the planner expected before the first visit: of its route, then of obvious ones."""
    chosen: tuple[str, ...]
    """The chosen algorithm, and why, at each change."""
    model: str
    parameters: int
    model_bytes: int
    baselines: tuple[Baseline, ...]
    queries: tuple[StreamServed, ...]
    """How the deployed models answered queries."""
    total_seconds: float
    """The whole demo, including start-up and baselines."""
    means: str
    base: BaseReport | None = None
    """With `--base`."""


MEANS = (
    "Accuracy says how often the model prefers the answer that belongs to a question over three "
    "answers about the same disease. It says nothing about clinical competence."
)


def make_report(
    job: JobView,
    expected: tuple[ExpectedRoute, ...],
    chosen: tuple[str, ...],
    baselines: tuple[tuple[str, JobView], ...],
    queries: tuple[StreamServed, ...],
    data_source: str,
    total_s: float,
    base: BaseReport | None = None,
) -> DemoReport:
    """Assemble the jobs' figures; computes nothing new."""
    return DemoReport(
        objectives=tuple(
            DemoOutcome(
                name=o.name,
                target=o.target,
                reached=o.reached,
                verifier=o.verifier,
                untrained=job.untrained.get(o.name),
                standard_error=o.standard_error,
                items=o.items,
            )
            for o in job.objectives
        ),
        route=tuple(
            RouteVisit(
                site=v.site,
                work=v.work,
                seconds=v.seconds,
                transfer_s=v.transfer_s,
                overhead_s=v.overhead_s,
                verify_s=v.verify_s,
                bytes_in=v.bytes_in,
                values=v.values,
                gains=v.gains,
            )
            for v in job.route
        ),
        examples=job.examples,
        algorithm=job.algorithm,
        seconds=job.seconds,
        bytes_moved=job.bytes_moved,
        data_source=data_source,
        reached=job.state is JobState.REACHED,
        expected=expected,
        chosen=chosen,
        model=job.model.manifest if job.model else "",
        parameters=job.needs.parameters,
        model_bytes=job.model.size_bytes if job.model else 0,
        baselines=(_untrained(job), *(_baseline(name, view) for name, view in baselines)),
        queries=queries,
        total_seconds=total_s,
        means=MEANS,
        base=base,
    )


def _baseline(name: str, job: JobView) -> Baseline:
    reached = {o.name: o.reached for o in job.objectives if o.reached is not None}
    return Baseline(
        name=name,
        reached=reached,
        passes=_passes(job, reached),
        holds=job.state is JobState.REACHED,
        route=tuple(visit.site for visit in job.route),
        examples=job.examples,
        bytes_moved=job.bytes_moved,
        seconds=job.seconds,
    )


def _passes(job: JobView, reached: dict[str, float]) -> dict[str, bool]:
    return {o.name: reached.get(o.name, 0.0) >= o.target for o in job.objectives}


def _untrained(job: JobView) -> Baseline:
    passes = _passes(job, job.untrained)
    return Baseline(
        name="untrained",
        reached=job.untrained,
        passes=passes,
        holds=all(passes.values()),
        route=(),
        examples=0,
        bytes_moved=0,
        seconds=0.0,
    )
