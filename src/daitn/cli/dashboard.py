"""`daitn dashboard`: the address that shows the network in a browser."""

from __future__ import annotations

import contextlib
import webbrowser
from typing import Annotated

import typer

from daitn.cli.identity import check_owner
from daitn.cli.known_networks import network_of, remember
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tokens import api_of, center_token, network_facts
from daitn.objects.errors import NotFound
from daitn.objects.wire import to_json
from daitn.tools import clock

__all__ = ["dashboard", "dashboard_url"]

_LASTS_S = 12 * 3600.0
_OPENS_S = 600.0


def dashboard(
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser here.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Read-only: nothing can be changed.")
    ] = False,
    owner: Annotated[
        str, typer.Option(help="Owner to act for; by default the holder of the key in DAITN_KEY.")
    ] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Print the address of the dashboard, signed in.

    The address opens one session, within ten minutes; that lasts twelve hours. Its token stands
    after the `#`, which browsers do not send.

    Example: daitn dashboard --open
    """
    url = run(_known_owners_url(center, owner, read_only))
    print_json(to_json({"url": url})) if as_json else screen.print(url, soft_wrap=True)
    if show:
        webbrowser.open(url)


async def _known_owners_url(center: str, owner: str, read_only: bool) -> str:
    if owner:
        to_make = (
            f"to admit a new one: `daitn token create --center-api --owner {owner} --new-owner`"
        )
        await check_owner(center, owner, "--owner", to_make)
    return await dashboard_url(center, owner, read_only)


async def dashboard_url(center: str, owner: str = "", read_only: bool = False) -> str:
    """The address, which opens one session. Raises `NotFound` if there is no dashboard."""
    async with connect(center, owner=owner) as session:
        facts = await network_facts(session)
        api = api_of(facts)
        with contextlib.suppress(NotFound):  # `--center` takes it from now on.
            remember((api,), network_of(center))
        if session.identity is None:
            return f"{api}/"
        now_s = clock.wall_s()
        token = center_token(
            session.identity,
            facts,
            now_s + _LASTS_S,
            read_only=read_only,
            opens_until_s=now_s + _OPENS_S,
        )
        return f"{api}/#token={token}"
