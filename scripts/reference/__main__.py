"""Write the tables and values of the docs; with `--check` only say which pages are not up to
date, and which fields state a default as a number."""

from __future__ import annotations

import sys

from scripts.reference.defaults import stale_defaults
from scripts.reference.pages import DOCS, rewritten
from scripts.reference.rows import NoTable


def main(check: bool) -> int:
    """The exit code: 1 where a page, or a field's text, is not what the code says."""
    stale = 0
    for where, clause in stale_defaults():
        print(f"{where}: {clause!r}: name the constant, as in {{objects.merging.PULL}}")
        stale = 1
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text()
        try:
            after = rewritten(before)
        except NoTable as error:
            print(f"{page}: {error}")
            stale = 1
            continue
        if after == before:
            continue
        if check:
            print(f"{page} is not what the code says: python -m scripts.reference")
            stale = 1
        else:
            page.write_text(after)
            print(f"{page} is written")
    return stale


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
