"""Rows of a batch are read together with others about as long."""

from __future__ import annotations

import random
from typing import Any

import pytest

from daitn.learning.causal_lm.settings import CausalLmConfig

torch = pytest.importorskip("torch")

CPU = torch.device("cpu")


def rows_of(lengths: list[int]) -> Any:
    from daitn.learning.causal_lm.rows import TokenRow

    rng = random.Random(1)
    return [
        TokenRow([rng.randrange(300) for _ in range(length)], [[5, 6, 7]] * rng.randrange(1, 4))
        for length in lengths
    ]


def tokens(reads: Any) -> int:
    return sum(batch.tokens.numel() for batch in reads.batches)


@pytest.mark.parametrize(
    ("lengths", "batches", "on_gpu"),
    [
        ([40], 1, 1),
        ([20, 60, 30, 50], 1, 1),
        ([300, 90, 80], 2, 1),
        ([900, 20, 900, 30], 2, 1),
        ([2000, 10, 700, 690, 12], 3, 2),
    ],
)
def test_padding_is_read_where_another_read_would_cost_more(
    lengths: list[int], batches: int, on_gpu: int
) -> None:
    from daitn.learning.causal_lm.rows import reads, tensors

    rows = rows_of(lengths)
    found = reads(rows, CPU)
    assert len(found.batches) == batches
    if batches == 1:
        assert torch.equal(found.batches[0].tokens, tensors(rows).tokens)
    assert len(reads(rows, torch.device("cuda")).batches) == on_gpu


def test_scores_are_those_of_the_rows_as_they_were_given() -> None:
    from daitn.learning.causal_lm.network import Transformer
    from daitn.learning.causal_lm.rows import continuation_scores, reads, tensors

    network: Any = Transformer(CausalLmConfig(layers=1, width=32, heads=2, vocabulary=300), 0)
    rows = rows_of([900, 20, 1800, 30, 880, 25])
    found = reads(rows, CPU)
    assert len(found.batches) == 3
    with torch.no_grad():
        scores, lengths = found.scores(network)
        expected, counts, _ = continuation_scores(network, tensors(rows))
    assert torch.equal(lengths, counts)
    assert torch.allclose(scores, expected, atol=1e-4)


def test_long_tails_are_hardly_padded() -> None:
    """Lengths as of texts that people write: half as long again as usual is nothing rare."""
    from daitn.learning.causal_lm.rows import reads, tensors

    rng = random.Random(0)
    own = computed = padded = 0
    for _ in range(20):
        rows = rows_of([min(1024, int(rng.lognormvariate(5.0, 0.9))) for _ in range(16)])
        own += sum(map(len, rows))
        computed += tokens(reads(rows, CPU))
        padded += tensors(rows).tokens.numel()
    assert padded > 2 * own
    assert computed < 1.1 * own
