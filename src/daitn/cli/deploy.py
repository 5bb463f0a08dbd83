"""`daitn deploy` and `daitn retire`: which trained models answer queries, and where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated

import msgspec
import typer

from daitn.cli.identity import site_keys
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    Session,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import deployment_table, placement_table, places_words
from daitn.identity.grants import sign_statement
from daitn.identity.orders import OrderBook
from daitn.identity.signing import check_model
from daitn.objects.access import narrowed
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.errors import InvalidInput, Refused, Unreachable
from daitn.objects.grants import DeploymentGrant
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.lineage import Merge, Origin, Visit, ancestry, descent, released
from daitn.objects.moments import DAY_S
from daitn.objects.placement import (
    AUTO_REPLICAS,
    DeployIntent,
    DeploymentList,
    DeploymentView,
    PlacementView,
    RetireIntent,
)
from daitn.objects.requests import EVERYTHING, JobQuery, ModelList, TrainedModel
from daitn.objects.wire import to_json
from daitn.tools import clock
from daitn.tools.fabric.identity import Identity

__all__ = ["check_trained", "deploy", "retire"]

READY_WITHIN_S = 120.0
GRANT_DAYS = 365.0
LOOK_EVERY_S = 0.2


def deploy(
    model: Annotated[str, typer.Argument(help="A trained model: the id of its job.")] = "",
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Facility that serves it; repeatable. By default the control centre chooses."
        ),
    ] = None,
    replicas: Annotated[
        str,
        typer.Option(help="Number of replicas if no facility is named; `auto` means by demand."),
    ] = "1",
    name: Annotated[
        str,
        typer.Option(
            "--as",
            help="Name for queries; by default the model's. A model that already has the name is "
            "replaced without a gap.",
        ),
    ] = "",
    price_in: Annotated[float, typer.Option(min=0.0, help="USD per 1,000 prompt tokens.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0.0, help="USD per 1,000 answer tokens.")] = 0.0,
    asker: Annotated[
        list[str] | None,
        typer.Option(help="Query owner who may query it; repeatable. By default everybody."),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only show what the deployment optimiser would now change for models deployed "
            "with --replicas auto, and why.",
        ),
    ] = False,
    days: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=366.0,
            help="Validity of the owner's signature in days; deploy again before it expires.",
        ),
    ] = GRANT_DAYS,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is ready everywhere.")
    ] = False,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Deploy a trained model to answer queries.

    Examples:

      daitn deploy healthcare-1 --replicas 2 --wait

      daitn deploy healthcare-2 --as healthcare-1 --to mdf-east
    """
    if plan:
        view = run(_plan(center))
        print_json(to_json(view)) if as_json else screen.print(placement_table(view))
        return
    intent = DeployIntent(
        model=model,
        name=name,
        to=tuple(dict.fromkeys(SiteId(site) for site in to or ())),
        replicas=_replicas(replicas),
        price_usd_per_1k_in=price_in,
        price_usd_per_1k_out=price_out,
        askers=tuple(asker or ("*",)),
    )
    deployed = run(_deploy(center, intent, days, wait))
    print_json(to_json(deployed)) if as_json else screen.print(deployment_table(deployed))


