"""`daitn token`: who may ask in an owner's name."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from daitn.cli.identity import owner_identity, person_identity
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
)
from daitn.identity.grants import new_token
from daitn.identity.network import DAY_S
from daitn.objects.errors import NotFound, Refused, Unreachable
from daitn.objects.grants import UseLimits
from daitn.objects.identifiers import SiteId, checked_name
from daitn.objects.roster import Kind
from daitn.objects.wire import to_json
from daitn.tools import clock

__all__ = ["app"]

app = typer.Typer(help="Tokens, with which programs ask in an owner's name.", no_args_is_help=True)


@app.command()
def create(
    gateway: Annotated[
        list[str], typer.Option(help="Gateway (its site) that takes it; may be repeated.")
    ],
    owner: Annotated[
        str, typer.Option(help="In whose name; if not given: of the key in DAITN_KEY.")
    ] = "",
    days: Annotated[
        float, typer.Option(min=0.0001, max=366.0, help="How long it holds, in days.")
    ] = 30.0,
    per_s: Annotated[
        float, typer.Option("--per-s", min=0.001, help="Queries per second, on average.")
    ] = 100.0,
    burst: Annotated[int, typer.Option(min=1, help="Queries in a burst.")] = 200,
    usd_per_day: Annotated[
        float | None,
        typer.Option(min=0.0, help="US dollars that it may spend a day, at each gateway."),
    ] = None,
    usd_per_month: Annotated[
        float | None, typer.Option(min=0.0, help="The same a month; both are of UTC.")
    ] = None,
    usd_total: Annotated[float | None, typer.Option(min=0.0, help="The same in all.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Tokens, read and written, at each gateway.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model that it may ask: `name`, `owner/name`, `auto`; may be repeated."),
    ] = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Make a token that asks gateways in an owner's name, and print it.

    OpenAI's clients show it as their API key. The gateways check the owner's signature in it, ask
    nobody, and keep no copy. It cannot be taken back before it ends, except with its owner's key:
    `daitn network revoke owner NAME`.

    With limits it may spend so much at each gateway: what an answer costs is known when it has
    ended, so queries under way when a limit is reached are answered.

    Examples:

      daitn token create --owner ann --gateway door --days 7

      daitn token create --owner ann --gateway door --usd-per-day 2 --model clinic
    """
    gateways = tuple(SiteId(checked_name(site, "--gateway")) for site in gateway)
    limits = UseLimits(
        usd_per_day=usd_per_day,
        usd_per_month=usd_per_month,
        usd_total=usd_total,
        tokens_per_minute=tokens_per_minute,
        models=tuple(model or ()),
    )
    token = run(_token(center, owner, gateways, days, (per_s, burst), limits))
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
        raise NotFound(
            f"no network is known at {center}",
            field="--center (DAITN_CENTER)",
            fix="join it, or set DAITN_NETWORK to its folder",
        )
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
