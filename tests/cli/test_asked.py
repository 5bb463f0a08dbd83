"""A value that no receiver takes is refused before it is sent, with its field."""

from __future__ import annotations

import pytest

from daitn.cli.session import Session
from daitn.objects.cordons import CordonChange, CordonQuestion, CordonReport
from daitn.objects.errors import InvalidInput, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import JobView
from daitn.objects.requests import JobsWanted
from daitn.tools.fabric.memory import MemoryNetwork


@pytest.mark.parametrize(
    ("reason", "problem"),
    [("x" * 301, "length <= 300"), ("new\ndisks", "visible text on one line")],
)
async def test_a_reason_that_no_site_takes_is_named(reason: str, problem: str) -> None:
    session = Session(MemoryNetwork().open("ann"))
    question = CordonQuestion(change=CordonChange.DRAIN, reason=reason)
    with pytest.raises(InvalidInput) as refused:
        await session.ask_site(SiteId("east"), "cordon", question, CordonReport)
    assert refused.value.field == "reason"
    assert problem in refused.value.problem


async def test_what_the_control_centre_would_not_take_is_named() -> None:
    session = Session(MemoryNetwork().open("ann"))
    with pytest.raises(InvalidInput) as refused:
        await session.ask("jobs", JobsWanted(limit=1001), JobView)
    assert refused.value.field == "limit"
    with pytest.raises(Unreachable):
        await session.ask("jobs", JobsWanted(limit=1000), JobView)
