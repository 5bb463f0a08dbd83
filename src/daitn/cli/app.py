"""`daitn`: the command line.

A command is imported when it is called: all of them together, with the numerical libraries that
some need, take longer than most commands run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperGroup
from typer.main import get_group

from daitn import __version__

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
    "query": "query:query",
    "deploy": "deploy:deploy",
    "retire": "deploy:retire",
    "get": "get:get",
    "describe": "describe:describe",
    "explain": "explain:explain",
    "report": "report.command:report",
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
    """What a word after `daitn` calls; KeyError if nothing."""
    module, _, name = COMMANDS[word].partition(":")
    called: Found = getattr(import_module(f"daitn.cli.{module}"), name)
    return called


@cache
def _made(word: str) -> Any:
    """The command of a word: making one reads the signatures of all that it runs."""
    called, holder = found(word), typer.Typer(rich_markup_mode=None)
    if isinstance(called, typer.Typer):
        holder.add_typer(called, name=word)
    else:
        holder.command(word)(called)
    return get_group(holder).commands[word]


class _Commands(Mapping[str, Any]):
    """All commands, each made when it is first looked up."""

    def __getitem__(self, word: str) -> Any:
        return _made(word)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Lazily(TyperGroup):
    """A group of `_Commands`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": _Commands()})


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
    app()


if __name__ == "__main__":
    main()
