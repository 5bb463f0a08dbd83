"""Several tabs of one browser: they share its connections, its cookie and one stream of events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from playwright.sync_api import TimeoutError as StillWaiting

from daitn.objects.jobs import JobState, JobSummary
from tests.scenes.waiting import wait_until
from tests.web.canned import REFUSED, Canned, canned, facility, job, page

pytestmark = pytest.mark.slow

TABS = 8
SILENCE = "The control centre does not answer"
LONGER_THAN_A_SILENCE_MS = 20_000.0
HELD = "GET /slow"
MAKE_HIDDEN = """
  delete globalThis.SharedWorker;
  let hidden = false;
  Object.defineProperty(Document.prototype, "hidden", { get: () => hidden });
  globalThis.hide = (now) => {
    hidden = now;
    document.dispatchEvent(new Event("visibilitychange"));
  };
"""


@pytest.fixture
def center() -> Iterator[Canned]:
    with canned({"/sites": page(facility("east")), "/jobs": page()}) as made:
        yield made


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context()
    yield made
    made.close()


def opened(context: BrowserContext, url: str) -> Page:
    tab = context.new_page()
    tab.goto(url)
    return tab


def submits(center: Canned, name: str) -> None:
    """A job is new: the centre has it, and tells of it."""
    summary = JobSummary.of(job(name, JobState.PLANNING))
    center.answers["/jobs"] = page(summary)
    center.happens("job", summary)


def sees_jobs(tab: Page, name: str) -> None:
    expect(tab.get_by_role("link", name=name)).to_be_visible()


def end_workers(chromium: Browser) -> None:
    """As a browser does that is short of memory. One that has just begun may not be listed yet, and
    is not closed at once."""
    devtools = chromium.new_browser_cdp_session()

    def workers() -> set[str]:
        targets = devtools.send("Target.getTargets")["targetInfos"]
        return {one["targetId"] for one in targets if one["type"] == "shared_worker"}

    def are_closed() -> bool:
        left = ended & workers()
        for target in left:
            devtools.send("Target.closeTarget", {"targetId": target})
        return not left

    ended = wait_until(workers)
    wait_until(are_closed)


def test_many_tabs_load_and_hear_of_everything_by_one_stream(
    center: Canned, context: BrowserContext
) -> None:
    tabs = [opened(context, f"{center.url}/sites") for _ in range(TABS)]
    for tab in tabs:
        expect(tab.get_by_role("link", name="east")).to_be_visible()
        tab.get_by_role("link", name="Jobs", exact=True).click()
        expect(tab.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    wait_until(lambda: center.streams == 1)
    submits(center, "first-1")
    for tab in tabs:
        sees_jobs(tab, "first-1")
        expect(tab.get_by_text(SILENCE)).to_have_count(0)
    tabs.pop(0).close()  # The one that opened the stream.
    submits(center, "second-1")
    for tab in tabs:
        sees_jobs(tab, "second-1")
    for tab in tabs:
        tab.close()
    wait_until(lambda: center.streams == 0)


def test_a_browser_with_no_free_connection_does_not_call_the_centre_silent(
    center: Canned, context: BrowserContext
) -> None:
    center.hold(HELD)
    shown = opened(context, f"{center.url}/jobs")
    other = opened(context, f"{center.url}/jobs")
    other.evaluate("() => { for (let n = 0; n < 10; n++) void fetch('/api/v1/slow?' + n); }")
    wait_until(lambda: center.asked.count(HELD) >= 5)
    with pytest.raises(StillWaiting):
        shown.get_by_text(SILENCE).wait_for(timeout=LONGER_THAN_A_SILENCE_MS)
    center.release()
    submits(center, "first-1")
    sees_jobs(shown, "first-1")


def test_a_worker_that_dies_is_started_again(
    center: Canned, chromium: Browser, context: BrowserContext
) -> None:
    tabs = [opened(context, f"{center.url}/jobs") for _ in range(2)]
    wait_until(lambda: center.streams == 1)
    streams = center.asked.count("GET /events")
    # The browser may end the dead worker's stream only after the next worker has opened its own.
    end_workers(chromium)
    submits(center, "missed-1")
    for tab in tabs:
        sees_jobs(tab, "missed-1")
    wait_until(lambda: center.asked.count("GET /events") > streams)
    submits(center, "heard-1")
    for tab in tabs:
        sees_jobs(tab, "heard-1")
        expect(tab.get_by_text(SILENCE)).to_have_count(0)


def test_a_centre_that_is_silent_once_the_worker_died_is_told(
    center: Canned, chromium: Browser, context: BrowserContext
) -> None:
    tab = opened(context, f"{center.url}/jobs")
    wait_until(lambda: center.streams == 1)
    context.set_offline(True)
    end_workers(chromium)
    expect(tab.get_by_text(SILENCE)).to_be_visible()


def test_a_worker_that_has_no_news_is_left_alone(center: Canned, context: BrowserContext) -> None:
    tab = opened(context, f"{center.url}/jobs")
    wait_until(lambda: center.asked.count("GET /jobs") == 2)
    tab.wait_for_timeout(LONGER_THAN_A_SILENCE_MS)
    assert center.asked.count("GET /jobs") == 2
    assert center.asked.count("GET /events") == 1


def test_what_happens_before_the_stream_is_open_is_seen(
    center: Canned, context: BrowserContext
) -> None:
    center.hold("GET /events")
    tab = opened(context, f"{center.url}/jobs")
    expect(tab.get_by_text("No jobs yet")).to_be_visible()
    wait_until(lambda: "GET /events" in center.asked)
    submits(center, "first-1")
    center.release()
    sees_jobs(tab, "first-1")


def test_who_comes_or_leaves_in_one_tab_does_so_in_all(
    center: Canned, context: BrowserContext
) -> None:
    center.ways = ("token",)
    first = opened(context, f"{center.url}/jobs#token=ann")
    expect(first.get_by_text("ann, owner")).to_be_visible()
    second = opened(context, f"{center.url}/jobs")
    expect(second.get_by_text("ann, owner")).to_be_visible()
    third = opened(context, f"{center.url}/jobs#token=bob")
    for tab in (first, second, third):
        expect(tab.get_by_text("bob, owner")).to_be_visible()
    wait_until(lambda: center.streams == 1)
    submits(center, "first-1")
    for tab in (first, second, third):
        sees_jobs(tab, "first-1")
    second.get_by_role("button", name="Sign out").click()
    for tab in (first, second, third):
        expect(tab.get_by_label("Token")).to_be_visible()
    wait_until(lambda: center.streams == 0)


def test_a_link_that_signs_nobody_in_says_so(center: Canned, context: BrowserContext) -> None:
    center.ways = ("token",)
    tab = opened(context, f"{center.url}/jobs#token={REFUSED}")
    refused = tab.get_by_role("alert").filter(has_text="the token has expired")
    expect(refused).to_be_visible()
    tab.get_by_label("Token").fill("ann")
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_text("ann, owner")).to_be_visible()
    expect(refused).to_have_count(0)
    other = opened(context, f"{center.url}/jobs#token={REFUSED}")
    expect(other.get_by_role("alert")).to_contain_text("you are still ann")
    other.get_by_role("link", name="Sites", exact=True).click()
    expect(other.get_by_role("alert")).to_have_count(0)


def test_a_link_opened_in_a_page_that_is_open_signs_in(
    center: Canned, context: BrowserContext
) -> None:
    center.ways = ("token",)
    tab = opened(context, f"{center.url}/jobs#token=ann")
    expect(tab.get_by_text("ann, owner")).to_be_visible()
    tab.goto(f"{center.url}/jobs#token={REFUSED}")
    expect(tab.get_by_role("alert")).to_contain_text("you are still ann")
    tab.goto(f"{center.url}/jobs#token=bob")
    expect(tab.get_by_text("bob, owner")).to_be_visible()
    expect(tab).to_have_url(f"{center.url}/jobs")
    expect(tab.get_by_role("alert")).to_have_count(0)


def test_what_an_identity_provider_s_page_came_to_is_told(
    center: Canned, context: BrowserContext
) -> None:
    center.ways = ("oidc",)
    tab = opened(
        context, f"{center.url}/#problem=nobody%20here%20is%20%3Cb%3Eann%3C%2Fb%3E&fix=ask%20her"
    )
    told = "Your organisation signed nobody in: nobody here is <b>ann</b>"
    expect(tab.get_by_role("alert")).to_contain_text(told)
    expect(tab.get_by_role("alert")).to_contain_text("What helps: ask her")
    expect(tab.get_by_role("link", name="Sign in with your organisation")).to_be_visible()
    expect(tab).to_have_url(f"{center.url}/")


def test_a_session_that_ends_is_told_at_once(center: Canned, context: BrowserContext) -> None:
    center.ways = ("token",)
    tab = opened(context, f"{center.url}/jobs#token=ann")
    expect(tab.get_by_text("ann, owner")).to_be_visible()
    center.you = None
    center.happens("job", {})
    expect(tab.get_by_label("Token")).to_be_visible()


def test_a_tab_that_was_stopped_catches_up(center: Canned, context: BrowserContext) -> None:
    tab = opened(context, f"{center.url}/jobs")
    wait_until(lambda: center.streams == 1)
    tab.evaluate("document.dispatchEvent(new Event('freeze'))")
    wait_until(lambda: center.streams == 0)
    submits(center, "first-1")
    tab.evaluate("document.dispatchEvent(new Event('resume'))")
    sees_jobs(tab, "first-1")


def test_without_a_shared_worker_a_tab_listens_while_it_is_seen(
    center: Canned, context: BrowserContext
) -> None:
    context.add_init_script(MAKE_HIDDEN)
    tabs = []
    for _ in range(TABS):
        tabs.append(opened(context, f"{center.url}/jobs"))
        expect(tabs[-1].get_by_role("heading", name="Jobs", level=1)).to_be_visible()
        wait_until(lambda: center.streams == 1)
        # Once at once, and once when the stream is open.
        wait_until(lambda: center.asked.count("GET /jobs") == 2 * len(tabs))
        tabs[-1].evaluate("hide(true)")
        wait_until(lambda: center.streams == 0)
    submits(center, "first-1")
    for tab in tabs:
        tab.evaluate("hide(false)")
        sees_jobs(tab, "first-1")
        tab.evaluate("hide(true)")
    assert center.asked.count("GET /jobs") == 3 * TABS, "it went on where it was"
