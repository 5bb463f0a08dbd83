"""`daitn events`: what happened, in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from daitn.cli.events import _follow, _sentence, _Teller
from daitn.client.events import NetworkEvent
from daitn.oam.api.answers import PastEvent, SiteNews


@pytest.mark.parametrize(
    ("state", "detail", "told"),
    [
        ("lost", "", "east is lost"),
        ("cordoned", "by root: new disks", "east is cordoned (by root: new disks)"),
        ("draining", "by root", "east is draining (by root)"),
        ("cordoned", "new disks", "east is cordoned (new disks)"),
    ],
)
def test_a_site_out_of_service_is_told_with_who_and_why(state: str, detail: str, told: str) -> None:
    """Who is not known in a network without a roster."""
    news = SiteNews(site="east", state=state, at_s=1.0, detail=detail)
    event = PastEvent(id="1", kind="site", at_s=1.0, data=msgspec.to_builtins(news))
    assert _sentence(event) == told


async def test_what_follows_an_empty_history_is_printed_with_its_own_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []

    class Client:
        async def events(self, after: str) -> AsyncIterator[NetworkEvent]:
            asked.append(after)
            yield NetworkEvent("retired", "0badcafe-1", {"name": "n"}, 7.5)

    client: Any = Client()
    await _follow(client, (), _Teller(as_json=True))
    assert asked == ["start"]
    assert '"at_s":7.5' in capsys.readouterr().out
