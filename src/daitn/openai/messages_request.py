"""Translates requests of Anthropic's Messages API into chat requests.

What a chat cannot say is refused by name. Fields that this module does not know go on to the model
as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from daitn.openai.errors import bad_request
from daitn.openai.requests import NOTHING, raw_fields, reader

__all__ = ["MessagesRequest", "read_messages"]

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Schema = dict[str, Any]


class _Tagged(msgspec.Struct, tag_field="type"):
    pass


class _Base64(_Tagged, tag="base64"):
    media_type: str
    data: str


class _Url(_Tagged, tag="url"):
    url: str


class _File(_Tagged, tag="file"):
    file_id: str = ""


class _PlainText(_Tagged, tag="text"):
    data: str


class _Text(_Tagged, tag="text"):
    """A text."""

    text: str


class _Image(_Tagged, tag="image"):
    """A part of a message; a source of type `file` is refused."""

    source: _Base64 | _Url | _File


class _Content(_Tagged, tag="content"):
    content: str | list[_Text | _Image]


class _Citations(msgspec.Struct):
    enabled: bool = False


class _Document(_Tagged, tag="document"):
    """Text, or a part of a message, after its title and context. A source of type `file` or `url`,
    and `citations`, are refused."""

    source: _Base64 | _PlainText | _Content | _Url | _File
    title: str | None = None
    context: str | None = None
    citations: _Citations | None = None


class _SearchResult(_Tagged, tag="search_result"):
    """A text with its title, source and content."""

    source: str
    title: str
    content: list[_Text]


class _ToolUse(_Tagged, tag="tool_use"):
    """One of the assistant's `tool_calls`."""

    id: str
    name: str
    input: _Schema


class _ToolResult(_Tagged, tag="tool_result"):
    """A tool message. `is_error` puts `Error:` before the result; its images follow as the
    user's."""

    tool_use_id: str
    content: str | list[_Text | _Image | _Document | _SearchResult] | None = None
    is_error: bool | None = None


class _Thought(_Tagged, tag="thinking"):
    """Dropped: models do not see it again, as with Anthropic."""


class _RedactedThought(_Tagged, tag="redacted_thinking"):
    """Dropped."""


_Readable = _Text | _Image | _Document | _SearchResult
_AnyBlock = (
    _Text
    | _Image
    | _Document
    | _SearchResult
    | _ToolUse
    | _ToolResult
    | _Thought
    | _RedactedThought
)


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[_AnyBlock]

    @property
    def blocks(self) -> list[_AnyBlock]:
        return [_Text(self.content)] if isinstance(self.content, str) else self.content


class _Tool(msgspec.Struct):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: _Schema = {}
    strict: bool | None = None


class _Choice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class _Thinking(msgspec.Struct):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: _Count | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: Literal["json_schema"]
    schema: _Schema


class _OutputConfig(msgspec.Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _Format | None = None


class _Edit(msgspec.Struct):
    type: str


class _ContextManagement(msgspec.Struct):
    edits: list[_Edit] = []


class _Request(msgspec.Struct):
    """A request, with what each of its fields is translated to."""

    model: str
    """Unchanged."""
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=100_000)]
    """Messages; consecutive turns of one role are merged. An assistant's text at the end is to be
    continued (`continue_final_message` of vLLM)."""
    max_tokens: _Count | None = None
    """Unchanged; required, except to count tokens."""
    system: str | list[_Text] | None = None
    """The first message, with the role `system`."""
    tools: list[_Tool] | None = None
    """Unchanged. Tools that Anthropic runs or defines are refused."""
    tool_choice: _Choice | None = None
    """Unchanged (`any` as `required`), and `parallel_tool_calls`."""
    stop_sequences: list[str] | None = None
    """`stop`."""
    thinking: _Thinking | None = None
    """With the type `enabled`, `reasoning_effort` by `budget_tokens`: `high` from 10,000 on,
    `medium` from 5,000, else `low`; a model without reasoning refuses it. With the type `adaptive`
    or `between_tools`, dropped: the model decides. With any of them, the answer includes the
    model's reasoning, unless `display` is `omitted`."""
    output_config: _OutputConfig | None = None
    """`reasoning_effort` from its `effort` (`max` as `xhigh`), and `response_format` from its
    `format`."""
    output_format: _Format | None = None
    """`response_format`."""
    stream: bool | None = None
    """Unchanged, with usage at the end."""
    context_management: _ContextManagement | None = None
    """Dropped; edits other than of thinking are refused."""
    cache_control: msgspec.Raw = NOTHING
    """Dropped."""
    metadata: msgspec.Raw = NOTHING
    """Dropped."""
    service_tier: msgspec.Raw = NOTHING
    """Dropped."""


