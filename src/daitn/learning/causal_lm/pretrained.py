"""A larger local model: its weights frozen, low-rank adapters trained on top (LoRA).

Hu et al. 2021, arXiv:2106.09685, with the library `peft`. The model comes from a local folder in
the format of `transformers`; nothing is loaded from a hub and none of the model's code is run
(`trust_remote_code` is never given, and `architecture` says which are accepted).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from daitn.learning.answering.protocol import Room
from daitn.learning.causal_lm.architecture import check_shape, read_description, shape
from daitn.learning.causal_lm.chat import chat_of_folder, read_chat
from daitn.learning.causal_lm.placing import Place, placed
from daitn.learning.causal_lm.settings import (
    ADAPTER,
    BASE,
    BASE_CONFIG,
    CHAT,
    TOKENIZER,
    CausalLmConfig,
)
from daitn.learning.causal_lm.tokenizer import load_tokenizer
from daitn.learning.weights import Header, read_header, read_tensors
from daitn.objects.errors import Corrupt, InvalidInput, NotFound

__all__ = ["Adapted", "Answerer", "import_pretrained", "load_adapted", "load_answering"]

_ADAPTER_SCALE = 2
"""alpha / rank: the usual choice of the paper's successors and of peft's examples."""


def import_pretrained(folder: Path, out: Path) -> dict[str, object]:
    """Turn a model folder into the parts of a model, in the empty folder `out`.

    Needs what `save_pretrained` writes: `config.json`, `*.safetensors`, and a `tokenizer.json`.
    Chat templates and special tokens are taken along.
    Returns the fields of `model.config` that the model needs. Raises `NotFound` for a missing file,
    `InvalidInput` for an architecture that sites do not build, and `Corrupt` for weights or a
    tokenizer that do not belong to it.
    """
    described = folder / "config.json"
    for path in (described, folder / TOKENIZER):
        if not path.is_file():
            raise _absent(path)
    facts = read_description(described)
    sizes = shape(facts)
    load_tokenizer(folder, sizes["vocabulary"])
    network = _opened(folder)
    tied = sorted(_tied(network))
    weights = {
        name: weight.contiguous()
        for name, weight in network.state_dict().items()
        if name not in tied[1:]
    }
    save_file(weights, out / BASE, metadata={"format": "pt"})
    (out / BASE_CONFIG).write_text(json.dumps(facts, sort_keys=True, indent=1))
    (out / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes())
    chat = chat_of_folder(folder, facts.get("eos_token_id"), sizes["vocabulary"])
    (out / CHAT).write_bytes(msgspec.json.format(msgspec.json.encode(chat)))
    read_chat(out, sizes["vocabulary"])
    parameters = sum(weight.numel() for weight in weights.values())
    config = {"base": BASE, "base_parameters": parameters, **sizes}
    CausalLmConfig.of(config)
    return config


def _opened(folder: Path) -> Any:
    """The network as read by transformers, which also knows older names of weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        network, facts = read(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        raise _absent(folder / "model.safetensors") from error
    except (RuntimeError, SafetensorError) as error:
        raise Corrupt(f"{folder}: {error}", field=str(folder), fix="copy it again") from error
    absent = set(facts["missing_keys"]) - _tied(network)
    if absent:
        raise _incomplete(str(folder), absent)
    return network


_MOST_BUFFER_BYTES = 64 << 20
"""Rotary frequencies and the like; models in use need less than 1 MiB."""


class Adapted:
    """An imported network with adapters; a `LanguageModel`."""

    def __init__(self, network: Any, end: int | None) -> None:
        self._network = network
        self.end = end

    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """See `LanguageModel.hidden`."""
        # A mask with four dimensions is used as it is.
        states: Tensor = self._network.base_model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=_additive(mask, self._network.dtype),
            use_cache=False,
        ).last_hidden_state
        return states

    def following(self, tokens: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """See `LanguageModel.following`."""
        read = self._network.base_model(
            input_ids=tokens[None], past_key_values=memory, use_cache=True
        )
        return read.last_hidden_state[0], read.past_key_values

    def logits(self, hidden: Tensor) -> Tensor:
        """See `LanguageModel.logits`."""
        scores: Tensor = self._network.get_output_embeddings()(hidden)
        return scores

    def trainable(self) -> dict[str, nn.Parameter]:
        """The adapters."""
        named = self._network.named_parameters()
        return {name: weight for name, weight in named if weight.requires_grad}


def load_adapted(model: Path, settings: CausalLmConfig) -> Adapted:
    """Build the network in the folder `model`, with its frozen weights and its adapters.

    Without adapters (never trained), creates adapters that change nothing. Nothing is allocated
    before description, weights and configuration agree. Raises `NotFound` for a missing part,
    `InvalidInput` if the parts do not have the configured shape, and `Corrupt`.
    """
    import torch

    facts, make, architecture = _checked(model, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # Every site creates the same initial adapters.
        network = _made(make, architecture)
        _set(network, read_tensors(model / BASE))
        network = _with_adapters(network, settings)
    adapted = Adapted(network, _end_token(facts))
    if (model / ADAPTER).is_file():
        _fill(adapted, model / ADAPTER)
    return adapted


class Answerer(NamedTuple):
    """A network that only answers."""

    network: Any
    """Of transformers."""
    adapted: Adapted
    place: Place


def load_answering(model: Path, settings: CausalLmConfig, room: Room) -> Answerer:
    """As `load_adapted`, to answer with: where there is room for it, its adapters merged into its
    weights. Raises also `StorageFull`."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.utils import logging

    logging.disable_progress_bar()
    facts, make, architecture = _checked(model, settings)
    place = placed(settings.base_parameters, _stored(model / BASE), room)
    with torch.device("meta"):
        made = _made(make, architecture)
    network = (
        type(made)
        .from_pretrained(
            None,
            config=architecture,
            state_dict=read_tensors(model / BASE),
            dtype=place.dtype,
            attn_implementation=made.config._attn_implementation,
        )
        .eval()
    )
    adapted = Adapted(network, _end_token(facts))
    if (model / ADAPTER).is_file():
        adapted = Adapted(_with_adapters(network, settings), adapted.end)
        _fill(adapted, model / ADAPTER)
        for part in network.modules():
            if isinstance(part, BaseTunerLayer):
                part.merge()
    for weight in network.parameters():
        weight.requires_grad_(False)
    network.to(place.device)
    return Answerer(network, adapted, place)


def _checked(model: Path, settings: CausalLmConfig) -> tuple[dict[str, Any], Any, Any]:
    """The description of a network, how to make it, and of what, once its parts agree."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (model / BASE_CONFIG).is_file():
        raise NotFound(f"no part {model / BASE_CONFIG}", field=BASE_CONFIG, fix="fetch it again")
    facts = read_description(model / BASE_CONFIG)
    check_shape(facts, settings)
    architecture = AutoConfig.for_model(**facts)
    make: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        _check_header(read_header(model / BASE), _made(make, architecture), settings)
    return facts, make, architecture


def _with_adapters(network: Any, settings: CausalLmConfig) -> Any:
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    lora = LoraConfig(
        r=settings.adapter_rank,
        lora_alpha=_ADAPTER_SCALE * settings.adapter_rank,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in network.modules()),
        task_type="CAUSAL_LM",
    )
    # Without dropout, so that the same visit gives the same model.
    return inject_adapter_in_model(lora, network).eval()


def _stored(path: Path) -> Any:
    """The number type of most weights in a file."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        kinds = Counter(file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118
    ((kind, _),) = kinds.most_common(1)
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(kind, torch.float32)


def _made(make: Any, architecture: Any) -> Any:
    problem = ""
    for attention in ("sdpa", "eager"):  # Some architectures have the plain form alone.
        try:
            return make(architecture, attn_implementation=attention)
        except Exception as error:  # Each architecture checks in its own way.
            problem = problem or str(error)[:300]
    raise InvalidInput(
        f"the architecture cannot be built: {problem}",
        field=BASE_CONFIG,
        fix="use the description that the model was published with",
    )


def _check_header(header: Header, network: Any, settings: CausalLmConfig) -> None:
    """Raise an error unless the file has the weights of `network`, which holds no numbers."""
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    for name, found in header.shapes.items():
        if found != shapes.get(name):
            raise Corrupt(
                f"{BASE}: {name} has the shape {found}, and {shapes.get(name)} is described",
                field=BASE,
                fix="import the model's folder again, whole",
            )
    missing, tied = shapes.keys() - header.shapes.keys(), _tied(network)
    absent = missing - tied if tied & header.shapes.keys() else missing
    if absent:
        raise _incomplete(BASE, absent)
    if header.numbers != settings.base_parameters:
        raise InvalidInput(
            f"the base has {header.numbers} parameters, not {settings.base_parameters}",
            field="model.config.base_parameters",
            fix="give the configuration that its import printed",
        )
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    if buffers > _MOST_BUFFER_BYTES:
        raise InvalidInput(
            f"the architecture needs {buffers} bytes beside its weights",
            field=BASE_CONFIG,
            fix="use the description that the model was published with",
        )


def _set(network: Any, weights: dict[str, Tensor]) -> None:
    """Give the network the weights of `BASE`, which names tied weights once."""
    network.load_state_dict(weights, strict=False)


def _fill(adapted: Adapted, path: Path) -> None:
    weights = adapted.trainable()
    if {name: tuple(weight.shape) for name, weight in weights.items()} != read_header(path).shapes:
        raise InvalidInput(
            "the adapters do not have the configured shape",
            field="model.config.adapter_rank",
            fix="give the configuration that the model was made with",
        )
    adapters = read_tensors(path)
    for name, weight in weights.items():
        weight.data.copy_(adapters[name])


def _tied(network: Any) -> set[str]:
    """Names of weights that share another's storage, and so need not be in a file."""
    output = network.get_output_embeddings()
    if output is None or output.weight is not network.get_input_embeddings().weight:
        return set()
    named = network.named_parameters(remove_duplicate=False)
    return {name for name, weight in named if weight is output.weight}


def _additive(mask: Tensor, dtype: Any) -> Tensor:
    import torch

    # Padding sees nothing; let it see itself, or its softmax would have no terms.
    seen = mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    nothing = torch.zeros(seen.shape, dtype=dtype, device=mask.device)
    return nothing.masked_fill(~seen, torch.finfo(dtype).min)


def _end_token(facts: dict[str, Any]) -> int | None:
    end = facts.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    return end if isinstance(end, int) else None


def _incomplete(where: str, absent: set[str]) -> Corrupt:
    return Corrupt(
        f"{where} lacks {len(absent)} tensors, among them {min(absent)}",
        field=where,
        fix="import the model's folder again, whole",
    )


def _absent(path: Path) -> NotFound:
    return NotFound(
        f"no file {path}",
        field=str(path),
        fix="save the model with save_pretrained, and its fast tokenizer beside it",
    )
