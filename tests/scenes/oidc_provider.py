"""A small provider of OpenID Connect, as a process of its own: `python -m
tests.scenes.oidc_provider` prints its address.

It lets everybody in as the account that the test has named last at `/account`, and is strict about
the rest: the client, its secret, where it sends browsers back, PKCE, and each code once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["CLIENT", "SECRET", "b64", "oidc_provider", "signed_rs256", "to_jwk"]

CLIENT, SECRET = "control-centre", "a secret+with/signs"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def to_jwk(key: rsa.RSAPrivateKey, kid: str) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {
        "kty": "RSA",
        "kid": kid,
        "use": "sig",
        "alg": "RS256",
        "n": b64(numbers.n.to_bytes(256)),
        "e": b64(numbers.e.to_bytes(3)),
    }


def signed_rs256(key: rsa.RSAPrivateKey, claims: dict[str, Any], **header: Any) -> str:
    head = {"alg": "RS256", "typ": "JWT", **header}
    text = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class Provider:
    def __init__(self) -> None:
        self.url = ""
        self._kid = 0
        self._account: dict[str, Any] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self._new_key()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self.discovery)
        app.router.add_get("/keys", self.keys)
        app.router.add_get("/authorize", self.authorize)
        app.router.add_post("/token", self.token)
        app.router.add_post("/account", self.account)
        return app

    def _new_key(self) -> None:
        self._kid += 1
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    async def account(self, request: web.Request) -> web.Response:
        """Be this account from now on; `new_key`: and sign with another key, of another name or of
        the `same`."""
        self._account = await request.json()
        if how := self._account.pop("new_key", None):
            self._new_key()
            self._kid -= how == "same"
        return web.Response()

    async def discovery(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
        )

    async def keys(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": [to_jwk(self._key, str(self._kid))]})

    async def authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        good = (
            asked["client_id"] == CLIENT
            and asked["response_type"] == "code"
            and "openid" in asked["scope"].split()
            and asked["code_challenge_method"] == "S256"
        )
        if not good:
            return web.Response(status=400)
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        back = f"{asked['redirect_uri']}?code={code}&state={asked['state']}"
        return web.Response(status=302, headers={"location": back})

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self._codes.pop(str(form["code"]), None)
        pair = f"{CLIENT}:a%20secret%2Bwith%2Fsigns"
        shown = (
            request.headers.get("authorization")
            == f"Basic {base64.b64encode(pair.encode()).decode()}"
        )
        challenge = b64(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        good = (
            asked is not None
            and shown
            and challenge == asked["code_challenge"]
            and form["redirect_uri"] == asked["redirect_uri"]
        )
        if asked is None or not good:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now_s = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "1",
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": asked["nonce"],
            **self._account,
        }
        token = signed_rs256(self._key, claims, kid=str(self._kid))
        return web.json_response({"id_token": token, "access_token": "x", "token_type": "Bearer"})


async def _serve() -> None:
    provider = Provider()
    runner = web.AppRunner(provider.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    provider.url = f"http://{host}:{port}"
    print(provider.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)  # The test ends it by closing its input.


@contextlib.contextmanager
def oidc_provider() -> Iterator[str]:
    """A running provider; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.scenes.oidc_provider"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve())
