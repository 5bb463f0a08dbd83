"""A server that does nothing more once it has sent an answer's last byte, as if killed then."""

from __future__ import annotations

import asyncio

import pytest

from daitn.openai.http import DONE
from daitn.tools.http import Request, Response, Stream

__all__ = ["freeze_senders"]


def freeze_senders(patch: pytest.MonkeyPatch, thawed: asyncio.Event) -> None:
    """Freeze all answers of servers in this process, until `thawed` is set."""
    write, respond = Stream.write, Request.respond

    async def write_and_freeze(self: Stream, data: bytes) -> None:
        await write(self, data)
        if data.endswith(DONE):
            await thawed.wait()

    async def respond_and_freeze(self: Request, response: Response) -> None:
        await respond(self, response)
        await thawed.wait()

    patch.setattr(Stream, "write", write_and_freeze)
    patch.setattr(Request, "respond", respond_and_freeze)
