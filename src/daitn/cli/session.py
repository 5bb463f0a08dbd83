"""A connection of an owner or operator to a control centre, and the display of errors."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import os
import select
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from daitn.cli.answering import CENTER_FIELD, answering_url, first_opened
from daitn.cli.identity import owner_identity, person_identity, refresh_roster, tls_folder
from daitn.cli.option_names import naming_options
from daitn.files.failed_writes import MAKE_ROOM, STDOUT, is_full, naming
from daitn.identity.signing import read_advert
from daitn.identity.tls import certificate_files
from daitn.objects.addresses import check_endpoint, is_url
from daitn.objects.default_addresses import CENTER
from daitn.objects.errors import (
    DaitnError,
    Infeasible,
    InvalidInput,
    NotFound,
    Refused,
    StorageFull,
    Unreachable,
    Unserved,
)
from daitn.objects.identifiers import JobId, SiteId, checked_name
from daitn.objects.text import escaped, escaped_json, hanging
from daitn.objects.wire import decode, encode_checked
from daitn.tools.certificates import certified, is_due
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import SITE_VERBS
from daitn.tools.fabric.delivery import unserved
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Carrier, Fabric
from daitn.tools.fabric.settings import FabricSettings

if TYPE_CHECKING:
    from daitn.client import AsyncClient

__all__ = [
    "DEFAULT_CENTER",
    "CenterOption",
    "ExitCode",
    "JsonOption",
    "PlainConsole",
    "Session",
    "carrier",
    "complain",
    "connect",
    "ended",
    "errors",
    "print_json",
    "print_line",
    "run",
    "screen",
    "wide",
]

T = TypeVar("T")

UNBROKEN = 1 << 16
"""Console width at which no line is broken."""


def _columns(stream: TextIO) -> int | None:
    """`None` means the terminal's width. In a pipe or file, breaking lines is up to the reader."""
    return None if stream.isatty() or "COLUMNS" in os.environ else UNBROKEN


