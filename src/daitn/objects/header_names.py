"""The `daitn-*` headers of answers and between peers.

A test compares them with the code that writes and reads them; the reference prints them.
"""

from __future__ import annotations

__all__ = ["AnswerHeader", "PeerHeader"]


class AnswerHeader:
    """Headers of an answer."""

    MODEL = "daitn-model"
    """Name of the model that answered."""
    FACILITY = "daitn-facility"
    """Site of the facility that answered."""
    PATH = "daitn-path"
    """Sites on the query's path, the gateway's first."""
    TOPIC = "daitn-topic"
    """Topic by which the query was routed."""
    STRATEGY = "daitn-strategy"
    """`single`, `cascade` or `ensemble`; for a packet `packet`, or `packet, ensemble`."""
    OBJECT = "daitn-object"
    """For a packet: the id for `daitn trace`."""
    FACILITIES = "daitn-facilities"
    """For an ensemble of packets: all sites whose answers were compared."""
    ATTEMPTS = "daitn-attempts"
    """Number of attempts at deployments."""
    COST_USD = "daitn-cost-usd"
    """Cost; for a stream, an estimate at its beginning."""
    OVERHEAD_MS = "daitn-overhead-ms"
    """Time spent in the gateway before the answer began."""
    DECISION = "daitn-decision"
    """The id for `daitn explain`."""
    WAITED_S = "daitn-waited-s"
    """Wait for a slot, as the facility measured it."""
    FIRST_TOKEN_S = "daitn-first-token-s"  # noqa: S105
    """Time from the slot to the first piece, as the facility measured it."""


class PeerHeader:
    """Headers that a gateway sends to a facility or another gateway."""

    PASS = "daitn-pass"  # noqa: S105
    """Pass that identifies the gateway, signed with its key; valid for two minutes."""
    QUERY = "daitn-query"
    """The query's id; becomes the answer's `id`."""
    ASKED_AT = "daitn-asked-at"
    """Seconds since the epoch; becomes the answer's `created`, so that replicas of a deterministic
    model give byte-identical answers."""
    OWNER = "daitn-owner"
    """The query's owner: the owner of the gateway's site, the mandate's owner, or nobody."""
    MANDATE = "daitn-mandate"
    """The owner's signed statement that the gateway may act in its name: a token without its
    secret."""
    ORIGIN_PASS = "daitn-origin-pass"  # noqa: S105
    """For a relayed query: the first gateway's pass for the facility."""
    RELAYED = "daitn-path"
    """Set by a gateway that relays through another one, which then relays no further."""
