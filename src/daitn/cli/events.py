"""`daitn events`: recent events of a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import msgspec
import typer

from daitn.cli.identity import rostered_name, tls_folder
from daitn.cli.interrupts import interrupts, until
from daitn.cli.over_http import own_tokens
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    errors,
    print_json,
    print_line,
    run,
    screen,
)
from daitn.cli.tables import places_words
from daitn.cli.times import when
from daitn.cli.tokens import api_of, network_facts
from daitn.client import AsyncClient
from daitn.client.events import EVENT_TYPES
from daitn.oam.api.answers import PastEvent, SiteNews
from daitn.oam.api.events import START
from daitn.objects.errors import Unreachable
from daitn.objects.jobs import JobSummary
from daitn.objects.placement import DeploymentView
from daitn.objects.text import escaped_json
from daitn.objects.wire import to_json

__all__ = ["events"]

_UNTOLD: Final = ("map", "reset")
"""Kinds that are meaningless by themselves."""


def events(
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep printing new events, until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=1000, help="Number of latest events.")
    ] = 20,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show recent events, oldest first: jobs, deployments, sites that come, go, or are cordoned.

    Times are in UTC. A control centre that restarts forgets them. With --follow, --json prints an
    object per line.

    Example: daitn events --follow
    """
    past = run(_events(center, limit, follow, as_json))
    if as_json and not follow:
        print_json(to_json(past))


async def _events(center: str, limit: int, follow: bool, as_json: bool) -> list[PastEvent]:
    async with _client(center) as client:
        found = (await client.history(limit=limit)).items
        past = list(reversed(found))
        teller = _Teller(as_json)
        if follow or not as_json:
            for event in past:
                teller.tell(event)
        if follow:
            with interrupts() as stopping:
                await until(stopping, _follow(client, found, teller))
        return past


async def _follow(client: AsyncClient, past: tuple[PastEvent, ...], teller: _Teller) -> None:
    async for event in client.events(past[0].id if past else START):
        if event.kind == "reset":
            errors.print(
                "events are missing here: the control centre has restarted, or forgot them"
            )
        if event.kind not in _UNTOLD:
            told = PastEvent(id=event.id, kind=event.kind, at_s=event.at_s, data=event.data)
            teller.tell(told)


@asynccontextmanager
async def _client(center: str) -> AsyncIterator[AsyncClient]:
    """A client of the control centre's API, at the address that it reports. Raises `NotFound`."""
    async with connect(center) as session:
        if session.client is not None:
            yield session.client
            return
        facts = await network_facts(session)
        identity = session.identity
    api = api_of(facts)
    token = own_tokens(identity, rostered_name(center, identity), facts.center) if identity else ""
    try:
        async with AsyncClient(api, token, tls=tls_folder(center)) as client:
            yield client
    except Unreachable as error:
        raise Unreachable(
            f"events come over the API of the control centre, which says that it is at "
            f"{api}: {error.problem}",
            field="api.advertise",
            fix="configure its `advertise` address, or name its URL with --center",
        ) from None


class _Teller:
    """Prints events, one per line."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._shown = ""

    def tell(self, event: PastEvent) -> None:
        """Print an event. In words, one without news is left out."""
        if self._as_json:
            print_line(escaped_json(msgspec.json.encode(event).decode()))
        elif (sentence := _sentence(event)) != self._shown:
            screen.print(f"{when(event.at_s)}  {sentence}", highlight=False)
            self._shown = sentence


def _sentence(event: PastEvent) -> str:
    data: Any = event.data
    if event.kind in EVENT_TYPES:
        data = msgspec.convert(data, EVENT_TYPES[event.kind], from_attributes=True)
    match data:
        case JobSummary():
            return f"{data.job} {data.state}: {data.detail or data.sentence}"
        case SiteNews():
            return f"{data.site} is {data.state}{f' ({data.detail})' if data.detail else ''}"
        case DeploymentView():
            return f"{data.name} answers with {data.model}: {places_words(data) or 'nowhere yet'}"
    return f"{event.kind} {data.get('name', '') if isinstance(data, dict) else data}"
