"""Normalises the choices of an answer for OpenAI's clients.

Servers number calls of tools oddly or not at all, say a whole message where a piece is due, give
parts where a text is due, and cut characters in half; clients of OpenAI's API stop at each.
"""

from __future__ import annotations

import operator
from typing import Any, Final

from daitn.objects.deployments import Api
from daitn.openai.lenient import Json, dicts, index_of, number_in, text_or_empty, without
from daitn.openai.tool_calls import Calls, function_of, whole_call

__all__ = ["PIECE_OF_CHAT", "WHOLE_CHAT", "Pieces", "piece_of", "whole_choices"]

WHOLE_CHAT, PIECE_OF_CHAT = "chat.completion", "chat.completion.chunk"
"""Values of `object` for a whole chat answer, and for a piece of one."""
_HIGH_HALVES = ("\ud800", "\udbff")
_REPLACEMENT: Final = "\ufffd"
_TEXT_FIELDS = ("text", "delta", "message")
"""Text fields of a choice."""
_REASONING = ("reasoning_content", "reasoning")


class Pieces:
    """Normalises the choices of one stream, event by event."""

    __slots__ = ("_api", "_begun", "_calls", "_counts", "_halves", "_numbers")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._calls: dict[int, Calls] = {}
        self._counts: dict[tuple[int, str], int] = {}
        self._halves: dict[tuple[Any, ...], str] = {}
        self._numbers: dict[int, int] = {}
        """Numbers of choices, by the server's numbers."""
        self._begun: set[int] = set()

    @property
    def holds_half(self) -> bool:
        """Whether half a character awaits the other half."""
        return bool(self._halves)

    def join_halves(self, choices: Any) -> None:
        """Join characters that are cut over two events, in place: half a surrogate pair is held
        until the same field of the same choice continues."""
        for position, choice in enumerate(dicts(choices)):
            index = index_of(choice, position)
            for name in _TEXT_FIELDS:
                if name in choice:
                    choice[name] = self._joined((index, name), choice[name])
            if choice.get("finish_reason"):
                self._give_up_halves(index, choice)

    def formed(self, choices: Any, id_: str, *, whole: bool) -> list[Json]:
        """The choices of the next event; the same list if all is in order. `id_`: the answer's;
        `whole`: whether the event claims to be a whole answer."""
        if type(choices) is list and len(choices) == 1 and self._is_usual(choices[0]):
            return choices
        objects = dicts(choices)
        formed = [
            self._choice(choice, position, id_, whole) for position, choice in enumerate(objects)
        ]
        return choices if isinstance(choices, list) and _same(formed, choices) else formed

    def _is_usual(self, choice: Any) -> bool:
        """Whether a choice is a piece of a chat that only adds texts, as nearly all are: a short
        cut, since it runs for every token."""
        if type(choice) is not dict or type(index := choice.get("index")) is not int:
            return False
        if index not in self._begun or self._numbers.get(index) != index or "message" in choice:
            return False
        if choice.get("finish_reason") and index in self._calls:
            return False
        delta = choice.get("delta")
        if type(delta) is not dict:
            return False
        for value in delta.values():  # noqa: SIM110 (asked of every token)
            if value is not None and type(value) is not str:
                return False
        return True

    def _choice(self, choice: Json, position: int, id_: str, whole: bool) -> Json:
        index = index_of(choice, position)
        if self._api is Api.CHAT:
            # Answers to one prompt may come in any order, but clients expect theirs in order.
            index = self._numbers.setdefault(index, len(self._numbers))
        if choice.get("index") != index or type(choice.get("index")) is not int:
            choice = {**choice, "index": index}
        if self._api is not Api.CHAT:
            return choice if isinstance(choice.get("text"), str) else _as_completion(choice)
        delta = choice.get("delta")
        if type(delta) is not dict:
            delta = self._instead_of_delta(choice, index, whole)
        formed = self._delta(delta, index, id_)
        if choice.get("finish_reason") and index in self._calls:
            last = dicts(formed.get("tool_calls"))
            if (ended := self._calls[index].ended(last)) != last:
                formed = {**formed, "tool_calls": ended}
        if formed.keys() - {"role"}:
            self._begun.add(index)
        if formed is choice.get("delta") and "message" not in choice:
            return choice
        return {**without(choice, *_TEXT_FIELDS), "delta": formed}

    def _instead_of_delta(self, choice: Json, index: int, whole: bool) -> Json:
        message, text = choice.get("message"), choice.get("text")
        if isinstance(message, dict):
            # Some repeat everything at the end.
            return {} if whole and index in self._begun else piece_of(message)
        return {"content": text} if isinstance(text, str) else {}

    def _delta(self, delta: Json, index: int, id_: str) -> Json:
        changes = _mended_texts(delta)
        for name, value in delta.items():
            if name == "tool_calls" and value:
                calls = self._calls.setdefault(index, Calls(index))
                formed = calls.formed([value] if isinstance(value, dict) else dicts(value), id_)
                if formed != value or any(type(call.get("index")) is bool for call in value):
                    changes[name] = formed
            elif name == "function_call" and isinstance(value, dict):
                changes |= _changed(name, value, function_of(value, first=False))
            elif isinstance(value, list) and name != "content":
                changes |= _changed(name, value, self._numbered(index, name, value))
        return {**delta, **changes} if changes else delta

    def _numbered(self, index: int, name: str, entries: list[Any]) -> list[Any]:
        """Entries of another list: clients join those of one number."""
        numbered = []
        for entry in entries:
            if isinstance(entry, dict):
                number = number_in(entry.get("index"))
                if number is None:
                    number = self._counts.get((index, name), 0)
                self._counts[index, name] = max(self._counts.get((index, name), 0), number + 1)
                entry = {**entry, "index": number}
            numbered.append(entry)
        return numbered

    def _joined(self, place: tuple[Any, ...], value: Any) -> Any:
        if isinstance(value, str):
            text = self._halves.pop(place, "") + value
            if text and _HIGH_HALVES[0] <= text[-1] <= _HIGH_HALVES[1]:
                self._halves[place], text = text[-1], text[:-1]
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if isinstance(value, dict):
            return {name: self._joined((*place, name), inner) for name, inner in value.items()}
        if isinstance(value, list):
            numbered = (
                (index_of(inner, at) if isinstance(inner, dict) else at, inner)
                for at, inner in enumerate(value)
            )
            return [self._joined((*place, at), inner) for at, inner in numbered]
        return value

    def _give_up_halves(self, index: int, choice: Json) -> None:
        """The choice ends: no other half will come."""
        for place in [place for place in self._halves if place[0] == index]:
            del self._halves[place]
            *way, name = place[1:]
            within = choice.get(way[0]) if len(way) == 1 else choice if not way else None
            if isinstance(within, dict):
                within[name] = f"{within.get(name) or ''}{_REPLACEMENT}"


