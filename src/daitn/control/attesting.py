"""What a verification unit makes of a deployment's answers: how good it is, and whether it fell.

Answers come in rounds of test items. What is told is the share of right ones among the latest. A
round that is significantly worse than what was known before means that something else answers now:
what was known is thrown away, and the deployment counts as degraded until it is as good as before
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from daitn.objects.findings import Finding
from daitn.objects.identifiers import Digest, SiteId

__all__ = ["FALSE_ALARM", "Examination", "Tally", "fallen", "risen"]

FALSE_ALARM = 1e-4
"""Chance, per round, that a deployment that is as good as ever counts as degraded, over all looks
that are taken at it: with a round a minute, once in a week at most."""
_LEAST_BEFORE = 20
"""Items that must be known before a fall can be told from a bad start."""
_RISEN = 0.2
"""A degraded deployment is well again when its two latest rounds do not differ from what it was
with this chance of error. One that is well is let in by four of five such looks; one that fell from
0.92 to 0.7 by few: the threshold lies far above that of a fall, so that nothing flaps."""
_RISEN_ROUNDS = 2
_SLOW_ROUNDS = (2, 4)
"""Numbers of latest rounds that are held against those before them: a fall from 0.92 to 0.7 is
rarely seen in one round, and nearly always in four."""
_LOOK_ALARM = FALSE_ALARM / (len(_SLOW_ROUNDS) + 2)
"""Likewise, per look: at the newest round, at the slow ones, and at the whole window (Bonferroni).
After 240 items at 0.9 a round of 24 is alarming with 12 right ones or fewer: a fall to 0.5 is seen
in that round in 58 of 100 cases, one to 0.25 nearly always."""


@dataclass(frozen=True)
class Tally:
    """Right answers of a number of items."""

    right: int = 0
    items: int = 0

    @property
    def value(self) -> float:
        return self.right / self.items if self.items else 0.0


def fallen(before: Tally, now: Tally) -> bool:
    """Whether `now` is worse than `before`, by more than chance."""
    return before.items >= _LEAST_BEFORE and _chance_of_less(before, now) < _LOOK_ALARM


def risen(before: Tally, now: Tally) -> bool:
    """Whether `now` may be as good as `before`."""
    return _chance_of_less(before, now) >= _RISEN


def _chance_of_less(before: Tally, now: Tally) -> float:
    """Chance of as few right ones among all items, were both equally good: Fisher's exact test,
    one-sided (Fisher, "The Design of Experiments", 1935)."""
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
    """One deployment on one topic, as one unit knows it."""

    manifest: Digest | None
    rounds: list[Tally] = field(default_factory=list)
    """The latest, oldest first."""
    before: Tally | None = None
    """What it was, while it is degraded."""
    older: Tally = field(default_factory=Tally)
    """What the window does not hold any more, since the unit began: a fall of 0.1 would pass
    through the window unseen, and is told from this."""

    def took(self, manifest: Digest | None, right: Sequence[bool], window: int) -> None:
        """Take in a round's items; only the latest `window` of all are kept."""
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
        """All rounds together."""
        return _together(self.rounds)

    def finding(
        self, verifier: SiteId, site: SiteId, deployment: str, topic: str, at_s: float
    ) -> Finding:
        """What is told of it."""
        known = self.known()
        return Finding(
            verifier=verifier,
            site=site,
            deployment=deployment,
            manifest=self.manifest,
            topic=topic,
            metric="accuracy",
            value=known.value,
            standard_error=_error(known),
            items=known.items,
            at_s=at_s,
            degraded=self.before is not None,
            before=self.before.value if self.before else None,
        )

    def _look_back(self) -> None:
        """A fall too small to be seen in one round; and the way back up."""
        if self.before is not None:
            recent = self.rounds[-_RISEN_ROUNDS:]
            if len(recent) == _RISEN_ROUNDS and risen(self.before, _together(recent)):
                # It is well again; the bad rounds are of something else.
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


def _error(known: Tally) -> float:
    """Standard error after Agresti and Coull (1998): not 0 where all are right."""
    adjusted = (known.right + 2) / (known.items + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (known.items + 4))
