"""Parts of a chat request, translated from requests of other APIs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ChatFields",
    "assistant_message",
    "called",
    "file_part",
    "function_choice",
    "function_tool",
    "image_part",
    "schema_format",
    "text_part",
    "texts_of",
]

Part = dict[str, Any]
Message = dict[str, Any]


class ChatFields:
    """The fields of a chat, and their names in the original request."""

    def __init__(self, fields: dict[str, Any], names: dict[str, str]) -> None:
        self.fields = fields
        self.names = names
        """Names that differ in the original request."""

    def put(self, field: str, value: Any, of: str) -> None:
        """Set a field to the value of `of` in the request, if present."""
        if value is not None:
            self.fields[field] = value
            self.names[field] = of

    def stream(self) -> None:
        """Request a stream that ends with token counts."""
        self.fields |= {"stream": True, "stream_options": {"include_usage": True}}


def text_part(text: str) -> Part:
    """Text within a message."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: str | None = None) -> Part:
    """An image within a message; `detail`: resolution for reading it."""
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image}


def file_part(name: str | None, data: str) -> Part:
    """A document within a message."""
    return {"type": "file", "file": {"filename": name or "document", "file_data": data}}


def called(id_: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a tool."""
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant_message(text: str, calls: list[dict[str, Any]]) -> Message:
    """The assistant's text and tool calls."""
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text or None, "tool_calls": calls}


def texts_of(parts: Sequence[Part]) -> str:
    """The texts among the parts of a message, as lines."""
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def function_tool(
    name: str, parameters: dict[str, Any], description: str | None, strict: bool | None
) -> dict[str, Any]:
    """A tool of the client. `None` means not stated."""
    function = {"name": name, "parameters": parameters, **_stated(description, strict)}
    return {"type": "function", "function": function}


def function_choice(name: str) -> dict[str, Any]:
    """The choice of one tool."""
    return {"type": "function", "function": {"name": name}}


def schema_format(
    name: str, schema: dict[str, Any], strict: bool | None, description: str | None = None
) -> dict[str, Any]:
    """The form of an answer that a JSON schema describes."""
    described = {"name": name, "schema": schema, **_stated(description, strict)}
    return {"type": "json_schema", "json_schema": described}


def _stated(description: str | None, strict: bool | None) -> dict[str, Any]:
    given = {"description": description, "strict": strict}
    return {name: value for name, value in given.items() if value is not None}
