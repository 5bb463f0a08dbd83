"""The members on the network, and their descriptors, from signed adverts.

The roster says which key a site has, and what its descriptor may claim; a site that is not in it
does not exist. A site is available while a node with that key shows its token; another process
under the same name cannot change that.

Without a roster, on one machine only, a site's public key is trusted on first use and stored: an
advert of the same site with another key is refused, before and after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import msgspec

from daitn.files.atomic import replace_file
from daitn.files.failed_writes import STATE_FIX
from daitn.identity.keys import key_mark
from daitn.identity.signing import read_advert
from daitn.objects.descriptors import Edition, NodeDescriptor, Role
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    InvalidInput,
    Refused,
    StorageFull,
    Unreachable,
)
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import Kind, ungranted
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.roster import LiveRoster
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog

__all__ = ["FileKeys", "KnownKeys", "Listener", "Membership"]

log = logging.getLogger(__name__)

LOST_AFTER_S = 1.0
"""A site counts as lost when its token has been gone for this long: links flap, nodes die."""
DESCRIBE_TIMEOUT_S = 5.0
_ASKED_EVERY_S = 30.0
"""Maximum pause before a site with a refused advert is asked again. A new roster, and an advert
that it publishes, are checked at once."""
MOST_SITES = 10_000
"""Maximum number of sites; ten times the largest tested network. Anybody can invent names."""
MOST_MARKS = 16
"""Maximum number of distinguished nodes under one name; one of them is the true one."""
MOST_BYTES = 16 << 20
"""Size limit of an advert: 256 deployments with 32 signed verifications each take 5 MB."""
MOST_BYTES_TOGETHER = 1 << 30
"""Size limit of all stored adverts: sixty-four of the largest."""


class KnownKeys(Protocol):
    """Public keys of sites, as first received. They outlive the process."""

    def get(self, site: SiteId) -> str | None: ...

    def put(self, site: SiteId, public_key: str) -> None:
        """Raises `StorageFull`."""
        ...

    def sites(self) -> tuple[SiteId, ...]: ...


class FileKeys:
    """Known keys in a file."""

    def __init__(self, path: Path) -> None:
        """Raises `InvalidInput` if the file exists but cannot be read."""
        self._path = path
        try:
            self._known = decode(path.read_bytes(), dict[SiteId, str])
        except FileNotFoundError:
            self._known = {}
        except Corrupt as error:
            raise _unreadable(path, error.problem) from None
        except OSError as error:
            raise _unreadable(path, str(error.strerror)) from None

    def get(self, site: SiteId) -> str | None:
        return self._known.get(site)

    def put(self, site: SiteId, public_key: str) -> None:
        known = {**self._known, site: public_key}
        try:
            replace_file(self._path, encode(known))
        except OSError as error:
            raise StorageFull(
                f"{self._path} cannot be written: {error.strerror}",
                fix=STATE_FIX,
            ) from None
        self._known = known

    def sites(self) -> tuple[SiteId, ...]:
        return tuple(sorted(self._known))


def _unreadable(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"the keys of other sites in {path} cannot be read: {why}",
        field="state",
        fix="restore the file; if it is removed, every site is trusted again on first use",
    )


class Listener(Protocol):
    """Receives changes of nodes, each once."""

    def described(self, node: NodeDescriptor) -> None:
        """A node's descriptor: its first, a new one, or on its return."""
        ...

    def came(self, site: SiteId) -> None:
        """A node is available, or an available one has a new descriptor. Follows `described`."""
        ...

    def lost(self, site: SiteId) -> None:
        """A node is no longer available."""
        ...

    def removed(self, site: SiteId) -> None:
        """A site is no longer a member: nothing from it counts. Follows `lost`."""
        ...


