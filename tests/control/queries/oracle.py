"""QIRCE once more, one deployment at a time: the scalar policy that its arrays must agree with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from daitn.control.queries.context import QueryContext
from daitn.control.queries.scoring import QIRCE, WAIT_WEIGHS
from daitn.objects.abilities import Abilities, Need, Reads, Says
from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import covers_topic
from daitn.objects.intents import Preference
from daitn.objects.queries import AUTO, Privacy, Trust
from daitn.topology.qrrt.accuracy import UNMEASURED_ACCURACY
from daitn.topology.qrrt.snapshot import Deployed
from tests.policy.plain import PlainPolicy

TRUST = {Trust.CLAIMED: 1, Trust.WEIGHTS: 2, Trust.ASKED: 3}
TIMES = {"first-token", "deadline"}
PRESENCE = {"cordoned", "available", "healthy", "suspended", "tried", "path"}
LOAD = {"room"}


@dataclass(frozen=True)
class Candidate:
    """A row with what is expected of it."""

    row: int
    deployed: Deployed
    rtt_s: float
    load: float
    service_s: float
    first_s: float
    wait_s: float
    usual_wait_s: float
    """With answers of usual length ahead."""
    tokens_in: float
    cost_usd: float
    accuracy: float | None
    """With the trust that is wished."""

    @property
    def first_token_s(self) -> float:
        return self.rtt_s + self.wait_s + self.first_s

    @property
    def seconds(self) -> float:
        return self.rtt_s + self.wait_s + self.service_s


@dataclass(frozen=True)
class Question:
    """A context as the scalar policy takes it."""

    asked: QueryContext

    @property
    def preferences(self) -> tuple[Preference, ...]:
        return self.asked.preferences

    @property
    def snapshot_version(self) -> int:
        return self.asked.snapshot_version

    @property
    def now_s(self) -> float:
        return self.asked.now_s

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        intent = self.asked.intent
        return tuple(
            self._candidate(number, deployed)
            for number, deployed in enumerate(self.asked.snapshot.rows)
            if intent.model in (AUTO if intent.site is None else "", deployed.name)
            and intent.site in (None, deployed.site)
        )

    @cached_property
    def passing(self) -> tuple[Candidate, ...]:
        return tuple(each for each in self.candidates if not self.fails(each))

    def fails(self, candidate: Candidate) -> set[str]:
        """The filters that the candidate does not pass."""
        return {name for name, holds in HOLDS.items() if not holds(self.asked, candidate)}

    def least(self, of: Callable[[Candidate], float]) -> float:
        return min(map(of, self.passing))

    def _candidate(self, number: int, deployed: Deployed) -> Candidate:
        asked, columns = self.asked, self.asked.snapshot.columns
        intent, said = asked.intent, deployed.descriptor
        load = max(float(columns.in_flight[number]), float(asked.in_flight[number]))
        first_s = float(columns.first_token_s[number])
        per_token_s = float(columns.per_token_s[number])
        expected = intent.tokens_expected
        tokens_out = intent.tokens_out if expected is None else expected
        timed = tokens_out if intent.tokens_timed is None else intent.tokens_timed
        usual = timed if intent.tokens_usual is None else intent.tokens_usual
        service_s = per_token_s * timed + first_s
        ahead = max(load + 1.0 - said.slots, 0.0) / said.slots
        return Candidate(
            row=number,
            deployed=deployed,
            rtt_s=float(asked.paths.rtt_s[number]),
            load=load,
            service_s=service_s,
            first_s=first_s,
            wait_s=ahead * service_s,
            usual_wait_s=ahead * (per_token_s * usual + first_s),
            tokens_in=(tokens_in := _tokens_in(asked, number)),
            cost_usd=said.price_usd_per_1k_in / 1000 * tokens_in
            + said.price_usd_per_1k_out / 1000 * tokens_out,
            accuracy=self._accuracy(number),
        )

    def _accuracy(self, number: int) -> float | None:
        intent = self.asked.intent
        told = {
            topic: float(known.value[number])
            for topic, known in self.asked.snapshot.accuracies.topics.items()
            if known.trust[number] >= TRUST[intent.constraints.trust]
        }
        if not intent.topic:
            return sum(told.values()) / len(told) if told else None
        covering = [topic for topic in told if covers_topic(topic, intent.topic)]
        return told[max(covering, key=len)] if covering else None


def _tokens_in(asked: QueryContext, row: int) -> float:
    intent, rates = asked.intent, asked.snapshot.columns.token_rates
    if intent.characters is None:
        return intent.tokens_in
    tokens = float(intent.tokens_apart)
    for length in range(4):
        tokens += intent.characters[length] * float(rates[length][row])
    return tokens


def _listed(listed: tuple[str, ...], name: str) -> bool:
    return "*" in listed or name in listed


def _private(asked: QueryContext, row: Deployed) -> bool:
    match asked.intent.constraints.privacy:
        case Privacy.ANY:
            return True
        case Privacy.UNKEPT:
            return not row.facility.keeps_queries
        case Privacy.SITE:
            return row.site == asked.intent.origin


def _at_most(value: float, bound: float | None) -> bool:
    return bound is None or value <= bound


def _accurate(asked: QueryContext, candidate: Candidate) -> bool:
    least = asked.intent.constraints.min_accuracy
    if least is None or asked.intent.site is not None:
        return True
    return candidate.accuracy is not None and candidate.accuracy >= least


NEEDS: dict[Need, Callable[[Abilities], bool]] = {
    Need.TEXT: lambda a: Reads.TEXT in a.reads,
    Need.RECORD: lambda a: bool({Reads.TEXT, Reads.TABLE} & {*a.reads}),
    Need.IMAGE: lambda a: Reads.IMAGE in a.reads,
    Need.AUDIO: lambda a: Reads.AUDIO in a.reads,
    Need.VIDEO: lambda a: Reads.VIDEO in a.reads,
    Need.FILE: lambda a: Reads.FILE in a.reads,
    Need.TALK: lambda a: Says.TEXT in a.says,
    Need.VOICE: lambda a: Says.AUDIO in a.says,
    Need.TOOLS: lambda a: a.tools in (True, None),
    Need.JSON: lambda a: a.json_schema in (True, None),
}


def _needed(need: Need) -> Callable[[QueryContext, Candidate], bool]:
    return lambda q, c: need not in q.intent.needs or NEEDS[need](c.deployed.descriptor.abilities)


HOLDS: dict[str, Callable[[QueryContext, Candidate], bool]] = {
    "cordoned": lambda q, c: not c.deployed.cordoned,
    "api": lambda q, c: q.intent.api in c.deployed.descriptor.apis,
    **{need: _needed(need) for need in NEEDS},
    "language": lambda q, c: (
        (wanted := q.intent.constraints.language) == ""
        or not c.deployed.descriptor.abilities.languages
        or wanted in c.deployed.descriptor.abilities.languages
    ),
    "release": lambda q, c: _listed(
        c.deployed.descriptor.policy.release_to, c.deployed.jurisdiction
    ),
    "askers": lambda q, c: _listed(c.deployed.descriptor.policy.askers, q.intent.owner),
    "jurisdiction": lambda q, c: (
        not q.intent.constraints.jurisdictions
        or c.deployed.jurisdiction in q.intent.constraints.jurisdictions
    ),
    "owner": lambda q, c: (
        not q.intent.constraints.owners or c.deployed.provider in q.intent.constraints.owners
    ),
    "privacy": lambda q, c: _private(q, c.deployed),
    "accuracy": _accurate,
    "context": lambda q, c: (
        c.tokens_in * q.intent.longest_share + q.intent.tokens_out
        <= c.deployed.descriptor.context_tokens
    ),
    "available": lambda q, c: bool(q.snapshot.columns.available[c.row]),
    "healthy": lambda q, c: q.intent.site is not None or not q.snapshot.columns.degraded[c.row],
    "suspended": lambda q, c: bool(q.snapshot.columns.suspended_until_s[c.row] <= q.now_s),
    "tried": lambda q, c: c.row not in q.excluded,
    "path": lambda q, c: math.isfinite(c.rtt_s),
    "room": lambda q, c: c.load < c.deployed.descriptor.slots + c.deployed.descriptor.queue,
    "first-token": lambda q, c: _at_most(c.first_token_s, q.intent.constraints.max_first_token_s),
    "deadline": lambda q, c: _at_most(c.seconds, q.intent.constraints.deadline_s),
    "cost": lambda q, c: _at_most(c.cost_usd, q.intent.constraints.max_cost_usd),
}


def _filter(name: str) -> Callable[[Question, Candidate], Rejection | None]:
    def check(question: Question, candidate: Candidate) -> Rejection | None:
        if HOLDS[name](question.asked, candidate):
            return None
        return Rejection(candidate=candidate.deployed.id, filter=name, reason="", field="")

    return check


def _slow_s(question: Question) -> Callable[[Candidate], float]:
    shares = question.asked.snapshot.columns.error_share

    def slow_s(each: Candidate) -> float:
        seconds = each.rtt_s + each.usual_wait_s * WAIT_WEIGHS + each.service_s
        return seconds * (float(shares[each.row]) + 1.0) + 0.05

    return slow_s


def _dear_usd(candidate: Candidate) -> float:
    return candidate.cost_usd + 1e-6


SCALAR: PlainPolicy[Question, Candidate] = PlainPolicy(
    name="qirce",
    propose=lambda question: question.candidates,
    identify=lambda candidate: candidate.deployed.id,
    scorers={
        "accuracy": lambda q, c: UNMEASURED_ACCURACY if c.accuracy is None else c.accuracy,
        "latency": lambda q, c: q.least(_slow_s(q)) / _slow_s(q)(c),
        "cost": lambda q, c: q.least(_dear_usd) / _dear_usd(c),
        "affinity": lambda q, c: float(c.row == q.asked.affinity),
    },
    weights=QIRCE.weights,
    filters=tuple(map(_filter, HOLDS)),
)
