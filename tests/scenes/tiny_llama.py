"""Folders of transformers with a language model of some ten thousand random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["BEGIN", "CHAT_TEMPLATE", "END", "SPECIAL", "VOCABULARY", "WIDTH", "write_folder"]

VOCABULARY, WIDTH = 400, 32
SPECIAL = ["<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", "<|tool|>"]
BEGIN, END = 0, 1
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for tool in tools or [] %}<|system|>{{ tool | tojson }}</s>{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'judge' %}{{ raise_exception('no judges') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}"
    '<tool_call>{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_folder(
    folder: Path,
    *,
    context: int = 256,
    template: str | None = CHAT_TEMPLATE,
    dtype: str = "float32",
    kind: str = "llama",
    width: int = WIDTH,
    deviation: float = 0.3,
) -> None:
    """As `save_pretrained` leaves a model that reads `context` tokens. With weights that deviate as
    much as they usually do here, no two tokens are about as likely: rounding decides nothing."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.train_from_iterator(
        ["rest and water help against the fever "] * 50,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bare.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BEGIN)]
    )
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>"
    )
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape: Any = AutoConfig.for_model(
        kind,
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=END,
        initializer_range=deviation,
        tie_word_embeddings=False,
    )
    model: Any = AutoModelForCausalLM.from_config(shape)
    with torch.no_grad():  # It does not end by itself where its likeliest token is taken.
        model.get_output_embeddings().weight[: len(SPECIAL)] = 0.0
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def imported(folder: Path, out: Path) -> dict[str, object]:
    """Import a folder of `write_folder` as a model, and return its configuration."""
    from daitn.learning.causal_lm.importing import import_pretrained

    out.mkdir()
    return import_pretrained(folder, out)
