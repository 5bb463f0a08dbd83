"""A request of OpenAI's API, parsed once: the fields that determine its route, and the body to pass
on."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import msgspec

from daitn.node.gateway.constraints import read_constraints
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Strategy
from daitn.openai.errors import DECODE_ERRORS, bad_request
from daitn.openai.query_needs import PromptLength, length_of, needs_of
from daitn.openai.requests import (
    QueryFields,
    RankingFields,
    raw_fields,
    read_query,
    read_ranking,
    rewritten,
    text_of_document,
)
from daitn.openai.responses import with_counts

__all__ = ["ParsedRequest", "read_request"]

DEFAULT_TOKENS_OUT = 64
"""Room for an answer without a stated limit; the model's own limit applies to it. Small, so that it
does not exclude models with a short context."""
_PREFIX_BYTES = 1024
"""The prefix that identifies a prompt; a model reads shorter prompts as fast as it looks up a
cache."""
_TEXT_FIELDS = {
    Api.CHAT: ("messages",),
    Api.COMPLETIONS: ("prompt",),
    Api.EMBEDDINGS: ("input",),
    Api.RERANK: ("query", "documents"),
}
"""Required fields of a request; the first one is the question."""


_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)


class ParsedRequest:
    """One request; immutable."""

    __slots__ = (
        "_fields",
        "_raw",
        "api",
        "constraints",
        "name",
        "previous_deployment",
        "site",
        "topic",
    )

    def __init__(
        self,
        api: Api,
        fields: QueryFields,
        raw: dict[str, msgspec.Raw],
        constraints: QueryConstraints,
        previous_deployment: str,
    ) -> None:
        self.api = api
        self.previous_deployment = previous_deployment
        """The deployment that answered the response being continued; empty if unknown."""
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
        if not api.writes and constraints.strategy is not Strategy.SINGLE:
            # Vectors and scores of different models cannot be compared, and have no confidence.
            constraints = msgspec.structs.replace(constraints, strategy=Strategy.SINGLE)
        self.constraints = constraints

    @property
    def model(self) -> str:
        """The model named in the request."""
        return self._fields.model

    @property
    def stream(self) -> bool:
        return bool(self._fields.stream) and self.api.writes

    @property
    def choices(self) -> int:
        """Minimum number of choices in the answer; for a ranking, the number of documents it can
        name."""
        return self._fields.choices

    @property
    def include_usage(self) -> bool:
        """Whether the client wants a stream to end with its token counts."""
        return self._fields.include_usage

    @property
    def logprobs(self) -> bool:
        """Whether the client wants log-probabilities; 0 in the completions API means those of the
        chosen tokens."""
        return self._fields.logprobs is not None and self._fields.logprobs is not False

    @property
    def length(self) -> PromptLength:
        """The prompt's length."""
        return length_of(self._fields)

    @property
    def text(self) -> str:
        """The question: the user's last message, the prompt, the input or the query."""
        messages = self._fields.messages
        if messages is not None:
            users = (message.text for message in reversed(messages) if message.role == "user")
            return next(users, messages[-1].text)
        if isinstance(self._fields, RankingFields):
            return text_of_document(self._fields.query or "")
        content = self._fields.prompt if self.api is Api.COMPLETIONS else self._fields.input
        if isinstance(content, str):
            return content
        return "\n".join(part for part in content or () if isinstance(part, str))

    def intent(self, origin: SiteId, owner: str, topic: str, name: str) -> QueryIntent:
        """What the query's route depends on. `name`: the model's, as this owner means it."""
        fields = self._fields
        length = self.length
        limit = fields.most_tokens
        return QueryIntent(
            origin=origin,
            owner=owner,
            api=self.api,
            model=name,
            site=self.site,
            topic=topic,
            tokens_in=length.tokens(),
            tokens_out=(limit or DEFAULT_TOKENS_OUT) if self.api.writes else 0,
            open_ended=not limit,
            characters=length.characters,
            tokens_apart=length.apart,
            longest_share=length.longest_share,
            needs=needs_of(self.api, fields, open_to_all=name == AUTO),
            repeatable=fields.temperature == 0.0,
            prefix=self._prefix(),
            constraints=self.constraints,
        )

    def body(self, model: str, changes: Mapping[str, object]) -> bytes:
        """The request body for a deployment: `model` and `changes` replaced, the rest unchanged
        byte for byte. Streams are always asked for their token counts, by which they are charged.
        """
        counting = with_counts(self._raw) if self.stream else {}
        return rewritten(self._raw, {**counting, **changes, "model": model})

    def _prefix(self) -> int:
        raw = bytes(self._raw[_TEXT_FIELDS[self.api][0]])
        return zlib.crc32(raw[:_PREFIX_BYTES]) if len(raw) >= _PREFIX_BYTES else 0


def read_request(
    api: Api, body: bytes, headers: Iterable[tuple[bytes, bytes]], previous_deployment: str = ""
) -> ParsedRequest:
    """Parse a request; for `previous_deployment` see `ParsedRequest`.

    Raises `ApiError` (400) with the field at fault.
    """
    raw = raw_fields(body)
    fields = read_ranking(body) if api is Api.RERANK else read_query(body)
    for field in _TEXT_FIELDS[api]:
        given = getattr(fields, field)
        if given in (None, "", []) or (field == "input" and not any(given)):
            raise bad_request("is missing", field)
    for field in ("tools", "functions"):
        try:
            _OBJECTS.decode(getattr(fields, field))
        except DECODE_ERRORS:  # Of servers, some fail at it as if it were their fault.
            raise bad_request("is not a list of objects", field) from None
    constraints = read_constraints(raw.pop("daitn", None), headers)
    return ParsedRequest(api, fields, raw, constraints, previous_deployment)
