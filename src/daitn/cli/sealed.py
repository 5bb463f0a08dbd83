"""Seals a query to the facility that a gateway chooses, checked against the network's roster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from daitn.identity.grants import GrantBook, read_signed, split_token
from daitn.identity.roster import read_roster
from daitn.identity.sealed import SealedQuery, seal_query
from daitn.objects.deployments import DeploymentDescriptor
from daitn.objects.errors import Corrupt, InvalidInput, Refused, WorkFailed
from daitn.objects.grants import Mandate, SealingKey, full_name
from daitn.objects.queries import AUTO
from daitn.objects.roster import Kind
from daitn.tools import clock
from daitn.tools.entitled import check_bare_name, check_deployment

__all__ = ["choosing", "sealed"]

_CONSTRAINTS = ("jurisdictions", "owners")


class _Choice(msgspec.Struct):
    model: str
    sealing: str
    deployment: DeploymentDescriptor


def choosing(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request for a gateway's choice of deployment: the constraints, without the text.

    Raises `InvalidInput` for constraints of several deployments.
    """
    constraints = {**body.get("daitn", {}), "choose_only": True}
    if constraints.get("strategy", "single") != "single" or constraints.get("autonomous"):
        raise InvalidInput(
            "a query can be sealed to one facility only",
            field="--sealed",
            fix="ask with --strategy single, and without --autonomous",
        )
    plain = {name: body[name] for name in ("model", "max_tokens") if name in body}
    return {**plain, "messages": _NOTHING, "daitn": constraints}


def sealed(
    body: Mapping[str, Any], choice: bytes, roster: Path, token: str = ""
) -> tuple[dict[str, Any], SealedQuery]:
    """The request to send through the gateway, and the key that opens its answer.

    The facility's key is its own by the roster in this file, which also says whether it is where
    and whose the constraints want. What its owner signed entitles it to the name that is asked for.
    `token`: with which the gateway is asked; its owner's own model may go by its bare name.
    Raises `Refused`, `Corrupt`, `WorkFailed` or `NotFound`.
    """
    try:
        chosen = msgspec.json.decode(choice, type=_Choice)
    except msgspec.DecodeError:
        raise WorkFailed("the gateway chose no facility to which a query can be sealed") from None
    current = read_roster(roster).opened(now_s := clock.wall_s())
    members = current.current(now_s)
    signed = read_signed(chosen.sealing)
    book = GrantBook(current.network, lambda: members, clock.wall_s)
    key = book.read(signed, SealingKey)
    model, _, site = chosen.model.partition("@")
    name, _, pinned = str(body["model"]).partition("@")
    if site != key.site or pinned not in ("", site):
        raise Refused(
            f"the gateway chose {site}, but presented the key of {key.site}", field="sealing"
        )
    facility = next(m for m in members.values() if (m.kind, m.name) == (Kind.SITE, site))
    deployment = chosen.deployment
    title = full_name(deployment.owner, model)
    check_deployment(book, deployment, site, facility.owner, facility.jurisdiction)
    asked_for = name.partition(":")[0] == AUTO or name in (model, title)
    if deployment.name != model or not asked_for:
        raise Refused(f"the gateway chose {title} for {name}", field="model")
    if name == model and not pinned and _owner(book, token) != deployment.owner:
        check_bare_name(book, deployment)
    _check("jurisdictions", facility.jurisdiction, body)
    _check("owners", facility.owner, body)
    inner = {name: value for name, value in body.items() if name != "daitn"}
    query = seal_query(msgspec.json.encode({**inner, "stream": False}), chosen.model, key)
    outer = {
        "model": f"{model}@{site}",
        "messages": _NOTHING,
        "max_tokens": body.get("max_tokens"),
        "daitn": {
            wish: value for wish, value in body.get("daitn", {}).items() if wish in _CONSTRAINTS
        },
        "sealed": query.text,
    }
    return outer, query


def _owner(book: GrantBook, token: str) -> str:
    """The owner of the token; empty means none."""
    try:
        return book.read(read_signed(split_token(token)[1]), Mandate).owner
    except (Refused, Corrupt):
        return ""


def _check(constraint: str, has: str, body: Mapping[str, Any]) -> None:
    wanted: Collection[str] = body.get("daitn", {}).get(constraint) or (has,)
    if has not in wanted:
        raise Refused(
            f"the gateway chose a facility of {has}",
            field=f"daitn.{constraint}",
            fix="ask through another gateway",
        )


_NOTHING = [{"role": "user", "content": "sealed"}]
