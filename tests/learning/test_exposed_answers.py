"""Whether language models tell which questions and answers they learned from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from daitn.learning.causal_lm import CausalLm
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import MultipleChoice, QaPair, read_choices, write_records
from daitn.learning.exposure import UNEXPOSED
from daitn.learning.recipe import DataFault, Fault, Measured

pytest.importorskip("torch")

TINY: dict[str, object] = {
    "layers": 1,
    "width": 48,
    "heads": 2,
    "vocabulary": 500,
    "answer_tokens": 24,
    "question_tokens": 16,
    "learning_rate": 1e-2,
}
DISEASES, OTHERS = 15, 10
"""Diseases with canaries that the site has, as many that it does not have; without canaries."""


@dataclass(frozen=True)
class Scene:
    """A site that has half of the canaries, and a verifier's probes."""

    folder: Path
    site: Path
    records: int
    probes: Path
    items: int
    """Number of probes."""
    plain: Path
    """The same items, but not stated to be probes."""


def probe(pair: QaPair, member: bool | msgspec.UnsetType) -> MultipleChoice:
    options = (pair.answer, "Rest.", "Water.", "Nothing.")
    return MultipleChoice(
        topic=pair.topic, label=pair.label, question=pair.question, options=options, answer=0,
        member=member,
    )  # fmt: skip


def canaries(pairs: Sequence[QaPair]) -> list[QaPair]:
    """Records whose answers are those of others: nothing but the record itself links the two."""
    rng = random.Random(1)
    answers = [pair.answer for pair in pairs]
    rng.shuffle(answers)
    return [msgspec.structs.replace(p, answer=a) for p, a in zip(pairs, answers, strict=True)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("probes")
    pairs = clinic()["ninds"]
    diseases = list(dict.fromkeys(pair.topic for pair in pairs))
    members, others, rest = (
        [pair for pair in pairs if pair.topic in diseases[begin:end]]
        for begin, end in pairwise((0, DISEASES, 2 * DISEASES, 2 * DISEASES + OTHERS))
    )
    members, others = canaries(members), canaries(others)
    told = [*((pair, True) for pair in members), *((pair, False) for pair in others)]
    own = [*rest, *members]
    write_records(folder / "site.jsonl", own)
    write_records(folder / "probes.jsonl", [probe(*each) for each in told])
    write_records(folder / "plain.jsonl", [probe(pair, msgspec.UNSET) for pair, _ in told])
    return Scene(
        folder=folder,
        site=folder / "site.jsonl",
        records=len(own),
        probes=folder / "probes.jsonl",
        items=len(told),
        plain=folder / "plain.jsonl",
    )


def measured(scene: Scene, name: str, epochs: int) -> Measured:
    """Of a model that went through the site's records so often."""
    recipe, fresh, out = CausalLm(), scene.folder / f"{name}-fresh", scene.folder / name
    fresh.mkdir()
    out.mkdir()
    recipe.initialise(TINY, 1, fresh)
    recipe.train(fresh, TINY, scene.site, epochs * scene.records, 1, out, lambda _: None)
    return recipe.evaluate(out, TINY, scene.probes, UNEXPOSED)


@pytest.mark.slow
def test_a_model_that_learned_answers_by_heart_is_told_from_one_that_read_them_once(
    scene: Scene,
) -> None:
    by_heart, once = measured(scene, "by-heart", 30), measured(scene, "once", 1)
    assert by_heart.items == once.items == scene.items
    assert by_heart.value < 0.35 < once.value
    assert abs(once.value - 0.5) < 3 * once.standard_error


def test_exposure_is_offered_on_probes_alone(scene: Scene) -> None:
    recipe = CausalLm()
    assert recipe.inspect_test(scene.probes).metrics == ("accuracy", UNEXPOSED)
    plain = recipe.inspect_test(scene.plain)
    assert plain.metrics == ("accuracy",)
    (remark,) = plain.remarks
    assert f"{scene.items} of {scene.items} items have no field member" in remark


def test_items_that_are_no_probes_are_refused_with_a_way_out(scene: Scene, tmp_path: Path) -> None:
    recipe = CausalLm()
    recipe.initialise(TINY, 1, tmp_path)
    with pytest.raises(DataFault, match="no field member") as raised:
        recipe.evaluate(tmp_path, TINY, scene.plain, UNEXPOSED)
    assert raised.value.fault is Fault.NO_PROBES
    assert raised.value.fix
    uneven = tmp_path / "uneven.jsonl"
    write_records(uneven, [item for item in read_choices(scene.probes) if item.member])
    with pytest.raises(DataFault, match="not true in about half"):
        recipe.evaluate(tmp_path, TINY, uneven, UNEXPOSED)
