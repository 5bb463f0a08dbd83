"""A network's API, as its command line opens it and programs use it, over real processes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from daitn.client import Client
from daitn.objects.errors import Refused
from daitn.objects.intents import TrainingIntent
from daitn.objects.wire import checked
from tests.scenes.breast_cancer import HOSPITALS, INTENT

from .conftest import Network

pytestmark = pytest.mark.processes


def test_the_operator_looks_from_a_browser_and_a_program(shared: Network) -> None:
    address: str = shared.json("dashboard")["url"]
    url, _, token = address.partition("#token=")
    with urllib.request.urlopen(url) as page:
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
    opening = urllib.request.Request(
        f"{url}api/v1/session",
        json.dumps({"token": token}).encode(),
        {"content-type": "application/json", "origin": url.rstrip("/")},
    )
    with urllib.request.urlopen(opening) as opened:
        cookie = opened.headers["set-cookie"].partition(";")[0]
    looking = urllib.request.Request(f"{url}api/v1/network", headers={"cookie": cookie})
    with urllib.request.urlopen(looking) as looked:
        assert json.load(looked)["you"]["role"] == "operator"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(opening)

    made = shared.json("token", "create", "--center-api", "--read-only", "--days", "1")
    with Client(address, made["token"]) as center:
        assert center.network().you.role == "viewer"
        names = [site.descriptor.site for site in center.sites(alive=True).items]
        assert {*HOSPITALS, "mpvu"} <= set(names)
        wanted = checked(INTENT, TrainingIntent, "intent")
        assert center.assess(wanted).feasible
        with pytest.raises(Refused, match="viewer"):
            center.cancel("none-1")
        link = center.map()
        assert set(link.sites.name) >= set(HOSPITALS)
        assert center.audit().items is not None


def test_tokens_say_for_what_they_are(shared: Network) -> None:
    ended = shared.daitn("token", "create")
    assert ended.returncode == 2
    assert "--center-api" in ended.stderr
    ended = shared.daitn("token", "create", "--gateway", "door", "--read-only")
    assert ended.returncode == 2
