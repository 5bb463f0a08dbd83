from __future__ import annotations

import os
import re
import sys
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
from tests.docs.pages import DOCS, Block, blocks, pages
from tests.docs.reader import WALKS, run_script
from tests.scenes.tiny_llama import write_folder

LONG_WITHIN_S = 2400.0
DASHBOARD = "make --no-print-directory web/node_modules/checked"
"""The hook that checks the dashboard."""

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


def test_hooks_run_what_make_check_runs() -> None:
    """And when what they are configured by changes."""
    hooks = yaml.safe_load((DOCS.parent / ".pre-commit-config.yaml").read_text())["repos"][0][
        "hooks"
    ]
    entries = {hook["entry"] for hook in hooks}
    makefile = (DOCS.parent / "Makefile").read_text()
    recipes = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipes is not None
    tools = re.findall(r"\$\(BIN\)/(.+)", recipes[1])
    assert {f".venv/bin/{tool}" for tool in (*tools, "mypy")} | {DASHBOARD} == entries
    for hook in hooks:
        if hook["id"] not in ("reference", "dashboard"):
            assert re.search(hook["files"], "pyproject.toml"), hook["id"]


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
    assert with_commands == {page for walk in WALKS for page in walk}


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
    code = run_script(f"set -eu\n{block.body}", tmp_path, environment, within_s=LONG_WITHIN_S)
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


def test_a_hospital_joins_in_five_commands() -> None:
    """One of them is the installation; the operator's answer and looking around do not count."""
    page = DOCS / "how-to/join-a-network.md"
    said = [c for block in blocks(page) if block.language == "console" for c in block.commands()]
    own = said[: said.index("daitn node -c north.yaml &") + 1]
    assert len([command for command in own if " admit " not in command]) == 4


def test_no_page_gives_a_list_the_name_of_one_thing() -> None:
    """`daitn get` lists a kind; `daitn describe` shows one of it."""
    pages = sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))
    assert pages
    for page in pages:
        assert not re.findall(r"daitn get [a-z]+ [A-Z]+\b", page.read_text()), page
