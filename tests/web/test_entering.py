"""What people type stands as they typed it, and Enter presses no button that they do not mean."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.scenes.waiting import wait_until
from tests.web.canned import Canned, canned, facility, page

pytestmark = pytest.mark.slow

NUMBERS = {"At least": "0.85", "Seconds": "1800.5", "USD": "0.05", "Examples": "1000"}
TEXTS = ("Name", "Owner", "Topics of data, comma-separated", "Topic of the test", "At least", "USD")


@pytest.fixture
def center() -> Iterator[Canned]:
    answers = {"/sites": page(facility("east")), "/sites/east": facility("east")}
    with canned(answers) as made:
        yield made


@pytest.fixture
def shown(chromium: Browser) -> Iterator[Page]:
    made = chromium.new_page()
    yield made
    made.close()


def type_over(shown: Page, label: str, text: str) -> None:
    field = shown.get_by_label(label, exact=True).first
    field.click()
    shown.keyboard.press("Control+a")
    shown.keyboard.press("Delete")
    for key in text:
        shown.keyboard.press(key)


@pytest.mark.parametrize(("label", "number"), NUMBERS.items())
def test_numbers_are_typed_digit_by_digit(
    center: Canned, shown: Page, label: str, number: str
) -> None:
    shown.goto(f"{center.url}/intent")
    type_over(shown, label, number)
    field = shown.get_by_label(label, exact=True)
    expect(field).to_have_value(number)
    field.press("Backspace")
    field.press(number[-1])
    expect(field).to_have_value(number)


def test_enter_changes_nothing_in_an_intent(center: Canned, shown: Page) -> None:
    shown.goto(f"{center.url}/intent")
    shown.get_by_role("button", name="Another objective").click()
    objectives = shown.get_by_role("group")
    expect(objectives).to_have_count(2)
    for label in TEXTS:
        shown.get_by_label(label, exact=True).first.press("Enter")
        assert objectives.count() == 2, label


def test_enter_takes_no_site_out_of_service(center: Canned, shown: Page) -> None:
    shown.goto(f"{center.url}/sites/east")
    reason = shown.get_by_label("why, for every explanation of who is not chosen")
    reason.fill("repairs")
    reason.press("Enter")
    shown.get_by_role("button", name="Drain").click()
    wait_until(lambda: "POST /sites/east/cordon" in center.asked)
    assert center.asked.count("POST /sites/east/cordon") == 1
    expect(reason).to_have_value("repairs")


def test_enter_follows_an_object_and_signs_in(center: Canned, shown: Page) -> None:
    shown.goto(f"{center.url}/packets")
    shown.get_by_label("id of an object that set out there").fill("thing")
    shown.keyboard.press("Enter")
    wait_until(lambda: "GET /traces/east/thing" in center.asked)
    center.ways = ("token",)
    shown.goto(f"{center.url}/sites")
    shown.get_by_label("Token").fill("ann")
    shown.keyboard.press("Enter")
    expect(shown.get_by_text("ann, owner")).to_be_visible()


def test_a_draft_is_kept_in_its_address(center: Canned, shown: Page) -> None:
    shown.goto(f"{center.url}/intent")
    type_over(shown, "Name", "nodules")
    type_over(shown, "At least", "0.85")
    shown.wait_for_url(lambda url: "nodules" in url and "0.85" in url)
    address = shown.url
    shown.get_by_role("link", name="Jobs", exact=True).click()
    shown.go_back()
    expect(shown.get_by_label("Name", exact=True).first).to_have_value("nodules")
    shown.reload()
    expect(shown.get_by_label("At least", exact=True)).to_have_value("0.85")
    for wrong in ("[1]", "{", '{"name": 1}', '{"objectives": []}', '{"objectives": [{"name": 2}]}'):
        shown.goto(f"{center.url}/intent?{urlencode({'draft': wrong})}")
        expect(shown.get_by_label("Name", exact=True).first).to_have_value("model")
    shown.goto(address)
    expect(shown.get_by_label("Name", exact=True).first).to_have_value("nodules")
