"""A value that no receiver takes is refused before it is sent, with the option that stated it."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec
import pytest

from daitn.cli.option_names import OPTIONS
from daitn.cli.session import Session
from daitn.objects.accounts import AccountQuestion
from daitn.objects.cordons import CordonChange, CordonQuestion, CordonReport
from daitn.objects.errors import InvalidInput, Refused, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import JobView
from daitn.objects.placement import DeployIntent, RetireIntent
from daitn.objects.queries import QueryConstraints, QueryIntent
from daitn.objects.requests import CutQuery, JobsWanted
from daitn.objects.steering import Probe, Steer, TraceQuestion
from daitn.objects.value import ValueQuestion
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from tests.docs.pages import DOCS


@pytest.mark.parametrize(
    ("reason", "problem"),
    [("x" * 301, "length <= 300"), ("new\ndisks", "visible text on one line")],
)
async def test_a_reason_that_no_site_takes_is_named(reason: str, problem: str) -> None:
    session = Session(MemoryNetwork().open("ann"))
    question = CordonQuestion(change=CordonChange.DRAIN, reason=reason)
    with pytest.raises(InvalidInput) as refused:
        await session.ask_site(SiteId("east"), "cordon", question, CordonReport)
    assert refused.value.field == "--reason"
    assert problem in refused.value.problem


async def test_what_the_control_centre_would_not_take_is_named() -> None:
    session = Session(MemoryNetwork().open("ann"))
    with pytest.raises(InvalidInput) as refused:
        await session.ask("jobs", JobsWanted(limit=1001), JobView)
    assert refused.value.field == "limit"
    with pytest.raises(Unreachable):
        await session.ask("jobs", JobsWanted(limit=1000), JobView)


CONSTRAINED = {"origin": "gw", "owner": "", "api": "chat", "model": "auto"}
BEYOND: tuple[tuple[type[msgspec.Struct], dict[str, Any], str], ...] = (
    (CordonQuestion, {"reason": "x" * 301}, "--reason"),
    (AccountQuestion, {"from_s": -1.0}, "--from"),
    (AccountQuestion, {"to_s": -1.0}, "--to"),
    (AccountQuestion, {"account": "a\nb"}, "account"),
    (CutQuery, {"intent": CONSTRAINED | {"topic": "a\nb"}}, "--topic"),
    (CutQuery, {"intent": CONSTRAINED | {"constraints": {"min_accuracy": 2.0}}}, "--min-accuracy"),
    (
        CutQuery,
        {"intent": CONSTRAINED | {"constraints": {"max_cost_usd": -1.0}}},
        "--max-cost",
    ),
    (DeployIntent, {"model": "a\nb"}, "model"),
    (DeployIntent, {"model": "a", "name": "a\nb"}, "--as"),
    (DeployIntent, {"model": "a", "to": ["a"] * 257}, "--to"),
    (DeployIntent, {"model": "a", "replicas": 257}, "--replicas"),
    (DeployIntent, {"model": "a", "price_usd_per_1k_in": 1e300}, "--price-in"),
    (DeployIntent, {"model": "a", "price_usd_per_1k_out": 1e300}, "--price-out"),
    (Probe, {"intent": b"", "timeout_s": 61.0}, "--within"),
    (RetireIntent, {"name": "a\nb"}, "name"),
    (Steer, {"prefer": {"latency": -1.0}}, "--prefer"),
    (TraceQuestion, {"object": "0"}, "object"),
    (ValueQuestion, {"job": "a", "coalitions": 1}, "--coalitions"),
    (ValueQuestion, {"job": "a", "within_s": 0.0}, "--minutes"),
)


def _unchecked(kind: type[msgspec.Struct], fields: dict[str, Any]) -> msgspec.Struct:
    """As a command builds it: a struct does not check its own fields."""
    constraints = dict(fields.get("intent") or {}) if kind is CutQuery else {}
    if kind is CutQuery:
        inner = constraints.pop("constraints", {})
        built = QueryIntent(
            **constraints, tokens_in=1, tokens_out=1, constraints=QueryConstraints(**inner)
        )
        return CutQuery(intent=built)
    return kind(**fields)


@pytest.mark.parametrize(("kind", "fields", "option"), BEYOND)
async def test_an_error_names_the_option_that_filled_the_field(
    kind: type[msgspec.Struct], fields: dict[str, Any], option: str
) -> None:
    session = Session(MemoryNetwork().open("ann"))
    with pytest.raises(InvalidInput) as refused:
        await session.ask("anything", _unchecked(kind, fields), JobView)
    assert refused.value.field == option


async def test_the_control_centres_error_about_a_field_names_its_option_too() -> None:
    async def refuses(_: str, payload: bytes) -> bytes:
        raise Refused("it may not host this", field="to[0]")

    fabric = MemoryNetwork().open("ann")
    await fabric.serve(keys.center_do("deploy"), refuses)
    with pytest.raises(Refused) as refused:
        await Session(fabric).ask("deploy", DeployIntent(model="a"), JobView)
    assert refused.value.field == "--to"


def test_options_of_the_table_exist_and_their_fields_too() -> None:
    reference = (DOCS / "reference" / "command-line.md").read_text()
    for kind, options in OPTIONS.items():
        for path, option in options.items():
            assert option == "job" or f"`{option} " in reference or f"`{option}`" in reference
            inner: Any = kind
            for name in path.split("."):
                inner = get_type_hints(inner)[name]
