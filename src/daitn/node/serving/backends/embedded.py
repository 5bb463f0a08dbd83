"""A model that the network placed here: its recipe answers in the answering worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from daitn.learning.answering.host import AnsweringHost, Generation
from daitn.learning.answering.protocol import Message, Piece, Question
from daitn.node.http import Reply, Request, Response, Stream
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.protocol import begin_stream, timing
from daitn.node.serving.backends.stop_sequences import until
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import Api, DeploymentDescriptor
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.messages import DeployModel
from daitn.openai.errors import ApiError, bad_request
from daitn.openai.http import DONE, JSON
from daitn.openai.replies import embeddings, ending, event, used, whole
from daitn.openai.requests import GenerationRequest, StreamOptions, read_generation

__all__ = ["EmbeddedBackend"]

DEFAULT_TOKENS_OUT = 256
_MOST_TEXTS = 2048
"""Texts of one request for embeddings; OpenAI allows as many."""


class EmbeddedBackend:
    """One loaded version of a model under its name; see `Backend`."""

    def __init__(
        self,
        wanted: DeployModel,
        descriptor: DeploymentDescriptor,
        loaded: str,
        host: AnsweringHost,
        admission: AdmissionQueue,
    ) -> None:
        """`wanted`: why it is here. `loaded`: the name under which `host` has the weights."""
        self._wish = wanted
        self.descriptor = descriptor
        self.loaded = loaded
        self.admission = admission
        self._host = host
        self._under_way = 0
        self.finished = asyncio.Event()
        """Set while no answer of this version is under way."""
        self.finished.set()

    def serves(self, wanted: DeployModel) -> bool:
        """Whether it answers as the model of `wanted` would."""
        mine = self._wish
        return (mine.model.manifest, mine.recipe, mine.config) == (
            wanted.model.manifest,
            wanted.recipe,
            wanted.config,
        )

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """See `Backend.answer`."""
        self._under_way += 1
        self.finished.clear()
        try:
            fields = _read(query)
            if query.api is Api.EMBEDDINGS:
                return await self._embed(query, fields, waited_s)
            return await self._say(request, query, fields, waited_s)
        except InvalidInput as error:
            raise bad_request(error.problem, error.field, fix=error.fix) from None
        except DaitnError as error:
            self.admission.failed()
            raise ApiError(502, "model_failed", error.problem) from None
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self.finished.set()

    async def _embed(
        self, query: ServingRequest, fields: GenerationRequest, waited_s: float
    ) -> Response:
        texts = [fields.input] if isinstance(fields.input, str) else fields.input
        if not texts or len(texts) > _MOST_TEXTS or not all(text.strip() for text in texts):
            raise bad_request(f"give 1 to {_MOST_TEXTS} texts, none of them empty", "input")
        began_s = time.perf_counter()
        vectors = await self._host.embed(self.loaded, texts)
        seconds = time.perf_counter() - began_s
        self.admission.answered(seconds, seconds, 1)
        tokens_in = sum(len(text.split()) for text in texts)
        headers = {"content-type": JSON, **timing(waited_s, seconds)}
        return Response(embeddings(query, vectors, tokens_in), headers=headers)

    async def _say(
        self, request: Request, query: ServingRequest, fields: GenerationRequest, waited_s: float
    ) -> Reply:
        question = _question(query, fields)
        began_s = time.perf_counter()
        answer = await self._host.ask(self.loaded, question)
        pieces = until(answer.pieces, fields.stops) if fields.stops else answer.pieces
        first = await anext(pieces, None)
        first_s = time.perf_counter() - began_s
        logprobs = fields.logprobs is not None and fields.logprobs is not False
        said = _Said(query, answer, pieces, [] if first is None else [first])
        try:
            if not query.stream:
                async for piece in pieces:
                    said.pieces.append(piece)
                body = whole(query, said.pieces, answer.tokens_in, said.reason, logprobs)
                headers = {"content-type": JSON, **timing(waited_s, first_s)}
                reply: Reply = Response(body, headers=headers)
            else:
                reply = begin_stream(request, waited_s, first_s)
                options = fields.stream_options or StreamOptions()
                await _stream(request, reply, said, logprobs, options)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        self.admission.answered(first_s, time.perf_counter() - began_s, said.tokens)
        return reply


class _Said:
    """An answer so far."""

    def __init__(
        self,
        query: ServingRequest,
        answer: Generation,
        coming: AsyncIterator[Piece],
        pieces: list[Piece],
    ) -> None:
        self.query = query
        self.answer = answer
        self.coming = coming
        self.pieces = pieces

    @property
    def tokens(self) -> int:
        return sum(piece.tokens for piece in self.pieces)

    @property
    def reason(self) -> str:
        """Why it ended, in OpenAI's words."""
        return "length" if self.tokens >= self.answer.most_tokens else "stop"


async def _stream(
    request: Request,
    stream: Stream,
    said: _Said,
    logprobs: bool,
    options: StreamOptions,
) -> None:
    """Send what is there and what comes; a failure breaks the stream off."""
    try:
        for piece in said.pieces:
            await stream.write(event(said.query, piece, True, logprobs))
        async for piece in said.coming:
            said.pieces.append(piece)
            await stream.write(event(said.query, piece, False, logprobs))
    except DaitnError:
        request.abort()
        raise
    end = ending(said.query, said.reason)
    if options.include_usage:
        end += used(said.query, said.answer.tokens_in, said.tokens)
    await stream.write(end + DONE)


def _read(query: ServingRequest) -> GenerationRequest:
    fields = read_generation(query.body)
    if fields.n not in (None, 1):
        raise bad_request("this model gives one answer at a time", "n", fix="ask again")
    if fields.tools:
        raise bad_request("this model calls no tools", "tools", fix="leave them out")
    if fields.response_format is not None and fields.response_format.type != "text":
        raise bad_request("this model answers in plain text", "response_format", fix="leave it out")
    return fields


def _question(query: ServingRequest, fields: GenerationRequest) -> Question:
    if query.api is Api.CHAT:
        messages = tuple(Message(turn.role, turn.text) for turn in fields.messages)
    else:
        prompts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt
        if len(prompts) != 1:
            raise bad_request("this model answers one prompt at a time", "prompt", fix="ask again")
        messages = (Message("user", prompts[0]),)
    if not any(message.role == "user" and message.content.strip() for message in messages):
        field = "messages" if query.api is Api.CHAT else "prompt"
        raise bad_request("nothing is asked", field)
    return Question(
        messages=messages,
        max_tokens=fields.max_completion_tokens or fields.max_tokens or DEFAULT_TOKENS_OUT,
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_p=1.0 if fields.top_p is None else fields.top_p,
        seed=fields.seed or 0,
    )
