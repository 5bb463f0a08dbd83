"""Sign-in with OpenID Connect: the authorization code flow with PKCE.

The provider says who somebody is. What that person may do here, its member said: the file names a
token of the member for each account, and the session is opened with that, as if it had been shown.
So neither the provider nor the operator of the control centre can make anybody a member.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from daitn.center.config import OidcConfig
from daitn.oam.api.id_tokens import UnknownKey, checked_claims
from daitn.oam.api.routes import CALLBACK
from daitn.oam.api.sign_in import SignIn
from daitn.objects.addresses import is_loopback
from daitn.objects.errors import InvalidInput, Refused, Unreachable
from daitn.objects.http_api import PREFIX
from daitn.objects.wire import decode, encode
from daitn.tools.http import HttpClient, HttpError, read_address

__all__ = ["BEGINNING_S", "OidcSignIn", "unreadable"]

log = logging.getLogger(__name__)

BEGINNING_S: Final = 600.0
"""Time limit for a sign-in at the provider."""
_TIMEOUT_S: Final = 15.0
_MOST_BYTES: Final = 1 << 18
_MOST_SHOWN: Final = 200
"""Characters of a provider's text in an error."""
_KNOWN_S: Final = 3600.0
"""How long a provider's metadata and keys count: a key that it withdraws does not for longer."""
_KEYS_AGAIN_S: Final = 10.0
"""Minimum interval between requests for the keys because of an unknown one."""
_DOMAIN: Final = b"daitn oidc 1\0"
_OF_CLIENT: Final = "api.oidc.client_secret"
"""The field of the client's secret."""


class _Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in in progress, in a cookie of the browser that began it."""

    state: str
    nonce: str
    verifier: str
    until_s: float


class _Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's metadata (OpenID Connect Discovery)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    id_token: str


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[dict[str, Any]]


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's error (RFC 6749, section 5.2)."""

    error: str
    error_description: str = ""


