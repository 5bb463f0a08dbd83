"""Handlers of changes: one function for each route of the table."""

from __future__ import annotations

from typing import Any

from daitn.oam.api.answers import Measuring
from daitn.oam.api.asking import Asked
from daitn.objects.cordons import CordonQuestion
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.placement import RetireIntent
from daitn.objects.requests import JobQuery
from daitn.objects.value import ValueQuestion

__all__ = ["cancel", "cordon", "deploy", "measure", "resume", "retire", "steer", "submit"]


async def submit(asked: Asked) -> Any:
    """Start a training job. Resubmitting the same order gives the same job."""
    return await asked.ask("submit", asked.body)


async def cancel(asked: Asked) -> Any:
    """Stop a job."""
    return await asked.ask("cancel", JobQuery(job=JobId(asked.path["job"])))


async def resume(asked: Asked) -> Any:
    """Continue a job that was cancelled, failed or used up its budget from its best model, with the
    rest of its budget. If it cannot be resumed, its `not_resumed` says why in advance."""
    return await asked.ask("resume", JobQuery(job=JobId(asked.path["job"])))


async def measure(asked: Asked) -> Any:
    """Have the value of an ended job's data measured; `GET` returns results as they become
    known."""
    wanted: Measuring = asked.body
    question = ValueQuestion(
        job=JobId(asked.path["job"]),
        measure=True,
        coalitions=wanted.coalitions,
        within_s=wanted.within_s,
    )
    return await asked.ask("value", question)


async def cordon(asked: Asked) -> Any:
    """Take a site out of service, or return it to service. Operators and the site's owner may do
    this; the site itself decides, so the token must let the control centre act for the caller."""
    question: CordonQuestion = asked.body
    return await asked.ask_site(asked.path["site"], "cordon", question)


async def steer(asked: Asked) -> Any:
    """Change the control centre's advice to forwarders."""
    return await asked.ask("steer", asked.body)


async def deploy(asked: Asked) -> Any:
    """Deploy a trained model, replacing an earlier one of the same name."""
    return await asked.ask("deploy", asked.body)


async def retire(asked: Asked) -> Any:
    """Retire a deployment, everywhere or at one facility."""
    site = asked.query["site"]
    wanted = RetireIntent(name=asked.path["name"], site=SiteId(site) if site else None)
    return await asked.ask("retire", wanted)
