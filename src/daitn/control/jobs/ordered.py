"""Whether a piece of work is within the intent that its owner ordered. Sites enforce it."""

from __future__ import annotations

from collections.abc import Sequence

from daitn.objects.descriptors import DatasetDescriptor, NodeDescriptor, covers_topic
from daitn.objects.errors import Refused
from daitn.objects.identifiers import Digest
from daitn.objects.intents import Quantity, Requirement
from daitn.objects.lineage import Entry, Merge, Visit, given_to, left_by
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.orders import MOST_FRESH, Order, Spent
from daitn.objects.wire import canonical

__all__ = ["check_ordered"]


def check_ordered(work: Work, order: Order, node: NodeDescriptor, spent: Spent) -> None:
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
            _check_measurement(work, order, spent)
        case MergeWork():
            _check_merge(work, order, spent)
        case VisitWork():
            _check_visit(work, order, node, spent)


def _check_measurement(work: VerifyWork, order: Order, spent: Spent) -> None:
    wanted = {(objective.topic, objective.metric) for objective in order.intent.objectives}
    if (work.topic, work.metric) not in wanted:
        raise _outside(f"{work.metric} on {work.topic}", "objectives")
    if spent.measurements >= order.measurements:
        raise _outside(f"more than {order.measurements} measurements", "measurements")


def _check_merge(work: MergeWork, order: Order, spent: Spent) -> None:
    intent = order.intent
    if intent.route or work.rule not in intent.training.rules.values():
        raise _outside("this rule of merging", "training.merging")
    if spent.merges >= order.visits or _in_a_row(work.lineage) > order.visits:
        raise _outside(f"more than {order.visits} merges", "visits")
    visits = [entry.fact for entry in work.lineage if isinstance(entry.fact, Visit)]
    _check_examples(sum(visit.examples for visit in visits), order)
    # Of two visits that left the same model, the later one counts.
    made = {visit.model_out: visit for visit in visits if visit.model_in == work.base.manifest}
    merged = [made.get(model.manifest) for model in work.trained]
    if tuple(visit.examples if visit else 0 for visit in merged) != work.shares:
        raise _outside("a merge in which models count for more than they learned", "training")
    if len({(visit.site, visit.dataset) for visit in merged if visit}) < len(merged):
        raise _outside("a merge in which data counts twice", "training")
    kept = {entry.fact.moments for entry in work.lineage if isinstance(entry.fact, Merge)}
    if work.moments is not None and work.moments.manifest not in kept:
        raise _outside("a merge with what no merge of it remembers", "training")


def _check_examples(examples: int, order: Order) -> None:
    limit = min(order.examples, order.intent.budget.examples or order.examples)
    if examples > limit:
        raise _outside(f"{examples} examples", "budget.examples")


def _check_visit(work: VisitWork, order: Order, node: NodeDescriptor, spent: Spent) -> None:
    intent = order.intent
    visits = [entry.fact for entry in work.lineage if isinstance(entry.fact, Visit)]
    trained = max(spent.examples, sum(visit.examples for visit in visits))
    if work.model is None and spent.fresh >= MOST_FRESH:
        raise _outside(f"more than {MOST_FRESH} fresh models", "model")
    if max(spent.visits, _in_a_row(work.lineage)) >= order.visits:
        raise _outside(f"more than {order.visits} visits", "visits")
    _check_examples(trained + work.examples, order)
    if intent.route:
        here = sum(visit.examples for visit in intent.route if visit.site == node.site)
        done = sum(visit.examples for visit in visits if visit.site == node.site)
        if not here or done + work.examples > here:
            raise _outside(f"{work.examples} examples at {node.site}", "route")
    dataset = next((one for one in node.datasets if one.name == work.dataset), None)
    if dataset is None:
        return  # Refused where the data set is looked up.
    if not any(covers_topic(asked, own) for asked in intent.data.topics for own in dataset.topics):
        raise _outside(f"the data set {dataset.name}", "data.topics")
    for requirement in intent.requirements:
        _check_requirement(requirement, dataset, node)


def _in_a_row(lineage: Sequence[Entry]) -> int:
    """The visits behind a model, one after another; those of a round count once."""
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
