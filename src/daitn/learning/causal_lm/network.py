"""The network made from scratch: a small causal transformer.

Vaswani et al. 2017, arXiv:1706.03762, with today's usual choices: normalisation before each block
(RMSNorm, arXiv:1910.07467), rotary positions (arXiv:2104.09864), no biases, and an output layer
that shares the embedding's weights (arXiv:1608.05859).
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.engine import mixed_precision

__all__ = ["LanguageModel", "Transformer"]

_Seen = tuple[Tensor, Tensor]
"""Keys and values of one block (batch x heads x length x head width)."""

_ROTARY_BASE = 10_000.0
_INITIAL_DEVIATION = 0.02
"""As in GPT-2; output projections divided by sqrt(2 layers), so that depth does not add
variance."""


class LanguageModel(Protocol):
    """What training and measuring need from a network, whether ours or imported."""

    @property
    def device(self) -> torch.device:
        """Its device."""
        ...

    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (batch x length x width); `mask` is boolean, true where visible."""
        ...

    def following(self, tokens: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Last hidden states (length x width) of tokens that continue `memory`, and the new memory.

        `None` is the empty memory. Each token of an answer thus costs one token of computation.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary."""
        ...

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        ...


class Transformer(nn.Module):
    """A decoder of `settings.layers` blocks."""

    def __init__(self, settings: CausalLmConfig, seed: int | None) -> None:
        """`seed`: for the random weights; none leaves PyTorch's initial values."""
        super().__init__()
        self._head_width = settings.width // settings.heads
        self._checkpointing = settings.gradient_checkpointing
        self.embedding = nn.Embedding(settings.vocabulary, settings.width)
        self.blocks = nn.ModuleList(
            _Block(settings.width, settings.heads) for _ in range(settings.layers)
        )
        self.norm = nn.RMSNorm(settings.width)
        if seed is None:
            return
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("out.weight", "down.weight"))
                scale = 1 / math.sqrt(2 * settings.layers) if writes else 1.0
                nn.init.normal_(weight, std=_INITIAL_DEVIATION * scale, generator=generator)

    @property
    def device(self) -> torch.device:
        """See `LanguageModel.device`."""
        return self.embedding.weight.device

    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """See `LanguageModel.hidden`."""
        rotation = _rotation(positions, self._head_width)
        # A padding token sees nothing; let it see itself, or its softmax would have no terms.
        mask = mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
        with mixed_precision(self.device, self.embedding.weight.dtype):
            states = self.embedding(tokens)
            for block in self.blocks:
                if self._checkpointing and torch.is_grad_enabled():
                    states = checkpoint(block, states, rotation, mask, use_reentrant=False)
                else:
                    states = block(states, rotation, mask)
            normed: Tensor = self.norm(states)
        return normed

    def following(self, tokens: Tensor, memory: list[_Seen] | None) -> tuple[Tensor, list[_Seen]]:
        """See `LanguageModel.following`."""
        before = 0 if memory is None else memory[0][0].shape[2]
        every = torch.arange(before + len(tokens), device=self.device)
        to = every[before:]
        mask = to[:, None] >= every[None, :]
        rotation = _rotation(to[None], self._head_width)
        remembered = []
        with mixed_precision(self.device, self.embedding.weight.dtype):
            states = self.embedding(tokens.to(self.device))[None]
            for number, block in enumerate(self.blocks):
                assert isinstance(block, _Block)
                seen = None if memory is None else memory[number]
                states, kept = block.going_on(states, rotation, mask, seen)
                remembered.append(kept)
            return self.norm(states)[0], remembered

    def logits(self, hidden: Tensor) -> Tensor:
        """See `LanguageModel.logits`."""
        with mixed_precision(self.device, self.embedding.weight.dtype):
            return functional.linear(hidden, self.embedding.weight)

    def trainable(self) -> dict[str, nn.Parameter]:
        """All parameters."""
        return dict(self.named_parameters())


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm_attention = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_feed = nn.RMSNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        return self.going_on(states, rotation, mask, None)[0]

    def going_on(
        self, states: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, seen: _Seen | None
    ) -> tuple[Tensor, _Seen]:
        """Like `forward`, continuing from `seen`; also returns the extended `seen`."""
        batch, length, width = states.shape
        shape = (batch, length, 3, self._heads, width // self._heads)
        query, key, value = self.qkv(self.norm_attention(states)).view(shape).permute(2, 0, 3, 1, 4)
        key = _rotated(key, rotation).to(value.dtype)
        if seen is not None:
            key, value = torch.cat((seen[0], key), dim=2), torch.cat((seen[1], value), dim=2)
        # Rotation is exact, in float32, even if everything else is less precise.
        attended = functional.scaled_dot_product_attention(
            _rotated(query, rotation).to(value.dtype), key, value, attn_mask=mask
        )
        states = states + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        fed: Tensor = self.down(functional.gelu(self.up(self.norm_feed(states))))
        return states + fed, (key, value)


def _rotation(positions: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    pairs = torch.arange(0, head_width, 2, device=positions.device)
    frequencies = _ROTARY_BASE ** -(pairs / head_width)
    angles = positions[:, None, :, None] * torch.cat((frequencies, frequencies))
    return angles.cos(), angles.sin()


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine
