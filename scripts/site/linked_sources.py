"""Pages of the files and folders outside `docs/` that pages link to: sources, tests, settings."""

from __future__ import annotations

import ast
import html
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

__all__ = ["ROOT", "setup"]

ROOT = Path(__file__).parents[2]

_LINK = re.compile(r"(?<=\]\()(?P<path>\.\.?/[^)#\s]*)(?:#[^)]*)?(?=\))")
_SCHEME = "checkout:"
"""Of a link into the checkout, until it is known from where to where it leads."""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name} – DA-ITN</title>
<style>
body {{ margin: 1.5rem; font: 1rem/1.5 system-ui, sans-serif }}
pre {{ overflow-x: auto; font: 0.85rem/1.45 ui-monospace, monospace }}
</style>
<p><a href="{home}">DA-ITN documentation</a></p>
<h1>{name}</h1>
{body}
</html>
"""


class _LinkedSources:
    """What is linked to, as paths in the checkout."""

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def read(self, app: Sphinx, page: str, source: list[str]) -> None:
        """Mark links of a page that lead out of the documentation."""
        docs = Path(app.srcdir)
        folder = (docs / page).parent

        def marked(link: re.Match[str]) -> str:
            path = Path(os.path.normpath(folder / link["path"]))
            if path.is_relative_to(docs) or not path.exists():
                return link[0]
            return _SCHEME + path.relative_to(ROOT).as_posix()

        source[0] = _LINK.sub(marked, source[0])

    def resolve(self, app: Sphinx, tree: nodes.document, page: str) -> None:
        """Lead marked links to the pages of what they name."""
        for reference in tree.findall(nodes.reference):
            uri = reference.get("refuri", "")
            if uri.startswith(_SCHEME):
                path = uri.removeprefix(_SCHEME)
                self._paths.add(path)
                reference["refuri"] = app.builder.get_relative_uri(page, f"checkout/{path}")

    def write(self, app: Sphinx, failure: Exception | None) -> None:
        """Write the pages. They are not Sphinx's: its menu would take longer than all the rest."""
        for name in self._paths:
            path = ROOT / name
            body = self._listed(path) if path.is_dir() else f"<pre>{_text(path)}</pre>"
            page = Path(app.outdir, "checkout", f"{name}.html")
            page.parent.mkdir(parents=True, exist_ok=True)
            home = os.path.relpath(Path(app.outdir, f"{app.config.root_doc}.html"), page.parent)
            page.write_text(_PAGE.format(name=html.escape(name), home=home, body=body))

    def _listed(self, folder: Path) -> str:
        """A package: what it says of itself, and of each module."""
        rows = []
        for module in sorted(folder.glob("*.py")):
            if module.name != "__init__.py":
                there = module.relative_to(ROOT).as_posix() in self._paths
                link = f'<a href="{folder.name}/{module.name}.html">{module.name}</a>'
                rows.append(f"<li>{link if there else module.name}: {_said(module)}</li>")
        return f"<p>{_said(folder / '__init__.py')}</p>\n<ul>{''.join(rows)}</ul>"


def _text(file: Path) -> str:
    return html.escape(file.read_text())


def _said(module: Path) -> str:
    """The first sentence of a module's docstring."""
    if not module.is_file():
        return ""
    said = ast.get_docstring(ast.parse(module.read_text())) or ""
    return html.escape(said.partition("\n\n")[0].replace("\n", " "))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    linked = _LinkedSources()
    app.connect("source-read", linked.read)
    app.connect("doctree-resolved", linked.resolve)
    app.connect("build-finished", linked.write)
    return {"parallel_read_safe": False, "parallel_write_safe": False}
