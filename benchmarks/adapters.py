"""Training adapters, beside plain code of `transformers` and `peft` for the same work.

    python -m benchmarks.adapters --json

Makes a random Llama, imports it, and trains adapters on it on the clinic corpus, in turns with a
loop as the documentation of `peft` has it: a batch of texts, their loss, AdamW. Both have the same
rank, batch, precision and number of tokens per row; the plain loop's rows are all of one length, so
that it pads nothing. Given is how many tokens each learns from in a second, at its best round: on
a busy machine that is the round which was disturbed least.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from daitn.learning.causal_lm import models, training
from daitn.learning.causal_lm.pretrained import import_pretrained
from daitn.learning.causal_lm.rows import Rows
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import learn_tokenizer
from daitn.learning.corpora.clinic import clinic
from daitn.learning.engine import engine_device
from daitn.learning.recipe import LEAST_RECORDS

GOAL = 0.9
EXAMPLES = 64
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    pairs = clinic()["ghr"]
    source, parts = folder / "source", folder / "parts"
    parts.mkdir()
    write_llama(source, options)
    config = import_pretrained(source, parts)
    settings = CausalLmConfig.of(
        config | {"batch": options.batch, "generation_share": 0.0, "learning_rate": RATE}
    )
    tokens, rows = counted(parts, settings, pairs)
    rounds: list[tuple[float, float]] = []
    for _ in range(options.rounds):
        model = models.load(parts, settings)
        began_s = time.perf_counter()
        training.train(model, settings, pairs, EXAMPLES, 0, lambda _: None, LEAST_RECORDS)
        ours_s = time.perf_counter() - began_s
        rounds.append((ours_s, plain_s(source, settings, rows)))
    best = [min(times) for times in zip(*rounds, strict=True)]
    peak = torch.cuda.max_memory_allocated() if engine_device().type == "cuda" else 0
    return {
        "device": str(engine_device()),
        "parameters": config["base_parameters"],
        "dtype": options.dtype,
        "tokens": tokens,
        "tokens_per_s": tokens / best[0],
        "plain_tokens_per_s": sum(length * many for length, many in rows) / best[1],
        "ratio": best[1] / best[0] * tokens / sum(length * many for length, many in rows),
        "goal": GOAL,
        "peak_bytes": peak,
    }


def write_llama(folder: Path, options: argparse.Namespace) -> None:
    import transformers

    pairs = clinic()["ghr"]
    tokenizer = learn_tokenizer(((pair.question, pair.answer) for pair in pairs), 4000, 2)
    end = tokenizer.token_to_id("<end>")
    torch.manual_seed(0)
    shape: Any = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 64,
        num_key_value_heads=options.width // 64,
        bos_token_id=end,
        eos_token_id=end,
    )
    network: Any = transformers.LlamaForCausalLM(shape)
    network.to(getattr(torch, options.dtype)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def counted(parts: Path, settings: CausalLmConfig, pairs: Any) -> tuple[int, list[tuple[int, int]]]:
    """Tokens that a visit reads without padding, and per step the length and number of rows that
    hold as many."""
    import random

    from daitn.learning.causal_lm.dealing import Dealer

    rng = random.Random(0)
    model = models.load(parts, settings)
    layout = training._Layout(model.codec(settings), 1, model.network.device)
    dealer = Dealer(pairs, rng, LEAST_RECORDS)
    tokens, steps = 0, []
    for batch in training._batches(dealer, layout, settings, EXAMPLES, rng):
        read: list[Rows] = batch.pieces[0].rows.batches
        own = sum(int((rows.segments >= 0).sum()) for rows in read)
        count = sum(len(rows.tokens) for rows in read)
        tokens += own
        steps.append((round(own / count), count))
    return tokens, steps


def plain_s(folder: Path, settings: CausalLmConfig, steps: list[tuple[int, int]]) -> float:
    """Seconds of a plain loop over rows of these lengths."""
    import peft
    import transformers

    device = engine_device()
    read: Any = transformers.AutoModelForCausalLM.from_pretrained
    lora = peft.LoraConfig(
        r=settings.adapter_rank,
        lora_alpha=2 * settings.adapter_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    network = peft.get_peft_model(read(folder), lora).to(device).train()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=RATE, fused=True)
    generator = torch.Generator().manual_seed(0)
    texts = [
        torch.randint(0, settings.vocabulary, (many, length), generator=generator)
        for length, many in steps
    ]
    began_s = time.perf_counter()
    for text in texts:
        ids = text.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = network(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()
