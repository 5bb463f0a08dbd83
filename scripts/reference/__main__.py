"""Write the tables of the reference; with `--check` only say which pages are not up to date."""

from __future__ import annotations

import sys

from scripts.reference.pages import REFERENCE, rewritten
from scripts.reference.rows import NoTable


def main(check: bool) -> int:
    """The exit code: 1 where a page is not what the code says."""
    stale = 0
    for page in sorted(REFERENCE.glob("*.md")):
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
