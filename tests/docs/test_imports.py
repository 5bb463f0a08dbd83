"""What the packages may import and call. `lint-imports` checks which of them see each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

import pytest

from tests.docs.sources import sources

CORE = frozenset({"objects", "topology", "policy", "control", "steering", "openai"})
PURE = frozenset(
    {
        "__future__",
        "base64",
        "binascii",
        "bisect",
        "blake3",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "email.utils.parsedate_to_datetime",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "immutables",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "msgspec",
        "numpy",
        "operator",
        "re",
        "rustworkx",
        "statistics",
        "struct",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
        "xml.etree.ElementTree",
        "zoneinfo",
        *(f"daitn.{package}" for package in CORE),
    }
)
"""All that the core may import: nothing here does I/O, waits, or has randomness of its own."""
SIMULATOR = PURE | {"daitn.sim", "random", "zlib"}
ALLOWED = {**dict.fromkeys(CORE, PURE), "sim": SIMULATOR}

IMPURE = frozenset(
    {
        *(f"builtins.{name}" for name in ("__import__", "breakpoint", "eval", "exec", "input")),
        *("builtins.open", "builtins.print"),
        *(f"datetime.datetime.{name}" for name in ("now", "today", "utcnow")),
        "datetime.date.today",
        *(f"json.{name}" for name in ("dump", "load")),
        *(f"numpy.{name}" for name in ("fromfile", "genfromtxt", "load", "loadtxt", "memmap")),
        *(f"numpy.{name}" for name in ("save", "savetxt", "savez", "savez_compressed")),
        *(f"xml.etree.ElementTree.{name}" for name in ("iterparse", "parse")),
    }
)
"""What pure modules offer that reads a clock, a file or a terminal."""
RANDOM = ("numpy.random.", "random.")
SEEDED = frozenset({"numpy.random.default_rng", "random.Random"})
"""Sources of random numbers, which must be given their seed."""
TYPES = frozenset({"numpy.random.Generator"})

ENGINES = frozenset({"peft", "scipy", "sklearn", "torch", "transformers", "xgboost"})


def within(name: str, allowed: frozenset[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def imported(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Each import: all that it names, the name it gives in the module, and what that stands for."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                for each in names:
                    first = each.name.partition(".")[0]
                    yield each.name, each.asname or first, each.name if each.asname else first
            case ast.ImportFrom(module, names, level):
                for each in names:
                    name = f"{'.' * level}{module or ''}.{each.name}"
                    yield name, each.asname or each.name, name


def named(node: ast.expr, known: Mapping[str, str]) -> str | None:
    """What an expression stands for, such as `numpy.random.default_rng` for `np.random...`."""
    match node:
        case ast.Name(name, ast.Load()):
            return known.get(name, f"builtins.{name}")
        case ast.Attribute(value, name):
            of = named(value, known)
            return of and f"{of}.{name}"
    return None


def impurities(tree: ast.Module, allowed: frozenset[str]) -> Iterator[str]:
    """What a module imports or calls, and must not."""
    known = {}
    for name, given, stands_for in imported(tree):
        known[given] = stands_for
        if not within(name, allowed):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = named(node, known) or ""
            if name in IMPURE or (name.startswith(RANDOM) and name not in SEEDED | TYPES):
                yield name
        if isinstance(node, ast.Call) and (name := named(node.func, known) or "") in SEEDED:
            seeds = [*node.args, *(each.value for each in node.keywords)]
            if not seeds or any(
                isinstance(each, ast.Constant) and each.value is None for each in seeds
            ):
                yield f"{name} without a seed"


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_decisions_depend_on_nothing_but_their_arguments(package: str) -> None:
    """Else a recorded input would not lead to the same decision again."""
    found = {
        source.path: [*impurities(source.tree, ALLOWED[package])]
        for source in sources()
        if source.package == package
    }
    assert found
    assert {path: faults for path, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import logging",
        "import urllib.request",
        "from urllib import request",
        "from email.utils import localtime",
        "from uuid import uuid4",
        "from daitn.tools import clock",
        "from daitn import identity",
        "from . import queries",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import datetime as when\nlater = when.utcnow",
        "import numpy as np\nnp.random.default_rng()",
        "from numpy.random import default_rng\ndefault_rng(seed=None)",
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.load('worlds.npz')",
        "open('file')",
        "def read(path):\n    with open(path) as file:\n        return file.read()",
    ],
)
def test_what_is_impure_is_found(text: str) -> None:
    assert [*impurities(ast.parse(text), PURE)]


@pytest.mark.parametrize("text", ["import socket", "import random\nrandom.random()"])
def test_the_simulator_has_neither_network_nor_luck(text: str) -> None:
    assert [*impurities(ast.parse(text), SIMULATOR)]


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.random.default_rng((seed, 3))",
        "import datetime\ndatetime.datetime.fromtimestamp(now_s, datetime.UTC)",
        "from daitn.objects.errors import DaitnError",
        "class Task:\n    open: int\ntask.open.sum()",
    ],
)
def test_what_is_pure_is_not_accused(text: str) -> None:
    assert [*impurities(ast.parse(text), PURE)] == []


@pytest.mark.processes
def test_only_processes_beside_a_node_import_engines_and_recipes() -> None:
    """Whatever way leads there: every other module is imported, in a process that has none yet."""
    modules = [
        source.module
        for source in sources()
        if source.package != "learning" and "migrations" not in source.path
        if not source.module.endswith("__main__")
    ]
    recipes = {each.module for each in entry_points(group="daitn.recipes")}
    assert {"daitn.node.gateway.gateway", "daitn.center.service", "daitn.cli.app"} <= {*modules}
    assert "daitn.learning.causal_lm" in recipes
    code = (
        "import importlib, sys\n"
        "modules = sys.stdin.read().split()\n"
        "for name in modules: importlib.import_module(name)\n"
        "print(*sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=" ".join(modules),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    loaded = {*run.stdout.split()}
    assert loaded & (ENGINES | recipes | {"daitn.learning.registry"}) == set()
