"""`daitn`: the command line.

A command is imported when it is called: all of them together, with the numerical libraries that
some need, take longer than most commands run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperGroup
from typer.main import get_group

from daitn import __version__
from daitn.files.failed_writes import STDOUT, naming
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.text import encodable

__all__ = ["COMMANDS", "app", "found", "main"]

Found: TypeAlias = Callable[..., Any] | typer.Typer
"""A command, or a group of them."""

COMMANDS: Final[Mapping[str, str]] = {
    "up": "processes:up",
    "center": "processes:center",
    "node": "processes:node",
    "train": "train:train",
    "watch": "train:watch",
    "cancel": "train:cancel",
    "resume": "train:resume",
    "query": "query:query",
    "deploy": "deploy:deploy",
    "retire": "deploy:retire",
    "get": "get:get",
    "describe": "describe:describe",
    "explain": "explain:explain",
    "report": "report:report",
    "value": "value:value",
    "account": "accounts.command:app",
    "ping": "steering:ping",
    "traceroute": "steering:traceroute",
    "trace": "steering:trace",
    "steer": "steering:steer",
    "events": "events:events",
    "doctor": "doctor:doctor",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "cordon": "cordons:cordon",
    "uncordon": "cordons:uncordon",
    "drain": "cordons:drain",
    "key": "keys:key",
    "network": "joining:app",
    "dashboard": "dashboard:dashboard",
    "token": "tokens:app",
    "model": "model:app",
    "topology": "topology:app",
    "data": "data:app",
    "policy": "policy:app",
    "audit": "audit:app",
    "mcp": "mcp.command:mcp",
    "schema": "schemas:schema",
    "demo": "demo.command:demo",
    "version": "app:version",
}
"""The words after `daitn`, in the order of its help, and where each is found in this package."""


def found(word: str) -> Found:
    """The command or group of a word after `daitn`; KeyError if there is none."""
    module, _, name = COMMANDS[word].partition(":")
    called: Found = getattr(import_module(f"daitn.cli.{module}"), name)
    return called


@cache
def _made(word: str) -> Any:
    """The command of a word: creating one reads the signatures of everything it runs."""
    called, holder = found(word), typer.Typer(rich_markup_mode=None)
    if isinstance(called, typer.Typer):
        holder.add_typer(called, name=word)
    else:
        holder.command(word)(called)
    return get_group(holder).commands[word]


class _Commands(Mapping[str, Any]):
    """All commands, each created when it is first looked up."""

    def __getitem__(self, word: str) -> Any:
        return _made(word)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Lazily(TyperGroup):
    """A group of `_Commands`, whose errors become sentences and exit codes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": _Commands()})

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        with _answered():
            _check_words(args, os.environ)
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _answered():
            return super().invoke(ctx)


@contextmanager
def _answered() -> Iterator[None]:
    """Within this block, an error that a sentence can state ends the command as in `run`."""
    try:
        try:
            yield
        finally:
            # Otherwise the interpreter does it at its end, when no error can be reported.
            with naming(STDOUT):
                sys.stdout.flush()
    except (DaitnError, OSError, KeyboardInterrupt) as error:
        # Imported here, because it would delay `--help` and `version`.
        from daitn.cli.session import ended

        raise typer.Exit(ended(error)) from None


def _check_words(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Names and texts go into messages and files, which are UTF-8. Paths are no exception, as they
    are printed. Raises `InvalidInput`, without the word itself, which may be a secret."""
    for position, word in enumerate(words):
        if not encodable(word):
            option = word.partition("=")[0]
            if not option.startswith("-"):
                option = words[position - 1] if position else ""
            field = option if option.startswith("-") and encodable(option) else "arguments"
            raise InvalidInput(
                f"argument {position + 1} is not UTF-8 text",
                field=field,
                fix="write it in UTF-8; rename a file whose name is not",
            )
    for name, value in environment.items():
        if name.startswith("DAITN_") and not encodable(value):
            raise InvalidInput(
                "the environment variable is not UTF-8 text", field=name, fix="set it in UTF-8"
            )


app = typer.Typer(
    name="daitn",
    help="Models follow data, queries find models: train models over data sites that keep their "
    "data, and ask them wherever they are.",
    cls=_Lazily,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """See the help of `app`."""


def main() -> None:
    """Entry point of the `daitn` command."""
    _open_streams()
    app()


def _open_streams() -> None:
    """Open standard streams that the parent of this process had closed. Otherwise Python has none
    to print on, and the first files or sockets take their numbers, which libuv does not expect."""
    for name, flags, mode in (
        ("stdin", os.O_RDONLY, "r"),
        ("stdout", os.O_WRONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, flags)  # The lowest that is free.
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


if __name__ == "__main__":
    main()
