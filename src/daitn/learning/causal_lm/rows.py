"""Many short continuations of one long text, as tensors.

A row is a context (an answer) and several continuations (questions) that all follow the context and
do not see one another. Reading a context once for all its continuations makes it affordable to rank
every answer on a disease against every question about it: with five of each, a row costs about 130
tokens instead of the 390 of five separate texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from daitn.learning.causal_lm.network import LanguageModel

__all__ = [
    "ReadRows",
    "Rows",
    "TokenRow",
    "context_loss",
    "continuation_scores",
    "placed",
    "reads",
    "tensors",
]

_PER_READ_TOKENS = {"cpu": 128}
"""Overhead of a read in tokens: padding below that is cheaper than another read. On CPUs, 20 to 130
were measured, most with networks of some 100,000 weights."""
_PER_READ_ELSEWHERE = 2048
"""On GPUs, which wait for input: assumed."""


class TokenRow(msgspec.Struct, frozen=True):
    """Token sequences: the context, and each of its possible continuations."""

    context: list[int]
    continuations: list[list[int]]

    def __len__(self) -> int:
        return len(self.context) + sum(map(len, self.continuations))


class Rows(msgspec.Struct, frozen=True):
    """A batch of rows, padded on the right, on the CPU.

    All that is looked up and counted in it is known there, so that nothing waits for a GPU.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    """0 in the context, k in the k-th continuation, -1 in the padding."""
    read: Tensor
    """Positions, in the flattened batch, of tokens followed by another of the context."""
    scored: Tensor
    """Positions of tokens followed by another of their continuation."""
    cells: Tensor
    """For each of those, its continuation, numbered over all rows."""
    continuations: int
    """Maximum number in a row."""

    def hidden(self, network: LanguageModel) -> Tensor:
        """Last hidden states (batch x length x width), on the network's device."""
        device = network.device
        mask = _mask(placed(self.segments, device))
        return network.hidden(placed(self.tokens, device), placed(self.positions, device), mask)

    def log_likelihoods(self, network: LanguageModel, hidden: Tensor, places: Tensor) -> Tensor:
        """Log likelihoods of the tokens that follow those at `places` of the flattened batch."""
        targets = placed(self.tokens.flatten()[places + 1], hidden.device)
        logits = network.logits(hidden.flatten(0, 1)[placed(places, hidden.device)]).float()
        return -functional.cross_entropy(logits, targets, reduction="none")


def tensors(rows: Sequence[TokenRow]) -> Rows:
    """Lay rows out as a padded batch."""
    length = max(map(len, rows))
    tokens = np.zeros((len(rows), length), dtype=np.int64)
    positions = np.zeros_like(tokens)
    segments = np.full_like(tokens, -1)
    for index, row in enumerate(rows):
        end = context = len(row.context)
        tokens[index, :end] = row.context
        positions[index, :end] = np.arange(end)
        segments[index, :end] = 0
        for number, part in enumerate(row.continuations, start=1):
            begin, end = end, end + len(part)
            tokens[index, begin:end] = part
            positions[index, begin:end] = np.arange(context, context + len(part))
            segments[index, begin:end] = number
    before, after = segments[:, :-1], segments[:, 1:]
    at, column = np.nonzero((before > 0) & (before == after))
    most = int(segments.max())
    return Rows(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        segments=torch.from_numpy(segments),
        read=_flat(np.nonzero((before == 0) & (after == 0)), length),
        scored=_flat((at, column), length),
        cells=torch.from_numpy(at * most + segments[at, column] - 1),
        continuations=most,
    )


class ReadRows(msgspec.Struct, frozen=True):
    """Rows read in a few batches, each of rows of similar length."""

    batches: list[Rows]
    order: list[int]
    """For the rows in the given order: their positions in the consecutive batches."""

    def scores(self, network: LanguageModel) -> tuple[Tensor, Tensor]:
        """Scores and lengths as in `continuation_scores`, for the rows in the given order."""
        most = max(rows.continuations for rows in self.batches)
        read = [continuation_scores(network, rows)[:2] for rows in self.batches]
        scores, lengths = (
            torch.cat([functional.pad(one, (0, most - one.shape[1])) for one in ones])
            for ones in zip(*read, strict=True)
        )
        if self.order == sorted(self.order):
            return scores, lengths
        order = placed(torch.tensor(self.order), scores.device)
        return scores[order], lengths[order]


def reads(rows: Sequence[TokenRow], device: torch.device) -> ReadRows:
    """Lay rows out in the number of padded batches that makes reading them on `device` cheapest."""
    ascending = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    per_read = _PER_READ_TOKENS.get(device.type, _PER_READ_ELSEWHERE)
    cuts = _cuts([len(rows[index]) for index in ascending], per_read)
    if len(cuts) == 1:
        return ReadRows([tensors(rows)], list(range(len(rows))))
    batches = [tensors([rows[index] for index in ascending[first:end]]) for first, end in cuts]
    order = sorted(range(len(rows)), key=ascending.__getitem__)
    return ReadRows(batches, order)


def _cuts(lengths: Sequence[int], per_read: int) -> list[tuple[int, int]]:
    """Where to cut ascending lengths, to minimise the cost of padding and reads together."""
    costs, starts = [0], [0]
    for end in range(1, len(lengths) + 1):
        cost, start = min(
            (costs[start] + (end - start) * lengths[end - 1] + per_read, start)
            for start in range(end)
        )
        costs.append(cost)
        starts.append(start)
    cuts, end = list[tuple[int, int]](), len(lengths)
    while end:
        cuts.append((starts[end], end))
        end = starts[end]
    return cuts[::-1]


def _flat(places: tuple[NDArray[np.int64], ...], length: int) -> Tensor:
    row, column = places
    return torch.from_numpy(row * length + column)


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`, without waiting for what computes there."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # From other memory, a copy waits.
    return tensor.to(device, non_blocking=True)


def _mask(segments: Tensor) -> Tensor:
    """Boolean, batch x 1 x to x from: the tokens visible to each token."""
    order = torch.arange(segments.shape[1], device=segments.device)
    earlier = order[:, None] >= order[None, :]
    to, origin = segments[:, :, None], segments[:, None, :]
    seen = earlier & ((to == origin) | ((origin == 0) & (to > 0)))
    return seen[:, None]


def continuation_scores(network: LanguageModel, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihoods (natural) of the continuations given their context.

    Returns (scores, lengths, hidden), where the network computes: scores and token counts as rows x
    continuations, and the last hidden states. The first token of a continuation, its mark, is given
    and not scored.
    """
    hidden = rows.hidden(network)
    log_likelihoods = rows.log_likelihoods(network, hidden, rows.scored)
    most, cells = rows.continuations, placed(rows.cells, hidden.device)
    empty = torch.zeros(len(rows.tokens) * most, device=hidden.device)
    scores = empty.index_add(0, cells, log_likelihoods)
    lengths = empty.index_add(0, cells, torch.ones_like(log_likelihoods))
    return scores.view(-1, most), lengths.view(-1, most), hidden


def context_loss(network: LanguageModel, rows: Rows) -> Tensor:
    """Sum of the negative log-likelihoods of the contexts' own tokens except the first."""
    return -rows.log_likelihoods(network, rows.hidden(network), rows.read).sum()
