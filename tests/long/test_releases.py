"""What is installed: from a wheel, alone, and beside processes of an earlier or a later version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from daitn.objects.identifiers import CENTER_SITE
from tests.scenes.clinic import facility, gateway, write_clinic, write_clinic_intent
from tests.scenes.waiting import wait_until
from tests.scenes.wheels import ROOT, archived, wheel_of
from tests.system.conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(1800)]

EARLIER = "e68b9f8309a1c72b3349f5eb141233f957a6f480"
"""The last commit without cordons, backups, reloading and an HTTP API of the control centre. With
the first release its tag takes this place."""
HELLO: list[Any] = [{"role": "user", "content": "What is Velnonia?"}]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier version, as its wheel holds it."""
    folder = tmp_path_factory.mktemp("earlier")
    wheel = wheel_of(archived(EARLIER, folder / "source"), folder / "wheels")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "installed")
    return folder / "installed"


class Mixed:
    """A network whose processes are each of one of two versions."""

    def __init__(self, network: Network, other: Path, url: str) -> None:
        """`other`: a folder with the version that is not this one."""
        self.network, self._other = network, other
        self.names = [CENTER_SITE, *(node.site for node in network.processes.nodes)]
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self._jobs = 0

    def begin_earlier(self) -> None:
        """Restart all in the earlier version, which no database of a later one lets start."""
        database = self.network.folder / "state" / "center" / "jobs.db"
        for file in database.parent.glob(f"{database.name}*"):
            file.unlink()
        self.restart(*self.names, other=True)

    def restart(self, *names: str, other: bool) -> None:
        """Restart processes in a version, one after the other; queries are answered again."""
        started = self._started()
        before = os.environ.get("PYTHONPATH")
        if other:
            os.environ["PYTHONPATH"] = str(self._other)
        try:
            for name in names:
                self.network.processes.kill(name)
                self.network.processes.launch(name)
        finally:
            os.environ.pop("PYTHONPATH", None)
            if before is not None:
                os.environ["PYTHONPATH"] = before
        again = set(names) - {CENTER_SITE}
        wait_until(lambda: all(self._started().get(s, 0.0) > started[s] for s in again))
        self.network.mend()

    def _started(self) -> dict[str, float]:
        """When each node started, as the control centre knows it; nothing while that is away."""
        ended = self.network.daitn("get", "nodes", "--json")
        nodes = json.loads(ended.stdout) if ended.returncode == 0 else []
        return {n["descriptor"]["site"]: n["descriptor"]["started_at_s"] for n in nodes}

    def versions(self) -> dict[str, bool]:
        """Whether each node knows of cordons."""
        return {
            name: self.network.daitn("cordon", name).returncode == 0
            and self.network.daitn("uncordon", name).returncode == 0
            for name in self.names[1:]
        }

    def works(self) -> None:
        """A job runs to its end, its model is deployed, and queries are answered."""
        self._jobs += 1
        route = [{"site": "ninds", "examples": 200 * self._jobs}]
        intent = write_clinic_intent(self.network.folder, route=route)
        ended = self.network.daitn("train", "-f", str(intent), "--watch", "--insist")
        assert ended.returncode in (0, 1), ended.stderr
        name = f"doctor-{self._jobs}"
        ended = self.network.daitn("deploy", name, "--to", "east", "--wait")
        assert ended.returncode == 0, ended.stderr
        wait_until(lambda: all(map(self._answers, [*self._models(), name])))

    def _models(self) -> list[str]:
        return [f"doctor-{number}" for number in range(1, self._jobs)]

    def _answers(self, model: str) -> bool:
        try:
            self._client.chat.completions.create(model=model, messages=HELLO, max_tokens=4)
        except openai.APIStatusError:
            return False
        return True


@pytest.fixture
def mixed(tmp_path: Path, earlier: Path) -> Iterator[Mixed]:
    door = gateway("gate")
    path = write_clinic(tmp_path, facility("east"), door)
    network = running(tmp_path, path)
    try:
        yield Mixed(network, earlier, f"http://{door['gateway']['listen']}")
    finally:
        network.processes.stop()


