"""Sign-in with an account at a provider of OpenID Connect, a real process."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from daitn.center.config import OidcConfig
from daitn.oam.api.id_tokens import checked_claims
from daitn.objects.errors import InvalidInput, Refused
from tests.scenes.control_room import Room, room
from tests.scenes.oidc_provider import CLIENT, SECRET, b64, oidc_provider, signed_rs256, to_jwk

pytestmark = pytest.mark.processes

ANN = {"email": "ann@example.org", "email_verified": True}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with oidc_provider() as url:
        yield url


@pytest.fixture
async def clinics(tmp_path: Path, provider: str) -> AsyncIterator[Room]:
    (tmp_path / "secret").write_text(SECRET + "\n")
    oidc = OidcConfig(
        issuer=provider,
        client_id=CLIENT,
        client_secret=str(tmp_path / "secret"),
        people={
            "ann@example.org": str(tmp_path / "ann.token"),
            "bob@example.org": str(tmp_path / "bob.token"),
        },
    )
    async with room(tmp_path, oidc=oidc) as made:
        (tmp_path / "ann.token").write_text(made.token("ann", reads_only=True))
        yield made


async def named(provider: str, account: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{provider}/account", json=account):
        pass


async def signed_in(http: aiohttp.ClientSession) -> aiohttp.ClientResponse:
    """As a browser: to the provider, back, and on. The last answer."""
    place, reply = "/api/v1/session/oidc", None
    for _ in range(4):
        reply = await http.get(place, allow_redirects=False)
        if reply.status not in (302, 303) or reply.headers["location"].startswith("/"):
            return reply
        place = reply.headers["location"]
    raise AssertionError(place)


async def told(reply: aiohttp.ClientResponse) -> str:
    """The problem that the dashboard shows."""
    shown = reply.headers["location"]
    found = re.fullmatch(r"/#problem=([\w.~%-]+)&fix=([\w.~%-]*)", shown)
    assert found, shown
    return unquote(found[1])


async def test_whoever_has_the_account_may_do_what_the_members_token_lets_it(
    clinics: Room, provider: str
) -> None:
    await named(provider, ANN)
    http = clinics.http()
    async with http.get("/api/v1/session") as shown:
        assert (await shown.json())["ways"] == ["token", "oidc"]
    reply = await signed_in(http)
    assert (reply.status, reply.headers["location"]) == (303, "/")
    async with http.get("/api/v1/session") as shown:
        you = (await shown.json())["you"]
    assert (you["member"], you["role"]) == ("ann", "viewer")
    clinics.revoke("ann")
    assert "no owner or operator" in await told(await signed_in(clinics.http()))


@pytest.mark.parametrize(
    ("account", "detail"),
    [
        ({"email": "eve@example.org", "email_verified": True}, "not known here"),
        ({"email": "ann@example.org"}, "not verified"),
        ({"email": "ann@example.org", "email_verified": "true"}, "not verified"),
        ({"sub": "ann@example.org"}, "does not say email"),
        ({"email": "bob@example.org", "email_verified": True}, "cannot be read"),
        ({**ANN, "aud": "another"}, "another client"),
        ({**ANN, "iss": "https://evil.example"}, "another provider"),
        ({**ANN, "nonce": "other"}, "another request"),
        ({**ANN, "exp": 1}, "expired"),
    ],
)
async def test_nobody_else_gets_in(
    clinics: Room, provider: str, account: dict[str, Any], detail: str
) -> None:
    await named(provider, account)
    http = clinics.http()
    assert detail in await told(await signed_in(http))
    async with http.get("/api/v1/session") as shown:
        assert (await shown.json())["you"] is None


@pytest.mark.parametrize("name", ["another", "same"])
async def test_a_provider_may_change_its_key(
    clinics: Room, provider: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await named(provider, ANN)
    assert (await signed_in(clinics.http())).headers["location"] == "/"
    await named(provider, {**ANN, "new_key": name})
    assert await told(await signed_in(clinics.http())), "it is not asked all the time"
    monkeypatch.setattr("daitn.oam.api.oidc._KEYS_AGAIN_S", 0.0)
    assert (await signed_in(clinics.http())).headers["location"] == "/"


async def test_a_key_that_the_provider_withdrew_does_not_count_forever(
    clinics: Room, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await named(provider, ANN)
    assert (await signed_in(clinics.http())).headers["location"] == "/"
    oidc = clinics.center.api._access._oidc  # type: ignore[union-attr]
    assert oidc is not None
    withdrawn, *_ = oidc._keys
    await named(provider, {**ANN, "new_key": "another"})
    monkeypatch.setattr("daitn.oam.api.oidc._KNOWN_S", 0.0)
    assert (await signed_in(clinics.http())).headers["location"] == "/"
    assert withdrawn not in oidc._keys


async def test_files_that_are_no_text_and_errors_of_the_provider_are_told(
    clinics: Room, provider: str, tmp_path: Path
) -> None:
    await named(provider, ANN)
    (tmp_path / "ann.token").write_bytes(b"\xff\xfe")
    assert "not text" in await told(await signed_in(clinics.http()))
    (tmp_path / "secret").write_text("another")
    assert "400: invalid_grant" in await told(await signed_in(clinics.http()))
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    assert "not text" in await told(await signed_in(clinics.http()))


async def test_a_sign_in_is_of_the_browser_that_began_it(clinics: Room, provider: str) -> None:
    await named(provider, ANN)
    browser, other = clinics.http(), clinics.http()
    begun = await browser.get("/api/v1/session/oidc", allow_redirects=False)
    back = await browser.get(begun.headers["location"], allow_redirects=False)
    place = back.headers["location"]
    assert await told(await other.get(place, allow_redirects=False))
    assert await told(await browser.get(place + "x", allow_redirects=False))
    assert (await browser.get(place, allow_redirects=False)).headers["location"] == "/"
    assert await told(await browser.get(place, allow_redirects=False)), "once"


async def test_a_provider_that_is_away_is_told(tmp_path: Path) -> None:
    oidc = OidcConfig(issuer="http://127.0.0.1:1", client_id=CLIENT)
    async with room(tmp_path, oidc=oidc) as made:
        assert "does not answer" in await told(await signed_in(made.http()))
    with pytest.raises(InvalidInput) as raised:
        async with room(tmp_path / "b", oidc=OidcConfig(issuer="http://example.org", client_id="")):
            pass
    assert raised.value.field == "api.oidc.issuer"


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NOW_S = time.time()
CLAIMS = {"iss": "i", "aud": "c", "exp": NOW_S + 60, "iat": NOW_S, "nonce": "n", "sub": "s"}


def read(token: str, *keys: dict[str, Any]) -> dict[str, Any]:
    return checked_claims(token, keys, issuer="i", client="c", nonce="n", now_s=NOW_S)


@pytest.mark.parametrize("damage", [None, b"", b"\n", b"\xff"])
async def test_a_sign_in_without_its_secret_does_not_start(
    tmp_path: Path, provider: str, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody could sign in, and whoever tried was the first to hear of it."""
    secret, token = tmp_path / "secret", tmp_path / "ann.token"
    people = {"ann@example.org": str(token)}
    config = OidcConfig(issuer=provider, client_id=CLIENT, client_secret=str(secret), people=people)
    if damage is not None:
        secret.write_bytes(damage)
    with pytest.raises(InvalidInput, match=re.escape(str(secret))) as refused:
        async with room(tmp_path / "refused", oidc=config):
            pass
    assert refused.value.field == "api.oidc.client_secret"
    assert refused.value.fix
    secret.write_text(SECRET)
    async with room(tmp_path / "warned", oidc=config):
        assert f"api.oidc.people[ann@example.org]: {token} cannot be read" in caplog.text
    caplog.clear()
    token.write_text("a token")
    async with room(tmp_path / "well", oidc=config):
        assert "api.oidc" not in caplog.text


