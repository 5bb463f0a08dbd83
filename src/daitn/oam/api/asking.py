"""One request as those who answer it see it, and how they ask the network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from daitn.oam.api.answers import ApiRole, PastEvent, You
from daitn.objects.errors import NotFound, Refused
from daitn.objects.grants import Signed
from daitn.objects.identifiers import SiteId, is_name
from daitn.objects.messages import OnBehalf
from daitn.objects.roster import Member
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.caller import speaking, visible
from daitn.tools.fabric.protocol import Fabric
from daitn.topology.snapshot import Drrt

__all__ = ["Asked", "Center", "SignedIn"]

T = TypeVar("T")

LARGE_BYTES = 1 << 16
"""Answers of more than this are decoded and encoded on another thread."""
SITE_TIMEOUT_S = 20.0


class Center(Protocol):
    """What the API needs of a control centre."""

    @property
    def fabric(self) -> Fabric: ...

    def snapshot(self) -> Drrt: ...

    async def answer(self, verb: str, payload: bytes) -> bytes: ...


class History(Protocol):
    """What the API needs of the log of events."""

    def place(self, id_: str | None) -> int | None: ...

    def past(
        self, limit: int, before: int | None, sees: Callable[[str | None], bool]
    ) -> list[PastEvent]: ...


@dataclass(frozen=True)
class SignedIn:
    """Who asks."""

    member: Member | None
    """None where there is no roster."""
    role: ApiRole
    mandate: Signed | None = None
    """With which sites answer it; none: they do not, in a network with a roster."""
    until_s: float | None = None
    session: str = ""
    """Id of its session; empty: it showed a token."""

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
        """In a log."""
        return f"{self.member.kind} {self.member.name}" if self.member else "somebody"

    def sees(self, owner: str | None) -> bool:
        """Whether it may see what belongs to `owner`; none: what everybody may see."""
        if owner is None:
            return True
        with self.speaking():
            return visible(owner)

    def speaking(self) -> contextlib.AbstractContextManager[None]:
        """While a control centre handles what it asks."""
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
    """As the route's type."""
    large: bool = field(default=False, init=False)
    """Whether anything that was read for it is large."""

    async def ask(self, verb: str, question: object) -> Any:
        """What the control centre answers, as plain data. Raises the `DaitnError` in it."""
        return await self._plain(await self.answer(verb, encode(question)))

    async def read(self, verb: str, question: object, answer: type[T]) -> T:
        """The same as a struct."""
        return decode(await self.answer(verb, encode(question)), answer)

    async def ask_site(self, site: str, verb: str, question: object) -> Any:
        """What a site answers to whoever asks here, as plain data. Raises the `DaitnError` in it,
        and `NotFound` for an unknown site."""
        return await self._plain(await self.answer_of(site, verb, encode(question)))

    async def answer(self, verb: str, payload: bytes) -> bytes:
        """What the control centre answers, as it came. Raises as `ask` does."""
        with self.by.speaking():
            return await self.center.answer(verb, payload)

    async def answer_of(
        self, site: str, verb: str, payload: bytes, timeout_s: float = SITE_TIMEOUT_S
    ) -> bytes:
        """What a site answers, as it came. Raises as `ask_site` does."""
        if not is_name(site) or SiteId(site) not in self.center.snapshot().sites:
            raise NotFound(f"there is no site {site}", field="site", fix="see `daitn get nodes`")
        if self.by.member is not None:
            if self.by.mandate is None:
                raise Refused(
                    "sites answer those alone who sign in with a token of their own",
                    field="session",
                    fix="make one: `daitn token create --center-api`, or open `daitn dashboard`",
                )
            payload = encode(OnBehalf(mandate=self.by.mandate, verb=verb, question=payload))
            verb = "behalf"
        key = keys.site_do(SiteId(site), verb)
        return await self.center.fabric.request(key, payload, timeout_s=timeout_s)

    async def _plain(self, payload: bytes) -> Any:
        if len(payload) <= LARGE_BYTES:
            return msgspec.msgpack.decode(payload)
        self.large = True
        return await asyncio.to_thread(msgspec.msgpack.decode, payload)
