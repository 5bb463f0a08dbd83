"""Many short texts behind one long one, as tensors.

A row is a context (an answer) and several continuations (questions) that all follow the context and
do not see one another. Reading a context once for all its continuations makes it affordable to rank
every answer on a disease against every question about it: with five of each, a row costs about 130
tokens instead of the 390 of five separate texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from daitn.learning.causal_lm.network import LanguageModel

__all__ = ["Rows", "TokenRow", "context_loss", "continuation_scores", "tensors"]


class TokenRow(msgspec.Struct, frozen=True):
    """Token sequences: the context, and each of its possible continuations."""

    context: list[int]
    continuations: list[list[int]]

    def __len__(self) -> int:
        return len(self.context) + sum(map(len, self.continuations))


class Rows(msgspec.Struct, frozen=True):
    """A batch of rows, padded on the right."""

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    """0 in the context, k in the k-th continuation, -1 in the padding."""
    mask: Tensor
    """Boolean, batch x 1 x to x from: what each token sees."""

    def on(self, device: torch.device) -> Rows:
        """The same, where a network is."""
        parts = (self.tokens, self.positions, self.segments, self.mask)
        return Rows(*(part.to(device) for part in parts))


def tensors(rows: Sequence[TokenRow]) -> Rows:
    """Lay rows out as a padded batch."""
    length = max(map(len, rows))
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(tokens)
    segments = torch.full_like(tokens, -1)
    for index, row in enumerate(rows):
        start, place = len(row.context), len(row)
        parts = [row.context, *row.continuations]
        tokens[index, :place] = torch.tensor([token for part in parts for token in part])
        counted = [*range(start)]
        for part in row.continuations:
            counted.extend(range(start, start + len(part)))
        positions[index, :place] = torch.tensor(counted)
        numbers = [number for number, part in enumerate(parts) for _ in part]
        segments[index, :place] = torch.tensor(numbers)
    return Rows(tokens, positions, segments, _mask(segments))


def _mask(segments: Tensor) -> Tensor:
    order = torch.arange(segments.shape[1])
    earlier = order[:, None] >= order[None, :]
    to, origin = segments[:, :, None], segments[:, None, :]
    seen = earlier & ((to == origin) | ((origin == 0) & (to > 0)))
    return seen[:, None]


def continuation_scores(network: LanguageModel, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihoods (natural) of the continuations given their context.

    Returns (scores, lengths, hidden): scores and token counts as rows x continuations, and the last
    hidden states. The first token of a continuation, its mark, is given and not scored.
    """
    hidden = network.hidden(rows.tokens, rows.positions, rows.mask)
    segments = rows.segments
    scored = (segments[:, :-1] > 0) & (segments[:, :-1] == segments[:, 1:])
    log_likelihoods = -functional.cross_entropy(
        network.logits(hidden[:, :-1][scored]).float(), rows.tokens[:, 1:][scored], reduction="none"
    )
    most = int(segments.max())
    row, column = scored.nonzero(as_tuple=True)
    cell = row * most + segments[row, column] - 1
    empty = torch.zeros(segments.shape[0] * most, device=hidden.device)
    scores = empty.index_add(0, cell, log_likelihoods)
    lengths = empty.index_add(0, cell, torch.ones_like(log_likelihoods))
    return scores.view(-1, most), lengths.view(-1, most), hidden


def context_loss(network: LanguageModel, rows: Rows) -> Tensor:
    """Mean negative log-likelihood per token of the contexts themselves."""
    hidden = network.hidden(rows.tokens, rows.positions, rows.mask)
    scored = (rows.segments[:, :-1] == 0) & (rows.segments[:, 1:] == 0)
    return functional.cross_entropy(
        network.logits(hidden[:, :-1][scored]).float(), rows.tokens[:, 1:][scored]
    )
