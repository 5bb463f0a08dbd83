"""What the pages under `docs/` promise: links, files and commands.

A fenced block whose info string names a file (```` ```yaml intent intent.yaml ````) is that file's
content. A `console` block holds commands behind `$ `; one that ends in ` &` keeps running, and the
reader goes on when it says `ready`. A `bash` block holds commands that take long, and stands for
itself. Blocks inside list items are indented like their item.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    kind: str
    """Of a YAML block: `intent`, `node`, `center`, `network`, `policy`; empty otherwise."""
    file: str
    """Where the reader is to save it; empty if nowhere."""
    body: str

    def commands(self) -> list[str]:
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _FENCE.finditer(text):
        language, *rest = match["info"].split() or [""]
        kind = rest.pop(0) if language == "yaml" and rest else ""
        yield Block(
            page=page.relative_to(DOCS),
            line=text.count("\n", 0, match.start()) + 1,
            language=language,
            kind=kind,
            file=rest[0] if rest else "",
            body=textwrap.dedent(match["body"]),
        )


def script(page: Path, prefix: str) -> str:
    """The page as a shell script. Output of what keeps running goes to `<prefix><n>.log`."""
    lines = []
    for block in blocks(page):
        if block.file:
            lines.append(_saved(block))
        if block.language == "console":
            for command in block.commands():
                at = f"{block.page}:{block.line}:"
                lines.append(f'echo "+ $SECONDS s" {at} {_quoted(command)}')
                lines.append(_started(command, f"{prefix}{len(lines)}.log"))
    return "\n".join(lines)


def _saved(block: Block) -> str:
    return f"mkdir -p \"$(dirname {block.file})\"\ncat > {block.file} <<'END'\n{block.body}END"


def _started(command: str, log: str) -> str:
    if not command.endswith(" &"):
        return command
    return (
        f"{command.removesuffix(' &')} > {log} 2>&1 &\n"
        f"until grep -qw ready {log}; do kill -0 $! || {{ cat {log}; exit 9; }}; sleep 0.1; done"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
