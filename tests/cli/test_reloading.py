"""Changes of a process's file before the process is ready, and those that it cannot apply."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from daitn.cli.network import read_node
from daitn.cli.reloading import ReadFile, Reloading
from daitn.files.live_changes import Changes
from daitn.node.config import NodeConfig
from daitn.node.config.live import LIVE
from daitn.objects.descriptors import Role
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import OwnerId, SiteId
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

pytestmark = pytest.mark.processes


@contextmanager
def running(folder: Path, what: str, config: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A process, with its log beside its file. Nobody's terminal, as under systemd."""
    (folder / f"{what}.yaml").write_text(yaml.safe_dump(config))
    with (folder / f"{what}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "daitn", what, "-c", f"{what}.yaml"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_node_that_waits_for_its_control_centre_may_be_reloaded(tmp_path: Path) -> None:
    center = {"listen": [f"tcp/127.0.0.1:{free_port()}"], "state": "center", "insecure": True}
    node = {
        "site": "hub",
        "owner": "clinics",
        "jurisdiction": "CA",
        "roles": ["forwarder"],
        "center": center["listen"],
        "listen": [],
        "insecure": True,
        "forwarder": {"listen": ["tcp/127.0.0.1:0"]},
        "state": "hub",
    }

    def log() -> str:
        return (tmp_path / "node.log").read_text()

    with running(tmp_path, "node", node) as waiting:
        wait_until(lambda: "trying again" in log())
        (tmp_path / "node.yaml").write_text(yaml.safe_dump(node | {"drain_s": 3.0}))
        waiting.send_signal(signal.SIGHUP)
        told = "reads its file again when it is"
        wait_until(lambda: told in log() or waiting.poll() is not None)
        assert waiting.poll() is None
        with running(tmp_path, "center", center):
            taken = "taken over from the file: drain_s"
            wait_until(lambda: taken in log() or waiting.poll() is not None)
        assert waiting.poll() is None
        assert taken in log()


async def test_settings_that_cannot_be_applied_are_refused_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "node.yaml"
    stated = {"drain_s": 9.0}
    config = NodeConfig(
        site=SiteId("hub"),
        owner=OwnerId("clinics"),
        jurisdiction="CA",
        roles=(Role.FORWARDER,),
        center=(),
        state=str(tmp_path),
    )

    def apply(config: NodeConfig) -> None:
        if config.drain_s == 9.0:
            raise InvalidInput("a key of bob", field="gateway.keys[0].owner", fix="let bob do it")
        applied.append(config.drain_s)

    applied: list[float] = []
    path.write_text("")
    file = ReadFile(path, lambda: msgspec.structs.replace(config, **stated))
    reloading = Reloading(file, tmp_path, config, LIVE, apply)
    assert reloading.reread() == Changes((), ())
    assert "the changed file is not taken: gateway.keys[0].owner: a key of bob" in caplog.text
    stated["drain_s"] = 7.0
    assert reloading.reread().live == ("drain_s",)
    assert applied == [7.0]


async def test_an_entry_that_is_not_valid_any_more_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is missing after the next start, which may be far away."""
    path = tmp_path / "node.yaml"
    stated: dict[str, Any] = {
        "site": "ward",
        "owner": "clinics",
        "jurisdiction": "CA",
        "roles": ["facility"],
        "center": ["tcp/127.0.0.1:1"],
        "insecure": True,
        "state": "ward",
        "facility": {
            "upstreams": [{"name": name, "url": "http://127.0.0.1:1/v1"} for name in ("a", "b")]
        },
    }

    def read() -> NodeConfig:
        return read_node(path, "")

    path.write_text(yaml.safe_dump(stated))
    file = ReadFile(path, read)
    reloading = Reloading(file, tmp_path, file.read(), LIVE, lambda config: None)
    stated["facility"]["upstreams"][1]["url"] = "nowhere"
    path.write_text(yaml.safe_dump(stated))
    reloading.reread()
    told = [text for text in caplog.messages if "left out" in text]
    assert len(told) == 1
    assert told[0].startswith("facility.upstreams[1] b is not valid, and is left out after a rest")
    assert "left_out" not in caplog.text
