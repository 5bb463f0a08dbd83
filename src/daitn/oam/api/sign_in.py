"""Who asks: by a token that a member signed, or by the cookie that a browser got for one.

A token is a secret and the member's `CenterMandate`; nothing of it is stored here. A session is in
its cookie alone, with a message authentication code: browsers stay signed in while the control
centre restarts.
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

__all__ = ["ANYBODY", "Session", "SignIn"]

ANYBODY: Final = SignedIn(member=None, role=ApiRole.OPERATOR)
"""Where there is no roster."""
SESSION_S: Final = 12 * 3600.0
_KEY_BYTES: Final = 32
_MOST_COOKIE: Final = 3800
_MOST_REMEMBERED: Final = 10_000
_KINDS: Final = {Kind.OWNER: ApiRole.OWNER, Kind.OPERATOR: ApiRole.OPERATOR}


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What a cookie says."""

    id: str
    public_key: str
    """The member's."""
    until_s: float
    reads_only: bool = False
    mandate: Signed | None = None
    """With which sites answer; none: it was opened without a member's signature."""


class SignIn:
    """Checks tokens and cookies against the roster."""

    def __init__(
        self, center: str, grants: GrantBook | None, state: Path, wall_s: Callable[[], float]
    ) -> None:
        """`center`: what the roster calls this control centre. `grants`: none without a roster.
        `state`: folder of the key that authenticates cookies."""
        self._center = center
        self._grants = grants
        self._wall_s = wall_s
        self._key = kept_private(state / "api-key", lambda: secrets.token_bytes(_KEY_BYTES))
        self._spent: dict[str, float] = {}
        """Secrets that have opened their session, and sessions that were closed, until when they
        would hold."""

    @property
    def needed(self) -> bool:
        """Whether anybody has to sign in."""
        return self._grants is not None

    def by_token(self, token: str) -> SignedIn:
        """Who shows a token. Raises `HttpProblem` (401)."""
        mandate, signed, member = self._read(token)
        if mandate.opens_until_s is not None:
            raise _unknown("it opens a session, and does nothing else")
        return _signed_in(member, mandate.reads_only, signed, mandate.until_s)

    def by_cookie(self, cookie: str) -> SignedIn:
        """Whose session it is. Raises `HttpProblem` (401)."""
        session = self._session(cookie)
        member = self._member(session.public_key)
        if self._wall_s() >= session.until_s or session.id in self._spent:
            raise _unknown("the session has ended")
        signed = _signed_in(member, session.reads_only, session.mandate, session.until_s)
        return replace(signed, session=session.id)

    def opened(self, token: str) -> tuple[SignedIn, str]:
        """A new session for a token, and its cookie's value. Raises `HttpProblem` (401)."""
        mandate, signed, member = self._read(token)
        now_s = self._wall_s()
        if mandate.opens_until_s is not None:
            if now_s >= mandate.opens_until_s or mandate.secret in self._spent:
                raise _unknown("it has opened its session, or its time to do so is over")
            self._spend(mandate.secret, mandate.opens_until_s)
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
        session = Session(
            id=secrets.token_urlsafe(16),
            public_key=member.public_key,
            until_s=until_s,
            reads_only=reads_only,
            mandate=mandate,
        )
        text = encode(session)
        value = base64.urlsafe_b64encode(self._code(text) + text).decode().rstrip("=")
        return _signed_in(member, reads_only, mandate, until_s), value

    def close(self, session: str) -> None:
        """End a session before its time."""
        self._spend(session, self._wall_s() + SESSION_S)

    def still(self, by: SignedIn) -> bool:
        """Whether somebody who asked before may still: for answers that go on."""
        if by.member is None:
            return True
        over = by.until_s is not None and self._wall_s() >= by.until_s
        assert self._grants is not None
        known = self._grants.members().get(by.member.public_key)
        return known is not None and not over and by.session not in self._spent

    def _read(self, token: str) -> tuple[CenterMandate, Signed, Member]:
        if self._grants is None:
            raise _unknown("nobody signs in here: there is no roster")
        if token.startswith(TOKEN_PREFIX) and not token.startswith(CENTER_TOKEN_PREFIX):
            raise _unknown("it is for gateways: `daitn token create --center-api` makes another")
        try:
            secret, text = split_token(token, CENTER_TOKEN_PREFIX)
            signed = read_signed(text)
            mandate = self._grants.read(signed, CenterMandate)
        except (Refused, Corrupt) as error:
            raise _unknown(error.problem) from None
        if not hmac.compare_digest(mandate.secret, secret):
            raise _unknown("its secret is wrong")
        if mandate.center != self._center:
            raise _unknown(f"it is for the control centre {mandate.center}")
        return mandate, signed, self._member(signed.public_key)

    def _member(self, public_key: str) -> Member:
        member = self._grants.members().get(public_key) if self._grants else None
        if member is None or member.kind not in _KINDS:
            raise _unknown("its member is no owner or operator of this network any more")
        return member

    def _session(self, cookie: str) -> Session:
        try:
            if len(cookie) > _MOST_COOKIE:
                raise ValueError
            whole = base64.b64decode(cookie + "=" * (-len(cookie) % 4), b"-_", validate=True)
            code, text = whole[:_KEY_BYTES], whole[_KEY_BYTES:]
            if not hmac.compare_digest(code, self._code(text)):
                raise ValueError
            return decode(text, Session)
        except (ValueError, Corrupt):
            raise _unknown("the session is not of this control centre") from None

    def _code(self, text: bytes) -> bytes:
        return hmac.digest(self._key, b"daitn session 1\0" + text, hashlib.sha256)

    def _spend(self, what: str, until_s: float) -> None:
        now_s = self._wall_s()
        if len(self._spent) >= _MOST_REMEMBERED:
            self._spent = {one: end for one, end in self._spent.items() if end > now_s}
        if len(self._spent) >= _MOST_REMEMBERED:
            raise HttpProblem(
                429, "Refused", "too many sessions are opened and closed", fix="wait for a minute"
            )
        self._spent[what] = until_s


def _signed_in(
    member: Member, reads_only: bool, mandate: Signed | None, until_s: float
) -> SignedIn:
    role = ApiRole.VIEWER if reads_only else _KINDS[member.kind]
    return SignedIn(member=member, role=role, mandate=mandate, until_s=until_s)


def _unknown(why: str) -> HttpProblem:
    return HttpProblem(
        401,
        "NotSignedIn",
        f"you are not signed in: {why}",
        field="authorization",
        fix="send `authorization: Bearer TOKEN` with a token of `daitn token create --center-api`, "
        "or open `daitn dashboard`",
        headers={"www-authenticate": "Bearer"},
    )
