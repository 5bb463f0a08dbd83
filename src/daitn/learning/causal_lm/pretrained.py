"""A larger local model: frozen weights, with low-rank adapters trained on top (LoRA).

Hu et al. 2021, arXiv:2106.09685, with the library `peft`. `importing` takes the model from a local
folder; none of its code is run (`trust_remote_code` is never given, and `architecture` says which
are accepted).
"""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from daitn.learning.answering.protocol import Room
from daitn.learning.causal_lm.architecture import (
    check_shape,
    read_description,
)
from daitn.learning.causal_lm.placing import Place, placed
from daitn.learning.causal_lm.quantising import keep_gradients, quantisation
from daitn.learning.causal_lm.settings import (
    ADAPTER,
    ADAPTER_SCALE,
    BASE,
    BASE_CONFIG,
    NUMBER_BYTES,
    CausalLmConfig,
)
from daitn.learning.engine import is_mixed, mixed_precision
from daitn.learning.weights import Header, read_header, read_tensors
from daitn.objects.errors import Corrupt, InvalidInput, NotFound
from daitn.objects.models import CONFIG_FIX

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = [
    "Adapted",
    "Answerer",
    "absent_file",
    "adapted_sizes",
    "incomplete",
    "load_adapted",
    "load_answering",
    "tied_weights",
]

_MOST_BUFFER_BYTES = 64 << 20
"""Rotary frequencies and the like; models in use need less than 1 MiB."""


def adapted_sizes(network: Any) -> dict[str, int]:
    """Sizes of the layers that get adapters: parameters, and inputs and outputs."""
    widths = [layer.weight.shape for layer in _adapted_layers(network)]
    return {
        "adapted_parameters": sum(map(math.prod, widths)),
        "adapted_widths": sum(map(sum, widths)),
    }


def _adapted_layers(network: Any) -> list[Any]:
    """The layers that `peft` means by `all-linear`."""
    from transformers.pytorch_utils import Conv1D

    output = network.get_output_embeddings()
    linear = (part for part in network.modules() if isinstance(part, nn.Linear | Conv1D))
    return [layer for layer in linear if layer is not output]


class Adapted:
    """An imported network with adapters; a `LanguageModel`."""

    def __init__(self, network: Any, end: int | None) -> None:
        self._network = network
        self.end = end
        self.stored: torch.dtype = network.dtype
        """Number type of its weights in their file."""

    @property
    def network(self) -> Any:
        """From transformers, with layers of peft."""
        return self._network

    @property
    def device(self) -> torch.device:
        """See `LanguageModel.device`."""
        found: torch.device = self._network.device
        return found

    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """See `LanguageModel.hidden`."""
        # A mask with four dimensions is used unchanged.
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
            # Otherwise, each adapter would get a float32 copy of its input, and multiply in
            # bfloat16.
            layer.cast_input_dtype_enabled = False
    return adapted


def _exact(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """Numbers for training: in half precision, small gradients would vanish on a CPU."""
    return torch.float32 if stored == torch.float16 and device.type == "cpu" else stored


class Answerer(NamedTuple):
    """A network that only answers."""

    network: Any
    """The network, from transformers."""
    adapted: Adapted
    place: Place


def load_answering(model: Path, settings: CausalLmConfig, room: Room) -> Answerer:
    """Like `load_adapted`, for answering: if memory permits, its adapters are merged into its
    weights. Also raises `StorageFull`."""
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
            # Merging into few bits would round the adapters away.
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
    """The description of a network, its class, and its tensors, after checking that its parts
    agree."""
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
    """Give a network adapters that change nothing yet, identical at every site."""
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Without dropout, so that the same visit gives the same model.
        network = inject_adapter_in_model(_lora(network, settings), network).eval()
    adapted = Adapted(network, end)
    for weight in adapted.trainable().values():
        # An optimiser's steps are too small for shorter numbers.
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
            fix="use the configuration with which the model was published",
        ) from None


def _check_header(header: Header, network: Any, settings: CausalLmConfig) -> None:
    """Raise an error unless the file has the weights of `network`, which contains no numbers."""
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    for name, found in header.shapes.items():
        if found != shapes.get(name):
            raise Corrupt(
                f"{BASE}: {name} has the shape {found}, and {shapes.get(name)} is described",
                field=BASE,
                fix="import the complete model folder again",
            )
    missing, tied = shapes.keys() - header.shapes.keys(), tied_weights(network)
    absent = missing - tied if tied & header.shapes.keys() else missing
    if absent:
        raise incomplete(BASE, absent)
    if header.numbers != settings.base_parameters:
        raise InvalidInput(
            f"the base has {header.numbers} parameters, not {settings.base_parameters}",
            field="model.config.base_parameters",
            fix="give the configuration that its import printed",
        )
    sizes, most = adapted_sizes(network), NUMBER_BYTES[settings.base_dtype] * header.numbers
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
            fix="use the configuration with which the model was published",
        )


def _set(network: Any, weights: dict[str, Tensor]) -> None:
    """Load the weights of `BASE`, which names tied weights once, into the network."""
    network.tie_weights()
    tied = tied_weights(network)
    shared = {name: weights[found] for name in tied for found in tied & weights.keys()}
    network.load_state_dict(weights | shared, strict=False, assign=True)
    network.tie_weights()


def _fill(adapted: Adapted, path: Path) -> None:
    weights = adapted.trainable()
    if {name: tuple(weight.shape) for name, weight in weights.items()} != read_header(path).shapes:
        raise InvalidInput(
            "the adapters do not have the configured shape",
            field="model.config.adapter_rank",
            fix=CONFIG_FIX,
        )
    adapters = read_tensors(path)
    for name, weight in weights.items():
        weight.data.copy_(adapters[name])


def tied_weights(network: Any) -> set[str]:
    """Names of weights that share another's storage, and thus need not be in a file."""
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


def incomplete(where: str, absent: set[str]) -> Corrupt:
    """Error for missing tensors in a file or folder."""
    return Corrupt(
        f"{where} lacks {len(absent)} tensors, among them {min(absent)}",
        field=where,
        fix="import the complete model folder again",
    )


def absent_file(path: Path) -> NotFound:
    """Error for a missing model file."""
    return NotFound(
        f"no file {path}",
        field=str(path),
        fix="save the model with save_pretrained, and its fast tokenizer beside it",
    )
