"""A language model as a file of llama.cpp (GGUF), for the families with a known layout.

What names and numbers mean is as in llama.cpp's own `convert_hf_to_gguf.py`, which knows many more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from daitn.learning.causal_lm.chat import Chat
from daitn.objects.errors import InvalidInput

__all__ = ["write_gguf"]

_FAMILIES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
_TYPES = {
    torch.float32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    torch.float16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    torch.bfloat16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {_WORDS % "{1,3}": "llama-bpe", _WORDS % "": "qwen2"}
"""How tokenizers split texts into words, with llama.cpp's names."""


def write_gguf(
    described: Any, weights: Mapping[str, Tensor], tokenizer: Tokenizer, chat: Chat, path: Path
) -> None:
    """Write `weights`, as named in transformers, and the chat settings of the model to `path`.

    Raises `InvalidInput` for a model whose layout is not known here.
    """
    family = _FAMILIES.get(described.model_type)
    if family is None or getattr(described, "sliding_window", None):
        raise _unknown(f"a {described.model_type}")
    split = _split(tokenizer)
    frequencies = _frequencies(described)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[family])
    number, file_type = _TYPES[next(iter(weights.values())).dtype]
    writer.add_file_type(file_type)
    _add_shape(writer, described)
    _add_tokenizer(writer, described, tokenizer, split)
    _add_chat(writer, described, tokenizer, chat)
    if frequencies is not None:
        writer.add_tensor("rope_freqs.weight", frequencies)
    names = gguf.get_tensor_name_map(family, described.num_hidden_layers)
    for name, weight in weights.items():
        known = names.get_name(name, (".weight", ".bias"))
        if known is None:
            raise _unknown(f"a {described.model_type} with {name}")
        values = weight.float()
        if family is gguf.MODEL_ARCH.LLAMA and ("q_proj" in name or "k_proj" in name):
            values = _interleaved(values, _heads(described, name))
        array = np.ascontiguousarray(values.numpy())
        if array.ndim == 1 or number is gguf.GGMLQuantizationType.F32:
            writer.add_tensor(known, array)
        else:
            writer.add_tensor(known, gguf.quants.quantize(array, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, described: Any) -> None:
    width = _head_width(described)
    writer.add_context_length(described.max_position_embeddings)
    writer.add_block_count(described.num_hidden_layers)
    writer.add_embedding_length(described.hidden_size)
    writer.add_feed_forward_length(described.intermediate_size)
    writer.add_head_count(described.num_attention_heads)
    writer.add_head_count_kv(described.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(described.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(described.rms_norm_eps)
    writer.add_vocab_size(described.vocab_size)


def _add_tokenizer(
    writer: gguf.GGUFWriter, described: Any, tokenizer: Tokenizer, split: str
) -> None:
    kinds = gguf.TokenType
    added = tokenizer.get_added_tokens_decoder()
    words, types = [], []
    for token in range(described.vocab_size):
        word = tokenizer.id_to_token(token)
        if word is None:
            types.append(kinds.UNUSED)
        elif token in added:
            types.append(kinds.CONTROL if added[token].special else kinds.USER_DEFINED)
        else:
            types.append(kinds.NORMAL)
        words.append(f"[unused {token}]" if word is None else word)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(words)
    writer.add_token_types(types)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_add_bos_token(False)  # It was trained without.


def _add_chat(writer: gguf.GGUFWriter, described: Any, tokenizer: Tokenizer, chat: Chat) -> None:
    first = _token(tokenizer, chat, "bos_token", described.bos_token_id)
    if first is not None:
        writer.add_bos_token_id(first)
    last = _token(tokenizer, chat, "eos_token", described.eos_token_id)
    if last is not None:
        writer.add_eos_token_id(last)
    for other in [end for end in chat.ends if end != last][:1]:  # The format has room for one.
        writer.add_eot_token_id(other)
    writer.add_chat_template(
        [{"name": name, "template": text} for name, text in chat.templates.items()]
    )


def _token(tokenizer: Tokenizer, chat: Chat, name: str, described: object) -> int | None:
    """From the tokenizer's files, which take precedence over the description."""
    number = tokenizer.token_to_id(chat.tokens.get(name, ""))
    if number is not None:
        return int(number)
    one = described[0] if isinstance(described, list) and described else described
    return one if isinstance(one, int) else None


def _split(tokenizer: Tokenizer) -> str:
    """llama.cpp's name for the tokenizer's way to split a text into words."""
    described = json.loads(tokenizer.to_str())
    steps = described["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if described["model"]["type"] == "BPE" and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Split", "ByteLevel"]:
            pattern = steps[0]["pattern"].get("Regex", "")
            if pattern in _SPLITS:
                return _SPLITS[pattern]
    raise _unknown("this kind of tokenizer")


def _frequencies(described: Any) -> NDArray[np.float32] | None:
    """Divisors of rotary frequencies, if not 1; as stretched by Llama 3.1."""
    rope = described.rope_parameters
    if rope["rope_type"] == "default":
        return None
    if rope["rope_type"] != "llama3":
        raise _unknown(f"rotary positions of the type {rope['rope_type']}")
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factor, context = rope["factor"], rope["original_max_position_embeddings"]
    width = _head_width(described)
    factors = []
    for n in range(0, width, 2):
        turns = context / (2 * math.pi * rope["rope_theta"] ** (n / width))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1.0 / ((1.0 - share) / factor + share))
    return np.array(factors, np.float32)


def _interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in llama.cpp's order: pairs that are rotated together side by side,
    rather than half a head apart."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


def _heads(described: Any, name: str) -> int:
    heads: int = (
        described.num_attention_heads if "q_proj" in name else described.num_key_value_heads
    )
    return heads


def _head_width(described: Any) -> int:
    width: int | None = getattr(described, "head_dim", None)
    return width or described.hidden_size // described.num_attention_heads


def _unknown(what: str) -> InvalidInput:
    return InvalidInput(
        f"{what} cannot be written as GGUF",
        field="--format",
        fix="export --format merged, and convert the folder with llama.cpp's convert_hf_to_gguf.py",
    )
