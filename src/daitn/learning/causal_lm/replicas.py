"""Data parallelism: one network on several GPUs, each of which reads a part of every batch.

They share one process, with a thread for each. A visit has neither sockets nor further processes,
by which PyTorch's own data parallelism goes; and what is exchanged after each step, the gradients
of adapters, is little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from daitn.learning.causal_lm.network import LanguageModel

__all__ = ["Replicas"]

PartT = TypeVar("PartT")
ResultT = TypeVar("ResultT")


class Replicas:
    """Identical networks. An optimiser changes the first, and the others follow."""

    def __init__(self, networks: Sequence[LanguageModel]) -> None:
        """`networks`: at least one, each on a separate device."""
        self._networks = networks
        self._weights = [list(network.trainable().values()) for network in networks]

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def first(self) -> LanguageModel:
        return self._networks[0]

    @property
    def weights(self) -> list[nn.Parameter]:
        """The trainable weights of the first."""
        return self._weights[0]

    def each(
        self, work: Callable[[LanguageModel, PartT], ResultT], parts: Sequence[PartT]
    ) -> list[ResultT]:
        """The results of `work` on each part, concurrently on all devices. Raises what it
        raises."""
        count = len(self)

        def own(number: int) -> list[ResultT]:
            return [work(self._networks[number], part) for part in parts[number::count]]

        if count == 1:
            return own(0)
        with ThreadPoolExecutor(count) as threads:
            done = list(threads.map(own, range(count)))
        return [done[place % count][place // count] for place in range(len(parts))]

    def gather(self) -> None:
        """Add the gradients of the others to those of the first."""
        for first, *others in zip(*self._weights, strict=True):
            for other in others:
                if other.grad is None:
                    continue
                grad = other.grad.to(first.device, non_blocking=True)
                first.grad = grad if first.grad is None else first.grad.add_(grad)
                other.grad = None

    @torch.no_grad()
    def spread(self) -> None:
        """Copy the weights of the first to the others."""
        for first, *others in zip(*self._weights, strict=True):
            for other in others:
                other.copy_(first, non_blocking=True)

    def together(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """These tensors, from several devices, on the first."""
        return [tensor.to(self.first.device, non_blocking=True) for tensor in tensors]
