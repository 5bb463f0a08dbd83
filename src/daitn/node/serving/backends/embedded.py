"""A model placed here by the control centre; its recipe answers in the answering worker."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from daitn.learning.answering.host import AnsweringHost, Generation
from daitn.learning.answering.protocol import Facts, Message, Piece, Question, ToolCall
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.protocol import begin_stream, timing
from daitn.node.serving.backends.stop_sequences import stop_before
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import Api, DeploymentDescriptor
from daitn.objects.errors import ContextExceeded, DaitnError, InvalidInput, QuestionFailed
from daitn.objects.text import escaped, without_folders
from daitn.objects.tokens import expected_tokens
from daitn.openai.encoding import (
    completion,
    embeddings,
    final_event,
    piece_event,
    usage_event,
)
from daitn.openai.errors import ApiError, bad_request, unsupported
from daitn.openai.http import DONE, JSON
from daitn.openai.requests import GenerationRequest, Tool, Turn, read_generation
from daitn.openai.supported_fields import check_honoured
from daitn.tools.http import Reply, Request, Response, Stream

__all__ = ["EmbeddedBackend", "engine_of", "warm_up"]

_ANSWERED = (Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS)
_MAX_TEXTS = 2048
"""Texts per request for embeddings, as at OpenAI."""
_MOST_ENGINE_CHARS = 200


class EmbeddedBackend:
    """One loaded version of a model; see `Backend`."""

    def __init__(
        self,
        descriptor: DeploymentDescriptor,
        loaded_name: str,
        host: AnsweringHost,
        admission: AdmissionQueue,
        facts: Facts,
    ) -> None:
        """`loaded_name`: the name of the weights in `host`; `facts`: those reported by the
        weights."""
        self.facts = facts
        self.descriptor = descriptor
        self.loaded_name = loaded_name
        self.admission = admission
        self._host = host
        self._in_flight = 0
        self.finished = asyncio.Event()
        """Set while no query of this version is running."""
        self.finished.set()

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """See `Backend.answer`."""
        self._in_flight += 1
        self.finished.clear()
        try:
            if query.api not in _ANSWERED:
                raise unsupported(f"it does not answer {query.api}", "model")
            fields = read_generation(query.body)
            check_honoured(query.body, self.facts.honours)
            if query.api is Api.EMBEDDINGS:
                return await self._embed(query, fields, waited_s)
            return await self._generate(request, query, fields, waited_s)
        except ContextExceeded as error:
            field = "prompt" if query.api is Api.COMPLETIONS else error.field
            raise ApiError(
                400, "context_length_exceeded", f"{error.problem}; {error.fix}", param=field
            ) from None
        except InvalidInput as error:
            raise unsupported(error.problem, error.field, fix=error.fix) from None
        except QuestionFailed as error:
            # One client's question must not take the model away from others.
            raise ApiError(502, "upstream_refused", error.problem) from None
        except DaitnError as error:
            self.admission.record_failure()
            raise ApiError(502, "model_failed", without_folders(error.problem)) from None
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self.finished.set()

    async def _embed(
        self, query: ServingRequest, fields: GenerationRequest, waited_s: float
    ) -> Response:
        texts = [fields.input] if isinstance(fields.input, str) else fields.input
        if not texts or len(texts) > _MAX_TEXTS or not all(text.strip() for text in texts):
            raise bad_request(f"give 1 to {_MAX_TEXTS} texts, none of them empty", "input")
        began_s = time.perf_counter()
        vectors = await self._host.embed(self.loaded_name, texts)
        seconds = time.perf_counter() - began_s
        self.admission.record_answer(seconds, seconds, 1)
        tokens_in = sum(map(expected_tokens, texts))
        headers = {"content-type": JSON, **timing(waited_s, seconds)}
        packed = fields.encoding_format == "base64"
        body = embeddings(query, vectors, tokens_in, packed=packed)
        return Response(body, headers=headers)

    async def _generate(
        self, request: Request, query: ServingRequest, fields: GenerationRequest, waited_s: float
    ) -> Reply:
        question = _question(query, fields)
        began_s = time.perf_counter()
        generation = await self._host.ask(self.loaded_name, question)
        pieces = stop_before(generation.pieces, fields.stops) if fields.stops else generation.pieces
        first = await anext(pieces, None)
        first_s = time.perf_counter() - began_s
        logprobs = fields.logprobs is not None and fields.logprobs is not False
        answer = _Answer(query, generation, pieces, [] if first is None else [first])
        try:
            if not query.stream:
                async for piece in pieces:
                    answer.pieces.append(piece)
                body = completion(
                    query, answer.pieces, generation.tokens_in, answer.reason, logprobs
                )
                headers = {"content-type": JSON, **timing(waited_s, first_s)}
                reply: Reply = Response(body, headers=headers)
            else:
                reply = begin_stream(request, waited_s, first_s)
                await _stream(request, reply, answer, logprobs)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        self.admission.record_answer(first_s, time.perf_counter() - began_s, answer.tokens)
        return reply


async def warm_up(host: AnsweringHost, name: str) -> None:
    """Ask a first question, so that no query owner pays for lazy set-up."""
    question = Question(
        messages=(Message("user", "Are you there?"),), max_tokens=1, temperature=0.0, seed=0
    )
    with contextlib.suppress(InvalidInput):  # The recipe may need another form of question.
        answer = await host.ask(name, question)
        async for _ in answer.pieces:
            pass


def engine_of(facts: Facts) -> str:
    """A descriptor's text on the model's engine."""
    return " ".join(escaped(facts.runs_on).split())[:_MOST_ENGINE_CHARS]


class _Answer:
    """An answer as it is generated."""

    def __init__(
        self,
        query: ServingRequest,
        generation: Generation,
        rest: AsyncIterator[Piece],
        pieces: list[Piece],
    ) -> None:
        self.query = query
        self.generation = generation
        self.rest = rest
        self.pieces = pieces

    @property
    def tokens(self) -> int:
        return sum(piece.tokens for piece in self.pieces)

    @property
    def reason(self) -> str:
        """OpenAI's `finish_reason`."""
        if any(piece.calls for piece in self.pieces):
            return "tool_calls"
        return "length" if self.tokens >= self.generation.most_tokens else "stop"


