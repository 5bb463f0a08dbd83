"""A tiny Llama to import: it knows the words of a corpus, but not which of them belong together."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from daitn.learning.causal_lm.importing import import_pretrained
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import Codec, learn_tokenizer
from daitn.learning.corpora.records import QaPair
from daitn.learning.recipe import LEAST_RECORDS

__all__ = ["write_base"]

STEPS = 500
BATCH = 32
RATE = 3e-3
_OWN = ("layers", "width", "heads", "vocabulary")
"""Fields of a configuration that the base decides."""


def write_base(
    pairs: Sequence[QaPair], config: Mapping[str, Any], out: Path
) -> tuple[dict[str, Any], str]:
    """Write the parts of an imported model into `out`, if they are not there; returns its
    configuration and how it came to be.

    Adapters on random weights learn next to nothing, so the base is first trained on questions and
    answers as texts by themselves, in no order.
    """
    import transformers

    settings = CausalLmConfig.of(config)
    tokenizer = learn_tokenizer(
        ((pair.question, pair.answer) for pair in pairs), settings.vocabulary, LEAST_RECORDS
    )
    shape = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=settings.width,
        intermediate_size=3 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads // 2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.token_to_id("<end>"),
        eos_token_id=tokenizer.token_to_id("<end>"),
        pad_token_id=tokenizer.token_to_id("<pad>"),
    )
    kept = {name: value for name, value in config.items() if name not in _OWN}
    folder, printed = out.with_name("pretrained"), out.with_name("config.json")
    note = (
        f"LoRA on a Llama from a random start, trained for {STEPS} steps of {BATCH} texts on "
        "questions and answers by themselves, in no order"
    )
    torch.manual_seed(0)
    network: Any = transformers.LlamaForCausalLM(shape)
    if not out.exists():
        codec = Codec(tokenizer, settings)
        texts = [
            text for p in pairs for text in (codec.question(p.question), codec.answer(p.answer))
        ]
        _learn(network, texts)
        network.save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        unfinished = out.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        printed.write_text(json.dumps(import_pretrained(folder, unfinished)))
        unfinished.rename(out)
    return {**kept, **json.loads(printed.read_text())}, note


def _learn(network: Any, texts: Sequence[Sequence[int]]) -> None:
    """Plain likelihood of each text by itself."""
    rng = random.Random(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    network.train()
    for _ in range(STEPS):
        chosen = [torch.tensor(text) for text in rng.sample(texts, BATCH)]
        tokens = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=-100)
        logits = network(input_ids=tokens.clamp_min(0)).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    network.eval()
