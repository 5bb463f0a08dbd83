"""The command line, run in the tests' own process: the interpreter and its imports are there."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass

from typer.testing import CliRunner

from daitn.cli.app import app

__all__ = ["Ended", "daitn"]


@dataclass(frozen=True)
class Ended:
    """How a command ended, as `subprocess.CompletedProcess` says it."""

    returncode: int
    stdout: str
    stderr: str


def daitn(*arguments: str, **environment: str) -> Ended:
    """Run `daitn` with these arguments, as a process of its own would end."""
    environment = {**os.environ, "NO_COLOR": "1", **environment}
    result = CliRunner().invoke(app, arguments, env=environment, prog_name="daitn")
    stderr = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        # What the interpreter would print.
        stderr += "".join(traceback.format_exception(result.exception))
    return Ended(result.exit_code, result.stdout, stderr)
