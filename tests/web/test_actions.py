"""What a button does is done once, however often it is clicked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from daitn.objects.cordons import Cordon
from daitn.objects.jobs import JobState, JobSummary
from daitn.objects.placement import DeploymentView
from tests.scenes.waiting import wait_until
from tests.web.canned import Canned, canned, facility, job, page

pytestmark = pytest.mark.slow

ACCEPT = "window.confirm = () => true"
TWICE = "(button) => { button.click(); button.click(); }"


class Clicked(NamedTuple):
    path: str
    button: str
    asks: str


ACTIONS = (
    Clicked("/jobs/running-1", "Cancel the job", "POST /jobs/running-1/cancel"),
    Clicked("/jobs/failed-1", "Resume the job", "POST /jobs/failed-1/resume"),
    Clicked("/models", "Retire doctor", "DELETE /deployments/doctor"),
    Clicked("/sites/east", "Cordon", "POST /sites/east/cordon"),
    Clicked("/sites/east", "Drain", "POST /sites/east/cordon"),
    Clicked("/sites/west", "Return to service", "POST /sites/west/cordon"),
)


@pytest.fixture
def center() -> Iterator[Canned]:
    running, failed = job("running-1", JobState.VISITING), job("failed-1", JobState.FAILED)
    east, west = facility("east"), facility("west", cordon=Cordon(by="ann", since_s=1.0))
    deployed = DeploymentView(name="doctor", model="m-1", replicas=1, places=(), why="asked")
    answers: dict[str, object] = {
        "/jobs/running-1": running,
        "/jobs/failed-1": failed,
        "/sites": page(east, west),
        "/sites/east": east,
        "/sites/west": west,
        "/deployments": page(deployed),
    }
    for action in ACTIONS:
        answers[action.asks.partition(" ")[2]] = {}
    with canned(answers) as made:
        yield made


@pytest.fixture
def shown(chromium: Browser) -> Iterator[Page]:
    made = chromium.new_page()
    made.add_init_script(ACCEPT)
    yield made
    made.close()


def click_twice(center: Canned, shown: Page, name: str, asks: str) -> None:
    center.hold(asks)
    button = shown.get_by_role("button", name=name, exact=True).first
    button.evaluate(TWICE)
    expect(button).to_be_disabled()
    button.evaluate(TWICE)
    wait_until(lambda: asks in center.asked)
    center.release()


@pytest.mark.parametrize("action", ACTIONS, ids=[f"{one.path}-{one.button}" for one in ACTIONS])
def test_a_double_click_asks_once(center: Canned, shown: Page, action: Clicked) -> None:
    shown.goto(center.url + action.path)
    click_twice(center, shown, action.button, action.asks)
    expect(shown.get_by_role("button", name=action.button, exact=True)).to_be_enabled()
    assert center.asked.count(action.asks) == 1


def test_a_button_rests_until_what_it_did_is_shown(center: Canned, shown: Page) -> None:
    read = "GET /jobs/running-1"
    shown.goto(f"{center.url}/jobs/running-1")
    button = shown.get_by_role("button", name="Cancel the job")
    expect(button).to_be_enabled()
    center.hold(read)
    before = center.asked.count(read)
    button.evaluate(TWICE)
    wait_until(lambda: center.asked.count(read) > before)
    expect(button).to_be_disabled()
    center.answers["/jobs/running-1"] = job("running-1", JobState.CANCELLED)
    center.release()
    expect(button).to_have_count(0)
    assert center.asked.count("POST /jobs/running-1/cancel") == 1


def test_a_failure_is_gone_once_it_is_tried_again(center: Canned, shown: Page) -> None:
    path = "/jobs/running-1/cancel"
    del center.answers[path]
    shown.goto(f"{center.url}/jobs/running-1")
    button = shown.get_by_role("button", name="Cancel the job")
    failure = shown.get_by_role("alert").filter(has_text=path)
    button.click()
    expect(failure).to_be_visible()
    center.answers[path] = {}
    button.click()
    expect(failure).to_have_count(0)


def test_nobody_is_said_not_to_answer_who_does_again(center: Canned, shown: Page) -> None:
    shown.goto(f"{center.url}/jobs/running-1")
    button = shown.get_by_role("button", name="Cancel the job")
    expect(button).to_be_enabled()
    shown.route("**/cancel", lambda route: route.abort())
    button.click()
    failure = shown.get_by_role("alert").filter(has_text="does not answer")
    expect(failure).to_be_visible()
    expect(failure).to_have_count(0)  # The stream never broke: its next heartbeat tells.


def test_an_intent_that_nobody_assessed_is_assessed_once_somebody_answers(
    center: Canned, shown: Page
) -> None:
    shown.goto(f"{center.url}/intent")
    shown.route("**/assessments", lambda route: route.abort())
    for label in ("Owner", "Topics of data, comma-separated", "Topic of the test"):
        shown.get_by_label(label, exact=True).fill("acme")
    failure = shown.get_by_role("alert").filter(has_text="does not answer")
    expect(failure).to_be_visible()
    shown.unroute("**/assessments")
    expect(failure).to_have_count(0)
    wait_until(lambda: "POST /assessments" in center.asked)


def test_nobody_signs_in_or_out_twice(center: Canned, shown: Page) -> None:
    center.ways = ("token",)
    shown.goto(f"{center.url}/jobs")
    shown.get_by_label("Token").fill("ann")
    click_twice(center, shown, "Sign in", "POST /session")
    expect(shown.get_by_text("ann, owner")).to_be_visible()
    click_twice(center, shown, "Sign out", "DELETE /session")
    expect(shown.get_by_label("Token")).to_be_visible()
    assert center.asked.count("POST /session") == center.asked.count("DELETE /session") == 1


def test_a_long_list_is_exported_once(center: Canned, shown: Page) -> None:
    row = JobSummary.of(job("running-1", JobState.VISITING))
    center.answers["/jobs"] = {"items": [row], "next": "more"}
    shown.goto(f"{center.url}/jobs")
    csv = shown.get_by_role("button", name="CSV")
    expect(csv).to_be_enabled()
    # Once at once, and once when the stream of events is open.
    wait_until(lambda: center.asked.count("GET /jobs") == 2)
    center.hold("GET /jobs")
    csv.evaluate(TWICE)
    expect(csv).to_be_disabled()
    center.answers["/jobs"] = page(row)
    with shown.expect_download():
        center.release()
    assert center.asked.count("GET /jobs") == 3