async def _stream(request: Request, stream: Stream, answer: _Answer, logprobs: bool) -> None:
    """Send the pieces as they arrive; a failure breaks the stream off."""
    try:
        for piece in answer.pieces:
            await stream.write(piece_event(answer.query, piece, True, logprobs))
        async for piece in answer.rest:
            calls = sum(len(piece.calls) for piece in answer.pieces)
            answer.pieces.append(piece)
            event = piece_event(answer.query, piece, False, logprobs, calls_before=calls)
            await stream.write(event)
    except DaitnError:
        request.abort()
        raise
    end = final_event(answer.query, answer.reason)
    end += usage_event(answer.query, answer.generation.tokens_in, answer.tokens)
    await stream.write(end + DONE)


def _question(query: ServingRequest, fields: GenerationRequest) -> Question:
    if query.api is Api.CHAT:
        messages = tuple(_message(turn, place) for place, turn in enumerate(fields.messages))
    else:
        prompts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt
        if len(prompts) != 1:
            raise unsupported(
                "this model takes one prompt per query", "prompt", fix="send several queries"
            )
        messages = (Message("user", prompts[0]),)
    if not any(message.content.strip() for message in messages):
        field = "messages" if query.api is Api.CHAT else "prompt"
        raise bad_request("has no text", field)
    continues_answer = fields.continue_final_message is True
    if continues_answer and (messages[-1].role != "assistant" or messages[-1].calls):
        raise bad_request(
            "the last message is not the beginning of an answer",
            "continue_final_message",
            fix="end with an assistant's message without tool calls, or leave it out",
        )
    choice = fields.tool_choice
    if choice not in (None, "auto", "none"):
        raise bad_request("this model decides by itself", "tool_choice", fix="leave it out")
    return Question(
        messages=messages,
        max_tokens=fields.max_completion_tokens or fields.max_tokens,
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_p=1.0 if fields.top_p is None else fields.top_p,
        top_k=max(0, fields.top_k or 0),
        min_p=fields.min_p or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        repetition_penalty=fields.repetition_penalty or 1.0,
        logit_bias=_biases(fields),
        min_tokens=fields.min_tokens or 0,
        top_logprobs=_top_logprobs(query, fields),
        seed=_seed(query, fields),
        continues=query.api is Api.COMPLETIONS,
        continues_answer=continues_answer,
        tools=() if choice == "none" else tuple(map(_tool_fields, fields.tools or ())),
    )


def _tool_fields(tool: Tool) -> dict[str, Any]:
    """A tool in the form for chat templates."""
    fields: dict[str, Any] = msgspec.to_builtins(tool)
    return fields


def _message(turn: Turn, place: int) -> Message:
    for number, part in enumerate(turn.content if isinstance(turn.content, list) else ()):
        if part.type != "text":
            field = f"messages[{place}].content[{number}]"
            raise bad_request(f"this model reads text, not {part.type[:100]}", field)
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in turn.tool_calls or ()
    )
    return Message(turn.role, turn.text, calls, turn.tool_call_id or "")


def _seed(query: ServingRequest, fields: GenerationRequest) -> int:
    """The request's seed; else one derived from the query, which replicas share."""
    if fields.seed is not None:
        return fields.seed
    name = f"{query.id} {query.created_s}".encode()
    return int.from_bytes(hashlib.blake2s(name, digest_size=7).digest(), "big")


def _biases(fields: GenerationRequest) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in (fields.logit_bias or {}).items()}
    except ValueError:
        raise bad_request("a token is a number", "logit_bias") from None


def _top_logprobs(query: ServingRequest, fields: GenerationRequest) -> int | None:
    """How many of the likeliest tokens are named; `None` means not even the chosen ones."""
    if query.api is Api.COMPLETIONS:
        wanted = fields.logprobs
        return None if wanted is None or isinstance(wanted, bool) else min(max(wanted, 0), 20)
    if not fields.logprobs:
        if fields.top_logprobs:
            raise bad_request("goes with `logprobs: true`", "top_logprobs")
        return None
    return fields.top_logprobs or 0
