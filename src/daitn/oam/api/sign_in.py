"""Authentication: by a token signed by a member, or by the cookie that a browser got in exchange.

A token is a secret and the member's `CenterMandate`; nothing of it is stored here. A session is in
its cookie alone, with a message authentication code: browsers stay signed in while the control
centre restarts. What is over is stored: `SpentSecrets`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from daitn.center.spent_secrets import SpentSecrets
from daitn.files.state_folder import CenterState
from daitn.identity.grants import (
    CENTER_TOKEN_PREFIX,
    TOKEN_PREFIX,
    GrantBook,
    read_signed,
    split_token,
)
from daitn.identity.keys import kept_private
from daitn.oam.api.answers import ApiRole
from daitn.oam.api.asking import SignedIn
from daitn.oam.api.problems import HttpProblem
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.grants import CenterMandate, Signed
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import decode, encode

__all__ = ["ANYBODY", "BrowserSession", "SignIn", "unknown"]

ANYBODY: Final = SignedIn(member=None, role=ApiRole.OPERATOR)
"""The caller if there is no roster."""
SESSION_S: Final = 12 * 3600.0
_MOST_OPENS_S: Final = 24 * 3600.0
"""How long a one-time token may stay usable at most: spent ones are remembered until they
expire."""
_DOMAIN: Final = b"daitn session 1\0"
_KEY_BYTES: Final = 32
_MOST_COOKIE: Final = 3800
_KINDS: Final = {Kind.OWNER: ApiRole.OWNER, Kind.OPERATOR: ApiRole.OPERATOR}


class BrowserSession(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a cookie."""

    id: str
    public_key: str
    """The member's."""
    until_s: float
    reads_only: bool = False
    mandate: Signed | None = None
    """The mandate with which sites answer; absent if it was opened without a member's signature."""


