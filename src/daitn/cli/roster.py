"""`daitn network init | roster | revoke | renew`: the members of a network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from daitn.cli.known_networks import OPERATOR, network_of
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    carrier,
    connect,
    errors,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import plain_table
from daitn.cli.times import day
from daitn.identity.network import MEMBER_DAYS, ROSTER_DAYS, NetworkFolder
from daitn.identity.roster import ROSTER, read_roster
from daitn.objects.errors import DaitnError, InvalidInput, Unreachable
from daitn.objects.messages import RosterAnswer, RosterQuestion
from daitn.objects.requests import EVERYTHING
from daitn.objects.roster import Kind, Member, Roster
from daitn.objects.wire import decode, encode, encode_request, to_json
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.topology.snapshot import NodeList

__all__ = [
    "NetworkOption",
    "TellOption",
    "app",
    "root_folder",
    "tell",
]

app = typer.Typer(
    help="Who belongs to a network: its roster, invitations, members.", no_args_is_help=True
)

NetworkOption = Annotated[
    Path | None,
    typer.Option(
        "--network",
        envvar="DAITN_NETWORK",
        help="The network's folder; by default the one created on this machine for the control "
        "centre at --center.",
    ),
]
TellOption = Annotated[
    str,
    typer.Option(
        "--tell",
        help="Endpoint of the control centre to which to send the new roster at once. Not needed "
        "for one that reads the roster in this folder.",
    ),
]
DaysOption = Annotated[
    int, typer.Option("--days", min=1, max=3650, help="Validity of the roster in days.")
]

_TELL_WITHIN_S = 20.0
_ASK_TIMEOUT_S = 5.0


class _MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """A member, as printed by `--json`."""

    kind: Kind
    name: str
    public_key: str
    until_s: float
    roles: tuple[str, ...]
    owner: str
    jurisdiction: str
    connected: bool | None
    """`None` means unknown, or not a site."""


class _RosterView(msgspec.Struct, frozen=True, kw_only=True):
    network: str
    version: int
    issued_at_s: float
    until_s: float
    folder: str
    members: tuple[_MemberView, ...]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for the root key and the roster.")],
    name: Annotated[str, typer.Option("--name", help="Name of the network.")],
    operator: Annotated[
        str, typer.Option("--operator", help="Name of the operator, who is its first member.")
    ] = OPERATOR,
    days: DaysOption = ROSTER_DAYS,
    as_json: JsonOption = False,
) -> None:
    """Create a network: its root key, its roster, and its certificate authority.

    Who can read the folder decides who belongs to the network. Keep it to yourself, and a copy of
    it in a safe. A roster that is not renewed in time is worth nothing; every change renews it.

    Example: daitn network init network --name clinics
    """

    async def work() -> Roster:
        now_s = clock.wall_s()
        return NetworkFolder.found(folder, name, operator, now_s, days=days).roster()

    roster = run(work())
    if as_json:
        print_json(to_json(_view(roster, folder, None)))
    else:
        screen.print(
            f"{folder} is the network {name}, until {day(roster.until_s)}; "
            f"invite others with `daitn network invite --network {folder}`",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


@app.command("roster")
def show(
    network: NetworkOption = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show a network's members, when their memberships end, and which of its sites are connected.

    The folder may be the operator's, or a member's, with what that member knows.

    Example: daitn network roster --network network
    """

    async def work() -> tuple[Roster, Path, frozenset[str] | None]:
        folder = network or network_of(center)
        roster = read_roster(folder / ROSTER).opened()
        return roster, folder, await _connected(center)

    roster, folder, connected = run(work())
    view = _view(roster, folder, connected)
    if as_json:
        print_json(to_json(view))
        return
    state = "expired on" if clock.wall_s() >= roster.until_s else "until"
    screen.print(
        f"{roster.network}, roster {roster.version}, {state} {day(roster.until_s)}",
        markup=False,
        highlight=False,
    )
    if connected is None:
        errors.print(f"the control centre at {center} does not answer", markup=False)
    columns = ("kind", "name", "roles", "owner", "law", "until", "connected")
    rows = [
        (
            member.kind,
            member.name,
            ", ".join(member.roles),
            member.owner,
            member.jurisdiction,
            day(member.until_s),
            {None: "", True: "yes", False: "no"}[member.connected],
        )
        for member in view.members
    ]
    screen.print(plain_table("", columns, rows))


