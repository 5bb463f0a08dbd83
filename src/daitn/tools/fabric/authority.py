"""Who may do what on a signed fabric, in one table. Everything else is refused.

The table speaks of members of the roster and of keys (`keys.py`). Whose job, model or deployment a
request is about is checked where it is handled (`caller.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from daitn.identity.envelopes import Purpose
from daitn.objects.descriptors import Role
from daitn.objects.identifiers import CENTER_SITE, is_name
from daitn.objects.roster import Kind, Member

__all__ = ["CENTER_READING", "CENTER_VERBS", "READING", "SITE_VERBS", "SiteVerb", "allowed"]

_Kinds = frozenset[Kind]

_CENTER: Final = frozenset({Kind.CENTER})
_SITES: Final = frozenset({Kind.SITE})
_OPERATORS: Final = frozenset({Kind.OPERATOR})
_PEOPLE: Final = frozenset({Kind.OWNER, Kind.OPERATOR})
_ALL: Final = frozenset(Kind)

CENTER_VERBS: Final[Mapping[str, _Kinds]] = {
    "submit": _PEOPLE,
    "assess": _PEOPLE,
    "jobs": _PEOPLE,
    "decisions": _PEOPLE,
    "lineage": _PEOPLE,
    "value": _PEOPLE | _SITES,
    "cancel": _PEOPLE,
    "resume": _PEOPLE,
    "models": _PEOPLE,
    "nodes": _PEOPLE,
    "topology": _PEOPLE,
    "relevant": _PEOPLE,
    "analysis": _PEOPLE,
    "report": _SITES,
    "name": _SITES,
    "store": _PEOPLE,
    "stored": _PEOPLE,
    "deploy": _PEOPLE,
    "retire": _PEOPLE,
    "deployments": _PEOPLE,
    "placement": _PEOPLE,
    "served": _PEOPLE,
    "qrrt": _PEOPLE,
    "steer": _OPERATORS,
    "certify": _ALL,
    "network": _PEOPLE,
    "summaries": _PEOPLE,
    "intent": _PEOPLE,
    "sites": _PEOPLE,
    "witnessed": _OPERATORS,
    "usage": _SITES,
    "travelled": _SITES,
    "accounts": _PEOPLE | _SITES,
    "ledger": _PEOPLE | _SITES,
    "metered": _PEOPLE | _SITES,
}
"""Who may send each request to a control centre."""

CENTER_READING: Final = frozenset(
    {
        "assess",
        "jobs",
        "decisions",
        "lineage",
        "models",
        "nodes",
        "topology",
        "relevant",
        "analysis",
        "stored",
        "deployments",
        "placement",
        "served",
        "qrrt",
        "network",
        "summaries",
        "intent",
        "sites",
        "witnessed",
        "accounts",
        "ledger",
        "metered",
    }
)
"""Requests of people that never change anything there."""


class SiteVerb(NamedTuple):
    """A request to a site."""

    senders: frozenset[Kind]
    role: Role | None = None
    """The role that a site needs to answer it; `None` means any site does."""


SITE_VERBS: Final[Mapping[str, SiteVerb]] = {
    "describe": SiteVerb(_ALL),
    "cordon": SiteVerb(_PEOPLE),
    "estimate": SiteVerb(_CENTER),
    "work": SiteVerb(_CENTER),
    "status": SiteVerb(_CENTER),
    "stop": SiteVerb(_CENTER),
    "retain": SiteVerb(_CENTER),
    "chunk": SiteVerb(_ALL),
    "behalf": SiteVerb(_CENTER),
    "join": SiteVerb(_SITES, Role.DATA),
    "sum": SiteVerb(_SITES, Role.DATA),
    "deploy": SiteVerb(_CENTER, Role.FACILITY),
    "retire": SiteVerb(_CENTER, Role.FACILITY),
    "queries": SiteVerb(_PEOPLE, Role.GATEWAY),
    "explain": SiteVerb(_PEOPLE, Role.GATEWAY),
    "cut": SiteVerb(_PEOPLE, Role.GATEWAY),
    "forwarder": SiteVerb(_PEOPLE, Role.FORWARDER),
    "probe": SiteVerb(_PEOPLE, Role.FORWARDER),
    "trace": SiteVerb(_PEOPLE, Role.FORWARDER),
    "steer": SiteVerb(_OPERATORS, Role.FORWARDER),
    "attested": SiteVerb(_ALL, Role.VERIFIER),
    "submit": SiteVerb(_PEOPLE, Role.FORWARDER),
    "assess": SiteVerb(_PEOPLE, Role.FORWARDER),
    "jobs": SiteVerb(_PEOPLE, Role.FORWARDER),
    "decisions": SiteVerb(_PEOPLE, Role.FORWARDER),
    "lineage": SiteVerb(_PEOPLE, Role.FORWARDER),
    "cancel": SiteVerb(_PEOPLE, Role.FORWARDER),
}
"""Who may send each request to a site. Those to the home of travelling models end the list."""

READING: Final = frozenset(
    {
        "describe",
        "queries",
        "explain",
        "cut",
        "forwarder",
        "trace",
        "attested",
        "assess",
        "jobs",
        "decisions",
        "lineage",
    }
)
"""Requests to a site that change nothing there."""

_PUBLISHED: Final[Mapping[str, Role | None]] = {
    "advert": None,
    "sensed": None,
    "progress": None,
    "event": Role.FORWARDER,
    "serving": Role.FACILITY,
    "attested": Role.VERIFIER,
    "demand": Role.GATEWAY,
}
"""A site's publications, and the role that it needs for each. Events are those of models whose home
it is."""
_OF_JOBS: Final = ("event", "progress")
"""The publications among these that are per job."""


def allowed(member: Member, purpose: Purpose, key: str) -> bool:
    """Whether a member may send such a message at a key: request, answer, or publication."""
    parts = key.split("/")
    if not all(map(is_name, parts)):
        return False  # A wildcard is nobody's name.
    match purpose:
        case Purpose.REQUEST:
            return member.kind in _senders(parts)
        case Purpose.ANSWER | Purpose.ERROR | Purpose.SESSION:
            return _serves(member, parts)
        case Purpose.PUBLICATION:
            return _publishes(member, parts)


def _senders(parts: list[str]) -> frozenset[Kind]:
    match parts:
        case ["daitn", "center", "do", verb]:
            return CENTER_VERBS.get(verb, frozenset())
        case ["daitn", "site", _, "do", verb] if verb in SITE_VERBS:
            return SITE_VERBS[verb].senders
        case ["daitn", "site", _, "echo" | "stream"]:
            return _SITES
    return frozenset()


def _serves(member: Member, parts: list[str]) -> bool:
    match parts:
        case ["daitn", "center", "do", verb] if verb in CENTER_VERBS:
            return member.kind is Kind.CENTER
        case ["daitn", "site", site, "do", "chunk"] if site == CENTER_SITE:
            return member.kind is Kind.CENTER
        case ["daitn", "site", site, "do", verb] if verb in SITE_VERBS:
            return _is(member, site, SITE_VERBS[verb].role)
        case ["daitn", "site", site, "echo" | "stream"]:
            return _is(member, site, None)
    return False


def _publishes(member: Member, parts: list[str]) -> bool:
    match parts:
        case ["daitn", "center", "advice"]:
            return member.kind is Kind.CENTER
        case ["daitn", "center", "event", _]:
            return member.kind is Kind.CENTER
        case ["daitn", "site", site, what, _] if what in _OF_JOBS:
            return _is(member, site, _PUBLISHED[what])
        case ["daitn", "site", site, what] if what in _PUBLISHED and what not in _OF_JOBS:
            return _is(member, site, _PUBLISHED[what])
    return False


def _is(member: Member, site: str, role: Role | None) -> bool:
    own = member.kind is Kind.SITE and member.name == site != CENTER_SITE
    return own and (role is None or role in member.roles)
