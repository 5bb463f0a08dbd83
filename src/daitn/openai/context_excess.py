"""Servers' messages about prompts that exceed the context, alone or with the answer.

OpenAI's clients know it by its code, and Anthropic's by its words. Most servers have others.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from daitn.openai.errors import Error

__all__ = ["EXCEEDED", "Excess", "excess_of", "says_exceeded"]

EXCEEDED: Final = "context_length_exceeded"
"""OpenAI's code."""
_CODES = re.compile(
    r"context_length|exceed_context|context_window|(prompt|input)_too_long|max_prompt_tokens"
)
_WORDS = re.compile(
    # llama.cpp
    r"too large to process\. increase the physical batch size"
    # OpenAI, vLLM, llama.cpp, Ollama, SGLang, LM Studio, Mistral, OpenRouter
    r"|context (length|size|window|limit)"
    # SGLang
    r"|(input|prompt) (token )?length\b.{0,40}\bexceeds?\b"
    # vLLM, xAI, TabbyAPI, LMDeploy, TensorRT-LLM
    r"|maximum (model|prompt|input|sequence) length"
    r"|max[_ ](model_len|seq_len|total_tokens|prompt_tokens|input_tokens|num_tokens|session)"
    # Anthropic, Bedrock
    r"|(prompt|input|message|sequence|query|conversation|text)s? (is |are |token length )?too long"
    r"|too long for (the|this|its|requested) (model|context)"
    # Gemini, GitHub, Cohere, Mistral
    r"|token count\b.{0,40}\bexceeds?\b|too many (input |prompt )?tokens"
    r"|\btokens\b.{0,40}too large for model"
    # TGI and TEI
    r"|`?inputs`? (tokens \+ `?max_new_tokens`? )?must (be|have)"
    # Moonshot, Zhipu, Qwen
    r"|model token limit|prompt exceeds max|range of input length"
    # Groq, Cerebras
    r"|reduce (the length of )?(the|your) (messages|input|prompt)"
)
_RATES = re.compile(r"per (minute|min|hour|day)\b|\b[tr]p[md]\b")
"""Text about rate limits, which is not about the context."""
_NUMBER = re.compile(r"(?<![\w.-])\d+(?![\w-]|\.\d)")
_SEPARATOR = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")
_RANGE = re.compile(r"\[\d+, ?(\d+)\]")
_SUM = re.compile(r"(\d+) \+ (\d+) > (\d+)")
_REST = re.compile(r"\((\d+) > (\d+) - (\d+)\)")
_IN = re.compile(
    r"(\d+) (?:tokens )?(?:in|of|from) (?:the |your )?(?:messages|prompt|input|text input)"
    r"|(\d+) (?:input|prompt|`?inputs`?) tokens|(?:prompt|input) of about (\d+)"
)
_OUT = re.compile(
    r"(\d+) (?:tokens )?(?:in|for) the (?:completion|output)|(\d+) (?:output|completion) tokens"
    r"|(\d+) `?max_new_tokens|answer of up to (\d+)"
)
_MOST = re.compile(
    r"(?:context|model|prompt) (?:length|size|window|limit)(?: is| of|:)?(?: only)? \(?(\d+)"
    r"|<= ?(\d+)|longest (?:holds|reads) (\d+)"
)


class Excess(NamedTuple):
    """Tokens of a prompt and of its answer, and the model's context, as far as known."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    most: int | None = None


def says_exceeded(error: Error) -> bool:
    """Whether an error means that the context is too small for the prompt, or for it and its
    answer."""
    text = error.message.lower()
    if _RATES.search(text):
        return False
    return bool(_CODES.search(f"{error.code} {error.type}".lower()) or _WORDS.search(text))


def excess_of(message: str) -> Excess:
    """The numbers in such an error."""
    text = _SEPARATOR.sub("", message.lower())
    if found := _SUM.search(text):
        tokens_in, tokens_out, most = map(int, found.groups())
        return Excess(tokens_in, tokens_out, most)
    if found := _REST.search(text):
        tokens_out, most, tokens_in = map(int, found.groups())
        return Excess(tokens_in, tokens_out, most)
    if found := _RANGE.search(text):
        return Excess(most=int(found.group(1)))
    numbers = {int(number) for number in _NUMBER.findall(text)} - {0}
    if len(numbers) == 2:
        return Excess(max(numbers), None, min(numbers))
    if len(numbers) == 1:
        return Excess(most=numbers.pop())
    return Excess(_first(_IN, text), _first(_OUT, text), _first(_MOST, text))


def _first(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return None if found is None else int(next(filter(None, found.groups())))
