"""A server ends with the node that runs it, however that ends, and so does all that it started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from daitn.node.serving.local.process import ServerProcess
from tests.scenes import vllm
from tests.scenes.waiting import wait_until

pytestmark = pytest.mark.processes

NODE = """
import asyncio, sys
from pathlib import Path
from daitn.node.serving.local.process import ServerProcess

async def main(program, folder):
    kept = await ServerProcess.start((program, "serve", "m", "--port", "0"), {}, Path(folder))
    await kept.ended()

asyncio.run(main(*sys.argv[1:]))
"""


def test_no_process_outlives_a_node_that_is_killed(tmp_path: Path) -> None:
    program = vllm.installed(tmp_path / "bin")
    command = [sys.executable, "-c", NODE, str(program), str(tmp_path / "state")]
    with subprocess.Popen(command) as node:
        wait_until((tmp_path / "bin" / "told.json").exists)
        told = vllm.told(tmp_path / "bin")
        (keeper,) = psutil.Process(node.pid).children()
        node.kill()
    started = (keeper.pid, told.pid, told.worker)
    wait_until(lambda: not any(map(psutil.pid_exists, started)))


async def test_its_end_is_told_in_words(tmp_path: Path) -> None:
    said = await ServerProcess.start(("sh", "-c", "echo no room; exit 3"), {}, tmp_path)
    assert await said.ended() == "ended with exit code 3"
    assert said.tail == "no room"
    killed = await ServerProcess.start(("sh", "-c", "kill -9 $$"), {}, tmp_path)
    assert "was killed by signal 9 (SIGKILL): out of memory?" in await killed.ended()
    absent = await ServerProcess.start(("/no/such/program",), {}, tmp_path)
    assert await absent.ended() == "ended with exit code 1"
    assert "cannot run ['/no/such/program']: No such file or directory" in absent.tail


async def test_its_log_is_bounded_and_harmless(tmp_path: Path) -> None:
    script = (
        r"head -c 3000000 /dev/zero | tr '\0' x; printf 'red \033[31m\n\n'; "
        "yes $(seq 20) | head -n 60000"
    )
    chatty = await ServerProcess.start(("sh", "-c", script), {}, tmp_path)
    await chatty.ended()
    await chatty.stop()
    logs = sorted(tmp_path.glob("server.log*"))
    assert [path.name for path in logs] == ["server.log", "server.log.1"]
    assert all(path.stat().st_size <= 1 << 20 for path in logs)
    assert "\x1b" not in "".join(path.read_text() for path in logs)
    assert tmp_path.stat().st_mode & 0o077 == 0, "nobody else reads what people asked"