@app.command()
def revoke(
    kind: Annotated[Kind, typer.Argument(help="Kind of the member.")],
    name: Annotated[str, typer.Argument(help="Name of the member.")],
    network: NetworkOption = None,
    to: TellOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Remove a member. Every running process ignores it within a minute.

    Example: daitn network revoke site ghr
    """

    async def work() -> tuple[Roster, Path]:
        folder = root_folder(network, center)
        roster = folder.revoke(kind, name, clock.wall_s())
        await tell(folder, to)
        return roster, folder.path

    _say_version(f"{kind} {name} is revoked", *run(work()), as_json)


@app.command()
def renew(
    kind: Annotated[Kind | None, typer.Argument(help="Kind of a member to extend too.")] = None,
    name: Annotated[str, typer.Argument(help="Name of that member.")] = "",
    network: NetworkOption = None,
    days: Annotated[
        int,
        typer.Option(
            "--days",
            min=0,
            max=3650,
            help="Validity of the roster from now in days; 0 means as before.",
        ),
    ] = 0,
    member_days: Annotated[
        int,
        typer.Option(
            "--member-days", min=1, max=3650, help="Validity of the membership from now in days."
        ),
    ] = MEMBER_DAYS,
    to: TellOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Extend the roster, and a membership if one is named.

    Examples:

      daitn network renew

      daitn network renew site ghr --member-days 30
    """

    async def work() -> tuple[Roster, Path]:
        if kind is not None and not name:
            raise InvalidInput("a member has a kind and a name", field="NAME", fix="add its name")
        folder = root_folder(network, center)
        roster = folder.renew(
            clock.wall_s(),
            roster_days=days or None,
            member=None if kind is None else (kind, name),
            member_days=member_days,
        )
        await tell(folder, to)
        return roster, folder.path

    roster, path = run(work())
    _say_version(f"the roster holds until {day(roster.until_s)}", roster, path, as_json)


def root_folder(network: Path | None, center: str) -> NetworkFolder:
    """The folder with the root key. Raises `NotFound` if there is none."""
    return NetworkFolder(network or network_of(center))


async def tell(folder: NetworkFolder, center: str) -> None:
    """Send the roster to the control centre at an endpoint, if one is named; return when it has it.

    Raises `Unreachable`.
    """
    if not center:
        return
    signed, version = folder.file().signed, folder.roster().version
    async with carrier(center) as fabric:
        try:
            async with asyncio.timeout(_TELL_WITHIN_S):
                while True:
                    await fabric.publish(keys.ROSTER, encode(signed))
                    answer = await fabric.request(
                        keys.NEWER_ROSTER,
                        encode_request(RosterQuestion(version=version)),
                        timeout_s=_ASK_TIMEOUT_S,
                    )
                    if decode(answer, RosterAnswer).version >= version:
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Unreachable(
                f"the control centre at {center} does not accept the roster",
                field="--tell",
                fix="see its log: it may belong to another network",
            ) from None


async def _connected(center: str) -> frozenset[str] | None:
    """The connected sites according to the control centre; none if it does not answer."""
    try:
        async with connect(center) as session:
            found = await session.ask("nodes", EVERYTHING, NodeList)
    except DaitnError:
        return None
    return frozenset(state.descriptor.public_key for state in found.nodes if state.alive)


def _view(roster: Roster, folder: Path, connected: frozenset[str] | None) -> _RosterView:
    def shown(member: Member) -> _MemberView:
        is_site = member.kind is Kind.SITE and connected is not None
        return _MemberView(
            kind=member.kind,
            name=member.name,
            public_key=member.public_key,
            until_s=member.until_s,
            roles=member.roles,
            owner=member.owner,
            jurisdiction=member.jurisdiction,
            connected=member.public_key in (connected or ()) if is_site else None,
        )

    members = sorted(roster.members, key=lambda m: (m.kind, m.name))
    return _RosterView(
        network=roster.network,
        version=roster.version,
        issued_at_s=roster.issued_at_s,
        until_s=roster.until_s,
        folder=str(folder),
        members=tuple(shown(member) for member in members),
    )


def _say_version(what: str, roster: Roster, folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(to_json(_view(roster, folder, None)))
    else:
        screen.print(f"{what}: roster {roster.version}", markup=False, highlight=False)
