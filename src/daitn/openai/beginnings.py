"""Answers whose beginning the client has said itself."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from daitn.openai.pieces import dicts

__all__ = ["without_beginning"]


class _Turn(msgspec.Struct):
    role: str = ""
    content: Any = None


class _Asked(msgspec.Struct):
    messages: list[_Turn] = []


_ASKED = msgspec.json.Decoder(_Asked)


def without_beginning(answer: bytes, request: bytes) -> bytes:
    """A whole chat without what the last message of its request, an assistant's, says already.

    llama.cpp puts that in front of what it adds, but not in streams; other servers, and Anthropic's
    API, never do.
    """
    try:
        asked = _ASKED.decode(request).messages
    except msgspec.DecodeError:
        return answer
    last = asked[-1] if asked else _Turn()
    beginnings = _worded(last.content) if last.role == "assistant" else []
    if not beginnings:
        return answer
    told: dict[str, Any] = json.loads(answer)
    again = False
    for choice in dicts(told.get("choices")):
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(content, str):
            continue
        said = next(filter(content.startswith, beginnings), "")
        if said:
            message["content"], again = content[len(said) :], True
    return json.dumps(told, ensure_ascii=False).encode() if again else answer


def _worded(content: Any) -> list[str]:
    """How a server may have put a message's content, which may be in parts, into words."""
    if isinstance(content, str):
        return [content] if content else []
    texts = [part.get("text") for part in dicts(content)]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        return []
    return list(dict.fromkeys(between.join(map(str, texts)) for between in ("\n\n", "\n", "")))
