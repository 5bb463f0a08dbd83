"""Answers to chats and errors, in the form of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from daitn.openai.chat_blocks import (
    Block,
    BlockKind,
    ChatBlocks,
    Step,
    StepKind,
    TokenCounts,
    call_input,
)
from daitn.openai.codes import CODES
from daitn.openai.context_excess import EXCEEDED, excess_of
from daitn.openai.errors import Error, read_error
from daitn.openai.messages_request import MessagesRequest

__all__ = ["MessagesAnswer", "messages_error", "messages_models"]

OVERLOADED: Final = 529
"""Anthropic's status for an overloaded server."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    503: "overloaded_error",
    OVERLOADED: "overloaded_error",
}
_STATUSES = {error.code: error.status for error in CODES}
_STOP_REASONS = {"length": "max_tokens", "content_filter": "refusal"}
_STOPPED: dict[str, Any] = {
    "stop_reason": None,
    "stop_sequence": None,
    "stop_details": None,
    "container": None,
}
_NO_COUNTS = {"cache_creation": None, "inference_geo": None, "service_tier": None}
"""Required fields of an answer without a value here."""


class MessagesAnswer:
    """Translates one answer, whole or event by event."""

    def __init__(self, request: MessagesRequest, tokens_in: int) -> None:
        """`tokens_in`: an estimate of the prompt's tokens, for the start of a stream."""
        self._request = request
        self._tokens_in = tokens_in
        self._chat = ChatBlocks(tokens_in)
        self._begun = False
        self._numbers: dict[int, int] = {}
        """Numbers of the visible blocks, by their numbers in the chat."""

    def whole(self, body: bytes) -> bytes:
        """The whole answer as a message."""
        self._chat.read_whole(body)
        shown = (block for block in self._chat.blocks if self._is_shown(block))
        content = [_full(block) for block in shown]
        usage = {**_NO_COUNTS, **self._usage()}
        message = {**self._head(), "content": content, **self._stop(), "usage": usage}
        return msgspec.json.encode(message)

    def events(self, events: bytes) -> bytes:
        """The next events, as those of a message."""
        return b"".join(self._step(step) for step in self._chat.feed(events))

    def error(self, status: int, body: bytes, request_id: str | None) -> tuple[int, bytes]:
        """An error's status and body, with the names of the request's fields."""
        names, tokens_in = self._request.names, self._tokens_in
        return messages_error(status, body, request_id, names, tokens_in)

    def _step(self, step: Step) -> bytes:
        if step.kind is StepKind.FAILED:
            return self._failed()
        block = step.block
        out = b"" if self._begun else self._start()
        if step.kind is StepKind.WAITED:
            return out + _event({"type": "ping"})
        if step.kind is StepKind.ENDED:
            delta = {"type": "message_delta", "delta": self._stop(), "usage": self._usage()}
            return out + _event(delta) + _event({"type": "message_stop"})
        assert block is not None
        if not self._is_shown(block):
            return out
        number = self._numbers.setdefault(block.number, len(self._numbers))
        if step.kind is StepKind.OPENED:
            event: dict[str, Any] = {"type": "content_block_start", "content_block": _empty(block)}
        elif step.kind is StepKind.ADDED:
            event = {"type": "content_block_delta", "delta": _delta(block, step.text)}
        else:
            if block.kind is BlockKind.REASONING:
                delta = {"type": "signature_delta", "signature": ""}
                out += _event({"type": "content_block_delta", "index": number, "delta": delta})
            event = {"type": "content_block_stop"}
        return out + _event({**event, "index": number})

    def _start(self) -> bytes:
        self._begun = True
        message = {
            **self._head(),
            "content": [],
            **_STOPPED,
            "usage": {**_NO_COUNTS, **_usage(TokenCounts(self._tokens_in, 0))},
        }
        return _event({"type": "message_start", "message": message})

    def _failed(self) -> bytes:
        error = self._chat.error or Error()
        status = _STATUSES.get(str(error.code), 500)
        _, body = messages_error(status, msgspec.json.encode({"error": error}))
        return b"event: error\ndata: " + body + b"\n\n"

    def _is_shown(self, block: Block) -> bool:
        return block.kind is not BlockKind.REASONING or self._request.thinking

    def _head(self) -> dict[str, Any]:
        chat = self._chat
        return {
            "id": f"msg_{chat.id}",
            "type": "message",
            "role": "assistant",
            "model": chat.model,
        }

    def _stop(self) -> dict[str, Any]:
        chat = self._chat
        reason = _STOP_REASONS.get(chat.finish_reason, "end_turn")
        if any(block.kind is BlockKind.REFUSAL for block in chat.blocks):
            reason = "refusal"
        sequence = chat.stop_text if reason == "end_turn" else None
        if sequence is not None:
            reason = "stop_sequence"
        if reason == "end_turn" and any(block.kind is BlockKind.CALL for block in chat.blocks):
            reason = "tool_use"
        return {**_STOPPED, "stop_reason": reason, "stop_sequence": sequence}

    def _usage(self) -> dict[str, Any]:
        return _usage(self._chat.counts)


