"""Ids of kept responses, and pages of their items, over all inputs."""

from __future__ import annotations

import base64
import json
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.openai.conversation import (
    RANDOM_BYTES,
    StoredResponse,
    as_items,
    input_items,
    read_stored,
    response_id,
    site_of,
)
from daitn.openai.errors import ApiError

SITES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)
RANDOM = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
IN_IDS = string.ascii_letters + string.digits + "-_"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text("ab\u00e9\u5929", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["input", "response", "output", "id"]), inner)
    ),
)


@given(SITES, RANDOM)
def test_an_id_says_where_its_response_is_kept(site: str, random: bytes) -> None:
    id_ = response_id(site, random)
    assert site_of(id_) == site
    assert set(id_.removeprefix("resp_")) <= set(IN_IDS), "it stands in paths"


@given(SITES, RANDOM, st.integers(0, 200), st.sampled_from(IN_IDS + "=+/. \u00e9"))
def test_there_is_one_id_of_a_response(site: str, random: bytes, at: int, other: str) -> None:
    id_ = response_id(site, random)
    at %= len(id_)
    changed = id_[:at] + other + id_[at + 1 :]
    found = site_of(changed)
    assert found is None or changed == id_ or _random(changed) != random or found != site
    for longer in (id_ + other, f" {id_}", id_ + "=", id_[5:]):
        assert site_of(longer) is None or longer != id_


def _random(id_: str) -> bytes:
    text = id_.removeprefix("resp_")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:RANDOM_BYTES]


@given(st.text(max_size=60) | st.text(IN_IDS, max_size=60).map("resp_{}".format))
def test_any_text_may_be_given_as_an_id(text: str) -> None:
    site = site_of(text)
    assert site is None or response_id(site, _random(text)) == text


@given(JSON)
def test_what_was_not_kept_is_not_read(value: object) -> None:
    kept = read_stored(json.dumps(value).encode())
    if kept is not None:
        assert isinstance(value, dict)
        assert len(kept.items) == len(value["input"]) + len(value["response"]["output"])
        assert read_stored(kept.encoded) == kept


@given(st.integers(0, 30), st.integers(1, 10), st.booleans())
def test_pages_hold_every_item_once(count: int, limit: int, newest_first: bool) -> None:
    given_in = [{"role": "user", "content": str(at)} for at in range(count)]
    items = as_items(json.dumps(given_in).encode(), "resp_x")
    raw = [msgspec.Raw(json.dumps(item).encode()) for item in items]
    seen: list[str] = []
    more = True
    while more:
        after = seen[-1] if seen else ""
        page = json.loads(input_items(raw, after=after, limit=limit, newest_first=newest_first))
        assert len(page["data"]) <= limit
        seen += [item["id"] for item in page["data"]]
        more = page["has_more"]
    assert seen == [item["id"] for item in (items[::-1] if newest_first else items)]


def test_texts_become_items() -> None:
    (item,) = as_items(b'"hello"', "resp_x")
    assert item == {
        "type": "message",
        "id": "msg_x_0",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello"}],
    }
    said, call = as_items(
        b'[{"role": "assistant", "content": "a", "id": "mine"}, {"type": "function_call"}]', "x"
    )
    assert (said["id"], said["content"][0]["type"]) == ("mine", "output_text")
    assert call == {"type": "function_call", "id": "in_x_1"}
    assert [item["id"] for item in as_items(b'[{"id": null}, {"id": 5}, {"id": ""}]', "x")] == [
        "msg_x_0",
        "msg_x_1",
        "msg_x_2",
    ]
    with pytest.raises(ApiError):
        input_items([], after="msg_1", limit=1, newest_first=True)
    kept = StoredResponse([msgspec.Raw(b"{}")], msgspec.Raw(b'{"output": [1]}'))
    assert [bytes(one) for one in kept.items] == [b"{}", b"1"]
