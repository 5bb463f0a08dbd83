"""Templates start processes that are as if started anew, and are told of their ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from daitn.spawning.messages import SUPPORTED
from daitn.spawning.spawner import ForkedProcess, Template
from daitn.spawning.streams import Spawner
from tests.scenes.waiting import until, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not SUPPORTED, reason="templates need Linux"),
]

ROOT = Path(__file__).parents[2]
SPEAKER = "tests.spawning.speaker"
"""A template does not look for modules in its working directory."""


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Template]:
    with (tmp_path / "errors").open("ab") as errors:
        template = Template((SPEAKER,), {**os.environ, "PYTHONPATH": str(ROOT)}, errors)
    yield template
    template.close()


Start = Callable[..., tuple[ForkedProcess, Path]]


@pytest.fixture
def start(template: Template, tmp_path: Path) -> Start:
    def started(*arguments: str, **environment: str) -> tuple[ForkedProcess, Path]:
        said = tmp_path / f"said-{arguments[0]}"
        with said.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            files = (nothing.fileno(), output.fileno(), output.fileno())
            process = template.spawn(
                SPEAKER, arguments, files, title="daitn speaks", environment=environment
            )
        return process, said

    return started


def told(process: ForkedProcess, said: Path) -> dict[str, Any]:
    assert process.wait(30.0) == 0
    answer: dict[str, Any] = json.loads(said.read_text())
    return answer


def test_a_process_has_what_it_was_given_and_nothing_else(start: Start) -> None:
    first = told(*start("tell", "a b", "", WHO="me", EMPTY=""))
    assert first["arguments"] == ["a b", ""]
    assert first["environment"] == {"WHO": "me", "EMPTY": ""}
    assert first["folder"] == os.getcwd()
    assert first["session"] == first["pid"] != first["imported in"]
    assert first["files"] == [0, 1, 2]


def test_modules_are_imported_once_for_all(start: Start, tmp_path: Path) -> None:
    first = told(*start("tell"))
    (tmp_path / "said-tell").unlink()
    second = told(*start("tell"))
    assert first["imported in"] == second["imported in"]
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize(
    ("arguments", "code"), [(("leave", "7"), 7), (("fail",), 1), (("die",), -signal.SIGKILL)]
)
def test_ends_are_told_as_subprocess_tells_them(
    start: Start, arguments: tuple[str, ...], code: int
) -> None:
    process, said = start(*arguments)
    assert process.wait(30.0) == code == process.poll()
    assert ("it failed" in said.read_text()) == (arguments == ("fail",))


def test_lists_of_processes_show_what_it_is(start: Start) -> None:
    process, said = start("stay")
    wait_until(lambda: said.read_text() == f"{process.pid}\n")
    assert " ".join(psutil.Process(process.pid).cmdline()).strip() == "daitn speaks"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(30.0) == -signal.SIGTERM


def test_without_its_template_a_process_goes_on_and_its_end_is_noticed(
    template: Template, start: Start
) -> None:
    process, said = start("stay")
    wait_until(lambda: said.read_text() != "")
    os.kill(psutil.Process(process.pid).ppid(), signal.SIGKILL)
    wait_until(lambda: not template.runs)
    with pytest.raises(OSError, match=r"ended|[Bb]roken|reset"):
        start("tell")
    assert process.poll() is None
    process.kill()
    assert process.wait(30.0) == -signal.SIGKILL


async def test_streams_lead_to_the_process_and_back(template: Template) -> None:
    spawner = Spawner(template.connection())
    process = await spawner.spawn(SPEAKER, ("echo",), title="echo", environment={})
    process.stdin.write(b"hello\n")
    assert await process.stdout.readline() == b"HELLO\n"
    assert await process.stderr.read() == b"some words\n"
    assert await process.wait() == 0 == process.returncode
    process.stdin.close()


async def test_a_lost_template_takes_its_connection_s_processes_along(template: Template) -> None:
    spawner = Spawner(template.connection())
    process = await spawner.spawn(SPEAKER, ("stay",), title="stay", environment={})
    pid = int(await process.stdout.readline())
    assert pid == process.pid
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    with pytest.raises(OSError, match="ended"):
        await spawner.spawn(SPEAKER, ("stay",), title="stay", environment={})
    os.kill(pid, signal.SIGKILL)
    process.stdin.close()


HOLDER = textwrap.dedent(
    """
    import asyncio, os, socket, sys
    from daitn.spawning.streams import Spawner

    async def main():
        spawner = Spawner(socket.socket(fileno=int(sys.argv[1])))
        process = await spawner.spawn("tests.spawning.speaker", ("stay",), title="stay",
                                      environment=dict(os.environ))
        print(process.pid, flush=True)
        await process.wait()

    asyncio.run(main())
    """
)


async def test_processes_end_with_the_connection_over_which_they_were_started(
    template: Template,
) -> None:
    with template.connection() as connection:
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLDER, str(connection.fileno())),
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(connection.fileno(),),
        )
    assert holder.stdout is not None
    pid = int(await holder.stdout.readline())
    assert psutil.pid_exists(pid)
    holder.kill()
    await holder.wait()
    await until(lambda: not psutil.pid_exists(pid))
