"""Finds tool calls in a model's output.

Models write them as they were trained to: in `<tool_call>` (Hermes, Qwen), behind `[TOOL_CALLS]`
(Mistral) or `<|python_tag|>`, or as a bare JSON object (Llama 3).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from daitn.learning.answering.protocol import Piece, ToolCall
from daitn.objects.text import ends_in_start

__all__ = ["CallReader"]

_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>")
_END = "</tool_call>"
_DECODER = json.JSONDecoder()


class CallReader:
    """Passes on text as it arrives, and holds back what may be a call."""

    def __init__(self, names: frozenset[str], salt: int) -> None:
        """`names`: those of the available tools. `salt`: differs between turns, as names of calls
        do."""
        self._names = names
        self._salt = salt
        self._held: list[Piece] = []
        self._text = ""

    def add(self, piece: Piece) -> Iterator[Piece]:
        """Text that is certain."""
        self._held.append(piece)
        text = "".join(one.text for one in self._held)
        if not self._may_be_call(text):
            self._text += text
            held, self._held = self._held, []
            yield from held

    def rest(self) -> Iterator[Piece]:
        """What was held back, at the end: calls if they are well formed, else text."""
        text = "".join(one.text for one in self._held)
        before, calls = self._read(text)
        if calls:
            yield Piece(
                before,
                sum(one.logprob for one in self._held),
                sum(one.tokens for one in self._held),
                tuple(token for one in self._held for token in one.each),
                calls,
            )
        else:
            yield from self._held

    def _may_be_call(self, text: str) -> bool:
        if any(mark in text for mark in _MARKS) or ends_in_start(text, _MARKS):
            return True
        whole = (self._text + text).strip()
        return not whole or (not self._text.strip() and whole[0] in "{[")

    def _read(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        starts = [at for mark in _MARKS if (at := text.find(mark)) >= 0]
        start = min(starts, default=0)
        rest, found = text[start:], list[ToolCall]()
        while rest := _unmarked(rest):
            try:
                value, end = _DECODER.raw_decode(rest)
            except (ValueError, RecursionError):
                return "", ()
            for one in value if isinstance(value, list) else [value]:
                call = self._call(one)
                if call is None:
                    return "", ()
                found.append(call)
            rest = rest[end:]
        named = (
            structs.replace(call, id=self._id(number, call)) for number, call in enumerate(found)
        )
        return text[:start].rstrip(), tuple(named)

    def _id(self, number: int, call: ToolCall) -> str:
        """Nine letters and digits, as required by some templates."""
        text = f"{self._salt} {number} {call.name} {call.arguments}"
        return hashlib.blake2s(text.encode()).hexdigest()[:9]

    def _call(self, value: Any) -> ToolCall | None:
        if not isinstance(value, dict):
            return None
        value = value["function"] if isinstance(value.get("function"), dict) else value
        name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
        if name not in self._names or not isinstance(arguments, dict):
            return None
        return ToolCall("", name, json.dumps(arguments, ensure_ascii=False))


def _unmarked(text: str) -> str:
    """Without its leading marks, blanks and separators."""
    while True:
        text = text.lstrip(" \t\r\n;,")
        mark = next((mark for mark in (*_MARKS, _END) if text.startswith(mark)), "")
        if not mark:
            return text
        text = text[len(mark) :]
