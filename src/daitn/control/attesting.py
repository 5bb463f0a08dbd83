"""How a verifier judges a deployment's answers: its accuracy, and whether it dropped.

Answers come in rounds of test items; the unit reports the share of right ones in the latest. A
round significantly worse than what was known before means that something else answers now: the unit
discards its older results and marks the deployment degraded until it is as good as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from daitn.objects.findings import Finding
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.sampling import share_error
from daitn.topology.qrrt.accuracy import METRIC

__all__ = ["FALSE_ALARM", "Examination", "Tally", "fallen", "risen"]

FALSE_ALARM = 1e-4
"""Chance per round, over all its tests, that an unchanged deployment is marked degraded: with a
round per minute, at most once a week."""
_LEAST_BEFORE = 20
"""Minimum recorded items to tell a drop from a bad start."""
_RISEN = 0.2
"""A degraded deployment has recovered if, at this chance of error, its two latest rounds do not
differ from its old level. Four of five such tests admit one that has recovered; few admit one that
dropped from 0.92 to 0.7. The threshold is far above that of a drop, so the mark does not flap."""
_RISEN_ROUNDS = 2
_SLOW_ROUNDS = (2, 4)
"""How many of the latest rounds are compared with those before them: one round rarely reveals a
drop from 0.92 to 0.7, four nearly always do."""
_LOOK_ALARM = FALSE_ALARM / (len(_SLOW_ROUNDS) + 2)
"""The same per test: on the newest round, on the slow ones, and on the whole window (Bonferroni).
After 240 items at 0.9, a round of 24 raises the alarm with 12 or fewer right: it reveals a drop to
0.5 in 58 of 100 cases, one to 0.25 nearly always."""


@dataclass(frozen=True)
class Tally:
    """Number of right answers among a number of items."""

    right: int = 0
    items: int = 0

    @property
    def value(self) -> float:
        return self.right / self.items if self.items else 0.0


def fallen(before: Tally, now: Tally) -> bool:
    """Whether `now` is significantly worse than `before`."""
    return before.items >= _LEAST_BEFORE and _chance_of_less(before, now) < _LOOK_ALARM


def risen(before: Tally, now: Tally) -> bool:
    """Whether `now` may be as good as `before`."""
    return _chance_of_less(before, now) >= _RISEN


def _chance_of_less(before: Tally, now: Tally) -> float:
    """Probability of so few right answers if both were equally good.

    Fisher's exact test, one-sided (Fisher, "The Design of Experiments", 1935). Why not scipy's:
    `docs/explanation/architecture.md`.
    """
    total, right = before.items + now.items, before.right + now.right
    wrong = total - right
    whole = _log_choose(total, now.items)
    least = max(0, now.items - wrong)
    chances = (
        math.exp(_log_choose(right, k) + _log_choose(wrong, now.items - k) - whole)
        for k in range(least, now.right + 1)
    )
    return min(1.0, sum(chances))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@dataclass
class Examination:
    """One unit's results on one deployment and topic."""

    manifest: Digest | None
    rounds: list[Tally] = field(default_factory=list)
    """The latest rounds, oldest first."""
    before: Tally | None = None
    """Its level before the drop, while it is degraded."""
    older: Tally = field(default_factory=Tally)
    """Results since the start that have left the window. A drop of 0.1 would pass through the
    window unnoticed; comparing with these reveals it."""

    def took(self, manifest: Digest | None, right: Sequence[bool], window: int) -> None:
        """Record a round's items; keeps only the latest `window` of all."""
        if manifest != self.manifest:
            self.manifest, self.rounds, self.before, self.older = manifest, [], None, Tally()
        now = Tally(sum(right), len(right))
        known = self.known()
        if self.before is None and fallen(known, now):
            self._fell(known, [])
        self.rounds.append(now)
        while sum(r.items for r in self.rounds[1:]) >= window:
            gone = self.rounds.pop(0)
            if self.before is None:
                self.older = _together([self.older, gone])
        self._look_back()

    def known(self) -> Tally:
        """All rounds in the window together."""
        return _together(self.rounds)

    def finding(
        self,
        verifier: SiteId,
        site: SiteId,
        deployment: str,
        topic: str,
        at_s: float,
        *,
        published: Callable[[Tally], Tally] = lambda tally: tally,
        two_faced: bool = False,
        alone: Tally | None = None,
        unanswered: bool = False,
    ) -> Finding:
        """The finding to report. `published`: what may be published of a tally; `two_faced`: it
        answers rounds better, and `alone` are its results on single questions, if they are enough;
        `unanswered`: it does not answer most of those."""
        known = published(alone or self.known())
        before = self.before if alone is None else self.known()
        return Finding(
            verifier=verifier,
            site=site,
            deployment=deployment,
            manifest=self.manifest,
            topic=topic,
            metric=METRIC,
            value=known.value,
            standard_error=share_error(known.right, known.items),
            items=known.items,
            at_s=at_s,
            degraded=two_faced or before is not None,
            before=published(before).value if before else None,
            two_faced=two_faced or msgspec.UNSET,
            unanswered=unanswered or msgspec.UNSET,
        )

    def _look_back(self) -> None:
        """Detect a drop too small for one round to reveal, or a recovery."""
        if self.before is not None:
            recent = self.rounds[-_RISEN_ROUNDS:]
            if len(recent) == _RISEN_ROUNDS and risen(self.before, _together(recent)):
                # It has recovered: the bad rounds belong to something else.
                self.older, self.before, self.rounds = self.before, None, recent
            return
        for latest in _SLOW_ROUNDS:
            before, new = _together(self.rounds[:-latest]), self.rounds[-latest:]
            if fallen(before, _together(new)):
                self._fell(before, new)
                return
        if fallen(self.older, self.known()):
            self._fell(self.older, self.rounds)

    def _fell(self, before: Tally, since: list[Tally]) -> None:
        self.before, self.rounds, self.older = before, since, Tally()


def _together(rounds: Sequence[Tally]) -> Tally:
    return Tally(sum(r.right for r in rounds), sum(r.items for r in rounds))
