"""`daitn steer`: who looks changes nothing, and may be anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from daitn.objects.errors import NotFound
from tests.scenes.command_line import daitn


@pytest.mark.parametrize(
    ("options", "verb"),
    [((), "forwarder"), (("--reset",), "steer"), (("--prefer", "latency=3"), "steer")],
)
def test_a_look_at_a_forwarder_asks_for_no_change(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], verb: str
) -> None:
    """It was refused to owners, and with a read-only token, as a change."""

    class Nobody:
        async def ask_site(self, site: str, verb: str, question: object, answer: Any) -> Any:
            raise NotFound(f"{site} does not answer {verb}")

    @asynccontextmanager
    async def connect(center: str) -> AsyncIterator[Nobody]:
        yield Nobody()

    monkeypatch.setattr("daitn.cli.steering.connect", connect)
    ended = daitn("steer", *options, "--site", "hub")
    assert ended.stderr == f"error hub does not answer {verb}\n"
