"""Functions: each is written once, used, and short enough to be read at once."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from tests.docs.sources import ALONE, ROOT, sources

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

LINES = 60
LONGER = {
    "center/service.py: __init__": 74,
    "cli/demo/command.py: _demo": 67,
    "cli/demo/command.py: demo": 67,
    "cli/deploy.py: deploy": 71,
    "cli/joining.py: admit": 61,
    "cli/joining.py: invite_command": 86,
    "cli/models.py: export_model": 71,
    "cli/query.py: query": 85,
    "cli/tokens.py: create": 89,
    "cli/train.py: train": 68,
    "learning/causal_lm/training.py: train": 72,
    "node/gateway/gateway.py: __init__": 68,
    "node/node.py: __init__": 73,
    "node/roles.py: __init__": 72,
    "node/serving/facility.py: __init__": 80,
    "node/training/executor.py: __init__": 68,
    "sim/learning/families/draft.py: drafted": 71,
}
"""Longer than a screen, and by how much at most: shorten these, and add none."""

CALLED_BY_OTHERS = {
    "capture_signals": "uvicorn",
    "client_app": "Flower's programs",
    "data_received": "asyncio",
    "downgrade": "Alembic",
    "eof_received": "asyncio",
    "on_broken_pipe": "rich",
    "on_header": "httptools",
    "process_result_value": "SQLAlchemy",
    "Client": "Python programs of users",
}
"""What no module here names, and who uses it."""

WORD = re.compile(r"\w+")
FOR_TESTS = re.compile(r"/(sim/.*|tools/.*/memory)\.py$")
"""The simulator and the in-memory implementations are there to be tested with."""


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def without_docstring(function: Function) -> list[ast.stmt]:
    match function.body:
        case [ast.Expr(ast.Constant(str())), *rest]:
            return rest
    return function.body


def inside(function: Function) -> Iterator[ast.AST]:
    return chain.from_iterable(map(ast.walk, without_docstring(function)))


def shape(function: Function) -> tuple[type[ast.AST], ...]:
    """The same for all functions with one meaning, and quickly found."""
    return tuple(map(type, inside(function)))


def meaning(function: Function) -> str:
    """What it does: the same for functions that differ in names, docstring and layout only."""
    [copied] = ast.parse(ast.unparse(function)).body
    assert isinstance(copied, ast.FunctionDef | ast.AsyncFunctionDef)
    copied.name, copied.body = "", without_docstring(copied)
    own = {node.arg for node in ast.walk(copied) if isinstance(node, ast.arg)} | {
        node.id
        for node in ast.walk(copied)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    names: dict[str, str] = {}
    for node in ast.walk(copied):
        match node:
            case ast.arg(name):
                node.arg = names.setdefault(name, f"name {len(names)}")
            case ast.Name(name) if name in own:
                node.id = names.setdefault(name, f"name {len(names)}")
    return ast.dump(copied)


def does_much(function: Function) -> bool:
    """Whether a method or an inner function does more than to delegate, or to refuse."""
    return sum(isinstance(node, ast.stmt) for node in inside(function)) > 2


def test_no_function_is_written_twice() -> None:
    """Not even under two names, nor as methods of two classes."""
    alike = defaultdict(list)
    for path, tree in sources():
        if not path.endswith(ALONE):
            for function in functions(tree):
                if function in tree.body or does_much(function):
                    alike[shape(function)].append((f"{path}: {function.name}", function))
    found = defaultdict(list)
    for name, function in chain.from_iterable(each for each in alike.values() if len(each) > 1):
        found[meaning(function)].append(name)
    assert [names for names in found.values() if len(names) > 1] == []


def test_two_functions_are_one_whatever_their_names() -> None:
    one, same, other = functions(
        ast.parse(
            "def kind_of(config):\n"
            "    '''What it is.'''\n"
            "    if config.site: return SITE, config.name\n"
            "    return CENTER, config.name\n"
            "def _identity(process):\n"
            "    if process.site:\n"
            "        return (SITE, process.name)  # A site.\n"
            "    return (CENTER, process.name)\n"
            "def other(process):\n"
            "    if process.site: return CENTER, process.name\n"
            "    return SITE, process.name\n"
        )
    )
    assert meaning(one) == meaning(same) != meaning(other)


def test_no_function_grows_longer_than_a_screen() -> None:
    found = {}
    for path, tree in sources():
        for function in functions(tree):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > LINES:
                found[f"{path.removeprefix('src/daitn/')}: {function.name}"] = lines
    assert {name: n for name, n in found.items() if n > LONGER.get(name, LINES)} == {}
    assert {name for name in LONGER if name not in found} == set(), "it is short now"


def test_folders_are_at_most_three_deep() -> None:
    deep = {Path(source.path).parent for source in sources() if source.path.count("/") > 5}
    assert deep == {Path("src/daitn/tools/journal/migrations/versions")}


@cache
def uses(folder: str) -> Counter[str]:
    """The names that modules use. `__all__` only says that a name may be used."""
    found: Counter[str] = Counter()
    for source in sources(folder):
        for statement in source.tree.body:
            match statement:
                case ast.Assign([ast.Name("__all__")]):
                    continue
            for node in ast.walk(statement):
                match node:
                    case ast.Name(name) | ast.Attribute(attr=name):
                        found[name] += 1
                    case ast.Constant(str(text)) if " " not in text:
                        found.update(WORD.findall(text))
    return found


def test_every_function_and_class_is_used() -> None:
    """By more than its tests. A decorator such as `@app.command()` registers what it decorates."""
    by_project = uses("src/daitn") + uses("scripts") + uses("benchmarks")
    by_tests = {
        word for path in (ROOT / "tests").rglob("*.py") for word in WORD.findall(path.read_text())
    }
    unused = {
        node.name: path
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if not (node.name.startswith("__") or by_project[node.name])
        if not (node.name in by_tests and FOR_TESTS.search(path))
        if not any(
            isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute)
            for each in node.decorator_list
        )
    }
    assert {name: path for name, path in unused.items() if name not in CALLED_BY_OTHERS} == {}
    assert set(CALLED_BY_OTHERS) <= set(unused), "an exception is no longer needed"