_read = reader(_Request)
_NOT_HERE = ("container", "fallbacks", "inference_geo", "mcp_servers", "n")
"""Fields that chats do not have, or that would change the kind of answer."""
_FORGETS_THOUGHTS = "clear_thinking"
"""Kind of context edit that asks for what happens anyway."""
_EFFORTS = ((10_000, "high"), (5_000, "medium"), (0, "low"))
"""Effort by the token budget for thinking, as LiteLLM translates it. A chat has no such budget."""


class MessagesRequest(msgspec.Struct, frozen=True):
    """A request, translated into a chat request."""

    body: bytes
    names: dict[str, str]
    """Fields of the chat, by their names in the request."""
    thinking: bool
    """Whether the answer includes the model's reasoning."""


def read_messages(body: bytes, *, counting: bool = False) -> MessagesRequest:
    """Translate a request. `counting`: it only asks for its number of tokens. Raises `ApiError`
    (400) with the field at fault."""
    request = _read(body)
    raw = raw_fields(body)
    for name in _NOT_HERE:
        if bytes(raw.get(name, NOTHING)) not in (b"null", b"[]"):
            raise bad_request("models of this network do not support it", name, fix="leave it out")
    if request.max_tokens is None and not counting:
        raise bad_request("is missing", "max_tokens")
    _check_edits(request.context_management)
    rest = {name: value for name, value in raw.items() if name not in _Request.__struct_fields__}
    messages = _messages(request)
    fields = {**rest, "model": request.model, "messages": messages}
    chat = ChatFields(fields, {})
    chat.put("max_tokens", request.max_tokens, "max_tokens")
    chat.put("stop", request.stop_sequences or None, "stop_sequences")
    chat.put("tools", _tools(request.tools), "tools")
    _put_choice(request.tool_choice, chat)
    config = request.output_config or _OutputConfig()
    thinking = request.thinking or _Thinking("disabled")
    chat.put("reasoning_effort", _effort(thinking), "thinking")
    effort = "xhigh" if config.effort == "max" else config.effort
    chat.put("reasoning_effort", effort, "output_config")
    form = config.format or request.output_format
    where = "output_format" if config.format is None else "output_config.format"
    # Anthropic makes every such answer conform to its schema.
    chat.put("response_format", form and schema_format("output", form.schema, True), where)
    if messages and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        # vLLM continues the message only if asked to; llama.cpp always does.
        last = f"messages[{len(request.messages) - 1}]"
        chat.put("continue_final_message", True, last)
        chat.put("add_generation_prompt", False, last)
    if request.stream:
        chat.stream()
    shown = thinking.type != "disabled" and thinking.display != "omitted"
    return MessagesRequest(msgspec.json.encode(chat.fields), chat.names, shown)


def _check_edits(management: _ContextManagement | None) -> None:
    for position, edit in enumerate([] if management is None else management.edits):
        if not edit.type.startswith(_FORGETS_THOUGHTS):
            raise bad_request(
                "messages are passed to the model unchanged",
                f"context_management.edits[{position}]",
            )


def _effort(thinking: _Thinking) -> str | None:
    if thinking.type != "enabled":
        return None
    if thinking.budget_tokens is None:
        raise bad_request("is missing", "thinking.budget_tokens")
    budget = thinking.budget_tokens
    return next(effort for least, effort in _EFFORTS if budget >= least)


def _tools(tools: list[_Tool] | None) -> list[dict[str, Any]] | None:
    functions = []
    for position, tool in enumerate(tools or ()):
        if tool.type not in (None, "custom"):
            field = f"tools[{position}].type"
            raise bad_request(
                f"this network has no {tool.type[:100]}; only tools of the client", field
            )
        functions.append(function_tool(tool.name, tool.input_schema, tool.description, tool.strict))
    return functions or None


def _put_choice(choice: _Choice | None, chat: ChatFields) -> None:
    if choice is None:
        return
    wanted: Any = {"any": "required"}.get(choice.type, choice.type)
    if choice.type == "tool":
        wanted = function_choice(choice.name)
    chat.put("tool_choice", wanted, "tool_choice")
    if choice.disable_parallel_tool_use:
        chat.put("parallel_tool_calls", False, "tool_choice.disable_parallel_tool_use")