class Membership:
    """Stores every node's descriptor, and notifies listeners of nodes that come and go."""

    def __init__(
        self,
        fabric: Fabric,
        known: KnownKeys,
        *listeners: Listener,
        roster: LiveRoster | None = None,
        verifiers: Collection[SiteId] = (),
        here: SiteId | None = None,
    ) -> None:
        """`roster`: the members; `None` means trust on first use. `verifiers`: the only sites that
        may be verifiers; the role is removed from others. Empty means any site with that role
        may. `here`: the site of this process, if it is one, which is available as long as the
        process runs: once it is cut off, it sees no token, not even its own."""
        self._roster = roster
        self._verifiers = verifiers
        self._here = here
        self._fabric = fabric
        self._known = known
        self._listeners = list(listeners)
        self._nodes: dict[SiteId, NodeDescriptor] = {}
        self._sizes: dict[SiteId, int] = {}
        """Bytes of the stored adverts."""
        self._bytes = 0
        self._alive: set[SiteId] = set()
        self._marks: dict[SiteId, set[str]] = {}
        """The key marks of nodes that show a token, by the site that they claim to be."""
        self._tasks = Tasks()
        self._strangers = ThrottledLog(log)
        """One for each site that recently came or went."""
        self._coming: set[SiteId] = set()
        """Sites with a node that shows their token."""
        self._registrations: list[Registration] = []

    async def start(self) -> None:
        if self._roster is not None:
            self._roster.listen(self._on_roster)
        self._registrations = [
            await self._fabric.subscribe(keys.ALL_ADVERTS, self._on_advert),
            await self._fabric.watch(keys.ALL_SITES_ALIVE, self._on_alive),
        ]

    def heard_of(self, site: SiteId, edition: Edition) -> None:
        """A site has published something, and has this version of its descriptor: ask for it if it
        is later than the known one, which was lost, or refused, for instance because a clock was
        wrong."""
        known = self._nodes.get(site)
        if (
            known is not None
            and edition > known.edition
            and site in self._coming
            and not self._tasks.is_current(site)
        ):
            self._tasks.anew(site, self._request_advert(site), f"advert of {site}")

    async def close(self) -> None:
        for registration in self._registrations:
            await registration.close()
        await self._tasks.close()

    def listen(self, listener: Listener) -> None:
        """Add a listener, and notify it of everything known."""
        self._listeners.append(listener)
        for site, node in self._nodes.items():
            listener.described(node)
            if site in self._alive:
                listener.came(site)

    def node(self, site: SiteId) -> NodeDescriptor | None:
        """A node's latest descriptor, whether it is available or not."""
        return self._nodes.get(site)

    def nodes(self) -> tuple[NodeDescriptor, ...]:
        """The descriptors of the available nodes, sorted by site."""
        return tuple(self._nodes[site] for site in sorted(self._alive))

    def alive(self) -> frozenset[SiteId]:
        """Sites that are available and have described themselves."""
        return frozenset(self._alive)

    def key_of(self, site: SiteId) -> str | None:
        """The public key of a site; None if it is not a member, or was never received."""
        if self._roster is None:
            return self._known.get(site)
        member = self._roster.member(Kind.SITE, site)
        return None if member is None else member.public_key

    async def _on_alive(self, key: str, alive: bool) -> None:
        site, mark = keys.site_of(key), keys.mark_of(key)
        if alive and not self._has_room_for(site):
            self._strangers.warning(
                site, "%s is ignored: %d sites are present already", site, len(self._marks)
            )
            return
        self._note_mark(site, mark, alive)
        if not self._is_own(site, mark):
            if alive:
                why = self._why_not(site)
                self._strangers.warning(f"{site} {why}", "%s is not admitted: %s", site, why)
            return
        if alive:
            self._coming.add(site)
            self._tasks.anew(site, self._request_advert(site), f"advert of {site}")
        elif site != self._here:
            self._coming.discard(site)
            self._tasks.anew(site, self._lose(site), f"loss of {site}")

    def _has_room_for(self, site: SiteId) -> bool:
        """Whether there is room: anybody can show tokens of endlessly many names; known sites are
        always admitted."""
        known = site in self._marks or self.key_of(site) is not None
        return known or len(self._marks) < 2 * MOST_SITES

    def _note_mark(self, site: SiteId, mark: str, alive: bool) -> None:
        marks = self._marks.setdefault(site, set())
        if alive and len(marks) < MOST_MARKS:
            marks.add(mark)
        elif not alive:
            marks.discard(mark)
        if not marks:
            del self._marks[site]

    def _is_own(self, site: SiteId, mark: str) -> bool:
        """Whether a node with this key mark may be the site's."""
        known = self.key_of(site)
        if known is None:
            return self._roster is None
        return key_mark(known) == mark

    def _why_not(self, site: SiteId) -> str:
        if self.key_of(site) is None:
            return "it is not in the roster"
        source = "known" if self._roster is None else "in the roster"
        return f"the site is {source} with another key"

    def _shows(self, site: SiteId) -> bool:
        """Whether a node with the site's known key shows its token."""
        known = self.key_of(site)
        return known is not None and key_mark(known) in self._marks.get(site, ())

    async def _request_advert(self, site: SiteId) -> None:
        refused = False
        pause_s = LOST_AFTER_S
        while True:
            try:
                advert = await self._fabric.request(
                    keys.site_do(site, "describe"), b"", timeout_s=DESCRIBE_TIMEOUT_S
                )
                self._receive(site, advert)
                return
            except (Refused, InvalidInput, Corrupt) as error:
                if not refused:
                    log.error("%s is not admitted: %s", site, error)
                refused = True
                # Another process may have answered in its name: ask the true one again.
                if not self._shows(site):
                    return
                pause_s = min(2 * pause_s, _ASKED_EVERY_S)
            except DaitnError as error:
                log.info("%s does not describe itself yet: %s", site, error.problem)
            await asyncio.sleep(pause_s)

    def _on_roster(self) -> None:
        """Drop sites that are no longer in the roster, and admit those that are now."""
        for site, node in tuple(self._nodes.items()):
            try:
                self._check_member(node)
            except Refused as error:
                log.warning("%s is removed: %s", site, error)
                self._remove(site)
        for site in tuple(self._marks):
            if self._shows(site) and site not in self._nodes:
                self._coming.add(site)
                self._tasks.anew(site, self._request_advert(site), f"advert of {site}")

    def _remove(self, site: SiteId) -> None:
        self._tasks.end(site)
        self._coming.discard(site)
        del self._nodes[site]
        self._bytes -= self._sizes.pop(site)
        if site in self._alive:
            self._alive.discard(site)
            self._notify(lambda listener: listener.lost(site))
        self._notify(lambda listener: listener.removed(site))

    async def _lose(self, site: SiteId) -> None:
        await asyncio.sleep(LOST_AFTER_S)
        if site in self._alive:
            self._alive.discard(site)
            log.info("%s is gone", site)
            self._notify(lambda listener: listener.lost(site))

    async def _on_advert(self, key: str, payload: bytes) -> None:
        site = keys.site_of(key)
        try:
            self._receive(site, payload)
        except (StorageFull, Unreachable) as error:
            log.warning("the advert at %s is asked for again: %s", key, error)
            if site in self._coming:
                self._tasks.anew(site, self._request_advert(site), f"advert of {site}")
        except DaitnError as error:
            log.error("the advert at %s is dropped: %s", key, error)

    def _receive(self, site: SiteId, payload: bytes) -> None:
        """Process a site's advert, requested or published. The site is available if its token is
        shown: its answer may never arrive if another process answers in its place."""
        anew = self._absorb(site, payload)
        coming = site in self._coming and site not in self._alive and self._shows(site)
        if coming:
            self._alive.add(site)
        if anew or coming:
            self._notify(lambda listener: listener.described(self._nodes[site]))
        if coming or (anew and site in self._alive):
            self._notify(lambda listener: listener.came(site))

    def _absorb(self, site: SiteId, payload: bytes) -> bool:
        """Store an advert. Returns whether it is newer; raises `Refused` or `Corrupt` if it is
        invalid."""
        if len(payload) > MOST_BYTES:
            raise Refused(f"an advert has at most {MOST_BYTES} bytes", field="advert")
        node = read_advert(payload)
        if node.site != site:
            raise Refused(f"{site} claims to be {node.site}", field="site")
        # Before its key is stored: a refused site takes no room.
        self._check_room(site, len(payload))
        self._check_member(node)
        self._check_key(site, node.public_key)
        known = self._nodes.get(site)
        if known is not None and node.edition <= known.edition:
            return False
        self._bytes += len(payload) - self._sizes.get(site, 0)
        self._sizes[site] = len(payload)
        self._nodes[site] = self._admitted(node)
        return True

    def _check_room(self, site: SiteId, size: int) -> None:
        if self._bytes - self._sizes.get(site, 0) + size > MOST_BYTES_TOGETHER:
            raise Refused(
                f"the adverts of all sites have at most {MOST_BYTES_TOGETHER} bytes",
                field="advert",
                fix="restart, and keep strangers off the fabric",
            )

    def _admitted(self, node: NodeDescriptor) -> NodeDescriptor:
        if not self._verifiers or node.site in self._verifiers:
            return node
        roles = tuple(role for role in node.roles if role is not Role.VERIFIER)
        return msgspec.structs.replace(node, roles=roles, verifier=None)

    def _check_member(self, node: NodeDescriptor) -> None:
        """Raise `Refused` unless the roster has the site, with this key, and grants all claims of
        its descriptor."""
        if self._roster is None:
            return
        member = self._roster.member(Kind.SITE, node.site)
        if member is None or member.public_key != node.public_key:
            raise Refused(
                self._why_not(node.site),
                field="public_key",
                fix="invite it, as `daitn network invite --help` shows",
            )
        lacking = ungranted(node, member)
        if lacking:
            raise Refused(
                f"the roster does not grant it {', '.join(lacking)}",
                field="descriptor",
                fix="invite it again with them, as `daitn network invite --help` shows, or correct "
                "the site's file",
            )

    def _check_key(self, site: SiteId, public_key: str) -> None:
        known = self._known.get(site)
        if known is None or (self._roster is not None and known != public_key):
            if len(self._nodes) >= MOST_SITES:
                raise Refused(
                    f"{MOST_SITES} sites are already known",
                    field="site",
                    fix="restart, and keep strangers off the fabric",
                )
            self._known.put(site, public_key)
        elif known != public_key:
            raise Refused(
                f"{site} is known with another key",
                field="public_key",
                fix="restore the key in the site's state folder, or give the site a new name",
            )

    def _notify(self, notify: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            notify(listener)
