"""Checks of a site's way to its control centre, with the site's own key, certificate and roster.

The site's process may be running. So nothing is announced, served or written here, and all
requests are read-only.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from daitn.identity.certificates import fall_back
from daitn.identity.keys import SigningKey
from daitn.identity.roster import RosterFile
from daitn.identity.tls import certificate_files
from daitn.node.config import NodeConfig
from daitn.oam.doctor.diagnoses import Check, Diagnosis, fine, problem, refused, warning
from daitn.oam.doctor.fixes import member_again, renew
from daitn.oam.doctor.network import JOIN_ANEW, check_roster, is_of_network
from daitn.oam.doctor.state import kept_key, kept_roster, running
from daitn.objects.accounts import AccountQuestion
from daitn.objects.addresses import host_of, is_encrypted, place_of
from daitn.objects.descriptors import Role
from daitn.objects.errors import ClocksDiffer, Corrupt, DaitnError, Unreachable, Unserved
from daitn.objects.messages import RosterAnswer, RosterQuestion
from daitn.objects.roster import Roster, SignedRoster
from daitn.objects.wire import decode, encode_request
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Carrier, Fabric
from daitn.tools.fabric.settings import FabricSettings

__all__ = ["CenterLink", "check_links", "check_listening", "newest_roster"]

Opening = Callable[[FabricSettings], Awaitable[Carrier]]
"""Opens a session. Raises `Unreachable`."""

_WITHIN_S: Final = 5.0
_ALERT_WITHIN_S: Final = 2.0
"""TLS 1.3 says after the handshake that it does not take the client's certificate."""
_ASK_S: Final = 10.0
_AT_ONCE: Final = 4
_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")
_OTHER_HOST: Final = (62, 64)
_NOT_NOW: Final = (9, 10)
"""OpenSSL's codes for a certificate of another name or address, and for one whose time is not yet
or no more (`x509_vfy.h`)."""


async def check_listening(center: str) -> Diagnosis:
    """Whether anybody listens at a control centre's endpoint, or at one of several with commas
    between."""
    endpoints = center.split(",")
    reasons = await asyncio.gather(*map(_unreached, endpoints))
    if not all(reasons):
        return fine(Check.CENTER, center, "somebody listens there")
    return problem(
        Check.CENTER,
        center,
        f"cannot reach the control centre at {', '.join(endpoints)}: "
        f"{'; '.join(dict.fromkeys(reasons))}",
        "check that it is running, that the endpoint is right and that no firewall blocks it",
    )


async def _unreached(endpoint: str) -> str:
    """Why nobody is reached at an endpoint; empty if somebody is."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            _, writer = await asyncio.open_connection(*place_of(endpoint))
    except TimeoutError:
        return f"no answer within {_WITHIN_S:g} s"
    except OSError as error:
        return _reason(error)
    writer.close()
    return ""


def _reason(error: OSError) -> str:
    """In words, also of the errors at several addresses of a host, which asyncio joins."""
    numbers = _NUMBER.findall(str(error))
    known = ", ".join(dict.fromkeys(os.strerror(int(one)) for one in numbers))
    return known or error.strerror or str(error)


async def newest_roster(carrier: Fabric) -> SignedRoster:
    """The control centre's roster. Raises `Unreachable`, and `Corrupt` for no answer to that."""
    question = encode_request(RosterQuestion(version=0))
    reply = await carrier.request(keys.NEWER_ROSTER, question, timeout_s=_ASK_S)
    answer = decode(reply, RosterAnswer)
    if answer.newer is None:
        raise Corrupt("the control centre keeps its roster to itself", fix="see its log")
    return answer.newer


@dataclass(frozen=True)
class CenterLink:
    """How a site connects to its control centre."""

    subject: str
    node: NodeConfig
    center: str
    """The endpoints of its control centre, with commas between."""


