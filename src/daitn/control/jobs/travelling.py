"""The job of a model that travels on its own, derived from the facts that the model carries."""

from __future__ import annotations

from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay
from daitn.objects.agents import Agent
from daitn.objects.errors import Corrupt

__all__ = ["job_of"]


def job_of(agent: Agent) -> Job:
    """Derive an agent's job. Raises `Corrupt` for facts that do not form a job, or form another
    one."""
    try:
        job = replay((fact.event, fact.at_s) for fact in agent.facts)
    # Facts come from other sites: if the state machine raises anything, they do not form a job.
    except Exception as error:
        raise Corrupt(
            f"the facts of {agent.job} do not make up a job: {error!r}", field="facts"
        ) from None
    if job.id != agent.job:
        raise Corrupt(f"the facts of {agent.job} are about {job.id}", field="facts")
    if job.walker != agent.walker or job.walker >= job.intent.training.travelling:
        raise Corrupt(f"the facts of {agent.name} are about another model", field="walker")
    return job
