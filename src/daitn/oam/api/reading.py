"""Handlers of reads: one function for each route of the table, in its order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from daitn.oam.api.answers import NetworkView
from daitn.oam.api.asking import Asked
from daitn.oam.api.events import EVENT_ID
from daitn.oam.api.pagination import bad_cursor, cursor_of, page_of, read_cursor
from daitn.oam.report.facts import gather
from daitn.oam.report.page import page
from daitn.objects.accounts import MOST, AccountQuestion
from daitn.objects.cordons import CordonQuestion
from daitn.objects.descriptors import Role
from daitn.objects.errors import DaitnError, NotFound
from daitn.objects.identifiers import JobId, SiteId, is_name
from daitn.objects.intents import TrainingIntent
from daitn.objects.requests import (
    EVERYTHING,
    AssessIntent,
    ExplainQuery,
    JobQuery,
    JobsWanted,
    NetworkFacts,
    QueriesWanted,
    SitesWanted,
)
from daitn.objects.steering import Steer, TraceQuestion
from daitn.objects.value import ValueQuestion
from daitn.tools import clock

__all__ = [
    "advice",
    "analysis",
    "assess",
    "audit",
    "cut",
    "decisions",
    "deployment",
    "deployments",
    "forwarder",
    "history",
    "intent",
    "job",
    "jobs",
    "lineage",
    "models",
    "network",
    "occupancy",
    "placement",
    "queries",
    "query",
    "relevant",
    "report",
    "served",
    "serving",
    "site",
    "sites",
    "trace",
    "training",
    "traveller",
    "traveller_report",
    "travelling",
    "value",
]

_MOST_GATEWAYS = 64


async def network(asked: Asked) -> NetworkView:
    """The network, this control centre, and the caller."""
    facts = await asked.read("network", EVERYTHING, NetworkFacts)
    known = {name: getattr(facts, name) for name in facts.__struct_fields__}
    return NetworkView(**known, you=asked.by.you, at_s=clock.now_s())


async def sites(asked: Asked) -> Any:
    """The sites, by name, each with its descriptor and load."""
    wanted = SitesWanted(
        limit=asked.query["limit"],
        after=_after_name(asked),
        alive=asked.query["alive"],
        role=asked.query["role"],
        owner=asked.query["owner"],
    )
    found = await asked.ask("sites", wanted)
    last = found["nodes"][-1]["descriptor"]["site"] if found["more"] else ""
    return _page(found["nodes"], found["more"], last)


async def site(asked: Asked) -> Any:
    """One site."""
    wanted = SitesWanted(only=SiteId(asked.path["site"]))
    return (await asked.ask("sites", wanted))["nodes"][0]


async def occupancy(asked: Asked) -> Any:
    """A site's cordon, and what is still in progress there; if nothing is left, the site may be
    stopped."""
    return await asked.ask_site(asked.path["site"], "cordon", CordonQuestion())


async def training(asked: Asked) -> Any:
    """The whole DRRT."""
    return await asked.ask("topology", EVERYTHING)


async def serving(asked: Asked) -> Any:
    """The whole QRRT."""
    return await asked.ask("qrrt", EVERYTHING)


async def analysis(asked: Asked) -> Any:
    """The DRRT in numbers."""
    return await asked.ask("analysis", EVERYTHING)


async def jobs(asked: Asked) -> Any:
    """Jobs, newest first, in a few lines each."""
    after = _after_name(asked)
    wanted = JobsWanted(
        limit=asked.query["limit"],
        before=JobId(after) if after else None,
        owner=asked.query["owner"],
        state=asked.query["state"],
    )
    found = await asked.ask("summaries", wanted)
    last = found["jobs"][-1]["job"] if found["more"] else ""
    return _page(found["jobs"], found["more"], last)


async def job(asked: Asked) -> Any:
    """One job, with its route, plan and last decision."""
    return (await asked.ask("jobs", _job(asked)))["jobs"][0]


async def intent(asked: Asked) -> Any:
    """Its intent."""
    return await asked.ask("intent", _job(asked))


async def decisions(asked: Asked) -> Any:
    """Every decision on its route, oldest first."""
    made = (await asked.ask("decisions", _job(asked)))["decisions"]
    return page_of(made, lambda one: f"{one['number']:012}", asked.query["limit"], _cursor(asked))


async def lineage(asked: Asked) -> Any:
    """Everything known about its best model."""
    return await asked.ask("lineage", _job(asked))


async def value(asked: Asked) -> Any:
    """What each data set contributed to its best model."""
    return await asked.ask("value", ValueQuestion(job=JobId(asked.path["job"])))


async def report(asked: Asked) -> Any:
    """Everything about it on one self-contained page, to read, print and share."""
    job = JobId(asked.path["job"])
    facts = await gather(job, asked.read, asked.center.site_keys())
    return await asyncio.to_thread(page, facts)


async def relevant(asked: Asked) -> Any:
    """Its MS-DRRT now: data sets and verifiers that can serve it, and why others cannot."""
    wanted = await asked.read("intent", _job(asked), TrainingIntent)
    found = await asked.ask("relevant", AssessIntent(intent=wanted))
    topology = found.pop("topology")
    return {"version": topology["version"], "at_s": topology["at_s"], **found}


async def assess(asked: Asked) -> Any:
    """Check whether an intent is feasible, without starting anything."""
    return await asked.ask("assess", asked.body)


async def models(asked: Asked) -> Any:
    """Models that jobs left in the network, by name."""
    found = (await asked.ask("models", EVERYTHING))["models"]
    found.sort(key=lambda model: model["name"])
    return page_of(found, lambda model: model["name"], asked.query["limit"], _cursor(asked))


async def served(asked: Asked) -> Any:
    """Deployments at facilities, by name and site, with accuracy and speed."""
    found = (await asked.ask("served", EVERYTHING))["models"]
    found.sort(key=_at_facility)
    return page_of(found, _at_facility, asked.query["limit"], _cursor(asked))


async def placement(asked: Asked) -> Any:
    """What the deployment optimiser would now change."""
    return await asked.ask("placement", EVERYTHING)


async def deployments(asked: Asked) -> Any:
    """Desired deployments and their state at facilities, by name."""
    found = (await asked.ask("deployments", EVERYTHING))["deployments"]
    return page_of(found, lambda one: one["name"], asked.query["limit"], _cursor(asked))


async def deployment(asked: Asked) -> Any:
    """One deployment."""
    found = (await asked.ask("deployments", EVERYTHING))["deployments"]
    name = asked.path["name"]
    for one in found:
        if one["name"] == name:
            return one
    raise NotFound(f"there is no deployment {name}", field="name", fix="see `daitn get models`")


async def queries(asked: Asked) -> Any:
    """The latest queries of the gateways, newest first, without their texts.

    Gateways that do not answer are left out.
    """
    limit, gateway = asked.query["limit"], asked.query["gateway"]
    before = _place(asked)
    wanted = QueriesWanted(limit=limit + 1, owner=asked.query["owner"], before=before)
    if gateway:
        found = (await asked.ask_site(gateway, "queries", wanted))["queries"]
    else:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(_of(asked, name, wanted)) for name in _gateways(asked)]
        found = [one for task in asking for one in task.result()]
        found.sort(key=_when, reverse=True)
    if before is not None:  # An older gateway does not know the word.
        found = [one for one in found if _when(one) < before]
    more = len(found) > limit
    found = found[:limit]
    last = f"{found[-1]['asked_at_s']!r} {found[-1]['id']}" if more else ""
    return _page(found, more, last)


async def query(asked: Asked) -> Any:
    """A query and its decision, recomputed with every term and rejection, or why there is none."""
    gateway, id_ = asked.path["gateway"], asked.path["id"]
    return await asked.ask_site(gateway, "explain", ExplainQuery(query=f"{gateway}:{id_}"))


async def cut(asked: Asked) -> Any:
    """The QS-QRRT of a hypothetical query: who could answer it through a gateway, and who could
    not."""
    return await asked.ask_site(asked.path["gateway"], "cut", asked.body)


async def forwarder(asked: Asked) -> Any:
    """The state of a forwarder: its mode, links and origins."""
    return await asked.ask_site(asked.path["site"], "forwarder", EVERYTHING)


async def trace(asked: Asked) -> Any:
    """The path of a packet from its first forwarder, and what each forwarder knew."""
    try:
        question = msgspec.convert({"object": asked.path["object"]}, TraceQuestion)
    except msgspec.ValidationError:
        raise NotFound(
            "no packet has such an id", field="object", fix="use `object_id` of a query"
        ) from None
    return await asked.ask_site(asked.path["site"], "trace", question)


async def advice(asked: Asked) -> Any:
    """The control centre's advice to forwarders."""
    return await asked.ask("steer", Steer())


