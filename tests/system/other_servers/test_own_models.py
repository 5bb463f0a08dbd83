"""A facility that runs a file of llama.cpp by itself, asked through a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.clinic import facility, gateway
from tests.scenes.llama_cpp import skip_without_llama_cpp, write_gguf
from tests.scenes.waiting import wait_until
from tests.scenes.workers import children_of
from tests.system.conftest import build

from .scene import Asker

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def test_a_file_answers_through_the_network_and_ends_with_its_facility(tmp_path: Path) -> None:
    skip_without_llama_cpp()
    write_gguf(tmp_path / "Llama.gguf")
    door = gateway("gate")
    # Its name is the file's, and its path starts from the folder of the network's file.
    hall = facility("hall", facility={"models": [{"gguf": "Llama.gguf", "context_tokens": 2048}]})
    network = build(tmp_path, [hall, door])
    try:
        asker = Asker(f"http://{door['gateway']['listen']}/v1")
        wait_until(lambda: "llama" in asker.models())
        assert asker.says()
        described = network.json("describe", "model", "llama")["deployments"][0]["descriptor"]
        assert described["engine"].startswith("llama.cpp (xllamacpp ")
        assert described["context_tokens"] == 2048
        shown = network.daitn("describe", "facility", "hall")
        assert "llama.cpp" in shown.stdout

        kept = children_of(network.processes.pid("hall"), recursive=True)
        assert any("local.llama_cpp" in " ".join(command) for _, command in kept)
        network.processes.kill("hall")
        wait_until(lambda: not any(process.is_running() for process, _ in kept))
    finally:
        network.processes.stop()
