"""Renders the project's Helm chart as helm does, as far as the chart goes: what it does not use is
refused, so that the chart stays within this."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

__all__ = ["rendered"]

_TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)


def rendered(chart: Path, values: dict[str, Any], release: str) -> list[dict[str, Any]]:
    """The manifests of all templates."""
    root = {"Values": values, "Release": {"Name": release}}
    texts = [
        _render(path.read_text(), root) for path in sorted((chart / "templates").glob("*.yaml"))
    ]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def _render(template: str, root: dict[str, Any]) -> str:
    pieces: list[str] = []
    at, tags = 0, []
    for tag in _TAG.finditer(template):
        before = template[at : tag.start()]
        pieces.append(before.rstrip() if tag[1] else before)
        tags.append(tag)
        at = tag.end()
        if tag[3]:
            at += len(template[at:]) - len(template[at:].lstrip())
    pieces.append(template[at:])
    text, used = _block(pieces, [tag[2] for tag in tags], 0, root, root)
    assert used == len(tags), "an end without its beginning"
    return text


def _block(
    pieces: list[str], tags: list[str], at: int, here: Any, root: dict[str, Any]
) -> tuple[str, int]:
    """The text from a position to the end of its block, and the position of that end."""
    text = pieces[at]
    while at < len(tags):
        word, _, rest = tags[at].partition(" ")
        if word == "end":
            return text, at
        if word in ("range", "if"):
            found = _value(rest, here, root)
            each = list(found) if word == "range" else ([here] if found else [])
            bodies = [_block(pieces, tags, at + 1, one, root) for one in each]
            end = bodies[0][1] if bodies else _end(tags, at + 1)
            text += "".join(body for body, _ in bodies)
            at = end
        elif word == "toYaml":
            path, _, filter_ = rest.partition(" | indent ")
            lines = yaml.safe_dump(_value(path, here, root), sort_keys=True).splitlines()
            text += "\n".join(" " * int(filter_) + line for line in lines)
        else:
            value = _value(tags[at], here, root)
            assert isinstance(value, str | int), f"{tags[at]} is no scalar"
            text += str(value)
        at += 1
        text += pieces[at]
    return text, at


def _end(tags: list[str], at: int) -> int:
    depth = 0
    while depth or tags[at] != "end":
        depth += {"range": 1, "if": 1, "end": -1}.get(tags[at].partition(" ")[0], 0)
        at += 1
    return at


def _value(path: str, here: Any, root: dict[str, Any]) -> Any:
    assert re.fullmatch(r"\$?\.([A-Za-z]+(\.[A-Za-z]+)*)?", path), f"{path} is not used in charts"
    start: Any = root if path.startswith("$") else here
    for name in filter(None, path.removeprefix("$").split(".")):
        start = start[name]  # helm would print nothing for a name that is not there.
    return start
