"""The checked configuration of the recipe `causal-lm`, and the resources its models need."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from daitn.learning.bounded import MOST_BATCH
from daitn.learning.causal_lm.quantising import LIBRARY, Precision, held_bytes
from daitn.learning.recipe import Config, Footprint, Form
from daitn.objects.errors import InvalidInput

__all__ = [
    "ADAPTER",
    "ADAPTER_SCALE",
    "BASE",
    "BASE_CONFIG",
    "CHAT",
    "FORMS_FROM_SCRATCH",
    "FORMS_IMPORTED",
    "KEEP",
    "LARGEST_GROUP",
    "NUMBER_BYTES",
    "TOKENIZER",
    "WEIGHTS",
    "CausalLmConfig",
    "footprint",
]

FORMS_FROM_SCRATCH: Final = {
    Form.PARTS: "the parts",
    Form.HF: "a folder of `transformers` (an Arcee)",
}
"""Export formats of a model made from scratch."""
FORMS_IMPORTED: Final = {
    Form.PARTS: "the parts",
    Form.HF: "as `merged`",
    Form.PEFT: "`adapter_config.json` and `adapter_model.safetensors`, which "
    "`PeftModel.from_pretrained` and vLLM take, and `base`, a folder of `transformers`",
    Form.MERGED: "a folder of `transformers`; the weights keep their number type",
    Form.GGUF: "`model.gguf` for llama.cpp: Llama, Mistral, Qwen 2 and 3 with byte-level "
    "tokenizers; needs the package `gguf`",
}
"""Export formats of an imported model."""
WEIGHTS = "weights.safetensors"
"""Part: the weights of a model made from scratch."""
TOKENIZER = "tokenizer.json"
"""Part: the tokenizer, in the format of the library `tokenizers`."""
KEEP = 0.5
"""Share of the arriving weights that a visit on a route keeps."""
BASE = "base.safetensors"
"""Part: the frozen weights of an imported model. Never changes, so it travels once."""
BASE_CONFIG = "base_config.json"
"""Part: the architecture of an imported model (a `config.json` of transformers)."""
CHAT = "chat.json"
"""Part: the chat template and the special tokens of an imported model."""
ADAPTER = "adapter.safetensors"
"""Part: the low-rank adapters trained on top of an imported model."""

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER_SCALE = 2
"""alpha / rank: the usual choice of the paper's successors and of peft's examples."""
_HELD_BYTES = {"float32": 4, "bfloat16": 2, "float16": 4}
"""Bytes per number in memory: CPUs compute in float32 what is stored in float16."""
_BYTES_PER_ADAPTER = 4
_BYTES_PER_TRAINED = 20
"""A float32 weight, its gradient, two moments, and the arriving weight."""
_BYTES_PER_SCORE = 12
"""Bytes per token of the vocabulary: its logarithm, and two gradients during computation."""
_TOKENIZER_BYTES_PER_ENTRY = 65
"""Measured: a tokenizer of 4,000 entries learnt on MedQuAD takes 260 kB."""
_QUESTIONS_PER_ANSWER = 5
"""Questions read for one answer; the median disease at a MedQuAD institute has 4 or 5."""
LARGEST_GROUP = 6
"""Records per group; work grows with its square. GARD, the broadest large site, has six labels."""


_BOUNDS = {
    "layers": (1, 256),
    "width": (1, 1 << 15),
    "heads": (1, 1024),
    "vocabulary": (300, 300_000),
    "answer_tokens": (4, 1024),
    "question_tokens": (4, 1024),
    "batch": (1, MOST_BATCH),
    "learning_rate_halves_after": (1, 10**12),
    "base_parameters": (0, 10**12),
    "adapted_parameters": (0, 10**12),
    "adapted_widths": (0, 10**9),
    "chat_tokens": (0, 1 << 16),
    "adapter_rank": (1, 1024),
    "gradient_accumulation": (1, MOST_BATCH),
}
"""Minimum and maximum of every whole number, so that no configuration makes an estimate, or a loop,
endless."""


_PRINTED = ("base_parameters", "adapted_parameters", "adapted_widths")


class CausalLmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration. The defaults are the best measured on MedQuAD with two CPU cores."""

    layers: int = 3
    """Layers of the network, 1 to 256."""
    width: int = 192
    """Width of the network, at most 32,768; `width / heads` must be even."""
    heads: int = 4
    """Attention heads of the network, 1 to 1,024."""
    vocabulary: int = 4000
    """Entries of the tokenizer learned at the first visited site, 300 to 300,000."""
    answer_tokens: int = 64
    """Maximum number of tokens of an answer in training and measurement, 4 to 1,024. At a facility,
    the context of a model from scratch is a question plus an answer; that of an imported one is as
    in its description."""
    question_tokens: int = 24
    """Maximum number of tokens of a question in training and measurement, 4 to 1,024."""
    learning_rate: float = 1e-3
    """Peak learning rate of the first visit, above 0 and at most 0.1. It rises over the first tenth
    of a visit, then falls to a tenth of the peak."""
    batch: int = 16
    """Examples per step, 1 to 256; fewer if a visit would have fewer than eight steps."""
    learning_rate_halves_after: int = 6000
    """Later visits peak at `learning_rate / (1 + seen / this)`, where `seen` counts the examples of
    all earlier visits, so that late visits do not undo what early ones taught. 1 to 10^12."""
    keep: float | None = None
    """Share in [0, 1) of the arriving weights in the departing ones, from the second visit on; by
    default {KEEP} on routes and nothing in rounds, whose merge already averages. Averaging two
    fine-tuned points: Wortsman et al. 2022, arXiv:2109.01903."""
    generation_share: float = 0.1
    """Share in [0, 1] of the examples that are also read question first, so that the model can
    answer."""
    base: str | None = None
    """`base.safetensors` for an imported model, which then determines layers, width, heads and
    vocabulary."""
    base_parameters: int = 0
    """Parameters of the imported model, as its import printed them; at most 10^12. Resource needs
    are estimated from them, and weights of another size are refused."""
    base_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the imported weights, as the import printed it. Adapters are always float32. A
    GPU computes in bfloat16, a CPU in this type (float32 instead of float16)."""
    base_precision: Precision = "stored"
    """Precision in which sites hold the imported weights with adapters during training and
    measurement. `4bit` (QLoRA: Dettmers et al. 2023, arXiv:2305.14314) and `8bit` need the package
    `bitsandbytes` at the site, and a quarter or half of the memory of bfloat16. `stored` means
    `base_dtype`."""
    adapted_parameters: int = 0
    """Parameters of the imported layers with adapters, as the import printed them; at most
    10^12."""
    adapted_widths: int = 0
    """Inputs and outputs of these layers, all together, as the import printed them; at most 10^9.
    Adapters have `adapter_rank` times as many parameters."""
    chat_tokens: int = 0
    """Tokens that the imported chat template adds to a text, as the import printed them; at most
    65,536. The cost of examples is estimated with them."""
    adapter_rank: int = 8
    """Rank of the adapters on an imported model, 1 to 1,024: Hu et al. 2021, arXiv:2106.09685."""
    gradient_accumulation: int = 1
    """Number of pieces into which a step splits its batch, 1 to 256. More pieces need less memory
    and give the same gradient."""
    gradient_checkpointing: bool = False
    """Whether a step recomputes the activations of each layer instead of keeping them, which needs
    much less memory: Chen et al. 2016, arXiv:1604.06174."""

    @classmethod
    def of(cls, config: Config) -> CausalLmConfig:
        """Check a configuration; raises `InvalidInput` naming `model.config.<field>`."""
        try:
            settings = msgspec.convert(dict(config), cls)
        except msgspec.ValidationError as error:
            raise _invalid(_named_field(str(error)), str(error)) from error
        settings._check()
        return settings

    def kept(self, *, merged: bool) -> float:
        """`keep`, depending on whether models are merged."""
        return (0.0 if merged else KEEP) if self.keep is None else self.keep

    def _check(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            within = least <= getattr(self, name) <= most
            self._require(name, within, f"must be from {least} to {most}")
        self._require("heads", self.width % (2 * self.heads) == 0, "width / heads must be even")
        self._require(
            "learning_rate", 0 < self.learning_rate <= 0.1, "must be above 0 and at most 0.1"
        )
        self._require(
            "keep", self.keep is None or 0 <= self.keep < 1, "must be at least 0 and below 1"
        )
        self._require("generation_share", 0 <= self.generation_share <= 1, "must be from 0 to 1")
        self._require("base", self.base in (None, BASE), f"must be {BASE!r} or absent")
        quantised = self.base_precision != "stored"
        self._require("base_precision", bool(self.base) or not quantised, "is that of a `base`")
        for name in _PRINTED:
            stated = bool(self.base) == bool(getattr(self, name))
            self._require(name, stated, "must be what the import of `base` printed")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise _invalid(name, f"{rule}, is {getattr(self, name)!r}")


def footprint(settings: CausalLmConfig) -> Footprint:
    """Estimate a model's needs, from its shape and that of its examples.

    Operations per weight and token: 2 forward, 2 for the gradient of its input and 2 for its own,
    as in Kaplan et al. 2020, arXiv:2001.08361, section 2.1.
    """
    width, layers = settings.width, settings.layers
    formed = settings.vocabulary * width + layers * (12 * width * width + 2 * width) + width
    weights = settings.base_parameters or formed
    inside = settings.adapted_parameters or layers * 12 * width * width
    widths = settings.adapted_widths or layers * 16 * width
    adapters = settings.adapter_rank * widths if settings.base else 0
    own = adapters or weights
    forward_again = 2 if settings.gradient_checkpointing else 0
    # The gradient of a frozen weight is not needed.
    of_weight = (4 if settings.base else 6) + forward_again
    question = settings.question_tokens + 2
    read = settings.answer_tokens + settings.chat_tokens
    row = read + _QUESTIONS_PER_ANSWER * question
    spoken = settings.generation_share * (read + settings.question_tokens)
    tokens, scored = row + spoken, _QUESTIONS_PER_ANSWER * (question - 1) + spoken
    attended = 6 * (2 + forward_again) * row * width * layers
    flops = (
        tokens * (of_weight * inside + (6 + forward_again) * adapters + attended)
        + scored * (of_weight - forward_again) * settings.vocabulary * width
    )
    piece = max(settings.batch / settings.gradient_accumulation, _QUESTIONS_PER_ANSWER)
    number = NUMBER_BYTES[settings.base_dtype]
    held = _HELD_BYTES[settings.base_dtype]
    # Inputs of layers and of the operations between them; normalisation works in float32.
    kept = 1.1 * held * widths + 8 * width * layers
    heads = _BYTES_PER_SCORE * scored * settings.vocabulary
    if settings.gradient_checkpointing:
        activations = tokens * held * width * layers + max(heads, tokens * kept / layers)
    else:
        activations = tokens * kept + heads
    return Footprint(
        parameters=weights + adapters,
        private=True,
        flops_per_example=flops,
        memory_bytes=int(
            held_bytes(weights, inside, held, settings.base_precision) * bool(settings.base)
            + _BYTES_PER_TRAINED * own
            + min(piece, settings.batch) * activations
        ),
        size_bytes=number * weights
        + _BYTES_PER_ADAPTER * adapters
        + _TOKENIZER_BYTES_PER_ENTRY * settings.vocabulary,
        imported=settings.base is not None,
        # At each first site, a model from scratch learns another tokenizer.
        merges_fresh=settings.base is not None,
        packages=() if settings.base_precision == "stored" else (LIBRARY,),
        learning=_learning(settings),
    )


def _learning(settings: CausalLmConfig) -> dict[str, tuple[float, float]]:
    """Beliefs fitted to the recorded training of the clinic corpus and of a tiny Llama's adapters.

    Both were recorded (`benchmarks/recordings`) at a rate of 0.003; at other rates, examples are
    assumed to be inverse to it, with less certainty.
    """
    faster = math.log(settings.learning_rate / 0.003)
    keep = settings.kept(merged=False)
    return {
        "tau": (5.1 - faster, math.hypot(0.6, 0.5 * faster)),
        "warm": (0.5, 1.2),
        "ripe": (0.6, 1.3),
        "repeats": (3.5, 0.8),
        "fading": (-4.3, 1.0),
        "labelled": (3.4, 1.5),
        "averaged": (math.log((keep + 0.01) / (1.01 - keep)) - 2.4, 0.6),
    }


def _named_field(problem: str) -> str:
    """The field in msgspec's message: `... at $.width`, or an unknown field's name."""
    if "`$." in problem:
        return problem.split("`$.", 1)[1].rstrip("`")
    return problem.split("`")[1] if "`" in problem else ""


def _invalid(name: str, problem: str) -> InvalidInput:
    field = f"model.config.{name}".rstrip(".")
    return InvalidInput(problem, field=field, fix=f"correct {field} in the intent")
