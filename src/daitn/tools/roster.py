"""A process's live view of the roster: the current members.

The roster is in the process's state folder, so the highest version that was seen survives a
restart. Newer ones come from the file that `roster` names, from publications, and from the control
centre, which every process asks again and again. Any process that takes a newer one in another way
than by a publication publishes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from daitn.identity.grants import GrantBook
from daitn.identity.roster import ROSTER, RosterFile, open_roster, read_roster, write_roster
from daitn.objects.errors import DaitnError, InvalidInput, NotFound, StorageFull, Unreachable
from daitn.objects.messages import RosterAnswer, RosterQuestion
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member, SignedRoster
from daitn.objects.wire import decode, encode, encode_request
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog

__all__ = ["REFRESH_S", "LiveRoster"]

log = logging.getLogger(__name__)

REFRESH_S = 10.0
"""Interval at which the control centre is asked: a revocation takes effect within this time, even
if its publication was lost."""
LOOK_S = 1.0
"""Interval at which the file is checked; it is also checked on every query for members."""
_WARN_S = 7 * DAY_S
"""The log warns when less time is left to renew the roster."""
_ASK_TIMEOUT_S = 5.0
_MOST_REFUSALS = 8
"""Limit on kinds of published rosters that the log distinguishes: anybody may publish them."""


class _Validity(enum.Enum):
    ENDS = enum.auto()
    ENDED = enum.auto()


class LiveRoster:
    """The members of the network, as far as this process knows, at any time."""

    def __init__(
        self,
        state: Path,
        source: Path | None = None,
        *,
        refresh_s: float = REFRESH_S,
        wall_s: Callable[[], float] = clock.wall_s,
    ) -> None:
        """`state`: the process's folder; `source`: a file in which the operator puts rosters.

        Raises `NotFound` if there is neither a roster in `state` nor in `source`, and
        `InvalidInput` if one cannot be read or they are of different networks.
        """
        self._thread = threading.get_ident()
        self._path = state / ROSTER
        self._source = source
        self._refresh_s = refresh_s
        self._wall_s = wall_s
        self._listeners: list[Callable[[], None]] = []
        self._tasks = Tasks()
        self._refused = ThrottledLog(log, most=_MOST_REFUSALS)
        self._registrations: list[Registration] = []
        self._news = asyncio.Event()
        """Set when the source has a newer roster, until it is published."""
        self._read_at: tuple[int, int, int] | None = None
        """State of the source when it was last read."""
        self._file = self._first()
        self._roster = self._file.opened()
        self._current: Mapping[str, Member] = {}
        self._ends: Mapping[str, float] = {}
        """By public key, expired rosters included."""
        self._by_name: Mapping[tuple[Kind, str], Member] = {}
        self._until_s = 0.0
        """When the current members may change without a new roster."""
        self._logged: _Validity | None = None
        self._reckon()

    @property
    def network(self) -> str:
        """Name of the network."""
        return self._roster.network

    @property
    def version(self) -> int:
        """The highest version seen."""
        return self._roster.version

    @property
    def signed(self) -> SignedRoster:
        """That roster, as signed by the root key."""
        return self._file.signed

    def grants(self) -> GrantBook:
        """Checks grants signed by members of the network."""
        return GrantBook(self.network, self.members, self._wall_s)

    def members(self) -> Mapping[str, Member]:
        """The current members, by public key; none if the roster has expired.

        On another thread than this object's: as of its last look, `LOOK_S` ago at most.
        """
        if threading.get_ident() != self._thread:
            return self._current
        self._look()
        if self._wall_s() >= self._until_s:
            self._reckon()
        return self._current

    def member(self, kind: Kind, name: str) -> Member | None:
        """The member of this kind and name, if there is one now."""
        self.members()
        return self._by_name.get((kind, name))

    def lists(self, public_key: str) -> bool:
        """Whether the newest roster has this key, with a valid membership.

        An expired roster counts too: all its members are ignored, but one of them may still send a
        newer roster.
        """
        self.members()
        return self._wall_s() < self._ends.get(public_key, -math.inf)

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the members have changed."""
        self._listeners.append(changed)

    async def start(self, fabric: Fabric, *, serves: bool = False) -> None:
        """Follow the roster. `serves`: whether others ask this process, the control centre."""

        async def published(key: str, payload: bytes) -> None:
            try:
                self.take(decode(payload, SignedRoster))
            except DaitnError as error:
                self._refused.warning(error.problem, "a published roster is not taken: %s", error)

        self._registrations.append(await fabric.subscribe(keys.ROSTER, published))
        if serves:
            served = await fabric.serve(keys.NEWER_ROSTER, self.on_question)
            self._registrations.append(served)
        self._tasks.repeat(self._look_again, "roster's file")
        self._tasks.repeat(partial(self._follow, fabric, asks=not serves), "roster")

    async def close(self) -> None:
        """Stop following it, and stop all calls; `members` remains valid."""
        registrations, self._registrations = self._registrations, []
        for registration in registrations:
            await registration.close()
        await self._tasks.close()
        self._listeners.clear()  # A control centre that leads again is another object.

    def take(self, signed: SignedRoster) -> bool:
        """Replace the known roster, if this one is newer. Returns whether it is.

        On a full disk too, where a restart forgets it: a revocation waits for nothing. Raises as
        `open_roster` does.
        """
        roster = open_roster(signed, self._file.root, self._wall_s(), self._roster)
        if roster.version == self._roster.version:
            return False
        file = RosterFile(root=self._file.root, signed=signed)
        try:
            _keep(self._path, file)
        except StorageFull as error:
            log.error("roster %d holds until this process ends: %s", roster.version, error)
        self._file, self._roster = file, roster
        count = len(roster.members)
        log.info("roster %d of %s, %d members", roster.version, roster.network, count)
        self._reckon()
        return True

    def tell(self, signed: SignedRoster) -> None:
        """Take a roster that did not come as a publication, and publish it soon. Raises like
        `take`."""
        if self.take(signed):
            self._news.set()

    async def refresh(self, fabric: Fabric, *, asks: bool) -> None:
        """Publish the file's roster, ask the control centre, and warn about expiry."""
        self.members()
        if self._news.is_set():
            self._news.clear()
            await fabric.publish(keys.ROSTER, encode(self._file.signed))
        if asks:
            await self._ask(fabric)
        self._warn()

    def _warn(self) -> None:
        """Warn once that the roster expires soon, and once that it has expired."""
        left_s = self._roster.until_s - self._wall_s()
        state = _Validity.ENDED if left_s <= 0 else _Validity.ENDS if left_s < _WARN_S else None
        if state is self._logged:
            return
        self._logged = state
        if state is _Validity.ENDS:
            log.warning("the roster ends in %.1f days: `daitn network renew`", left_s / DAY_S)
        elif state is _Validity.ENDED:
            log.error("the roster has expired; nobody is a member: `daitn network renew`")

    async def _look_again(self) -> None:
        self.members()
        await asyncio.sleep(min(LOOK_S, self._refresh_s))

    async def _follow(self, fabric: Fabric, *, asks: bool) -> None:
        try:
            await self.refresh(fabric, asks=asks)
        except Unreachable as error:
            log.debug("the roster was not refreshed: %s", error)
        except DaitnError as error:
            log.warning("the roster was not refreshed: %s", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._refresh_s):
                await self._news.wait()

    async def _ask(self, fabric: Fabric) -> None:
        question = encode_request(RosterQuestion(version=self.version))
        reply = await fabric.request(keys.NEWER_ROSTER, question, timeout_s=_ASK_TIMEOUT_S)
        answer = decode(reply, RosterAnswer)
        if answer.newer is not None:
            self.take(answer.newer)
        elif answer.version < self.version:
            await fabric.publish(keys.ROSTER, encode(self._file.signed))

    async def on_question(self, key: str, payload: bytes) -> bytes:
        """`RosterQuestion` -> `RosterAnswer`: the roster, if it is newer than the asker's."""
        asked = decode(payload, RosterQuestion)
        newer = self._file.signed if asked.version < self.version else None
        return encode(RosterAnswer(version=self.version, newer=newer))

    def _first(self) -> RosterFile:
        """The newest of the rosters on disk."""
        kept = read_roster(self._path) if self._path.exists() else None
        stated = None
        if self._source is not None:
            self._read_at = _version_of(self._source)
            stated = None if self._read_at is None else read_roster(self._source)
        if stated is None or (kept is not None and not self._is_newer(stated, kept)):
            if kept is None:
                places = " and ".join(str(p) for p in (self._path, self._source) if p is not None)
                raise NotFound(
                    f"there is no roster in {places}: this process knows no members",
                    field="roster",
                    fix="join a network: `daitn network join INVITATION`; or make one: `daitn "
                    "network init FOLDER --name NAME`, then `daitn network admit` this file",
                )
            kept.opened()
            return kept
        stated.opened()
        _keep(self._path, stated)
        return stated

    def _is_newer(self, stated: RosterFile, kept: RosterFile) -> bool:
        if stated.root != kept.root:
            raise InvalidInput(
                f"{self._source} and {self._path} are rosters of different networks",
                field="roster",
                fix="name another state folder, or the roster of the network that it belongs to",
            )
        versions = stated.opened().version, kept.opened().version
        if versions[0] < versions[1]:
            log.warning(
                "%s holds roster %d, which is older than %d, seen here before: it is not used",
                self._source,
                *versions,
            )
        return versions[0] > versions[1]

    def _look(self) -> None:
        """Read the source, if it was replaced."""
        if self._source is None:
            return
        version = _version_of(self._source)
        if version is None or version == self._read_at:
            return
        self._read_at = version
        try:
            if self.take(read_roster(self._source).signed):
                self._news.set()
        except DaitnError as error:
            log.warning("the roster in %s is not taken: %s", self._source, error)

    def _reckon(self) -> None:
        """Determine the current members, and notify listeners of changes."""
        now_s = self._wall_s()
        ends = (self._roster.until_s, *(member.until_s for member in self._roster.members))
        self._until_s = min((end_s for end_s in ends if end_s > now_s), default=float("inf"))
        self._ends = {member.public_key: member.until_s for member in self._roster.members}
        current = self._roster.current(now_s)
        if current == self._current:
            return
        self._current = MappingProxyType(current)
        self._by_name = {(m.kind, m.name): m for m in current.values()}
        for changed in self._listeners:
            changed()


def _version_of(path: Path) -> tuple[int, int, int] | None:
    """Changes when a file is replaced; none if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _keep(path: Path, file: RosterFile) -> None:
    try:
        write_roster(path, file)
    except OSError as error:
        raise StorageFull(
            f"{path} cannot be written: {error.strerror}",
            fix="free space in the state folder, and check that it is writable",
        ) from None