def messages_error(
    status: int,
    body: bytes,
    request_id: str | None = None,
    names: dict[str, str] | None = None,
    tokens_in: int = 0,
) -> tuple[int, bytes]:
    """An error of OpenAI's API: its status and body in Anthropic's. `names`: the request's names of
    the fields; `tokens_in`: an estimate of its prompt's tokens."""
    error = read_error(body) or Error("the request failed")
    message, code = error.message, error.code
    if code == EXCEEDED:
        message = _too_long(message, tokens_in)
    elif error.param in (names or {}):
        assert names is not None
        assert error.param is not None
        message = f"{names[error.param]}: {message.removeprefix(f'{error.param}: ')}"
    if code == "overloaded":
        status = OVERLOADED
    usual = "api_error" if status >= 500 else "invalid_request_error"
    fields: dict[str, Any] = {"type": _TYPES.get(status, usual), "message": message}
    if error.daitn is not msgspec.UNSET and error.daitn:
        fields["daitn"] = error.daitn
    answer = {"type": "error", "error": fields, "request_id": request_id}
    return status, msgspec.json.encode(answer)


def _too_long(message: str, tokens_in: int) -> str:
    """The text of Anthropic's own error, by which Claude Code knows that it must shorten its
    history, or request a shorter answer. `tokens_in`: for servers that do not report it."""
    excess = excess_of(message)
    if excess.tokens_in is None and excess.most is not None and tokens_in > excess.most:
        excess = excess._replace(tokens_in=tokens_in)
    if excess.most is None or excess.tokens_in is None:
        return f"prompt is too long: {message}"
    if excess.tokens_out is None or excess.tokens_in > excess.most:
        return f"prompt is too long: {excess.tokens_in} tokens > {excess.most} maximum"
    return (
        "input length and `max_tokens` exceed context limit: "
        f"{excess.tokens_in} + {excess.tokens_out} > {excess.most}, "
        "decrease input length or `max_tokens` and try again"
    )


def messages_models(body: bytes) -> bytes:
    """OpenAI's list of models, or one model, in Anthropic's form."""
    models_body = msgspec.json.decode(body)
    if "data" not in models_body:
        return msgspec.json.encode(_model(models_body))
    models = [_model(model) for model in models_body["data"]]
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
    return msgspec.json.encode({"data": models, "has_more": False, **ends})


def _model(model: dict[str, Any]) -> dict[str, Any]:
    # Its creation time is unknown, as in OpenAI's form.
    made = "1970-01-01T00:00:00Z"
    return {
        "type": "model",
        "id": model["id"],
        "display_name": model["id"],
        "created_at": made,
        "lifecycle": "active",
    }


def _full(block: Block) -> dict[str, Any]:
    if block.kind is BlockKind.CALL:
        arguments = call_input(block)
        if arguments is None:  # Anthropic's documentation of fine-grained tool streaming has it so.
            arguments = {"INVALID_JSON": block.text}
        return {**_empty(block), "input": arguments}
    if block.kind is BlockKind.REASONING:
        return {**_empty(block), "thinking": block.text}
    return {**_empty(block), "text": block.text}


def _empty(block: Block) -> dict[str, Any]:
    if block.kind is BlockKind.CALL:
        named = {"id": block.id, "name": block.name}
        return {"type": "tool_use", **named, "input": {}, "caller": {"type": "direct"}}
    if block.kind is BlockKind.REASONING:
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": "", "citations": None}


def _delta(block: Block, text: str) -> dict[str, Any]:
    if block.kind is BlockKind.CALL:
        return {"type": "input_json_delta", "partial_json": text}
    if block.kind is BlockKind.REASONING:
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "text_delta", "text": text}


def _usage(counts: TokenCounts) -> dict[str, Any]:
    return {
        "input_tokens": counts.tokens_in - counts.cached_in,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached_in,
        "output_tokens": counts.tokens_out,
        "output_tokens_details": {"thinking_tokens": counts.reasoning_out},
        "server_tool_use": None,
    }


def _event(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))
