"""Train and query a model of realistic shape, compared with plain `transformers` and `peft`.

    python -m benchmarks.real_model --json

The benchmark makes a Llama of random weights, imports it, and measures in turns:

- training: tokens per second from which adapters learn on the clinic corpus, with the recipe, and
  with a loop as in the documentation of `peft` (a batch of texts, their loss, AdamW) with the same
  rank, batch, precision and number of tokens per row; the plain loop's rows all have one length, so
  it pads nothing;
- serving: generated tokens per second, one answer alone and eight at once, with the engine of
  facilities, and with `generate`, which has all prompts of a batch from the start.

The best round of each counts, which on a busy machine is the least disturbed one. On CPUs, seconds
are CPU time per thread, which depends less on other load. On a GPU, the default is a Llama of 1.2
billion weights in bfloat16, and the output includes PyTorch's peak memory and the mean utilisation
that `nvidia-smi` reports; otherwise it is one of 6 million.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from daitn.learning.answering.protocol import Message, Question, Room
from daitn.learning.causal_lm import CausalLm, models, training
from daitn.learning.causal_lm.dealing import Dealer
from daitn.learning.causal_lm.importing import import_pretrained
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import learn_tokenizer
from daitn.learning.corpora.clinic import clinic
from daitn.learning.engine import engine_device
from daitn.learning.recipe import LEAST_RECORDS

GOAL = 0.9
RATE = 1e-3
SHAPES = {
    "tiny": {"layers": 4, "width": 256, "heads": 4, "kv": 4, "inner": 1024, "vocabulary": 4000},
    "1b": {"layers": 16, "width": 2048, "heads": 32, "kv": 8, "inner": 8192, "vocabulary": 128256},
}
PROMPT = 64
"""Tokens."""
BATCHES = (1, 8)


def main() -> None:
    gpu = engine_device().type == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b" if gpu else "tiny")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="bfloat16" if gpu else "float32"
    )
    parser.add_argument("--batch", type=int, default=16, help="batch size")
    parser.add_argument("--examples", type=int, default=256 if gpu else 64)
    parser.add_argument(
        "--answer", type=int, default=128 if gpu else 48, help="tokens of an answer"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for part, figures in result.items():
        told = figures if isinstance(figures, dict) else {"": figures}
        for name, value in told.items():
            label = f"{part} {name}".strip()
            print(f"{label:34} {value:.4g}" if isinstance(value, float) else f"{label:34} {value}")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    source, parts = folder / "source", folder / "parts"
    parts.mkdir()
    write_llama(source, options)
    config = import_pretrained(source, parts)
    return {
        "device": _device_name(),
        "torch": torch.__version__,
        "parameters": config["base_parameters"],
        "dtype": options.dtype,
        "goal": GOAL,
        "training": trained(source, parts, config, options),
        **{f"serving {many}": served(source, parts, config, options, many) for many in BATCHES},
    }


def write_llama(folder: Path, options: argparse.Namespace) -> None:
    import transformers

    pairs = clinic()["ghr"]
    tokenizer = learn_tokenizer(((pair.question, pair.answer) for pair in pairs), 4000, 2)
    end = tokenizer.token_to_id("<end>")
    torch.manual_seed(0)
    wanted = SHAPES[options.shape]
    shape: Any = transformers.LlamaConfig(
        vocab_size=max(wanted["vocabulary"], tokenizer.get_vocab_size()),
        hidden_size=wanted["width"],
        intermediate_size=wanted["inner"],
        num_hidden_layers=wanted["layers"],
        num_attention_heads=wanted["heads"],
        num_key_value_heads=wanted["kv"],
        max_position_embeddings=2048,
        bos_token_id=end,
        eos_token_id=end,
        tie_word_embeddings=options.shape == "1b",
    )
    network: Any = transformers.LlamaForCausalLM(shape)
    network.to(getattr(torch, options.dtype)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def trained(
    source: Path, parts: Path, config: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    pairs = clinic()["ghr"]
    settings = CausalLmConfig.of(
        config | {"batch": options.batch, "generation_share": 0.0, "learning_rate": RATE}
    )
    steps = counted(parts, settings, pairs, options.examples)
    tokens = sum(own for own, _, _ in steps)
    plain_tokens = sum(length * many for _, length, many in steps)
    ours, plain = Watched(), Watched()
    for _ in range(options.rounds):
        model = models.load(parts, settings)

        def train(model: models.CausalModel = model) -> None:
            training.train(
                model, settings, pairs, options.examples, 0, lambda _: None, LEAST_RECORDS
            )

        ours.time(train)
        del model, train
        plain.time(plain_training(source, settings, [step[1:] for step in steps]))
    return compared(tokens / ours.best_s, plain_tokens / plain.best_s, ours, plain)


def counted(
    parts: Path, settings: CausalLmConfig, pairs: Any, examples: int
) -> list[tuple[int, int, int]]:
    """Per step: tokens that a visit reads without padding, and the length and number of rows that
    hold as many."""
    rng = random.Random(0)
    layout = training._Layout(models.load_on(_CPU, parts, settings).codec(settings), 1, _CPU)
    dealer = Dealer(pairs, rng, LEAST_RECORDS)
    steps = []
    for batch in training._batches(dealer, layout, settings, examples, rng):
        (piece,) = batch.pieces
        reads = piece.rows.batches
        own = sum(int((rows.segments >= 0).sum()) for rows in reads)
        many = sum(len(rows.tokens) for rows in reads)
        steps.append((own, round(own / many), many))
    return steps


def plain_training(
    folder: Path, settings: CausalLmConfig, steps: list[tuple[int, int]]
) -> Callable[[], None]:
    """A plain loop over rows of these lengths."""
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
    mixed = settings.base_dtype == "bfloat16" or device.type == "cuda"

    def train() -> None:
        for text in texts:
            ids = text.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                loss = network(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            loss.item()

    return train


def served(
    source: Path, parts: Path, config: dict[str, Any], options: argparse.Namespace, many: int
) -> dict[str, Any]:
    import transformers

    generator: Any = CausalLm().host(parts, config, Room(slots=max(BATCHES)))
    prompts = _prompts(generator, many)
    read: Any = transformers.AutoModelForCausalLM.from_pretrained
    place = generator._place
    network = read(source, dtype=place.dtype).to(place.device).eval()
    ids = torch.tensor([generator._tokens(_question(p, options)) for p in prompts]).to(place.device)
    ours, plain = Watched(), Watched()

    def answer() -> None:
        answers = [generator.answer(_question(prompt, options)) for prompt in prompts]
        while answers:
            answers = [one for one in answers if next(one, _ENDED) is not _ENDED]

    def generate() -> None:
        with torch.inference_mode():
            network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=options.answer,
                max_new_tokens=options.answer,
            )

    for _ in range(options.rounds):
        ours.time(answer)
        plain.time(generate)
    said = many * options.answer
    return compared(said / ours.best_s, said / plain.best_s, ours, plain)


def _question(prompt: str, options: argparse.Namespace) -> Question:
    return Question(
        messages=(Message("user", prompt),),
        max_tokens=options.answer,
        min_tokens=options.answer,
        temperature=0.0,
        seed=0,
        continues=True,
    )


def _prompts(generator: Any, many: int) -> list[str]:
    """Of `PROMPT` tokens each; no two begin alike, so that nothing is shared."""
    words = " ".join(pair.answer for pair in clinic()["ghr"]).split()
    found: dict[int, str] = {}
    for start in range(0, len(words) - PROMPT, 7):
        tokens = generator._codec.whole(" ".join(words[start : start + PROMPT]))[:PROMPT]
        prompt = generator._codec.text(tokens)
        if len(generator._codec.whole(prompt)) == PROMPT:
            found.setdefault(tokens[0], prompt)
    return list(found.values())[:many]


class Watched:
    """Times rounds of the same work, with what they take of a GPU."""

    def __init__(self) -> None:
        self.best_s = float("inf")
        self.peak_bytes = 0
        self.busy: list[float] = []

    def time(self, work: Callable[[], None]) -> None:
        gpu = engine_device().type == "cuda"
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with _utilisation(self.busy):
            began_s = _spent_s(gpu)
            work()
            if gpu:
                torch.cuda.synchronize()
            self.best_s = min(self.best_s, _spent_s(gpu) - began_s)
        if gpu:
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.peak_bytes = max(self.peak_bytes, peak)

    @property
    def utilisation(self) -> float | None:
        return sum(self.busy) / len(self.busy) / 100 if self.busy else None


def _spent_s(gpu: bool) -> float:
    return time.perf_counter() if gpu else time.process_time() / torch.get_num_threads()


@contextlib.contextmanager
def _utilisation(into: list[float]) -> Iterator[None]:
    """Add what `nvidia-smi` says meanwhile, in per cent, where it is there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield
        return
    asked = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as smi:

        def read() -> None:
            for line in smi.stdout or ():
                with contextlib.suppress(ValueError):
                    into.append(float(line))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield
        finally:
            smi.terminate()
            reader.join()


def compared(
    ours_per_s: float, plain_per_s: float, ours: Watched, plain: Watched
) -> dict[str, Any]:
    return {
        "tokens_per_s": ours_per_s,
        "plain_tokens_per_s": plain_per_s,
        "ratio": ours_per_s / plain_per_s,
        "peak_bytes": ours.peak_bytes,
        "plain_peak_bytes": plain.peak_bytes,
        "utilisation": ours.utilisation,
        "plain_utilisation": plain.utilisation,
    }


def _device_name() -> str:
    device = engine_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


_CPU = torch.device("cpu")
_ENDED = object()


if __name__ == "__main__":
    main()
