"""`daitn cordon`, `daitn uncordon`, `daitn drain`: take a site out of service, and back into it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    ExitCode,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
)
from daitn.objects.cordons import CordonChange, CordonQuestion, CordonReport
from daitn.objects.identifiers import SiteId, checked_name
from daitn.objects.wire import to_json

__all__ = ["cordon", "drain", "uncordon"]

LOOK_EVERY_S = 0.5
EMPTY_FOR_S = 1.0
"""A site counts as empty once it has been for this long: work moves on between two polls."""
_FIELD = "SITE"

SiteArgument = Annotated[str, typer.Argument(help="The site, as `daitn get nodes` lists it.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Shown in explanations of why the site was not chosen.")
]


def cordon(
    site: SiteArgument,
    reason: ReasonOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Give a site nothing new: no visits, deployments, packets, queries. Running work continues.

    By an operator or the site's owner. It holds until `daitn uncordon`, also after a restart.

    Example: daitn cordon mdf-east --reason "new disks"
    """
    _changed(center, site, CordonChange.CORDON, reason, as_json)


def uncordon(
    site: SiteArgument, center: CenterOption = DEFAULT_CENTER, as_json: JsonOption = False
) -> None:
    """Return a site to service.

    Example: daitn uncordon mdf-east
    """
    _changed(center, site, CordonChange.UNCORDON, "", as_json)


def drain(
    site: SiteArgument,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1.0, help="Seconds to wait until it is empty.")
    ] = 600.0,
    reason: ReasonOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Cordon a site, have its deployments moved elsewhere, and wait until nothing is left there.

    It exits with 0 once the site is safe to stop, and with 1 if it is not by the timeout, when it
    stays as it is, or if somebody returns it to service meanwhile.

    Example: daitn drain mdf-east --timeout 600
    """
    report = run(_drained(center, site, reason, timeout, quiet=as_json))
    drained = report.cordon is not None and not report.left
    if as_json:
        print_json(to_json(report))
    elif report.cordon is None:
        screen.print(f"{site} was returned to service while it drained: it is not safe to stop")
    elif drained:
        screen.print(f"{site} is empty and safe to stop; `daitn uncordon {site}` brings it back")
    else:
        screen.print(f"{site} is not empty after {timeout:g} s: {', '.join(report.left)}")
        if report.deployments:
            screen.print(
                "deployments move where another facility may host them: see "
                "`daitn get facilities`. What was deployed with --to stays until its owner "
                "deploys it elsewhere, or retires it"
            )
    if not drained:
        raise typer.Exit(ExitCode.NOT_REACHED)


def _changed(center: str, site: str, change: CordonChange, reason: str, as_json: bool) -> None:
    report = run(_ask(center, site, CordonQuestion(change=change, reason=reason)))
    if as_json:
        print_json(to_json(report))
        return
    state = report.cordon or "is in service"
    left = f"; still there: {', '.join(report.left)}" if report.cordon and report.left else ""
    screen.print(f"{site} {state}{left}")


async def _ask(center: str, site: str, question: CordonQuestion) -> CordonReport:
    own = SiteId(checked_name(site, _FIELD))
    async with connect(center) as session:
        return await session.ask_site(own, "cordon", question, CordonReport, _FIELD)


async def _drained(
    center: str, site: str, reason: str, timeout_s: float, *, quiet: bool
) -> CordonReport:
    until_s = time.monotonic() + timeout_s
    empty_since_s: float | None = None
    shown: tuple[str, ...] = ()
    own = SiteId(checked_name(site, _FIELD))
    async with connect(center) as session:
        question = CordonQuestion(change=CordonChange.DRAIN, reason=reason)
        while True:
            report = await session.ask_site(own, "cordon", question, CordonReport, _FIELD)
            question, now_s = CordonQuestion(), time.monotonic()
            if report.cordon is None:
                return report
            if report.left:
                empty_since_s = None
            elif empty_since_s is None:
                empty_since_s = now_s
            if empty_since_s is not None and now_s - empty_since_s >= EMPTY_FOR_S:
                return report
            if report.left != shown and not quiet:
                screen.print(f"{site}: {', '.join(report.left) or 'nothing'} left")
            shown = report.left
            if report.left and now_s >= until_s:
                return report
            await asyncio.sleep(LOOK_EVERY_S)
