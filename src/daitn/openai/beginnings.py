"""Answers whose beginning the client has said itself."""

from __future__ import annotations

import json
from typing import Any

import msgspec

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
    said = last.content
    if last.role != "assistant" or not isinstance(said, str) or not said:
        return answer
    told: dict[str, Any] = json.loads(answer)
    again = False
    for choice in told.get("choices") or ():
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str) and content.startswith(said):
            message["content"], again = content[len(said) :], True
    return json.dumps(told, ensure_ascii=False).encode() if again else answer
