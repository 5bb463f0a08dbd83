"""Stored responses: their ids, which locate them, and the conversations behind them.

A response is kept with all items before it, so that it alone continues the conversation.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec

from daitn.objects.identifiers import SiteId, is_name
from daitn.openai.errors import DECODE_ERRORS, bad_request

__all__ = [
    "MAX_STORED_BYTES",
    "RANDOM_BYTES",
    "StoredResponse",
    "as_items",
    "input_items",
    "read_stored",
    "response_id",
    "site_of",
]

RANDOM_BYTES = 16
"""Random bytes of an id: nobody guesses 128 bits."""
MAX_STORED_BYTES = 1 << 24
"""Maximum size of a response with its conversation. A longer one fits into few contexts."""
_PREFIX = "resp_"


class StoredResponse(msgspec.Struct, frozen=True):
    """A response, and the items that led to it."""

    input: list[msgspec.Raw]
    response: msgspec.Raw

    @property
    def items(self) -> list[msgspec.Raw]:
        """The conversation up to the end of the response."""
        return [*self.input, *_RESPONSE.decode(self.response).output]

    @property
    def model(self) -> str:
        """The deployment that answered."""
        return _RESPONSE.decode(self.response).model

    @property
    def encoded(self) -> bytes:
        """In the form stored by a facility."""
        return _ENCODER.encode(self)


class _Response(msgspec.Struct):
    output: list[msgspec.Raw]
    model: str = ""


_ENCODER = msgspec.json.Encoder()
_RESPONSE = msgspec.json.Decoder(_Response)
_STORED = msgspec.json.Decoder(StoredResponse)
_INPUT = msgspec.json.Decoder(str | list[dict[str, Any]])


def read_stored(body: bytes) -> StoredResponse | None:
    """A stored response; `None` if it is something else."""
    try:
        kept = _STORED.decode(body)
        _RESPONSE.decode(kept.response)
    except DECODE_ERRORS:
        return None
    return kept


def response_id(site: str, random: bytes) -> str:
    """The id of a response stored by a site's facility; `random`: `RANDOM_BYTES`."""
    return _PREFIX + base64.urlsafe_b64encode(random + site.encode()).rstrip(b"=").decode()


def site_of(id_: str) -> SiteId | None:
    """The site in an id; `None` means no facility stores a response with this id."""
    text = id_.removeprefix(_PREFIX)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        site = raw[RANDOM_BYTES:].decode()
    except (binascii.Error, ValueError):
        return None
    # An id has only one spelling.
    known = is_name(site) and response_id(site, raw[:RANDOM_BYTES]) == id_
    return SiteId(site) if known else None


def as_items(given: bytes, of: str) -> list[dict[str, Any]]:
    """The parsed `input` of a request, as items with ids; `of`: the response's id."""
    value = _INPUT.decode(given)
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    return [_named(item, f"{of.removeprefix(_PREFIX)}_{at}") for at, item in enumerate(value)]


def _named(item: dict[str, Any], name: str) -> dict[str, Any]:
    own = item.get("id")
    is_message = item.get("type", "message") == "message"
    id_ = own if isinstance(own, str) and own else f"{'msg' if is_message else 'in'}_{name}"
    if not is_message:
        return {**item, "id": id_}
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        content = [{"type": kind, "text": content}]
    plain = {"type": "message", "status": "completed", **item}
    return {**plain, "id": id_, "content": content or []}


def input_items(
    items: Sequence[msgspec.Raw], *, after: str, limit: int, newest_first: bool
) -> bytes:
    """A page of items in the form of OpenAI's API: those after the item with the id `after`; empty
    means from the start. Raises `ApiError` (400) for an unknown id."""
    found = [msgspec.json.decode(item, type=dict[str, Any]) for item in items]
    if newest_first:
        found.reverse()
    if after:
        places = [at for at, item in enumerate(found) if item.get("id") == after]
        if not places:
            raise bad_request("is not the id of an item", "after")
        found = found[places[-1] + 1 :]
    page = found[:limit]
    ids = [item.get("id") for item in page] or [None]
    ends = {"first_id": ids[0], "last_id": ids[-1], "has_more": len(found) > limit}
    return _ENCODER.encode({"object": "list", "data": page, **ends})
