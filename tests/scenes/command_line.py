"""The command line, run in the tests' own process: the interpreter and its imports are there."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass

from typer.main import get_command
from typer.testing import CliRunner

from daitn.cli.app import app

__all__ = ["Ended", "daitn"]

_COMMAND = get_command(app)
"""Each of its commands is made once, which costs more than most of them take."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, as `subprocess.CompletedProcess` says it."""

    returncode: int
    stdout: str
    stderr: str


def daitn(*arguments: str, **environment: str) -> Ended:
    """Run `daitn` with these arguments, as a process of its own would end."""
    environment = {**os.environ, "NO_COLOR": "1", **environment}
    with CliRunner().isolation(env=environment) as (stdout, stderr, _):
        code = _run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        told, complained = (stream.getvalue().decode("utf-8") for stream in (stdout, stderr))
    return Ended(code, told, complained)


def _run(arguments: tuple[str, ...]) -> int:
    """Its exit code; as the interpreter does, it prints what it did not expect."""
    try:
        _COMMAND.main(args=arguments, prog_name="daitn")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code)
            return 1
        return ended.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0
