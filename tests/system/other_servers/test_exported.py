"""llama.cpp continues a text as the model that was exported for it does."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from daitn.learning.causal_lm import CausalLm, models
from daitn.learning.causal_lm.importing import import_pretrained
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import learn_tokenizer
from daitn.learning.corpora.clinic import clinic
from daitn.learning.recipe import Form

from .servers import exported_llama_cpp

pytestmark = pytest.mark.processes

TOKENS = 12
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 3,
    "eos_token_id": 3,
    "initializer_range": 0.2,  # No two tokens are about as likely: rounding decides nothing.
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, Any] = {
    "stretched llama": lambda words: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=words, rope_parameters=STRETCHED, **SHAPE)
    ),
    "tied qwen": lambda words: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(vocab_size=words, tie_word_embeddings=True, **SHAPE)
    ),
    "qwen3": lambda words: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(vocab_size=words, head_dim=32, **SHAPE)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_continues_as_the_model_does(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    pairs = clinic()["cdc"][:60]
    tokenizer = learn_tokenizer(((pair.question, pair.answer) for pair in pairs), 500, 1)
    folder, parts, out = (tmp_path / name for name in ("folder", "parts", "out"))
    torch.manual_seed(0)
    KINDS[kind](tokenizer.get_vocab_size()).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    for made in (parts, out, tmp_path / "new"):
        made.mkdir()
    config = import_pretrained(folder, parts)
    settings = CausalLmConfig.of(config)
    models.save(models.load(parts, settings), settings, parts, tmp_path / "new")
    adapters = load_file(tmp_path / "new" / "adapter.safetensors")
    moved = {name: weight + 0.05 * torch.randn_like(weight) for name, weight in adapters.items()}
    save_file(moved, parts / "adapter.safetensors")
    CausalLm().export_model(parts, config, Form.GGUF, out)

    network = models.load(parts, settings).network
    read = tokenizer.encode("What helps against the fever?").ids
    said: list[int] = []
    fresh, memory = read, None
    with torch.no_grad():
        for _ in range(TOKENS):
            hidden, memory = network.following(torch.tensor(fresh), memory)
            fresh = [int(network.logits(hidden[-1]).argmax())]
            said += fresh

    server = exported_llama_cpp(out / "model.gguf")
    server.start()
    try:
        asked = {
            "prompt": "What helps against the fever?",
            "n_predict": TOKENS,
            "temperature": 0.0,
            "ignore_eos": False,
            "return_tokens": True,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/completion",
            json.dumps(asked).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = json.load(answer)["tokens"]
    finally:
        server.kill()
    assert told == (said[: said.index(3) + 1] if 3 in said else said)
