"""Recognises answers: parses the bytes that a server sends, whole or as a stream.

An answer of a stream has begun when it says something: text, a tool call, or that it is finished.
Comments, a role and empty choices say nothing, and are held back until then, so that another
deployment can still be asked. It is complete when all choices have a `finish_reason` or `[DONE]`
came, whatever the connection does after that; before, it has broken off.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.errors import DECODE_ERRORS, HALF_PAIR, Error, ErrorFields, error_of
from daitn.openai.events import AnswerBroken, Event, EventCutter, read_event
from daitn.openai.http import BOM, DONE, as_event
from daitn.openai.lenient import dicts, index_of
from daitn.openai.pieces import PIECE_OF_CHAT, WHOLE_CHAT, Pieces, whole_choices
from daitn.openai.requests import NOTHING, rewritten
from daitn.openai.responses import Usage, usage_of

__all__ = [
    "AnswerFailed",
    "StreamReader",
    "WholeAnswer",
    "read_whole",
    "too_long",
]

_LIST = re.compile(rb"\s*\[\s*[^\]\s]")
"""A non-empty JSON list."""
_EMPTY = "its answer is empty"
_FAILED = "error"
"""The `finish_reason` of OpenRouter and vLLM for a choice that failed."""


class AnswerFailed(AnswerBroken):
    """The server reports a failure in its answer. `body`: the error and its surroundings."""

    def __init__(self, error: Error, body: bytes = b"") -> None:
        super().__init__(f"{error.message or error.code or 'it reported an error'}"[:500])
        self.error = error
        self.body = body


class _Piece(ErrorFields):
    """An event of a stream, or a whole answer: the fields that are read."""

    id: Any = None
    model: msgspec.Raw = NOTHING
    choices: Any = None
    data: msgspec.Raw = NOTHING
    """For embeddings: millions of numbers."""
    results: msgspec.Raw = NOTHING
    """For rankings."""
    sealed: Any = None
    usage: msgspec.Raw = NOTHING

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The choices that are objects."""
        return dicts(self.choices)

    @property
    def name(self) -> str:
        """Its id."""
        return self.id if isinstance(self.id, str) else ""


class _Result(msgspec.Struct):
    """A document's place in a ranking."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    relevance_score: float


_PIECE = msgspec.json.Decoder(_Piece)
_RESULTS = msgspec.json.Decoder(list[_Result])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _read(data: bytes, pieces: Pieces | None = None) -> tuple[_Piece, bytes] | None:
    """An object, and its JSON, repaired for servers that write NaN or half a surrogate pair.
    `pieces`: those of the stream, which may contain the other half. None for anything else. Raises
    `AnswerBroken` if it is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        raise AnswerBroken("its answer is not UTF-8") from None
    if pieces is None or not pieces.holds_half:
        try:
            return _PIECE.decode(data), data
        except DECODE_ERRORS:
            pass
    try:
        plain = json.loads(data, parse_constant=lambda _: None, parse_float=_finite)
        if pieces is not None and isinstance(plain, dict):
            pieces.join_halves(plain.get("choices"))
        mended = HALF_PAIR.sub("\ufffd", json.dumps(plain, ensure_ascii=False)).encode()
        return _PIECE.decode(mended), mended
    except (*DECODE_ERRORS, ValueError):
        return None


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def _failure(name: bytes, piece: _Piece) -> Error | None:
    """The error in an event or a whole answer, in any known form; none if there is none."""
    if (error := piece.stated_error(named=name == b"error")) is not None:
        return error
    for choice in piece.objects:
        if choice.get("error"):
            return error_of(choice["error"])
        if choice.get("finish_reason") == _FAILED:
            return Error("a choice of its answer failed")
    return None


