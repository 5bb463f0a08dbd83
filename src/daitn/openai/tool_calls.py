"""Tool calls in the form for OpenAI's clients, from servers that number, name and cut them
oddly."""

from __future__ import annotations

import json
from collections.abc import Iterable

from daitn.openai.lenient import Json, number_in, text_or_empty, without

__all__ = ["Calls", "called_in", "function_of", "whole_call"]


class _Call:
    """A call, as far as it has arrived."""

    __slots__ = ("event", "held", "id", "name", "number", "parts")

    def __init__(self, number: int, id_: str, name: str, event: int) -> None:
        self.number = number
        self.id = id_
        self.name = name
        self.event = event
        """The event in which it began."""
        self.parts: list[str] = []
        self.held = ""
        """An empty object at the start of its arguments: all of them, or a placeholder for those
        that follow."""

    @property
    def arguments(self) -> str:
        """As passed on."""
        return "".join(self.parts)

    @property
    def complete(self) -> bool:
        """Whether its arguments are already a JSON object."""
        return _is_object(self.arguments or self.held)

    def is_another(self, name: str, arguments: str) -> bool:
        """Whether a piece with its id belongs to another call: servers may give all calls one
        id."""
        if name == self.name and (self.held or arguments in ("", self.arguments)):
            return False
        return self.complete and (name != self.name or not _is_empty(arguments))

    def added(self, arguments: str) -> str:
        """Add to the arguments; returns what to pass on."""
        if _is_empty(arguments) and (not self.arguments or self.complete):
            if not self.arguments:
                self.held = arguments
            return ""
        if arguments.strip():
            self.held = ""
        self.parts.append(arguments)
        return arguments


class Calls:
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
        """The latest call under each of the server's numbers."""
        self._event = 0

    def formed(self, entries: list[Json], id_: str) -> list[Json]:
        """The entries of an event. `id_`: the answer's, for calls that have none."""
        self._event += 1
        several = len(entries) > 1
        return _one_each(self._entry(entry, at, several, id_) for at, entry in enumerate(entries))

    def ended(self, entries: list[Json]) -> list[Json]:
        """The last entries, normalised, with the arguments that nothing followed."""
        held = [call for call in self._all if call.held]
        late = [{"index": call.number, "function": {"arguments": call.held}} for call in held]
        for call in held:
            call.parts, call.held = [call.held], ""
        return _one_each([*entries, *late])

    def _entry(self, entry: Json, position: int, several: bool, answer_id: str) -> Json:
        function = function_of(called_in(entry), first=False)
        key, id_ = number_in(entry.get("index")), text_or_empty(entry.get("id"))
        name = text_or_empty(function.get("name"))
        arguments = text_or_empty(function.get("arguments"))
        call = self._continued(key, id_, name, arguments, position, several)
        if first := call is None:
            number = len(self._all)
            made_up = f"call_{answer_id}_{self._choice}_{number}".replace(":", "_")
            taken = any(one.id == id_ for one in self._all)
            call = _Call(number, id_ or made_up, name, self._event)
            self._all.append(call)
            if "custom" not in entry:
                function = function_of(function, first=True)
        assert call is not None
        if key is not None:
            self._at[key] = call
        formed = {**without(entry, "name", "arguments"), "index": call.number}
        if first:
            formed |= {
                "id": made_up if taken else call.id,
                "type": text_or_empty(entry.get("type")) or "function",
            }
        else:
            formed = without(
                formed, *(["id"] if id_ else []), *([] if formed.get("type") else ["type"])
            )
        if not first and name:
            if name == call.name or (call.name and (call.arguments or call.held)):
                function = without(function, "name")
            else:
                call.name += name
        if name and not first and call.complete and arguments == call.arguments:
            function = {**function, "arguments": ""}  # All is said again.
        elif (added := call.added(arguments)) != arguments:
            function = {**function, "arguments": added}
        return formed if "custom" in entry else {**formed, "function": function}

    def _continued(
        self, key: int | None, id_: str, name: str, arguments: str, position: int, several: bool
    ) -> _Call | None:
        """The call to which a piece belongs; `None` means it begins one."""
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
    """One entry per call: clients ignore a second one in an event."""
    formed: dict[int, Json] = {}
    for entry in entries:
        before = formed.setdefault(entry["index"], entry)
        if before is not entry and "function" in entry and "function" in before:
            texts = {
                name: "".join(text_or_empty(one["function"].get(name)) for one in (before, entry))
                for name in ("name", "arguments")
                if name in before["function"] or name in entry["function"]
            }
            formed[entry["index"]] = {**before, "function": {**before["function"], **texts}}
    return [*formed.values()]


def whole_call(call: Json, id_: str, place: str) -> Json:
    """A call with this id; empty means one from its position."""
    whole = {
        **call,
        "id": id_ or f"call_{place}".replace(":", "_"),
        "type": text_or_empty(call.get("type")) or "function",
    }
    if "custom" in call:
        return whole
    whole = without(whole, "name", "arguments")
    return {**whole, "function": function_of(called_in(call), first=True)}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_empty(text: str) -> bool:
    """Whether a text is an object without fields."""
    return len(text) < 10 and text.split() in (["{}"], ["{", "}"])


def called_in(entry: Json) -> Json:
    """The function called by an entry, wherever it is named."""
    function = entry.get("function")
    if isinstance(function, dict):
        return function
    return {name: entry[name] for name in ("name", "arguments") if name in entry}


def function_of(function: Json, *, first: bool) -> Json:
    """The called function; `first`: its first piece, or all of it. Some servers give the arguments
    as an object."""
    changes: Json = {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str) and (first or "arguments" in function):
        changes["arguments"] = "" if arguments is None else json.dumps(arguments)
    if not isinstance(function.get("name"), str) and first:
        changes["name"] = ""
    return {**function, **changes} if changes else function