class SignIn:
    """Checks tokens and cookies against the roster."""

    def __init__(
        self,
        center: str,
        grants: GrantBook | None,
        state: Path,
        spent: SpentSecrets,
        wall_s: Callable[[], float],
    ) -> None:
        """`center`: the control centre's name in the roster. `grants`: none without a roster.
        `state`: folder of the key that authenticates cookies. `spent`: secrets that have opened
        their session, and sessions that were closed."""
        self._center = center
        self._grants = grants
        self._wall_s = wall_s
        path = state / CenterState.API_KEY
        self._key = kept_private(path, lambda: secrets.token_bytes(_KEY_BYTES))
        self._spent = spent

    @property
    def needed(self) -> bool:
        """Whether callers must sign in."""
        return self._grants is not None

    def by_token(self, token: str) -> SignedIn:
        """The caller with a token. Raises `HttpProblem` (401)."""
        mandate, signed, member = self._read(token)
        if mandate.opens_until_s is not None:
            raise unknown("it opens a session, and does nothing else")
        return _signed_in(member, mandate.reads_only, signed, mandate.until_s)

    def by_cookie(self, cookie: str) -> SignedIn:
        """The session of a cookie. Raises `HttpProblem` (401)."""
        session = decode(self.unsealed(_DOMAIN, cookie), BrowserSession)
        member = self._member(session.public_key)
        if self._wall_s() >= session.until_s or session.id in self._spent:
            raise unknown("the session has ended")
        signed = _signed_in(member, session.reads_only, session.mandate, session.until_s)
        return replace(signed, session=session.id)

    def opened(self, token: str) -> tuple[SignedIn, str]:
        """A new session for a token, and its cookie's value. Raises `HttpProblem` (401), and like
        `SpentSecrets.add`."""
        mandate, signed, member = self._read(token)
        now_s = self._wall_s()
        if mandate.opens_until_s is not None:
            if now_s >= mandate.opens_until_s or mandate.secret in self._spent:
                raise unknown("it has opened its session, or its time to do so is over")
            if mandate.opens_until_s > now_s + _MOST_OPENS_S:
                raise unknown("it may open a session for too long")
            self._spent.add(mandate.secret, mandate.opens_until_s)
        until_s = min(mandate.until_s, now_s + SESSION_S)
        return self.begun(member, until_s, reads_only=mandate.reads_only, mandate=signed)

    def begun(
        self,
        member: Member,
        until_s: float,
        *,
        reads_only: bool = False,
        mandate: Signed | None = None,
    ) -> tuple[SignedIn, str]:
        """A new session of a member, and its cookie's value."""
        session = BrowserSession(
            id=secrets.token_urlsafe(16),
            public_key=member.public_key,
            until_s=until_s,
            reads_only=reads_only,
            mandate=mandate,
        )
        cookie = self.sealed(_DOMAIN, encode(session))
        return _signed_in(member, reads_only, mandate, until_s), cookie

    def close(self, session: str) -> None:
        """End a session before its time. Raises like `SpentSecrets.add`."""
        self._spent.add(session, self._wall_s() + SESSION_S)

    def still(self, by: SignedIn) -> bool:
        """Whether an earlier caller is still admitted: for answers that continue."""
        if by.member is None:
            return True
        over = by.until_s is not None and self._wall_s() >= by.until_s
        assert self._grants is not None
        known = self._grants.members().get(by.member.public_key)
        return known is not None and not over and by.session not in self._spent

    def _read(self, token: str) -> tuple[CenterMandate, Signed, Member]:
        if self._grants is None:
            raise unknown("nobody can sign in here: there is no roster")
        if token.startswith(TOKEN_PREFIX) and not token.startswith(CENTER_TOKEN_PREFIX):
            raise unknown("it is for gateways: `daitn token create --center-api` makes another")
        try:
            secret, text = split_token(token, CENTER_TOKEN_PREFIX)
            signed = read_signed(text)
            mandate = self._grants.read(signed, CenterMandate)
        except (Refused, Corrupt) as error:
            raise unknown(error.problem) from None
        if not hmac.compare_digest(mandate.secret, secret):
            raise unknown("its secret is wrong")
        if mandate.center != self._center:
            raise unknown(f"it is for the control centre {mandate.center}")
        return mandate, signed, self._member(signed.public_key)

    def _member(self, public_key: str) -> Member:
        member = self._grants.members().get(public_key) if self._grants else None
        if member is None or member.kind not in _KINDS:
            raise unknown("its member is no longer an owner or operator of this network")
        return member

    def sealed(self, domain: bytes, text: bytes) -> str:
        """A text that a browser stores and cannot change. `domain`: its purpose."""
        return base64.urlsafe_b64encode(self._code(domain, text) + text).decode().rstrip("=")

    def unsealed(self, domain: bytes, value: str) -> bytes:
        """The text in the result of `sealed`. Raises `HttpProblem` (401)."""
        try:
            if len(value) > _MOST_COOKIE:
                raise ValueError
            whole = base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True)
        except ValueError:
            raise unknown("the cookie cannot be read") from None
        code, text = whole[:_KEY_BYTES], whole[_KEY_BYTES:]
        if not hmac.compare_digest(code, self._code(domain, text)):
            raise unknown("the cookie is not of this control centre")
        return text

    def _code(self, domain: bytes, text: bytes) -> bytes:
        return hmac.digest(self._key, domain + text, hashlib.sha256)


def _signed_in(
    member: Member, reads_only: bool, mandate: Signed | None, until_s: float
) -> SignedIn:
    role = ApiRole.VIEWER if reads_only else _KINDS[member.kind]
    return SignedIn(member=member, role=role, mandate=mandate, until_s=until_s)


def unknown(why: str) -> HttpProblem:
    """The error for an unknown caller."""
    return HttpProblem(
        401,
        "NotSignedIn",
        f"you are not signed in: {why}",
        field="authorization",
        fix="send `authorization: Bearer TOKEN` with a token of `daitn token create --center-api`, "
        "or open `daitn dashboard`",
        headers={"www-authenticate": "Bearer"},
    )
