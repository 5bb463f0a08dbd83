"""Compressed updates: what they lose, what they refuse, and that nothing is lost for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from daitn.learning.compression import compress, rebuild
from daitn.objects.compression import UPDATE, Compression
from daitn.objects.errors import Corrupt

FORMS = [Compression.BF16, Compression.INT8, Compression.TOPK]
WEIGHTS = "weights.safetensors"
PART = f"weights{UPDATE}"


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "layer": torch.randn(20, 30, generator=generator).to(dtype),
        "zeros": torch.zeros(3, 2, dtype=dtype),
        "bias": torch.randn(20, generator=generator).to(dtype),
        "count": torch.randn(1, generator=generator).double(),
    }


def folder(path: Path, weights: dict[str, Tensor]) -> Path:
    path.mkdir()
    save_file(weights, path / WEIGHTS, metadata={"seen": "7"})
    return path


def travelled(base: Path, trained: Path, how: Compression, before: Path | None = None) -> Path:
    """The rebuilt model."""
    left = trained.parent / f"{trained.name}-left"
    compress(base, "digest", trained, how, before, left)
    assert [path.name for path in trained.iterdir()] == [PART]
    out = trained.parent / f"{trained.name}-whole"
    out.mkdir()
    rebuild(base, "digest", trained, out)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", FORMS)
def test_an_update_is_near_small_tensors_are_exact_and_the_rest_is_kept(
    how: Compression, dtype: torch.dtype, tmp_path: Path
) -> None:
    start, after = tensors(1, dtype), tensors(2, dtype)
    base, trained = folder(tmp_path / "base", start), folder(tmp_path / "trained", after)
    whole_bytes = (trained / WEIGHTS).stat().st_size
    found = load_file(travelled(base, trained, how) / WEIGHTS)
    assert found.keys() == after.keys()
    for name in ("bias", "count", "zeros"):
        torch.testing.assert_close(found[name], after[name], rtol=0, atol=0)
    lost = load_file(tmp_path / "trained-left")[f"{WEIGHTS}/layer"]
    if dtype is torch.float32:
        torch.testing.assert_close(found["layer"] + lost, after["layer"], rtol=0, atol=1e-5)
        assert (trained / PART).stat().st_size < 0.7 * whole_bytes
    assert found["layer"].dtype == dtype


@given(st.integers(0, 10**6), st.sampled_from(FORMS))
@settings(max_examples=20, deadline=None)
def test_what_an_update_loses_comes_with_the_next(
    tmp_path_factory: pytest.TempPathFactory, seed: int, how: Compression
) -> None:
    """The updates of many visits sum up to what was learned, but for one visit's loss."""
    tmp_path = tmp_path_factory.mktemp("updates")
    base = folder(tmp_path / "base", tensors(0))
    start, learned, arrived = load_file(base / WEIGHTS), torch.zeros(20, 30), torch.zeros(20, 30)
    before = None
    for visit in range(8):
        step = torch.randn(20, 30, generator=torch.Generator().manual_seed(seed + visit))
        after = {**start, "layer": start["layer"] + step}
        trained = folder(tmp_path / str(visit), after)
        found = load_file(travelled(base, trained, how, before) / WEIGHTS)
        learned += step
        arrived += found["layer"] - start["layer"]
        before = tmp_path / f"{visit}-left"
    assert before is not None
    lost = load_file(before)[f"{WEIGHTS}/layer"]
    torch.testing.assert_close(arrived + lost, learned, rtol=0, atol=1e-3)


def test_weights_that_the_base_does_not_have_travel_as_they_are(tmp_path: Path) -> None:
    base, trained = tmp_path / "base", folder(tmp_path / "trained", tensors(2))
    base.mkdir()
    compress(base, "digest", trained, Compression.INT8, None, tmp_path / "left")
    assert [path.name for path in trained.iterdir()] == [WEIGHTS]
    assert not (tmp_path / "left").exists()


def test_a_frozen_part_stays_as_it_is(tmp_path: Path) -> None:
    base, trained = folder(tmp_path / "base", tensors(1)), folder(tmp_path / "it", tensors(2))
    save_file(tensors(3), base / "base.safetensors")
    (trained / "base.safetensors").symlink_to(base / "base.safetensors")
    compress(base, "digest", trained, Compression.INT8, None, tmp_path / "left")
    assert {path.name for path in trained.iterdir()} == {PART, "base.safetensors"}


def changed(sent: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    merged = {**sent, **{name.replace("__", "."): one for name, one in changes.items()}}
    return {name: one for name, one in merged.items() if one is not None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"values__layer": None}, "fits layer"),
        ({"values__layer": torch.zeros(700), "index__layer": torch.zeros(700).int()}, "fits layer"),
        ({"index__layer": torch.full((38,), 600, dtype=torch.int32)}, "the model has none"),
        ({"index__layer": torch.full((38,), -1, dtype=torch.int32)}, "the model has none"),
        ({"whole__bias": torch.zeros(21)}, "fits bias"),
        ({"whole__bias": torch.zeros(20).double()}, "is of torch.float64"),
        ({"whole__other": torch.zeros(2)}, "of no tensor"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(
    changes: dict[str, Tensor | None], says: str, tmp_path: Path
) -> None:
    base, trained = folder(tmp_path / "base", tensors(1)), folder(tmp_path / "it", tensors(2))
    travelled(base, trained, Compression.TOPK)
    sent = load_file(trained / PART)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Corrupt, match="another model"):
        rebuild(base, "another", trained, out)
    save_file(
        changed(sent, **changes), trained / PART, {"daitn.update.base": "digest", "seen": "7"}
    )
    with pytest.raises(Corrupt, match=says):
        rebuild(base, "digest", trained, out)


def test_what_is_made_of_other_numbers_than_weights_stays_as_it_is(tmp_path: Path) -> None:
    """As trees are: an update was asked for where links are slow, and every visit failed."""
    trees = {"trees.column": torch.arange(6, dtype=torch.int32), "trees.leaf": torch.ones(6)}
    base = folder(tmp_path / "base", {name: each[:3] for name, each in trees.items()})
    trained = folder(tmp_path / "trained", trees)
    before = (trained / WEIGHTS).read_bytes()
    compress(base, "digest", trained, Compression.INT8, None, tmp_path / "left")
    assert [path.name for path in trained.iterdir()] == [WEIGHTS]
    assert (trained / WEIGHTS).read_bytes() == before
    assert not (tmp_path / "left").exists()
