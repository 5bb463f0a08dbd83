"""What recipes make of what an algorithm asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.scenes.tiny_llama import write_folder

from daitn.learning.causal_lm import CausalLm
from daitn.learning.classifier import Classifier
from daitn.learning.commands import Train, WorkerFailed
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.local.companions import COMPANIONS
from daitn.learning.recipe import Adapting, LocalTask, MergeTask, Resuming
from daitn.learning.saving import FileSavepoints, Saving
from daitn.learning.service import Service
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.merging import LocalRule, MergeRule

EXAMPLES = 96
SCAFFOLD = LocalRule(merged=True, variates=True)
EWC = LocalRule(consolidation=0.1)


class Trained(NamedTuple):
    """A recipe, a model that has visited a site, and two sites."""

    recipe: Any
    model: Path
    config: dict[str, object]
    sites: tuple[Path, Path]
    weights: str

    def visit(self, out: Path, task: LocalTask, site: int = 0, model: Path | None = None) -> Path:
        out.mkdir()
        start = model or self.model
        recipe = self.recipe.adapting(task)
        done = recipe.train(
            start, self.config, self.sites[site], EXAMPLES, 5, out, lambda progress: None
        )
        for part in done.carried:
            (out / part).symlink_to(start / part)
        return out

    def of(self, model: Path) -> dict[str, torch.Tensor]:
        found = load_file(model / self.weights)
        return {name: tensor for name, tensor in found.items() if not name.startswith("standard")}

    def merge(self, models: list[Path], out: Path) -> Path:
        out.mkdir()
        task = MergeTask(
            base=str(self.model), models=tuple(map(str, models)), rule=MergeRule(), seed=0,
            shares=(1.0, 3.0),
        )  # fmt: skip
        for part in self.recipe.merge(task, self.config, out, out / "moments"):
            (out / part).symlink_to(self.model / part)
        return out


def of_tables(folder: Path) -> Trained:
    sites = []
    for site in range(2):
        rows = [
            f"{(n * (site + 1)) % 17},{n % 5},{'high' if n % 17 > 8 - 3 * site else 'low'}"
            for n in range(70)
        ]
        sites.append(folder / f"{site}.csv")
        sites[-1].write_text("\n".join(["x,y,label", *rows]))
    config: dict[str, object] = {"classes": ["low", "high"], "hidden": [16], "batch": 8}
    (folder / "fresh").mkdir()
    Classifier().initialise(config, 3, folder / "fresh")
    return _after_a_visit(
        Trained(
            Classifier(), folder / "fresh", config, (sites[0], sites[1]), "weights.safetensors"
        ),
        folder,
    )


def with_adapters(folder: Path) -> Trained:
    (folder / "source").mkdir()
    (folder / "parts").mkdir()
    write_folder(folder / "source")
    config = dict(CausalLm().import_model(folder / "source", folder / "parts").config)
    sites = []
    for site in ("cdc", "ghr"):
        sites.append(folder / f"{site}.jsonl")
        write_records(sites[-1], clinic()[site][:40])
    made = Trained(
        CausalLm(), folder / "parts", config, (sites[0], sites[1]), "adapter.safetensors"
    )
    return _after_a_visit(made, folder)


def _after_a_visit(fresh: Trained, folder: Path) -> Trained:
    return fresh._replace(model=fresh.visit(folder / "visited", LocalTask()))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=[of_tables, with_adapters], ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    make: Callable[[Path], Trained] = request.param
    return make(tmp_path_factory.mktemp("made"))


def moved(made: Trained, model: Path) -> float:
    before = made.of(made.model)
    gaps = [(tensor - before[name]).flatten() for name, tensor in made.of(model).items()]
    return float(torch.cat(gaps).norm())


def test_a_recipe_trains_as_the_algorithm_asks(made: Trained, tmp_path: Path) -> None:
    """FedProx holds a model back, the more the larger mu is; a round holds nothing else back."""
    assert isinstance(made.recipe, Adapting)
    rules = {
        "plain": LocalRule(),
        "merged": LocalRule(merged=True),
        "prox": LocalRule(merged=True, mu=1.0),
        "strong": LocalRule(merged=True, mu=100.0),
    }
    far = {
        name: moved(made, made.visit(tmp_path / name, LocalTask(rule=rule)))
        for name, rule in rules.items()
    }
    assert far["strong"] < far["prox"] < far["merged"]
    plain = made.of(tmp_path / "plain")
    if isinstance(made.recipe, Classifier):  # Its pull on routes is FedProx's.
        rule = LocalRule(merged=True, mu=0.03)
        usual = made.of(made.visit(tmp_path / "usual", LocalTask(rule=rule)))
        assert all(torch.equal(usual[name], tensor) for name, tensor in plain.items())
        stated = made._replace(config=made.config | {"proximal": 0.03})
        as_stated = LocalTask(rule=LocalRule(merged=True))
        found = stated.of(stated.visit(tmp_path / "stated", as_stated))
        assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())
        assert far["plain"] != far["merged"]
    else:
        assert far["plain"] < 0.7 * far["merged"], "`keep` halves the way on routes"


def test_variates_travel_with_models_and_are_merged(made: Trained, tmp_path: Path) -> None:
    models = [made.visit(tmp_path / f"{site}", LocalTask(rule=SCAFFOLD), site) for site in range(2)]
    own = [load_file(model / COMPANIONS) for model in models]
    before = made.of(made.model)
    for model, variate in zip(models, own, strict=True):
        assert set(variate) == {f"variate.{name}" for name in made.of(model)}
        ratios = [
            (before[name] - tensor).flatten() / variate[f"variate.{name}"].flatten()
            for name, tensor in made.of(model).items()
        ]
        found = torch.cat(ratios)
        found = found[found.isfinite() & (found != 0.0)]
        torch.testing.assert_close(found, found[:1].expand(len(found)), rtol=1e-3, atol=0.0)
        assert float(found[0]) > 0.0, "the sum of the sizes of its steps"
    merged = made.merge(models, tmp_path / "merged")
    for name, tensor in load_file(merged / COMPANIONS).items():
        torch.testing.assert_close(tensor, (own[0][name] + 3 * own[1][name]) / 4)
    with_own, without = (
        made.visit(tmp_path / f"again-{bool(own)}", LocalTask(rule=SCAFFOLD, own=own), 0, merged)
        for own in (str(models[0]), "")
    )
    plain = made.visit(tmp_path / "plain", LocalTask(rule=LocalRule(merged=True)), 0, merged)
    assert moved(made, with_own) != moved(made, without)
    for name, tensor in made.of(without).items():
        assert torch.equal(tensor, made.of(plain)[name]), "without its own it corrects nothing"


def test_importance_travels_and_holds_the_next_visit_back(made: Trained, tmp_path: Path) -> None:
    first = made.visit(tmp_path / "first", LocalTask(rule=EWC))
    importance = load_file(first / COMPANIONS)
    assert set(importance) == {f"importance.{name}" for name in made.of(first)}
    assert all(bool((tensor > 0.0).all()) for tensor in importance.values())
    for name, weight in made.of(first).items():
        found = importance[f"importance.{name}"].shape
        assert found == (len(weight), *(1 for _ in weight.shape[1:])), "one for each unit"
    strong = LocalTask(rule=LocalRule(consolidation=100.0))
    last = {}
    for name, task in (("weak", LocalTask(rule=EWC)), ("strong", strong)):
        left = made.of(made.visit(tmp_path / name, task, 1, first))
        before = made.of(first)
        last[name] = sum(float((left[n] - before[n]).square().sum()) for n in before)
    assert last["strong"] < last["weak"]
    after = made.visit(tmp_path / "other", LocalTask(), 1, first)
    assert not (after / COMPANIONS).exists(), "of no use to another algorithm"


def test_a_visit_that_is_cut_off_keeps_what_the_algorithm_needs(
    made: Trained, tmp_path: Path
) -> None:
    base = made.merge(
        [made.visit(tmp_path / f"{k}", LocalTask(rule=SCAFFOLD), k) for k in range(2)],
        tmp_path / "base",
    )
    both = LocalRule(merged=True, variates=True, consolidation=0.1)
    task = LocalTask(rule=both, own=str(tmp_path / "0"))
    whole = made.visit(tmp_path / "whole", task, 0, base)
    folder = tmp_path / "kept"
    folder.mkdir()

    def again(number: int, until: int) -> tuple[Path, int]:
        kept: list[int] = []
        out = tmp_path / f"resumed-{number}"
        out.mkdir()
        saving = Saving(folder=str(folder), made_of="a", every_s=0.0, number=number)
        recipe = made.recipe.adapting(task)
        assert isinstance(recipe, Resuming)

        def watch(progress: Any) -> None:
            if progress.examples > until:
                raise InterruptedError

        recipe = recipe.resuming(FileSavepoints(saving, kept.append, lambda: 0.0))
        try:
            recipe.train(base, made.config, made.sites[0], EXAMPLES, 5, out, watch)
        except InterruptedError:
            assert until < EXAMPLES
        return out, kept[-1]

    _, number = again(0, EXAMPLES // 2)
    resumed, _ = again(number, EXAMPLES)
    for part in (made.weights, COMPANIONS):
        assert (resumed / part).read_bytes() == (whole / part).read_bytes()


@pytest.mark.parametrize("flaw", ["shape", "name", "missing", "nan", "type"])
def test_companions_that_do_not_fit_are_refused(made: Trained, tmp_path: Path, flaw: str) -> None:
    model = made.visit(tmp_path / "model", LocalTask(rule=SCAFFOLD))
    tensors = load_file(model / COMPANIONS)
    name = next(iter(tensors))
    match flaw:
        case "shape":
            tensors[name] = torch.zeros(3, 3, 3)
        case "name":
            tensors["variate.other"] = torch.zeros(1)
        case "missing":
            del tensors[name]
        case "nan":
            tensors[name] = tensors[name] * torch.nan
        case _:
            tensors[name] = tensors[name].half()
    save_file(tensors, model / COMPANIONS)
    with pytest.raises(Corrupt):
        made.visit(tmp_path / "out", LocalTask(rule=SCAFFOLD), 0, model)
    with pytest.raises(Corrupt) as refused:
        made.merge([made.visit(tmp_path / "fits", LocalTask(rule=SCAFFOLD)), model], tmp_path / "m")
    assert refused.value.field == "models[1]"


def test_what_a_recipe_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        CausalLm().adapting(LocalTask(rule=LocalRule(distillation=1.0)))
    assert refused.value.field == "training.algorithm"

    class Plain:
        """A recipe of somebody else's, which knows no algorithms."""

        name = "plain"

        def train(self, *arguments: object) -> None:
            raise AssertionError("it must not train")

    service = Service(open(tmp_path / "replies", "wb"), recipes={"plain": Plain()})  # type: ignore[dict-item]  # noqa: SIM115
    nowhere = str(tmp_path)
    command = Train(
        recipe="plain", model=nowhere, config={}, data=nowhere, examples=1, seed=0, out=nowhere,
        local=LocalTask(rule=SCAFFOLD),
    )  # fmt: skip
    reply = service.answer(command)
    assert isinstance(reply, WorkerFailed)
    assert reply.error.field == "training.algorithm"