def test_an_earlier_and_this_version_work_together_in_both_directions(mixed: Mixed) -> None:
    """A rolling upgrade, nodes first or control centre first, and one of the nodes that is taken
    back: their state folders are read by either version. A database is not."""
    nodes = mixed.names[1:]
    mixed.begin_earlier()
    mixed.works()
    assert not any(mixed.versions().values())
    mixed.restart(*nodes, other=False)  # An earlier control centre, this version's nodes.
    mixed.works()
    mixed.restart(CENTER_SITE, other=False)
    mixed.works()
    mixed.restart(*nodes, other=True)  # This version's control centre, earlier nodes.
    mixed.works()
    assert not any(mixed.versions().values())
    mixed.restart(*nodes, other=False)
    assert all(mixed.versions().values())


LATER = {
    "objects/descriptors.py": ("    public_key: Word\n", "    shift: str = 'day'\n"),
    "objects/findings.py": ("    at_s: float\n", "    median_s: float = 0.5\n"),
    "objects/messages.py": ("    error: ErrorReport | None = None\n", "    watts: float = 3.5\n"),
    "objects/roster.py": ('    jurisdiction: str = ""\n', "    shift: str = 'day'\n"),
    "objects/usage.py": ("    tokens_out: Whole = 0\n", "    images: int = 3\n"),
    "identity/passes.py": ("    until_s: float\n", "    scope: str = 'all'\n"),
    "node/training/executor.py": ("work.previous, self._key", ", {'energy_j': 1.5}"),
    "node/audit.py": ("event=event, **plain", ", more={'kernel': 'of tomorrow'}"),
}
"""What a later version adds to what is signed: a file, the last place in it, what comes after."""


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A later version, which says more in everything that it signs."""
    folder = tmp_path / "later"
    shutil.copytree(ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (before, more) in LATER.items():
        path = folder / "daitn" / name
        text, place, rest = path.read_text().rpartition(before)
        assert place, name
        path.write_text(f"{text}{place}{more}{rest}")
    return folder


def test_a_later_version_that_signs_more_and_this_one_work_together(
    tmp_path: Path, later: Path
) -> None:
    """In both directions, as in an upgrade to it; a node that goes back reads its state folder."""
    door = gateway("gate", states_every_s=0.3)
    path = write_clinic(tmp_path, facility("east"), door, every_s=1.0)
    network = running(tmp_path, path)
    mixed = Mixed(network, later, f"http://{door['gateway']['listen']}")

    def all_asked() -> bool:
        """Whether the control centre believes the verifier about every deployment."""
        known = [
            a for model in network.json("get", "models")["deployed"] for a in model["accuracy"]
        ]
        return bool(known) and all(one["trust"] == "asked" for one in known)

    def billed() -> int:
        listed = network.json("account", "list")["accounts"]
        return sum(one["quantities"].get("answers", 0) for one in listed)

    try:
        nodes = mixed.names[1:]
        mixed.works()
        mixed.restart(*nodes, other=True)  # This version's control centre, later nodes.
        mixed.works()
        wait_until(all_asked)
        before = billed()
        mixed.works()
        wait_until(lambda: billed() > before)
        out = tmp_path / "exported"
        assert network.daitn("model", "export", "doctor-3", "-o", str(out)).returncode == 0
        assert b'"energy_j"' in (out / "lineage.json").read_bytes()
        assert network.daitn("model", "verify", str(out)).returncode == 0
        mixed.restart(CENTER_SITE, other=True)
        mixed.restart(*nodes, other=False)  # A later control centre, this version's nodes.
        mixed.works()
        wait_until(all_asked)
        mixed.restart(CENTER_SITE, other=False)
        mixed.works()
        for node in nodes:
            audit = tmp_path / "state" / node
            assert network.json("audit", "verify", str(audit))["last"] > 1
        assert network.json("account", "check")["problems"] == []
    finally:
        network.processes.stop()


def test_a_wheel_brings_what_it_needs_into_a_fresh_environment(tmp_path: Path) -> None:
    wheel = wheel_of(ROOT, tmp_path / "wheels")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    made = subprocess.run(
        [*pip, *constraints, str(wheel)], capture_output=True, text=True, check=False
    )
    if made.returncode and "onnection" in made.stderr:
        pytest.skip(f"no package index can be reached: {made.stderr[-300:]}")
    assert made.returncode == 0, made.stderr
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def daitn(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(venv / "bin" / "daitn"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=clean
        )

    assert daitn("version").returncode == 0
    center = tmp_path / "center.yaml"
    center.write_text("insecure: true\nlisten: ['tcp/127.0.0.1:0']\n")
    found = daitn("doctor", "-c", "center.yaml", "--offline")
    assert (found.returncode, "0 problems" in found.stdout) == (0, True), found.stderr
