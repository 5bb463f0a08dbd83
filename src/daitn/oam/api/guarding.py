"""Who may come in: hosts and origins that a browser may name, rates, tokens and cookies."""

from __future__ import annotations

import math
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from daitn.center.config import ApiConfig
from daitn.oam.api.answers import ApiRole, Opening
from daitn.oam.api.asking import SignedIn
from daitn.oam.api.problems import HttpProblem
from daitn.oam.api.reading_requests import struct_of, whole_body
from daitn.oam.api.routes import Route
from daitn.oam.api.sign_in import ANYBODY, SESSION_S, SignIn
from daitn.objects.addresses import is_loopback
from daitn.steering.buckets import Bucket
from daitn.tools import clock
from daitn.tools.http import Request

__all__ = ["Doorkeeper"]

_BEARER: Final = "bearer "
_MOST_OPENING: Final = 16 << 10
_MOST_BUCKETS: Final = 10_000
_BURST_S: Final = 4.0


class Doorkeeper:
    """Admits requests."""

    def __init__(self, config: ApiConfig, sign_in: SignIn) -> None:
        self._config = config
        self._sign_in = sign_in
        self._hosts: frozenset[str] | None = None
        """Those that a request may name; none: any."""
        self._origins: frozenset[str] = frozenset()
        self._scheme = "http"
        self._cookie = ""
        self._buckets: dict[str, Bucket] = {}

    def listens_at(self, endpoint: str, published: str) -> None:
        """Where the server listens, and where others reach it."""
        here, there = urlsplit(endpoint), urlsplit(published)
        self._scheme = here.scheme
        self._cookie = f"daitn-session-{here.port}"
        names = {here.netloc, there.netloc}
        if is_loopback(here.hostname or ""):
            names |= {f"{name}:{here.port}" for name in ("localhost", "127.0.0.1", "[::1]")}
            self._hosts = frozenset(names)
        schemes = {here.scheme, there.scheme}
        self._origins = frozenset(f"{scheme}://{name}" for scheme in schemes for name in names)

    @property
    def ways(self) -> tuple[str, ...]:
        """How to sign in; none: nobody has to."""
        return ("token",) if self._sign_in.needed else ()

    def check_host(self, request: Request) -> None:
        """Raise `HttpProblem` for another server's name: a page whose name was bound to this
        machine (DNS rebinding) shall not read anything here."""
        host = request.headers.get("host", "").lower()
        if self._hosts is not None and host not in self._hosts:
            raise HttpProblem(
                421,
                "WrongHost",
                "this server does not have the name that the request has for it",
                field="host",
                fix="use its address, or state `api.advertise` in the control centre's file",
            )

    def check_origin(self, request: Request) -> None:
        """Raise `HttpProblem` if a page of another origin asks for a change.

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
                "a page of another origin asks for this",
                field="origin",
                fix="ask from the dashboard, or from a program with a token",
            )

    def admitted(self, request: Request, route: Route) -> SignedIn | None:
        """Who asks; none: nobody, and the route needs nobody. Raises `HttpProblem`."""
        by = self._who(request, needed=route.least is not None)
        if by is not None:
            self._take(by.member.public_key if by.member else "")
        if route.least is None:
            return by
        assert by is not None
        if not by.role.reaches(route.least):
            raise HttpProblem(
                403,
                "Refused",
                f"this takes the role {route.least}, and yours is {by.role}",
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

    def keep(self, request: Request, cookie: str, lasts_s: float) -> None:
        """Set the session's cookie with the answer to a request."""
        secure = "; Secure" if self._scheme == "https" else ""
        request.add_header(
            "set-cookie",
            f"{self._cookie}={cookie}; Path=/; Max-Age={int(lasts_s)}; HttpOnly; "
            f"SameSite=Strict{secure}",
        )

    def close(self, request: Request, by: SignedIn | None) -> None:
        """End the session of whoever asks."""
        if by is not None and by.session:
            self._sign_in.close(by.session)
        self.keep(request, "", 0)

    def _who(self, request: Request, *, needed: bool) -> SignedIn | None:
        if not self._sign_in.needed:
            return ANYBODY
        try:
            if self._shows_token(request):
                token = request.headers["authorization"][len(_BEARER) :].strip()
                return self._sign_in.by_token(token)
            return self._sign_in.by_cookie(self._cookie_of(request))
        except HttpProblem:
            if needed:
                raise
            return None

    def _take(self, who: str) -> None:
        """Count a request of a member. Raises `HttpProblem` (429) for too many."""
        now_s, per_s = clock.elapsed_s(), self._config.requests_per_s
        bucket = self._buckets.get(who)
        if bucket is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[who] = Bucket(per_s, _BURST_S * per_s, now_s)
        wait_s = bucket.take(now_s)
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

    def _cookie_of(self, request: Request) -> str:
        try:
            found = SimpleCookie(request.headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""
