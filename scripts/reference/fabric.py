"""What is said over the fabric: the keys of `tools/fabric/keys.py`, verbs by their handlers."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import daitn
from daitn.objects.roster import Kind
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_VERBS, SITE_VERBS
from scripts.reference.rows import Row

__all__ = ["handlers", "keys_table", "verbs_table"]

_SOURCES: Final = Path(daitn.__file__).parent
_VERBS: Final = {
    "center": ("center/service.py",),
    "node": ("node/node.py", "node/roles.py", "node/forwarder/role.py"),
    "home": ("node/agents/home_requests.py",),
}
"""Who serves verbs, and where the tables of handlers are."""
_KEY = re.compile(r"^    (daitn/\S+) +(\w+): (.+)$", re.MULTILINE)
_SIGNATURE = re.compile(r"(?P<question>.+?) -> (?P<answer>.+?): (?P<meaning>.+)", re.DOTALL)


def keys_table() -> list[Row]:
    """Every key, from the list at the top of the module that makes them."""
    found = _KEY.findall(keys.__doc__ or "")
    return [("key", "kind", "what"), *((f"`{key}`", kind, what) for key, kind, what in found)]


def verbs_table(who: str) -> list[Row]:
    """The verbs that somebody serves. A handler's text says `Question -> Answer: what it does`."""
    rows: list[Row] = [("verb", "question", "answer", "from", "meaning")]
    for verb, handler in handlers(who):
        said = _SIGNATURE.fullmatch(_summary(handler))
        if said is None:
            raise LookupError(f"{handler.name} does not say `Question -> Answer: what it does`")
        asked = (f"`{verb}`", said["question"], said["answer"])
        rows.append((*asked, _senders(who, verb), said["meaning"]))
    return rows


def _senders(who: str, verb: str) -> str:
    """Who may send a request, by the table of authority."""
    kinds = CENTER_VERBS[verb] if who == "center" else SITE_VERBS[verb].senders
    if kinds == frozenset(Kind):
        return "any member"
    return ", ".join(str(kind) for kind in Kind if kind in kinds)


def handlers(who: str) -> list[tuple[str, ast.AsyncFunctionDef]]:
    """The verbs that somebody serves, with the functions that do."""
    return [found for file in _VERBS[who] for found in _handlers(_SOURCES / file)]


def _summary(handler: ast.AsyncFunctionDef) -> str:
    return " ".join((ast.get_docstring(handler) or "").split("\n\n")[0].split())


def _handlers(file: Path) -> list[tuple[str, ast.AsyncFunctionDef]]:
    """Verbs and handlers, from the literal tables `{"verb": self._on_verb}` of a module."""
    here = _functions(file)
    found = []
    for name, value in (pair for node in ast.walk(_tree(file)) for pair in _entries(node)):
        match name, value:
            case ast.Constant(value=str(verb)), ast.Attribute(attr=handler):
                if handler.startswith(("_on_", "on_")):
                    found.append((verb, here.get(handler) or _elsewhere(handler, file)))
    return found


def _entries(node: ast.AST) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    """The entries of a literal table, or one that is set later."""
    match node:
        case ast.Dict(keys=names, values=values):
            yield from zip(names, values, strict=True)
        case ast.Assign(targets=[ast.Subscript(slice=name)], value=value):
            yield name, value


def _elsewhere(name: str, table: Path) -> ast.AsyncFunctionDef:
    """A handler of another part of the process; no other one in its package has this name."""
    files = (_SOURCES / table.relative_to(_SOURCES).parts[0]).rglob("*.py")
    (handler,) = (functions[name] for functions in map(_functions, files) if name in functions)
    return handler


@functools.cache
def _functions(file: Path) -> dict[str, ast.AsyncFunctionDef]:
    return {n.name: n for n in ast.walk(_tree(file)) if isinstance(n, ast.AsyncFunctionDef)}


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())
