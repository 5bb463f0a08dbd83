"""Words that look alike are the same, wherever they were written."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.node import config
from daitn.objects.deployments import Api
from daitn.objects.descriptors import covers_topic
from daitn.objects.errors import ErrorReport, InvalidInput, StorageFull
from daitn.objects.identifiers import SiteId, checked_name
from daitn.objects.intents import TrainingIntent
from daitn.objects.queries import QueryConstraints, QueryIntent
from daitn.objects.text import decimals, plain, plain_words, some, without_folders
from daitn.objects.wire import checked, decode, encode


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3e-05, "0.00003"), (5.0, "5"), (100.0, "100"), (0.0, "0"), (1e-9, "0.000000001")],
)
def test_an_amount_is_written_in_plain_decimals(value: float, shown: str) -> None:
    assert decimals(value) == shown


def test_the_limit_of_a_name_is_the_one_that_holds() -> None:
    for most in (40, 63):
        assert checked_name("a" * most, "name", most)
        with pytest.raises(InvalidInput) as refused:
            checked_name("a" * (most + 1), "name", most)
        assert f"1 to {most} of" in refused.value.fix


FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
TOPIC = "médecine/größe"


@given(st.text())
def test_plain_text_is_plain_for_good(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    assert once == once.strip()
    assert {plain(unicodedata.normalize(form, f"\ufeff {text}\u200b\t")) for form in FORMS} == {
        once
    }


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_text_keeps_case_and_what_stands_within(text: str) -> None:
    assert plain(text) == text.strip()


def test_words_that_look_alike_count_once() -> None:
    assert plain_words(["é", "e\u0301", "E\u0301", " é "]) == ("é", "É")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("/srv/ward/data/x.csv cannot be written: full", "x.csv cannot be written: full"),
        ("no part '/home/Jane Doe, MD/models/w' here", "no part 'w' here"),
        ("free room for /srv/ward state/, soon", "free room for , soon"),
        ("`/etc/daitn.yaml`: no `site`", "`daitn.yaml`: no `site`"),
        ("cannot import name 'x' (/opt/lib/y.py)", "cannot import name 'x' (y.py)"),
        ("error:/home/jane/ward/x.csv", "error:x.csv"),
    ],
)
def test_no_folder_of_a_site_leaves_with_an_error(written: str, told: str) -> None:
    left = ErrorReport.of(StorageFull(written, field=written, fix=written))
    assert (left.problem, left.field, left.fix) == (told, told, told)
    assert ErrorReport.inside(StorageFull(written)).problem == written


@pytest.mark.parametrize(
    "text",
    [
        "data set ninds/notes, or ward/cases",
        "tcp/127.0.0.1:7447 and https://ward.example:8443/v1/models",
        "12 / 40 of them, and / or a/b",
        "the mean +/- sd in m/s",
        "qa-pairs/1",
        " /" * 20_000,
    ],
)
def test_names_and_addresses_are_no_folders(text: str) -> None:
    assert without_folders(text) == text


def intent(topic: str, owner: str) -> TrainingIntent:
    written: dict[str, Any] = {
        "name": "qa",
        "owner": owner,
        "model": {"recipe": "classifier"},
        "objectives": [{"name": "all", "topic": topic, "at_least": 0.8}],
        "data": {"topics": [topic]},
    }
    return checked(written, TrainingIntent, "intent")


@pytest.mark.parametrize("form", FORMS)
def test_topics_and_owners_are_compared_in_one_form(form: Literal["NFC", "NFD"]) -> None:
    topic, owner = (unicodedata.normalize(form, word) for word in (f" {TOPIC}", "Müller"))
    wanted = intent(topic, owner)
    dataset = config.DatasetConfig(
        name="d",
        path="d",
        data_schema="s",
        topics=(topic, TOPIC),
        policy=config.PolicyConfig(recipes=("*",), owners=(owner,)),
    )
    assert dataset.topics == wanted.data.topics == (TOPIC,)
    assert wanted.owner in dataset.terms.owners
    test = config.TestSetConfig(topic=topic, path="t", test_schema="s")
    assert test.topic == wanted.objectives[0].topic
    assert decode(encode(wanted), TrainingIntent) == wanted
    asked = QueryConstraints(topic=topic)
    query = QueryIntent(
        origin=SiteId("g"),
        owner="",
        api=Api.CHAT,
        model="auto",
        topic=topic,
        tokens_in=1,
        tokens_out=1,
    )
    assert asked.topic == query.topic == TOPIC
    assert covers_topic("médecine", query.topic)
    upstream = config.UpstreamConfig(name="u", url="http://x", claimed={topic: 0.5})
    assert upstream.claimed == {TOPIC: 0.5}


def test_a_blank_topic_is_none() -> None:
    with pytest.raises(InvalidInput, match="blank"):
        intent(" \ufeff ", "me")


def test_a_list_of_names_is_bounded() -> None:
    assert some([]) == ""
    assert some("abcde") == "a, b, c, d, e"
    assert some(iter("abcdefg")) == "a, b, c, d, e and 2 more"
    assert some("abc", 2, between="; ") == "a; b; and 1 more"