def _messages(request: _Request) -> list[dict[str, Any]]:
    messages = list[dict[str, Any]]()
    system = request.system
    if isinstance(system, list):
        system = "\n".join(block.text for block in system)
    if system:
        messages.append({"role": "system", "content": system})
    # Consecutive turns of one role are one turn.
    for role, turns in groupby(enumerate(request.messages), lambda turn: turn[1].role):
        placed = list(_placed(turns))
        if role == "user":
            messages += _user(placed)
        elif role == "assistant":
            messages.append(_assistant(placed))
        else:
            messages.append(_system(placed))
    return messages


def _placed(turns: Iterable[tuple[int, _Message]]) -> Iterator[tuple[str, _AnyBlock]]:
    """The blocks of turns, each with the name of its position."""
    for number, message in turns:
        for position, block in enumerate(message.blocks):
            yield f"messages[{number}].content[{position}]", block


def _user(placed: list[tuple[str, _AnyBlock]]) -> list[dict[str, Any]]:
    results, parts = list[dict[str, Any]](), list[dict[str, Any]]()
    for place, block in placed:
        if isinstance(block, _ToolResult):
            text, others = _result(place, block)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": text})
            parts += others
        elif isinstance(block, _Readable):
            parts += _parts(place, block)
        else:
            raise bad_request("is not a valid user block", place)
    if not parts:
        return results
    content: Any = parts
    if len(parts) == 1 and parts[0]["type"] == "text":
        content = parts[0]["text"]
    return [*results, {"role": "user", "content": content}]


def _result(place: str, block: _ToolResult) -> tuple[str, list[dict[str, Any]]]:
    """A tool's result: its text, and anything else it returned that tool messages cannot hold."""
    content = block.content or ""
    read: list[_Readable] = [_Text(content)] if isinstance(content, str) else list(content)
    parts = [part for inner in read for part in _parts(f"{place}.content", inner)]
    text = texts_of(parts)
    if block.is_error:
        text = f"Error: {text}"  # Tools of a chat cannot say it otherwise.
    return text, [part for part in parts if part["type"] != "text"]


def _system(placed: list[tuple[str, _AnyBlock]]) -> dict[str, Any]:
    texts = list[str]()
    for place, block in placed:
        if not isinstance(block, _Text):
            raise bad_request("is not a valid system block", place)
        texts.append(block.text)
    return {"role": "system", "content": "\n".join(texts)}


def _assistant(placed: list[tuple[str, _AnyBlock]]) -> dict[str, Any]:
    texts, calls = list[str](), list[dict[str, Any]]()
    for place, block in placed:
        if isinstance(block, _Text):
            texts.append(block.text)
        elif isinstance(block, _ToolUse):
            arguments = msgspec.json.encode(block.input).decode()
            calls.append(called(block.id, block.name, arguments))
        elif not isinstance(block, _Thought | _RedactedThought):
            raise bad_request("is not a valid assistant block", place)
    return assistant_message("".join(texts), calls)


def _parts(place: str, block: _Readable) -> list[dict[str, Any]]:
    """A block as parts of a chat's message."""
    if isinstance(block, _Text):
        return [text_part(block.text)]
    if isinstance(block, _Image):
        source = block.source
        if isinstance(source, _File):
            raise bad_request(
                "this network stores no files", f"{place}.source", fix="send it as base64 or url"
            )
        url = source.url if isinstance(source, _Url) else _data_url(source)
        return [image_part(url)]
    if isinstance(block, _SearchResult):
        texts = [block.title, block.source, *(part.text for part in block.content)]
        return [text_part("\n".join(texts))]
    if block.citations is not None and block.citations.enabled:
        raise bad_request("models of this network do not support citations", f"{place}.citations")
    about = [text_part(text) for text in (block.title, block.context) if text is not None]
    if isinstance(block.source, _PlainText):
        return [*about, text_part(block.source.data)]
    if isinstance(block.source, _Content):
        inner = block.source.content
        blocks = [_Text(inner)] if isinstance(inner, str) else inner
        return [*about, *(part for within in blocks for part in _parts(place, within))]
    if isinstance(block.source, _Url | _File):
        raise bad_request(
            "this network neither fetches nor stores documents",
            f"{place}.source",
            fix="send it as base64 or text",
        )
    return [*about, file_part(block.title, _data_url(block.source))]


def _data_url(source: _Base64) -> str:
    return f"data:{source.media_type};base64,{source.data}"