async def travelling(asked: Asked) -> Any:
    """Jobs of travelling models, at their home, by id."""
    found = (await asked.ask_site(asked.path["site"], "jobs", EVERYTHING))["jobs"]
    found.sort(key=lambda job: job["job"])
    return page_of(found, lambda job: job["job"], asked.query["limit"], _cursor(asked))


async def traveller(asked: Asked) -> Any:
    """One such job."""
    return (await asked.ask_site(asked.path["site"], "jobs", _job(asked)))["jobs"][0]


async def traveller_report(asked: Asked) -> Any:
    """Everything about one on one page, like `report`."""
    job, ask = JobId(asked.path["job"]), partial(asked.read_site, asked.path["site"])
    facts = await gather(job, ask, asked.center.site_keys(), ask_center=asked.read)
    return await asyncio.to_thread(page, facts)


async def history(asked: Asked) -> Any:
    """Recent events, newest first; a restarted control centre has forgotten earlier ones."""
    limit, kind, after = asked.query["limit"], asked.query["kind"], _after(asked)
    if after and not EVENT_ID.fullmatch(after):
        raise bad_cursor()
    before = asked.log.place(after) if after else None
    if after and before is None:
        return _page([])
    found = asked.log.past(limit + 1, before, asked.by.sees, kind)
    more = len(found) > limit
    return _page(found[:limit], more, found[limit - 1].id if more else "")


