"""How a process ended, in words."""

from __future__ import annotations

import signal

__all__ = ["ending"]


def ending(code: int) -> str:
    """`code` as in `subprocess`: if negative, the signal that ended it."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = ": out of memory?" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({signal.Signals(-code).name}){hint}"
