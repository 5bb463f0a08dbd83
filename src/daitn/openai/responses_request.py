"""Translates requests of OpenAI's Responses API into chat requests.

What a chat cannot say is refused by name. Fields that this module does not know go on to the model
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any, Literal

import msgspec

from daitn.openai.chat_parts import (
    ChatFields,
    assistant_message,
    called,
    file_part,
    function_choice,
    function_tool,
    image_part,
    schema_format,
    text_part,
    texts_of,
)
from daitn.openai.errors import DECODE_ERRORS, bad_request, from_decode_error
from daitn.openai.requests import NOTHING, raw_fields, reader

__all__ = ["ResponsesRequest", "read_responses"]

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class _Part(msgspec.Struct):
    """A part of a message or of a tool's output."""

    type: Literal["input_text", "output_text", "refusal", "input_image", "input_file", "text"]
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    filename: str | None = None


class _Item(msgspec.Struct):
    """An item of `input`; its type determines which fields count."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] = "user"
    content: str | list[_Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[_Part] = ""


class _Typed(msgspec.Struct):
    type: Any = None


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Choice(msgspec.Struct):
    type: Literal["function"]
    name: str


class _Format(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "output"
    schema: dict[str, Any] = {}
    strict: bool | None = None
    description: str | None = None


class _Text(msgspec.Struct):
    format: _Format = _Format()
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class _Request(msgspec.Struct):
    """A request, with what each of its fields is translated to."""

    model: str
    """Unchanged."""
    input: str | list[msgspec.Raw]
    """Messages, by item: a `message` of `developer` becomes one of `system`; `function_call` and
    `function_call_output` become `tool_calls` and tool messages (those of one turn first, then
    their images as the user's, then what the user said in between); `reasoning` of earlier answers
    is dropped. `input_image` and `input_file` become parts of a message; a `file_id` is refused."""
    instructions: str | None = None
    """The first message, with the role `system`."""
    max_output_tokens: _Count | None = None
    """`max_tokens`."""
    tools: list[_Tool] | None = None
    """Unchanged, if their type is `function`; others are refused."""
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    """Unchanged."""
    parallel_tool_calls: bool | None = None
    """Unchanged."""
    text: _Text | None = None
    """`response_format` from its `format`, and `verbosity`."""
    reasoning: _Reasoning | None = None
    """`reasoning_effort` from its `effort`; its `summary` is dropped."""
    stream: bool | None = None
    """Unchanged, with usage at the end."""
    temperature: float | None = None
    """Unchanged."""
    top_p: float | None = None
    """Unchanged."""
    truncation: Literal["auto", "disabled"] | None = None
    """Dropped; `auto` is refused."""
    store: bool | None = None
    """Whether the answer may be stored; the answer's `store` says whether it is."""
    include: list[str] | None = None
    """`logprobs`, if it has `message.output_text.logprobs`; the rest is dropped."""
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    """Unchanged, with `logprobs`."""
    metadata: dict[str, str] | None = None
    """Dropped; the answer repeats it."""
    service_tier: msgspec.Raw = NOTHING
    """Dropped."""
    stream_options: msgspec.Raw = NOTHING
    """Dropped."""
    background: bool | None = None
    previous_response_id: str | None = None
    """The messages of [that conversation](#conversations-that-are-kept), before those of
    `input`."""
    conversation: msgspec.Raw = NOTHING
    prompt: msgspec.Raw = NOTHING
    max_tool_calls: int | None = None


_read = reader(_Request)
_ITEM = msgspec.json.Decoder(_Item)
_TYPED = msgspec.json.Decoder(_Typed)
_PASSED = ("temperature", "top_p", "parallel_tool_calls")
_NOT_HERE = ("background", "conversation", "max_tool_calls", "prompt")
"""Fields that would require storing more than responses, or running tools."""
_NOT_GIVEN = (b"null", b"false")
_LOGPROBS = "message.output_text.logprobs"
"""Value of `include` that requests the probabilities of the answer's tokens."""


class ResponsesRequest(msgspec.Struct, frozen=True):
    """A request, translated into a chat request."""

    body: bytes
    names: dict[str, str]
    """Fields of the chat, by their names in the request."""
    echoed: dict[str, Any]
    """Fields of the request that its answer repeats."""
    previous: str = ""
    """The response that it continues."""
    store: bool = True
    """Whether the answer may be stored."""


def read_responses(body: bytes) -> ResponsesRequest:
    """Translate a request. Raises `ApiError` (400) with the field at fault."""
    request = _read(body)
    raw = raw_fields(body)
    for name in _NOT_HERE:
        if bytes(raw.get(name, NOTHING)) not in _NOT_GIVEN:
            raise bad_request("this network does not offer it", name, fix="leave it out")
    if request.truncation == "auto":
        raise bad_request("prompts are never cut", "truncation", fix="leave it out")
    rest = {name: value for name, value in raw.items() if name not in _Request.__struct_fields__}
    rest |= {name: raw[name] for name in _PASSED if name in raw}
    fields = {**rest, "model": request.model, "messages": _messages(request)}
    chat = ChatFields(fields, {"messages": "input"})
    chat.put("max_tokens", request.max_output_tokens, "max_output_tokens")
    chat.put("tools", _tools(request.tools), "tools")
    choice: Any = request.tool_choice
    if isinstance(choice, _Choice):
        choice = function_choice(choice.name)
    chat.put("tool_choice", choice, "tool_choice")
    reasoning, text = request.reasoning or _Reasoning(), request.text or _Text()
    chat.put("reasoning_effort", reasoning.effort, "reasoning.effort")
    chat.put("verbosity", text.verbosity, "text.verbosity")
    chat.put("response_format", _response_format(text.format), "text.format")
    top = request.top_logprobs or None
    wants_logprobs = _LOGPROBS in (request.include or ())
    # A chat gives the likeliest tokens only beside the chosen ones.
    chat.put(
        "logprobs",
        True if wants_logprobs or top else None,
        "include" if wants_logprobs else "top_logprobs",
    )
    chat.put("top_logprobs", top, "top_logprobs")
    if request.stream:
        chat.stream()
    return ResponsesRequest(
        msgspec.json.encode(chat.fields),
        chat.names,
        _repeated(request, raw),
        request.previous_response_id or "",
        request.store is not False,
    )


def _repeated(request: _Request, raw: dict[str, msgspec.Raw]) -> dict[str, Any]:
    tools = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": bool(tool.strict),
        }
        for tool in request.tools or ()
    ]
    text = request.text or _Text()
    form: dict[str, Any] = {"type": text.format.type}
    if text.format.type == "json_schema":
        form |= {"name": text.format.name, "schema": text.format.schema}
        form["description"] = text.format.description
        form["strict"] = bool(text.format.strict)
    reasoning = request.reasoning or _Reasoning()
    return {
        "background": False,
        "frequency_penalty": raw.get("frequency_penalty", 0.0),
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "presence_penalty": raw.get("presence_penalty", 0.0),
        "previous_response_id": request.previous_response_id or None,
        "prompt_cache_key": raw.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.effort, "summary": None},
        "safety_identifier": raw.get("safety_identifier"),
        "service_tier": "default",
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": form},
        "tool_choice": request.tool_choice or "auto",
        "tools": tools,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "user": raw.get("user"),
    }


