"""A visit that is cut off goes on from its latest savepoint: nothing tells it from one that was
not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.scenes.tiny_llama import write_folder

from daitn.learning.causal_lm import CausalLm
from daitn.learning.classifier import Classifier
from daitn.learning.corpora.clinic import clinic
from daitn.learning.recipe import Progress, Resuming
from daitn.learning.saving import FileSavepoints, Saving, savepoint_file

torch = pytest.importorskip("torch")

EXAMPLES = 200


class Cut(Exception):
    """Stands for the end of the process."""


class Visit(NamedTuple):
    recipe: Any
    model: Path
    config: dict[str, object]
    data: Path

    def train(
        self, out: Path, saving: Saving | None, until: int = EXAMPLES
    ) -> tuple[dict[str, bytes], list[Progress], list[int]]:
        """The parts that it makes, what it reports and the number of reports before each of its
        savepoints. It is cut off when it reports so many examples."""
        out.mkdir()
        told: list[Progress] = []
        kept: list[int] = []

        def watch(progress: Progress) -> None:
            if progress.examples > until:
                raise Cut
            told.append(progress)

        recipe = self.recipe
        if saving is not None:
            recipe = recipe.resuming(
                FileSavepoints(saving, lambda _: kept.append(len(told)), lambda: 0.0)
            )
        try:
            recipe.train(self.model, self.config, self.data, EXAMPLES, 5, out, watch)
        except Cut:
            assert until < EXAMPLES
        return {part.name: part.read_bytes() for part in out.iterdir()}, told, kept


def of_tables(folder: Path) -> Visit:
    data, fresh = folder / "data.csv", folder / "fresh"
    rows = [f"{n % 17},{n % 5},{'high' if n % 17 > 8 else 'low'}" for n in range(70)]
    data.write_text("\n".join(["x,y,label", *rows]))
    config: dict[str, object] = {"classes": ["low", "high"], "hidden": [16], "batch": 8}
    fresh.mkdir()
    Classifier().initialise(config, 3, fresh)
    return Visit(Classifier(), fresh, config, data)


def questions(folder: Path) -> Path:
    data = folder / "data.jsonl"
    pairs = clinic()["cdc"][:80]
    data.write_text("".join(json.dumps(msgspec.to_builtins(pair)) + "\n" for pair in pairs))
    return data


def from_scratch(folder: Path) -> Visit:
    fresh = folder / "fresh"
    fresh.mkdir()
    config: dict[str, object] = {
        "layers": 1, "width": 32, "heads": 2, "vocabulary": 600, "batch": 16,
        "generation_share": 0.5, "gradient_accumulation": 2,
    }  # fmt: skip
    CausalLm().initialise(config, 3, fresh)
    return Visit(CausalLm(), fresh, config, questions(folder))


def with_adapters(folder: Path) -> Visit:
    source, parts = folder / "source", folder / "parts"
    source.mkdir()
    parts.mkdir()
    write_folder(source)
    config = CausalLm().import_model(source, parts).config
    return Visit(CausalLm(), parts, config | {"batch": 16}, questions(folder))


MAKES: tuple[Callable[[Path], Visit], ...] = (of_tables, from_scratch, with_adapters)


@pytest.fixture(scope="module", params=MAKES, ids=lambda make: make.__name__)
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    make: Callable[[Path], Visit] = request.param
    return make(tmp_path_factory.mktemp("visit"))


pytestmark = pytest.mark.usefixtures("one_thread")


def saving(folder: Path, number: int = 0, *, made_of: str = "a", every_s: float = 0.0) -> Saving:
    return Saving(folder=str(folder), made_of=made_of, every_s=every_s, number=number)


def test_a_visit_that_is_cut_off_twice_gives_the_same_model(visit: Visit, tmp_path: Path) -> None:
    assert isinstance(visit.recipe, Resuming)
    whole, told, _ = visit.train(tmp_path / "whole", None)
    folder = tmp_path / "visit"
    folder.mkdir()
    _, first, kept = visit.train(tmp_path / "first", saving(folder), until=60)
    assert len(kept) >= 2, "it is kept step by step"
    _, second, again = visit.train(tmp_path / "second", saving(folder, len(kept)), until=130)
    assert again, "it went on"
    number = len(kept) + len(again)
    resumed, last, _ = visit.train(tmp_path / "last", saving(folder, number))
    assert resumed == whole
    assert [*first[: kept[-1]], *second[: again[-1]], *last] == told


def test_a_savepoint_of_something_else_is_not_used(visit: Visit, tmp_path: Path) -> None:
    whole, told, _ = visit.train(tmp_path / "whole", None)
    folder = tmp_path / "visit"
    folder.mkdir()
    _, _, kept = visit.train(tmp_path / "first", saving(folder), until=60)
    number = len(kept)
    other = saving(folder, number, made_of="b", every_s=1e9)
    assert visit.train(tmp_path / "other", other)[:2] == (whole, told)
    file = savepoint_file(folder, number)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert visit.train(tmp_path / "damaged", saving(folder, number, every_s=1e9))[1] == told
    file.unlink()
    assert visit.train(tmp_path / "gone", saving(folder, number, every_s=1e9))[1] == told


def test_savepoints_come_in_time_and_a_full_disk_costs_none_but_themselves(
    tmp_path: Path,
) -> None:
    now_s, kept = [0.0], list[int]()
    savepoints = FileSavepoints(saving(tmp_path, every_s=30.0), kept.append, lambda: now_s[0])
    assert not savepoints.due()
    now_s[0] = 30.0
    assert savepoints.due()
    savepoints.keep(b"state")
    assert not savepoints.due()
    assert kept == [1]
    assert savepoint_file(tmp_path, 1).stat().st_mode & 0o077 == 0
    assert FileSavepoints(saving(tmp_path, 1), kept.append).latest() == b"state"
    nowhere = FileSavepoints(saving(tmp_path / "nowhere"), kept.append)
    nowhere.keep(b"state")
    assert kept == [1]
    assert nowhere.latest() is None


def test_savepoints_that_take_long_come_less_often(tmp_path: Path) -> None:
    clock = iter([0.0, 30.0, 40.0, 40.0, 239.0, 240.0])
    savepoints = FileSavepoints(saving(tmp_path, every_s=30.0), lambda _: None, lambda: next(clock))
    savepoints.keep(b"it takes ten seconds")
    assert not savepoints.due()
    assert savepoints.due()
