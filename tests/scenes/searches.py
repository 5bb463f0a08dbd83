"""How many random cases a test tries."""

import os

__all__ = ["cases"]

_THOROUGH = "DAITN_THOROUGH" in os.environ


def cases(number: int) -> int:
    """This many, or ten times as many in `make test-long`: who changes a line waits for the former,
    and what is rare is found by the latter."""
    return 10 * number if _THOROUGH else number
