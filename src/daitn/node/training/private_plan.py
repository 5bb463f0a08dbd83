"""Whether and how a visit can be trained privately, decided beforehand."""

from __future__ import annotations

from daitn.node.config import DatasetConfig
from daitn.node.training.bounds import WorkBounds
from daitn.node.training.counting import WorkCounter
from daitn.node.training.privacy_ledger import PrivacyLedger, PrivatePlan
from daitn.objects.errors import InvalidInput
from daitn.objects.messages import VisitWork

__all__ = ["plan_private"]


async def plan_private(
    ledger: PrivacyLedger,
    bounds: WorkBounds,
    counter: WorkCounter,
    work: VisitWork,
    dataset: DatasetConfig,
    samples: int,
) -> PrivatePlan | None:
    """How to train a visit to `samples` records privately, if anybody asks for that.

    Raises `InvalidInput` for a model that cannot be, and as `PrivacyLedger.check`.
    """
    private = ledger.planned(work, dataset, samples)
    if private is None:
        return None
    if not (await bounds.footprint(work.recipe, work.config)).private:
        raise InvalidInput(
            f"{work.recipe} cannot train this configuration with differential privacy",
            field="model.config",
            fix="for the recipe classifier, state `ranges`; or use data whose owner demands none, "
            "and leave out training.privacy",
        )
    if not work.local.plain:
        raise InvalidInput(
            "the algorithm uses the records in ways that differential privacy does not cover",
            field="training.algorithm",
            fix="use sequential, fedavg or another one with ordinary visits",
        )
    if counter.counted_at_s(work) is None:  # What goes on is charged already.
        ledger.check(work, dataset, private)
    return private
