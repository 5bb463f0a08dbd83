"""Renews a process's certificates while it runs.

They come from the control centre, and from its own issuer at a control centre. New ones lie beside
the key; each new connection reads them for the next link, so that open links stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from daitn.identity.certificates import (
    Certificates,
    fall_back,
    has_entered,
    keep,
    membership_ends_at_s,
    renewal_after_s,
    requested,
)
from daitn.identity.tls import certificate_files
from daitn.objects.errors import DaitnError, Unreachable
from daitn.objects.messages import CertificateAnswer, CertificateQuestion
from daitn.objects.moments import DAY_S
from daitn.objects.wire import decode, encode_request
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.tasks import Tasks

__all__ = ["CertificateRenewal", "certified", "is_due"]

log = logging.getLogger(__name__)

_ASK_TIMEOUT_S: Final = 10.0
_AGAIN_S, _AGAIN_MOST_S = 1.0, 30.0
"""Pause after the first failure; each later one is twice as long. It stays below the minute for
which a control centre keeps a link to a peer without a request."""
_WARN_S: Final = 7 * DAY_S
"""How long before expiry the log warns about a certificate that was read only once."""
_MOST_WAIT_S: Final = 60.0
"""Maximum step of the wait for a renewal, since time passes while a machine sleeps."""


def is_due(folder: Path) -> bool:
    """Whether more than half of the validity of the folder's certificate is over.

    One that has ended is no longer presented.
    """
    fall_back(folder, clock.wall_s())
    return renewal_after_s(folder, clock.wall_s()) <= 0


async def certified(folder: Path, fabric: Fabric) -> None:
    """Request certificates from the control centre and store them in `folder`.

    Raises `Refused` for non-members, and `Unreachable`.
    """
    question = CertificateQuestion(request=requested(folder))
    reply = await fabric.request(
        keys.center_do("certify"), encode_request(question), timeout_s=_ASK_TIMEOUT_S
    )
    given = decode(reply, CertificateAnswer)
    keep(folder, Certificates(given.authority, given.membership, given.certificate))


class CertificateRenewal:
    """Renews the certificates in a folder halfway through their validity."""

    def __init__(
        self,
        folder: Path,
        renew: Callable[[], Awaitable[None]],
        entered: Callable[[], None],
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`renew` puts new certificates into `folder`; `entered` is called the first time, after
        which links should be reopened."""
        self._folder = folder
        self._renew = renew
        self._pause = pause
        self._entered = entered
        self._warn_at_s = math.inf
        self._again_s = _AGAIN_S
        self._logged = ""
        """The last warning in the log."""
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin. Raises `InvalidInput` if the folder lacks a certificate, or one is damaged."""
        certificate_files(str(self._folder))
        self._warn_at_s = membership_ends_at_s(self._folder) - _WARN_S
        self._tasks.repeat(self._renew_when_due, "certificates")

    async def close(self) -> None:
        """Stop renewing."""
        await self._tasks.close()

    async def _renew_when_due(self) -> None:
        if clock.wall_s() > self._warn_at_s:
            log.warning("what this process shows to who connects ends soon: restart it")
            self._warn_at_s = math.inf
        fall_back(self._folder, clock.wall_s())
        after_s = renewal_after_s(self._folder, clock.wall_s())
        if after_s > 0:
            await self._pause(min(after_s, _MOST_WAIT_S))
            return
        try:
            new = not has_entered(self._folder)
            await self._renew()
        except DaitnError as error:
            if not isinstance(error, Unreachable):
                self._complain(str(error))
            pause_s, self._again_s = self._again_s, min(2.0 * self._again_s, _AGAIN_MOST_S)
            await self._pause(pause_s)
            return
        self._again_s = _AGAIN_S
        if renewal_after_s(self._folder, clock.wall_s()) <= 0:
            # For instance at a control centre whose roster or authority has expired.
            self._complain("nobody renewed it")
            await self._pause(_MOST_WAIT_S)
            return
        self._logged = ""
        log.info("the certificate was renewed")
        if new:
            self._entered()

    def _complain(self, why: str) -> None:
        if why != self._logged:
            log.warning("the certificate was not renewed: %s", why)
            self._logged = why
