"""Instructions for the model card: how to use an exported language model without DA-ITN."""

from __future__ import annotations

from daitn.learning.causal_lm.chat import Chat
from daitn.learning.causal_lm.settings import ADAPTER_SCALE, CausalLmConfig

__all__ = ["folder_usage", "gguf_usage", "parts_usage", "peft_usage"]


def parts_usage(settings: CausalLmConfig, chat: Chat) -> str:
    """How to use the parts, which no other program can read directly."""
    if not settings.base:
        return (
            "No other program reads these parts as they are: `daitn model export` with "
            "`--format hf` writes a folder of `transformers`.\n\n" + _prompts(settings, chat)
        )
    alpha = ADAPTER_SCALE * settings.adapter_rank
    return (
        f"`adapter.safetensors` holds low-rank adapters (rank {settings.adapter_rank}, alpha "
        f"{alpha}) for every linear layer of `base.safetensors` but the last. No other program "
        "reads them as they are: `daitn model export` with `--format peft` writes a folder of "
        "`peft`, and with `--format merged` one of `transformers`.\n\n" + _prompts(settings, chat)
    )


def folder_usage(settings: CausalLmConfig, chat: Chat) -> str:
    """How to use a folder in `transformers` format."""
    return f"""\
It is a folder of `transformers`, which other programs read too:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (kind.from_pretrained(".") for kind in (AutoModelForCausalLM, AutoTokenizer))
```

{_prompts(settings, chat)}"""


def gguf_usage(settings: CausalLmConfig, chat: Chat) -> str:
    """How to use a llama.cpp file."""
    return f"""\
It is a file of llama.cpp: `llama-server -m model.gguf`, or `llama-quantize model.gguf` for a \
smaller one.

{_prompts(settings, chat)}"""


def peft_usage(settings: CausalLmConfig, chat: Chat) -> str:
    """How to use a folder in `peft` format."""
    return f"""\
It is a folder of `peft`, with the model that it was trained on in `base`:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), ".")
tokenizer = AutoTokenizer.from_pretrained("base")
```

vLLM serves both: `vllm serve base --enable-lora --lora-modules trained=.`.

{_prompts(settings, chat)}"""


def _prompts(settings: CausalLmConfig, chat: Chat) -> str:
    cut = (
        f"questions were cut after {settings.question_tokens} tokens and answers after "
        f"{settings.answer_tokens}"
    )
    if chat.template is not None:
        return (
            "It was taught in the words of its chat template, which is that of the imported model: "
            f"a user asks, and it answers; {cut}.\n"
        )
    prompt = (
        r"\nQuestion: {question}\nAnswer: " if settings.base else "<question>{question}<answer>"
    )
    return f'It was taught to go on from `f"{prompt}"` with an answer; {cut}.\n'
