"""The dashboard in a real browser, over a real network that has trained, deployed and answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import openai
import pytest
from playwright.sync_api import Browser

from tests.scenes.browser import User, browser
from tests.scenes.clinic import facility, gateway, write_clinic, write_clinic_intent
from tests.scenes.waiting import wait_until
from tests.system.conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

MS_DRRT = "Who can serve this model (MS-DRRT), and who cannot"
PAGES = (
    "/",
    "/map",
    "/map?site=ninds",
    "/map?links=rate",
    "/sites",
    "/sites/ninds",
    "/topology",
    "/jobs",
    "/jobs/doctor-1",
    f"/jobs/doctor-1?show={quote(MS_DRRT)}",
    "/intent",
    "/models",
    "/queries",
    "/packets",
    "/accounts",
    "/events",
    "/audit",
    "/nowhere",
)
MOST_CLICKS = 3


@dataclass(frozen=True)
class Watched:
    """A network, and how its operator comes in."""

    network: Network
    url: str
    token: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("dashboard")
    door = gateway("gate")
    made = running(folder, write_clinic(folder, facility("east"), facility("west"), door))
    try:
        route = [{"site": "ninds", "examples": 200}, {"site": "nhlbi", "examples": 200}]
        pool = {"credits_usd": 4}
        intent = write_clinic_intent(folder, route=route, training=pool)
        ended = made.daitn("train", "-f", str(intent), "--watch", "--insist")
        assert ended.returncode in (0, 1), ended.stderr
        made.json("deploy", "doctor-1", "--to", "east", "--wait")
        _ask(f"http://{door['gateway']['listen']}/v1")
        url = made.daitn("dashboard").stdout.partition("/#")[0]
        yield Watched(made, url, made.json("token", "create", "--center-api")["token"])
    finally:
        made.processes.stop()


def _ask(url: str) -> None:
    """One query that is answered, and one that nobody may answer."""
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": "What is Velnonia?"}]

    def answered() -> bool:
        try:
            client.chat.completions.create(model="doctor-1", messages=messages, max_tokens=4)
        except openai.APIError:
            return False
        return True

    wait_until(answered)
    elsewhere = {"daitn": {"jurisdictions": ["AQ"]}}
    with pytest.raises(openai.APIError):
        client.chat.completions.create(model="auto", messages=messages, extra_body=elsewhere)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running_:
        yield running_


@pytest.fixture
def user(watched: Watched, chromium: Browser) -> Iterator[User]:
    """An operator who has just come in."""
    yield from _at(watched, chromium)


def _at(watched: Watched, chromium: Browser, **options: Any) -> Iterator[User]:
    context = chromium.new_context(**options)
    page = context.new_page()
    user = User(page, watched.url)
    page.goto(f"{watched.url}/#token={watched.token}")
    page.wait_for_selector("h1")
    user.settle()
    yield user
    context.close()
    assert not user.errors


def ask_why_a_job_ended(user: User) -> None:
    user.click("doctor-1")
    asked = "fetch('/api/v1/jobs/doctor-1').then((answer) => answer.json())"
    job = user.page.evaluate(asked)
    user.sees(job["state"], job["detail"] or job["sentence"])


def ask_who_may_see_neurology_data(user: User) -> None:
    user.click("Sites")
    user.click("ninds")
    user.sees("Data, and who may learn from it", "medicine/neurology")


def ask_what_last_week_cost(user: User) -> None:
    user.click("Accounts")
    user.page.get_by_role("combobox", name="of the").select_option("week")
    user.clicks += 1
    user.sees("Who used what, and what it cost", "owner/health-ai")


def ask_what_data_brought(user: User) -> None:
    user.click("Accounts")
    row = user.page.get_by_role("row").filter(has_text=re.compile(r"credits\s*doctor-1.*\$4\.00"))
    row.first.wait_for()


def ask_which_site_is_busy(user: User) -> None:
    user.click("Sites")
    user.page.get_by_role("img", name=re.compile("load ")).first.wait_for()


def ask_which_site_is_lost(user: User) -> None:
    user.sees("Sites that are lost", "every site that is known is connected")


def ask_where_queries_go(user: User) -> None:
    user.click("Queries")
    user.sees("Where they go", "doctor-1 @ east")


def ask_why_a_query_failed(user: User) -> None:
    user.click("Queries")
    row = user.page.get_by_role("row").filter(has_text="refused").first
    row.get_by_role("link").click()
    user.clicks += 1
    user.sees("What was left out", "jurisdiction")


def ask_how_good_a_model_is_and_who_says_so(user: User) -> None:
    user.click("Models")
    user.sees("accuracy, and who says so", "medicine/neurology")
    measured = user.page.get_by_role("row").filter(has_text=re.compile("±.*(weights|asked)"))
    measured.first.wait_for()


def ask_who_made_a_model(user: User) -> None:
    user.click("doctor-1")
    user.click("Show Lineage: who made, trained and measured it", role="button")
    user.sees("made from seed", "trained on 200 examples")


def ask_whether_a_model_can_be_had(user: User) -> None:
    user.click("New intent")
    for field, value in {
        "owner": "acme",
        "topics": "medicine/neurology",
        "topic-0": "astronomy",
        "config": '{"layers": 1, "width": 48, "heads": 2, "vocabulary": 500}',
        "recipe": "causal-lm",
    }.items():
        user.page.locator(f"[name='{field}']").fill(value)
    user.sees("Not feasible.", "does not test astronomy")


QUESTIONS = (
    ask_why_a_job_ended,
    ask_who_may_see_neurology_data,
    ask_what_last_week_cost,
    ask_what_data_brought,
    ask_which_site_is_busy,
    ask_which_site_is_lost,
    ask_where_queries_go,
    ask_why_a_query_failed,
    ask_how_good_a_model_is_and_who_says_so,
    ask_who_made_a_model,
    ask_whether_a_model_can_be_had,
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_operator_s_question_is_answered_in_three_clicks(
    user: User, question: Callable[[User], None]
) -> None:
    question(user)
    assert user.clicks <= MOST_CLICKS
    user.errors = [error for error in user.errors if "422" not in error]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(watched: Watched, chromium: Browser, scheme: str) -> None:
    for user in _at(watched, chromium, color_scheme=scheme):
        for path in PAGES:
            user.open(path)
            assert user.violations() == [], path


def test_every_page_fits_a_phone(watched: Watched, chromium: Browser) -> None:
    for user in _at(watched, chromium, viewport={"width": 390, "height": 800}):
        for path in PAGES:
            user.open(path)
            wide = "document.documentElement.scrollWidth - innerWidth"
            assert user.page.evaluate(wide) <= 0, path


def test_pages_are_reached_by_keyboard_alone(user: User) -> None:
    page = user.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Jobs":
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Jobs", level=1).wait_for()
    assert page.url.endswith("/jobs")


def test_what_is_listed_is_taken_along(user: User, tmp_path: Path) -> None:
    user.click("Sites")
    for form in ("CSV", "JSON"):
        with user.page.expect_download() as download:
            user.click(form, role="button")
        download.value.save_as(tmp_path / form)
    assert "ninds,alive" in (tmp_path / "CSV").read_text()
    sites = {site["descriptor"]["site"] for site in json.loads((tmp_path / "JSON").read_text())}
    assert {"ninds", "nhlbi", "east", "west", "gate"} <= sites


def test_a_page_is_linked_by_its_address(user: User) -> None:
    user.open("/sites?role=verifier")
    user.sees("mpvu")
    assert user.page.get_by_role("link", name="ninds").count() == 0
    user.page.reload()
    user.sees("mpvu")


def test_who_could_answer_a_query_is_drawn_with_why_others_may_not(
    user: User, tmp_path: Path
) -> None:
    user.click("Queries")
    row = user.page.get_by_role("row").filter(has_text="refused").first
    row.get_by_role("link").click()
    user.settle()
    picture = user.page.get_by_role("img", name=re.compile("QS-QRRT of gate-.*: 0 fit, [1-9]"))
    assert "jurisdiction" in str(picture.text_content())
    with user.page.expect_download() as download:
        user.page.get_by_role("button", name=re.compile("Picture of QS-QRRT")).click()
    download.value.save_as(tmp_path / "cut.svg")
    drawn = ElementTree.fromstring((tmp_path / "cut.svg").read_text())
    assert drawn.tag.endswith("svg")
    assert "jurisdiction" in "".join(drawn.itertext())
    assert "var(" not in (tmp_path / "cut.svg").read_text(), "its colours are in it"


def test_who_can_serve_a_model_is_drawn_and_has_an_address(user: User) -> None:
    user.open("/jobs/doctor-1")
    user.click(f"Show {MS_DRRT}", role="button")
    drawn = user.page.get_by_role("img", name=re.compile("MS-DRRT of doctor-1: [1-9]"))
    assert "ninds/" in str(drawn.text_content())
    user.page.reload()
    drawn.wait_for()


def test_links_of_the_map_are_told_apart_without_colour(user: User) -> None:
    user.open("/map")
    user.sees("up to 10 ms", "over 100 ms", "not measured")
    strokes = user.page.locator(".legend line").all()
    assert len({stroke.get_attribute("stroke-width") for stroke in strokes}) == 4
    user.page.get_by_label("links by").select_option("rate")
    user.sees("under 10")
    assert user.page.url.endswith("links=rate")


def test_a_site_is_drained_and_brought_back_from_its_page(user: User) -> None:
    user.open("/sites/east")
    user.page.get_by_label("why, for every").fill("new disks")
    user.click("Cordon", role="button")
    user.sees("new disks", "Still under way here: deployment doctor-1")
    user.click("Drain", role="button")
    user.sees("drained by")
    user.click("Take back into service", role="button")
    user.page.get_by_role("button", name="Cordon", exact=True).wait_for()


def test_who_is_not_signed_in_sees_nothing(user: User) -> None:
    user.click("Sign out", role="button")
    user.page.get_by_label("Token").fill("nonsense")
    user.click("Sign in", role="button")
    user.page.get_by_role("alert").wait_for()
    assert user.page.get_by_text("doctor-1").count() == 0
    user.errors = [error for error in user.errors if "401" not in error]


def test_what_happens_is_shown_at_once_and_a_lost_centre_is_told(
    watched: Watched, user: User
) -> None:
    processes = watched.network.processes
    processes.kill("west")
    user.sees("Sites that are lost")
    user.page.get_by_role("link", name="west").first.wait_for()
    user.click("Events")
    user.sees("lost")
    processes.kill("center")
    user.sees("The control centre does not answer")
    user.errors = []
    processes.launch("west")
    processes.launch("center")
    user.page.get_by_text("The control centre does not answer").wait_for(state="detached")
    user.errors = []