def whole_choices(choices: Any, api: Api, id_: str) -> list[Json] | None:
    """The choices of a whole answer; the same list if all is in order, and none if one of them is
    not an answer of this API. `id_`: the answer's."""
    objects = dicts(choices)
    if not objects or len(objects) != len(choices):
        return None
    formed = []
    for position, choice in enumerate(objects):
        stated = next(iter(dicts([choice.get("message"), choice.get("delta")])), None)
        text = choice.get("text")
        if stated is None and (text is None if api is Api.CHAT else "text" not in choice):
            return None
        if type(choice.get("index")) is not int:
            choice = {**choice, "index": index_of(choice, position)}
        if api is Api.CHAT:
            message = {"content": _text(text)} if stated is None else stated
            message = _message(message, choice["index"], id_)
            if message is not choice.get("message"):
                choice = {**without(choice, *_TEXT_FIELDS), "message": message}
        elif not isinstance(text, str):
            choice = _as_completion(choice)
        formed.append(choice)
    same: list[Json] = choices
    return same if _same(formed, choices) else formed


def piece_of(message: Json) -> Json:
    """A message as the only piece of it. Clients join calls by their index."""
    calls = message.get("tool_calls")
    if isinstance(message.get("content"), list):
        message = {**message, **_mended_texts(message)}
    if isinstance(calls, list):
        numbered = [{**call, "index": at} for at, call in enumerate(dicts(calls))]
        message = {**message, "tool_calls": numbered}
    return {"role": "assistant", **message}


def _message(message: Json, choice: int, id_: str) -> Json:
    """A whole message."""
    changes: Json = {}
    if not isinstance(message.get("role"), str):
        changes["role"] = "assistant"
    if "content" not in message:
        changes["content"] = None
    elif not isinstance(content := message["content"], str | None) and _is_text(content):
        changes |= _mended_texts(message)
    calls = message.get("tool_calls")
    if calls is not None:
        entries = [calls] if isinstance(calls, dict) else dicts(calls)
        ids = [text_or_empty(call.get("id")) for call in entries]
        formed = [
            whole_call(call, "" if ids[at] in ids[:at] else ids[at], f"{id_}_{choice}_{at}")
            for at, call in enumerate(entries)
        ]
        changes |= _changed("tool_calls", calls, formed)
    if isinstance(called := message.get("function_call"), dict):
        changes |= _changed("function_call", called, function_of(called, first=True))
    return {**message, **changes} if changes else message


def _mended_texts(message: Json) -> Json:
    """Changes that turn content and reasoning into texts."""
    changes: Json = {}
    content = message.get("content")
    if not isinstance(content, str | None):
        changes["content"] = _text(content)
        thoughts = "".join(_text(part.get("thinking")) for part in dicts(content))
        if thoughts and not any(message.get(name) for name in _REASONING):
            changes["reasoning_content"] = thoughts
    for name in (*_REASONING, "refusal"):
        if not isinstance(message.get(name), str | None):
            changes[name] = _text(message[name])
    return changes


def _text(value: Any) -> str:
    """The texts in a content of parts."""
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        return text_or_empty(value.get("text"))
    return text_or_empty(value)


def _is_text(content: Any) -> bool:
    """Whether nothing except texts would be lost if only these were kept."""
    return not isinstance(content, list) or all(
        isinstance(part, str) or (isinstance(part, dict) and {"text", "thinking"} & part.keys())
        for part in content
    )


def _as_completion(choice: Json) -> Json:
    """A choice without text, in the form of the completions API."""
    message: Json = next(iter(dicts([choice.get("delta"), choice.get("message")])), {})
    return {**without(choice, *_TEXT_FIELDS), "text": _text(message.get("content"))}


def _same(formed: list[Json], choices: list[Any]) -> bool:
    return len(formed) == len(choices) and all(map(operator.is_, formed, choices))


def _changed(name: str, old: Any, new: Any) -> Json:
    return {} if new == old else {name: new}
