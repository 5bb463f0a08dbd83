"""`daitn events`: what happened, in words."""

from __future__ import annotations

import msgspec
import pytest

from daitn.cli.events import _sentence
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