def retire(
    name: Annotated[str, typer.Argument(help="The deployment's name.")],
    site: Annotated[str | None, typer.Option("--from", help="Only at this facility.")] = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Retire a model, after it has answered its queries in flight.

    Example: daitn retire healthcare-1 --from mdf-east
    """
    if site == "":  # Of a script whose variable is empty; it does not mean everywhere.
        raise typer.BadParameter("it is empty: name a facility", param_hint="--from")
    view = run(_retire(center, RetireIntent(name=name, site=SiteId(site) if site else None)))
    print_json(to_json(view)) if as_json else screen.print(deployment_table(view))


def _replicas(value: str) -> int:
    if value == "auto":
        return AUTO_REPLICAS
    if value.isdecimal() and 1 <= int(value) <= 256:
        return int(value)
    raise typer.BadParameter("give a number from 1 to 256, or auto", param_hint="--replicas")


async def _deploy(center: str, intent: DeployIntent, days: float, wait: bool) -> DeploymentView:
    if not intent.model:
        raise InvalidInput("no model is named", field="MODEL", fix="see `daitn get models`")
    async with connect(center) as session:
        listed = await session.ask("models", EVERYTHING, ModelList)
        model = next((model for model in listed.models if model.name == intent.model), None)
    owner = model.owner if model else ""
    async with connect(center, owner=owner) as session:
        if model is not None and session.identity is not None:
            trained = await session.ask("lineage", JobQuery(job=JobId(model.name)), TrainedModel)
            check_trained(model, trained, session.identity.orders(), site_keys(center))
            intent = _signed(intent, model, days, session.identity)
        view = await session.ask("deploy", intent, DeploymentView)
        return await _ready(session, view) if wait else view


def check_trained(
    model: ModelDescriptor,
    trained: TrainedModel,
    orders: OrderBook,
    keys: Mapping[SiteId, str] | None = None,
) -> None:
    """Raise `Refused` or `Corrupt` unless a model resulted from its owner's order, according to its
    signed lineage, or is the start model of the order. `keys`: the sites'; without them, those of
    the sites that `orders` knows.

    The control centre says what the model is, and its owner is about to sign that.
    """
    order = orders.read(trained.order, ended=True)
    assert trained.order is not None
    lineage = ancestry(trained.lineage, model.manifest)
    check_model(lineage, model.manifest, keys or orders.sites())
    steps = descent(lineage.entries, model.manifest)
    last = steps[-1].fact if steps else None
    ordered = order.intent
    came = isinstance(last, Visit | Origin | Merge) and last.order == trained.order.digest
    brought = last is None and order.start == model.manifest
    if (ordered.owner, ordered.model.recipe, ordered.model.config) != (
        model.owner,
        model.recipe,
        model.config,
    ):
        problem = "was ordered with another recipe or configuration"
    elif not (came or brought):
        problem = "did not come of its owner's order"
    elif set(narrowed(model.release_to, released(steps))) != set(model.release_to):
        problem = "may not travel as far as the control centre says"
    else:
        return
    raise Refused(f"{model.name} {problem}", field="model", fix="do not deploy it; train it again")


def _signed(
    intent: DeployIntent, model: ModelDescriptor, days: float, identity: Identity
) -> DeployIntent:
    """The intent with the owner's signature that these weights answer under this name, on its
    terms."""
    now_s = clock.wall_s()
    grant = DeploymentGrant(
        network=identity.network,
        owner=model.owner,
        name=intent.name or intent.model,
        manifest=model.manifest,
        terms=intent.terms(model).digest,
        sites=intent.to,
        issued_at_s=now_s,
        until_s=now_s + days * DAY_S,
    )
    return msgspec.structs.replace(intent, grant=sign_statement(grant, identity.key))


async def _ready(session: Session, view: DeploymentView) -> DeploymentView:
    until_s = time.monotonic() + READY_WITHIN_S
    with screen.status(f"deploying {view.name}"):
        while not view.ready:
            if time.monotonic() > until_s:
                raise Unreachable(
                    f"{view.name} does not answer everywhere after {READY_WITHIN_S:g} s: "
                    f"{places_words(view)}",
                    fix="see the facilities' logs; deployment continues in the background",
                )
            await asyncio.sleep(LOOK_EVERY_S)
            listed = await session.ask("deployments", EVERYTHING, DeploymentList)
            view = next((v for v in listed.deployments if v.name == view.name), view)
    return view


async def _retire(center: str, intent: RetireIntent) -> DeploymentView:
    async with connect(center) as session:
        return await session.ask("retire", intent, DeploymentView)


async def _plan(center: str) -> PlacementView:
    async with connect(center) as session:
        return await session.ask("placement", EVERYTHING, PlacementView)
