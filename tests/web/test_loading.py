"""What is on its way to a page arrives, however much happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from daitn.objects.jobs import JobState, JobSummary
from tests.scenes.waiting import wait_until
from tests.web.canned import Canned, canned, facility, job, page

pytestmark = pytest.mark.slow

JOBS, SITES = "GET /jobs", "GET /sites"
MANY_POLLS_MS = 30_000
UNREACHABLE = """
  delete globalThis.SharedWorker;
  const reached = globalThis.fetch;
  const lost = new AbortController();
  let down = false;
  globalThis.fetch = (url, init) => {
    if (!url.endsWith("/events")) return down ? new Promise(() => {}) : reached(url, init);
    if (down) return Promise.reject(new TypeError());
    const signal = lost.signal.aborted ? init.signal : AbortSignal.any([init.signal, lost.signal]);
    return reached(url, { ...init, signal });
  };
  globalThis.lose = () => { down = true; };
  globalThis.breakStream = () => lost.abort();
  globalThis.find = () => { down = false; };
"""


FAILING = """
  const reached = globalThis.fetch;
  globalThis.failed = 0;
  globalThis.fail = () => Promise.reject(new TypeError());
  globalThis.fetch = (url, init) => {
    if (!globalThis.fail || !url.startsWith("/api/v1/jobs")) return reached(url, init);
    globalThis.failed += 1;
    return globalThis.fail();
  };
"""
BROKEN_OFF = """fail = () => Promise.resolve(new Response(new ReadableStream({
  start: (body) => { body.enqueue(new TextEncoder().encode("{")); body.error(new TypeError()); },
})))"""
NO_JSON = """fail = () => Promise.resolve(new Response("<html>"))"""


@pytest.fixture
def center() -> Iterator[Canned]:
    with canned({"/sites": page(facility("east")), "/jobs": page()}) as made:
        yield made


@pytest.fixture
def shown(chromium: Browser) -> Iterator[Page]:
    made = chromium.new_page()
    yield made
    made.close()


def submits(center: Canned, name: str) -> None:
    summary = JobSummary.of(job(name, JobState.PLANNING))
    center.answers["/jobs"] = page(summary)
    center.happens("job", summary)


def asked(center: Canned, what: str, times: int) -> None:
    wait_until(lambda: center.asked.count(what) == times)


def opened(center: Canned, shown: Page) -> None:
    """The list of jobs, with an open stream."""
    shown.goto(f"{center.url}/jobs")
    expect(shown.get_by_text("No jobs yet")).to_be_visible()
    asked(center, JOBS, 2)  # Once at once, and once when the stream is open.


def test_events_do_not_stop_what_is_being_loaded(center: Canned, shown: Page) -> None:
    opened(center, shown)
    center.hold(JOBS)
    submits(center, "first-1")
    asked(center, JOBS, 3)
    for number in range(4):
        submits(center, f"more-{number}")
        shown.wait_for_timeout(500)
    assert center.asked.count(JOBS) == 3, "what is on its way is not asked for again"
    center.release()
    expect(shown.get_by_role("link", name="more-3")).to_be_visible()
    asked(center, JOBS, 4)  # It may be older than the last event.


def test_polls_wait_for_what_is_being_loaded(center: Canned, shown: Page) -> None:
    shown.clock.install()
    shown.goto(f"{center.url}/sites")
    expect(shown.get_by_role("link", name="east")).to_be_visible()
    center.hold(SITES)
    before = center.asked.count(SITES)
    shown.clock.run_for(MANY_POLLS_MS)
    asked(center, SITES, before + 1)
    shown.clock.run_for(MANY_POLLS_MS)
    assert center.asked.count(SITES) == before + 1
    center.answers["/sites"] = page(facility("west"))
    center.release()
    expect(shown.get_by_role("link", name="west")).to_be_visible()


def test_another_choice_does_not_wait_for_what_is_being_loaded(center: Canned, shown: Page) -> None:
    opened(center, shown)
    center.hold(JOBS)
    submits(center, "first-1")
    asked(center, JOBS, 3)
    shown.get_by_label("state").select_option("planning")
    asked(center, JOBS, 4)


def test_what_was_asked_for_over_a_lost_connection_is_not_waited_for(
    center: Canned, shown: Page
) -> None:
    shown.add_init_script(UNREACHABLE)
    opened(center, shown)
    shown.evaluate("lose()")
    submits(center, "first-1")
    shown.wait_for_timeout(1000)
    shown.evaluate("breakStream()")
    lost = shown.get_by_text("The control centre does not answer")
    expect(lost).to_be_visible()
    shown.evaluate("find()")
    expect(shown.get_by_role("link", name="first-1")).to_be_visible(timeout=20_000)
    expect(lost).to_have_count(0)


def beats(center: Canned, shown: Page, times: int) -> None:
    """Signs of life of the control centre, of which this list does not tell."""
    for _ in range(times):
        center.happens("deployment", {})
        shown.wait_for_timeout(500)


def test_a_request_that_always_fails_is_repeated_ever_less_often(
    center: Canned, shown: Page
) -> None:
    shown.add_init_script(FAILING)
    shown.goto(f"{center.url}/jobs")
    expect(shown.get_by_text("The control centre does not answer")).to_be_visible()
    wait_until(lambda: center.streams == 1)
    beats(center, shown, 12)
    assert 2 <= shown.evaluate("failed") <= 4, "the stream says that the control centre is there"


@pytest.mark.parametrize("answer", [BROKEN_OFF, NO_JSON], ids=["broken off", "no JSON"])
def test_an_unreadable_answer_is_requested_again_at_the_next_sign_of_life(
    center: Canned, shown: Page, answer: str
) -> None:
    shown.add_init_script(FAILING + answer)
    shown.goto(f"{center.url}/jobs")
    expect(shown.get_by_text("did not arrive whole")).to_be_visible()
    wait_until(lambda: center.streams == 1)
    shown.wait_for_timeout(1000)  # What the opened stream has loaded again has failed, too.
    shown.evaluate("fail = null")
    beats(center, shown, 1)
    expect(shown.get_by_text("No jobs yet")).to_be_visible()
