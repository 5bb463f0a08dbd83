"""Words on the command line and in the environment are text, or refused as such."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daitn.objects.text import escaped
from tests.scenes.command_line import daitn

BYTES = b"\xff\xfe".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("account", "show", BYTES), "arguments"),
        (("cordon", "west", "--reason", BYTES), "--reason"),
        (("token", "create", "--gateway", BYTES), "--gateway"),
        (("query", BYTES), "arguments"),
        (("ping", "west", "--site", "north", f"--topic={BYTES}"), "--topic"),
        (("mcp", "--token", BYTES), "--token"),
        (("topology", "query", "--topic", BYTES), "--topic"),
        (("model", "export", BYTES, "-o", "out"), "arguments"),
        (("train", "-f", f"{BYTES}.yaml"), "-f"),
        ((BYTES,), "arguments"),
        ((BYTES, BYTES), "arguments"),
    ],
)
def test_a_word_that_is_no_text_is_refused(words: tuple[str, ...], field: str) -> None:
    ended = daitn(*words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error {field}: argument ")
    assert "fix" in ended.stderr
    assert "\\udcff" not in ended.stderr, "it may be a secret"


def test_so_is_a_variable_of_the_environment() -> None:
    for name in ("DAITN_CENTER", "DAITN_TOKEN"):
        ended = daitn("get", "nodes", **{name: BYTES})
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"error {name}: ")
    assert daitn("version", OTHER=BYTES).returncode == 0


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_so_is_standard_input(locale: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "daitn", "query", "-", "--gateway", "http://127.0.0.1:1"],
        input=b"\xff\xfe",
        env={"LC_ALL": locale, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
    )
    assert ended.returncode == 2
    assert b"TEXT: standard input is not UTF-8 text" in ended.stderr


def test_a_path_that_is_no_text_can_be_printed() -> None:
    assert escaped(f"/home/{BYTES}/x") == "/home/\\udcff\\udcfe/x"
