"""The headers `daitn-*`, in one place: what an answer says of itself, and what peers tell.

A test holds them against the code that writes and reads them; the reference prints them.
"""

from __future__ import annotations

__all__ = ["AnswerHeader", "PeerHeader"]


class AnswerHeader:
    """Headers of an answer."""

    MODEL = "daitn-model"
    """Name of the model that answered."""
    FACILITY = "daitn-facility"
    """Site at which it answered."""
    PATH = "daitn-path"
    """Sites that the query passed, the gateway's first."""
    TOPIC = "daitn-topic"
    """What the query was taken to be about."""
    STRATEGY = "daitn-strategy"
    """`single`, `cascade` or `ensemble`; of a packet `packet`, or `packet, ensemble`."""
    OBJECT = "daitn-object"
    """Of a packet: the id that `daitn trace` takes."""
    FACILITIES = "daitn-facilities"
    """Of an ensemble of packets: all sites whose answers were compared."""
    ATTEMPTS = "daitn-attempts"
    """Deployments that were asked."""
    COST_USD = "daitn-cost-usd"
    """Cost; of a stream, as expected when it began."""
    OVERHEAD_MS = "daitn-overhead-ms"
    """Time spent in the gateway before the answer began."""
    DECISION = "daitn-decision"
    """The id that `daitn explain` takes."""
    WAITED_S = "daitn-waited-s"
    """Time that the query waited for a slot, as the facility measured it."""
    FIRST_TOKEN_S = "daitn-first-token-s"  # noqa: S105
    """Time from the slot to the first piece, as the facility measured it."""


class PeerHeader:
    """Headers by which a gateway asks a facility, or another gateway."""

    PASS = "daitn-pass"  # noqa: S105
    """Proof, signed with the gateway's key, that it is this gateway; lasts two minutes."""
    QUERY = "daitn-query"
    """The query's id, also that of the answer."""
    ASKED_AT = "daitn-asked-at"
    """Seconds since the epoch, also the answer's `created`: replicas of a deterministic model then
    answer byte by byte alike."""
    OWNER = "daitn-owner"
    """Who asks."""
    PATH = "daitn-path"
    """Set by a gateway that relays through another one, which then relays no further."""
