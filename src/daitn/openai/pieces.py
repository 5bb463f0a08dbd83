"""Brings the choices of an answer into the form that OpenAI's clients read.

Servers number calls of tools oddly or not at all, say a whole message where a piece is due, give
parts where a text is due, and cut characters in half; clients of OpenAI's API stop at each.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable
from typing import Any, Final

from daitn.objects.deployments import Api

__all__ = ["Pieces", "dicts", "index_of", "piece_of", "whole_choices"]

_HIGH_HALVES = ("\ud800", "\udbff")
_REPLACEMENT: Final = "\ufffd"
_SAID_IN = ("text", "delta", "message")
"""Fields of a choice that hold what it says."""
_REASONING = ("reasoning_content", "reasoning")

Json = dict[str, Any]


def dicts(values: Any) -> list[Json]:
    """The objects of what should be a list of them."""
    return (
        [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    )


def index_of(choice: Json, position: int) -> int:
    """The number of a choice; where it has none, its position counts."""
    index = _number(choice.get("index"))
    return position if index is None else index


class Pieces:
    """Forms the choices of one stream, event by event."""

    __slots__ = ("_api", "_calls", "_counts", "_halves", "_numbers", "_said")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._calls: dict[int, _Calls] = {}
        self._counts: dict[tuple[int, str], int] = {}
        self._halves: dict[tuple[Any, ...], str] = {}
        self._numbers: dict[int, int] = {}
        """Of choices, by the server's."""
        self._said: set[int] = set()

    @property
    def holds_half(self) -> bool:
        """Whether half a character waits for the other."""
        return bool(self._halves)

    def join_halves(self, choices: Any) -> None:
        """Join characters that are cut over two events, in place: half a surrogate pair is held
        until the same field of the same choice goes on."""
        for position, choice in enumerate(dicts(choices)):
            index = index_of(choice, position)
            for name in _SAID_IN:
                if name in choice:
                    choice[name] = self._joined((index, name), choice[name])
            if choice.get("finish_reason"):
                self._give_up_halves(index, choice)

    def formed(self, choices: Any, id_: str, *, whole: bool) -> list[Json]:
        """The choices of the next event; the same list if all is in order. `id_`: the answer's;
        `whole`: whether the event says that it is a whole answer."""
        if type(choices) is list and len(choices) == 1 and self._is_usual(choices[0]):
            return choices
        objects = dicts(choices)
        formed = [
            self._choice(choice, position, id_, whole) for position, choice in enumerate(objects)
        ]
        return choices if isinstance(choices, list) and _same(formed, choices) else formed

    def _is_usual(self, choice: Any) -> bool:
        """Whether a choice is a piece of a chat that only adds texts, as nearly all are: a short
        way, for it is asked of every token."""
        if type(choice) is not dict or type(index := choice.get("index")) is not int:
            return False
        if index not in self._said or self._numbers.get(index) != index or "message" in choice:
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
            # Answers to one prompt may come in any order, and clients expect them in theirs.
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
            self._said.add(index)
        if formed is choice.get("delta") and "message" not in choice:
            return choice
        return {**_without(choice, *_SAID_IN), "delta": formed}

    def _instead_of_delta(self, choice: Json, index: int, whole: bool) -> Json:
        message, text = choice.get("message"), choice.get("text")
        if isinstance(message, dict):
            # Some say all of it again at the end.
            return {} if whole and index in self._said else piece_of(message)
        return {"content": text} if isinstance(text, str) else {}

    def _delta(self, delta: Json, index: int, id_: str) -> Json:
        changes = _mended_texts(delta)
        for name, value in delta.items():
            if name == "tool_calls" and value:
                calls = self._calls.setdefault(index, _Calls(index))
                formed = calls.formed([value] if isinstance(value, dict) else dicts(value), id_)
                if formed != value or any(type(call.get("index")) is bool for call in value):
                    changes[name] = formed
            elif name == "function_call" and isinstance(value, dict):
                changes |= _changed(name, value, _function(value, first=False))
            elif isinstance(value, list) and name != "content":
                changes |= _changed(name, value, self._numbered(index, name, value))
        return {**delta, **changes} if changes else delta

    def _numbered(self, index: int, name: str, entries: list[Any]) -> list[Any]:
        """Entries of another list: clients join those of one number."""
        numbered = []
        for entry in entries:
            if isinstance(entry, dict):
                number = _number(entry.get("index"))
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


