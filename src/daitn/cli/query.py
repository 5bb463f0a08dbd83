"""`daitn query`: ask a gateway one question, and see which model answered and why."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.text import Text

from daitn.cli.identity import refresh_roster, tls_folder
from daitn.cli.known_networks import network_of
from daitn.cli.sealed import choosing
from daitn.cli.sealed import sealed as seal_for
from daitn.cli.session import DEFAULT_CENTER, CenterOption, carrier, errors, print_json, run
from daitn.identity.roster import ROSTER, read_roster
from daitn.identity.tls import trusting_members
from daitn.objects.addresses import check_endpoint
from daitn.objects.default_addresses import GATEWAY
from daitn.objects.descriptors import Role
from daitn.objects.errors import (
    DaitnError,
    Infeasible,
    InvalidInput,
    NotFound,
    Refused,
    Unreachable,
    WorkFailed,
)
from daitn.objects.header_names import AnswerHeader
from daitn.objects.queries import AUTO, Privacy, Strategy, Trust
from daitn.objects.text import encodable, escaped
from daitn.objects.wire import to_json
from daitn.openai.errors import read_error
from daitn.openai.http import JSON
from daitn.openai.responses import answers
from daitn.tools import clock

if TYPE_CHECKING:
    from aiohttp import ClientResponse, StreamReader

__all__ = ["DEFAULT_GATEWAY", "query"]

DEFAULT_GATEWAY = f"http://{GATEWAY}"
CONNECT_TIMEOUT_S = 5.0
SHOWN_HEADERS = (
    AnswerHeader.MODEL,
    AnswerHeader.FACILITY,
    AnswerHeader.PATH,
    AnswerHeader.TOPIC,
    AnswerHeader.STRATEGY,
    AnswerHeader.COST_USD,
    AnswerHeader.OVERHEAD_MS,
    AnswerHeader.DECISION,
)
"""Headers of an answer to display."""


def query(
    text: Annotated[str, typer.Argument(help="The question; `-` reads standard input.")],
    model: Annotated[
        str, typer.Option(help="A model's name, `name@site`, `auto`, or `auto:<topic>`.")
    ] = AUTO,
    topic: Annotated[str, typer.Option(help="Its topic; inferred if not given.")] = "",
    min_accuracy: Annotated[
        float | None, typer.Option(help="Verified accuracy on the topic, 0 to 1.")
    ] = None,
    trust: Annotated[Trust, typer.Option(help="Minimum trust in that accuracy.")] = Trust.WEIGHTS,
    max_latency: Annotated[
        float | None, typer.Option(help="Seconds until the answer is complete.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Highest expected cost, USD.")] = None,
    jurisdiction: Annotated[
        list[str] | None, typer.Option(help="Where it may be answered; repeatable.")
    ] = None,
    privacy: Annotated[Privacy, typer.Option(help="Where the text may go.")] = Privacy.ANY,
    strategy: Annotated[Strategy, typer.Option(help="How many models answer.")] = Strategy.SINGLE,
    autonomous: Annotated[
        bool | None,
        typer.Option(
            "--autonomous/--routed",
            help="Whether it travels as a packet; by default as in the gateway's file.",
        ),
    ] = None,
    sealed_to: Annotated[
        str | None, typer.Option(help="For a packet: the only class of receivers that can read it.")
    ] = None,
    sealed: Annotated[
        bool,
        typer.Option(
            "--sealed",
            help="Only the facility that answers can read it; state the topic if it matters.",
        ),
    ] = False,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum number of tokens of the answer.")
    ] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Of the answer.")] = 0.0,
    gateway: Annotated[
        str, typer.Option(envvar="DAITN_GATEWAY", help="Address of the gateway.")
    ] = DEFAULT_GATEWAY,
    key: Annotated[
        str, typer.Option(envvar="DAITN_API_KEY", help="API key, if the gateway requires one.")
    ] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole answer as JSON, with its headers.")
    ] = False,
) -> None:
    """Ask the network a question through a gateway.

    Exit code: 0 answered, 2 bad input, 3 not feasible or refused, 4 nobody answers.

    Examples:

      daitn query "What causes migraine?"

      daitn query "What causes migraine?" --topic medicine/neurology --min-accuracy 0.9
    """
    constraints: dict[str, Any] = {
        "topic": topic,
        "min_accuracy": min_accuracy,
        "trust": trust,
        "deadline_s": max_latency,
        "max_cost_usd": max_cost,
        "jurisdictions": jurisdiction or [],
        "privacy": privacy,
        "strategy": strategy,
        "autonomous": autonomous,
        "sealed_to": sealed_to,
    }
    body = {
        "model": model,
        "messages": [{"role": "user", "content": run(_read()) if text == "-" else text}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": not as_json,
        "daitn": {name: wish for name, wish in constraints.items() if wish is not None},
    }
    if sealed:
        run(_query_sealed(gateway, key, {**body, "stream": False}, center, as_json))
    else:
        run(_query(gateway, key, body, center, as_json))


async def _read() -> str:
    with contextlib.suppress(UnicodeDecodeError):
        # In some locales, Python reads other bytes as halves of surrogate pairs.
        if encodable(text := sys.stdin.read()):
            return text
    raise InvalidInput("standard input is not UTF-8 text", field="TEXT", fix="convert it to UTF-8")


async def _query(gateway: str, key: str, body: dict[str, Any], center: str, as_json: bool) -> None:
    async with _asking(gateway, key, center) as post, post(body) as answer:
        shown = _shown_headers(answer)
        if as_json:
            _print_whole(await answer.read(), shown)
            return
        async for piece in _pieces(answer.content):
            sys.stdout.write(escaped(piece))
            sys.stdout.flush()
        _end_text(shown)


async def _query_sealed(
    gateway: str, key: str, body: dict[str, Any], center: str, as_json: bool
) -> None:
    roster = network_of(center) / ROSTER
    async with _asking(gateway, key, center) as post:
        async with post(choosing(body)) as choice:
            outer, query = seal_for(body, await choice.read(), roster, key)
        async with post(outer) as answer:
            shown, opened = _shown_headers(answer), query.open(await answer.read())
    if as_json:
        _print_whole(opened, shown)
        return
    for choice_ in answers(opened) or ():
        sys.stdout.write(escaped((choice_.message and choice_.message.text) or ""))
    _end_text(shown)


def _print_whole(answer: bytes, shown: dict[str, str]) -> None:
    print_json(to_json({"answer": msgspec.json.decode(answer), "daitn": shown}))


def _end_text(shown: dict[str, str]) -> None:
    sys.stdout.write("\n")
    line = "  ".join(f"{name} {value}" for name, value in shown.items())
    errors.print(Text(line, style="dim"), highlight=False)


def _shown_headers(answer: ClientResponse) -> dict[str, str]:
    headers = answer.headers
    return {
        header.removeprefix("daitn-"): headers[header]
        for header in SHOWN_HEADERS
        if header in headers
    }


PostRequest = Callable[[Mapping[str, Any]], AbstractAsyncContextManager["ClientResponse"]]


@asynccontextmanager
async def _asking(gateway: str, key: str, center: str) -> AsyncIterator[PostRequest]:
    """Posts requests to a gateway, in the network of a control centre.

    Raises `DaitnError` for its errors, and where it is away.
    """
    # Imported here, because it would delay the start of every other command by a tenth of a second.
    import aiohttp

    if key:
        check_endpoint("--gateway (DAITN_GATEWAY)", gateway)
    headers = {"content-type": JSON, **({"authorization": f"Bearer {key}"} if key else {})}
    # In addition to public authorities, the network's own, from which only a gateway's certificate
    # counts.
    trusted = trusting_members(tls_folder(center), partial(_is_gateway, center))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted), timeout=timeout
        ) as session:

            @asynccontextmanager
            async def post(body: Mapping[str, Any]) -> AsyncIterator[ClientResponse]:
                url = f"{gateway.rstrip('/')}/v1/chat/completions"
                data = msgspec.json.encode(body)
                send = partial(session.post, url, data=data, headers=headers)
                try:
                    answer = await send()
                except aiohttp.ClientConnectorCertificateError:
                    await _refresh(center)  # The gateway may have been admitted lately.
                    answer = await send()
                async with answer:
                    if answer.status != 200:
                        raise _refused(answer.status, await answer.read())
                    yield answer

            yield post
    except aiohttp.ClientConnectorCertificateError as error:
        raise Unreachable(
            f"the gateway at {gateway} presents an untrusted certificate: "
            f"{error.certificate_error}",
            field="--gateway (DAITN_GATEWAY)",
            fix="set DAITN_NETWORK to the folder of its network, and check with `daitn network "
            "roster` whether it is a gateway there",
        ) from None
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
        raise Unreachable(
            f"the gateway at {gateway} does not answer: {error}",
            field="--gateway (DAITN_GATEWAY)",
            fix="see `daitn get nodes` for gateways, and check that this one is running",
        ) from None
    except aiohttp.InvalidURL:
        raise InvalidInput(
            f"{gateway} is not an address",
            field="--gateway",
            fix=f"write it like {DEFAULT_GATEWAY}",
        ) from None


def _is_gateway(center: str, key: str) -> bool:
    """Whether the roster of the network's folder has this key as a gateway's."""
    try:
        members = read_roster(network_of(center) / ROSTER).opened().current(clock.wall_s())
    except NotFound:
        return False
    member = members.get(key)
    return member is not None and Role.GATEWAY in member.roles


async def _refresh(center: str) -> None:
    """Ask the control centre for a newer roster, if it answers."""
    with contextlib.suppress(DaitnError):
        async with carrier(center) as fabric:
            await refresh_roster(center, fabric, tell=False)


async def _pieces(stream: StreamReader) -> AsyncIterator[str]:
    """The text of a streamed answer, as it arrives."""
    async for line in stream:
        data = line.strip().removeprefix(b"data: ")
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        if (failure := read_error(data)) is not None:
            raise WorkFailed(failure.message or "the answer broke off")
        for choice in answers(data) or ():
            yield (choice.delta and choice.delta.text) or ""


def _refused(status: int, body: bytes) -> DaitnError:
    """The gateway's error as an error of the command line, with its exit code."""
    failure = read_error(body)
    if failure is None:
        return WorkFailed(f"the gateway answered {status} without an OpenAI-style error")
    relaxations = (failure.daitn or {}).get("relaxations", ())
    helps = [f"{r.get('field')}: {r.get('proposed')}" for r in relaxations]
    fix = f"any one of these helps: {'; '.join(helps)}" if helps else ""
    field = failure.param or ""
    if failure.code in ("infeasible", "context_length_exceeded"):
        return Infeasible(failure.message, field=field, fix=fix)
    if status == 404:
        return NotFound(failure.message, field=field, fix="see `daitn get models`")
    if status in (401, 403, 429):
        return Refused(failure.message, field=field, fix=fix or "give a valid --key, or wait")
    if failure.code == "misconfigured":
        return Unreachable(failure.message, field=field, fix="tell the owner of the deployment")
    if status >= 500:
        return Unreachable(failure.message, field=field, fix="try again later")
    return InvalidInput(failure.message, field=field, fix=fix or "correct it, see --help")
