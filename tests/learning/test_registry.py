import json
import subprocess
import sys
from pathlib import Path

import pytest

from daitn.learning import installed, registry
from daitn.objects.errors import NotFound, WorkFailed


def install(folder: Path, name: str, target: str) -> None:
    """Put a distribution on `folder` that offers one recipe, as pip would."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{installed.GROUP}]\n{name} = {target}\n")


def test_both_recipes_of_this_package_are_installed() -> None:
    assert {"causal-lm", "classifier"} <= set(installed.installed())


def test_a_recipe_is_loaded_by_its_name() -> None:
    recipe = registry.load("classifier")
    assert recipe.name == "classifier"
    assert recipe.data_schema == "table/1"


def test_an_unknown_recipe_is_told_with_what_there_is_and_what_was_meant() -> None:
    with pytest.raises(NotFound) as caught:
        registry.load("clasifier")
    assert caught.value.field == "model.recipe"
    assert "causal-lm" in caught.value.problem
    assert caught.value.fix == "did you mean classifier?"


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(NotFound) as caught:
        registry.load("zzzz")
    assert "did you mean" not in caught.value.fix


def test_a_recipe_of_another_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_recipe.py").write_text("class Theirs:\n    name = 'theirs'\n")
    install(tmp_path, "theirs", "their_recipe:Theirs")
    monkeypatch.syspath_prepend(tmp_path)
    assert "theirs" in installed.installed()
    assert registry.load("theirs").name == "theirs"


@pytest.mark.parametrize("target", ["a_module_that_is_not_there:Recipe", "json:NoSuchRecipe"])
def test_a_recipe_that_cannot_be_imported_says_so(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken", target)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkFailed, match="'broken' is installed here but cannot be imported"):
        registry.load("broken")


def test_what_a_recipe_says_as_it_is_imported_stays_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud.py").write_text("raise ValueError('key 4711 of /srv/ward/key is wrong')\n")
    install(tmp_path, "loud", "loud:Recipe")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkFailed) as caught:
        registry.load("loud")
    assert "4711" not in str(caught.value)
    assert "/srv" not in str(caught.value)
    assert "key 4711" in capfd.readouterr().err


@pytest.mark.processes
@pytest.mark.parametrize(
    ("recipe", "file"),
    [("classifier", "d.csv"), ("boosted-trees", "d.csv"), ("causal-lm", "d.jsonl")],
)
def test_what_sites_ask_before_a_visit_imports_no_engine(
    recipe: str, file: str, tmp_path: Path
) -> None:
    """An engine takes seconds to import, and `daitn data check` and each start of a site wait."""
    rows = "".join(f"{x},{'yes' if x % 2 else 'no'}\n" for x in range(40))
    (tmp_path / "d.csv").write_text(f"x,label\n{rows}")
    record = {"topic": "flu", "label": "cause", "question": "Why?"}
    lines = [json.dumps(record | {"answer": f"Virus {n}"}) for n in range(20)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    code = (
        "import io, sys\n"
        "from daitn.learning.commands import Describe, Inspect, WorkerFinished\n"
        "from daitn.learning.service import Service\n"
        "asked, data = sys.argv[1:]\n"
        "for command in (Describe(recipe=asked), Inspect(recipe=asked, data=data)):\n"
        "    reply = Service(io.BytesIO()).answer(command)\n"
        "    assert isinstance(reply, WorkerFinished), reply\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, recipe, str(tmp_path / file)]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.processes
def test_listing_and_estimating_import_no_engine() -> None:
    code = (
        "import sys\n"
        "from daitn.learning import installed, registry\n"
        "assert 'classifier' in installed.installed()\n"
        "assert not any(m.startswith('daitn.learning.classifier') for m in sys.modules)\n"
        "registry.load('classifier').estimate({'classes': ['a', 'b']})\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
