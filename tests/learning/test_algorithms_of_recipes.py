"""By which algorithms recipes train, as a site hears it of their process."""

from __future__ import annotations

from daitn.learning.consultant import Consultant
from daitn.objects.merging import Algorithm


async def test_recipes_with_weights_train_by_all_and_trees_by_what_unites_them() -> None:
    consultant = Consultant(("classifier", "causal-lm", "boosted-trees"))
    await consultant.start()
    try:
        table, speaker, trees = (
            set(consultant.facts(name).algorithms) for name in consultant.recipes
        )
    finally:
        await consultant.close()
    assert table == speaker == set(Algorithm)
    assert trees == {"auto", "adaptive", "sequential", "fedavg", "fedbuff", "fedseq"}
