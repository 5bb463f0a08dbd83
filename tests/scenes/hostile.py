"""Recipes that fail where a node asks them something, one way each.

A module of its own beside the tests' packages: workers import it as pip would install it.
"""

import os
import signal
import sys
import time
from pathlib import Path

from daitn.learning.recipe import Config, DataProfile, Footprint


class Harmless:
    """Reads any file of `any/1`, and does not train."""

    data_schema = "any/1"
    test_schema = "any/1"
    metrics: tuple[str, ...] = ("accuracy",)

    def estimate(self, config: Config) -> Footprint:
        return Footprint(parameters=1, flops_per_example=1.0, memory_bytes=1, size_bytes=1)

    def inspect(self, data: Path) -> DataProfile:
        return DataProfile(samples=len(data.read_text()), labels={}, quality=1.0)

    def inspect_test(self, test: Path) -> DataProfile:
        return self.inspect(test)


class Estimating(Harmless):
    """Fails in `estimate` as its configuration says."""

    def estimate(self, config: Config) -> Footprint:
        match config.get("do"):
            case "raise":
                raise ZeroDivisionError("nothing to divide")
            case "exit":
                sys.exit(3)
            case "die":
                os._exit(3)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(600)
            case "babble":
                return "two"  # type: ignore[return-value]
            case "recurse":
                return self.estimate(config)
            case "nothing":
                return Footprint(
                    parameters=1, flops_per_example=float("nan"), memory_bytes=1, size_bytes=1
                )
            case "huge":
                return Footprint(
                    parameters=1, flops_per_example=1.0, memory_bytes=10**30, size_bytes=1
                )
        return super().estimate(config)


class Dying(Harmless):
    """Dies on every file."""

    def inspect(self, data: Path) -> DataProfile:
        os._exit(9)


class Telling(Harmless):
    """Fails with the content in its words, as libraries do."""

    data_schema = "telling/1"

    def inspect(self, data: Path) -> DataProfile:
        raise ValueError(f"cannot convert {data.read_text()!r}")


class Unmade:
    """Cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no licence")


class Silent(Harmless):
    """Is not made within anybody's patience."""

    def __init__(self) -> None:
        time.sleep(600)


class Half:
    """Lacks what every recipe says of itself."""

    metrics = 7


def gone() -> object:
    """Ends the process that makes it."""
    os._exit(1)
