"""The page of one query."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from daitn.objects.decisions import Decision
from daitn.objects.deployments import Api
from daitn.objects.queries import QueryRecord, QueryStatus, Strategy
from daitn.objects.requests import QueryExplained
from tests.scenes.browser import browser
from tests.web.canned import canned

pytestmark = pytest.mark.slow

REFUSED = QueryRecord(
    id="counter:8",
    asked_at_s=1.0,
    owner="ann",
    api=Api.CHAT,
    model_wanted="doctor",
    topic="",
    status=QueryStatus.REFUSED,
    http_status=402,
    strategy=Strategy.SINGLE,
    reason="ann may spend 1 USD a day",
)
NO_DECISION = Decision(
    policy="", chosen=None, ranking=(), rejections=(), snapshot_version=0, at_s=1.0
)


def test_a_query_without_a_decision_is_shown_with_its_reason() -> None:
    undecided = "it ended before a decision"
    explained = QueryExplained(query=REFUSED, decision=NO_DECISION, undecided=undecided)
    with canned({"/queries/counter/8": explained}) as center, browser() as running:
        page = running.new_page()
        page.goto(f"{center.url}/queries/counter/8")
        expect(page.get_by_text("ann may spend 1 USD a day")).to_be_visible()
        expect(page.get_by_text(f"None to show: {undecided}")).to_be_visible()
        expect(page.get_by_text("What was left out")).to_have_count(0)
