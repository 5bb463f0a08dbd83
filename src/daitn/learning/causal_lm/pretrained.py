"""A larger local model: its weights frozen, low-rank adapters trained on top (LoRA).

Hu et al. 2021, arXiv:2106.09685, with the library `peft`. The model comes from a local folder in
the format of `transformers`; nothing is loaded from a hub and none of the model's code is run
(`trust_remote_code` is never given, and `architecture` says which are accepted).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from daitn.learning.answering.protocol import Room
from daitn.learning.causal_lm.architecture import (
    check_shape,
    published_precision,
    read_description,
    shape,
)
from daitn.learning.causal_lm.chat import chat_of_folder, read_chat
from daitn.learning.causal_lm.placing import Place, placed
from daitn.learning.causal_lm.quantising import keep_gradients, quantisation
from daitn.learning.causal_lm.settings import (
    ADAPTER,
    ADAPTER_SCALE,
    BASE,
    BASE_CONFIG,
    CHAT,
    NUMBER_BYTES,
    TOKENIZER,
    CausalLmConfig,
)
from daitn.learning.causal_lm.tokenizer import load_tokenizer
from daitn.learning.causal_lm.turns import template_tokens
from daitn.learning.engine import is_mixed, mixed_precision
from daitn.learning.weights import Header, read_header, read_tensors
from daitn.objects.errors import Corrupt, InvalidInput, NotFound

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["Adapted", "Answerer", "import_pretrained", "load_adapted", "load_answering"]

_MOST_BUFFER_BYTES = 64 << 20
"""Rotary frequencies and the like; models in use need less than 1 MiB."""


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
    precision = published_precision(described)
    facts = read_description(described, quantised=precision != "stored")
    sizes = shape(facts)
    tokenizer = load_tokenizer(folder, sizes["vocabulary"])
    network = _opened(folder, quantised=precision != "stored")
    if precision != "stored":
        network = network.dequantize(network.dtype)
    tied = sorted(_tied(network))
    # As it was read: where a folder has two matrices that differ, transformers leaves them apart,
    # whatever its description says.
    facts["tie_word_embeddings"] = bool(tied)
    weights = {
        name: weight.contiguous()
        for name, weight in network.state_dict().items()
        if name not in tied[1:]
    }
    _check_finite(folder, weights)
    save_file(weights, out / BASE, metadata={"format": "pt"})
    (out / BASE_CONFIG).write_text(json.dumps(facts, sort_keys=True, indent=1))
    (out / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes())
    chat = chat_of_folder(folder, facts.get("eos_token_id"), sizes["vocabulary"])
    (out / CHAT).write_bytes(msgspec.json.format(msgspec.json.encode(chat)))
    read_chat(out, sizes["vocabulary"])
    parameters = sum(weight.numel() for weight in weights.values())
    config = {
        "base": BASE,
        "base_parameters": parameters,
        "base_dtype": str(network.dtype).removeprefix("torch."),
        **({} if precision == "stored" else {"base_precision": precision}),
        **_adapted_sizes(network),
        **sizes,
    }
    settings = CausalLmConfig.of(config)
    if chat_tokens := template_tokens(tokenizer, settings, chat):
        config["chat_tokens"] = chat_tokens
    return config


def _check_finite(folder: Path, weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise Corrupt(
                f"{folder}: {name} has values that are not finite",
                field=str(folder),
                fix="copy it again, or take the weights of an earlier checkpoint",
            )


def _check_shards(folder: Path) -> None:
    """Raise `NotFound` for a file of weights that the folder's index names and that is not there.

    Raises `Corrupt` for an index that is malformed.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{index}: {error}", field=index.name, fix="copy it again") from None
    for shard in sorted(map(str, shards)):
        if not (folder / shard).is_file():
            raise _absent(folder / shard)


def _adapted_sizes(network: Any) -> dict[str, int]:
    """Of the layers that get adapters: parameters, and inputs and outputs."""
    widths = [layer.weight.shape for layer in _adapted_layers(network)]
    return {
        "adapted_parameters": sum(map(math.prod, widths)),
        "adapted_widths": sum(map(sum, widths)),
    }


def _adapted_layers(network: Any) -> list[Any]:
    """Those that `peft` means by `all-linear`."""
    from transformers.pytorch_utils import Conv1D

    output = network.get_output_embeddings()
    linear = (part for part in network.modules() if isinstance(part, nn.Linear | Conv1D))
    return [layer for layer in linear if layer is not output]


