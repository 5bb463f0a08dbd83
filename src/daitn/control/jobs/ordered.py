"""Whether a piece of work is within its owner's order. Sites enforce it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from daitn.objects.compression import Compression
from daitn.objects.descriptors import DatasetDescriptor, NodeDescriptor, covers_topic
from daitn.objects.errors import Refused
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Quantity, Requirement
from daitn.objects.lineage import (
    Entry,
    LineageFact,
    Merge,
    Visit,
    given_to,
    left_by,
    rounds_behind,
    shares_of,
)
from daitn.objects.merging import GOSSIP_RULE, Algorithm, MergeRule, Reduces
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.orders import MOST_FRESH, Order, OrderUsage
from daitn.objects.wire import canonical

__all__ = ["check_ordered", "check_summed"]

T = TypeVar("T")


def check_ordered(work: Work, order: Order, node: NodeDescriptor, spent: OrderUsage) -> None:
    """Raise `Refused` unless work at this node is within an order.

    `spent`: what the node has done for it before. What depends on links or on the moment is left
    to the planner.
    """
    intent = order.intent
    if not work.job.startswith(f"{intent.name}-"):
        raise _outside(f"the job {work.job}", "name")
    if work.recipe != intent.model.recipe:
        raise _outside(f"the recipe {work.recipe}", "model.recipe")
    if canonical(work.config) != canonical(intent.model.config):
        raise _outside("this configuration", "model.config")
    if work.owner != intent.owner:
        raise _outside(f"work for {work.owner}", "owner")
    if work.purpose != intent.purpose:
        raise _outside(f"work for the purpose {work.purpose!r}", "purpose")
    match work:
        case VerifyWork():
            _check_whole(work)
            _check_measurement(work, order, spent)
        case MergeWork():
            _check_merge(work, order, spent)
        case VisitWork():
            _check_whole(work)
            _check_visit(work, order, node, spent)


def _check_whole(work: VisitWork | VerifyWork) -> None:
    """Raise `Refused` for work on an update, or on a group's merged model: both may only be
    merged."""
    whole: dict[Digest, bool] = {}
    for entry in work.lineage:
        left = left_by(entry.fact)
        whole[left] = whole.get(left, False) or _is_whole(entry.fact)
    if not all(whole.get(model.manifest, True) for model in work.models):
        raise _outside("work on a part of a round before it is merged", "training")


def _is_whole(fact: LineageFact) -> bool:
    match fact:
        case Visit():
            return fact.compression is Compression.NONE
        case Merge():
            return not fact.part
        case _:
            return True


def _check_measurement(work: VerifyWork, order: Order, spent: OrderUsage) -> None:
    wanted = {(objective.topic, objective.metric) for objective in order.intent.objectives}
    if (work.topic, work.metric) not in wanted:
        raise _outside(f"{work.metric} on {work.topic}", "objectives")
    if spent.measurements >= order.measurements:
        raise _outside(f"more than {order.measurements} measurements", "measurements")


def _check_merge(work: MergeWork, order: Order, spent: OrderUsage) -> None:
    if spent.merges >= order.visits or _in_a_row(work.lineage) > order.visits:
        raise _outside(f"more than {order.visits} merges", "visits")
    _check_examples(sum(visit.examples for visit in _facts(work.lineage, Visit)), order)
    if order.intent.training.algorithm is Algorithm.GOSSIP:
        _check_meeting(work)
    else:
        _check_round(work, order)


def _check_meeting(work: MergeWork) -> None:
    """Raise `Refused` unless two models of the order meet, each weighted by what it has learned,
    and no visit counts twice."""
    models = [model.manifest for model in work.trained]
    plain = (work.part, work.secure, work.starts, work.moments) == (False, False, (), None)
    if work.rule != GOSSIP_RULE or not plain or len(models) != 2 or work.base != work.trained[0]:
        raise _outside("this way of merging", "training.algorithm")
    if shares_of(work.lineage, models[0], models[1]) != work.shares:
        raise _outside("a merge in which models count for more than they learned", "training")


def _check_round(work: MergeWork, order: Order) -> None:
    intent = order.intent
    rules = () if intent.route else tuple(intent.training.rules.values())
    if work.part and not work.starts and any(rule.reduction is Reduces.MEAN for rule in rules):
        rules = (MergeRule(),)
    if work.rule not in rules:
        raise _outside("this rule of merging", "training.merging")
    if work.secure != order.intent.training.secure_aggregation:
        raise _outside("this way of merging", "training.secure_aggregation")
    chained = order.intent.training.algorithm is Algorithm.FEDSEQ
    learned = _learned(work.lineage, chained=chained)
    starts = [start.manifest for start in work.starts or (work.base,) * len(work.trained)]
    behind = [rounds_behind(work.lineage, work.base.manifest, start) for start in starts]
    if tuple(behind) != (work.behind or (0,) * len(work.trained)):
        raise _outside("a merge of models that are older than it says", "training")
    merged = [
        learned(start, model.manifest) for start, model in zip(starts, work.trained, strict=True)
    ]
    if tuple(one.share for one in merged) != work.shares:
        raise _outside("a merge in which models count for more than they learned", "training")
    data = [each for one in merged for each in one.data]
    if len(set(data)) < len(data):
        raise _outside("a merge in which data counts twice", "training")
    kept = {entry.fact.moments for entry in work.lineage if isinstance(entry.fact, Merge)}
    if work.moments is not None and work.moments.manifest not in kept:
        raise _outside("a merge with what no merge of it remembers", "training")


class _Learned(NamedTuple):
    """What a model has learned since its start."""

    share: int = 0
    data: tuple[tuple[SiteId, str], ...] = ()
    """Sites and their data sets."""


def _learned(lineage: Sequence[Entry], *, chained: bool) -> Callable[[Digest, Digest], _Learned]:
    """What a model has learned since a start, through a chain of visits or as a group's merged
    model; none if it does not descend from it."""
    # If two visits left the same model, the later one counts.
    visits = {visit.model_out: visit for visit in _facts(lineage, Visit)}
    merged = dict[tuple[Digest, Digest], _Learned]()

    def since(start: Digest, model: Digest) -> _Learned:
        if (start, model) in merged:
            return merged[start, model]
        chain, seen = list[Visit](), set[Digest]()
        while model != start:
            visit = visits.get(model)
            if visit is None or model in seen:
                return _Learned()
            seen.add(model)
            chain.append(visit)
            model = visit.model_in
        if len(chain) > 1 and not chained:
            raise _outside("a merge of models that were at several sites", "training")
        data = tuple((visit.site, visit.dataset) for visit in chain)
        return _Learned(sum(visit.share for visit in chain), data)

    for merge in _facts(lineage, Merge):
        each = [since(merge.base, model) for model in merge.models]
        if merge.part and merge.rule == MergeRule() and all(one.data for one in each):
            merged[merge.base, merge.model_out] = _Learned(
                sum(one.share for one in each), tuple(data for one in each for data in one.data)
            )
    return since


def _facts(lineage: Sequence[Entry], kind: type[T]) -> Iterator[T]:
    return (entry.fact for entry in lineage if isinstance(entry.fact, kind))


def _check_examples(examples: int, order: Order) -> None:
    limit = min(order.examples, order.intent.budget.examples or order.examples)
    if examples > limit:
        raise _outside(f"{examples} examples", "budget.examples")


def _check_visit(work: VisitWork, order: Order, node: NodeDescriptor, spent: OrderUsage) -> None:
    intent = order.intent
    visits = [entry.fact for entry in work.lineage if isinstance(entry.fact, Visit)]
    trained = max(spent.examples, sum(visit.examples for visit in visits))
    training = intent.training
    if work.local not in {training.local_in(one) for one in (None, *training.rules)}:
        raise _outside("this way of training", "training")
    data = (node.site, work.dataset)
    if work.own is not None and not any(
        visit.model_out == work.own.manifest and (visit.site, visit.dataset) == data
        for visit in visits
    ):
        raise _outside("a visit with what was made of other data", "training")
    if work.model is None and spent.fresh >= MOST_FRESH:
        raise _outside(f"more than {MOST_FRESH} fresh models", "model")
    if work.privacy != intent.training.privacy:
        raise _outside("this privacy", "training.privacy")
    if work.secure != (intent.training.secure_aggregation and work.model is not None):
        raise _outside("a model that leaves its site like this", "training.secure_aggregation")
    if max(spent.visits, _in_a_row(work.lineage)) >= order.visits:
        raise _outside(f"more than {order.visits} visits", "visits")
    _check_examples(trained + work.examples, order)
    wish = intent.training.compression
    if work.compression is not Compression.NONE and wish not in (
        Compression.AUTO,
        work.compression,
    ):
        raise _outside(f"an update as {work.compression}", "training.compression")
    if intent.route:
        here = sum(visit.examples for visit in intent.route if visit.site == node.site)
        done = sum(visit.examples for visit in visits if visit.site == node.site)
        if not here or done + work.examples > here:
            raise _outside(f"{work.examples} examples at {node.site}", "route")
    dataset = next((one for one in node.datasets if one.name == work.dataset), None)
    if dataset is None:
        return  # Refused where the data set is looked up.
    most = max(math.ceil(intent.training.epochs * dataset.samples), dataset.least_examples)
    if work.stands_for > max(most, work.examples):
        raise _outside(f"a visit that counts as {work.stands_for} examples", "training.epochs")
    if not any(covers_topic(asked, own) for asked in intent.data.topics for own in dataset.topics):
        raise _outside(f"the data set {dataset.name}", "data.topics")
    for requirement in intent.requirements:
        _check_requirement(requirement, dataset, node)


def _in_a_row(lineage: Sequence[Entry]) -> int:
    """The consecutive visits behind a model; those of a round count once."""
    behind: dict[Digest, int] = {}
    for entry in lineage:
        before = max((behind.get(model, 0) for model in given_to(entry.fact)), default=0)
        behind[left_by(entry.fact)] = before + isinstance(entry.fact, Visit)
    return max(behind.values(), default=0)


def _check_requirement(
    requirement: Requirement, dataset: DatasetDescriptor, node: NodeDescriptor
) -> None:
    value: float | str
    match requirement.quantity:
        case Quantity.JURISDICTION:
            value = dataset.jurisdiction
        case Quantity.OWNER:
            value = node.owner
        case Quantity.SITE:
            value = node.site
        case Quantity.SAMPLES:
            value = dataset.samples
        case Quantity.QUALITY:
            value = dataset.quality
        case Quantity.PRICE_USD_PER_1K:
            value = dataset.price_usd_per_1k
        case _:
            return
    if requirement.shortfall(value):
        raise _outside(f"the data set {dataset.name}", f"requirements ({requirement})")


def _outside(what: str, field: str) -> Refused:
    return Refused(
        f"the owner's order does not include {what}", field=field, fix="order it with an intent"
    )


def check_summed(work: MergeWork, order: Order) -> None:
    """Raise `Refused` unless a secure sum is within an order, regardless of who counts the order's
    merges."""
    if not work.secure:
        raise _outside("a merge in the open", "training.secure_aggregation")
    _check_merge(
        work, order, OrderUsage(order=work.order.digest if work.order else Digest(""), until_s=0)
    )
