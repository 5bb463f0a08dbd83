"""A pretrained model's chat template and special tokens.

A chat template is somebody's program. It is kept as a part of the model, and run only in
a recipe's confined processes, in the sandbox of Jinja that transformers uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from daitn.learning.answering.protocol import Message
from daitn.learning.causal_lm.settings import CHAT, TOKENIZER
from daitn.objects.errors import Corrupt, InvalidInput

__all__ = ["Chat", "chat_of_folder", "read_chat"]

_MOST_BYTES = 1 << 20
_MOST_FOLDER_FILE_BYTES = 16 << 20
"""A `tokenizer_config.json` may repeat every added token."""
_MOST_GROWTH_CHARS = 1 << 20
"""Maximum text that a template may add to the messages."""
_MARK = "zq7vk0"
"""Occurs in no template, and in no message; letters and digits are written unchanged."""
_MENDED = "import the complete model folder again"

_Text = Annotated[str, msgspec.Meta(max_length=512)]
_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]


class Chat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the part `chat.json`."""

    template: Annotated[str, msgspec.Meta(max_length=_MOST_BYTES)] | None = None
    """In Jinja; `None` means the model was not made for conversations."""
    tool_template: Annotated[str, msgspec.Meta(max_length=_MOST_BYTES)] | None = None
    """Instead of `template` if there are tools."""
    tokens: Annotated[dict[_Text, _Text], msgspec.Meta(max_length=64)] = {}
    """Special tokens by their names in templates, such as `bos_token`."""
    begins: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=8)] = ()
    """Tokens with which every text begins."""
    ends: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=64)] = ()
    """Tokens that end an answer."""

    @property
    def templates(self) -> dict[str, str]:
        """By their names in transformers."""
        both = {"default": self.template, "tool_use": self.tool_template}
        return {name: template for name, template in both.items() if template is not None}

    @property
    def knows_tools(self) -> bool:
        """Whether it passes tools to the model."""
        return "tools" in (self.tool_template or self.template or "")

    def rendered(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        continues_answer: bool = False,
    ) -> str:
        """The conversation as a prompt that the model's answer continues. With
        `continues_answer`, the last message is the beginning of the answer. Raises
        `InvalidInput` if the template refuses or omits a message."""
        text = self._rendered(messages, tools, continues_answer)
        if (place := self._left_out(text, messages, tools)) is not None:
            raise InvalidInput(
                f"this model's chat template drops messages of the role {messages[place].role}",
                field=f"messages[{place}]",
                fix="leave it out, or send it as the user",
            )
        if len(text) > sum(len(message.content) for message in messages) + _MOST_GROWTH_CHARS:
            raise _refused("it makes the conversation too long")
        return text

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], continues_answer: bool
    ) -> str:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        template = (self.tool_template if tools else None) or self.template
        assert template is not None
        try:
            (text,), _ = render_jinja_template(
                [[_as_dict(message) for message in messages]],
                tools=list(tools) or None,
                chat_template=template,
                add_generation_prompt=not continues_answer,
                continue_final_message=continues_answer,
                **self.tokens,
            )
        except TemplateError as error:
            raise _refused(str(error)[:300]) from None
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise _refused(f"it fails with a {type(error).__name__}") from None
        # Arguments of calls may name half a character, which no tokenizer can read.
        return str(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _left_out(
        self, text: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]
    ) -> int | None:
        """The first message that is missing in the text.

        Templates also write what they say in other forms: in JSON, without blanks, escaped. So a
        mark at the end of each message that is not there as it is has to come out.
        """
        missing = [
            place
            for place, message in enumerate(messages)
            if message.role != "assistant" and message.content.strip() not in text
        ]
        if not missing:
            return None
        marks = {place: f"{_MARK}{place}x" for place in missing}
        marked = [
            msgspec.structs.replace(message, content=message.content + marks.get(place, ""))
            for place, message in enumerate(messages)
        ]
        try:
            rendered = self._rendered(marked, tools, continues_answer=False).casefold()
        except InvalidInput:
            return None  # It read what was said, and the mark was not part of it.
        return next((place for place in missing if marks[place] not in rendered), None)


