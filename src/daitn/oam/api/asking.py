"""One request as its handler sees it, and the handler's access to the network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from daitn.center.spent_secrets import SpentSecrets
from daitn.oam.api.answers import ApiRole, PastEvent, You
from daitn.objects.errors import NotFound, Refused
from daitn.objects.grants import Signed
from daitn.objects.identifiers import SiteId, is_name
from daitn.objects.messages import OnBehalf
from daitn.objects.placement import DeploymentView
from daitn.objects.roster import Member
from daitn.objects.wire import decode, encode_request
from daitn.tools.fabric import keys
from daitn.tools.fabric.caller import speaking, visible
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.membership import Listener
from daitn.topology.snapshot import Drrt

__all__ = ["LARGE_BYTES", "Asked", "Center", "SignedIn"]

T = TypeVar("T")

LARGE_BYTES = 1 << 16
"""Answers of more than this are decoded and encoded on another thread."""
SITE_TIMEOUT_S = 20.0


class Center(Protocol):
    """What the API needs from a control centre."""

    @property
    def fabric(self) -> Fabric: ...

    @property
    def spent(self) -> SpentSecrets: ...

    def snapshot(self) -> Drrt: ...

    def site_keys(self) -> Mapping[SiteId, str] | None: ...

    def check_leads(self) -> None: ...

    def deployment(self, name: str) -> DeploymentView | None: ...

    def deployments_at(self, site: SiteId) -> tuple[str, ...]: ...

    def not_back(self) -> tuple[SiteId, ...]: ...

    def observe(self, sites: Listener, deployed: Callable[[str], None]) -> None: ...

    async def answer(self, verb: str, payload: bytes) -> bytes: ...


class History(Protocol):
    """What the API needs from the log of events."""

    def place(self, id_: str | None) -> int | None: ...

    def past(
        self,
        limit: int,
        before: int | None,
        sees: Callable[[str | None], bool],
        kind: str | None = None,
    ) -> list[PastEvent]: ...


@dataclass(frozen=True)
class SignedIn:
    """The caller."""

    member: Member | None
    """None if there is no roster."""
    role: ApiRole
    mandate: Signed | None = None
    """The mandate with which sites answer it; without one, they do not in a network with a
    roster."""
    until_s: float | None = None
    session: str = ""
    """Id of its session; empty if it used a token."""

    @property
    def you(self) -> You:
        member = self.member
        return You(
            member=member.name if member else "",
            kind=member.kind if member else None,
            role=self.role,
            until_s=self.until_s,
        )

    @property
    def who(self) -> str:
        """Its name in a log."""
        return f"{self.member.kind} {self.member.name}" if self.member else "somebody"

    def sees(self, owner: str | None) -> bool:
        """Whether it may see what belongs to `owner`; none means what everybody may see."""
        if owner is None:
            return True
        with self.speaking():
            return visible(owner)

    def speaking(self) -> contextlib.AbstractContextManager[None]:
        """The identity under which a control centre handles its requests."""
        return contextlib.nullcontext() if self.member is None else speaking(self.member)


@dataclass
class Asked:
    """A request that was checked against its route."""

    center: Center
    log: History
    by: SignedIn
    path: Mapping[str, str]
    """Names in the path."""
    query: Mapping[str, Any]
    """Parameters by name, each with its value or default."""
    body: Any = None
    """Of the route's type."""
    large: bool = field(default=False, init=False)
    """Whether anything read for it is large."""

    async def ask(self, verb: str, question: object) -> Any:
        """The control centre's answer, as plain data. Raises the `DaitnError` in it."""
        return await self._plain(await self.answer(verb, encode_request(question)))

    async def read(self, verb: str, question: object, answer: type[T]) -> T:
        """Likewise as a struct."""
        return await _struct(await self.answer(verb, encode_request(question)), answer)

    async def ask_site(self, site: str, verb: str, question: object) -> Any:
        """A site's answer for this caller, as plain data. Raises the `DaitnError` in it, and
        `NotFound` for an unknown site."""
        return await self._plain(await self.answer_of(site, verb, encode_request(question)))

    async def read_site(self, site: str, verb: str, question: object, answer: type[T]) -> T:
        """A site's answer, as a struct. Raises like `ask_site`."""
        return await _struct(await self.answer_of(site, verb, encode_request(question)), answer)

    async def answer(self, verb: str, payload: bytes) -> bytes:
        """The control centre's answer, as bytes. Raises like `ask`."""
        with self.by.speaking():
            return await self.center.answer(verb, payload)

    async def answer_of(
        self, site: str, verb: str, payload: bytes, timeout_s: float = SITE_TIMEOUT_S
    ) -> bytes:
        """A site's answer, as bytes. Raises like `ask_site`."""
        if not is_name(site) or SiteId(site) not in self.center.snapshot().sites:
            raise NotFound(f"there is no site {site}", field="site", fix="see `daitn get nodes`")
        if self.by.member is not None:
            if self.by.mandate is None:
                raise Refused(
                    "sites answer only members that sign in with a token of their own",
                    field="session",
                    fix="make one: `daitn token create --center-api`, or open `daitn dashboard`",
                )
            payload = encode_request(OnBehalf(mandate=self.by.mandate, verb=verb, question=payload))
            verb = "behalf"
        key = keys.site_do(SiteId(site), verb)
        return await self.center.fabric.request(key, payload, timeout_s=timeout_s)

    async def _plain(self, payload: bytes) -> Any:
        if len(payload) <= LARGE_BYTES:
            return msgspec.msgpack.decode(payload)
        self.large = True
        return await asyncio.to_thread(msgspec.msgpack.decode, payload)


async def _struct(payload: bytes, kind: type[T]) -> T:
    if len(payload) <= LARGE_BYTES:
        return decode(payload, kind)
    return await asyncio.to_thread(decode, payload, kind)
