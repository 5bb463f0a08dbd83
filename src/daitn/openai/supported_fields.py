"""Which fields of a request a model honours; others are refused by name."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from daitn.openai.errors import unsupported
from daitn.openai.requests import raw_fields

__all__ = ["check_honoured"]

_READ = frozenset(
    [
        *("encoding_format", "input", "logprobs", "max_completion_tokens", "max_tokens"),
        *("messages", "model", "prompt", "seed", "stop", "stream", "stream_options"),
        *("temperature", "top_p"),
    ]
)
"""Every model honours these, in its way."""
_ABOUT_ASKERS = frozenset(
    [
        *("daitn", "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
        *("service_tier", "store", "user"),
    ]
)
"""These do not concern the answer."""
_CHANGE_NOTHING: dict[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
}
"""Values of other fields with which an answer is what it is without the field."""


def check_honoured(body: bytes, honours: Collection[str]) -> None:
    """Raise `ApiError` (400) for the first field that is neither in `honours` nor without effect.

    `body`: a request that was read. Null counts as absent.
    """
    for name, raw in raw_fields(body).items():
        if name in _READ or name in _ABOUT_ASKERS or name in honours:
            continue
        value = msgspec.json.decode(raw)
        if value is None or any(
            value == usual and isinstance(value, bool) == isinstance(usual, bool)
            for usual in _CHANGE_NOTHING.get(name, ())
        ):
            continue
        raise unsupported("this model does not honour it", name[:100], fix="leave it out")
