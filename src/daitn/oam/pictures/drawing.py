"""SVG elements as text: escaped, positioned, and readable on light and dark pages.

Lengths and positions are in user units; a position is a complex number, x + iy, y downwards.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

__all__ = [
    "STYLE",
    "attributes_text",
    "box",
    "document",
    "element",
    "line",
    "pair",
    "shortened",
    "text",
]

STYLE = """
text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;
font-size:12px;fill:#1f2328;font-variant-numeric:tabular-nums}
.h1{font-size:21px;font-weight:650}.h2{font-size:13.5px;font-weight:650}.b{font-weight:650}
.soft{fill:#59636e}.small{font-size:11px}.halo{paint-order:stroke;stroke:#fff;stroke-width:4px;
stroke-linejoin:round}.ground{fill:#fff;stroke:#d1d9e0}.node{fill:#fff;stroke:#57606a}
.rule{stroke:#d8dee4;fill:none}.axis{stroke:#8c959f;fill:none}.dark{fill:#24292f;stroke:none}
.on{fill:#fff}.bar{fill:#8c959f}.ring{stroke:#fff}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.halo{stroke:#0d1117}
.ground{fill:#0d1117;stroke:#3d444d}.node{fill:#151b23;stroke:#9198a1}.rule{stroke:#2f363e}
.axis{stroke:#656c76}.dark{fill:#e6edf3}.on{fill:#0d1117}.bar{fill:#656c76}.ring{stroke:#0d1117}}
"""


def document(body: str, width: float, height: float, label: str) -> str:
    """A whole picture with its own background, so that it does not depend on the page's."""
    ground = box(0.5, 0.5, width - 1, height - 1, rx=10, class_="ground")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_escaped(label)}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">\n'
        f"<style>{STYLE}</style>\n{ground}\n{body}\n</svg>\n"
    )


def element(name: str, content: str | None = None, /, **attributes: object) -> str:
    """An element. `class_` becomes `class`, and `stroke_width` becomes `stroke-width`."""
    written = attributes_text({key: _escaped(_number(at)) for key, at in attributes.items()})
    return f"<{name}{written}/>" if content is None else f"<{name}{written}>{content}</{name}>"


def attributes_text(escaped: Mapping[str, str]) -> str:
    """Attributes of an element, with escaped values: `class_` becomes `class`."""
    return "".join(
        f' {key.rstrip("_").replace("_", "-")}="{value}"' for key, value in escaped.items()
    )


def text(
    words: str, at: complex, class_: str = "", anchor: str = "start", **attributes: object
) -> str:
    """One line of text whose baseline starts, ends or has its middle at a position."""
    return element(
        "text",
        _escaped(words),
        x=at.real,
        y=at.imag,
        text_anchor=anchor,
        class_=class_,
        **attributes,
    )


def line(start: complex, end: complex, /, **attributes: object) -> str:
    """A straight line."""
    return element("line", x1=start.real, y1=start.imag, x2=end.real, y2=end.imag, **attributes)


def box(x: float, y: float, width: float, height: float, /, **attributes: object) -> str:
    """A rectangle by its upper left corner."""
    return element("rect", x=x, y=y, width=width, height=height, **attributes)


def pair(at: complex) -> str:
    """A position in a path or a list of points."""
    return f"{at.real:.1f},{at.imag:.1f}"


def shortened(words: str, most: int) -> str:
    """Truncate to `most` characters, ending in an ellipsis."""
    return words if len(words) <= most else words[: most - 1] + "…"


def _number(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _escaped(words: str) -> str:
    """Replace control characters, which XML does not allow even escaped."""
    return html.escape("".join(c if c.isprintable() else " " for c in words))
