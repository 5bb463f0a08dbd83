"""A whole answer as a stream, and the pieces of a stream as one answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.events import EventCutter, read_event
from daitn.openai.http import DONE, as_event
from daitn.openai.lenient import dicts, index_of
from daitn.openai.pieces import PIECE_OF_CHAT, WHOLE_CHAT, piece_of

__all__ = ["as_events", "folded"]

_REPLACED = frozenset({"role", "id", "type", "name", "index", "finish_reason"})
"""Fields of a piece that replace earlier values; texts of others are joined."""
_REPLACED_IN_ENTRIES = _REPLACED - {"name"}
"""For tool calls: names of functions come in pieces, too."""


def as_events(body: bytes, api: Api, *, usage: bool = False) -> bytes:
    """A whole answer as a stream: a piece with the content of each choice, one with its end, and
    the token counts if `usage` requests them."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    counts = answer.pop("usage", None)
    choices = answer.pop("choices", [])
    if api is Api.CHAT:
        answer["object"] = PIECE_OF_CHAT
    events = []
    for position, choice in enumerate(choices):
        index = choice.pop("index", None)
        reason = choice.pop("finish_reason", None) or "stop"
        end: dict[str, Any] = {"text": ""}
        if api is Api.CHAT:
            end = {"delta": {}}
            message = choice.pop("message", None)
            choice["delta"] = piece_of(message if isinstance(message, dict) else {})
        head = {"index": position if index is None else index}
        events.append([{**head, **choice, "finish_reason": None}])
        events.append([{**head, **end, "logprobs": None, "finish_reason": reason}])
    pieces = [{**answer, "choices": choices} for choices in events]
    if usage and counts is not None:
        pieces.append({**answer, "choices": [], "usage": counts})
    return b"".join(as_event(msgspec.json.encode(piece)) for piece in pieces) + DONE


def folded(stream: bytes) -> bytes:
    """The pieces of a complete stream as one answer."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for piece in _objects(stream):
        for position, choice in enumerate(dicts(piece.pop("choices", None))):
            index = choice["index"] = index_of(choice, position)
            into = choices.setdefault(index, {"finish_reason": None})
            if "delta" in choice:
                choice["message"] = choice.pop("delta")
            _merge(into, choice)
        answer.update({name: value for name, value in piece.items() if value is not None})
    if answer.get("object") == PIECE_OF_CHAT:
        answer["object"] = WHOLE_CHAT
    for choice in choices.values():
        message = choice.get("message")
        if isinstance(message, dict):
            message.setdefault("role", "assistant")
            message.setdefault("content", None)
            for call in dicts(message.get("tool_calls")):
                call.pop("index", None)
    answer["choices"] = [choices[index] for index in sorted(choices)]
    return msgspec.json.encode(answer)


def _objects(stream: bytes) -> Iterable[dict[str, Any]]:
    for block in EventCutter().feed(stream):
        event = read_event(block)
        if event is not None and event.data != b"[DONE]":
            yield msgspec.json.decode(event.data)


def _merge(
    into: dict[str, Any], piece: Mapping[str, Any], replaced: frozenset[str] = _REPLACED
) -> None:
    """Add a piece of an object: texts are joined, lists are continued, and entries of calls are
    found by their index."""
    for name, value in piece.items():
        old = into.get(name)
        if value is None or (value == "" and old is not None):
            into.setdefault(name, None)
        elif isinstance(value, str) and isinstance(old, str) and name not in replaced:
            into[name] = old + value
        elif isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value, replaced)
        elif isinstance(value, list):
            into[name] = _continued(old if isinstance(old, list) else [], value)
        else:
            into[name] = value


def _continued(entries: list[Any], more: list[Any]) -> list[Any]:
    known = {_entry_index(entry): entry for entry in entries}
    for entry in more:
        index = _entry_index(entry)
        if index is not None and index in known:
            _merge(known[index], entry, _REPLACED_IN_ENTRIES)
        else:
            entries.append(entry)
            known[index] = entry
    return entries


def _entry_index(entry: Any) -> int | None:
    index = entry.get("index") if isinstance(entry, dict) else None
    return index if isinstance(index, int) else None
