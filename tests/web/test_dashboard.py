"""The dashboard in a real browser, over a real network that has trained, deployed and answered."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import openai
import psutil
import pytest
from playwright.sync_api import Browser, Route

from tests.scenes.browser import User
from tests.scenes.clinic import facility, gateway, write_clinic, write_clinic_intent
from tests.scenes.waiting import wait_until
from tests.scenes.workers import children_of
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
    reader: str
    """A token with which nothing can be changed."""
    owner: str
    """A token of the owner of the site `east`, who has its name."""


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
        _plan(made, write_clinic_intent(folder, name="planned", route=[]))
        _ask(f"http://{door['gateway']['listen']}/v1")
        url = made.daitn("dashboard").stdout.partition("/#")[0]
        tokens = [
            made.json("token", "create", "--center-api", *more)["token"]
            for more in ((), ("--read-only",), ("--owner", "east"))
        ]
        yield Watched(made, url, *tokens)
    finally:
        made.processes.stop()


def _plan(network: Network, intent: Path) -> None:
    """A job whose route the network chooses; it is cancelled once it has."""
    job = network.json("train", "-f", str(intent), "--insist")["job"]

    def decided() -> bool:
        return bool(network.json("explain", job)["decisions"])

    wait_until(decided)
    network.json("cancel", job)


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
    user.sees("Lost sites", "every known site is connected")


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
    user.click("Show Lineage: who created, trained and measured it", role="button")
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
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
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


FIGURE = re.compile(r"–|[−+]?\$.*|[−+]?[\d.]+ (ms|s|min|h|B|kB|MB|GB|TB|%)( ago)?|\d{1,3}(,\d{3})+")
"""A figure as people read it, which no program does."""
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|")


def test_programs_can_read_what_is_exported(user: User, tmp_path: Path) -> None:
    """Figures whole and in one unit, moments with their day and time zone."""
    moments = 0
    for path in PAGES:
        user.open(path)
        buttons = user.page.get_by_role("button", name="CSV", exact=True)
        for number in range(buttons.count()):
            with user.page.expect_download() as download:
                buttons.nth(number).click()
            download.value.save_as(tmp_path / "table.csv")
            with (tmp_path / "table.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                for name, value in row.items():
                    assert not FIGURE.fullmatch(value), (path, name, value)
                    if "(UTC)" in name:
                        moments += bool(value)
                        assert MOMENT.fullmatch(value), (path, name, value)
    assert moments
    user.open("/accounts")
    with user.page.expect_download() as download:
        user.click("CSV", role="button")
    download.value.save_as(tmp_path / "accounts.csv")
    with (tmp_path / "accounts.csv").open(newline="") as file:
        paid = {row["account"]: float(row["paid (USD)"]) for row in csv.DictReader(file)}
    assert paid["owner/health-ai"] >= 4.0


def test_a_list_is_exported_whole_and_stays_while_more_is_loaded(
    user: User, tmp_path: Path
) -> None:
    for found, limit in (("sites$", "?limit=2"), (r"sites\?cursor=", "&limit=2")):
        user.page.route(re.compile(f"/api/v1/{found}"), _ends_in(limit))
    user.open("/sites")
    assert user.page.get_by_role("row").count() == 3
    with user.page.expect_download() as download:
        user.click("CSV", role="button")
    download.value.save_as(tmp_path / "CSV")
    assert len((tmp_path / "CSV").read_text().splitlines()) >= 8
    assert user.page.evaluate(SHOWN_MEANWHILE) == 2


def _ends_in(limit: str) -> Callable[[Route], None]:
    return lambda route: route.continue_(url=route.request.url + limit)


SHOWN_MEANWHILE = """new Promise((done) => {
  let least = Infinity;
  const look = () => {
    const rows = document.querySelectorAll("tbody tr").length;
    least = Math.min(least, rows);
    if (rows > 2) done(least);
    else requestAnimationFrame(look);
  };
  [...document.querySelectorAll("button")].find((one) => one.textContent === "Show more").click();
  look();
})"""
"""Least number of rows until there are more."""


def test_events_of_one_kind_are_asked_for(user: User) -> None:
    with user.page.expect_request(lambda request: "/history?kind=site" in request.url):
        user.open("/events?kind=site")
    kinds = user.page.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert set(kinds) <= {"site"}


def test_failures_are_counted_by_kind_with_an_example(user: User) -> None:
    user.click("Queries")
    failed = user.page.get_by_role("table", name="What failed, and why").get_by_role("row")
    kinds = [str(row.text_content()) for row in failed.all()[1:]]
    assert any(
        re.match(r"refused \(4\d\d\).*left out 1 by jurisdiction", kind) for kind in kinds
    ), kinds


def test_who_may_only_read_is_offered_nothing_else(watched: Watched, chromium: Browser) -> None:
    for user in _at(replace(watched, token=watched.reader), chromium):
        for path in ("/models", "/jobs/planned-1", "/sites/east"):
            user.open(path)
            offered = user.page.locator("main button").all_inner_texts()
            words = {"Retire", "Cancel", "Resume", "Cordon", "Drain"}
            assert not [one for one in offered if words & set(one.split())], path
        assert user.page.title() == "east – Sites – DA-ITN"


def test_an_owner_is_offered_its_own_sites_service_only(
    watched: Watched, chromium: Browser
) -> None:
    for user in _at(replace(watched, token=watched.owner), chromium):
        cordon = user.page.get_by_role("button", name="Cordon", exact=True)
        user.open("/sites/ninds")
        user.sees("owner", "jurisdiction")
        assert cordon.count() == 0
        user.open("/sites/east")
        cordon.wait_for()


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


def test_a_job_s_report_is_a_page_of_its_own(user: User) -> None:
    user.open("/jobs/doctor-1")
    with user.page.context.expect_page() as opened:
        user.click("Report")
    opened.value.get_by_role("heading", level=1).wait_for()
    assert "doctor-1" in opened.value.content()
    assert "entries are signed with their sites" in opened.value.content()


def test_a_cancelled_job_is_resumed_and_cancelled_from_its_page(user: User) -> None:
    user.open("/jobs/planned-1")
    user.page.on("dialog", lambda dialog: dialog.accept())
    user.click("Resume the job", role="button")
    user.click("Cancel the job", role="button")
    user.page.get_by_role("button", name="Resume the job").wait_for()


def test_a_job_that_would_end_again_at_once_says_so_in_place_of_a_button(user: User) -> None:
    """It has made every visit of its route, and divided what it had set aside."""
    user.open("/jobs/doctor-1")
    asked = "fetch('/api/v1/jobs/doctor-1').then((answer) => answer.json())"
    job = user.page.evaluate(asked)
    assert "has divided what it set aside" in job["not_resumed"]["problem"] or (
        job["state"] == "reached"
    )
    assert not user.page.get_by_role("button", name="Resume the job").count()
    if job["state"] != "reached":
        user.sees(job["not_resumed"]["problem"], job["not_resumed"]["fix"])


def test_what_a_model_forgot_is_told_by_label(user: User) -> None:
    user.open("/jobs/doctor-1")
    user.click("Show What it forgot, by label", role="button")
    row = user.page.get_by_role("table", name="Labels").get_by_role("row").nth(1)
    assert "expert" in str(row.text_content())


def test_a_chart_is_saved_as_a_picture(user: User, tmp_path: Path) -> None:
    user.open("/jobs/doctor-1")
    with user.page.expect_download() as download:
        user.page.get_by_role("button", name=re.compile("Picture of Measured values")).click()
    download.value.save_as(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_obvious_routes_stand_beside_a_job_s_own(user: User) -> None:
    user.open("/jobs/planned-1")
    obvious = user.page.get_by_role("table", name="Obvious plans")
    assert "by size" in str(obvious.text_content())


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
    user.sees("new disks", "Still in progress here: deployment doctor-1")
    user.open("/models")
    served = user.page.get_by_role("table", name="Served models").get_by_role("row")
    served.filter(has_text="east").get_by_text("cordoned").wait_for()
    user.open("/sites/east")
    user.click("Drain", role="button")
    user.sees("drained by")
    user.click("Return to service", role="button")
    user.page.get_by_role("button", name="Cordon", exact=True).wait_for()


def test_who_is_not_signed_in_sees_nothing(user: User) -> None:
    user.click("Sign out", role="button")
    user.page.get_by_label("Token").fill("nonsense")
    user.click("Sign in", role="button")
    user.page.get_by_role("alert").wait_for()
    assert user.page.get_by_text("doctor-1").count() == 0
    user.errors = [error for error in user.errors if "401" not in error]


def test_a_centre_that_hangs_is_told_and_what_changed_is_read_anew(
    watched: Watched, user: User
) -> None:
    """Its connections stay open, as they do where the network is cut."""
    center = _process(watched, "center")
    user.click("Sites")
    center.suspend()
    try:
        user.sees("The control centre does not answer")
    finally:
        center.resume()
    user.page.get_by_text("The control centre does not answer").wait_for(state="detached")
    user.errors = []


def _process(watched: Watched, name: str) -> psutil.Process:
    config = str(watched.network.folder / "network.yaml")
    return next(
        one
        for one, command in children_of(recursive=True)
        if config in " ".join(command) and name in " ".join(command)
    )


def test_what_happens_is_shown_at_once_and_a_lost_centre_is_told(
    watched: Watched, user: User
) -> None:
    processes = watched.network.processes
    processes.kill("west")
    user.sees("Lost sites")
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
