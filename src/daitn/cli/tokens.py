"""`daitn token`: tokens to act in a member's name."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from daitn.cli.identity import check_owner, owner_identity, person_identity
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    Session,
    connect,
    errors,
    print_json,
    run,
    screen,
)
from daitn.identity.grants import new_center_token, new_token
from daitn.objects.errors import NotFound, Refused, Unreachable
from daitn.objects.grants import UseLimits
from daitn.objects.identifiers import SiteId, checked_name
from daitn.objects.moments import DAY_S
from daitn.objects.requests import EVERYTHING, NetworkFacts
from daitn.objects.roster import Kind
from daitn.objects.wire import to_json
from daitn.tools import clock
from daitn.tools.fabric.identity import Identity

__all__ = ["api_of", "app", "center_token", "network_facts"]

app = typer.Typer(help="Tokens, with which programs ask in an owner's name.", no_args_is_help=True)

_NOWHERE: list[str] = []


@app.command()
def create(
    gateway: Annotated[
        list[str], typer.Option(help="Site of a gateway that accepts it; repeatable.")
    ] = _NOWHERE,
    center_api: Annotated[
        bool,
        typer.Option("--center-api", help="For the control centre's API, instead of gateways."),
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="With --center-api: a read-only token."),
    ] = False,
    owner: Annotated[
        str, typer.Option(help="Owner to act for; by default the holder of the key in DAITN_KEY.")
    ] = "",
    new_owner: Annotated[
        bool,
        typer.Option(
            "--new-owner",
            help="The owner may be new: where the network was founded, it is admitted.",
        ),
    ] = False,
    days: Annotated[float, typer.Option(min=0.0001, max=366.0, help="Validity in days.")] = 30.0,
    per_s: Annotated[
        float, typer.Option("--per-s", min=0.001, help="Queries per second, on average.")
    ] = 100.0,
    burst: Annotated[int, typer.Option(min=1, help="Queries in a burst.")] = 200,
    usd_per_day: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Spending limit per day in US dollars, at all its gateways together.",
        ),
    ] = None,
    usd_per_month: Annotated[
        float | None, typer.Option(min=0.0, help="The same per month; days and months are in UTC.")
    ] = None,
    usd_total: Annotated[float | None, typer.Option(min=0.0, help="The same in total.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Tokens read and written per minute, at each gateway.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model that it may name: `name`, `owner/name`, `auto`; repeatable."),
    ] = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Create a token that acts in a member's name, and print it.

    For gateways, OpenAI's clients show it as their API key; for a control centre's API, programs
    send it as `authorization: Bearer TOKEN`. Receivers check the member's signature in it, ask
    nobody, and keep no copy. It cannot be taken back before it ends, except with its member's
    key: `daitn network revoke owner NAME`.

    With limits in US dollars it may spend so much at all gateways that it names: the control centre
    sums what they state; where there is none, each has an equal part. Queries per second and tokens
    per minute count at each gateway. What an answer costs is known when it has ended, so queries
    under way when a limit is reached are answered.

    Examples:

      daitn token create --owner ann --gateway door --days 7

      daitn token create --owner ann --gateway door --usd-per-day 2 --model clinic

      daitn token create --center-api --read-only --days 1
    """
    if bool(gateway) == center_api:
        raise typer.BadParameter("name gateways with --gateway, or the API with --center-api")
    if read_only and not center_api:
        raise typer.BadParameter("--read-only goes with --center-api")
    gateways = tuple(SiteId(checked_name(site, "--gateway")) for site in gateway)
    if owner and not new_owner:
        run(check_owner(center, owner, "--owner", "to admit a new one, add --new-owner"))
    limits = UseLimits(
        usd_per_day=usd_per_day,
        usd_per_month=usd_per_month,
        usd_total=usd_total,
        tokens_per_minute=tokens_per_minute,
        models=tuple(model or ()),
    )
    if center_api:
        token = run(_center_token(center, owner, days, read_only))
    else:
        token = run(_token(center, owner, gateways, days, (per_s, burst), limits))
        if len(gateways) > 1 and limits.tokens_per_minute is not None:
            errors.print(f"{len(gateways)} gateways count tokens per minute each for itself")
    print_json(to_json({"token": token})) if as_json else screen.print(token, soft_wrap=True)


async def _token(
    center: str,
    owner: str,
    gateways: tuple[SiteId, ...],
    days: float,
    rate: tuple[float, int],
    limits: UseLimits,
) -> str:
    identity = owner_identity(center, owner) if owner else person_identity(center)
    if identity is None:
        raise _no_network(center)
    with contextlib.suppress(Unreachable):
        async with connect(center, owner=owner):
            pass  # Gateways now know an owner that was just made here.
    member = identity.members().get(identity.key.public)
    if member is None or member.kind is not Kind.OWNER or (owner and member.name != owner):
        raise Refused(
            f"the key is not {owner or 'an owner'}'s",
            field="--owner" if owner else "DAITN_KEY",
            fix="name an owner whose key you have, or its file in DAITN_KEY",
        )
    until_s = clock.wall_s() + days * DAY_S
    return new_token(identity.network, member.name, gateways, until_s, rate, identity.key, limits)


async def _center_token(center: str, owner: str, days: float, read_only: bool) -> str:
    async with connect(center, owner=owner) as session:
        if session.identity is None:
            raise _no_network(center)
        facts = await network_facts(session)
        until_s = clock.wall_s() + days * DAY_S
        return center_token(session.identity, facts, until_s, read_only=read_only)


async def network_facts(session: Session) -> NetworkFacts:
    """The control centre's statement about its network and itself."""
    return await session.ask("network", EVERYTHING, NetworkFacts)


def api_of(facts: NetworkFacts) -> str:
    """The URL of the control centre's API and dashboard. Raises `NotFound` if it serves none."""
    if not facts.api:
        raise NotFound(
            "this control centre serves no API, and with it neither a dashboard nor events",
            field="api.listen",
            fix="state an address in the control centre's file, or leave the field out",
        )
    return facts.api


def center_token(
    identity: Identity,
    facts: NetworkFacts,
    until_s: float,
    *,
    read_only: bool,
    opens_until_s: float | None = None,
) -> str:
    """A token for a control centre's API, in the name of an owner or operator. Raises `Refused` for
    any other key."""
    member = identity.members().get(identity.key.public)
    if member is None or member.kind not in (Kind.OWNER, Kind.OPERATOR):
        raise Refused(
            "the key does not belong to an owner or operator",
            field="DAITN_KEY",
            fix="name the file of such a key, or an owner whose key you have with --owner",
        )
    return new_center_token(
        identity.network,
        member.name,
        facts.center,
        until_s,
        identity.key,
        reads_only=read_only,
        opens_until_s=opens_until_s,
    )


def _no_network(center: str) -> NotFound:
    return NotFound(
        f"no network is known at {center}",
        field="--center (DAITN_CENTER)",
        fix="join it, or set DAITN_NETWORK to its folder",
    )
