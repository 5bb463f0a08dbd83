"""A connection of an owner or operator to a control centre, and the display of errors."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from daitn.cli.identity import owner_identity, person_identity, refresh_roster, tls_folder
from daitn.identity.tls import certificate_files
from daitn.objects.addresses import check_endpoint, is_url
from daitn.objects.errors import (
    DaitnError,
    Infeasible,
    InvalidInput,
    NotFound,
    Refused,
    Unreachable,
)
from daitn.objects.identifiers import JobId, SiteId, checked_name
from daitn.objects.text import escaped, escaped_json, hanging
from daitn.objects.wire import decode, encode
from daitn.tools.certificates import certified, is_due
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Carrier, Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh

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
    "errors",
    "print_json",
    "run",
    "screen",
    "wide",
]

T = TypeVar("T")

UNBROKEN = 1 << 16
"""Console width at which no line is broken."""


def _columns(stream: TextIO) -> int | None:
    """None: the terminal's width. In a pipe or file, breaking lines is up to the reader."""
    return None if stream.isatty() or "COLUMNS" in os.environ else UNBROKEN


class PlainConsole(Console):
    """A console on which texts from the network are text: no markup, no control characters."""

    def __init__(self, *, stderr: bool = False, width: int | None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        shown = (
            part if part.control else Segment(escaped(part.text), part.style) for part in buffer
        )
        return super()._render_buffer(shown)


screen = PlainConsole(width=_columns(sys.stdout))
errors = PlainConsole(stderr=True, width=_columns(sys.stderr))
wide = PlainConsole(width=UNBROKEN)
"""For output whose lines must not be broken even on a terminal."""

DEFAULT_CENTER = "tls/127.0.0.1:7447"
ANSWER_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0

CenterOption = Annotated[
    str,
    typer.Option(
        "--center",
        envvar="DAITN_CENTER",
        help="Endpoint of the control centre, or URL of its API.",
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class ExitCode(enum.IntEnum):
    """How a command ended."""

    DONE = 0
    """Done; of `train` and `watch`: the targets hold, or the job was accepted."""
    NOT_REACHED = 1
    """A job or the demo ended without reaching its targets; of `ping` and `traceroute`: nothing
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
        """Who asks; none on a fabric without signatures."""
        self.client = client
        """Of the control centre's API, where that passes on what is asked; none: over Zenoh."""
        self._site = site

    def events(self, job: JobId) -> str:
        """The key at which whoever is asked publishes what happens to a job."""
        return keys.site_event(self._site, job) if self._site else keys.job_event(job)

    async def ask(self, verb: str, question: object, answer: type[T]) -> T:
        """Raises the `DaitnError` in the reply, or `Unreachable`."""
        key = keys.site_do(self._site, verb) if self._site else keys.center_do(verb)
        payload = await self.fabric.request(key, encode(question), timeout_s=ANSWER_TIMEOUT_S)
        return decode(payload, answer)


@asynccontextmanager
async def connect(center: str, site: str = "", owner: str = "") -> AsyncIterator[Session]:
    """A session with the control centre at an endpoint, or with a site reached through it.

    With `owner`, it speaks as this model owner. Raises `Unreachable`.
    """
    asked = SiteId(checked_name(site, "--site")) if site else None
    if is_url(center):
        # Imported here, because it would delay every other command by half a second.
        from daitn.cli.over_http import speaking_at

        async with speaking_at(center, owner) as (fabric, identity, client):
            yield Session(fabric, asked, identity, client)
        return
    identity = owner_identity(center, owner) if owner else person_identity(center)
    if identity is not None and center.startswith("tls/"):
        await _certify(center, identity)
    async with carrier(center) as fabric:
        await refresh_roster(center, fabric, tell=bool(owner))
        yield Session(identity.signs(fabric) if identity else fabric, asked, identity)


async def _certify(center: str, identity: Identity) -> None:
    """Ask for a new certificate, if the one in the network's folder should be renewed.

    A command goes on with the old one as long as that holds.
    """
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

        async with carrier_at(center) as passing:
            yield passing
        return
    try:
        tls = tls_folder(center)
        settings = FabricSettings(mode="client", connect=(center,), tls=tls)
        if settings.encrypted:
            certificate_files(tls)
    except InvalidInput as error:
        field = "DAITN_NETWORK" if error.field == "tls" else "--center (DAITN_CENTER)"
        raise InvalidInput(error.problem, field=field, fix=error.fix) from None
    check_endpoint("--center (DAITN_CENTER)", center)
    fabric = await open_zenoh(settings, connect_timeout_s=CONNECT_TIMEOUT_S)
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
    except DaitnError as error:
        complain(error)
        raise typer.Exit(exit_code(error)) from None
    except OSError as error:
        complain(InvalidInput(f"{error.strerror}: {error.filename}", fix="check path and rights"))
        raise typer.Exit(ExitCode.BAD_INPUT) from None
    except KeyboardInterrupt:
        errors.print("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def complain(error: DaitnError) -> None:
    """Print what is wrong, where, and what to do. Does not wrap lines, so paths can be copied."""
    where = f"{error.field}: " if error.field else ""
    problem = hanging(f" {where}{error.problem}")
    errors.print(Text.assemble(("error", "bold red"), problem), soft_wrap=True)
    if error.fix:
        errors.print(Text.assemble(("  fix", "bold"), hanging(f" {error.fix}")), soft_wrap=True)


def exit_code(error: DaitnError) -> ExitCode:
    """What a command ends with that met this error."""
    if isinstance(error, Infeasible | Refused):
        return ExitCode.INFEASIBLE
    if isinstance(error, Unreachable):
        return ExitCode.UNREACHABLE
    if isinstance(error, NotFound | InvalidInput):
        return ExitCode.BAD_INPUT
    return ExitCode.OTHER


def print_json(text: str) -> None:
    """Print JSON of the same value: no colours, no wrapping, nothing that a terminal acts on."""
    sys.stdout.write(escaped_json(text) + "\n")
