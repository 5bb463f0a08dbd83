"""After a job's end: measuring what its rounds would have achieved with subsets of their sites.

A coalition's updates are merged where the round's were, and measured by the same verifiers; nothing
is trained again. What is measured stays out of the model's lineage, and is among the job's facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from daitn.control.jobs.commands import Commands
from daitn.control.jobs.failing import reason_of, stall_of
from daitn.control.jobs.job import Job, moments_of
from daitn.control.jobs.outstanding import drop, is_under_way, start, stop_all, take_outcome
from daitn.control.value.credits import Objectives, credits_of, gain_of
from daitn.control.value.descent import Descent, DescentStep, descent_of
from daitn.control.value.game import Worth
from daitn.control.value.measuring import RoundPlayed, Valuing, rounds_of
from daitn.objects.compression import Compression
from daitn.objects.identifiers import Digest, ObjectiveName, OwnerId, SiteId
from daitn.objects.jobs import (
    Checkpoint,
    DeadlinePassed,
    JobEvent,
    Reported,
    SiteLost,
    ValueAsked,
    WorkStalled,
)
from daitn.objects.lineage import Entry, Merge, Verification, Visit, descent
from daitn.objects.merging import Reduces
from daitn.objects.messages import MergeWork, WorkOutcome, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.text import counted
from daitn.objects.value import MOST_MEASURED, Contributions, Valuation, ValueOfData

__all__ = [
    "kept_for_value",
    "on_asked",
    "on_deadline",
    "on_lost",
    "on_reported",
    "on_stalled",
    "to_be_valued",
    "value_of",
]


def to_be_valued(job: Job) -> bool:
    """Whether the intent asks for measurements of an ended job that has rounds to measure."""
    asked = job.intent.training.contributions is Contributions.SHAPLEY
    return asked and job.state.final and job.valuing is None and bool(_rounds(job))


def kept_for_value(job: Job) -> tuple[Digest, ...]:
    """Models that measuring the value of data needs, or will need at the job's end."""
    asked = job.intent.training.contributions is Contributions.SHAPLEY and not job.state.final
    rounds = job.valuing.rounds if job.open and job.valuing else {}
    if asked:  # The best model at the end may come of the latest, although that is worse now.
        rounds = _rounds(job) | _rounds(job, of=job.latest)
    waiting = job.candidate.visits if asked and job.candidate else ()
    found = [one.model.manifest for one in waiting]
    for played in rounds.values():
        merge, moments = played.merge, _moments_before(job, played.merge)
        found += [merge.base, *merge.models, *([moments.manifest] if moments else [])]
    now = job.valuing.now if job.valuing else None
    return (*found, now.model.manifest) if now and now.model else tuple(found)


def value_of(job: Job, owner_of: Callable[[SiteId], OwnerId]) -> ValueOfData:
    """Each data set's contribution to the job's best model."""
    steps, objectives = _descent(job), _objectives(job)
    if steps is None:
        return ValueOfData(
            job=job.id, method=Contributions.NONE, why="there is no measured model yet"
        )
    valuing = job.valuing
    if valuing is None and job.intent.training.contributions is Contributions.NONE:
        why = "the intent asks for none (training.contributions)"
        return ValueOfData(job=job.id, method=Contributions.NONE, why=why)
    rounds = valuing.measured if valuing else {}
    shared = {key for key, one in rounds.items() if one.game.shares(one.known) is not None}
    merges = [step for step in steps.steps if isinstance(step.made.fact, Merge)]
    valuation = Valuation.NOT_ASKED
    if valuing is not None:
        valuation = Valuation.ENDED if valuing.ended else Valuation.UNDER_WAY
    return ValueOfData(
        job=job.id,
        method=Contributions.SHAPLEY if shared else Contributions.VISITS,
        gain=gain_of(steps, objectives),
        credits=credits_of(steps, objectives, rounds, owner_of),
        rounds=len(merges),
        rounds_measured=sum(step.after in shared for step in merges),
        coalitions=valuing.coalitions if valuing else 0,
        valuation=valuation,
        why="; ".join(_why_undivided(job, valuing, merges, shared)) if valuing else "",
    )


def _why_undivided(
    job: Job, valuing: Valuing, merges: Sequence[DescentStep], shared: Set[Digest]
) -> tuple[str, ...]:
    """Why rounds are shared by examples although measuring was requested."""
    undivided = [step for step in merges if len(step.visits) > 1 and step.after not in shared]
    if undivided and job.intent.training.secure_aggregation:
        return ("secure sums show nobody what one site made",)
    whole = [step.why_whole for step in undivided if step.why_whole]
    if any(not step.why_whole and step.after not in valuing.rounds for step in undivided):
        whole.append("for all rounds more models would have to be measured: --coalitions")
    return tuple(dict.fromkeys((*valuing.problems, *whole)))


def on_asked(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Begin to measure, or continue with what is still unknown."""
    assert isinstance(event, ValueAsked)
    if job.valuing is not None and not job.valuing.ended:
        return ()
    before = job.valuing.rounds if job.valuing else {}
    rounds = _rounds(job, event.coalitions, before)
    job.valuing = Valuing(rounds=rounds, deadline_at_s=now_s + event.within_s)
    return _go_on(job, job.valuing)


def on_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Take a merge or measurement."""
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None or job.valuing is None or job.valuing.now is None:
        return ()
    if outcome.state is not WorkState.DONE:
        problem = f"{outcome.site}: {reason_of(outcome).problem}"
        return (*stop_all(job), *_give_up_round(job, job.valuing, problem))
    assert outcome.entry is not None
    if isinstance(outcome.entry.fact, Merge):
        assert outcome.model is not None
        job.valuing.now.model = outcome.model
        return _measure(job, job.valuing, outcome.model, outcome.entry)
    return _measured(job, job.valuing, outcome)


def on_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Stop measuring a round whose aggregator or verifier leaves."""
    assert isinstance(event, SiteLost)
    stops = drop(job, event.site)
    if not stops or job.valuing is None:
        return stops
    problem = f"{event.site} left"
    return (*stops, *stop_all(job), *_give_up_round(job, job.valuing, problem))


def on_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Likewise for one without progress."""
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event) or job.valuing is None:
        return ()
    return (*stop_all(job), *_give_up_round(job, job.valuing, stall_of(event).problem))


