from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from daitn.center.config import CenterConfig
from daitn.cli.network import NetworkFile
from daitn.cli.session import ExitCode
from daitn.node import config
from daitn.objects import intents
from daitn.objects.wire import checked
from daitn.steering.wire.replies import Reason
from scripts.reference import commands as reference_commands
from tests.docs import aats_picture
from tests.docs.pages import DOCS, Block, blocks, pages, script
from tests.scenes.ports import free_port
from tests.scenes.tiny_llama import write_folder

WALK = (
    "tutorial/first-training.md",
    "tutorial/from-training-to-queries.md",
    "how-to/write-an-intent.md",
    "how-to/read-a-report.md",
    "how-to/bring-your-own-model.md",
    "how-to/run-a-site.md",
    "how-to/say-what-you-let-in.md",
    "how-to/serve-models.md",
    "how-to/ask-the-network.md",
    "how-to/add-a-recipe.md",
)
"""Pages whose commands are run, in the order in which they build on each other."""

STEERED_WALK = ("how-to/run-a-forwarder.md",)
"""Likewise, in a folder of their own."""

ENCRYPTED_WALK = ("how-to/encrypt-the-network.md",)

JOINED_WALK = ("how-to/found-a-network.md", "how-to/join-a-network.md")

READ_WITHIN_S = 540.0
LONG_WITHIN_S = 2400.0
END_WITHIN_S = 20.0

BLOCKS = [block for page in pages() for block in blocks(page)]
YAML_BLOCKS = [block for block in BLOCKS if block.kind]


def _name(block: Block) -> str:
    return f"{block.page}:{block.line}"


LINKING = [*pages(), *sorted(DOCS.parent.glob("*.md"))]
SOURCES = DOCS.parent / "src/daitn"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target, _, part in re.findall(r"\]\(([^)#\s]*)(#([^)]*))?\)", page.read_text()):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if part:
            assert part in _anchors(file), f"{target}#{part}"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_every_file_of_the_code_that_is_named_exists(page: Path) -> None:
    """`steering/ranking.py` without a link, and beside a link its last part."""
    for name in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", page.read_text()):
        if name.split("/")[0] in {package.name for package in SOURCES.iterdir()}:
            assert (SOURCES / name).exists(), name


