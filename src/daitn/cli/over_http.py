"""How commands reach a control centre through its API if only HTTPS is available.

They sign in with a token made with the key that signs their requests. It is valid for minutes, and
renewed while they run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from daitn.cli.answering import CENTER_FIELD
from daitn.cli.identity import (
    owner_identity,
    person_identity,
    refresh_roster,
    rostered_name,
    tls_folder,
)
from daitn.client import AsyncClient, NotSignedIn
from daitn.client.carrier import HttpCarrier
from daitn.client.transport import Token
from daitn.identity.grants import new_center_token
from daitn.objects.addresses import check_endpoint, is_url
from daitn.objects.errors import DaitnError, InvalidInput, Refused, Unreachable
from daitn.objects.roster import ADMISSION_FIX
from daitn.tools import clock
from daitn.tools.certificates import certified, is_due
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Carrier, Fabric

__all__ = ["carrier_at", "own_tokens", "speaking_at"]

_LASTS_S: Final = 600.0


def _given_token(center: str) -> str:
    """The token with which commands sign in to an API if no key is named; empty means none."""
    if not is_url(center) or os.environ.get("DAITN_KEY"):
        return ""
    return os.environ.get("DAITN_TOKEN", "").strip()


@asynccontextmanager
async def speaking_at(
    center: str, owner: str
) -> AsyncIterator[tuple[Fabric, Identity | None, AsyncClient]]:
    """The fabric on which a command speaks through the API at a URL, its identity, and the API's
    client. See `connect`."""
    identity = None
    if not _given_token(center):
        identity = owner_identity(center, owner) if owner else person_identity(center)
    if owner and identity is not None:  # One who was just made cannot sign in yet.
        with contextlib.suppress(DaitnError):
            async with carrier_at(center) as fabric:
                await refresh_roster(center, fabric, tell=True)
    async with _signed_in(center, identity) as client:
        bare = HttpCarrier(client)
        await refresh_roster(center, bare, tell=False)
        if identity is None:
            yield bare, None, client
            return
        signed, tls = identity.signs(bare), Path(tls_folder(center))
        if is_due(tls):
            with contextlib.suppress(DaitnError):
                await certified(tls, signed)
        yield signed, identity, client


@asynccontextmanager
async def carrier_at(center: str) -> AsyncIterator[Carrier]:
    """The bare fabric through the API at a URL, signed in with this machine's key."""
    identity = None if _given_token(center) else person_identity(center)
    async with _signed_in(center, identity) as client:
        yield HttpCarrier(client)


@asynccontextmanager
async def _signed_in(center: str, identity: Identity | None) -> AsyncIterator[AsyncClient]:
    """A client of the API at a URL, signed in with `DAITN_TOKEN`, or as `identity`.

    Raises `InvalidInput` for a URL that is none, or neither encrypted nor of this machine,
    `Unreachable`, and `Refused` where the control centre does not know who asks.
    """
    check_endpoint(CENTER_FIELD, center)
    tls = tls_folder(center)
    try:
        token: Token = _given_token(center)
        if identity is not None and not token:
            token = await _token(center, identity, tls)
        async with AsyncClient(center, token, tls=tls) as client:
            yield client
    except NotSignedIn as error:
        raise _unknown(center, identity, error) from None
    except (InvalidInput, Unreachable) as error:
        if error.field != "url":
            raise
        raise type(error)(error.problem, field=CENTER_FIELD, fix=error.fix) from None


async def _token(center: str, identity: Identity, tls: str) -> Token:
    """The source of tokens, once the control centre has stated its name; none if nobody needs to
    sign in."""
    async with AsyncClient(center, tls=tls) as stranger:
        session = await stranger.session()
    if not session.ways:
        return ""
    name = rostered_name(center, identity)
    return own_tokens(identity, name, session.center)


def own_tokens(identity: Identity, member: str, center: str) -> Callable[[], str]:
    """Creates tokens of a member for a control centre, each valid for minutes."""
    token, renew_s = "", 0.0

    def current() -> str:
        nonlocal token, renew_s
        now_s = clock.wall_s()
        if now_s >= renew_s:
            until_s = now_s + _LASTS_S
            token = new_center_token(identity.network, member, center, until_s, identity.key)
            renew_s = now_s + _LASTS_S / 2
        return token

    return current


def _unknown(center: str, identity: Identity | None, error: NotSignedIn) -> Refused:
    if _given_token(center):
        return Refused(error.problem, field="DAITN_TOKEN", fix="name one that holds")
    if identity is None:
        return Refused(
            f"no network is known at {center}, and its control centre requires authentication",
            field="DAITN_NETWORK",
            fix="name the folder of the network, or a token in DAITN_TOKEN",
        )
    return Refused(
        f"the control centre does not accept this key: {error.problem}",
        field="sender",
        fix=ADMISSION_FIX,
    )