class _Call:
    """A call, as far as it has arrived."""

    __slots__ = ("event", "held", "id", "name", "number", "parts")

    def __init__(self, number: int, id_: str, name: str, event: int) -> None:
        self.number = number
        self.id = id_
        self.name = name
        self.event = event
        """In which it began."""
        self.parts: list[str] = []
        self.held = ""
        """An empty object at their start: all of them, or stands for those that follow."""

    @property
    def arguments(self) -> str:
        """As they were passed on."""
        return "".join(self.parts)

    @property
    def complete(self) -> bool:
        """Whether its arguments are a JSON object already."""
        return _is_object(self.arguments or self.held)

    def is_another(self, name: str, arguments: str) -> bool:
        """Whether a piece under its id is of another call: servers may give all calls one id."""
        if name == self.name and (self.held or arguments in ("", self.arguments)):
            return False
        return self.complete and (name != self.name or not _is_empty(arguments))

    def added(self, arguments: str) -> str:
        """Add to the arguments; what is to be passed on."""
        if _is_empty(arguments) and (not self.arguments or self.complete):
            if not self.arguments:
                self.held = arguments
            return ""
        if arguments.strip():
            self.held = ""
        self.parts.append(arguments)
        return arguments


class _Calls:
    """Numbers the calls of one choice from 0, in the order in which they begin.

    A number of the server's, an id and a name say together which call a piece belongs to. Any may
    be missing, all calls may have one number (Gemini), and every piece of a call an id of its own
    (old vLLM) or the name again.
    """

    __slots__ = ("_all", "_at", "_choice", "_event")

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._all: list[_Call] = []
        self._at: dict[int, _Call] = {}
        """The latest call under each number of the server's."""
        self._event = 0

    def formed(self, entries: list[Json], id_: str) -> list[Json]:
        """The entries of an event. `id_`: the answer's, for calls that have none."""
        self._event += 1
        several = len(entries) > 1
        return _one_each(self._entry(entry, at, several, id_) for at, entry in enumerate(entries))

    def ended(self, entries: list[Json]) -> list[Json]:
        """The last entries, once formed, with the arguments that nothing followed."""
        held = [call for call in self._all if call.held]
        late = [{"index": call.number, "function": {"arguments": call.held}} for call in held]
        for call in held:
            call.parts, call.held = [call.held], ""
        return _one_each([*entries, *late])

    def _entry(self, entry: Json, position: int, several: bool, answer_id: str) -> Json:
        function = _function(_called(entry), first=False)
        key, id_, name = _number(entry.get("index")), _string(entry.get("id")), function.get("name")
        name, arguments = _string(name), _string(function.get("arguments"))
        call = self._continued(key, id_, name, arguments, position, several)
        if first := call is None:
            number = len(self._all)
            made_up = f"call_{answer_id}_{self._choice}_{number}".replace(":", "_")
            taken = any(one.id == id_ for one in self._all)
            call = _Call(number, id_ or made_up, name, self._event)
            self._all.append(call)
            if "custom" not in entry:
                function = _function(function, first=True)
        assert call is not None
        if key is not None:
            self._at[key] = call
        said = {**_without(entry, "name", "arguments"), "index": call.number}
        if first:
            said |= {
                "id": made_up if taken else call.id,
                "type": _string(entry.get("type")) or "function",
            }
        else:
            said = _without(said, *(["id"] if id_ else []), *([] if said.get("type") else ["type"]))
        if not first and name:
            if name == call.name or (call.name and (call.arguments or call.held)):
                function = _without(function, "name")
            else:
                call.name += name
        if name and not first and call.complete and arguments == call.arguments:
            function = {**function, "arguments": ""}  # All is said again.
        elif (added := call.added(arguments)) != arguments:
            function = {**function, "arguments": added}
        return said if "custom" in entry else {**said, "function": function}

    def _continued(
        self, key: int | None, id_: str, name: str, arguments: str, position: int, several: bool
    ) -> _Call | None:
        """The call that a piece belongs to; none: it begins one."""
        latest = self._all[-1] if self._all else None
        if not id_ and not name:
            if key is not None and key in self._at:
                return self._at[key]
            return self._all[position] if several and position < len(self._all) else latest
        if key is not None:
            call = self._at.get(key)
            if call is None or not name:
                return call
            if id_ == call.id:
                return None if call.is_another(name, arguments) else call
            return None if id_ or call.complete else call
        if known := next((call for call in reversed(self._all) if id_ and call.id == id_), None):
            return None if name and known.is_another(name, arguments) else known
        if latest is None or latest.complete or latest.event == self._event:
            return None
        if id_:
            return None if name else latest
        return latest if latest.name in ("", name) else None


