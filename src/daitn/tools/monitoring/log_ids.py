"""The subject of a log record: ids of the current job, visit or query.

They are of the task that logs, and of tasks and threads that it starts, so that no message has to
repeat them.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

__all__ = ["identified", "log_ids"]

_IDS: ContextVar[dict[str, str]] = ContextVar("log ids")


class identified:  # noqa: N801 - it is called like a function
    """Within its block, log records have these ids, and those around it."""

    __slots__ = ("_ids", "_token")

    def __init__(self, **ids: str) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        around = _IDS.get(None)
        self._token: Token[dict[str, str]] = _IDS.set(
            {**around, **self._ids} if around else self._ids
        )

    def __exit__(self, *raised: object) -> None:
        _IDS.reset(self._token)


def log_ids() -> dict[str, str]:
    """The ids in force here; not to be changed."""
    return _IDS.get({})
