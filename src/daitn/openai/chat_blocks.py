"""Reads an answer to a chat as a sequence of blocks: reasoning, texts and tool calls.

The newer APIs of OpenAI and Anthropic answer in blocks, of which one begins when the one before has
ended; in a chat the pieces of calls may alternate.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from daitn.objects.tokens import expected_tokens
from daitn.openai.errors import DECODE_ERRORS, Error, error_of
from daitn.openai.events import EventCutter, read_event
from daitn.openai.lenient import dicts, text_or_empty
from daitn.openai.responses import usage_of

__all__ = ["Block", "BlockKind", "ChatBlocks", "Step", "StepKind", "TokenCounts", "call_input"]


class BlockKind(enum.Enum):
    """Content of a block."""

    REASONING = "reasoning"
    TEXT = "text"
    REFUSAL = "refusal"
    CALL = "call"


class Block:
    """A part of an answer, as far as it has arrived."""

    __slots__ = ("_parts", "id", "kind", "logprobs", "name", "number")

    def __init__(self, kind: BlockKind, number: int, id_: str, name: str) -> None:
        self.kind = kind
        self.number = number
        """Counts from 0 in the answer."""
        self.id = id_
        """Id of a call."""
        self.name = name
        """Name of the called function."""
        self.logprobs: list[dict[str, Any]] = []
        """For the tokens of a text, if the server reports them."""
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """The text, or a call's arguments."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def add(self, text: str, logprobs: Sequence[dict[str, Any]]) -> None:
        self._parts.append(text)
        self.logprobs += logprobs


class StepKind(enum.Enum):
    """What happens next in an answer."""

    OPENED = "opened"
    ADDED = "added"
    CLOSED = "closed"
    WAITED = "waited"
    """The server reports that it is still there."""
    FAILED = "failed"
    ENDED = "ended"


class Step(NamedTuple):
    """Something that happens in an answer. `text` and `logprobs`: what is added to the block."""

    kind: StepKind
    block: Block | None = None
    text: str = ""
    logprobs: Sequence[dict[str, Any]] = ()


class TokenCounts(NamedTuple):
    """Tokens of an answer; `cached_in` and `reasoning_out` are parts of the other two."""

    tokens_in: int
    tokens_out: int
    cached_in: int = 0
    reasoning_out: int = 0


class _Piece(NamedTuple):
    key: object
    kind: BlockKind
    text: str
    id: str = ""
    name: str = ""
    logprobs: Sequence[dict[str, Any]] = ()


