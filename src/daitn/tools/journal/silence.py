"""Connections to PostgreSQL that do not wait forever for a silent database.

A server that stands still, or a firewall that swallows what it says, leaves a connection open:
libpq has a bound for what is not acknowledged (`tcp_user_timeout`), and none for what is not
answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import psycopg

__all__ = ["heard_within", "impatient"]

T = TypeVar("T")


def impatient(silent_s: float) -> Callable[..., psycopg.Connection[Any]]:
    """A connect function like `psycopg.connect`; a statement without a reply for this long fails,
    and its connection is closed."""
    import psycopg

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
            bounded = heard_within(gen, silent_s, self._too_late)
            return super().wait(bounded, *args, **options)

        def _too_late(self) -> Exception:
            self.pgconn.finish()
            return psycopg.OperationalError(f"it has said nothing for {silent_s:g} s")

    return Impatient.connect


def heard_within(
    gen: Generator[Any, Any, T], silent_s: float, too_late: Callable[[], Exception]
) -> Generator[Any, Any, T]:
    """A psycopg generator, which is resumed whenever its socket is ready, until it was not for this
    long; then `too_late` makes the error."""
    heard_s = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            now_s = time.monotonic()
            if ready:
                heard_s = now_s
            elif now_s - heard_s >= silent_s:
                raise too_late()
            wanted = gen.send(ready)
    except StopIteration as ended:
        value: T = ended.value
        return value
