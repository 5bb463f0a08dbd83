"""Which deployment answered a session, or a prompt of the same beginning, last."""

from __future__ import annotations

from cachetools import LRUCache

from daitn.objects.queries import QueryIntent
from daitn.topology.qrrt.snapshot import Qrrt

__all__ = ["Affinity"]

_MOST = 10_000
"""Sessions and prompts that are remembered, the latest ones."""
_Key = tuple[str, str, str | int]


class Affinity:
    """A least-recently-used memory of bounded size."""

    def __init__(self) -> None:
        self._last: LRUCache[_Key, str] = LRUCache(_MOST)

    def row(self, intent: QueryIntent, snapshot: Qrrt) -> int:
        """Row of the deployment; -1: none."""
        for key in _keys(intent):
            id_ = self._last.get(key)
            if id_ is not None:
                return snapshot.row_of.get(id_, -1)
        return -1

    def answered(self, intent: QueryIntent, id_: str) -> None:
        """The deployment answered this query."""
        for key in _keys(intent):
            self._last[key] = id_


def _keys(intent: QueryIntent) -> list[_Key]:
    """A session is its owner's own; a prompt's beginning is cached by a model for everybody."""
    keys: list[_Key] = []
    if intent.constraints.session:
        keys.append(("session", intent.owner, intent.constraints.session))
    if intent.prefix:
        keys.append(("prefix", intent.model, intent.prefix))
    return keys
