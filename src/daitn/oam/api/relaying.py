"""Relays fabric requests that arrive by HTTP, for clients that can use only HTTPS.

What a member signed is passed on as it is: the answerer checks that signature, and this control
centre can neither change nor make one. What nobody signed is asked in the name of the user who
signed in, as all of the API is, and a token for reading asks only what changes nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from daitn.identity.envelopes import read_envelope
from daitn.oam.api.answers import ApiRole
from daitn.oam.api.asking import Asked, Center
from daitn.oam.api.problems import HttpProblem
from daitn.objects.errors import NotFound, Refused
from daitn.objects.identifiers import is_name
from daitn.objects.roster import SignedRoster
from daitn.objects.steering import Steer
from daitn.objects.value import ValueQuestion
from daitn.objects.wire import decode, is_whole
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_READING, CENTER_VERBS, READING, SITE_VERBS
from daitn.tools.fabric.signed import SignedFabric
from daitn.tools.roster import LiveRoster

__all__ = ["Relay"]

_MOST_OF_ONE: Final = 32
"""Limit on concurrent requests of one member: as many as a few simultaneous exports make."""
_NOT_READING: Final = {
    "chunk": "to fetch a model's weights is to take the model along",
    "probe": "to ping sends packets through the network",
}
"""Why requests that seem to read only are not for tokens that are read-only."""
_SIGNED_ALONE: Final = frozenset({"certify"})
"""Certificates outlast tokens, and open the fabric: a caller with a token gets none."""


class Relay:
    """The relay of one control centre."""

    def __init__(self, center: Center, roster: LiveRoster | None) -> None:
        self._center = center
        self._roster = roster
        self._passing: Counter[str] = Counter()

    async def passed_on(self, asked: Asked, key: str, payload: bytes, within_s: float) -> bytes:
        """The answer as bytes. Raises the error in an unsigned answer, `NotFound` for a key without
        a receiver, `Unreachable`, and `HttpProblem`."""
        who = asked.by.member.public_key if asked.by.member else ""
        if self._passing[who] >= _MOST_OF_ONE:
            raise HttpProblem(
                429,
                "TooMany",
                "too many requests are being forwarded at the same time",
                fix="wait for their answers",
                headers={"retry-after": "1"},
            )
        self._passing[who] += 1
        try:
            return await self._passed_on(asked, key, payload, within_s)
        finally:
            self._passing[who] -= 1
            if not self._passing[who]:
                del self._passing[who]

    async def _passed_on(self, asked: Asked, key: str, payload: bytes, within_s: float) -> bytes:
        member, fabric = asked.by.member, self._center.fabric
        if key in (keys.ROSTER, keys.NEWER_ROSTER):
            return await self._of_roster(key, payload)
        site, verb = _asked(key)
        if member is None:
            return await fabric.request(key, payload, timeout_s=within_s)
        if is_whole(read_envelope, payload):
            assert isinstance(fabric, SignedFabric)
            return await fabric.relay(key, payload, member.public_key, timeout_s=within_s)
        if site is None and verb in _SIGNED_ALONE:
            raise Refused(
                f"{verb} needs more than a token allows, and the request is unsigned",
                field="key",
                fix="use the member's key: commands with `--center URL` sign their requests",
            )
        if asked.by.role is ApiRole.VIEWER and not _reads(site, verb, payload):
            what = _NOT_READING.get(verb, f"the request {verb} changes something")
            raise Refused(
                f"{what}, but the token is read-only",
                field="authorization",
                fix="sign in with a token that is not read-only, such as one of `daitn token "
                "create --center-api`; or sign with the member's key",
            )
        if site is None:
            return await asked.answer(verb, payload)
        return await asked.answer_of(site, verb, payload, within_s)

    async def _of_roster(self, key: str, payload: bytes) -> bytes:
        """Rosters prove themselves: they are signed by the network's root key."""
        if self._roster is None:
            raise NotFound("this network has no roster", field="key", fix="go on without one")
        if key == keys.NEWER_ROSTER:
            return await self._roster.on_question(key, payload)
        self._roster.tell(decode(payload, SignedRoster))
        return b""


def _asked(key: str) -> tuple[str | None, str]:
    """The queried site, or none for the control centre, and the verb. Raises `NotFound`."""
    match key.split("/"):
        case ["daitn", "center", "do", verb] if verb in CENTER_VERBS:
            return None, verb
        case ["daitn", "site", site, "do", verb] if is_name(site) and verb in SITE_VERBS:
            return site, verb
    raise NotFound(
        f"no request can be made at {key!r}", field="key", fix="see docs/reference/wire.md"
    )


def _reads(site: str | None, verb: str, payload: bytes) -> bool:
    """Whether a request changes nothing."""
    match verb:
        case "steer":
            return decode(payload, Steer) == Steer()
        case _ if site is not None:
            return verb in READING
        case "value":
            return not decode(payload, ValueQuestion).measure
    return verb in CENTER_READING