async def audit(asked: Asked) -> Any:
    """The state of sites' audit logs when the control centre last signed them, by site."""
    found = (await asked.ask("witnessed", EVERYTHING))["heads"]
    return page_of(found, lambda head: head["site"], asked.query["limit"], _cursor(asked))


def _when(query: dict[str, Any]) -> tuple[float, str]:
    return query["asked_at_s"], query["id"]


def _gateways(asked: Asked) -> list[SiteId]:
    """Connected gateways, by name."""
    sites = asked.center.snapshot().sites.items()
    names = [name for name, one in sites if one.alive and Role.GATEWAY in one.descriptor.roles]
    return sorted(names)[:_MOST_GATEWAYS]


def _place(asked: Asked) -> tuple[float, str] | None:
    """The query after which a page begins: its time and id."""
    at_s, _, id_ = _after(asked).partition(" ")
    if not at_s:
        return None
    try:
        asked_at_s = float(at_s)
    except ValueError:
        raise bad_cursor() from None
    if not (math.isfinite(asked_at_s) and id_):
        raise bad_cursor()
    return asked_at_s, id_


async def accounts(asked: Asked) -> Any:
    """Accounts, with what each paid and earned, by name; owners see their own."""
    found = (await asked.ask("accounts", _account(asked)))["accounts"]
    return page_of(found, lambda one: one["account"], asked.query["limit"], _cursor(asked))


async def ledger(asked: Asked) -> Any:
    """Entries of the ledger, oldest first; owners see those on their own accounts."""
    after = _after(asked)
    if after and not (after.isascii() and after.isdecimal()):
        raise bad_cursor()
    question = _account(asked, after=int(after or "0"))
    found = await asked.ask("ledger", question)
    last = found["next"]
    return _page(found["lines"], last is not None, str(last))


async def usage(asked: Asked) -> Any:
    """What gateways report about answers, beside what facilities report about the same ones."""
    question = AccountQuestion(account=asked.query["account"] or "")
    found = (await asked.ask("metered", question))["compared"]
    return page_of(found, _compared, asked.query["limit"], _cursor(asked))


def _account(asked: Asked, after: int = 0) -> AccountQuestion:
    query = asked.query
    return AccountQuestion(
        account=query["account"] or "",
        from_s=query["from_s"],
        to_s=query["to_s"],
        after=min(after, MOST),
        limit=query["limit"],
    )


def _compared(one: Mapping[str, Any]) -> str:
    return "\n".join(one[name] for name in ("gateway", "facility", "owner", "model"))


async def _of(asked: Asked, gateway: SiteId, wanted: QueriesWanted) -> list[Any]:
    try:
        found: list[Any] = (await asked.ask_site(gateway, "queries", wanted))["queries"]
    except DaitnError:
        return []  # A gateway that is just leaving must not hide the others'.
    return found


def _job(asked: Asked) -> JobQuery:
    return JobQuery(job=JobId(asked.path["job"]))


def _cursor(asked: Asked) -> str | None:
    cursor: str | None = asked.query["cursor"]
    return cursor


def _after(asked: Asked) -> str:
    """The key after which a page begins; empty means the first page."""
    cursor = _cursor(asked)
    return read_cursor(cursor) if cursor else ""


def _after_name(asked: Asked) -> str:
    """Likewise, of a list by the names of sites or jobs."""
    after = _after(asked)
    if after and not is_name(after):
        raise bad_cursor()
    return after


def _page(items: list[Any], more: bool = False, last: str = "") -> dict[str, Any]:
    return {"items": items, "next": cursor_of(last) if more else None}


def _at_facility(model: dict[str, Any]) -> str:
    return f"{model['name']}@{model['site']}"