class PlainConsole(Console):
    """A console on which texts from the network are text: no markup, no control characters."""

    def __init__(self, *, stderr: bool = False, width: int | None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """rich would end the process at once, with exit code 1. Raises `BrokenPipeError`."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _check_buffer(self) -> None:
        with naming("standard error" if self.stderr else STDOUT):
            super()._check_buffer()

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        shown = (
            part if part.control else Segment(escaped(part.text), part.style) for part in buffer
        )
        return super()._render_buffer(shown)


screen = PlainConsole(width=_columns(sys.stdout))
errors = PlainConsole(stderr=True, width=_columns(sys.stderr))
wide = PlainConsole(width=UNBROKEN)
"""For output whose lines must not be broken even on a terminal."""

DEFAULT_CENTER = CENTER
ANSWER_TIMEOUT_S = 60.0

CenterOption = Annotated[
    str,
    typer.Option(
        "--center",
        envvar="DAITN_CENTER",
        help="Endpoint of the control centre, or URL of its API; of several that take turns, all, "
        "with commas.",
        show_default=True,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="Centre or network file (YAML); without it, the defaults."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class ExitCode(enum.IntEnum):
    """How a command ended."""

    DONE = 0
    """Success; for `train` and `watch`: the targets were reached, or the job was accepted."""
    NOT_REACHED = 1
    """A job or the demo ended without reaching its targets; for `ping` and `traceroute`: nothing
    arrived."""
    BAD_INPUT = 2
    """Bad input: a file, a field, a name, an option."""
    INFEASIBLE = 3
    """Not feasible, or refused."""
    UNREACHABLE = 4
    """Nobody answers."""
    OTHER = 5
    """Anything else that can be said in a sentence: corrupt data, a full disk, failed work."""
    INTERRUPTED = 130
    """Interrupted."""
    UNREAD = 141
    """The reader of its output stopped, as `head` does; nothing is wrong."""


class Session:
    """Sends requests to a control centre, or to a site about the jobs that originated there."""

    def __init__(
        self,
        fabric: Fabric,
        site: SiteId | None = None,
        identity: Identity | None = None,
        client: AsyncClient | None = None,
    ) -> None:
        self.fabric = fabric
        self.identity = identity
        """The caller; none on a fabric without signatures."""
        self.client = client
        """Client of the control centre's API, if that relays requests; `None` means over Zenoh."""
        self._site = site

    def events(self, job: JobId) -> str:
        """The key at which changes of a job are published."""
        return keys.site_event(self._site, job) if self._site else keys.job_event(job)

    async def ask(self, verb: str, question: object, answer: type[T]) -> T:
        """Query the control centre. Raises the `DaitnError` in the reply, or `Unreachable`; for a
        site, like `ask_site`; and `InvalidInput` for a value that no receiver takes. An error
        about a field names its option."""
        if self._site:
            return await self.ask_site(self._site, verb, question, answer)
        key = keys.center_do(verb)
        with naming_options(question):
            payload = await self.fabric.request(
                key, encode_checked(question), timeout_s=ANSWER_TIMEOUT_S
            )
        return decode(payload, answer)

    async def ask_site(
        self, site: SiteId, verb: str, question: object, answer: type[T], field: str = "--site"
    ) -> T:
        """A site's answer. Raises the `DaitnError` in the reply, `Unreachable`, and `Refused` for a
        site without the role that this request needs."""
        key = keys.site_do(site, verb)
        try:
            with naming_options(question):
                payload = await self.fabric.request(
                    key, encode_checked(question), timeout_s=ANSWER_TIMEOUT_S
                )
        except Unserved:
            raise await self._why_unserved(site, verb, field) from None
        return decode(payload, answer)

    async def _why_unserved(self, site: SiteId, verb: str, field: str) -> DaitnError:
        key = keys.site_do(site, "describe")
        try:
            found = await self.fabric.request(key, b"", timeout_s=ANSWER_TIMEOUT_S)
            roles = read_advert(found).roles
        except DaitnError:
            fix = f"check its name with `daitn get nodes`; {unserved(key).fix}"
            return Unreachable(f"nobody answers as the site {site}", field=field, fix=fix)
        role = SITE_VERBS[verb].role
        if role is None or role in roles:
            fix = "ask again; see the site's log"
            return Unreachable(f"{site} is running but did not answer", field=field, fix=fix)
        return Refused(
            f"{site} does not have the role {role}, but {', '.join(roles) or 'none'}",
            field=field,
            fix=f"name a site that has it, see `daitn get nodes`; or give {site} the role",
        )


@asynccontextmanager
async def connect(center: str, site: str = "", owner: str = "") -> AsyncIterator[Session]:
    """A session with the control centre at an endpoint, or with a site reached through it.

    With `owner`, it speaks as this model owner. Raises `Unreachable`.
    """
    own_site = SiteId(checked_name(site, "--site")) if site else None
    if is_url(center):
        center = await answering_url(center)
        # Imported here, because it would delay every other command by half a second.
        from daitn.cli.over_http import speaking_at

        async with speaking_at(center, owner) as (fabric, identity, client):
            yield Session(fabric, own_site, identity, client)
        return
    identity = owner_identity(center, owner) if owner else person_identity(center)
    if identity is not None and center.startswith("tls/"):
        await _certify(center, identity)
    async with carrier(center) as fabric:
        await refresh_roster(center, fabric, tell=bool(owner))
        yield Session(identity.signs(fabric) if identity else fabric, own_site, identity)


async def _certify(center: str, identity: Identity) -> None:
    """Ask for a new certificate if the one in the network's folder is due for renewal. A command
    keeps using the old one while that is valid."""
    tls = Path(tls_folder(center))
    if is_due(tls):
        async with carrier(center) as fabric:
            with contextlib.suppress(DaitnError):
                await certified(tls, identity.signs(fabric))


@asynccontextmanager
async def carrier(center: str) -> AsyncIterator[Carrier]:
    """The bare fabric, reached at an endpoint, or through a control centre's API. Raises
    `Unreachable`."""
    if is_url(center):
        from daitn.cli.over_http import carrier_at

        async with carrier_at(await answering_url(center)) as passing:
            yield passing
        return
    endpoints = tuple(center.split(","))
    try:
        tls = tls_folder(center)
        settings = FabricSettings(mode="client", connect=endpoints, tls=tls)
        if settings.encrypted:
            certificate_files(tls)
    except InvalidInput as error:
        field = "DAITN_NETWORK" if error.field == "tls" else CENTER_FIELD
        raise InvalidInput(error.problem, field=field, fix=error.fix) from None
    for endpoint in endpoints:
        check_endpoint("--center (DAITN_CENTER)", endpoint)
    fabric = await first_opened(settings)
    try:
        yield fabric
    finally:
        await fabric.close()


def run(
    work: Coroutine[Any, Any, T], loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run a command; a `DaitnError` becomes a sentence and an exit code, never a traceback.

    `loop` makes the event loop; by default asyncio's own.
    """
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(work)
    except (DaitnError, OSError, KeyboardInterrupt) as error:
        raise typer.Exit(ended(error)) from None


def ended(error: DaitnError | OSError | KeyboardInterrupt) -> ExitCode:
    """Say why a command ends early. Returns its exit code."""
    if isinstance(error, KeyboardInterrupt):
        errors.print("interrupted")
        return ExitCode.INTERRUPTED
    if isinstance(error, BrokenPipeError) and _unread():
        _silence()
        return ExitCode.UNREAD
    known = error if isinstance(error, DaitnError) else _of_system(error)
    with contextlib.suppress(OSError):  # Where errors go may be full too.
        complain(known)
    return exit_code(known)


def _of_system(error: OSError) -> DaitnError:
    named = error.filename
    where = os.fsdecode(named) if isinstance(named, str | bytes) else ""
    if where in ("", STDOUT):
        _silence()
    problem = error.strerror or str(error)
    if not is_full(error):
        problem = f"{problem}: {where}" if where else problem
        return InvalidInput(problem, fix="check path and rights")
    return StorageFull(
        problem,
        field=where,
        fix=MAKE_ROOM if where else "free space where this command writes or prints",
    )


def _unread() -> bool:
    """Whether nobody reads what this process prints any more: pipes break elsewhere too."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            poll = select.poll()
            poll.register(stream, 0)
            if poll.poll(0):
                return True
    return False


def _silence() -> None:
    """Give up what is not printed yet: the interpreter would try again at its end, and complain."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def complain(error: DaitnError) -> None:
    """Print what is wrong, where, and what to do. Does not wrap lines, so paths can be copied."""
    where = f"{error.field}: " if error.field else ""
    problem = hanging(f" {where}{error.problem}")
    errors.print(Text.assemble(("error", "bold red"), problem), soft_wrap=True)
    if error.fix:
        errors.print(Text.assemble(("  fix", "bold"), hanging(f" {error.fix}")), soft_wrap=True)


def exit_code(error: DaitnError) -> ExitCode:
    """A command's exit code for this error."""
    if isinstance(error, Infeasible | Refused):
        return ExitCode.INFEASIBLE
    if isinstance(error, Unreachable):
        return ExitCode.UNREACHABLE
    if isinstance(error, NotFound | InvalidInput):
        return ExitCode.BAD_INPUT
    return ExitCode.OTHER


def print_json(text: str) -> None:
    """Print JSON of the same value: no colours, no wrapping, no terminal control codes."""
    print_line(escaped_json(text))


def print_line(text: str) -> None:
    """Print a line as it is, at once. Raises `OSError`, as a full disk may hold the output."""
    with naming(STDOUT):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
