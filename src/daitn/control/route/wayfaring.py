"""Where a model that travels by itself goes next, by what the site where it is has heard.

It knows less than MTRCE: no measured links and no sketches, but who offers data of which topic, how
much, how far away, and what its own visits so far taught it. What is told of data sets it has not
seen is held against what those it has seen were worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from daitn.control.jobs.job import Job
from daitn.objects.decisions import Decision, Rejection
from daitn.objects.descriptors import covers_topic
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Preference
from daitn.objects.jobs import Checkpoint, MadeVisit
from daitn.policy.pipeline import Policy
from daitn.topology.fit import topic_fit

__all__ = ["Prospect", "Wayfaring", "base_of", "decide", "examples_for"]

_MOST_GAIN = 0.25
"""What a first visit to much data of the very topic is expected to add to an accuracy."""
_HALF_LEARNED = 1500.0
"""Examples at which half of that is expected."""
_AGAIN = 0.6
"""What another visit is expected to add, as a share of what the last one there added."""
_WORTHLESS = 0.003
"""A site where two visits in a row added less has taught what it can."""
_HARM = 0.05
"""By how much more a model is short of its targets than the best one was, where harm was done."""
_HALF_USD, _HALF_S = 1.0, 1.0
MOST_EXAMPLES = 4000
"""Per visit: then the model is measured, and may go elsewhere."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """Data that was heard of."""

    site: SiteId
    topic: str
    examples: int
    price_usd_per_1k: float
    delay_s: float
    jurisdiction: str

    @property
    def id(self) -> str:
        return f"{self.site}/{self.topic}"


@dataclass(frozen=True)
class Wayfaring:
    """All that the decision looks at."""

    job: Job
    prospects: tuple[Prospect, ...]
    now_s: float
    snapshot_version: int

    @property
    def preferences(self) -> tuple[Preference, ...]:
        """The intent's are of MTRCE's scorers."""
        return ()

    def lacking(self) -> dict[str, float]:
        """Objective to how far the base is below its target; held ones are left out."""
        base = base_of(self.job)
        values = {str(n): v for n, v in base.values.items()} if base else {}
        short = {o.name: o.at_least - values.get(o.name, 0.0) for o in self.job.intent.objectives}
        return {name: by for name, by in short.items() if by > 0}

    def visits(self, site: SiteId) -> list[MadeVisit]:
        """Those of the job at a site, oldest first."""
        return [made for made in self.job.made if made.site == site]

    def expected_gains(self, prospect: Prospect) -> dict[str, float]:
        """Objective to what a visit is expected to add; less than 0 where it makes forget."""
        before = self.visits(prospect.site)
        if before:
            return {name: _AGAIN * gain for name, gain in before[-1].gains.items()}
        size = prospect.examples / (prospect.examples + _HALF_LEARNED)
        return {
            o.name: _MOST_GAIN * size * topic_fit(prospect.topic, o.topic) ** 2
            for o in self.job.intent.objectives
        }


def base_of(job: Job) -> Checkpoint | None:
    """The checkpoint from which to go on: the latest, unless the last two did clear harm. One alone
    may be what another site makes good: a model forgets what the others taught."""
    best = job.best
    if best is None:
        return None
    since = job.checkpoints[job.checkpoints.index(best) + 1 :][-2:]
    harmful = [job.shortfall(one) - job.shortfall(best) > _HARM for one in since]
    return best if len(since) == 2 and all(harmful) else job.checkpoints[-1]


def examples_for(job: Job, samples: int) -> int:
    """How many examples a visit to a data set takes."""
    limit = job.intent.budget.examples
    left = samples if limit is None else limit - job.spent_examples
    return max(0, min(samples, left, MOST_EXAMPLES))


def _identify(prospect: Prospect) -> str:
    return prospect.id


def _propose(context: Wayfaring) -> Iterable[Prospect]:
    return context.prospects


def _wanted(context: Wayfaring, prospect: Prospect) -> Rejection | None:
    topics = context.job.intent.data.topics
    if any(covers_topic(topic, prospect.topic) for topic in topics):
        return None
    return _no(prospect, "topic", "its topic is not wanted", "data.topics")


def _required(context: Wayfaring, prospect: Prospect) -> Rejection | None:
    told: dict[str, float | str] = {
        "jurisdiction": prospect.jurisdiction,
        "site": prospect.site,
        "samples": float(prospect.examples),
        "price_usd_per_1k": prospect.price_usd_per_1k,
    }
    for index, requirement in enumerate(context.job.intent.requirements):
        value = told.get(requirement.quantity)
        if value is not None and requirement.shortfall(value) > 0:
            reason = f"{requirement.quantity} is {value}, not {requirement}"
            return _no(prospect, "requirement", reason, f"requirements[{index}]")
    return None


def _willing(context: Wayfaring, prospect: Prospect) -> Rejection | None:
    if prospect.site not in context.job.excluded:
        return None
    return _no(prospect, "failed", "it failed this job too often", "")


def _useful(context: Wayfaring, prospect: Prospect) -> Rejection | None:
    lacking = context.lacking()
    last = context.visits(prospect.site)[-2:]
    gained = [sum(visit.gains.get(name, 0.0) for name in lacking) for visit in last]
    if len(gained) == 2 and max(gained) < _WORTHLESS:
        return _no(prospect, "worth", "its last two visits taught nothing that lacks", "")
    return None


def _affordable(context: Wayfaring, prospect: Prospect) -> Rejection | None:
    job = context.job
    examples = examples_for(job, prospect.examples)
    limit_usd = job.intent.budget.cost_usd
    if examples == 0:
        return _no(prospect, "examples", "no example is left to learn from", "budget.examples")
    cost_usd = prospect.price_usd_per_1k * examples / 1000
    if limit_usd is not None and job.spent_usd + cost_usd > limit_usd:
        return _no(prospect, "cost", f"costs {cost_usd:g} USD more", "budget.cost_usd")
    return None


def _no(prospect: Prospect, name: str, reason: str, field: str) -> Rejection:
    return Rejection(candidate=prospect.id, filter=name, reason=reason, field=field)


def _gain(context: Wayfaring, prospect: Prospect) -> float:
    """What it is expected to add to what lacks, as a share of that."""
    lacking = context.lacking()
    gains = context.expected_gains(prospect)
    added = sum(min(by, max(0.0, gains.get(name, 0.0))) for name, by in lacking.items())
    total = sum(lacking.values())
    return added / total if total else 0.0


def _memory(context: Wayfaring, prospect: Prospect) -> float:
    """1 where nothing is expected to be forgotten that holds."""
    lost = sum(max(0.0, -gain) for gain in context.expected_gains(prospect).values())
    return math.exp(-10.0 * lost)


def _cost(context: Wayfaring, prospect: Prospect) -> float:
    examples = examples_for(context.job, prospect.examples)
    return _HALF_USD / (_HALF_USD + prospect.price_usd_per_1k * examples / 1000)


def _nearness(context: Wayfaring, prospect: Prospect) -> float:
    return _HALF_S / (_HALF_S + prospect.delay_s)


_POLICY = Policy[Wayfaring, Prospect](
    name="wayfaring",
    propose=_propose,
    identify=_identify,
    filters=(_wanted, _required, _willing, _useful, _affordable),
    scorers={"gain": _gain, "memory": _memory, "cost": _cost, "nearness": _nearness},
    weights={"gain": 4.0, "memory": 1.0, "cost": 0.5, "nearness": 0.25},
)


def decide(context: Wayfaring) -> Decision:
    """Where to go next. It draws nothing."""
    return _POLICY.decide(context, _UNDRAWN)


class _Undrawn:
    def random(self) -> float:
        raise AssertionError("the first of the ranking is picked")


_UNDRAWN = _Undrawn()
