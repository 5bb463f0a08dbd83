"""What a recipe can do to its site: nothing but answer. Every attempt is made by a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from tests.scenes.recipes import installed_intruder
from tests.scenes.waiting import until

from daitn.learning.answering.host import AnsweringHost
from daitn.learning.child.beginning import PASSED_ON
from daitn.learning.process import ConsultedProcess
from daitn.learning.recipe import Trained
from daitn.learning.sandbox import probe
from daitn.learning.sandbox.policy import Available, Limits, Mechanism, Sandbox
from daitn.learning.trainer import Trainer
from daitn.objects.errors import DaitnError, InvalidInput, LimitExceeded, WorkFailed

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

EVERYTHING = tuple(Mechanism)
SECRET = "a key of an upstream server"
LIMITS = Limits(memory_bytes=64 << 20, cpu_s=30.0, time_s=60.0, file_bytes=8 << 20)


@dataclass
class Site:
    """A site's trainer and its files, of which one visit gets `data`, `model` and `out`."""

    trainer: Trainer
    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name

    async def visit(self, do: str = "", at: object = "", limits: Limits = LIMITS) -> Trained:
        config = {"do": do, "at": str(at)} if do else {}
        return await self.trainer.train(
            "intruder", self.model, config, self.data, 7, 0, self.out, lambda _: None, limits=limits
        )

    async def refused(self, do: str, at: object = "", kind: str = "PermissionError") -> None:
        with pytest.raises(WorkFailed, match=f"a recipe failed: {kind}"):
            await self.visit(do, at)

    async def told(self, do: str, at: object = "") -> str:
        with pytest.raises(InvalidInput) as told:
            await self.visit(do, at)
        return told.value.problem

    async def exceeds(self, name: str, do: str, at: object = "", **limits: float) -> None:
        bounded = Limits(**{"memory_bytes": 64 << 20, "file_bytes": 8 << 20, **limits})  # type: ignore[arg-type]
        with pytest.raises(LimitExceeded, match="exceeded its limit of") as exceeded:
            await self.visit(do, at, bounded)
        assert exceeded.value.field == name
        assert f"sandbox.{name}" in exceeded.value.fix

    @property
    def processes(self) -> int:
        """Those that do not belong to its idle worker."""
        return len(psutil.Process(self.trainer.pid).children(recursive=True)) - 1


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with (
        installed_intruder(tmp_path_factory.mktemp("site") / "packages"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("UPSTREAM_KEY", SECRET)
        yield


@contextlib.asynccontextmanager
async def running(folder: Path, *mechanisms: Mechanism) -> AsyncIterator[Site]:
    for name in ("model", "out", "other"):
        (folder / name).mkdir()
    (folder / "data").write_text("mine")
    (folder / "model" / "part").write_text("before")
    (folder / "other" / "data").write_text("somebody else's")
    (folder / "key").write_text("the node's")
    trainer = Trainer(threads=1, sandbox=Sandbox(mechanisms=mechanisms))
    await trainer.start()
    try:
        yield Site(trainer, folder)
    finally:
        await trainer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(installed: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One for all tests, each of which has to leave it usable."""
    async with running(tmp_path_factory.mktemp("here"), *EVERYTHING) as site:
        yield site


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "site" in request.fixturenames:
        for path in request.getfixturevalue("site").out.iterdir():
            path.unlink()


async def works(site: Site) -> bool:
    """Whether the site still does what it is there for, and nothing of before remains."""
    trained = await site.visit()
    left = os.listdir(site.trainer.scratch)
    return (trained.examples, site.processes, left) == (7, 0, [])


async def test_everything_works_on_this_machine() -> None:
    found = await probe.available()
    assert found.mechanisms == EVERYTHING
    assert str(found) == f"namespaces, landlock {found.landlock}, seccomp, limits"
    assert str(Available()) == "none"


async def test_a_visit_reads_its_model_and_data_and_writes_what_it_made(site: Site) -> None:
    assert (await site.visit()).examples == 7
    assert (site.out / "part").read_text() == "after"
    assert await works(site)


async def test_other_files_cannot_be_read_or_listed(site: Site) -> None:
    for path in ("/etc/passwd", site.key, site.other / "data", "/etc/group"):
        await site.refused("read", path)
    for folder in ("/", "/tmp", "/etc", site.folder, site.other, os.getcwd() + "/.."):
        await site.refused("list", folder)
    await site.refused("read", f"/proc/{os.getpid()}/environ", kind="FileNotFoundError")
    await site.refused("read", "/proc/1/environ")
    assert await works(site)


async def test_nothing_is_written_but_what_it_made(site: Site) -> None:
    for path in (site.data, site.model / "part", site.model / "new", site.folder / "new", "/tmp/x"):
        await site.refused("write", path)
    await site.refused("remove", site.data)
    await site.refused("symlink", site.out / "link")
    assert (site.data.read_text(), (site.model / "part").read_text()) == ("mine", "before")
    assert sorted(os.listdir(site.folder)) == ["data", "key", "model", "other", "out"]
    assert await works(site)


async def test_nobody_can_be_reached(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.setblocking(False)
        for do in ("connect", "datagram", "call_outside"):
            await site.refused(do, port)
        with pytest.raises(BlockingIOError):
            server.accept()
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{site.folder}")
        abstract.listen()
        await site.refused("abstract", site.folder)
    assert await works(site)


async def test_the_environment_tells_nothing_of_the_node(site: Site) -> None:
    names = set((await site.told("environ")).split())
    assert "UPSTREAM_KEY" not in names
    assert names <= {
        *PASSED_ON,
        *("HOME", "TMPDIR", "USER", "LOGNAME", "LC_CTYPE"),
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"),
        *("OMP_WAIT_POLICY", "CUBLAS_WORKSPACE_CONFIG", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
        *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"),
    }


async def test_no_other_process_is_started_signalled_or_looked_into(site: Site) -> None:
    for do in (
        "fork",
        "run",
        "fork_bomb",
        "daemon",
        "kill_all",
        "trace",
        "unshare",
        "outlive",
        "look_back",
    ):
        await site.refused(do)
    for pid in (0, 1, os.getpid()):
        await site.refused("kill", pid)
    assert await works(site)


async def test_more_memory_than_its_limit_ends_a_visit(site: Site) -> None:
    pid = site.trainer.pid
    await site.exceeds("memory_bytes", "hoard", at=640)
    await site.exceeds("memory_bytes", "grab", at=640)
    await site.exceeds("memory_bytes", "grab", at=1 << 20)
    assert site.trainer.pid == pid, "the worker stays"
    assert await works(site)


async def test_more_time_than_its_limit_ends_a_visit(site: Site) -> None:
    await site.exceeds("cpu_s", "spin", cpu_s=1.0)
    await site.exceeds("time_s", "sleep", time_s=1.0)
    assert await works(site)


@pytest.mark.parametrize("do", ["fill", "litter", "crowd"])
async def test_more_files_than_its_limit_end_a_visit(site: Site, do: str) -> None:
    await site.exceeds("file_bytes", do, at=site.out)
    for path in site.out.iterdir():
        path.unlink()
    assert await works(site)


async def test_a_look_at_data_sees_that_file_only(site: Site) -> None:
    pointer = site.folder / "pointer"
    pointer.write_text(str(site.other / "data"))
    try:
        for look in (site.trainer.inspect, site.trainer.inspect_test):
            with pytest.raises(WorkFailed, match="a recipe failed: PermissionError"):
                await look("intruder", pointer)
    finally:
        pointer.unlink()
    for config in ({"do": "read", "at": str(site.data)}, {"do": "fork"}):
        with pytest.raises(WorkFailed, match="PermissionError"):
            await site.trainer.initialise("intruder", config, 0, site.out)
        with pytest.raises(WorkFailed, match="PermissionError"):
            await site.trainer.estimate("intruder", config)


async def test_who_says_what_a_model_needs_sees_no_data_and_has_limits(
    installed: None, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("mine")
    sandbox = Sandbox(limits=Limits(memory_bytes=64 << 20))
    asked = Trainer(threads=1, process=ConsultedProcess, sandbox=sandbox)
    try:
        for do, at in (("read", tmp_path / "data"), ("fork", ""), ("call_outside", "")):
            with pytest.raises(WorkFailed, match="PermissionError"):
                await asked.estimate("intruder", {"do": do, "at": str(at)})
        with pytest.raises(InvalidInput) as told:
            await asked.estimate("intruder", {"do": "environ"})
        assert "UPSTREAM_KEY" not in told.value.problem
        with pytest.raises(WorkFailed):
            await asked.estimate("intruder", {"do": "hoard", "at": "640"})
        assert (await asked.estimate("intruder", {})).parameters == 1, "another one is asked"
    finally:
        await asked.close()


async def test_who_answers_reads_models_only(installed: None, tmp_path: Path) -> None:
    for name in ("models", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    host = AnsweringHost(threads=1)

    async def attempt(do: str, at: object = "") -> str:
        config = {"do": do, "at": str(at)}
        with pytest.raises(DaitnError) as told:
            await host.load("model", "intruder", tmp_path / "models", config)
        return told.value.problem

    try:
        assert await attempt("read", tmp_path / "models" / "file") == "b'models'"
        for do, at in (
            ("read", tmp_path / "data" / "file"),
            ("write", tmp_path / "models" / "file"),
            ("call_outside", ""),
            ("fork", ""),
            ("kill", os.getpid()),
        ):
            assert "PermissionError" in await attempt(do, at)
        assert "UPSTREAM_KEY" not in await attempt("environ")
        # A part that is kept elsewhere can be read where it is linked, and nothing beside it.
        (tmp_path / "models" / "base").symlink_to(tmp_path / "data" / "file")
        (tmp_path / "data" / "other").write_text("somebody else's")
        for base in (tmp_path / "models" / "base", tmp_path / "data" / "file"):
            assert await attempt("read", base) == "b'data'"
        for do, at in (
            ("write", tmp_path / "models" / "base"),
            ("remove", tmp_path / "models" / "base"),
            ("read", tmp_path / "data" / "other"),
            ("list", tmp_path / "data"),
            ("symlink", tmp_path / "models" / "more"),
        ):
            assert "PermissionError" in await attempt(do, at)
    finally:
        await host.close()


FORKING = (Mechanism.NAMESPACES, Mechanism.LIMITS)
FENCED = (Mechanism.LANDLOCK, Mechanism.SECCOMP, Mechanism.LIMITS)


async def test_where_seccomp_is_missing_whatever_a_visit_started_ends_with_it(
    installed: None, tmp_path: Path
) -> None:
    async with running(tmp_path, *FORKING) as site:
        assert (await site.visit("daemon")).examples == 7
        assert site.processes == 0
        await site.refused("call_outside", kind="OSError")
        await site.refused("kill", os.getpid(), kind="ProcessLookupError")
        assert await works(site)


async def test_where_namespaces_are_missing_the_other_fences_hold(
    installed: None, tmp_path: Path
) -> None:
    async with running(tmp_path, *FENCED) as site:
        for do in ("fork", "run", "kill_all", "trace", "call_outside", "look_back", "unshare"):
            await site.refused(do)
        for pid in (0, os.getpid()):
            await site.refused("kill", pid)
        await site.refused("read", f"/proc/{os.getpid()}/environ")
        await site.refused("read", site.key)
        await site.exceeds("memory_bytes", "hoard", at=640)
        assert await works(site)


async def test_without_any_mechanism_a_visit_is_a_process_of_its_own_all_the_same(
    installed: None, tmp_path: Path
) -> None:
    async with running(tmp_path) as site:
        assert (await site.visit("daemon")).examples == 7
        assert site.processes == 0
        assert "UPSTREAM_KEY" not in await site.told("environ")
        assert await works(site)


async def test_nothing_remains_of_a_worker_that_is_lost(installed: None, tmp_path: Path) -> None:
    async with running(tmp_path, *EVERYTHING) as site:
        scratch = Path(site.trainer.scratch)
        task = asyncio.create_task(site.visit("sleep"))
        await until(lambda: site.processes > 0)
        family = psutil.Process(site.trainer.pid).children(recursive=True)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not scratch.exists()
        psutil.wait_procs(family, timeout=30.0)
        assert not any(process.is_running() for process in family)