def _check_numbers(folder: Path) -> None:
    """Raise `InvalidInput` for weights that mean something only by a scale."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as opened:
                kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise Corrupt(f"{path}: {error}", field=path.name, fix="copy it again") from error
        for name, kind in kinds.items():
            if kind == "I8" or kind.startswith("F8"):  # Older files have masks in U8.
                raise InvalidInput(
                    f"{path}: {name} is quantised ({kind}), and `config.json` does not say how",
                    field=path.name,
                    fix="import the model as it was published before that",
                )


def _opened(folder: Path, *, quantised: bool) -> Any:
    """The network as read by transformers, which also knows older names of weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM

    _check_shards(folder)
    if not quantised:
        _check_numbers(folder)
    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        network, facts = read(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        weights = folder / "model.safetensors", folder / "model.safetensors.index.json"
        if not any(path.is_file() for path in weights):
            raise _absent(weights[0]) from error
        raise Corrupt(f"{folder}: {error}", field=str(folder), fix="copy it again") from error
    except (RuntimeError, SafetensorError) as error:
        raise Corrupt(f"{folder}: {error}", field=str(folder), fix="copy it again") from error
    absent = set(facts["missing_keys"]) - _tied(network)
    if absent:
        raise _incomplete(str(folder), absent)
    return network


class Adapted:
    """An imported network with adapters; a `LanguageModel`."""

    def __init__(self, network: Any, end: int | None) -> None:
        self._network = network
        self.end = end
        self.stored: torch.dtype = network.dtype
        """Number type of its weights in their file."""

    @property
    def network(self) -> Any:
        """As transformers made it, with layers of peft."""
        return self._network

    @property
    def device(self) -> torch.device:
        """See `LanguageModel.device`."""
        found: torch.device = self._network.device
        return found

    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """See `LanguageModel.hidden`."""
        # A mask with four dimensions is used as it is.
        with mixed_precision(self.device, self._network.dtype):
            states: Tensor = self._network.base_model(
                input_ids=tokens,
                position_ids=positions,
                attention_mask=_additive(mask, self._network.dtype),
                use_cache=False,
            ).last_hidden_state
        return states

    def following(self, tokens: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """See `LanguageModel.following`."""
        with mixed_precision(self.device, self._network.dtype):
            read = self._network.base_model(
                input_ids=tokens[None].to(self.device), past_key_values=memory, use_cache=True
            )
        return read.last_hidden_state[0], read.past_key_values

    def logits(self, hidden: Tensor) -> Tensor:
        """See `LanguageModel.logits`."""
        with mixed_precision(self.device, self._network.dtype):
            scores: Tensor = self._network.get_output_embeddings()(hidden)
        described = self._network.config
        if (scale := getattr(described, "logits_scaling", 1.0)) != 1.0:  # Granite's.
            scores = scores / scale
        if (most := getattr(described, "final_logit_softcapping", None)) is not None:  # Gemma 2's.
            scores = most * torch.tanh(scores / most)
        return scores

    def trainable(self) -> dict[str, nn.Parameter]:
        """The adapters."""
        named = self._network.named_parameters()
        return {name: weight for name, weight in named if weight.requires_grad}


def load_adapted(model: Path, settings: CausalLmConfig, device: torch.device) -> Adapted:
    """Build the network in the folder `model`, its frozen weights and its adapters, on `device`.

    Without adapters (never trained), creates adapters that change nothing. Nothing is allocated
    before description, weights and configuration agree. Raises `NotFound` for a missing part,
    `InvalidInput` if the parts do not have the configured shape, and `Corrupt`.
    """
    from transformers.initialization import no_init_weights

    facts, make, architecture = _checked(model, settings)
    quantised = settings.base_precision != "stored"
    if quantised:
        held = _exact(getattr(torch, settings.base_dtype), device)
        network = _read(model, make, architecture, Place(device, held, settings.base_precision))
    else:
        with no_init_weights():
            network = _made(make, architecture)
        _set(network, read_tensors(model / BASE))
    stored = network.dtype
    if not quantised and _exact(stored, device) != stored:
        network.float()
    adapted = adapt(network, _end_token(facts), settings)
    adapted.stored = stored
    if (model / ADAPTER).is_file():
        _fill(adapted, model / ADAPTER)
    if quantised:
        keep_gradients(network)
    else:
        network.to(device)
    if is_mixed(device, network.dtype):
        for layer in network.modules():
            # Or each adapter would get a float32 copy of its input, and multiply in bfloat16.
            layer.cast_input_dtype_enabled = False
    return adapted


def _exact(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """Numbers to train with: in half precision, small gradients would vanish on a processor."""
    return torch.float32 if stored == torch.float16 and device.type == "cpu" else stored


class Answerer(NamedTuple):
    """A network that only answers."""

    network: Any
    """Of transformers."""
    adapted: Adapted
    place: Place


def load_answering(model: Path, settings: CausalLmConfig, room: Room) -> Answerer:
    """As `load_adapted`, to answer with: where there is room for it, its adapters merged into its
    weights. Raises also `StorageFull`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    facts, make, architecture = _checked(model, settings)
    place = placed(
        settings.base_parameters,
        settings.adapted_parameters,
        getattr(torch, settings.base_dtype),
        room,
    )
    network = _read(model, make, architecture, place)
    adapted = Adapted(network, _end_token(facts))
    if (model / ADAPTER).is_file():
        whole = msgspec.structs.replace(settings, gradient_checkpointing=False)
        adapted = adapt(network, adapted.end, whole)
        _fill(adapted, model / ADAPTER)
        for part in network.modules():
            # What is merged into few bits is rounded away.
            if isinstance(part, BaseTunerLayer) and place.precision == "stored":
                part.merge()
    for weight in network.parameters():
        weight.requires_grad_(False)
    if place.precision == "stored":
        network.to(place.device)
    return Answerer(network, adapted, place)


def _read(model: Path, make: Any, architecture: Any, place: Place) -> Any:
    """The network with the weights of `BASE`, to be moved to its place unless quantised there.

    Raises `InvalidInput` where nothing can be quantised.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.device("meta"):
        made = _made(make, architecture)
    further: dict[str, Any] = {}
    if place.precision != "stored":
        computed = torch.bfloat16 if is_mixed(place.device, place.dtype) else torch.float32
        further["quantization_config"] = quantisation(place.precision, computed)
        further["device_map"] = {"": place.device}
    network: Any = type(made)
    return network.from_pretrained(
        None,
        config=architecture,
        state_dict=read_tensors(model / BASE),
        dtype=place.dtype,
        attn_implementation=made.config._attn_implementation,
        **further,
    ).eval()


def _checked(model: Path, settings: CausalLmConfig) -> tuple[dict[str, Any], Any, Any]:
    """The description of a network, how to make it, and of what, once its parts agree."""
    os.environ["HF_HUB_OFFLINE"] = "1"
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


def adapt(network: Any, end: int | None, settings: CausalLmConfig) -> Adapted:
    """Give a network adapters that change nothing yet, the same at every site."""
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Without dropout, so that the same visit gives the same model.
        network = inject_adapter_in_model(_lora(network, settings), network).eval()
    adapted = Adapted(network, end)
    for weight in adapted.trainable().values():
        # The steps of an optimiser are too small for shorter numbers.
        weight.data = weight.data.float()
    if settings.gradient_checkpointing:
        _keep_little(network)
    return adapted


def _lora(network: Any, settings: CausalLmConfig) -> LoraConfig:
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    return LoraConfig(
        r=settings.adapter_rank,
        lora_alpha=ADAPTER_SCALE * settings.adapter_rank,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in network.modules()),
        task_type="CAUSAL_LM",
    )


def _keep_little(network: Any) -> None:
    """Have gradients recompute the inside of each layer."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in network.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            layer.training = True  # Its parts are not: they would drop some of their inputs.


def _made(make: Any, architecture: Any) -> Any:
    try:
        return make(architecture)
    except Exception as error:  # Each architecture checks in its own way.
        raise InvalidInput(
            f"the architecture cannot be built: {str(error)[:300]}",
            field=BASE_CONFIG,
            fix="use the description that the model was published with",
        ) from None


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
    sizes, most = _adapted_sizes(network), NUMBER_BYTES[settings.base_dtype] * header.numbers
    if header.size_bytes > most or sizes != {name: getattr(settings, name) for name in sizes}:
        raise InvalidInput(
            f"the base has {header.size_bytes} bytes and adapts {sizes}, unlike the configuration",
            field="model.config",
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
    """Make the weights of `BASE`, which names tied weights once, those of the network."""
    network.tie_weights()
    tied = _tied(network)
    shared = {name: weights[found] for name in tied for found in tied & weights.keys()}
    network.load_state_dict(weights | shared, strict=False, assign=True)
    network.tie_weights()


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
