"""A site trains in rounds of SCAFFOLD: what it made comes back to it, and may be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest, JobId, VisitId
from daitn.objects.lineage import left_by
from daitn.objects.merging import LocalRule, MergeRule
from daitn.objects.messages import MergeWork, VisitWork
from daitn.objects.models import ModelRef
from tests.scenes.visited_site import CONFIG, VisitedSite

WORK = VisitWork(
    visit=VisitId("j-1.1"), job=JobId("j-1"), recipe="classifier", config=CONFIG, seed=1,
    owner="ann", dataset="notes", examples=0, model=None, previous=(),
)  # fmt: skip
SCAFFOLD = LocalRule(merged=True, variates=True)


async def test_a_site_is_given_what_it_made_and_names_it_where_it_is_lost(tmp_path: Path) -> None:
    site = VisitedSite(tmp_path)
    numbers = iter(range(2, 100))

    async def visit(**changes: Any) -> ModelRef:
        work = msgspec.structs.replace(
            WORK, visit=VisitId(f"j-1.{next(numbers)}"), **{"examples": 400} | changes
        )
        made = await site.executor.perform(work)
        assert made.model is not None
        return made.model

    await site.consultant.start()
    try:
        base = await visit(examples=0)
        first = await visit(model=base, local=SCAFFOLD)
        merge = MergeWork(
            visit=VisitId("j-1.90"), job=WORK.job, recipe=WORK.recipe, config=CONFIG, seed=1,
            owner="ann", base=base, trained=(first,), shares=(400,), rule=MergeRule(), previous=(),
        )  # fmt: skip
        done = await site.executor.perform(merge)
        merged = done.model
        assert merged is not None
        assert left_by(done.entry.fact) == merged.manifest
        with_own = await visit(model=merged, local=SCAFFOLD, own=first)
        without = await visit(model=merged, local=SCAFFOLD)
        assert len({with_own.manifest, without.manifest, first.manifest}) == 3
        lost = ModelRef(manifest=Digest("e" * 64), size_bytes=first.size_bytes, holders=())
        too_large = msgspec.structs.replace(first, size_bytes=10**12)
        for own in (lost, too_large):
            with pytest.raises(DaitnError) as refused:
                await visit(model=merged, local=SCAFFOLD, own=own)
            assert refused.value.field == "own"
    finally:
        await site.trainer.close()
        await site.consultant.close()
        site.audit.close()
