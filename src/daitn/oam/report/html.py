"""HTML as text. Everything not marked as `Safe` is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from daitn.oam.pictures.drawing import attributes_text
from daitn.objects.text import escaped

__all__ = ["Safe", "Shown", "bullets", "inline", "joined", "section", "table", "tag"]


class Safe(str):
    """HTML of our own; everything from the network in it is escaped."""

    __slots__ = ()


Shown = object
"""Text, a number, or `Safe`."""


def inline(shown: Shown) -> Safe:
    """Text isolated from its surroundings, whatever its direction."""
    if isinstance(shown, Safe):
        return shown
    if not isinstance(shown, str):
        return Safe(html.escape(str(shown)))
    words = html.escape(escaped(shown))
    return Safe(words if shown.isascii() else f"<bdi>{words}</bdi>")


def tag(name: str, *content: Shown, **attributes: str) -> Safe:
    """An element. `class_` becomes `class`."""
    written = attributes_text({key: html.escape(escaped(at)) for key, at in attributes.items()})
    return Safe(f"<{name}{written}>{joined(content)}</{name}>")


def joined(parts: Iterable[Shown], between: str = "") -> Safe:
    """Parts one after another."""
    return Safe(between.join(inline(part) for part in parts))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Shown]], numbers: Iterable[int] = ()
) -> Safe:
    """A table that scrolls if it is wider than the page. `numbers`: columns of numbers."""
    right = set(numbers)

    def cell(name: str, number: int, content: Shown) -> Safe:
        return tag(name, content, class_="n") if number in right else tag(name, content)

    head = tag("tr", *(cell("th", n, column) for n, column in enumerate(columns)))
    body = joined(tag("tr", *(cell("td", n, one) for n, one in enumerate(row))) for row in rows)
    whole = tag("table", tag("thead", head), tag("tbody", body))
    return tag("div", whole, class_="scroll")


def bullets(lines: Iterable[Shown]) -> Safe:
    """A list without an order."""
    return tag("ul", *(tag("li", line) for line in lines))


def section(id_: str, title: str, *content: Shown) -> Safe:
    """A part of the page under a heading."""
    return tag("section", tag("h2", title), *content, id=id_)
