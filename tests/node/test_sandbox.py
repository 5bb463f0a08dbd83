"""The sandbox of a node: said at start, demanded by its file, sized by what is estimated."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from daitn.cli.network import read_node
from daitn.learning.sandbox import probe
from daitn.learning.sandbox.policy import Available, Mechanism
from daitn.objects.errors import InvalidInput, LimitExceeded
from tests.node.test_left_out import GOOD, dataset, running, visit
from tests.scenes.recipes import installed_intruder

pytestmark = pytest.mark.processes

WITHOUT_LANDLOCK = Available(mechanisms=(Mechanism.SECCOMP, Mechanism.LIMITS))


async def test_a_node_says_at_start_what_its_sandbox_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "d.csv").write_text(GOOD)
    demanded = {"required": [str(mechanism) for mechanism in Mechanism]}
    async with running(tmp_path, datasets=[dataset("d")], sandbox=demanded) as (node, _):
        assert node.descriptor is not None
        assert [d.name for d in node.descriptor.datasets] == ["d"]
    assert caplog.text.count("sandbox: namespaces, landlock ") == 1


async def test_a_node_does_not_start_without_what_its_file_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_found", WITHOUT_LANDLOCK)
    (tmp_path / "d.csv").write_text(GOOD)
    demanded = {"required": ["seccomp", "landlock"]}
    with pytest.raises(InvalidInput, match="landlock does not work on this machine") as refused:
        async with running(tmp_path, datasets=[dataset("d")], sandbox=demanded):
            pass
    assert refused.value.field == "sandbox.required[1]"
    assert "lsm=" in refused.value.fix


async def test_a_node_that_demands_nothing_works_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe, "_found", WITHOUT_LANDLOCK)
    (tmp_path / "d.csv").write_text(GOOD)
    async with running(tmp_path, datasets=[dataset("d")]) as (node, _):
        assert (await node._executor.perform(visit("d", None))).model is not None
    assert "sandbox: seccomp, limits; missing: namespaces, landlock" in caplog.text


@pytest.mark.parametrize(
    ("stated", "field"),
    [
        ({"required": ["selinux"]}, "sandbox.required[0]"),
        ({"memory_bytes": 1}, "sandbox.memory_bytes"),
        ({"cpu_s": 0}, "sandbox.cpu_s"),
        ({"network": True}, "sandbox"),
    ],
)
def test_a_wrong_sandbox_is_named(tmp_path: Path, stated: dict[str, Any], field: str) -> None:
    (tmp_path / "node.yaml").write_text(
        "{site: here, owner: me, jurisdiction: US, roles: [compute], state: state,"
        f" center: [tcp/127.0.0.1:1], sandbox: {stated}}}"
    )
    with pytest.raises(InvalidInput) as refused:
        read_node(tmp_path / "node.yaml", "")
    assert field in refused.value.field


async def test_a_visit_over_its_estimate_fails_with_the_limit_and_the_node_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    bounds = {"memory_bytes": 64 << 20, "time_s": 30.0}
    changes: dict[str, Any] = {"recipes": ["classifier", "intruder"], "sandbox": bounds}
    with installed_intruder(tmp_path / "packages"):
        async with running(tmp_path, datasets=[dataset("d")], **changes) as (node, _):
            greedy = visit("d", None, "intruder", {"hoards": 640})
            with pytest.raises(LimitExceeded) as exceeded:
                await node._executor.perform(greedy)
            assert exceeded.value.field == "memory_bytes"
            assert f"{(64 << 20) + (2 << 20)} bytes of memory" in exceeded.value.problem
            model = (await node._executor.perform(visit("d", None))).model
            assert (await node._executor.perform(visit("d", model))).model is not None
            scratch = Path(node._config.state) / "scratch"
            assert [file for file in scratch.rglob("*") if file.is_file()] == []
