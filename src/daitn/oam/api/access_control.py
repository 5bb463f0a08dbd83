"""Access control: hosts and origins that a browser may name, rates, tokens and cookies."""

from __future__ import annotations

import math
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from daitn.center.config import ApiConfig
from daitn.oam.api.answers import ApiRole, Opening
from daitn.oam.api.asking import SignedIn
from daitn.oam.api.oidc import BEGINNING_S, OidcSignIn
from daitn.oam.api.problems import HttpProblem
from daitn.oam.api.reading_requests import struct_of, whole_body
from daitn.oam.api.routes import ApiRoute
from daitn.oam.api.sign_in import ANYBODY, SESSION_S, SignIn, unknown
from daitn.objects.addresses import is_loopback
from daitn.objects.errors import NotFound
from daitn.objects.rates import Bucket
from daitn.tools import clock
from daitn.tools.http import Request

__all__ = ["AccessControl"]

_BEARER: Final = "bearer "
_MOST_OPENING: Final = 16 << 10
_MOST_BUCKETS: Final = 10_000
_BURST_S: Final = 4.0
_ELSEWHERE: Final = "elsewhere"
"""Instead of a member's key: all who sign in with external accounts, together."""


class AccessControl:
    """Admits requests."""

    def __init__(self, config: ApiConfig, sign_in: SignIn) -> None:
        self._config = config
        self._sign_in = sign_in
        self._hosts: frozenset[str] | None = None
        """Hosts that a request may name; none means any."""
        self._origins: frozenset[str] = frozenset()
        self._scheme = "http"
        self._cookie = ""
        self._published = ""
        self._secure = False
        """Whether browsers reach it over TLS."""
        oidc = config.oidc
        self._oidc = None if oidc is None else OidcSignIn(oidc, sign_in, clock.wall_s)
        self._buckets: dict[str, Bucket] = {}

    def listens_at(self, endpoint: str, published: str) -> None:
        """Set where the server listens, and where others reach it."""
        own, public = urlsplit(endpoint), urlsplit(published)
        self._scheme = own.scheme
        self._published = published
        self._secure = "https" in (own.scheme, public.scheme)
        self._cookie = f"daitn-session-{own.port}"
        names = {own.netloc, public.netloc}
        if is_loopback(own.hostname or ""):
            names |= {f"{name}:{own.port}" for name in ("localhost", "127.0.0.1", "[::1]")}
            self._hosts = frozenset(names)
        schemes = {own.scheme, public.scheme}
        self._origins = frozenset(f"{scheme}://{name}" for scheme in schemes for name in names)

    @property
    def ways(self) -> tuple[str, ...]:
        """Ways to sign in; empty if nobody needs to."""
        if not self._sign_in.needed:
            return ()
        return ("token",) if self._oidc is None else ("token", "oidc")

    def shut(self) -> None:
        """Close connections to others."""
        if self._oidc is not None:
            self._oidc.close()

    def check_host(self, request: Request) -> None:
        """Raise `HttpProblem` for another server's name: a page whose name was rebound to this
        machine (DNS rebinding) must not read anything here."""
        host = request.headers.get("host", "").lower()
        if self._hosts is not None and host not in self._hosts:
            raise HttpProblem(
                421,
                "WrongHost",
                "this server does not have the name in the request",
                field="host",
                fix="use its address, or state `api.advertise` in the control centre's file",
            )

    def check_origin(self, request: Request) -> None:
        """Raise `HttpProblem` if a page of another origin requests a change.

        Programs send no `Origin`, and cookies come from browsers alone, which send it with all
        changes.
        """
        origin = request.headers.get("origin")
        own = f"{self._scheme}://{request.headers.get('host', '').lower()}"
        if origin is None:
            foreign = request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
            foreign = foreign or (not self._shows_token(request) and self._cookie_of(request) != "")
        else:
            foreign = origin != own and origin not in self._origins
        if foreign:
            raise HttpProblem(
                403,
                "WrongOrigin",
                "the request comes from a page of another origin",
                field="origin",
                fix="ask from the dashboard, or from a program with a token",
            )

    def admitted(self, request: Request, route: ApiRoute) -> SignedIn | None:
        """The caller; none if it is unknown and the route does not need one. Raises
        `HttpProblem`."""
        by = self._who(request, needed=route.least is not None)
        if by is not None:
            self._take(by.member.public_key if by.member else "", route.cost)
        if route.least is None:
            return by
        assert by is not None
        if not by.role.reaches(route.least):
            raise HttpProblem(
                403,
                "Refused",
                f"this needs the role {route.least}, but yours is {by.role}",
                field="authorization",
                fix="sign in with a token that is not read-only"
                if by.role is ApiRole.VIEWER
                else "ask an operator",
            )
        return by

    async def open(self, request: Request) -> SignedIn:
        """Open a session for the token in a request, and set its cookie. Raises `HttpProblem`."""
        opening: Opening = struct_of(await whole_body(request, _MOST_OPENING), Opening, request)
        opened, cookie = self._sign_in.opened(opening.token)
        self.keep(request, cookie, SESSION_S)
        return opened

    async def begin_elsewhere(self, request: Request) -> str:
        """URL at which a browser signs in with an external account. Raises like `OidcSignIn.begin`,
        and `NotFound`."""
        place, cookie = await self._provider().begin(self._published)
        # The provider redirects the browser back, which `Strict` would treat as cross-site.
        self._set_cookie(request, f"{self._cookie}-oidc", cookie, BEGINNING_S, "Lax")
        return place

    async def end_elsewhere(self, request: Request) -> None:
        """Open a session for a caller that returns from there. Raises like `OidcSignIn.finish`, and
        `HttpProblem` for an invalid token."""
        begun = self._cookie_of(request, f"{self._cookie}-oidc")
        token = await self._provider().finish(self._published, request.query, begun)
        _, cookie = self._sign_in.opened(token)
        self._set_cookie(request, f"{self._cookie}-oidc", "", 0, "Lax")
        self.keep(request, cookie, SESSION_S)

    def _provider(self) -> OidcSignIn:
        if self._oidc is None or not self._sign_in.needed:
            raise NotFound(
                "sign-in with OpenID Connect is not configured here",
                field="api.oidc",
                fix="sign in with a token, or state a provider in the control centre's file",
            )
        self._take(_ELSEWHERE)
        return self._oidc

    def keep(self, request: Request, cookie: str, lasts_s: float) -> None:
        """Set the session's cookie with the answer to a request."""
        self._set_cookie(request, self._cookie, cookie, lasts_s, "Strict")

    def _set_cookie(
        self, request: Request, name: str, value: str, lasts_s: float, same_site: str
    ) -> None:
        secure = "; Secure" if self._secure else ""
        request.add_header(
            "set-cookie",
            f"{name}={value}; Path=/; Max-Age={int(lasts_s)}; HttpOnly; "
            f"SameSite={same_site}{secure}",
        )

    def close(self, request: Request, by: SignedIn | None) -> None:
        """End the caller's session."""
        self.keep(request, "", 0)  # Even if its end cannot be stored.
        if by is not None and by.session:
            self._sign_in.close(by.session)

    def _who(self, request: Request, *, needed: bool) -> SignedIn | None:
        if not self._sign_in.needed:
            return ANYBODY
        try:
            if self._shows_token(request):
                token = request.headers["authorization"][len(_BEARER) :].strip()
                return self._sign_in.by_token(token)
            cookie = self._cookie_of(request)
            if not cookie:
                raise unknown("no token was sent")
            return self._sign_in.by_cookie(cookie)
        except HttpProblem:
            if needed:
                raise
            return None

    def _take(self, who: str, cost: int = 1) -> None:
        """Count a request of a member. Raises `HttpProblem` (429) for too many."""
        now_s, per_s = clock.elapsed_s(), self._config.requests_per_s
        bucket = self._buckets.get(who)
        if bucket is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[who] = Bucket(per_s, _BURST_S * per_s, now_s)
        wait_s = max(bucket.take(now_s) for _ in range(cost))
        if wait_s:
            raise HttpProblem(
                429,
                "TooOften",
                f"more than {per_s:g} requests a second",
                fix="ask less often, or wait for events",
                headers={"retry-after": str(math.ceil(wait_s))},
            )

    def _shows_token(self, request: Request) -> bool:
        return request.headers.get("authorization", "")[: len(_BEARER)].lower() == _BEARER

    def _cookie_of(self, request: Request, name: str = "") -> str:
        try:
            found = SimpleCookie(request.headers.get("cookie", "")).get(name or self._cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""
