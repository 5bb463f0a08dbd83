"""A recipe that does what no recipe should; the tests of the sandbox install it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from daitn.learning.recipe import Config, DataProfile, Footprint, Measured, Progress, Trained
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput

_MIB = 1 << 20


def told(words: object) -> InvalidInput:
    """The one way to tell the test something."""
    return InvalidInput(str(words))


class Intruder:
    """Does what its configuration says under `do`, wherever it is called."""

    name = "intruder"
    data_schema = "any/1"
    test_schema = "any/1"
    metrics: tuple[str, ...] = ("accuracy",)
    apis: tuple[Api, ...] = (Api.CHAT,)

    def estimate(self, config: Config) -> Footprint:
        self.do(config)
        return Footprint(parameters=1, flops_per_example=1.0, memory_bytes=_MIB, size_bytes=1)

    def inspect(self, data: Path) -> DataProfile:
        """Look for what the data file says."""
        self.read(Path(data.read_text().strip()))
        return DataProfile(samples=1, labels={}, quality=1.0)

    def inspect_test(self, test: Path) -> DataProfile:
        return self.inspect(test)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        """`hoards`: MiB to take here, and not where it is asked what it needs."""
        self.do(config)
        if "hoards" in config:
            self.hoard(config["hoards"])
        (out / "part").write_text("new")

    def train(
        self,
        model: Path,
        config: Config,
        data: Path,
        examples: int,
        seed: int,
        out: Path,
        watch: Callable[[Progress], None],
    ) -> Trained:
        assert data.read_text() == "mine"
        assert (model / "part").read_text() == "before"
        self.do(config)
        (out / "part").write_text("after")
        (Path.home() / "notes").write_text("a private folder")
        return Trained(examples=examples, seconds=0.0)

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        self.do(config)
        return Measured(metric=metric, value=0.5, items=1, standard_error=0.0)

    def open(self, model: Path, config: Config) -> None:
        self.do(config)

    def do(self, config: Config) -> None:
        if "do" in config:
            getattr(self, str(config["do"]))(config.get("at"))

    def read(self, at: object) -> None:
        raise told(Path(str(at)).read_bytes()[:100])

    def list(self, at: object) -> None:
        raise told(os.listdir(str(at)))

    def write(self, at: object) -> None:
        with open(str(at), "ab") as file:
            file.write(b"intruder was here")

    def remove(self, at: object) -> None:
        os.unlink(str(at))

    def symlink(self, at: object) -> None:
        os.symlink("/etc/passwd", str(at))

    def environ(self, at: object) -> None:
        raise told(" ".join(sorted(os.environ)))

    def connect(self, at: object) -> None:
        with socket.create_connection(("127.0.0.1", int(str(at))), timeout=5.0) as connection:
            connection.sendall(b"records")

    def call_outside(self, at: object) -> None:
        with socket.create_connection(("192.0.2.1", 80), timeout=5.0):
            pass

    def datagram(self, at: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"records", ("127.0.0.1", int(str(at))))

    def abstract(self, at: object) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"\0{at}")

    def fork(self, at: object) -> None:
        os.fork()

    def run(self, at: object) -> None:
        subprocess.run([sys.executable, "-c", "print('out')"], check=True)

    def fork_bomb(self, at: object) -> None:
        """Of at most 5,000 processes, each of which lives on."""
        for _ in range(5000):
            if os.fork() == 0:
                time.sleep(600.0)
        raise told("nobody minds")

    def daemon(self, at: object) -> None:
        """Leave a process behind that nobody waits for."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 64)
                time.sleep(600.0)
            os._exit(0)
        os.wait()

    def threads(self, at: object) -> None:
        stop = threading.Event()
        try:
            for _ in range(5000):
                threading.Thread(target=stop.wait, daemon=True).start()
        finally:
            stop.set()
        raise told("nobody minds")

    def kill(self, at: object) -> None:
        os.kill(int(str(at)) or os.getppid(), signal.SIGKILL)
        time.sleep(600.0)

    def kill_all(self, at: object) -> None:
        os.kill(-1, signal.SIGKILL)

    def trace(self, at: object) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        attach = 16
        if libc.ptrace(attach, os.getppid(), None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def look_back(self, at: object) -> None:
        """Into the memory of the process that this one is a copy of."""
        with open(f"/proc/{os.getppid()}/mem", "rb") as memory:
            memory.read(1)

    def outlive(self, at: object) -> None:
        """Have the kernel forget that this process ends with its worker."""
        libc = ctypes.CDLL(None, use_errno=True)
        set_pdeathsig = 1
        if libc.prctl(set_pdeathsig, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")

    def unshare(self, at: object) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        new_user = 0x10000000
        if libc.unshare(new_user) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    def hoard(self, at: object) -> None:
        """Take as many MiB as `at` says, 16 at a time, and keep them."""
        kept = [bytearray(b"x") * (16 * _MIB) for _ in range(int(str(at)) // 16)]
        time.sleep(60.0)
        raise told(len(kept))

    def grab(self, at: object) -> None:
        """Take them at once."""
        kept = bytearray(int(str(at)) * _MIB)
        time.sleep(60.0)
        raise told(len(kept))

    def spin(self, at: object) -> None:
        end_s = time.monotonic() + 60.0
        while time.monotonic() < end_s:
            pass

    def sleep(self, at: object) -> None:
        time.sleep(60.0)

    def fill(self, at: object) -> None:
        """Write one file of 64 MiB."""
        with open(f"{at}/large", "wb") as file:
            for _ in range(64):
                file.write(bytes(_MIB))

    def litter(self, at: object) -> None:
        """Write as much in many files."""
        for number in range(64):
            Path(str(at), f"{number}").write_bytes(bytes(_MIB))

    def crowd(self, at: object) -> None:
        """Write 11,000 empty files."""
        for number in range(11_000):
            Path(str(at), f"{number}").touch()
