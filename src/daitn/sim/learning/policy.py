"""The interface of a route policy: asked for the next visit, it answers or gives up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from daitn.control.jobs.job import Job
from daitn.control.route.question import RouteQuestion
from daitn.objects.decisions import Round
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.randomness import Rng

__all__ = ["Experienced", "RoutePolicy", "VisitChosen"]


@dataclass(frozen=True)
class VisitChosen:
    """The next visit."""

    start: Digest | None
    """The checkpoint it starts from; None for a fresh model."""
    site: SiteId
    dataset: str
    examples: int


class RoutePolicy(Protocol):
    """Chooses where a model is trained next."""

    @property
    def name(self) -> str: ...

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | Round | None:
        """The next visit or round; None gives up, or waits if disconnected sites may come back."""
        ...


@runtime_checkable
class Experienced(Protocol):
    """A policy that learns from finished jobs."""

    def finished(self, job: Job, question: RouteQuestion) -> None:
        """A job has ended. `question` is what it would ask now, with all visits included."""
        ...
