"""What the model list says of a job that has ended, and of one that was resumed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from daitn.center.config import CenterConfig
from daitn.center.ended_jobs import models_of
from daitn.center.published import published
from daitn.center.service import ControlCenter
from daitn.center.stored_events import StoredEvent
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.jobs import CancelRequested, ResumeAsked
from daitn.objects.lineage import Verification
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.journal.sql import SqlJournal
from tests.control.jobs.test_quorum import Quorate
from tests.control.jobs.world import World
from tests.scenes.waiting import until


def resumed() -> World:
    """A job that was cancelled after its first visits, and then goes on until it reaches."""
    world = World()
    world.visit_twice()
    world.feed(CancelRequested())
    world.run()
    return world


def model_of(world: World) -> ModelDescriptor:
    model = published(world.job, world.now_s)
    assert model is not None
    return model


def test_what_a_quorum_contradicts_is_no_evidence_of_a_model() -> None:
    world = Quorate({"a": 0.7})
    world.run()
    first = world.job.checkpoints[0]
    world.job.checkpoints[:] = [first]
    told = [entry.fact for entry in model_of(world).evidence]
    assert {fact.site for fact in told} == {"b", "c"}
    heard = (entry.fact for entry in world.job.lineage if entry.digest in first.entries)
    assert {fact.site for fact in heard if isinstance(fact, Verification)} == {"a", "b", "c"}


def test_a_model_that_is_published_is_kept_while_its_job_goes_on_to_a_better_one() -> None:
    world = resumed()
    before = model_of(world).manifest
    world.feed(ResumeAsked())
    while world.job.best is None or world.job.best.model.manifest == before:
        assert world.step()
    assert world.job.state.final or before in models_of(world.job)
    world.run()
    assert before not in models_of(world.job)


@pytest.mark.parametrize("told_before", [False, True])
async def test_a_control_centre_that_died_with_a_resumed_jobs_end_publishes_what_it_left(
    tmp_path: Path, told_before: bool
) -> None:
    world = resumed()
    before = model_of(world)
    world.feed(ResumeAsked())
    world.run()
    left = model_of(world)
    assert left.manifest != before.manifest
    with closing(SqlJournal(f"sqlite:///{tmp_path / 'jobs.db'}")) as journal:
        stored = [msgspec.msgpack.encode(StoredEvent(event, at_s)) for event, at_s in world.facts]
        journal.append(world.job.id, 0, stored, world.now_s)
        if told_before:
            journal.put("model", world.job.id, encode(before))
        fabric = MemoryNetwork().open("center")
        center = ControlCenter(CenterConfig(state=str(tmp_path), insecure=True), fabric)
        await center.start()

        def manifest() -> str:
            told = journal.get("model", world.job.id)
            return decode(told, ModelDescriptor).manifest if told else ""

        await until(lambda: manifest() == left.manifest)
        await center.close()
        await fabric.close()
