"""A Llama of 120,000 random weights, in Hugging Face's format and in llama.cpp's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["CONTEXT_TOKENS", "TOOL_CALL", "skip_without_llama_cpp", "write_folder", "write_gguf"]

CONTEXT_TOKENS = 1 << 17
LAYERS = 2
TOOL_CALL = 4
"""The token with which a call of a tool begins."""
SPECIAL = ["<s>", "</s>", "<u>", "<a>", "<tool_call>"]
CHAT_TEMPLATE = (
    "{% for tool in tools or [] %}<u>{{ tool | tojson }}</s>{% endfor %}"
    "{% for m in messages %}{{ '<a>' if m.role == 'assistant' else '<u>' }}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}"
    '<tool_call>{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def skip_without_llama_cpp() -> None:
    tried = subprocess.run(
        [sys.executable, "-c", "import xllamacpp"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        why = (tried.stderr.splitlines() or [f"it ended with {tried.returncode}"])[-1]
        pytest.skip(f"xllamacpp cannot be imported here: {why}")


def _tokenizer() -> Any:
    """Knows ASCII only, and so says ASCII only: no character is half of an answer's piece."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=120,
        special_tokens=SPECIAL,
        initial_alphabet=[*map(chr, range(0x21, 0x7F)), "Ġ", "Ċ"],
        show_progress=False,
    )
    bare.train_from_iterator(["rest and water help against the fever "] * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(words: int) -> Any:
    shape = LlamaConfig(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,  # No two tokens are about as likely: rounding decides nothing.
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape)
    with torch.no_grad():  # It does not end by itself where its likeliest token is taken.
        model.lm_head.weight[: len(SPECIAL)] = 0.0
    return model


def write_folder(folder: Path) -> None:
    """As Hugging Face's libraries keep models."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _model(len(tokenizer)).save_pretrained(folder)


def write_gguf(path: Path) -> None:
    """As llama.cpp reads models."""
    tokenizer = _tokenizer()
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    model = _model(len(words))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(model.config.hidden_size)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(model.config.num_attention_heads)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    kinds = gguf.TokenType
    writer.add_token_types(
        [kinds.CONTROL] * TOOL_CALL
        + [kinds.USER_DEFINED]
        + [kinds.NORMAL] * (len(words) - len(SPECIAL))
    )
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    # llama.cpp wants the rows of queries and keys in another order; these are random.
    for name, weights in model.state_dict().items():
        known = names.get_name(name, (".weight",))
        assert known is not None
        writer.add_tensor(known, weights.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