def read_chat(model: Path, vocabulary: int) -> Chat:
    """The part of a model in the folder `model`; an empty one if there is none.

    Raises `Corrupt` for one that is malformed.
    """
    path = model / CHAT
    if not path.is_file():
        return Chat()
    if path.stat().st_size > 4 * _MOST_BYTES:
        raise Corrupt(f"{CHAT} is too large", field=CHAT, fix=_MENDED)
    try:
        chat = msgspec.json.decode(path.read_bytes(), type=Chat)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"{CHAT}: {error}", field=CHAT, fix=_MENDED) from None
    if max((*chat.begins, *chat.ends), default=0) >= vocabulary:
        raise Corrupt(f"{CHAT} names tokens that do not exist", field=CHAT, fix=_MENDED)
    return chat


def chat_of_folder(folder: Path, ends: object, vocabulary: int) -> Chat:
    """The chat template and tokens in the files of a transformers folder. `ends`: `eos_token_id` of
    its description. Tokens beyond the vocabulary, which architectures have by default, are left
    out.

    Raises `Corrupt` for files that are malformed.
    """
    config = _object(folder / "tokenizer_config.json")
    named = {**_object(folder / "special_tokens_map.json"), **config}
    tokens = {
        name: text
        for name, value in named.items()
        if name.endswith("_token") and (text := _text_of(value))
    }
    tokenizer = _object(folder / TOKENIZER)
    ids = {token.get("content"): token.get("id") for token in tokenizer.get("added_tokens") or ()}
    stated = _object(folder / "generation_config.json").get("eos_token_id")
    own = (ids.get(tokens.get("eos_token")),)
    templates = _templates(folder, config)
    facts = {
        "template": templates.get("default"),
        "tool_template": templates.get("tool_use"),
        "tokens": tokens,
        "begins": _within(vocabulary, _begins(tokenizer.get("post_processor"))),
        "ends": sorted({end for some in (ends, stated, own) for end in _within(vocabulary, some)}),
    }
    try:
        return msgspec.convert(facts, Chat)
    except msgspec.ValidationError as error:
        raise Corrupt(f"{folder}: {error}", field=str(folder), fix="copy it again") from None


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    stated = config.get("chat_template") or _object(folder / "chat_template.json").get(
        "chat_template"
    )
    if isinstance(stated, str):
        found["default"] = stated
    elif isinstance(stated, list):
        named = [
            one for one in stated if isinstance(one, dict) and {"name", "template"} <= one.keys()
        ]
        found = {one["name"]: one["template"] for one in named}
    files = [("default", folder / "chat_template.jinja")]
    more = folder / "additional_chat_templates"
    files += [(path.stem, path) for path in sorted(more.glob("*.jinja"))]
    # If both exist, the file is the newer form.
    found |= {name: _read_text(path) for name, path in files if path.is_file()}
    return found


def _read_text(path: Path) -> str:
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Corrupt(f"{path}: {error}", field=path.name, fix="save it as UTF-8") from None


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: {error}", field=path.name, fix="copy it again") from None
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> bytes:
    most = _MOST_BYTES if path.suffix == ".jinja" else _MOST_FOLDER_FILE_BYTES
    if path.name != TOKENIZER and path.stat().st_size > most:
        raise Corrupt(f"{path} has more than {most} bytes", field=path.name, fix="copy it again")
    return path.read_bytes()


def _text_of(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _within(vocabulary: int, value: object) -> list[int]:
    """One or several existing tokens."""
    stated = value if isinstance(value, Iterable) else (value,)
    return [one for one in stated if type(one) is int and 0 <= one < vocabulary]


def _begins(processor: object) -> Iterator[object]:
    """The special tokens that the post-processor of a `tokenizer.json` puts before a text."""
    if not isinstance(processor, dict):
        return
    if processor.get("type") == "Sequence":
        for one in processor.get("processors") or ():
            yield from _begins(one)
    if processor.get("type") != "TemplateProcessing":
        return
    for one in processor.get("single") or ():
        name = (one.get("SpecialToken") or {}).get("id") if isinstance(one, dict) else None
        if name is None:
            return
        yield from ((processor.get("special_tokens") or {}).get(name) or {}).get("ids") or ()


def _as_dict(message: Message) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": message.content}
    if message.calls:
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.calls
        ]
    if message.call_id:
        plain["tool_call_id"] = message.call_id
    return plain


def _arguments(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _refused(why: str) -> InvalidInput:
    return InvalidInput(
        f"this model's chat template rejects the conversation: {why}",
        field="messages",
        fix="send only what the template supports",
    )
