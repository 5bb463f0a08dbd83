"""Answers to those who change something: one function for each route of the table."""

from __future__ import annotations

from typing import Any

from daitn.oam.api.asking import Asked
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.placement import RetireIntent
from daitn.objects.requests import JobQuery

__all__ = ["cancel", "deploy", "retire", "submit"]


async def submit(asked: Asked) -> Any:
    """Start a training job. The same order handed in again is the same job."""
    return await asked.ask("submit", asked.body)


async def cancel(asked: Asked) -> Any:
    """Stop a job."""
    return await asked.ask("cancel", JobQuery(job=JobId(asked.path["job"])))


async def deploy(asked: Asked) -> Any:
    """Deploy a trained model, in place of an earlier one of the name."""
    return await asked.ask("deploy", asked.body)


async def retire(asked: Asked) -> Any:
    """Retire a deployment, everywhere or at one facility."""
    site = asked.query["site"]
    wanted = RetireIntent(name=asked.path["name"], site=SiteId(site) if site else None)
    return await asked.ask("retire", wanted)
