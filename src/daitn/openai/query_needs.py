"""A request's requirements for the model, and the length of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from daitn.objects.abilities import Need
from daitn.objects.deployments import Api
from daitn.objects.tokens import USUAL_RATES, Characters, added, characters_of, tokens_of
from daitn.openai.requests import (
    NOTHING,
    Document,
    MessagePart,
    Prompt,
    QueryFields,
    RankingFields,
    text_of_document,
)

__all__ = [
    "ASKED_BY",
    "PARTS",
    "TOKENS_PER_LOW_DETAIL",
    "TOKENS_PER_PART",
    "PromptLength",
    "is_record",
    "length_of",
    "needs_of",
]

PARTS: Final = {
    "image_url": Need.IMAGE,
    "input_image": Need.IMAGE,
    "image": Need.IMAGE,
    "input_audio": Need.AUDIO,
    "audio_url": Need.AUDIO,
    "audio": Need.AUDIO,
    "video_url": Need.VIDEO,
    "input_video": Need.VIDEO,
    "video": Need.VIDEO,
    "file": Need.FILE,
    "input_file": Need.FILE,
    "document": Need.FILE,
}
"""What a part of each type needs to be read: those of OpenAI, vLLM and Anthropic."""
TOKENS_PER_PART: Final = {Need.IMAGE: 1000, Need.AUDIO: 1000, Need.VIDEO: 4000, Need.FILE: 4000}
"""A picture of a megapixel takes 765 tokens at OpenAI and 1,300 at Qwen2.5-VL; sound takes 10 to 25
a second, and a page of a document some 1,000. Models differ, and lengths are not examined."""
TOKENS_PER_LOW_DETAIL = 85
"""At OpenAI, for an image with `detail: low`."""
_TOKENS_PER_PAIR = 4
"""Marks around a question and a document, as in XLM-RoBERTa."""
_TOKENS_PER_MESSAGE = 4
"""Marks around a message, as in ChatML."""
ASKED_BY: Final = {
    Need.TEXT: "a text",
    Need.RECORD: "a last message of the user, or a prompt, that is a JSON object of numbers",
    **{
        need: "parts "
        + ", ".join(f"`{kind}`" for kind, reader in PARTS.items() if reader is need)
        + (", and the `image` of a document to rank" if need is Need.IMAGE else "")
        for need in TOKENS_PER_PART
    },
    Need.TOOLS: "`tools`, `functions`, or messages about calls",
    Need.JSON: "`response_format` of type `json_schema` or `json_object`",
    Need.VOICE: "`modalities` with `audio`",
    Need.TALK: "`model: auto`, unless it is a JSON object of numbers",
}
"""The part of a request that has this need, see `needs_of`; the needs that name an API follow from
its path."""
RECORD = msgspec.json.Decoder(dict[str, float | None])
"""A record to classify: numbers by the names of columns."""
_NO_CHARACTERS: Characters = (0, 0, 0, 0)
_ORDER = {need: at for at, need in enumerate(Need)}
_NOT_GIVEN = (b"", b"null", b"[]")


class _Picture(msgspec.Struct):
    detail: str | None = None


class _Format(msgspec.Struct):
    type: str = "text"


T = TypeVar("T")

_ANY_PICTURE, _ANY_FORMAT = _Picture(), _Format()
_PICTURE = msgspec.json.Decoder(_Picture)
_FORMAT = msgspec.json.Decoder(_Format)
_MODALITIES = msgspec.json.Decoder(list[str])
_JSON_FORMATS = frozenset({"json_schema", "json_object"})


@dataclass(frozen=True, slots=True)
class PromptLength:
    """Length of a prompt."""

    characters: Characters
    apart: int
    """Tokens of parts other than text."""
    longest_share: float = 1.0
    """Share of the prompt in its longest text, which the model reads at once: below 1 if there are
    several texts."""

    def tokens(self, rates: Sequence[float] = USUAL_RATES) -> int:
        """Expected tokens, with a tokenizer of these rates."""
        return round(tokens_of(self.characters, rates)) + self.apart


def needs_of(api: Api, query: QueryFields, *, open_to_all: bool) -> tuple[Need, ...]:
    """The needs of a request besides its API, in the order of `Need`.

    `open_to_all`: whether it names no model, so that it does not count on the kind of answer that
    some model gives: it is answered in words, unless it is a record.
    """
    found = {PARTS[part.type] for part in _parts(query) if part.type in PARTS}
    if any(_shows(document) for document in _documents(query)):
        found.add(Need.IMAGE)
    record = api.writes and not found and is_record(_question(query))
    found.add(Need.RECORD if record else Need.TEXT)
    if _calls_tools(query):
        found.add(Need.TOOLS)
    if _read(_FORMAT, query.response_format, _ANY_FORMAT).type in _JSON_FORMATS:
        found.add(Need.JSON)
    if "audio" in _read(_MODALITIES, query.modalities, []):
        found.add(Need.VOICE)
    if open_to_all and not record and api.writes:
        found.add(Need.TALK)
    return tuple(sorted(found, key=_ORDER.__getitem__))


def length_of(query: QueryFields) -> PromptLength:
    """The length of a request's prompt."""
    characters, apart = _NO_CHARACTERS, 0
    for message in query.messages or ():
        characters = added(characters, characters_of(message.text))
        for calls in (message.tool_calls, message.function_call):
            if calls is not NOTHING:
                characters = added(characters, _characters_of_json(calls))
        apart += _TOKENS_PER_MESSAGE
        for part in message.content if isinstance(message.content, list) else ():
            apart += _tokens_of_part(part)
    several = [_text_length(text) for text in (*_texts(query.prompt), *_texts(query.input))]
    for prompt in (query.prompt, query.input):
        several += [PromptLength(_NO_CHARACTERS, tokens) for tokens in _given_tokens(prompt)]
    if isinstance(query, RankingFields):
        several += _pairs(query)
    for text in several:
        characters = added(characters, text.characters)
        apart += text.apart
    for field in (query.tools, query.functions, query.response_format):
        if field is not NOTHING:
            characters = added(characters, _characters_of_json(field))
    # A chat is read at once, whatever fields for other APIs it has.
    share = _longest_share(several) if query.messages is None else 1.0
    return PromptLength(characters, apart, share)


