"""What a route policy is: it is asked where the model goes next, and answers or gives up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from daitn.control.jobs.job import Job
from daitn.control.route.question import RouteQuestion
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.randomness import Rng

__all__ = ["Experienced", "RoutePolicy", "VisitChosen"]


@dataclass(frozen=True)
class VisitChosen:
    """The next visit."""

    start: Digest | None
    """The checkpoint from which it starts; None for a fresh model."""
    site: SiteId
    dataset: str
    examples: int


class RoutePolicy(Protocol):
    """Says where a model is trained next."""

    @property
    def name(self) -> str: ...

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        """The next visit; None gives up (or waits, where sites are away that may come back)."""
        ...


@runtime_checkable
class Experienced(Protocol):
    """A policy that learns from jobs that are over."""

    def finished(self, job: Job, question: RouteQuestion) -> None:
        """A job is over. `question` is what would be asked now: all visits are in it."""
        ...