def _one_each(entries: Iterable[Json]) -> list[Json]:
    """One entry for each call: clients read no second one in an event."""
    formed: dict[int, Json] = {}
    for said in entries:
        before = formed.setdefault(said["index"], said)
        if before is not said and "function" in said and "function" in before:
            texts = {
                name: "".join(_string(one["function"].get(name)) for one in (before, said))
                for name in ("name", "arguments")
                if name in before["function"] or name in said["function"]
            }
            formed[said["index"]] = {**before, "function": {**before["function"], **texts}}
    return [*formed.values()]


def whole_choices(choices: Any, api: Api, id_: str) -> list[Json] | None:
    """The choices of a whole answer; the same list if all is in order, and none if one of them is
    no answer of this API. `id_`: the answer's."""
    objects = dicts(choices)
    if not objects or len(objects) != len(choices):
        return None
    formed = []
    for position, choice in enumerate(objects):
        said = next(iter(dicts([choice.get("message"), choice.get("delta")])), None)
        text = choice.get("text")
        if said is None and (text is None if api is Api.CHAT else "text" not in choice):
            return None
        if type(choice.get("index")) is not int:
            choice = {**choice, "index": index_of(choice, position)}
        if api is Api.CHAT:
            message = {"content": _text(text)} if said is None else said
            message = _message(message, choice["index"], id_)
            if message is not choice.get("message"):
                choice = {**_without(choice, *_SAID_IN), "message": message}
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
        ids = [_string(call.get("id")) for call in entries]
        formed = [
            _whole_call(call, "" if ids[at] in ids[:at] else ids[at], f"{id_}_{choice}_{at}")
            for at, call in enumerate(entries)
        ]
        changes |= _changed("tool_calls", calls, formed)
    if isinstance(called := message.get("function_call"), dict):
        changes |= _changed("function_call", called, _function(called, first=True))
    return {**message, **changes} if changes else message


def _whole_call(call: Json, id_: str, place: str) -> Json:
    """A call with this id; empty: it gets one of its place."""
    said = {
        **call,
        "id": id_ or f"call_{place}".replace(":", "_"),
        "type": _string(call.get("type")) or "function",
    }
    if "custom" in call:
        return said
    said = _without(said, "name", "arguments")
    return {**said, "function": _function(_called(call), first=True)}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_empty(text: str) -> bool:
    """Whether a text is an object without fields."""
    return len(text) < 10 and text.split() in (["{}"], ["{", "}"])


def _called(entry: Json) -> Json:
    function = entry.get("function")
    if isinstance(function, dict):
        return function
    return {name: entry[name] for name in ("name", "arguments") if name in entry}


def _function(function: Json, *, first: bool) -> Json:
    """What is called; `first`: its first piece, or all of it. Some servers say the arguments as an
    object."""
    changes: Json = {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str) and (first or "arguments" in function):
        changes["arguments"] = "" if arguments is None else json.dumps(arguments)
    if not isinstance(function.get("name"), str) and first:
        changes["name"] = ""
    return {**function, **changes} if changes else function


def _mended_texts(said: Json) -> Json:
    """Changes after which content and reasoning are texts."""
    changes: Json = {}
    content = said.get("content")
    if not isinstance(content, str | None):
        changes["content"] = _text(content)
        thoughts = "".join(_text(part.get("thinking")) for part in dicts(content))
        if thoughts and not any(said.get(name) for name in _REASONING):
            changes["reasoning_content"] = thoughts
    for name in (*_REASONING, "refusal"):
        if not isinstance(said.get(name), str | None):
            changes[name] = _text(said[name])
    return changes


def _text(value: Any) -> str:
    """The texts in a content of parts."""
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        return _string(value.get("text"))
    return _string(value)


def _is_text(content: Any) -> bool:
    """Whether nothing but texts would be lost if only these were kept."""
    return not isinstance(content, list) or all(
        isinstance(part, str) or (isinstance(part, dict) and {"text", "thinking"} & part.keys())
        for part in content
    )


def _as_completion(choice: Json) -> Json:
    """A choice that has no text, as one of the completions API."""
    said: Json = next(iter(dicts([choice.get("delta"), choice.get("message")])), {})
    return {**_without(choice, *_SAID_IN), "text": _text(said.get("content"))}


def _same(formed: list[Json], choices: list[Any]) -> bool:
    return len(formed) == len(choices) and all(map(operator.is_, formed, choices))


def _changed(name: str, old: Any, new: Any) -> Json:
    return {} if new == old else {name: new}


def _without(said: Json, *names: str) -> Json:
    return {name: value for name, value in said.items() if name not in names}


def _number(value: Any) -> int | None:
    """A number that may stand in a text, or be a float."""
    if type(value) is int:
        return value if 0 <= value < 1 << 31 else None
    if isinstance(value, float) and math.isfinite(value) and value >= 0:
        return _number(int(value))
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return None


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
