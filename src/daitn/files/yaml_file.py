"""Files that people write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.text import encodable

__all__ = ["read_yaml"]

_MOST_VALUES: Final = 100_000
"""A few lines of aliases of aliases stand for billions of values, which nobody could send."""

_NAMELESS: Final = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
"""Tags of `<<` and `=`, which are not values by themselves."""


def read_yaml(path: Path, what: str) -> object:
    """Read a YAML file as plain data; it cannot execute code. Raises `NotFound` and `InvalidInput`,
    also for an empty file, keys that occur twice, text that is not Unicode, and aliases that repeat
    too much."""
    try:
        text = path.read_text("utf-8")
        if not text.strip():  # With nothing but comments, all defaults are meant.
            raise InvalidInput(
                f"the {what} {path} is empty",
                fix="write it, name another file, or write `{}` if all defaults are meant",
            )
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _Check(loader, path, what).check(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except FileNotFoundError:
        raise NotFound(
            f"there is no {what} {path}", field=str(path), fix="check the path"
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"the {what} {path} cannot be read: {error.strerror}", fix="check the path"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"the {what} {path} is not valid YAML: {error}", fix="correct the stated line"
        ) from None


class _Check:
    """Looks at each value of a file once, before any is built."""

    def __init__(self, loader: yaml.SafeLoader, path: Path, what: str) -> None:
        self._loader = loader
        self._path = path
        self._what = what
        self._sizes: dict[int, int] = {}
        """How many values each node stands for; 0 while its parts are being counted."""

    def check(self, root: yaml.Node) -> None:
        """Raises `InvalidInput`."""
        size = self._size(root, "")
        # A long file without aliases may be meant.
        if size > max(_MOST_VALUES, len(self._sizes)):
            raise InvalidInput(
                f"with its aliases written out, the {self._what} {self._path} has more than "
                f"{_MOST_VALUES:,} values",
                field=self._what,
                fix="use fewer aliases of aliases",
            )

    def _size(self, node: yaml.Node, field: str) -> int:
        size = self._sizes.get(id(node))
        if size is None:
            self._sizes[id(node)] = 0
            if isinstance(node, yaml.ScalarNode):
                self._check_text(node, field)
            parts = self._parts(node, field)
            size = 1 + sum(self._size(part, named) for part, named in parts)
            self._sizes[id(node)] = size
        elif size == 0:
            raise self._wrong(node, field, "contains itself", "write its value out")
        return size

    def _parts(self, node: yaml.Node, field: str) -> Iterator[tuple[yaml.Node, str]]:
        if isinstance(node, yaml.SequenceNode):
            for position, part in enumerate(node.value):
                yield part, f"{field}[{position}]"
        elif isinstance(node, yaml.MappingNode):
            seen: dict[object, int] = {}
            for key, value in node.value:
                named = field
                if isinstance(key, yaml.ScalarNode):
                    self._check_text(key, field)
                    named = f"{field}.{key.value}" if field else key.value
                    self._check_new(key, named, seen)
                else:
                    yield key, named
                yield value, named

    def _check_new(self, key: yaml.ScalarNode, field: str, seen: dict[object, int]) -> None:
        """A mapping would silently keep the last of two values, perhaps not the stricter one."""
        name = key.value if key.tag in _NAMELESS else self._loader.construct_object(key)
        if name in seen:
            raise self._wrong(key, field, f"is stated on line {seen[name]} too", "keep one")
        seen[name] = _line(key)

    def _check_text(self, node: yaml.ScalarNode, field: str) -> None:
        if not encodable(node.value):
            raise self._wrong(
                node, field, "is no Unicode text: half a surrogate pair", "write characters as such"
            )

    def _wrong(self, node: yaml.Node, field: str, problem: str, fix: str) -> InvalidInput:
        where = f"line {_line(node)} of the {self._what} {self._path}"
        return InvalidInput(f"{problem} ({where})", field=field or self._what, fix=fix)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
