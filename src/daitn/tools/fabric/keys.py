"""Every key that DA-ITN uses on the fabric, in one place.

::

    daitn/alive/center                     token: the control centre is running
    daitn/alive/site/{site}/{mark}         token: a node of the site runs; `mark` is of its key
    daitn/center/do/{verb}                 request: a command or question to the control centre
    daitn/center/event/{job}               publication: `JobView`, something happened to a job
    daitn/center/advice                    publication: `Advice`, the advice to forwarders
    daitn/site/{site}/do/{verb}            request: a command or question to a site
    daitn/site/{site}/echo                 request: the same bytes back, for round-trip time
    daitn/site/{site}/stream               request: `ProbeRequest`, that many bytes, for throughput
    daitn/site/{site}/advert               publication: `Advert`, the site's signed descriptor
    daitn/site/{site}/sensed               publication: `Sensed`, the links and load it measured
    daitn/site/{site}/progress/{job}       publication: `WorkProgress`, progress of a piece of work
    daitn/site/{site}/event/{job}          publication: `JobView`, a travelling model at its home
    daitn/site/{site}/serving              publication: `Serving`, the state of its deployments
    daitn/site/{site}/attested             publication: `Attestation`, a verifier's signed result
    daitn/site/{site}/demand               publication: `Demand`, the demand at its gateway
    daitn/roster                           publication: `SignedRoster`, a new version of the roster
    daitn/roster/newer                     request: `RosterQuestion`, for a `RosterAnswer`

Names come from the network too, so each is checked before it becomes part of a key: a site called
`**` must not turn a request to one site into a request to all. All functions that take a name raise
`InvalidInput` for an unusable one (see `daitn.objects.identifiers.checked_name`).
"""

from __future__ import annotations

from typing import Final

from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import JobId, SiteId, checked_name

__all__ = [
    "ALL_ADVERTS",
    "ALL_ATTESTED",
    "ALL_DEMAND",
    "ALL_MODEL_EVENTS",
    "ALL_PROGRESS",
    "ALL_SENSED",
    "ALL_SERVING",
    "ALL_SITES_ALIVE",
    "NEWER_ROSTER",
    "ROSTER",
    "center_advice",
    "center_alive",
    "center_do",
    "job_event",
    "job_of",
    "job_progress",
    "mark_of",
    "site_advert",
    "site_alive",
    "site_attested",
    "site_demand",
    "site_do",
    "site_echo",
    "site_event",
    "site_of",
    "site_progress",
    "site_sensed",
    "site_serving",
    "site_stream",
    "verb_of",
]

ALL_SITES_ALIVE: Final = "daitn/alive/site/*/*"
ALL_ADVERTS: Final = "daitn/site/*/advert"
ALL_SENSED: Final = "daitn/site/*/sensed"
ALL_PROGRESS: Final = "daitn/site/*/progress/*"
ALL_SERVING: Final = "daitn/site/*/serving"
ALL_ATTESTED: Final = "daitn/site/*/attested"
ALL_DEMAND: Final = "daitn/site/*/demand"
ALL_MODEL_EVENTS: Final = "daitn/site/*/event/*"
ROSTER: Final = "daitn/roster"
NEWER_ROSTER: Final = "daitn/roster/newer"
"""Rosters need no envelope: they contain the root key's signature, whoever forwards them."""


def center_alive() -> str:
    """Token of the control centre."""
    return "daitn/alive/center"


def center_advice() -> str:
    """Publications of the control centre's advice to forwarders."""
    return "daitn/center/advice"


def site_alive(site: SiteId, mark: str) -> str:
    """Token of a site's node; `mark` is that of its public key, see `key_mark`."""
    return f"daitn/alive/site/{checked_name(site, 'site')}/{checked_name(mark, 'mark')}"


def center_do(verb: str) -> str:
    """Request to the control centre."""
    return f"daitn/center/do/{checked_name(verb, 'verb')}"


def job_event(job: JobId) -> str:
    """Publications about one job by the control centre."""
    return f"daitn/center/event/{checked_name(job, 'job')}"


def site_do(site: SiteId, verb: str) -> str:
    """Request to a site."""
    return f"{_site(site)}/do/{checked_name(verb, 'verb')}"


def site_echo(site: SiteId) -> str:
    """Request that returns the same bytes."""
    return f"{_site(site)}/echo"


def site_stream(site: SiteId) -> str:
    """Request that returns the requested number of bytes."""
    return f"{_site(site)}/stream"


def site_advert(site: SiteId) -> str:
    """Publications of a site's signed descriptor."""
    return f"{_site(site)}/advert"


def site_sensed(site: SiteId) -> str:
    """Publications of a site's measurements."""
    return f"{_site(site)}/sensed"


def site_serving(site: SiteId) -> str:
    """Publications of the load of a facility's deployments."""
    return f"{_site(site)}/serving"


def site_attested(site: SiteId) -> str:
    """Publications of a verifier's findings on deployed models."""
    return f"{_site(site)}/attested"


def site_demand(site: SiteId) -> str:
    """Publications of the demand at a gateway."""
    return f"{_site(site)}/demand"


def site_event(site: SiteId, job: JobId) -> str:
    """Publications about one travelling model by its home."""
    return f"{_site(site)}/event/{checked_name(job, 'job')}"


def site_progress(site: SiteId, job: JobId) -> str:
    """Publications of a site's progress with work for a job."""
    return f"{_site(site)}/progress/{checked_name(job, 'job')}"


def job_progress(job: JobId) -> str:
    """Pattern: the progress of a job at every site."""
    return f"daitn/site/*/progress/{checked_name(job, 'job')}"


def site_of(key: str) -> SiteId:
    """The site in a key. Raises `InvalidInput` if there is none."""
    match key.split("/"):
        case ["daitn", "alive", "site", site, _] | ["daitn", "site", site, _, *_]:
            return SiteId(checked_name(site, "site"))
    raise _unreadable(key, "site")


def mark_of(key: str) -> str:
    """The mark in a node's token. Raises `InvalidInput` if there is none."""
    match key.split("/"):
        case ["daitn", "alive", "site", _, mark]:
            return checked_name(mark, "mark")
    raise _unreadable(key, "mark")


def job_of(key: str) -> JobId:
    """The job in a key. Raises `InvalidInput` if there is none."""
    match key.split("/"):
        case ["daitn", "center", "event", job] | ["daitn", "site", _, "event" | "progress", job]:
            return JobId(checked_name(job, "job"))
    raise _unreadable(key, "job")


def verb_of(key: str) -> str:
    """The verb of a request. Raises `InvalidInput` if there is none."""
    match key.split("/"):
        case ["daitn", "center", "do", verb] | ["daitn", "site", _, "do", verb]:
            return checked_name(verb, "verb")
    raise _unreadable(key, "verb")


def _site(site: SiteId) -> str:
    return f"daitn/site/{checked_name(site, 'site')}"


def _unreadable(key: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        f"the key {key!r} names no {wanted}",
        field="key",
        fix="the keys in use are listed in daitn/tools/fabric/keys.py",
    )
