"""The pipeline one candidate at a time: an oracle for the one over arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

from daitn.objects.decisions import Decision, Rejection, Scored
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.objects.randomness import Rng

__all__ = ["Context", "PlainPolicy", "best"]

_RANKED = 20
"""Candidates kept in a decision's ranking."""


class Context(Protocol):
    """What every context provides; a policy's own context adds what it decides on."""

    @property
    def preferences(self) -> tuple[Preference, ...]: ...
    @property
    def snapshot_version(self) -> int: ...
    @property
    def now_s(self) -> float: ...


ContextT = TypeVar("ContextT", bound=Context)
CandidateT = TypeVar("CandidateT")


def best(ranking: Sequence[Scored], rng: Rng) -> str:
    """Pick the first of the ranking, without drawing."""
    return ranking[0].candidate


@dataclass(frozen=True)
class PlainPolicy(Generic[ContextT, CandidateT]):
    """A named way to decide. All its parts are pure functions of the context and a candidate."""

    name: str
    propose: Callable[[ContextT], Iterable[CandidateT]]
    identify: Callable[[CandidateT], str]
    """Gives a stable, unique id for a candidate."""
    scorers: Mapping[str, Callable[[ContextT, CandidateT], float]]
    """By name; each gives a term in [0, 1], 1 the best."""
    weights: Mapping[str, float]
    """The profile: a weight for every scorer; the context's preferences replace them."""
    filters: tuple[Callable[[ContextT, CandidateT], Rejection | None], ...] = ()
    pick: Callable[[Sequence[Scored], Rng], str] = best

    def decide(self, context: ContextT, rng: Rng) -> Decision:
        """Run all filters on all candidates, rank those that pass all, pick one. Equals stay in
        the order in which they are proposed.

        Raises `InvalidInput` if a preference names an unknown scorer, `ValueError` if two
        candidates share an id or a scorer leaves [0, 1].
        """
        weights = self._weights(context.preferences)
        candidates = self._proposed(context)
        rejections: list[Rejection] = []
        ranking: list[Scored] = []
        for name, candidate in candidates:
            found = [no for check in self.filters if (no := check(context, candidate)) is not None]
            rejections += found
            if not found:
                ranking.append(self._scored(context, name, candidate, weights))
        ranking.sort(key=lambda scored: -scored.score)
        return Decision(
            policy=self.name,
            chosen=self.pick(ranking, rng) if ranking else None,
            ranking=tuple(ranking[:_RANKED]),
            rejections=tuple(rejections),
            snapshot_version=context.snapshot_version,
            at_s=context.now_s,
        )

    def _proposed(self, context: ContextT) -> list[tuple[str, CandidateT]]:
        named = [(self.identify(candidate), candidate) for candidate in self.propose(context)]
        for one, other in pairwise(sorted(name for name, _ in named)):
            if one == other:
                raise ValueError(f"policy {self.name}: two candidates are called {one!r}")
        return named

    def _weights(self, preferences: tuple[Preference, ...]) -> dict[str, float]:
        weights = {name: self.weights[name] for name in self.scorers}
        for index, preference in enumerate(preferences):
            if preference.scorer not in weights:
                raise InvalidInput(
                    f"{self.name} has no scorer {preference.scorer!r}",
                    field=f"preferences[{index}].scorer",
                    fix=f"use one of {', '.join(sorted(weights))}",
                )
            weights[preference.scorer] = preference.weight
        return weights

    def _scored(
        self, context: ContextT, name: str, candidate: CandidateT, weights: Mapping[str, float]
    ) -> Scored:
        terms = {scorer: score(context, candidate) for scorer, score in self.scorers.items()}
        for scorer, term in terms.items():
            if not 0.0 <= term <= 1.0:
                raise ValueError(f"scorer {scorer} of {self.name} gave {term} for {name}")
        total = sum(weights.values())
        weighted = sum(weights[scorer] * term for scorer, term in terms.items())
        return Scored(candidate=name, score=weighted / total if total else 0.0, terms=terms)