class ChatBlocks:
    """Reads one answer; its first choice counts."""

    def __init__(self, tokens_in: int) -> None:
        """`tokens_in`: an estimate of the prompt's tokens, in case the server does not count
        them."""
        self.id = ""
        self.model = ""
        self.created_s = 0
        self.finish_reason = ""
        self.stop_text: str | None = None
        """The text of `stop` that ended the answer, if the server reports it."""
        self.error: Error | None = None
        self.blocks: list[Block] = []
        self._usage: msgspec.Raw | None = None
        self._tokens_in = tokens_in
        self._cutter = EventCutter()
        self._open: Block | None = None
        self._open_key: object = None
        self._opened = False
        """Whether the opening of the block was reported."""
        self._ended_calls: set[object] = set()
        self._held: list[_Piece] = []
        self._logprobs: list[dict[str, Any]] = []
        """For tokens whose text has not arrived yet."""

    @property
    def counts(self) -> TokenCounts:
        """As counted by the server, or else estimated."""
        usage = None if self._usage is None else usage_of(self._usage)
        tokens_in = tokens_out = None
        if usage is not None:
            tokens_in, tokens_out = usage.prompt_tokens, usage.completion_tokens
        if tokens_in is None:
            tokens_in = self._tokens_in
        if tokens_out is None:
            tokens_out = sum(expected_tokens(block.text) for block in self.blocks)
        cached = self._detail("prompt_tokens_details", "cached_tokens")
        reasoning = self._detail("completion_tokens_details", "reasoning_tokens")
        return TokenCounts(
            tokens_in, tokens_out, min(cached, tokens_in), min(reasoning, tokens_out)
        )

    def read_whole(self, body: bytes) -> list[Step]:
        """All steps of an answer in one piece."""
        return [*self._take(msgspec.json.decode(body)), *self._end()]

    def feed(self, events: bytes) -> list[Step]:
        """Process the next events of a stream, as passed by `StreamReader`; returns the resulting
        steps."""
        steps: list[Step] = []
        for block in self._cutter.feed(events):
            event = read_event(block)
            if event is None:
                steps.append(Step(StepKind.WAITED))
            elif event.data == b"[DONE]":
                steps += self._end()
            else:
                steps += self._take(msgspec.json.decode(event.data))
        return steps

    def _take(self, answer: Any) -> list[Step]:
        if not isinstance(answer, dict):
            return []
        if answer.get("error"):
            self.error = error_of(answer["error"])
            return [Step(StepKind.FAILED)]
        self.id = self.id or text_or_empty(answer.get("id"))
        self.model = self.model or text_or_empty(answer.get("model"))
        created = answer.get("created")
        self.created_s = self.created_s or (created if type(created) is int else 0)
        if answer.get("usage"):
            self._usage = msgspec.Raw(msgspec.json.encode(answer["usage"]))
        choices = dicts(answer.get("choices"))
        first = next((choice for choice in choices if choice.get("index") == 0), None)
        if first is None:
            return []
        message = first.get("delta") or first.get("message")
        steps: list[Step] = []
        if isinstance(logprobs := first.get("logprobs"), dict):
            self._logprobs += dicts(logprobs.get("content"))
        for piece in self._pieces(message) if isinstance(message, dict) else ():
            if piece.kind is BlockKind.TEXT:
                piece, self._logprobs = piece._replace(logprobs=self._logprobs), []
            steps += self._say(piece)
        self.finish_reason = text_or_empty(first.get("finish_reason")) or self.finish_reason
        stop = first.get("stop_reason")  # vLLM tells it here.
        self.stop_text = stop if isinstance(stop, str) and stop else self.stop_text
        return steps

    def _pieces(self, message: dict[str, Any]) -> list[_Piece]:
        # DeepSeek and llama.cpp call it `reasoning_content`, newer vLLM and Ollama `reasoning`.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        pieces = [
            _Piece(kind, kind, text)
            for kind, value in (
                (BlockKind.REASONING, reasoning),
                (BlockKind.TEXT, message.get("content")),
                (BlockKind.REFUSAL, message.get("refusal")),
            )
            if (text := _text(value))
        ]
        for position, call in enumerate(dicts(message.get("tool_calls"))):
            pieces.append(_call(call, call.get("index", position), text_or_empty(call.get("id"))))
        if isinstance(message.get("function_call"), dict):
            id_ = f"call_{self.id}".replace(":", "_")
            pieces.append(_call({"function": message["function_call"]}, "function_call", id_))
        return pieces

    def _say(self, piece: _Piece, *, ending: bool = False) -> list[Step]:
        steps: list[Step] = []
        if self._open is None or piece.key != self._open_key:
            if piece.key in self._ended_calls:
                return []
            if not ending and self._open is not None and not _may_end(self._open):
                self._held.append(piece)
                return []
            steps += self._close()
            self._open = Block(piece.kind, len(self.blocks), piece.id, "")
            self._open_key, self._opened = piece.key, False
            self.blocks.append(self._open)
        # A function's name may come late or in pieces: its arguments show that it is complete.
        if not self._opened and piece.name != self._open.name:
            self._open.name += piece.name
        if piece.text:
            steps += self._opening()
            self._open.add(piece.text, piece.logprobs)
            steps.append(Step(StepKind.ADDED, self._open, piece.text, piece.logprobs))
        if self._held and not ending and _may_end(self._open):
            held, self._held = self._held, []
            for later in held:
                steps += self._say(later)
        return steps

    def _opening(self) -> list[Step]:
        opened, self._opened = self._opened, True
        return [] if opened else [Step(StepKind.OPENED, self._open)]

    def _close(self) -> list[Step]:
        if self._open is None:
            return []
        steps = self._opening()
        if self._open.kind is BlockKind.CALL:
            self._ended_calls.add(self._open_key)
        closed, self._open, self._open_key = self._open, None, None
        return [*steps, Step(StepKind.CLOSED, closed)]

    def _end(self) -> list[Step]:
        steps: list[Step] = []
        for key in dict.fromkeys(piece.key for piece in self._held):
            for piece in self._held:
                if piece.key == key:
                    steps += self._say(piece, ending=True)
        self._held.clear()
        return [*steps, *self._close(), Step(StepKind.ENDED)]

    def _detail(self, within: str, name: str) -> int:
        usage = None if self._usage is None else msgspec.json.decode(self._usage)
        details = usage.get(within) if isinstance(usage, dict) else None
        count = details.get(name) if isinstance(details, dict) else None
        return count if type(count) is int and count > 0 else 0


def _call(call: dict[str, Any], key: object, id_: str) -> _Piece:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    name, arguments = text_or_empty(function.get("name")), text_or_empty(function.get("arguments"))
    return _Piece(key, BlockKind.CALL, arguments, id_, name)


def call_input(block: Block) -> dict[str, Any] | None:
    """A call's arguments; none if they are not a JSON object."""
    try:
        value = msgspec.json.decode(block.text.encode() or b"{}")
    except (*DECODE_ERRORS, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


def _may_end(block: Block) -> bool:
    """Whether another block may follow; not while a call's arguments are incomplete."""
    return block.kind is not BlockKind.CALL or (bool(block.text) and call_input(block) is not None)


def _text(value: Any) -> str:
    if isinstance(value, list):
        parts = (part.get("text") for part in value if isinstance(part, dict))
        return "".join(text_or_empty(part) for part in parts)
    return text_or_empty(value)