def _longest_share(several: Sequence[PromptLength]) -> float:
    """The share of the longest of texts that are read one by one."""
    if len(several) < 2:
        return 1.0
    lengths = [text.tokens() for text in several]
    return max(lengths) / max(1, sum(lengths))


def _text_length(text: str) -> PromptLength:
    return PromptLength(characters_of(text), 1)


def _pairs(query: RankingFields) -> list[PromptLength]:
    """The question beside each document, as read by a model that ranks."""
    question = "" if query.query is None else text_of_document(query.query)
    own = characters_of(question)
    return [
        PromptLength(
            added(own, characters_of(text_of_document(document))),
            _TOKENS_PER_PAIR + TOKENS_PER_PART[Need.IMAGE] * _shows(document),
        )
        for document in query.documents
    ]


def is_record(text: str) -> bool:
    """Whether a text is a JSON object of numbers, as tables' models read it."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return bool(RECORD.decode(text.encode()))
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False


def _question(query: QueryFields) -> str:
    """The text that a model of tables would read."""
    if query.messages is not None:
        users = (message for message in reversed(query.messages) if message.role == "user")
        last = next(users, None)
        return "" if last is None else last.text
    texts = _texts(query.prompt)
    return texts[0] if len(texts) == 1 else ""


def _documents(query: QueryFields) -> list[str | Document]:
    """The documents of a query, and its question."""
    return [*query.documents, query.query or ""] if isinstance(query, RankingFields) else []


def _shows(document: str | Document) -> bool:
    """Whether a document is, or has, a picture."""
    if isinstance(document, str):
        return False
    parts = (PARTS.get(part.type) for part in document.content)
    return _is_given(document.image) or Need.IMAGE in parts


def _parts(query: QueryFields) -> list[MessagePart]:
    contents = [message.content for message in query.messages or ()]
    return [part for content in contents if isinstance(content, list) for part in content]


def _tokens_of_part(part: MessagePart) -> int:
    need = PARTS.get(part.type)
    if need is None:
        return 0
    if need is Need.IMAGE and _read(_PICTURE, part.image_url, _ANY_PICTURE).detail == "low":
        return TOKENS_PER_LOW_DETAIL
    return TOKENS_PER_PART[need]


def _calls_tools(query: QueryFields) -> bool:
    if _is_given(query.tools) or _is_given(query.functions):
        return True
    return any(
        message.role in ("tool", "function")
        or _is_given(message.tool_calls)
        or _is_given(message.function_call)
        for message in query.messages or ()
    )


def _is_given(raw: msgspec.Raw) -> bool:
    return raw is not NOTHING and bytes(raw) not in _NOT_GIVEN


def _read(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw, otherwise: T) -> T:
    """A field that only the model must understand."""
    if raw is NOTHING:
        return otherwise
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError:
        return otherwise


def _characters_of_json(raw: msgspec.Raw) -> Characters:
    """The characters of a field as it arrived."""
    return characters_of(bytes(raw).decode(errors="replace")) if _is_given(raw) else _NO_CHARACTERS


def _texts(prompt: Prompt | None) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    return [part for part in prompt or () if isinstance(part, str)]


def _given_tokens(prompt: Prompt | None) -> list[int]:
    """Tokens of each text given as numbers."""
    if prompt is None or isinstance(prompt, str):
        return []
    single = sum(isinstance(part, int) for part in prompt)
    return [
        *([single] if single else ()),
        *(len(part) for part in prompt if isinstance(part, list)),
    ]
