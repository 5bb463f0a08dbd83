"""A recipe that misbehaves on request; the worker's tests install it beside the real ones."""

import fcntl
import os
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from daitn.learning.child.frames import framed
from daitn.learning.commands import WorkerFailed, WorkerFinished
from daitn.learning.recipe import Config, DataProfile, Footprint, Measured, Progress, Trained
from daitn.objects.errors import ErrorReport, InvalidInput
from daitn.objects.wire import encode

Watch = Callable[[Progress], None]


def replies_fd() -> int:
    """The pipe to the node, found as a hostile recipe would find it."""
    return next(fd for fd in range(3, 64) if is_pipe_out(fd))


def is_pipe_out(fd: int) -> bool:
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        return stat.S_ISFIFO(os.fstat(fd).st_mode) and mode == os.O_WRONLY
    except OSError:
        return False


class Odd:
    """Does in `train` what its configuration says under `do`."""

    name = "odd"
    data_schema = "any/1"
    test_schema = "any/1"
    metrics: tuple[str, ...] = ("accuracy",)

    def estimate(self, config: Config) -> Footprint:
        """Tell the process id, or return `give`, which is no footprint."""
        if "give" in config:
            return config["give"]  # type: ignore[return-value]
        return Footprint(
            parameters=os.getpid(), flops_per_example=1.0, memory_bytes=1, size_bytes=1
        )

    def inspect(self, data: Path) -> DataProfile:
        return DataProfile(samples=len(data.read_text()), labels={}, quality=1.0)

    def inspect_test(self, test: Path) -> DataProfile:
        return DataProfile(samples=1, labels={"test": 1}, quality=1.0)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        (out / "part").write_text(str(seed))

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        """Tell the engine's number of threads."""
        return Measured(metric=metric, value=0.5, items=torch.get_num_threads(), standard_error=0.0)

    def train(
        self,
        model: Path,
        config: Config,
        data: Path,
        examples: int,
        seed: int,
        out: Path,
        watch: Watch,
    ) -> Trained:
        getattr(self, str(config["do"]))(watch, examples)
        return Trained(examples=examples, seconds=0.0)

    def report(self, watch: Watch, examples: int) -> None:
        for done in range(1, examples + 1):
            watch(Progress(examples=done, of_examples=examples, loss=1.0 / done))

    def hang(self, watch: Watch, examples: int) -> None:
        watch(Progress(examples=0, of_examples=examples, loss=1.0))
        time.sleep(600)

    def spin(self, watch: Watch, examples: int) -> None:
        """Compute for two seconds, and tell nothing."""
        end_s = time.monotonic() + 2.0
        while time.monotonic() < end_s:
            pass

    def stop(self, watch: Watch, examples: int) -> None:
        """As if somebody had stopped the process."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def chat(self, watch: Watch, examples: int) -> None:
        print("x" * 100_000)
        os.write(1, b"raw bytes to stdout")
        sys.stderr.write("to stderr")
        assert sys.stdin.read() == ""

    def refuse(self, watch: Watch, examples: int) -> None:
        raise InvalidInput("a bad row", field="age", fix="correct row 3")

    def trip(self, watch: Watch, examples: int) -> None:
        raise KeyError("no such layer")

    def leave(self, watch: Watch, examples: int) -> None:
        sys.stderr.write("the disk is on fire\n")
        sys.exit(7)

    def hush(self, watch: Watch, examples: int) -> None:
        """Close the replies, and go on."""
        os.closerange(3, 1024)
        time.sleep(3600.0)

    def babble(self, watch: Watch, examples: int) -> None:
        os.write(replies_fd(), b"\xff" * 64)
        time.sleep(600)

    def stall(self, watch: Watch, examples: int) -> None:
        os.write(replies_fd(), struct.pack(">I", 100) + b"\x93")
        time.sleep(600)

    def mumble(self, watch: Watch, examples: int) -> None:
        os.write(replies_fd(), struct.pack(">I", 5) + b"\x93\x01\x02\x03\x04")
        time.sleep(600)

    def disguise(self, watch: Watch, examples: int) -> None:
        """Say that the worker says it."""
        error = ErrorReport(code="WorkFailed", problem="of patient 17")
        os.write(replies_fd(), framed(WorkerFailed(error=error, by_recipe=False)))
        time.sleep(600)

    def quote(self, watch: Watch, examples: int) -> None:
        """A reply that is none, whose kind is a record."""
        reply = encode({"type": "of patient 17"})
        os.write(replies_fd(), struct.pack(">I", len(reply)) + reply)
        time.sleep(600)

    def forge(self, watch: Watch, examples: int) -> None:
        """Answer, and then answer what will be asked next."""
        for n in (1, 2):
            forged = Trained(examples=n, seconds=0.0)
            reply = WorkerFinished(result=msgspec.Raw(encode(forged)))
            os.write(replies_fd(), framed(reply))
        time.sleep(600)
