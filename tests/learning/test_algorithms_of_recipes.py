"""By which algorithms recipes train, as a site hears it of their process."""

from __future__ import annotations

from daitn.learning.consultant import Consultant
from daitn.objects.merging import Algorithm


async def test_recipes_state_the_algorithms_that_their_visits_do_not_refuse() -> None:
    consultant = Consultant(("classifier", "causal-lm", "boosted-trees"))
    await consultant.start()
    try:
        table, speaker, trees = (
            set(consultant.facts(name).algorithms) for name in consultant.recipes
        )
    finally:
        await consultant.close()
    assert table == set(Algorithm)
    assert speaker == set(Algorithm) - {"lwf"}
    assert trees == {"auto", "adaptive", "sequential", "fedavg", "fedbuff", "fedseq"}
