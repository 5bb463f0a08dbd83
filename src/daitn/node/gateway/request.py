"""A request in OpenAI's API, read once: what its route depends on, and what is passed on of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import msgspec

from daitn.node.gateway.constraints import read_constraints
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Strategy
from daitn.openai.errors import bad_request
from daitn.openai.requests import Query, raw_fields, read_query, rewritten

__all__ = ["ParsedRequest", "read_request"]

DEFAULT_TOKENS_OUT = 64
"""Expected of an answer whose length nobody bounded; the model's own bound holds for it. Small, so
that models with a short context are not left out by a guess."""
_CHARACTERS_PER_TOKEN = 4
"""Of English text with usual vocabularies: OpenAI's rule of thumb."""
_PREFIX_BYTES = 1024
"""A prompt's first bytes, by which it is known again; shorter prompts are read anew as fast as a
cache is looked up."""
_TEXT_FIELD = {Api.CHAT: "messages", Api.COMPLETIONS: "prompt", Api.EMBEDDINGS: "input"}


class ParsedRequest:
    """One request; not to be changed."""

    __slots__ = ("_fields", "_raw", "api", "constraints", "name", "site", "topic")

    def __init__(
        self, api: Api, fields: Query, raw: dict[str, msgspec.Raw], constraints: QueryConstraints
    ) -> None:
        self.api = api
        self._fields = fields
        self._raw = raw
        name, _, topic = fields.model.partition(":") if fields.model.startswith(AUTO) else ("",) * 3
        if name == AUTO:
            self.name, self.site = AUTO, None
            self.topic = constraints.topic or topic
        else:
            self.name, _, site = fields.model.partition("@")
            self.site = SiteId(site) if site else None
            self.topic = constraints.topic
        if api is Api.EMBEDDINGS and constraints.strategy is not Strategy.SINGLE:
            # Embeddings of different models can neither be compared nor be sure of themselves.
            constraints = msgspec.structs.replace(constraints, strategy=Strategy.SINGLE)
        self.constraints = constraints

    @property
    def model(self) -> str:
        """As it stands in the request."""
        return self._fields.model

    @property
    def stream(self) -> bool:
        return bool(self._fields.stream) and self.api is not Api.EMBEDDINGS

    @property
    def logprobs(self) -> bool:
        """Whether the asker wants to see them; 0 of the older API means the chosen token's."""
        return self._fields.logprobs is not None and self._fields.logprobs is not False

    @property
    def text(self) -> str:
        """What is asked: the last message of a user, the prompt or the input."""
        messages = self._fields.messages
        if messages is not None:
            users = (message.text for message in reversed(messages) if message.role == "user")
            return next(users, messages[-1].text)
        said = self._fields.prompt if self.api is Api.COMPLETIONS else self._fields.input
        if isinstance(said, str):
            return said
        return "\n".join(part for part in said or () if isinstance(part, str))

    def intent(self, origin: SiteId, owner: str, topic: str) -> QueryIntent:
        """What the query's route depends on."""
        fields = self._fields
        said = fields.max_completion_tokens or fields.max_tokens or DEFAULT_TOKENS_OUT
        return QueryIntent(
            origin=origin,
            owner=owner,
            api=self.api,
            model=self.name,
            site=self.site,
            topic=topic,
            tokens_in=self._tokens_in(),
            tokens_out=0 if self.api is Api.EMBEDDINGS else said,
            repeatable=fields.temperature == 0.0,
            prefix=self._prefix(),
            constraints=self.constraints,
        )

    def body(self, model: str, changes: Mapping[str, object]) -> bytes:
        """The request for a deployment: `model` and `changes` replaced, the rest byte for byte."""
        return rewritten(self._raw, {**changes, "model": model})

    def _tokens_in(self) -> int:
        messages = self._fields.messages
        if messages is not None:
            return sum(len(message.text) // _CHARACTERS_PER_TOKEN + 1 for message in messages)
        said = self._fields.prompt if self.api is Api.COMPLETIONS else self._fields.input
        parts = [said] if isinstance(said, str) else said or ()
        return sum(_tokens(part) for part in parts)

    def _prefix(self) -> int:
        raw = bytes(self._raw[_TEXT_FIELD[self.api]])
        return zlib.crc32(raw[:_PREFIX_BYTES]) if len(raw) >= _PREFIX_BYTES else 0


def _tokens(part: str | int | list[int]) -> int:
    if isinstance(part, int):
        return 1
    return len(part) if isinstance(part, list) else len(part) // _CHARACTERS_PER_TOKEN + 1


def read_request(api: Api, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> ParsedRequest:
    """Read a request. Raises `ApiError` (400) that names the field that is wrong."""
    raw, fields = raw_fields(body), read_query(body)
    wanted = _TEXT_FIELD[api]
    if getattr(fields, wanted) in (None, ""):
        raise bad_request("it is missing", wanted)
    return ParsedRequest(api, fields, raw, read_constraints(raw.pop("daitn", None), headers))
