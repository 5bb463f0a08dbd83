"""What must hold of models that travel by themselves: none is lost without a word, none goes on
after its end, and what they did at sites is paid once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from daitn.node.agents.store import AgentStore
from daitn.objects.identifiers import JobId, VisitId
from daitn.objects.jobs import Reported
from daitn.objects.lineage import Visit
from daitn.objects.messages import WorkState
from tests.faults.world import HOME

if TYPE_CHECKING:
    from tests.faults.run import Run

__all__ = ["travelled"]

_PAID = f"{HOME}/visit/"


def travelled(run: Run) -> Iterator[str]:
    """What is wrong with them, besides what may be wrong with any job."""
    if not run.world.travels:
        return
    for one in run.submissions:
        mine = [job for job, shown in run.travelled.items() if shown.name == one.intent.name]
        if one.home and len(mine) > 1:
            yield f"one order is several jobs of its home: {', '.join(mine)}"
        if one.home and one.accepted and one.accepted not in mine:
            yield f"{one.accepted} was accepted, and its home has {mine}"
    for job in run.travelled:
        if run.ended_alone is not None and job not in run.ended_alone:
            yield f"{job} had not ended before the control centre was back"
    ended = {job for job, shown in run.travelled.items() if shown.state.final}
    for site in run.world.nodes:
        for agent in AgentStore(run.world.state(site) / "agents").all():
            if agent.job in ended:
                yield f"{agent.name} has ended, and is at {site} still"
    yield from _paid(run, ended)


def _paid(run: Run, ended: set[JobId]) -> Iterator[str]:
    """The ledger has each visit that a home was told of, and no other."""
    lines = run.world.database.kept._lines
    causes = Counter(line.entry.cause for line in lines)
    paid = {VisitId(cause.removeprefix(_PAID)) for cause in causes if cause.startswith(_PAID)}
    done, over = set[VisitId](), set[VisitId]()
    for agent in AgentStore(run.world.state(HOME) / "agents-of-home").all():
        for fact in agent.facts:
            if not isinstance(fact.event, Reported):
                continue
            outcome = fact.event.outcome
            made = outcome.entry.fact if outcome.entry is not None else None
            if outcome.state is WorkState.DONE and isinstance(made, Visit):
                done.add(outcome.visit)
                over |= {outcome.visit} if agent.job in ended else set()
    yield from (f"the visit {visit} was paid, and its home knows none" for visit in paid - done)
    yield from (f"the visit {visit} was done, and is not paid" for visit in over - paid)