def _anchors(page: Path) -> set[str]:
    """Parts of a page as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in kept}


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in pages():
        if page != DOCS / "README.md":
            assert f"({page.relative_to(DOCS)})" in index


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=_name)
def test_every_yaml_file_is_what_it_is_said_to_be(block: Block) -> None:
    plain = yaml.safe_load(block.body)
    match block.kind:
        case "intent":
            checked(plain, intents.TrainingIntent, "intent")
        case "node":
            checked(plain, config.NodeConfig, "node")
        case "policy":
            checked(plain, config.PolicyConfig, "policy")
        case "center":
            checked(plain, CenterConfig, "center")
        case "network":
            network = checked(plain, NetworkFile, "network")
            checked(network.center, CenterConfig, "center")
            for node in network.nodes:
                checked({**network.defaults, **node}, config.NodeConfig, "node")
        case kind:
            pytest.fail(f"a kind of file that nobody reads: {kind}")


def test_pages_with_commands_are_walked() -> None:
    """Reference pages show single commands inline; everything in a console block is run."""
    with_commands = {str(block.page) for block in BLOCKS if block.language == "console"}
    assert with_commands == {*WALK, *STEERED_WALK, *ENCRYPTED_WALK, *JOINED_WALK}


def test_every_reason_of_a_refusal_is_in_the_guide() -> None:
    text = (DOCS / "how-to/run-a-forwarder.md").read_text()
    for reason in Reason:
        assert f"| `{reason.name}` |" in text, reason.name


def test_the_picture_of_steering_is_of_a_run_of_this_code() -> None:
    """Made anew by `python -m tests.docs.aats_picture`."""
    assert aats_picture.FILE.read_text() == aats_picture.picture()


LONG_BLOCKS = [block for block in BLOCKS if block.language == "bash"]


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.timeout(2600)
@pytest.mark.parametrize("block", LONG_BLOCKS, ids=_name)
def test_what_takes_a_reader_long_works(block: Block, tmp_path: Path) -> None:
    write_folder(tmp_path / "the-model-folder", context=512)
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code = _run(f"set -eu\n{block.body}", tmp_path, environment, within_s=LONG_WITHIN_S)
    told = (tmp_path / "reader.log").read_text()
    # A demo that does not reach its targets in time has worked, too.
    assert code in (ExitCode.DONE, ExitCode.NOT_REACHED), told[-6000:]
    assert "Report: " in told


def test_every_command_of_the_readme_exists() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    commands = {path for path, _ in reference_commands.commands()}
    for block in LONG_BLOCKS:
        for line in block.body.splitlines():
            assert any(line.startswith(f"{c} ") for c in commands), line
    targets = re.findall(r"^([\w-]+):", (DOCS.parent / "Makefile").read_text(), re.MULTILINE)
    said = re.findall(r"^\$ (\S+(?: \S+)*)", readme, re.MULTILINE)
    assert len(said) > 5
    for line in said:
        program, *words = line.split()
        if program == "make":
            assert words[0] in targets
        else:
            assert any(line == c or line.startswith(f"{c} ") for c in commands), line


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_gets_through_tutorial_and_guides(tmp_path: Path) -> None:
    write_folder(tmp_path / "the-model-folder")
    told = _walk(WALK, tmp_path)
    assert "metals-1  reached" in told
    assert "nearest-1  reached" in told
    assert told.count("exit code 3") == 5
    assert "allows no more visits of me today" in told
    assert "signed by a control centre" in told
    assert "It depends." in told
    assert "value of data, by visits" in told
    assert "value of data, by shapley" in told
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert told.count("\ngold\n") == 3
    assert "tin, says metals-1" in told
    assert "gold, says cheap-1" in told
    assert (tmp_path / "model/weights.safetensors").is_file()
    assert "base_parameters" in told
    assert "north" in told


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_runs_forwarders_and_a_model_finds_its_way(tmp_path: Path) -> None:
    told = _walk(STEERED_WALK, tmp_path)
    assert re.search(r"home > (north|south) > (west|east)", told)
    assert "delivered here, for " in told
    assert "branch: standalone, not advised" in told
    assert re.search(r"branch > north > (west|east)", told)
    assert "metals-home-1  reached" in told
    assert (tmp_path / "model/lineage.json").is_file()
    assert (tmp_path / "copy/weights.safetensors").is_file()
    assert "job ores-branch-1 is " in told
    assert told.count("NO_WAY: home") == 5
    assert told.count("exit code 1") == 2


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_reader_encrypts_the_network(tmp_path: Path) -> None:
    told = _walk(ENCRYPTED_WALK, tmp_path)
    assert re.search(r"lab +alive", told)
    assert "exit code 2" in told
    assert "not encrypted" in told


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_reader_founds_a_network_and_a_hospital_joins_it(tmp_path: Path) -> None:
    told = _walk(JOINED_WALK, tmp_path)
    fingerprints = re.findall(r"fingerprint\s+([0-9a-f]{16})", told)
    assert len(fingerprints) == 2
    assert len(set(fingerprints)) == 1
    assert re.search(r"site +north +data, compute +north-hospital +CA +\S+ +yes", told)
    assert "metals-1  reached" in told
    assert "site north is revoked" in told
    assert not re.search(r"site +north ", told.partition("site north is revoked")[2])


def test_a_hospital_joins_in_five_commands() -> None:
    """One of them is the installation; the operator's answer and looking around do not count."""
    page = DOCS / "how-to/join-a-network.md"
    said = [c for block in blocks(page) if block.language == "console" for c in block.commands()]
    own = said[: said.index("daitn node -c north.yaml &") + 1]
    assert len([command for command in own if " admit " not in command]) == 4


def _walk(walk: Sequence[str], folder: Path) -> str:
    """Do what the pages say, in a folder, with free ports; returns what was printed."""
    script_ = "set -eu\n" + "\n".join(
        script(DOCS / page, prefix=f"log-{n}-") for n, page in enumerate(walk)
    )
    documented_ports = {"7447", "7480", *re.findall(r"127\.0\.0\.1:([1-9]\d+)", script_)}
    ports = {port: free_port() for port in sorted(documented_ports)}
    for documented, free in ports.items():
        script_ = script_.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{free}")
    installed = str(folder / "installed")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DAITN_CENTER": f"tls/127.0.0.1:{ports['7447']}",
        "DAITN_GATEWAY": f"http://127.0.0.1:{ports['7480']}",
        # `pip install` of a reader's recipe: into the test's folder, and from no index.
        "PIP_TARGET": installed,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, [installed, os.environ.get("PYTHONPATH")])),
    }
    code = _run(script_, folder, environment)
    told = (folder / "reader.log").read_text()
    assert code == 0, f"the last command failed:\n{told[-6000:]}"
    return told


def _run(
    script_: str, folder: Path, environment: dict[str, str], within_s: float = READ_WITHIN_S
) -> int:
    """Run a shell script to its end, then end what it left running; gives its exit code."""
    with (folder / "reader.log").open("wb") as log:
        reader = subprocess.Popen(
            ["bash", "-c", script_],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return reader.wait(within_s)
    except subprocess.TimeoutExpired:
        logs = [folder / "reader.log", *sorted(folder.glob("log-*.log"))]
        told = "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)
        pytest.fail(f"the last command has not ended:\n{told}")
    finally:
        _end_group(reader)


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """`daitn up` ends its own processes when it is told to end, so it is given time for that."""
    until = time.monotonic() + END_WITHIN_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
        while time.monotonic() < until:
            leader.poll()
            os.killpg(leader.pid, 0)
            time.sleep(0.05)
        os.killpg(leader.pid, signal.SIGKILL)