def test_a_token_is_read_if_its_key_signed_it() -> None:
    jwk = to_jwk(KEY, "1")
    good = signed_rs256(KEY, CLAIMS, kid="1")
    assert read(good, jwk) == CLAIMS
    assert read(signed_rs256(KEY, CLAIMS), to_jwk(KEY, "2"))["sub"] == "s", "without a key's name"
    head, body, signature = good.split(".")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    none = b64(json.dumps({"alg": "none"}).encode())
    shared = b64(json.dumps({"alg": "HS256", "kid": "1"}).encode())
    for bad, keys in (
        (good, [to_jwk(other, "1")]),
        (good, [to_jwk(KEY, "2")]),
        (good, []),
        (good, [{**jwk, "use": "enc"}]),
        (good, [{**jwk, "kty": "EC"}]),
        (f"{head}.{b64(json.dumps({**CLAIMS, 'sub': 'root'}).encode())}.{signature}", [jwk]),
        (f"{none}.{body}.", [{**jwk, "alg": "none"}]),
        (f"{shared}.{body}.{signature}", [jwk, {"kty": "oct", "k": "AA", "kid": "1"}]),
        (f"{head}.{body}.", [jwk]),
        (f"{head}.{body}", [jwk]),
        ("", [jwk]),
        ("a.b.c", [jwk]),
        (f"{head}.{body}.{signature}" + "A" * 20_000, [jwk]),
        (signed_rs256(KEY, CLAIMS, kid="1", crit=["x"]), [jwk]),
    ):
        with pytest.raises(Refused):
            read(bad, *keys)


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "j"},
        {"aud": "d"},
        {"aud": ["c", "d"]},
        {"aud": []},
        {"azp": "d"},
        {"exp": NOW_S - 61},
        {"exp": "never"},
        {"exp": None},
        {"iat": NOW_S + 3600},
        {"nonce": ""},
        {"nonce": None},
    ],
)
def test_a_token_for_others_does_not_count(change: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        read(signed_rs256(KEY, {**CLAIMS, **change}, kid="1"), to_jwk(KEY, "1"))


def test_the_other_kinds_of_keys_are_understood() -> None:
    def text(**head: str) -> str:
        parts = json.dumps({"kid": "1", **head}), json.dumps(CLAIMS)
        return ".".join(b64(part.encode()) for part in parts)

    curve = ec.generate_private_key(ec.SECP256R1())
    numbers = curve.public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": b64(numbers.x.to_bytes(32)),
        "y": b64(numbers.y.to_bytes(32)),
    }
    said = text(alg="ES256")
    pair = decode_dss_signature(curve.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
    raw = b"".join(number.to_bytes(32) for number in pair)
    assert read(f"{said}.{b64(raw)}", {**jwk, "kid": "1"})["sub"] == "s"
    edwards = ed25519.Ed25519PrivateKey.generate()
    said = text(alg="EdDSA")
    own = {"kty": "OKP", "crv": "Ed25519", "kid": "1"}
    own["x"] = b64(edwards.public_key().public_bytes_raw())
    assert read(f"{said}.{b64(edwards.sign(said.encode()))}", own)["sub"] == "s"
