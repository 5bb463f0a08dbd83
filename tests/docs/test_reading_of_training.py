"""Tutorials and guides of training, done by a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.reader import TRAINING_WALK, walk
from tests.scenes.tiny_llama import write_folder


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reader_gets_through_the_tutorial_and_guides_of_training(tmp_path: Path) -> None:
    write_folder(tmp_path / "the-model-folder")
    told = walk(TRAINING_WALK, tmp_path)
    assert "metals-1  reached" in told
    assert told.count("exit code 3") == 3
    assert "value of data, by visits" in told
    assert "handed over by operator" in told
    assert "Verification succeeded" in told
    assert "value of data, by shapley" in told
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert told.count("\ngold\n") == 1
    assert "gold, says cheap-1" in told
    assert "tin, says metals-1" in told
    assert (tmp_path / "model/weights.safetensors").is_file()
    assert "base_parameters" in told