class StreamReader:
    """Reads one stream. Bytes go in, and whole events come out once the answer has content."""

    __slots__ = (
        "_api",
        "_bound",
        "_calls",
        "_choices",
        "_cutter",
        "_ended",
        "_max_bytes",
        "_model",
        "_out",
        "_pieces",
        "_seen",
        "_size",
        "done",
        "has_content",
        "pieces",
        "usage",
    )

    def __init__(
        self,
        max_bytes: int,
        bound: str,
        *,
        api: Api = Api.CHAT,
        choices: int = 1,
        model: str | None = None,
    ) -> None:
        """`max_bytes`: limit on the whole stream; `bound`: name of that limit. `choices`: how many
        are expected. `model`: name that replaces the server's own; `None` means it stays."""
        self._api = api
        self._pieces = Pieces(api)
        self._max_bytes = max_bytes
        self._bound = bound
        self._choices = choices
        self._model = model
        self._cutter = EventCutter()
        self._size = 0
        self._out: list[bytes] = []
        self._seen: set[int] = set()
        self._ended: set[int] = set()
        self._calls = False
        self.has_content = False
        """Whether the answer has begun."""
        self.done = False
        """Whether nothing more follows."""
        self.pieces = 0
        """Number of events with content: about as many as tokens."""
        self.usage: Usage | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is complete, though token counts may follow."""
        return self.done or (len(self._ended) >= self._choices and self._ended >= self._seen)

    def feed(self, piece: bytes) -> bytes:
        """Process the next bytes; returns the events to send on. Raises `AnswerBroken`."""
        if self.done:
            return b""
        self._size += len(piece)
        for block in self._cutter.feed(piece):
            self._take(block)
            if self.done:
                break
        if self._size > self._max_bytes and not self.done:
            if not self.finished:
                raise too_long(self._max_bytes, self._bound)
            self._end()
        return self._released()

    def end(self, why: str = "") -> bytes:
        """The stream has ended, or broken off for the reason `why`; returns the events to send on.
        Raises `AnswerBroken` if the answer is incomplete."""
        if self.done:
            return b""
        if (rest := self._cutter.finish()) and not why:
            self._take(rest + b"\n\n", last=True)
        if not self.done:
            if not self.finished:
                raise AnswerBroken(why or ("it ended too early" if self.has_content else _EMPTY))
            self._end()
        return self._released()

    def _take(self, block: bytes, *, last: bool = False) -> None:
        event = read_event(block)
        if event is None:
            if (
                self.has_content
            ):  # It keeps connections alive; before, nothing is sent that it could.
                self._out.append(block)
            return
        if event.data.strip() == b"[DONE]":
            self._take_done()
            return
        read = _read(event.data, self._pieces)
        if read is None:
            self._take_text(event, last)
            return
        piece, data = read
        if (error := _failure(event.name, piece)) is not None:
            if not self.finished:
                raise AnswerFailed(error, event.data)
            return  # All was said before.
        whole = piece.object == WHOLE_CHAT
        choices = self._pieces.formed(piece.choices, piece.name, whole=whole)
        changes: dict[str, object] = {}
        if self._api is Api.CHAT and piece.object != PIECE_OF_CHAT:
            changes["object"] = PIECE_OF_CHAT  # OpenAI's client passes over others.
        if choices is not piece.choices:
            piece.choices = changes["choices"] = choices
        self._take_piece(piece)
        data = _changed(data, piece, self._model, changes)
        same = data is event.data and not event.name
        self._out.append(block if same else _rebuilt(event, data))

    def _take_text(self, event: Event, last: bool) -> None:
        """An event without an object."""
        if event.name == b"error" and not self.finished:
            raise AnswerFailed(Error(event.data[:500].decode(errors="replace")))
        if self.finished or not event.data or event.name not in (b"", b"message"):
            return
        raise AnswerBroken("it ended within an event" if last else "an event is not a JSON object")

    def _take_piece(self, piece: _Piece) -> None:
        says = False
        for position, choice in enumerate(piece.objects):
            index = index_of(choice, position)
            self._seen.add(index)
            delta = choice.get("delta")
            speaks = bool(choice.get("text"))
            if isinstance(delta, dict):
                speaks = speaks or any(delta[name] for name in delta if name != "role")
                self._calls = self._calls or bool(delta.get("tool_calls"))
            if choice.get("finish_reason"):
                self._ended.add(index)
                self.has_content = True
            elif speaks:
                self._ended.discard(index)  # Some servers end a choice, and go on.
            says = says or speaks
        if says:
            self.has_content = True
            self.pieces += 1
        if piece.usage is not NOTHING:
            self.usage = usage_of(piece.usage) or self.usage

    def _take_done(self) -> None:
        """Some servers never send a `finish_reason`; theirs ends here. If one choice has it and
        another does not, the latter was cut off, and a tool call without it may have been."""
        if not self.has_content:
            raise AnswerBroken(_EMPTY)
        if not self._ended >= self._seen and (self._ended or self._calls):
            raise AnswerBroken("one of its choices has no end")
        self._end()

    def _end(self) -> None:
        self._out.append(DONE)
        self.done = True

    def _released(self) -> bytes:
        if not self.has_content or not self._out:
            return b""
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return out


def too_long(max_bytes: int, bound: str) -> AnswerBroken:
    """An answer exceeds its bound."""
    return AnswerBroken(f"its answer is longer than {max_bytes} bytes ({bound})")


class WholeAnswer(msgspec.Struct, frozen=True):
    """An answer in one piece."""

    body: bytes
    usage: Usage | None = None


def read_whole(
    body: bytes,
    max_bytes: int,
    bound: str,
    *,
    api: Api = Api.CHAT,
    choices: int = 1,
    model: str | None = None,
) -> WholeAnswer:
    """Read an answer of this API in one piece. The arguments are those of `StreamReader`; for a
    ranking, `choices` is the number of documents that it can name. Raises `AnswerBroken`."""
    if len(body) > max_bytes:
        raise too_long(max_bytes, bound)
    read = _read(body.removeprefix(BOM))
    if read is None:
        raise AnswerBroken("its answer is not valid JSON")
    piece, body = read
    if (error := _failure(b"", piece)) is not None:
        raise AnswerFailed(error, body)
    changes: dict[str, object] = {}
    if piece.choices and api in (Api.CHAT, Api.COMPLETIONS):
        formed = whole_choices(piece.choices, api, piece.name)
        if formed is not piece.choices:
            piece.choices = changes["choices"] = formed
    if not _holds_answer(piece, api, choices):
        raise AnswerBroken("its response holds no answer")
    body = _changed(body, piece, model, changes)
    usage = None
    if piece.usage is not NOTHING:
        usage = usage_of(piece.usage, writes=api.writes)
    return WholeAnswer(body, usage)


def _holds_answer(piece: _Piece, api: Api, choices: int) -> bool:
    if isinstance(piece.sealed, str):
        return True
    if api is Api.EMBEDDINGS:
        return bool(_LIST.match(piece.data))
    if api is Api.RERANK:
        return _ranks(piece.results, choices)
    return bool(piece.objects) and len(piece.objects) == len(piece.choices)


def _ranks(results: msgspec.Raw, documents: int) -> bool:
    """Whether results rank documents out of this many, each once."""
    try:
        found = [result.index for result in _RESULTS.decode(results)]
    except DECODE_ERRORS:
        return False
    return 0 < len(found) == len(set(found)) and max(found) < documents


def _changed(data: bytes, piece: _Piece, model: str | None, changes: Mapping[str, object]) -> bytes:
    """The object with new values of its own fields, and of `model` if it has one; everything else
    stays unchanged, byte for byte."""
    if model is not None and piece.model is not NOTHING:
        changes = {**changes, "model": model}
    return rewritten(_FIELDS.decode(data), changes) if changes else data


def _rebuilt(event: Event, data: bytes) -> bytes:
    # JSON may have line ends between its tokens, which would end the field. Pieces have no name:
    # clients skip those that have one.
    data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    others = (line + b"\n" for line in event.others if line.partition(b":")[0] != b"event")
    return b"".join(others) + as_event(data)
