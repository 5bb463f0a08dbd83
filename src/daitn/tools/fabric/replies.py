"""Answers on Zenoh's wire: bytes, or an error that keeps its kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import zenoh

from daitn.objects.errors import DaitnError, ErrorReport, Unreachable
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.delivery import silent, unserved

__all__ = ["failed", "given", "read", "refused"]

_ERROR = zenoh.Encoding("application/vnd.daitn.error+msgpack")
"""Marks an answer that is an `ErrorReport`; Zenoh's own error answers are plain bytes."""


def given(query: zenoh.Query, key: str, data: bytes | zenoh.ZBytes) -> Callable[[], None]:
    """A call that answers a query. It may block, and raise `ZError`."""
    return partial(query.reply, key, data, express=True)


def refused(query: zenoh.Query, error: DaitnError) -> Callable[[], None]:
    """A call that answers a query with an error. It may block, and raise `ZError`."""
    return partial(query.reply_err, encode(ErrorReport.of(error)), encoding=_ERROR)


def read(reply: zenoh.Reply | None, key: str, timeout_s: float) -> bytes:
    """The answer in a reply, or in none; raises the error it stands for."""
    if reply is None:
        raise unserved(key)
    if reply.ok is not None:
        return bytes(reply.ok.payload)
    assert reply.err is not None
    payload = bytes(reply.err.payload)
    if reply.err.encoding == _ERROR:
        raise decode(payload, ErrorReport).error()
    if payload == b"Timeout":
        raise silent(key, timeout_s)
    raise failed(payload.decode(errors="replace"))


def failed(reason: str) -> Unreachable:
    """The error when Zenoh could not send."""
    return Unreachable(
        f"the fabric could not deliver: {reason}",
        fix="check the connection to the control centre and try again",
    )
