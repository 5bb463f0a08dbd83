"""`daitn ping`, `traceroute`, `trace` and `steer`: inspect and control the forwarders."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from typing import Annotated, TypeVar

import typer
from rich.console import Group, RenderableType

from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    ExitCode,
    JsonOption,
    Session,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import decision_table, plain_table
from daitn.objects.identifiers import SiteId, checked_name
from daitn.objects.steering import (
    Advice,
    ControlMode,
    ForwarderReport,
    PendingReport,
    Probe,
    ProbeReport,
    Steer,
    TraceQuestion,
    TraceReport,
)
from daitn.objects.text import plain
from daitn.objects.wire import to_json
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent

__all__ = ["ping", "steer", "trace", "traceroute"]

T = TypeVar("T")

SiteOption = Annotated[str, typer.Option("--site", help="The forwarder that sends the probes.")]
TopicOption = Annotated[str, typer.Option(help="Towards sites that answer queries on this topic.")]
ModelOption = Annotated[str, typer.Option(help="Towards sites that serve the model of this name.")]
DataOption = Annotated[str, typer.Option(help="Towards sites that have data on this topic.")]
HomeOption = Annotated[str, typer.Option(help="Towards the site of this name.")]
AccuracyOption = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Minimum measured accuracy on the topic; claims then do not count."
    ),
]
WithinOption = Annotated[
    float, typer.Option(min=0.01, max=60.0, help="Seconds to wait for an answer.")
]
PlaceOption = Annotated[
    list[str],
    typer.Option(
        "--jurisdiction", help="Only in this jurisdiction (ISO 3166-1 alpha-2); repeatable."
    ),
]

_NOWHERE: list[str] = []
_LONGEST = 200


def ping(
    site: SiteOption,
    topic: TopicOption = "",
    model: ModelOption = "",
    data: DataOption = "",
    home: HomeOption = "",
    min_accuracy: AccuracyOption = 0.0,
    jurisdiction: PlaceOption = _NOWHERE,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of probes.")] = 4,
    within: WithinOption = 5.0,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Send probes along the route of an object with this intent.

    --center also accepts a node's own endpoint, if there is no control centre.

    Example: daitn ping --site gate --topic medicine/neurology
    """
    intent = _packet_intent(topic, model, data, home, min_accuracy, jurisdiction)

    async def work() -> list[ProbeReport]:
        found = []
        async with connect(center) as session:
            for number in range(count):
                if number:
                    await asyncio.sleep(0.2)
                found.append(await _probe(session, site, intent, within))
                if not as_json:
                    _print_ping(number, found[-1])
        return found

    probes = run(work())
    if as_json:
        print_json(to_json(probes))
    if all(probe.refused for probe in probes):
        raise typer.Exit(ExitCode.NOT_REACHED)


