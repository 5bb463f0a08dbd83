"""Answers to chats in the form of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

import msgspec

from daitn.openai.chat_blocks import Block, BlockKind, ChatBlocks, Step, StepKind
from daitn.openai.errors import Error, read_error
from daitn.openai.http import DONE
from daitn.openai.responses_request import ResponsesRequest

__all__ = ["ResponsesAnswer"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_PARTS = {
    BlockKind.TEXT: ("output_text", "text"),
    BlockKind.REFUSAL: ("refusal", "refusal"),
    BlockKind.REASONING: ("reasoning_text", "text"),
}
"""The type of a block's part, and the field of its text."""
_PREFIXES = {BlockKind.CALL: "fc", BlockKind.REASONING: "rs"}


class ResponsesAnswer:
    """Translates one answer, whole or event by event."""

    def __init__(self, request: ResponsesRequest, tokens_in: int) -> None:
        """`tokens_in`: an estimate of the prompt's tokens, in case the server does not count
        them."""
        self._request = request
        self._chat = ChatBlocks(tokens_in)
        self._begun = False
        self._sequence = 0
        self._id = ""
        self._stored = False
        self.ended = False
        """Whether everything except the end of a stream has been translated."""

    def keep_as(self, id_: str) -> None:
        """The response will be stored under this id."""
        self._id, self._stored = id_, True

    def not_stored(self) -> None:
        """The response is not stored after all."""
        self._stored = False

    def read_whole(self, body: bytes) -> None:
        """Process a whole answer."""
        self._chat.read_whole(body)

    def response(self) -> bytes:
        """The complete response."""
        return msgspec.json.encode(self._response(self._status()))

    def events(self, events: bytes) -> bytes:
        """The next events, as those of a response; without its end, if it has `ended`."""
        return b"".join(self._step(step) for step in self._chat.feed(events))

    def end(self) -> bytes:
        """The end of a stream."""
        self.ended = False
        status = self._status()
        return self._event(f"response.{status}", response=self._response(status)) + DONE

    def error(self, status: int, body: bytes, request_id: str | None) -> tuple[int, bytes]:
        """An error's status and body, with the names of the request's fields."""
        error = read_error(body)
        if error is None or error.param not in self._request.names:
            return status, body
        assert error.param is not None
        name = self._request.names[error.param]
        error.message = f"{name}: {error.message.removeprefix(f'{error.param}: ')}"
        error.param = name
        return status, msgspec.json.encode({"error": error})

    def _step(self, step: Step) -> bytes:
        out = b"" if self._begun else self._start()
        block = step.block
        if step.kind is StepKind.WAITED:
            return out + b": waiting\n\n"
        if step.kind is StepKind.FAILED:
            failed = {**self._response("failed"), "error": _failure(self._chat.error or Error())}
            return out + self._event("response.failed", response=failed) + DONE
        if step.kind is StepKind.ENDED:
            self.ended = True
            return out
        assert block is not None
        if step.kind is StepKind.OPENED:
            return out + self._opened(block)
        if step.kind is StepKind.ADDED:
            return out + self._added(block, step)
        return out + self._closed(block)

    def _start(self) -> bytes:
        self._begun = True
        response = self._response("in_progress")
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def _opened(self, block: Block) -> bytes:
        item = self._item(block, "in_progress", empty=True)
        out = self._event("response.output_item.added", output_index=block.number, item=item)
        if block.kind is not BlockKind.CALL:
            place = self._place(block)
            out += self._event("response.content_part.added", **place, part=_part(block, ""))
        return out

    def _added(self, block: Block, step: Step) -> bytes:
        place, text = self._place(block), step.text
        if block.kind is BlockKind.CALL:
            return self._event("response.function_call_arguments.delta", **place, delta=text)
        more: dict[str, Any] = {"logprobs": step.logprobs} if block.kind is BlockKind.TEXT else {}
        return self._event(f"response.{_PARTS[block.kind][0]}.delta", **place, delta=text, **more)

    def _closed(self, block: Block) -> bytes:
        place, text = self._place(block), block.text
        if block.kind is BlockKind.CALL:
            named = {"arguments": text, "name": block.name}
            out = self._event("response.function_call_arguments.done", **place, **named)
        else:
            kind, field = _PARTS[block.kind]
            is_text = block.kind is BlockKind.TEXT
            more: dict[str, Any] = {"logprobs": block.logprobs} if is_text else {}
            out = self._event(f"response.{kind}.done", **place, **{field: text}, **more)
            part = _part(block, text)
            out += self._event("response.content_part.done", **place, part=part)
        item = self._item(block, "completed")
        return out + self._event("response.output_item.done", output_index=block.number, item=item)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))

    def _place(self, block: Block) -> dict[str, Any]:
        place = {"item_id": self._item_id(block), "output_index": block.number}
        return place if block.kind is BlockKind.CALL else {**place, "content_index": 0}

    def _item_id(self, block: Block) -> str:
        return f"{_PREFIXES.get(block.kind, 'msg')}_{self._chat.id}_{block.number}"

    def _status(self) -> str:
        return "incomplete" if self._chat.finish_reason in _INCOMPLETE else "completed"

    def _item(self, block: Block, status: str, *, empty: bool = False) -> dict[str, Any]:
        text = "" if empty else block.text
        head: dict[str, Any] = {"id": self._item_id(block), "status": status}
        if block.kind is BlockKind.CALL:
            called = {"call_id": block.id, "name": block.name, "arguments": text}
            return {"type": "function_call", **head, **called}
        content = [] if empty else [_part(block, text)]
        if block.kind is BlockKind.REASONING:
            return {"type": "reasoning", **head, "summary": [], "content": content}
        return {"type": "message", **head, "role": "assistant", "content": content}

    def _response(self, status: str) -> dict[str, Any]:
        chat, ended = self._chat, status in ("completed", "incomplete")
        reason = _INCOMPLETE.get(chat.finish_reason) if status == "incomplete" else None
        output = [self._item(block, "completed") for block in chat.blocks] if ended else []
        return {
            "id": self._id or f"resp_{chat.id}",
            "object": "response",
            "created_at": chat.created_s,
            "completed_at": chat.created_s if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "model": chat.model,
            "output": output,
            "store": self._stored,
            "usage": self._usage() if ended else None,
            **self._request.echoed,
        }

    def _usage(self) -> dict[str, Any]:
        counts = self._chat.counts
        return {
            "input_tokens": counts.tokens_in,
            "input_tokens_details": {"cached_tokens": counts.cached_in},
            "output_tokens": counts.tokens_out,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning_out},
            "total_tokens": counts.tokens_in + counts.tokens_out,
        }


def _part(block: Block, text: str) -> dict[str, Any]:
    kind, field = _PARTS[block.kind]
    part: dict[str, Any] = {"type": kind, field: text}
    if block.kind is BlockKind.TEXT:
        part |= {"annotations": [], "logprobs": block.logprobs if text else []}
    return part


def _failure(error: Error) -> dict[str, Any]:
    return {"code": str(error.code or "server_error"), "message": error.message}