@dataclass(frozen=True)
class _Site(CenterLink):
    """A site as its own process sees itself."""

    file: Path
    key: SigningKey
    own: RosterFile
    runs: bool

    @property
    def first(self) -> str:
        """An endpoint of its control centre."""
        return self.center.partition(",")[0]

    @property
    def again(self) -> str:
        """How it becomes a member."""
        return member_again(self.node, self.file)

    def compared(self, theirs: SignedRoster) -> Diagnosis:
        """Its roster beside the control centre's."""
        return check_roster(self.subject, self.own, theirs, runs=self.runs)

    def finds(self, what: str, fix: str) -> list[Diagnosis]:
        """Why its control centre does not accept it: nothing if its own roster says already that it
        is not a member."""
        if self.key.public not in self.own.opened().current(clock.wall_s()):
            return []
        return self.finds_at(what, fix)

    def finds_at(self, what: str, fix: str) -> list[Diagnosis]:
        """A problem with where it connects to."""
        return [problem(Check.CENTER, self.subject, what, fix)]


async def check_links(
    links: Sequence[CenterLink], file: Path, theirs: Mapping[str, SignedRoster], opening: Opening
) -> list[Diagnosis]:
    """Whether the control centres, at which somebody listens, accept the sites of a file.

    `theirs`: rosters of control centres, as far as others got them. Says nothing of a site without
    a key, a roster or certificates: `check_membership` does.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def check(link: CenterLink) -> list[Diagnosis]:
        async with turns:
            return await _check(link, file, theirs.get(link.center), opening)

    return [found for one in await asyncio.gather(*map(check, links)) for found in one]


async def _check(
    link: CenterLink, file: Path, theirs: SignedRoster | None, opening: Opening
) -> list[Diagnosis]:
    try:
        own, key = kept_roster(link.node), kept_key(link.node)
        tls = link.node.tls if any(map(is_encrypted, link.center.split(","))) else ""
        if tls:
            certificate_files(tls)
    except DaitnError:
        return []
    if own is None or key is None:
        return []
    site = _Site(link.subject, link.node, link.center, file, key, own, running(link.node))
    try:
        if theirs is not None and (found := _foreign(site, theirs)):
            return found
        with _presented(tls) as shown:
            return await _connected(site, shown, opening)
    except DaitnError as error:
        check = Check.CLOCK if isinstance(error, ClocksDiffer) else Check.CENTER
        return [refused(check, link.subject, error)]


def _foreign(site: _Site, theirs: SignedRoster) -> list[Diagnosis]:
    """Why the control centre with this roster does not accept the site; empty if it does."""
    found = site.compared(theirs)
    if not is_of_network(theirs, site.own.root):
        return [found]
    newest, key, now_s = decode(theirs.roster, Roster), site.key.public, clock.wall_s()
    if key in newest.current(now_s):
        return []
    roster = f"roster {newest.version} of the control centre at {site.center}"
    if now_s >= newest.until_s:
        fix = f"the operator runs `daitn network renew --tell {site.first}`"
        return [found, *site.finds(f"{roster} has ended", fix)]
    if any(member.public_key == key for member in newest.members):
        fix = f"the operator runs {renew(site.node)}"
        return [found, *site.finds(f"the site's membership in {roster} has ended", fix)]
    return [found, *site.finds(f"{roster} does not have this site's key", site.again)]


@contextmanager
def _presented(tls: str) -> Iterator[str]:
    """A folder of links to a site's certificates, in which it presents what its process would after
    a restart; none for none."""
    if not tls:
        yield ""
        return
    with TemporaryDirectory(prefix="daitn-") as folder:
        for path in certificate_files(tls):
            Path(folder, Path(path).name).symlink_to(path)
        fall_back(Path(folder), clock.wall_s())
        yield folder


async def _connected(site: _Site, tls: str, opening: Opening) -> list[Diagnosis]:
    """What the site hears from its control centre. Raises the `DaitnError` in its answer."""
    connect = tuple(site.center.split(","))
    try:
        carrier = await opening(FabricSettings(mode="client", connect=connect, tls=tls))
    except Unreachable as error:
        return await _why(site, tls, error)
    try:
        try:
            theirs = await newest_roster(carrier)
        except Unreachable as error:
            return await _why(site, tls, error)
        if found := _foreign(site, theirs):
            return found
        await _asked(site, carrier, theirs)
        accepted = f"the control centre at {site.center} answers, and accepts its key"
        return [
            site.compared(theirs),
            fine(Check.CENTER, site.subject, accepted),
        ]
    finally:
        await carrier.close()


async def _asked(site: _Site, carrier: Carrier, theirs: SignedRoster) -> None:
    """Send the cheapest request in the site's name: one entry of its own account. Raises the
    `DaitnError` in the answer."""
    rosters = site.own.opened(), decode(theirs.roster, Roster)
    newest = max(rosters, key=lambda roster: roster.version)
    members = newest.current(clock.wall_s())
    signed = Identity(site.key, newest.network, lambda: members).signs(carrier)
    question = encode_request(AccountQuestion(limit=1))
    await signed.request(keys.center_do("ledger"), question, timeout_s=_ASK_S)


async def _why(site: _Site, tls: str, error: Unreachable) -> list[Diagnosis]:
    """Why a control centre at which somebody listens does not answer this site."""
    for endpoint in filter(is_encrypted, site.center.split(",")):
        if found := await _distrust(site, endpoint, tls):
            return found
    if Role.FORWARDER in site.node.roles:
        what = f"no control centre answers it at {site.center}"
        fix = "nothing, if another node listens there; else correct `center`, and see whether the "
        fix += "operator's `daitn network roster` has the site"
        return [warning(Check.CENTER, site.subject, what, fix)]
    if isinstance(error, Unserved):
        return site.finds(
            f"the control centre at {site.center} does not answer this site, as if its roster did "
            "not have the site's key",
            "if the operator's roster has the site, send it: `daitn network renew --tell "
            f"{site.first}`; else {site.again}",
        )
    return site.finds_at(
        f"what listens at {site.center} does not answer as a control centre does",
        "correct `center`; or see the control centre's log: it may stand still",
    )


async def _distrust(site: _Site, endpoint: str, tls: str) -> list[Diagnosis]:
    """Why the two ends of a link do not accept each other's certificates; empty if they do."""
    host, port = place_of(endpoint)
    try:
        async with asyncio.timeout(_WITHIN_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=_context(tls), server_hostname=host
            )
    except ssl.SSLCertVerificationError as error:
        return _untrusted(site, endpoint, error)
    except ssl.SSLError as error:
        what = f"{endpoint} does not speak TLS as a control centre does: {error.reason}"
        return site.finds_at(what, "correct `center`")
    except TimeoutError:
        what = f"{endpoint} accepts connections, and says nothing within {_WITHIN_S:g} s"
        return site.finds_at(what, "see the control centre's log; if it stands still, restart it")
    except OSError:
        return []  # Of several control centres, those that stand by do not listen.
    try:
        async with asyncio.timeout(_ALERT_WITHIN_S):
            await reader.read(1)
    except ssl.SSLError as error:
        return site.finds_at(
            f"the control centre at {endpoint} does not accept this site's certificate: "
            f"{error.reason}",
            f"check both machines' clocks; a new certificate: {site.again}",
        )
    except OSError:
        return []  # It says nothing, or it is gone: that is not about certificates.
    finally:
        writer.transport.abort()
    return []


def _context(tls: str) -> ssl.SSLContext:
    """TLS as Zenoh speaks it for this site."""
    files = certificate_files(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.authority)
    context.load_cert_chain(files.certificate, files.key)
    return context


def _untrusted(site: _Site, endpoint: str, error: ssl.SSLCertVerificationError) -> list[Diagnosis]:
    """Why a site does not accept the control centre's certificate."""
    host, why = host_of(endpoint), error.verify_message
    if error.verify_code in _OTHER_HOST:
        return site.finds_at(
            f"the control centre's certificate is not for {host}",
            "name it in `center` as its certificate does; or the operator gives it one for this "
            f"host, with its file: `daitn network admit FILE --host {host}`",
        )
    if error.verify_code in _NOT_NOW:
        return site.finds_at(
            f"the certificate of the control centre at {endpoint} does not hold now: {why}",
            "check both machines' clocks; then have the control centre admitted again with its "
            "file, and restart it: `daitn network admit FILE`",
        )
    network = site.own.opened().network
    return site.finds_at(
        f"the certificate that {endpoint} shows is not of this site's network, {network}: {why}",
        JOIN_ANEW,
    )
