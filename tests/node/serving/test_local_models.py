"""Models of a facility's own: a file, a folder, and what its node runs for them."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import openai
import psutil
import pytest

from daitn.learning import memory
from daitn.learning.memory import Loading
from daitn.learning.sandbox.policy import Sandbox
from daitn.node.config import Engine, ModelConfig
from daitn.node.serving.backends import openai_server
from daitn.node.serving.local import model as local
from daitn.node.serving.local.choosing import EnginePlan
from daitn.node.serving.local.folder import Parts, parts_of
from daitn.objects.deployments import Api, DeploymentState
from daitn.objects.errors import NotFound, StorageFull, WorkFailed
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.ports import free_port
from tests.node.serving.scene import Site
from tests.scenes import tiny_llama, vllm
from tests.scenes.llama_cpp import skip_without_llama_cpp, write_gguf
from tests.scenes.waiting import until
from tests.scenes.workers import children_of

pytest.importorskip("torch")
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_llama_cpp()
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    write_gguf(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "tiny"
    tiny_llama.write_folder(folder)
    return folder


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PAUSE_S", 0.5)
    monkeypatch.setattr(local, "LOOKS_EVERY_S", 0.02)


@asynccontextmanager
async def facility(
    tmp_path: Path, *models: ModelConfig, stall_s: float = 60.0
) -> AsyncIterator[Site]:
    """A facility with models of its own."""
    recipes = ("causal-lm",)
    site = Site(MemoryNetwork(), tmp_path, recipes=recipes, models=models, stall_s=stall_s)
    await site.start()
    try:
        yield site
    finally:
        await site.close()


def is_in(site: Site, name: str, state: DeploymentState) -> Callable[[], bool]:
    return lambda: site.state(name) is state


def servers() -> list[psutil.Process]:
    """Keepers that this process has started, and what those have."""
    found = []
    for keeper, command in children_of():
        if "local.keeper" in " ".join(command):
            found += [keeper, *(process for process, _ in children_of(keeper.pid, recursive=True))]
    return found


async def test_a_file_is_served_and_told_as_it_is(
    tmp_path: Path, gguf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "secret")
    caplog.set_level(logging.INFO)
    stated = ModelConfig(name="chatty", gguf=str(gguf), slots=2, context_tokens=512)
    async with facility(tmp_path, stated) as site:
        await until(is_in(site, "chatty", DeploymentState.READY))
        told = site.deployed("chatty")
        assert told is not None
        assert told.apis == (Api.CHAT, Api.COMPLETIONS)
        assert told.context_tokens == 512
        assert told.slots == 2
        assert told.abilities.json_schema
        assert re.fullmatch(r"llama\.cpp \(xllamacpp [\d.]+\)", told.engine)
        assert await site.ask("chatty", "tell nobody of zanzibar", max_tokens=4, temperature=0)
        async with site.client() as client:
            stream = await client.chat.completions.create(
                model="chatty",
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=4,
                stream=True,
            )
            pieces = [piece async for piece in stream]
        assert {piece.model for piece in pieces} == {"chatty"}
        (keeper, server, *_) = servers()
        for process in (keeper, server):
            assert "UPSTREAM_KEY" not in process.environ()
            assert "LLAMA_API_KEY" not in " ".join(process.cmdline())
        key = server.environ()["LLAMA_API_KEY"]
        assert key not in " ".join(server.cmdline())
        (port,) = {at.laddr.port for at in server.net_connections() if at.status == "LISTEN"}
        with pytest.raises(openai.AuthenticationError):
            await openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key="none"
            ).chat.completions.create(model="chatty", messages=[{"role": "user", "content": "x"}])
    assert not servers()
    assert not server.is_running()
    assert "model chatty is run by llama.cpp (xllamacpp" in caplog.text
    printed = (tmp_path / "mdf" / "own-models" / "chatty" / "server.log").read_text()
    assert printed
    assert "zanzibar" not in printed, "what is asked is not kept"
    assert key not in caplog.text


async def test_a_killed_server_comes_back_while_others_answer(tmp_path: Path, gguf: Path) -> None:
    one = ModelConfig(name="a", gguf=str(gguf), context_tokens=512)
    other = msgspec.structs.replace(one, name="b", apis=(Api.CHAT, Api.EMBEDDINGS))
    async with facility(tmp_path, one, other) as site:
        for name in ("a", "b"):
            await until(is_in(site, name, DeploymentState.READY))
        said = await site.ask("a", "hello", max_tokens=4, temperature=0)
        (server,) = [
            p
            for p in servers()
            if '"name": "a"' in p.cmdline()[-1] and "keeper" not in p.cmdline()[3]
        ]
        server.send_signal(signal.SIGKILL)
        await until(is_in(site, "a", DeploymentState.LOADING))
        with pytest.raises(openai.InternalServerError) as away:
            await site.ask("a")
        assert away.value.status_code == 503
        assert await site.ask("b", "hello", max_tokens=4, temperature=0)
        async with site.client() as client:
            vectors = await client.embeddings.create(model="b", input=["hello", "fever"])
        assert [len(each.embedding) for each in vectors.data] == [64, 64]
        await until(is_in(site, "a", DeploymentState.READY))
        assert await site.ask("a", "hello", max_tokens=4, temperature=0) == said
    assert not servers()


async def test_a_port_that_is_taken_meanwhile_is_changed(
    tmp_path: Path, gguf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(local, "free_port", lambda: next(ports, 0) or free_port())
        stated = ModelConfig(name="chatty", gguf=str(gguf), context_tokens=512)
        async with facility(tmp_path, stated) as site:
            await until(is_in(site, "chatty", DeploymentState.READY))
    assert "its server ended with exit code 1, after it said" in caplog.text


@pytest.mark.long
async def test_a_server_that_hangs_is_replaced(
    tmp_path: Path, gguf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_server, "PROBE_UP_S", 0.1)
    monkeypatch.setattr(openai_server, "PROBE_TIMEOUT_S", 0.5)
    stated = ModelConfig(name="chatty", gguf=str(gguf), context_tokens=512)
    async with facility(tmp_path, stated, stall_s=2.0) as site:
        await until(is_in(site, "chatty", DeploymentState.READY))
        (_, server) = servers()
        server.suspend()
        await until(is_in(site, "chatty", DeploymentState.FAILED))
        await until(is_in(site, "chatty", DeploymentState.READY))
        assert server.pid not in {process.pid for process in servers()}
        assert await site.ask("chatty", "hello", max_tokens=4)
    assert "its server made no progress and used no processor" in caplog.text


@pytest.mark.parametrize(("steady_s", "factor"), [(1e9, 2.0), (0.0, 1.0)])
async def test_what_ends_as_soon_as_it_is_ready_is_started_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    steady_s: float,
    factor: float,
) -> None:
    monkeypatch.setattr(local, "PAUSE_S", 0.01)
    monkeypatch.setattr(local, "STEADY_S", steady_s)
    plan = EnginePlan(Engine.VLLM, "vllm", "", (Api.CHAT,), 1, 0, 0, lambda port: ())
    monkeypatch.setattr(local, "chosen", lambda config, threads: plan)

    @asynccontextmanager
    async def runs(self: local.LocalModel, plan: EnginePlan) -> AsyncIterator[Any]:
        async def ended() -> WorkFailed:
            return WorkFailed("its server ended")

        yield SimpleNamespace(backend=SimpleNamespace(descriptor=self._last), ended=ended)

    monkeypatch.setattr(local.LocalModel, "_by_server", runs)
    nobody: Any = None
    node: Any = SimpleNamespace(owner="mdf", threads=1, state="")
    model = local.LocalModel(
        ModelConfig(name="m", gguf="m.gguf"), node, nobody, nobody, Loading(), lambda: None
    )

    def pauses() -> list[Any]:
        told = [record for record in caplog.records if "does not run" in record.msg]
        return [record.args[1] for record in told if isinstance(record.args, tuple)]

    model.start()
    await until(lambda: len(pauses()) > 3)
    await model.close()
    assert pauses()[:4] == pytest.approx([0.01 * factor**tries for tries in range(4)])


async def test_one_that_never_comes_up_is_ended(
    tmp_path: Path, gguf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho loading; exec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    stated = ModelConfig(
        name="chatty", gguf=str(gguf), context_tokens=512, backend=Engine.LLAMA_SERVER
    )
    async with facility(tmp_path, stated, stall_s=0.5) as site:
        await until(is_in(site, "chatty", DeploymentState.FAILED))
        assert "made no progress and used no processor" in caplog.text
        assert "after it said:\n    loading" in caplog.text
    assert not servers()


async def test_it_is_refused_where_there_is_no_memory_for_it(
    tmp_path: Path, gguf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 20
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    stated = ModelConfig(name="chatty", gguf=str(gguf), context_tokens=512)
    async with facility(tmp_path, stated) as site:
        await until(is_in(site, "chatty", DeploymentState.FAILED))
        assert not servers()
        assert re.search(r"facility.models\[chatty\].gguf: chatty needs \d+ bytes", caplog.text)
        assert "state a smaller `context_tokens`" in caplog.text
        free = 1 << 32
        await until(is_in(site, "chatty", DeploymentState.READY))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "absent": ({"gguf": "no.gguf"}, "gguf: there is no file"),
    "text": ({"gguf": "text.gguf"}, "gguf: this is not a GGUF file: it begins with b'once'"),
    "cut": ({"gguf": "cut.gguf"}, "gguf: the file is cut off or damaged"),
    "unfit": ({"gguf": "cut.gguf", "backend": Engine.VLLM}, "backend: vllm does not run a file"),
    "nowhere": ({"folder": "no"}, "folder: there is no"),
    "empty": ({"folder": "empty"}, r"folder: .*holds no \*.safetensors"),
    "ranks": (
        {"folder": "whole", "backend": Engine.TRANSFORMERS, "apis": (Api.RERANK,)},
        "apis: the recipe causal-lm does not answer rerank",
    ),
    "without": ({"folder": "whole", "backend": Engine.VLLM}, "backend: vLLM is neither on PATH"),
}


async def test_what_is_wrong_is_said_with_its_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.gguf").write_text("once upon a time")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\x01")
    for name in ("empty", "whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "whole" / "model.safetensors").write_bytes(b"weights")
    models = []
    for name, (stated, _) in WRONG.items():
        paths = {key: str(tmp_path / stated[key]) for key in stated.keys() & {"gguf", "folder"}}
        models.append(ModelConfig(name=name, **{**stated, **paths}))
    async with facility(tmp_path, *models) as site:
        for name, (_, words) in WRONG.items():
            await until(is_in(site, name, DeploymentState.FAILED))
            said = rf"model {name} does not run.*facility\.models\[{name}\]\.{words}.*\n *fix: "
            assert re.search(said, caplog.text)


async def test_vllm_runs_a_folder_as_it_is_told_to(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    vllm.installed(programs)
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 81000\n")
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stated = ModelConfig(name="big", folder=str(folder), context_tokens=1024, options=("--die",))
    async with facility(tmp_path, stated) as site:
        await until(is_in(site, "big", DeploymentState.FAILED))
    log = (tmp_path / "mdf" / "own-models" / "big" / "server.log").read_text()
    assert "loading \\x1b[31mweights" in log
    assert "no kernel image" in log

    stated = ModelConfig(name="big", folder=str(folder), context_tokens=1024)
    async with facility(tmp_path, stated) as site:
        await until(is_in(site, "big", DeploymentState.READY))
        deployed = site.deployed("big")
        assert deployed is not None
        assert (deployed.engine, deployed.context_tokens, deployed.slots) == ("vllm", 1024, 64)
        assert deployed.apis == (Api.CHAT, Api.COMPLETIONS)
        assert await site.ask("big") == vllm.ANSWER
        heard = vllm.told(programs)
        port = heard.arguments[heard.arguments.index("--port") + 1]
        assert heard.arguments == [
            *("serve", str(folder), "--host", "127.0.0.1", "--port", port),
            *("--served-model-name", "big", "--max-num-seqs", "64", "--max-model-len", "1024"),
        ]
        assert "AWS_SECRET_ACCESS_KEY" not in heard.environment
        assert heard.environment["HF_HUB_OFFLINE"] == "1"
        os.kill(heard.pid, signal.SIGKILL)
        await until(lambda: vllm.told(programs).pid != heard.pid)
        assert not psutil.pid_exists(heard.worker), "what it spawned ends with it"
        await until(is_in(site, "big", DeploymentState.READY))
        again = vllm.told(programs)
    assert not psutil.pid_exists(again.pid)
    assert not psutil.pid_exists(again.worker)


@pytest.mark.timeout(600)  # Three processes import the engine.
async def test_a_folder_is_served_by_our_own_engine(tmp_path: Path, folder: Path) -> None:
    kept = tmp_path / "mdf" / "own-models" / "tiny"
    stated = ModelConfig(name="tiny", folder=str(folder), context_tokens=128)
    async with facility(tmp_path, stated) as site:
        await until((kept / "made.json").exists)
        await until(is_in(site, "tiny", DeploymentState.READY))
        told = site.deployed("tiny")
        assert told is not None
        assert told.context_tokens == 128
        assert told.abilities.tools
        assert "transformers" in told.engine
        assert Api.CHAT in told.apis
        assert await site.ask("tiny", "hello", max_tokens=4, temperature=0)
        with pytest.raises(openai.BadRequestError, match="maximum context length is 128"):
            await site.ask("tiny", "hello " * 130)

    full = Loading().of("tiny", 1 << 60, field="folder", fix="")

    async def again(room: AbstractContextManager[None] = full) -> Parts:
        nobody = "a recipe that is not installed"
        return await parts_of(folder, kept, nobody, 1, Sandbox(folder=str(tmp_path)), 1, room)

    assert (await again()).folder == kept / "parts", "they are made once, and need no room then"
    os.utime(folder / "config.json", (1.0, 1.0))
    with pytest.raises(StorageFull, match="tiny needs"):
        await again()
    with pytest.raises(NotFound, match="not installed"):
        await again(nullcontext())
