"""A tiny Llama with random weights, in the format of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["VOCABULARY", "WIDTH", "write_llama"]

VOCABULARY, WIDTH = 400, 32


def write_llama(folder: Path) -> Path:
    """Write it and its tokenizer to a new folder."""
    import transformers

    from daitn.learning.causal_lm import tokens

    llama = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model: Any = transformers.LlamaForCausalLM(llama)
    model.save_pretrained(folder)
    records = [(f"what is number {n}?", f"it is the number {n}") for n in range(200)]
    tokenizer = tokens.learn_tokenizer(records, VOCABULARY, 1)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
