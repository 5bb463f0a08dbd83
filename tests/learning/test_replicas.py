"""A network on several devices learns what it learns on one; processors stand for GPUs here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tiny_llama import write_folder

from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.corpora.clinic import clinic
from daitn.learning.recipe import Progress
from daitn.learning.saving import FileSavepoints, Saving

torch = pytest.importorskip("torch")

PAIRS = clinic()["cdc"][:60]
EXAMPLES = 96
Parts = tuple[Path, dict[str, object]]


class Cut(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module", params=["imported", "from scratch"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    from daitn.learning.causal_lm.importing import import_pretrained

    parts, folder = tmp_path_factory.mktemp("parts"), tmp_path_factory.mktemp("at") / "folder"
    if request.param == "imported":
        write_folder(folder, deviation=0.02)
        return parts, import_pretrained(folder, parts)
    config: dict[str, object] = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 600}
    CausalLm().initialise(config, 0, parts)
    return parts, config


def trained(
    parts: Parts, devices: int, saving: Saving | None = None, until: int = EXAMPLES, **change: Any
) -> tuple[Any, list[float]]:
    """All weights after a visit, in one, and the losses that it told."""
    from daitn.learning.causal_lm import models, training

    settings = CausalLmConfig.of(parts[1] | change)
    model, *others = (models.load(parts[0], settings) for _ in range(devices))
    told: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.examples > until:
            raise Cut
        told.append(progress.loss)

    kept = None if saving is None else FileSavepoints(saving, lambda _: None, lambda: 0.0)
    networks = [other.network for other in others]
    try:
        training.train(model, settings, PAIRS, EXAMPLES, 5, watch, 10, kept, networks)
    except Cut:
        assert until < EXAMPLES
    weights = [weight.detach().flatten() for weight in model.network.trainable().values()]
    return torch.cat(weights), told


@pytest.mark.parametrize("devices", [2, 3])
def test_several_devices_learn_what_one_learns(
    parts: Parts, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daitn.learning.causal_lm import training

    monkeypatch.setattr(training, "blur", lambda *_: None)  # Other weights get other noise.
    start, _ = trained(parts, 1, until=0)
    exact, losses = trained(parts, 1)
    other, same = trained(parts, devices)
    assert same == pytest.approx(losses, rel=1e-4)
    # Adam's first steps follow signs, which rounding turns where a gradient is next to nothing.
    assert float((other - exact).norm()) < 1e-3 * float((exact - start).norm())


def test_each_device_reads_its_share(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    from daitn.learning.causal_lm import training

    read: dict[int, list[int]] = {}
    whole = training._channel_loss

    def loss(network: Any, piece: Any) -> Any:
        records = sum(map(len, piece.groups))
        read.setdefault(id(network), []).append(records)
        return whole(network, piece)

    monkeypatch.setattr(training, "_channel_loss", loss)
    trained(parts, 2, gradient_accumulation=3)
    shares = [sum(records) for records in read.values()]
    assert len(shares) == 2
    assert sum(shares) == EXAMPLES
    assert min(shares) > EXAMPLES // 4
    # Three pieces are configured, and two devices read four.
    assert max(max(records) for records in read.values()) <= 16 // 3 + 6


def test_a_visit_on_several_devices_goes_on_where_it_was(parts: Parts, tmp_path: Path) -> None:
    saving = Saving(folder=str(tmp_path), made_of="a visit", every_s=0.0)
    whole, losses = trained(parts, 2)
    trained(parts, 2, saving, until=EXAMPLES // 2)
    numbers = [int(path.stem) for path in tmp_path.glob("*.savepoint")]
    assert numbers
    resumed = Saving(folder=str(tmp_path), made_of="a visit", every_s=1e9, number=max(numbers))
    again, rest = trained(parts, 2, resumed)
    assert torch.equal(again, whole)
    assert rest == losses[-len(rest) :]


def test_what_fails_on_one_device_fails_the_visit(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daitn.learning.causal_lm import training

    whole = training._channel_loss
    calls: Iterator[int] = iter(range(100))

    def loss(network: Any, piece: Any) -> Any:
        if next(calls) == 3:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return whole(network, piece)

    monkeypatch.setattr(training, "_channel_loss", loss)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trained(parts, 2)


def test_gpus_of_one_kind_compute_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from daitn.learning import engine

    names = ["H100", "H100", "GT 710"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: names[number])
    assert engine.engine_devices() == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert engine.engine_device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine.engine_devices() == [torch.device("cpu")]


def test_the_probe_tells_of_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from daitn.learning import machine_probe

    cpu = torch.device("cpu")
    monkeypatch.setattr(machine_probe, "_step_durations", lambda *_: [0.5])
    one = machine_probe.probe()
    monkeypatch.setattr(machine_probe, "engine_devices", lambda: [cpu, cpu])
    two = machine_probe.probe()
    assert two.device == f"2 x {one.device}"
    assert two.speed_flops == 2 * one.speed_flops
    assert two.memory_bytes == one.memory_bytes
