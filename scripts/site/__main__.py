"""Build the site into a folder; the exit code is not 0 if a link leads nowhere.

`python -m scripts.site [FOLDER]`, by default `out/site`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main

from scripts.site.linked_sources import ROOT

__all__ = ["build"]

_ENTRY = '<!doctype html><meta charset="utf-8"><title>DA-ITN</title>' + (
    '<meta http-equiv="refresh" content="0; url=README.html"><a href="README.html">DA-ITN</a>\n'
)
"""The first page has the name that forges give it."""


def build(folder: Path, docs: Path = ROOT / "docs") -> int:
    """Build the site anew; returns the exit code. Every warning is an error."""
    shutil.rmtree(folder, ignore_errors=True)
    options = ["--fail-on-warning", "--fresh-env", "--quiet", "--doctree-dir", f"{folder}.parsed"]
    code = main([*options, "--conf-dir", str(Path(__file__).parent), str(docs), str(folder)])
    if code == 0:
        (folder / "index.html").write_text(_ENTRY)
    return code


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "out/site"))