class OidcSignIn:
    """Signs people in with one provider."""

    def __init__(self, config: OidcConfig, sign_in: SignIn, wall_s: Callable[[], float]) -> None:
        """Raises `InvalidInput` for a provider without TLS, and for a secret that cannot be read.
        People's tokens may be made later; the log tells which cannot be read yet."""
        _check_url(config.issuer, "api.oidc.issuer")
        for error in unreadable(config):
            if error.field == _OF_CLIENT:
                raise error
            log.warning("%s", error)
        self._config = config
        self._sign_in = sign_in
        self._wall_s = wall_s
        self._http = HttpClient(connect_timeout_s=_TIMEOUT_S, keepalive_s=10.0)
        self._provider: _Provider | None = None
        self._known_until_s = 0.0
        self._keys: list[dict[str, Any]] = []
        self._keys_at_s = 0.0
        self._lock = asyncio.Lock()

    def close(self) -> None:
        self._http.close()

    async def begin(self, here: str) -> tuple[str, str]:
        """The URL at which a browser signs in, and the value of the cookie that it brings back.

        `here`: this server's URL. Raises `Unreachable`, `Refused`.
        """
        provider = await self._discovered()
        begun = _Beginning(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            until_s=self._wall_s() + BEGINNING_S,
        )
        challenge = hashlib.sha256(begun.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": here + PREFIX + CALLBACK,
            "scope": " ".join(dict.fromkeys(("openid", *self._config.scopes))),
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in provider.authorization_endpoint else "?"
        place = f"{provider.authorization_endpoint}{joint}{urlencode(asked)}"
        return place, self._sign_in.sealed(_DOMAIN, encode(begun))

    async def finish(self, here: str, query: Mapping[str, str], cookie: str) -> str:
        """The token of the member whose account the provider confirms. Raises `Refused`,
        `Unreachable`, and `HttpProblem` for a cookie from elsewhere."""
        begun = decode(self._sign_in.unsealed(_DOMAIN, cookie), _Beginning)
        late = self._wall_s() >= begun.until_s
        if late or not hmac.compare_digest(begun.state, query.get("state", "")):
            raise _refused("this is not the sign-in that this browser began, or it took too long")
        if "error" in query:
            raise _refused(f"the provider says: {query['error'][:_MOST_SHOWN]}")
        provider = await self._discovered()
        if query.get("iss", provider.issuer) != provider.issuer:
            raise _refused("another provider answers")  # RFC 9207.
        token = await self._exchanged(provider, here, query.get("code", ""), begun.verifier)
        claims = await self._claims(provider, token, begun.nonce)
        return await asyncio.to_thread(self._token_of, self._account(claims))

    def _account(self, claims: Mapping[str, Any]) -> str:
        name = claims.get(self._config.claim)
        if not isinstance(name, str):
            raise _refused(f"the provider does not say {self._config.claim}")
        if self._config.claim == "email" and claims.get("email_verified") is not True:
            raise _refused(f"the provider has not verified the address {name}")
        return name

    def _token_of(self, account: str) -> str:
        path = self._config.people.get(account)
        if path is None:
            raise _refused(f"{account} is not known here", "name the account under api.oidc.people")
        try:
            return _line(path)
        except OSError as error:
            raise _refused(f"the token of {account} cannot be read: {error.strerror}") from None

    async def _exchanged(self, provider: _Provider, here: str, code: str, verifier: str) -> str:
        """The ID token for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": here + PREFIX + CALLBACK,
            "client_id": self._config.client_id,
            "code_verifier": verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if self._config.client_secret:
            secret = await asyncio.to_thread(_secret, self._config.client_secret)
            pair = f"{quote(self._config.client_id, safe='')}:{quote(secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        tokens: _Tokens = await self._asked(
            provider.token_endpoint, _Tokens, urlencode(form), headers
        )
        return tokens.id_token

    async def _claims(self, provider: _Provider, token: str, nonce: str) -> dict[str, Any]:
        def checked() -> dict[str, Any]:
            return checked_claims(
                token,
                self._keys,
                issuer=provider.issuer,
                client=self._config.client_id,
                nonce=nonce,
                now_s=self._wall_s(),
            )

        if not 0.0 <= self._wall_s() - self._keys_at_s < _KNOWN_S:
            await self._ask_keys(provider)
        try:
            return checked()
        except UnknownKey:
            if 0.0 <= self._wall_s() - self._keys_at_s < _KEYS_AGAIN_S:
                raise
            await self._ask_keys(provider)
            return checked()

    async def _ask_keys(self, provider: _Provider) -> None:
        self._keys = (await self._asked(provider.jwks_uri, _Keys)).keys
        self._keys_at_s = self._wall_s()

    async def _discovered(self) -> _Provider:
        async with self._lock:
            if self._provider is None or self._wall_s() >= self._known_until_s:
                issuer = self._config.issuer
                place = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                found = await self._asked(place, _Provider)
                if found.issuer != issuer:
                    raise _refused(
                        f"the provider calls itself {found.issuer}",
                        "state `api.oidc.issuer` as the provider does, with or without a slash",
                    )
                for url in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                    _check_url(url, "api.oidc.issuer")
                self._provider, self._known_until_s = found, self._wall_s() + _KNOWN_S
            return self._provider

    async def _asked(
        self, url: str, kind: type[Any], form: str = "", headers: Mapping[str, str] | None = None
    ) -> Any:
        """The provider's answer. Raises `Unreachable` and `Refused`."""
        parts = urlsplit(url)
        address = read_address(f"{parts.scheme}://{parts.netloc}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            reply = await self._http.request(
                "POST" if form else "GET",
                address,
                target,
                {"accept": "application/json", **(headers or {})},
                form.encode(),
                silence_timeout_s=_TIMEOUT_S,
            )
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    text = b""
                    while piece := await reply.read_chunk():
                        text += piece
                        if len(text) > _MOST_BYTES:
                            raise _refused("the provider's answer is too long")
            finally:
                reply.close()
        except (HttpError, TimeoutError) as error:
            raise Unreachable(
                f"the provider {self._config.issuer} does not answer: {error}",
                field="api.oidc.issuer",
                fix="sign in with a token, or try again later",
            ) from None
        if reply.status != 200:
            raise _refused(f"the provider answers {reply.status}{_reason(text)}")
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise _refused("the provider's answer cannot be read") from None


def unreadable(config: OidcConfig) -> Iterator[InvalidInput]:
    """An error for each file in the configuration that cannot be read, or is empty."""
    files = {_OF_CLIENT: config.client_secret} if config.client_secret else {}
    files |= {f"api.oidc.people[{account}]": file for account, file in config.people.items()}
    for field, file in files.items():
        try:
            if _line(file):
                continue
            problem = f"{file} is empty"
        except OSError as error:
            problem = f"{file} cannot be read: {error.strerror}"
        fix = "write the provider's secret for this client into it, or correct its path"
        if field != _OF_CLIENT:
            fix = "write a token of `daitn token create --center-api` into it, or correct its path"
        yield InvalidInput(problem, field=field, fix=fix)


def _line(path: str) -> str:
    """The text of a file. Raises `OSError`."""
    try:
        return Path(path).read_text().strip()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "it is not text") from None


def _secret(path: str) -> str:
    try:
        return _line(path)
    except OSError as error:
        raise _refused(
            f"the client's secret cannot be read: {error.strerror}",
            f"state its file as `{_OF_CLIENT}`",
        ) from None


def _reason(text: bytes) -> str:
    """What a provider's error says, for instance that it does not accept the client's secret."""
    try:
        failure = msgspec.json.decode(text, type=_Failure)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
    parts = (failure.error[:_MOST_SHOWN], failure.error_description[:_MOST_SHOWN])
    return f": {', '.join(filter(None, parts))}"


def _check_url(url: str, field: str) -> None:
    """Raise `InvalidInput` unless a provider's URL has TLS, or is on this machine."""
    try:
        address = read_address(url)
    except ValueError:
        address = None
    if address is None or not (address.tls or is_loopback(address.host)):
        raise InvalidInput(
            f"{url!r} is not an https address",
            field=field,
            fix="state the provider's URL, for instance https://accounts.example.org",
        )


def _refused(why: str, fix: str = "sign in again, or with a token") -> Refused:
    return Refused(why, field="oidc", fix=fix)
