"""Answers whose beginning the client has supplied (prefill)."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from daitn.openai.lenient import dicts

__all__ = ["without_beginning"]


class _Turn(msgspec.Struct):
    role: str = ""
    content: Any = None


class _Request(msgspec.Struct):
    messages: list[_Turn] = []


_REQUEST = msgspec.json.Decoder(_Request)


def without_beginning(answer: bytes, request: bytes) -> bytes:
    """A whole chat without the text of the last message of its request, an assistant's.

    llama.cpp puts that in front of what it adds, but not in streams; other servers, and Anthropic's
    API, never do.
    """
    try:
        turns = _REQUEST.decode(request).messages
    except msgspec.DecodeError:
        return answer
    last = turns[-1] if turns else _Turn()
    beginnings = _worded(last.content) if last.role == "assistant" else []
    if not beginnings:
        return answer
    fields: dict[str, Any] = json.loads(answer)
    again = False
    for choice in dicts(fields.get("choices")):
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(content, str):
            continue
        beginning = next(filter(content.startswith, beginnings), "")
        if beginning:
            message["content"], again = content[len(beginning) :], True
    return json.dumps(fields, ensure_ascii=False).encode() if again else answer


def _worded(content: Any) -> list[str]:
    """Possible wordings by a server of a message's content, which may be in parts."""
    if isinstance(content, str):
        return [content] if content else []
    texts = [part.get("text") for part in dicts(content)]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        return []
    return list(dict.fromkeys(between.join(map(str, texts)) for between in ("\n\n", "\n", "")))