def _response_format(form: _Format) -> dict[str, Any] | None:
    if form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object"}
    return schema_format(form.name, form.schema, form.strict, form.description)


def _tools(tools: list[_Tool] | None) -> list[dict[str, Any]] | None:
    functions = []
    for position, tool in enumerate(tools or ()):
        if tool.type != "function":
            what = f"this network has no {tool.type[:100]}; only functions of the client"
            raise bad_request(what, f"tools[{position}].type")
        functions.append(
            function_tool(tool.name, tool.parameters or {}, tool.description, tool.strict)
        )
    return functions or None


def _messages(request: _Request) -> list[dict[str, Any]]:
    messages = list[dict[str, Any]]()
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    if not request.input:
        raise bad_request("is missing", "input")
    # A message of the assistant and the calls after it are one message in a chat.
    for assistant, grouped in groupby(_items(request.input), lambda one: _by_assistant(one[1])):
        items = list(grouped)
        messages += [_assistant(items)] if assistant else _others(items)
    return messages


def _items(raw: list[msgspec.Raw]) -> Iterator[tuple[str, _Item]]:
    """Items and their positions. A model's reasoning comes back unchanged and is not read."""
    for at, item in enumerate(raw):
        place = f"input[{at}]"
        try:
            if _TYPED.decode(item).type != "reasoning":
                yield place, _ITEM.decode(item)
        except DECODE_ERRORS as error:
            raise from_decode_error(error, place) from None


def _by_assistant(item: _Item) -> bool:
    return item.type == "function_call" or (item.type == "message" and item.role == "assistant")


def _assistant(placed: list[tuple[str, _Item]]) -> dict[str, Any]:
    calls = [
        called(item.call_id, item.name, item.arguments)
        for _, item in placed
        if item.type == "function_call"
    ]
    parts = [
        part
        for place, item in placed
        if item.type == "message"
        for part in _parts(f"{place}.content", item.content)
    ]
    return assistant_message(texts_of(parts), calls)


def _others(items: list[tuple[str, _Item]]) -> Iterator[dict[str, Any]]:
    """Messages of others than the assistant: in a chat, the results of all called tools come
    first."""
    messages = list[dict[str, Any]]()
    for place, item in items:
        if item.type == "function_call_output":
            parts = _parts(f"{place}.output", item.output)
            yield {"role": "tool", "tool_call_id": item.call_id, "content": texts_of(parts)}
            if others := [part for part in parts if part["type"] != "text"]:
                messages.append({"role": "user", "content": others})
            continue
        content: Any = item.content
        if not isinstance(content, str):
            content = _parts(f"{place}.content", content)
        role = "system" if item.role == "developer" else item.role
        messages.append({"role": role, "content": content})
    yield from messages


def _parts(place: str, content: str | list[_Part] | None) -> list[dict[str, Any]]:
    """Content as parts of a chat's message."""
    if isinstance(content, str):
        return [text_part(content)]
    parts = list[dict[str, Any]]()
    for position, part in enumerate(content or ()):
        if part.type == "input_image":
            if part.image_url is None:
                raise bad_request("this network stores no files", f"{place}[{position}].file_id")
            parts.append(image_part(part.image_url, part.detail))
        elif part.type == "input_file":
            if part.file_data is None:
                raise bad_request("send it as `file_data`", f"{place}[{position}]")
            parts.append(file_part(part.filename, part.file_data))
        else:
            parts.append(text_part(part.text or part.refusal))
    return parts
