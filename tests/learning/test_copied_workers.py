"""Workers that are copies of a template do as those do that start anew."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from tests.scenes.waiting import until

from daitn.learning.child import beginning
from daitn.learning.child.beginning import ENGINES, TEMPLATE, environment
from daitn.learning.trainer import Trainer
from daitn.spawning.messages import SUPPORTED
from daitn.spawning.spawner import Template

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not SUPPORTED, reason="templates need Linux"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with (tmp_path_factory.mktemp("template") / "errors").open("ab") as errors:
        template = Template(ENGINES, environment(1), errors)
    yield template
    template.close()


@pytest_asyncio.fixture
async def copied(template: Template, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Workers of this process are copies of the template."""
    monkeypatch.setattr(beginning, "_spawner", None)
    connection = template.connection()
    monkeypatch.setenv(TEMPLATE, str(connection.detach()))
    monkeypatch.setenv("UPSTREAM_KEY", "a secret of the node")
    yield
    if beginning._spawner is not None:
        beginning._spawner.close()


async def trained(folder: Path, threads: int) -> dict[str, bytes]:
    folder.mkdir()
    config: dict[str, object] = {"classes": ["low", "high"], "hidden": [64]}
    data, fresh, out = folder / "data.csv", folder / "fresh", folder / "out"
    rows = [f"{n % 17},{n % 5},{'high' if n % 17 > 8 else 'low'}" for n in range(200)]
    data.write_text("\n".join(["x,y,label", *rows]))
    fresh.mkdir()
    out.mkdir()
    trainer = Trainer(threads=threads)
    await trainer.initialise("classifier", config, 3, fresh)
    await trainer.train("classifier", fresh, config, data, 2000, 4, out, lambda _: None)
    await trainer.close()
    return {part.name: part.read_bytes() for part in out.iterdir()}


async def ours(trainer: Trainer) -> psutil.Process:
    await trainer.start()
    return psutil.Process(trainer.pid)


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_copy_trains_the_same_model_as_one_that_started_anew(
    copied: None, tmp_path: Path, threads: int
) -> None:
    copy = await trained(tmp_path / "copy", threads)
    spawner, beginning._spawner = beginning._spawner, None
    assert spawner is not None
    anew = await trained(tmp_path / "anew", threads)
    spawner.close()
    assert copy == anew


async def test_a_copy_knows_no_secrets_of_its_node(copied: None) -> None:
    trainer = Trainer(threads=1)
    worker = await ours(trainer)
    family = [worker, *worker.children(recursive=True)]
    assert "daitn.learning.worker" in " ".join(worker.cmdline())
    for one in family:
        assert "UPSTREAM_KEY" not in Path(f"/proc/{one.pid}/environ").read_text()
    await trainer.close()


async def test_a_killed_copy_is_replaced_by_another(copied: None, tmp_path: Path) -> None:
    trainer = Trainer(threads=1)
    worker = await ours(trainer)
    parent = worker.ppid()
    worker.kill()
    await until(lambda: trainer.pid == 0)
    again = await ours(trainer)
    assert again.pid != worker.pid
    assert again.ppid() == parent != os.getpid()
    await trainer.close()
    await until(lambda: not psutil.pid_exists(again.pid))


async def test_without_their_template_workers_start_anew(copied: None, template: Template) -> None:
    trainer = Trainer(threads=1)
    worker = await ours(trainer)
    os.kill(worker.ppid(), signal.SIGKILL)
    await until(lambda: trainer.pid == 0)
    again = await ours(trainer)
    assert again.ppid() == os.getpid()
    assert (await trainer.probe()).speed_flops > 0
    await trainer.close()
