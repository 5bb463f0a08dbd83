"""Commands with their arguments and options, from the signatures of their functions."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from daitn.cli.app import COMMANDS, found
from scripts.reference.rows import NoTable, Row

__all__ = ["command_table", "commands"]


Command: TypeAlias = Callable[..., Any]

_COMMON: Final = frozenset({"--center", "--json"})
"""Said once, at the top of the page."""
_VALUES: Final[dict[type, str]] = {str: "TEXT", Path: "PATH", int: "N", float: "NUMBER"}


def commands() -> Iterator[tuple[str, Command]]:
    """Every command by the words that call it, `daitn topology show`, with what it runs."""
    for word in COMMANDS:
        called = found(word)
        if isinstance(called, typer.Typer):
            yield from _grouped(called, f"daitn {word}")
        else:
            yield f"daitn {word}", called


def _grouped(group: typer.Typer, path: str) -> Iterator[tuple[str, Command]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__}", command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _grouped(inner.typer_instance, f"{path} {inner.name}")


def command_table(*words: str) -> list[Row]:
    """The arguments and options of one command, but for those that most commands have.

    Raises `NoTable` if there is no such command.
    """
    callback = dict(commands()).get(" ".join(words))
    if callback is None:
        raise NoTable(f"no command is called by `{' '.join(words)}`: see COMMANDS in cli/app.py")
    hints = get_type_hints(callback, include_extras=True)
    rows: list[Row] = [("option", "meaning")]
    for parameter in inspect.signature(callback).parameters.values():
        kind, info = _split(hints[parameter.name])
        names = _names(parameter.name, kind, info)
        if not _COMMON & set(names):
            value = _value(kind, info)
            spelled = ", ".join([*(f"`{name}`" for name in names[:-1]), f"`{names[-1]}{value}`"])
            rows.append((spelled, _meaning(kind, info, parameter.default)))
    return rows


def _split(hint: Any) -> tuple[Any, OptionInfo | ArgumentInfo | None]:
    kind, info = hint, None
    if get_origin(hint) is Annotated:
        kind, info = get_args(hint)
    if get_origin(kind) is UnionType:
        kind = next(part for part in get_args(kind) if part is not type(None))
    return (get_args(kind)[0] if get_origin(kind) is list else kind), info


def _names(name: str, kind: Any, info: OptionInfo | ArgumentInfo | None) -> list[str]:
    if isinstance(info, ArgumentInfo):
        return [info.metavar or name.upper()]
    plain = name.replace("_", "-")
    declared = [name for each in _declared(info) for name in each.split("/")]
    if declared:
        return declared
    return [f"--{plain}", f"--no-{plain}"] if kind is bool else [f"--{plain}"]


def _declared(info: OptionInfo | ArgumentInfo | None) -> list[str]:
    """The names that an option is declared with. In an `Annotated` the first stands where Typer has
    a default."""
    given = (info.default, *(info.param_decls or ())) if info else ()
    return [name for name in given if isinstance(name, str)]


def _value(kind: Any, info: OptionInfo | ArgumentInfo | None) -> str:
    if kind is bool or isinstance(info, ArgumentInfo):
        return ""
    return f" {'NAME' if issubclass(kind, enum.Enum) else _VALUES[kind]}"


def _meaning(kind: Any, info: OptionInfo | ArgumentInfo | None, default: object) -> str:
    said = [info.help] if info and info.help else []
    if issubclass(kind, enum.Enum):
        said.append(f"One of {', '.join(f'`{member.value}`' for member in kind)}.")
    if info and (info.min is not None or info.max is not None):
        least, most = _plain(info.min), _plain(info.max)
        said.append(f"From {least} to {most}." if info.max is not None else f"At least {least}.")
    if default is inspect.Parameter.empty:
        said.append("Required.")
    elif default not in (None, False, "") and default != []:
        shown = default.value if isinstance(default, enum.Enum) else _plain(default)
        said.append(f"Default: `{shown}`.")
    if info and info.envvar:
        said.append(f"Or by the environment variable `{info.envvar}`.")
    return " ".join(said)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
