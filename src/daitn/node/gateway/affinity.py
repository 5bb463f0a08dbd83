"""The deployment that last answered a session, or a prompt with the same prefix."""

from __future__ import annotations

from cachetools import LRUCache

from daitn.objects.queries import QueryIntent
from daitn.topology.qrrt.snapshot import Qrrt

__all__ = ["Affinity"]

_MAX_ENTRIES = 10_000
"""Number of remembered sessions and prefixes, the most recently used ones."""
_Key = tuple[str, str, str | int]


class Affinity:
    """A bounded least-recently-used cache."""

    def __init__(self) -> None:
        self._deployments: LRUCache[_Key, str] = LRUCache(_MAX_ENTRIES)

    def row(self, intent: QueryIntent, snapshot: Qrrt, previous_deployment: str = "") -> int:
        """Row of the deployment that last answered, or else of `previous_deployment`; -1 means
        none."""
        for key in _keys(intent):
            id_ = self._deployments.get(key)
            if id_ is not None:
                return snapshot.row_of.get(id_, -1)
        return snapshot.row_of.get(previous_deployment, -1)

    def record(self, intent: QueryIntent, id_: str) -> None:
        """Record the deployment that answered a query."""
        for key in _keys(intent):
            self._deployments[key] = id_


def _keys(intent: QueryIntent) -> list[_Key]:
    """Sessions belong to an owner; a model caches prefixes for everybody."""
    keys: list[_Key] = []
    if intent.constraints.session:
        keys.append(("session", intent.owner, intent.constraints.session))
    if intent.prefix:
        keys.append(("prefix", intent.model, intent.prefix))
    return keys
