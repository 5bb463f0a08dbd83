"""Who gets in, how, and for how long; and what a browser may be made to do from elsewhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daitn.client import AsyncClient
from daitn.identity.grants import new_center_token, new_token
from daitn.identity.keys import SigningKey
from daitn.identity.tls import trusting
from daitn.objects.errors import Unreachable
from daitn.objects.identifiers import SiteId
from tests.scenes.control_room import NETWORK, Room, room

DAY_S = 86400.0


@pytest.fixture
async def clinics(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as made:
        yield made


async def status(http: aiohttp.ClientSession, **headers: str) -> int:
    async with http.get("/api/v1/network", headers=headers) as reply:
        return reply.status


async def opened(
    http: aiohttp.ClientSession, url: str, token: str, **headers: str
) -> aiohttp.ClientResponse:
    """What comes of swapping a token for a cookie, as a page of this origin asks."""
    return await http.post(
        "/api/v1/session", json={"token": token}, headers={"origin": url, **headers}
    )


async def test_a_token_holds_as_its_member_signed_it(clinics: Room) -> None:
    http = clinics.http()

    async def with_token(token: str) -> int:
        return await status(http, authorization=f"Bearer {token}")

    whole = clinics.token("ann")
    assert await with_token(whole) == 200
    assert await status(http) == 401
    assert await with_token("") == 401
    assert await with_token(whole[:-2]) == 401
    secret, _, mandate = whole.partition(".")
    assert await with_token(f"{secret[:-1]}{'y' if secret[-1] == 'x' else 'x'}.{mandate}") == 401
    assert await with_token(f"{secret}.{clinics.token('root').partition('.')[2]}") == 401
    assert await with_token(clinics.token("ann", member="bob")) == 401, "in another's name"
    assert await with_token(clinics.token("ann", center="center2")) == 401
    assert await with_token(clinics.token("ann", until_s=time.time() - 1.0)) == 401
    stranger = SigningKey.generate()
    late_s = time.time() + DAY_S
    assert await with_token(new_center_token(NETWORK, "ann", "center", late_s, stranger)) == 401
    other = new_center_token("other", "ann", "center", late_s, clinics.key("ann"))
    assert await with_token(other) == 401
    door = (SiteId("door"),)
    of_gateway = new_token(NETWORK, "ann", door, late_s, (1.0, 1), clinics.key("ann"))
    async with http.get(
        "/api/v1/network", headers={"authorization": f"Bearer {of_gateway}"}
    ) as reply:
        assert "for gateways" in (await reply.json())["detail"]
    clinics.revoke("ann")
    assert await with_token(whole) == 401


async def test_a_browser_swaps_a_token_for_a_cookie_that_outlives_the_process(
    clinics: Room,
) -> None:
    http = clinics.http()
    reply = await opened(http, clinics.url, clinics.token("ann"))
    assert reply.status == 200
    (cookie,) = reply.cookies.values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert await status(http) == 200
    async with http.get("/api/v1/session") as told:
        assert (await told.json())["you"]["member"] == "ann"
    await clinics.restart()
    assert await status(http) == 200
    async with http.delete("/api/v1/session", headers={"origin": clinics.url}) as left:
        assert left.status == 204
    assert await status(http) == 401
    stolen = f"{cookie.key}={cookie.value}"
    assert await status(clinics.http(), cookie=stolen) == 401, "it has ended"
    await clinics.restart()
    assert await status(clinics.http(), cookie=stolen) == 401, "it stays ended"


async def test_the_dashboards_address_opens_one_session(clinics: Room) -> None:
    http = clinics.http()
    once = clinics.token("root", opens_until_s=time.time() + 60.0)
    assert await status(http, authorization=f"Bearer {once}") == 401
    assert (await opened(http, clinics.url, once)).status == 200
    assert (await opened(http, clinics.url, once)).status == 401
    await clinics.restart()
    assert (await opened(http, clinics.url, once)).status == 401
    late, long = (
        clinics.token("root", opens_until_s=time.time() + from_now_s)
        for from_now_s in (-1.0, 2 * 24 * 3600.0)
    )
    assert (await opened(http, clinics.url, late)).status == 401
    assert (await opened(http, clinics.url, long)).status == 401, "it would be remembered for long"


async def test_a_cookie_does_nothing_for_pages_of_other_origins(clinics: Room) -> None:
    reply = await opened(clinics.http(), clinics.url, clinics.token("ann"))
    (cookie,) = reply.cookies.values()
    http = clinics.http()
    shown = {"cookie": f"{cookie.key}={cookie.value}"}

    async def cancel(**headers: str) -> int:
        async with http.post("/api/v1/jobs/none/cancel", headers=shown | headers) as reply:
            return reply.status

    assert await cancel(origin=clinics.url) == 404, "it is let through"
    for elsewhere in ("https://evil.example", "null", clinics.url + "1", "http://127.0.0.1"):
        assert await cancel(origin=elsewhere) == 403
    assert await cancel() == 403, "browsers say where a change comes from"
    assert (await opened(http, "https://evil.example", clinics.token("ann"))).status == 403
    async with http.get("/api/v1/network", headers={"origin": "https://evil.example"}) as read:
        assert "access-control-allow-origin" not in read.headers


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1:1"])
@pytest.mark.parametrize("path", ["/", "/api/v1/network", "/api/v1/openapi.json"])
async def test_a_name_bound_to_this_machine_reads_nothing(
    tmp_path: Path, name: str, path: str
) -> None:
    async with room(tmp_path, insecure=True) as clinics:
        async with clinics.http().get(path, headers={"host": name}) as reply:
            assert reply.status in (400, 421)
        async with clinics.http().get(path) as reply:
            assert reply.status == 200


async def test_without_a_roster_pages_elsewhere_change_nothing_either(tmp_path: Path) -> None:
    async with room(tmp_path, insecure=True) as clinics:
        http, body = clinics.http(), b'{"intent": {}}'
        plain = {"content-type": "text/plain"}
        async with http.post("/api/v1/jobs", data=body, headers=plain) as reply:
            assert reply.status == 415
        headers = {"origin": "https://evil.example", "content-type": "application/json"}
        async with http.post("/api/v1/jobs", data=body, headers=headers) as reply:
            assert reply.status == 403


async def test_a_forged_cookie_is_nobodys(clinics: Room) -> None:
    http = clinics.http()
    reply = await opened(http, clinics.url, clinics.token("ann"))
    (cookie,) = reply.cookies.values()
    value: Any = cookie.value
    middle = len(value) // 2
    for forged in (
        value[:-4],
        value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :],
        "A" * 200,
        "",
        "ä",
    ):
        assert await status(clinics.http(), cookie=f"{cookie.key}={forged}") == 401


async def test_through_tls_the_networks_certificate_counts_and_cookies_stay_encrypted(
    tmp_path: Path,
) -> None:
    async with room(tmp_path, encrypted=True, listen="https://127.0.0.1:0") as clinics:
        tls = str(tmp_path / "center/tls")
        assert clinics.url.startswith("https://127.0.0.1:")
        async with AsyncClient(clinics.url, clinics.token("ann"), tls=tls) as ann:
            assert (await ann.network()).you.member == "ann"
        async with AsyncClient(clinics.url, clinics.token("ann")) as trusting_nobody:
            with pytest.raises(Unreachable):
                await trusting_nobody.network()
        http = aiohttp.ClientSession(
            base_url=clinics.url, connector=aiohttp.TCPConnector(ssl=trusting(tls))
        )
        async with http:
            reply = await opened(http, clinics.url, clinics.token("ann"))
            (cookie,) = reply.cookies.values()
            assert cookie["secure"]