def on_deadline(job: Job, event: JobEvent, now_s: float) -> Commands:
    """End with the results so far."""
    assert isinstance(event, DeadlinePassed)
    if job.valuing is None or job.valuing.ended:
        return ()
    for played in job.valuing.rounds.values():
        if played.game.next(played.known) is not None:
            played.problem = played.problem or "the time for measuring was up"
    return (*stop_all(job), *_go_on(job, job.valuing))


def _objectives(job: Job) -> Objectives:
    return {one.name: (one.topic, one.metric) for one in job.intent.objectives}


def _descent(job: Job, of: Checkpoint | None = None) -> Descent | None:
    of = of or job.best
    return descent_of(job.lineage, of.model.manifest) if of else None


def _rounds(
    job: Job,
    most: int = MOST_MEASURED,
    before: Mapping[Digest, RoundPlayed] | None = None,
    of: Checkpoint | None = None,
) -> dict[Digest, RoundPlayed]:
    """The rounds to measure of the best model, or of another one."""
    if job.intent.training.secure_aggregation:
        return {}  # Nobody knows what any one site made.
    steps = _descent(job, of)
    return rounds_of(steps, _objectives(job), most, before or {}) if steps else {}


def _go_on(job: Job, valuing: Valuing) -> Commands:
    valuing.now = valuing.next()
    if valuing.now is None:
        valuing.ended = True
        return ()
    played = valuing.rounds[valuing.now.round]
    members = sorted(valuing.now.members)
    entry = played.step.visits[members[0]]
    if len(members) == 1 and _keeps_one(played.merge, entry):
        valuing.now.model = _trained(played, members[0])
        return _measure(job, valuing, valuing.now.model, entry)
    return (start(job, played.merge.site, _merge_work(job, played, members)),)


def _keeps_one(merge: Merge, visit: Entry) -> bool:
    """Whether a visit's result, merged alone, is unchanged: a model, with a mean."""
    assert isinstance(visit.fact, Visit)
    whole = visit.fact.compression is Compression.NONE
    return whole and merge.rule.reduction is Reduces.MEAN and merge.rule.leaves_update


def _trained(played: RoundPlayed, number: int) -> ModelRef:
    """The model that a site of a round made, held by the aggregator as well."""
    visit = played.step.visits[number].fact
    assert isinstance(visit, Visit)
    holders = tuple(dict.fromkeys((played.merge.site, visit.site)))
    return ModelRef(manifest=visit.model_out, size_bytes=visit.size_bytes, holders=holders)


def _merge_work(job: Job, played: RoundPlayed, members: list[int]) -> MergeWork:
    merge = played.merge
    base = next(c.model for c in job.checkpoints if c.model.manifest == merge.base)
    trained = tuple(_trained(played, number) for number in members)
    return job.merge_work(
        base,
        trained,
        tuple(merge.shares[number] for number in members),
        merge.rule,
        tuple(played.step.visits[number].digest for number in members),
        _moments_before(job, merge),
    )


def _moments_before(job: Job, merge: Merge) -> ModelRef | None:
    """The outer step's state before a round was merged."""
    found = None
    for entry in job.lineage:
        fact = entry.fact
        if fact == merge:
            break
        if isinstance(fact, Merge) and fact.moments:
            found = moments_of(fact)
    return found


def _measure(job: Job, valuing: Valuing, model: ModelRef, made: Entry) -> Commands:
    """Have the round's verifiers measure a coalition's model."""
    assert valuing.now is not None
    played = valuing.rounds[valuing.now.round]
    lineage = descent((*job.lineage, made), model.manifest) if job.order else ()
    return tuple(
        start(job, site, job.verify_work(objective, model, (made.digest,), lineage))
        for objective, site in played.verifiers.items()
    )


def _measured(job: Job, valuing: Valuing, outcome: WorkOutcome) -> Commands:
    assert valuing.now is not None
    assert outcome.entry is not None
    fact = outcome.entry.fact
    assert isinstance(fact, Verification)
    for one in job.intent.objectives:
        if (one.topic, one.metric) == (fact.topic, fact.metric):
            valuing.now.measured[ObjectiveName(one.name)] = fact
    if len(valuing.now.measured) < len(job.intent.objectives):
        return ()
    facts = [valuing.now.measured[name] for name in job.intent.objective_names()]
    valuing.rounds[valuing.now.round].known[valuing.now.members] = Worth(
        tuple(one.value for one in facts), tuple(one.standard_error for one in facts)
    )
    return _go_on(job, valuing)


def _give_up_round(job: Job, valuing: Valuing, problem: str) -> Commands:
    """Stop measuring the current round."""
    if valuing.now is not None:
        played = valuing.rounds[valuing.now.round]
        played.problem = f"of {counted(len(played.step.visits), 'site')} at once, {problem}"
    return _go_on(job, valuing)