def traceroute(
    site: SiteOption,
    topic: TopicOption = "",
    model: ModelOption = "",
    data: DataOption = "",
    home: HomeOption = "",
    min_accuracy: AccuracyOption = 0.0,
    jurisdiction: PlaceOption = _NOWHERE,
    within: WithinOption = 5.0,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show the route that an object with this intent takes, with the round trip to each hop.

    Example: daitn traceroute --site gate --topic medicine/neurology
    """
    intent = _packet_intent(topic, model, data, home, min_accuracy, jurisdiction)

    async def work() -> tuple[ProbeReport, list[tuple[str, float]]]:
        async with connect(center) as session:
            whole = await _probe(session, site, intent, within)
            rows = []
            for limit in range(1, len(whole.hops)):
                part = await _probe(session, site, intent, within, limit - 1)
                rows.append((whole.hops[limit - 1].site, part.taken_s))
            if whole.hops:
                rows.append((whole.hops[-1].site, whole.taken_s))
        return whole, rows

    whole, rows = run(work())
    if as_json:
        hops = [{"site": name, "round_trip_s": taken_s} for name, taken_s in rows]
        print_json(to_json({"object": whole.object, "refused": whole.refused, "hops": hops}))
    else:
        table = [
            (str(n), name, f"{1e3 * taken_s:.1f} ms") for n, (name, taken_s) in enumerate(rows)
        ]
        screen.print(plain_table("", ("hop", "site", "round trip"), table))
        if whole.refused:
            screen.print(f"it goes no further: {whole.refused}")
    if whole.refused:
        raise typer.Exit(ExitCode.NOT_REACHED)


def trace(
    object_: Annotated[str, typer.Argument(metavar="OBJECT", help="Its id, 32 hex digits.")],
    site: SiteOption,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show, hop by hop, what each forwarder knew about an object and why it chose its next hop.

    Example: daitn trace 0f3a…c2 --site gate
    """

    async def work() -> TraceReport:
        async with connect(center) as session:
            return await _at(session, site, "trace", TraceQuestion(object=object_), TraceReport)

    if not re.fullmatch("[0-9a-f]{32}", object_):
        raise typer.BadParameter(f"{object_}: an object's id has 32 hex digits")
    report = run(work())
    if as_json:
        print_json(to_json(report))
        return
    for entry in report.pending:
        screen.print(_pending_entry(entry))
    for silent in report.silent:
        screen.print(f"{silent} does not answer")


def steer(
    mode: Annotated[
        ControlMode | None,
        typer.Argument(help="Who influences forwarders; without it, show the current state."),
    ] = None,
    prefer: Annotated[
        list[str],
        typer.Option(
            help="Weight of `accuracy`, `latency` or `cost`, for instance latency=3; repeatable. "
            "Replaces earlier weights."
        ),
    ] = _NOWHERE,
    reset: Annotated[bool, typer.Option("--reset", help="Undo earlier changes first.")] = False,
    site: Annotated[
        str,
        typer.Option(
            "--site",
            help="Only this forwarder, until it restarts; prints its mode, links and origins. "
            "Without it, the control centre stores the advice and sends it to all.",
        ),
    ] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Change how forwarders are controlled and what they prefer, while they run.

    Example: daitn steer hierarchical --prefer latency=3
    Example: daitn steer standalone --site gate
    """
    change = Steer(mode=mode, prefer=_weights(prefer) if prefer else None, reset=reset)

    async def work() -> Advice | ForwarderReport:
        async with connect(center) as session:
            if site:
                # Owners may look, and so may tokens for reading.
                verb = "forwarder" if change == Steer() else "steer"
                return await _at(session, site, verb, change, ForwarderReport)
            return await session.ask("steer", change, Advice)

    now = run(work())
    if as_json:
        print_json(to_json(now))
    elif isinstance(now, ForwarderReport):
        screen.print(_report(now))
    else:
        weights = ", ".join(f"{name}={weight:g}" for name, weight in now.prefer.items())
        screen.print(f"advised: mode {now.mode or 'as in each file'}, weights {weights or '-'}")


async def _at(session: Session, site: str, verb: str, question: object, answer: type[T]) -> T:
    return await session.ask_site(SiteId(checked_name(site, "--site")), verb, question, answer)


async def _probe(
    session: Session, site: str, intent: bytes, within_s: float, hop_limit: int = 32
) -> ProbeReport:
    probe = Probe(intent=intent, hop_limit=hop_limit, timeout_s=within_s)
    return await _at(session, site, "probe", probe, ProbeReport)


def _packet_intent(
    topic: str,
    model: str,
    data: str,
    home: str,
    min_accuracy: float,
    jurisdictions: list[str],
) -> bytes:
    wanted = {
        Capability.ANSWER: plain(topic),
        Capability.MODEL: model,
        Capability.DATA: plain(data),
        Capability.HOME: home,
    }
    named = [(capability, subject) for capability, subject in wanted.items() if subject]
    if len(named) != 1:
        raise typer.BadParameter("name one of --topic, --model, --data and --home")
    capability, subject = named[0]
    if len(subject) > _LONGEST:
        raise typer.BadParameter(f"a name has at most {_LONGEST} characters")
    if math.isnan(min_accuracy):
        raise typer.BadParameter("--min-accuracy is a number from 0 to 1")
    for place in jurisdictions:
        if not re.fullmatch("[A-Z]{2}", place):
            raise typer.BadParameter(f"{place}: a jurisdiction is two letters, like US")
    return encode_intent(
        PacketIntent(
            capability,
            subject,
            min_fit=min_accuracy,
            trust=1 if min_accuracy else 0,
            jurisdictions=tuple(jurisdictions),
        )
    )


def _weights(prefer: list[str]) -> dict[str, float]:
    weights = {}
    for each in prefer:
        name, _, weight = each.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            raise typer.BadParameter(f"{each}: write it like latency=3") from None
        if not 0.0 <= weights[name.strip()] <= 1e6:
            raise typer.BadParameter(f"{each}: a weight is between 0 and a million")
    return weights


def _print_ping(number: int, probe: ProbeReport) -> None:
    if probe.refused:
        screen.print(f"{number}: no answer, {probe.refused}")
        return
    path = " > ".join(hop.site for hop in probe.hops)
    screen.print(f"{number}: {1e3 * probe.taken_s:.1f} ms  {path}  object {probe.object}")


def _pending_entry(entry: PendingReport) -> RenderableType:
    came = ", ".join(one or "its owner" for one in entry.came_from)
    head = f"{entry.site}: {entry.phase}, from {came}, attempt {entry.attempt + 1}"
    return Group(head, *_steps(entry))


def _steps(entry: PendingReport) -> Iterator[RenderableType]:
    for step in entry.steps:
        after_ms = 1e3 * (step.at_s - entry.since_s)
        if not step.found:
            yield f"  after {after_ms:.1f} ms: no route"
        else:
            to = f"on to {step.via}" if step.via else "delivered here"
            yield (
                f"  after {after_ms:.1f} ms: {to}, for {step.origin}; "
                f"expected {1e3 * step.expected_s:.1f} ms"
            )
        yield decision_table(step.decision)


def _report(report: ForwarderReport) -> RenderableType:
    links = [
        (
            link.neighbour,
            "up" if link.up else "down",
            f"{1e3 * link.cost_s:.1f} ms",
            str(link.downs),
        )
        for link in report.links
    ]
    origins = [
        (one.origin, one.via or "here", f"{1e3 * one.distance_s:.1f} ms", ", ".join(one.offers))
        for one in report.origins
    ]
    say = "advised" if report.advised else "not advised"
    return Group(
        f"{report.site}: {report.mode}, {say}, {report.objects} objects remembered",
        plain_table("links", ("neighbour", "state", "delay", "downs"), links),
        plain_table("origins", ("origin", "via", "distance", "offers"), origins),
    )
