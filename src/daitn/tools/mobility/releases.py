"""To whom a holder gives a model: its owner, operators, and sites to which it may travel.

A model is given by its manifest. Without that nobody knows its chunks, whose digests are as good as
secrets, so chunks themselves are given to every member.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from daitn.files.items import ItemStore
from daitn.objects.access import allows, narrowed
from daitn.objects.descriptors import ANY, Role
from daitn.objects.digests import file_of
from daitn.objects.errors import NotFound, Refused
from daitn.objects.identifiers import Digest, OwnerId
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member
from daitn.tools.mobility.protocol import BlobStore

__all__ = ["Release", "ReleaseItems", "Released", "Releases"]

Release = Callable[[Digest, str, tuple[str, ...]], None]
"""Records a model's owner and where it may go, see `Releases.record`."""

_WORKS: Final = frozenset(Role) - {Role.GATEWAY}
"""A site with none of these roles works on no model."""
_GONE_S: Final = DAY_S
"""How long a model must be gone until its rules are deleted: they are recorded before it is
fetched."""


class Released(msgspec.Struct, frozen=True):
    """What is known about one model here."""

    model: Digest
    owners: tuple[str, ...]
    release_to: tuple[str, ...]
    """Jurisdictions, or `*`."""

    @property
    def name(self) -> str:
        """The name under which it is stored."""
        return file_of(self.model)


class ReleaseItems(Protocol):
    """Storage of rules, by name: an `ItemStore`, or one shared by several processes."""

    def put(self, name: str, item: Released) -> None: ...
    def forget(self, name: str) -> None: ...
    def __iter__(self) -> Iterator[Released]: ...


class Releases:
    """The release rules of the models that a process holds. They survive a restart.

    `check` may be called on any thread.
    """

    def __init__(self, kept: Path | ReleaseItems, store: BlobStore) -> None:
        """`kept`: a private folder, or another store. Rules of models that are no longer in the
        store are forgotten."""
        self._store = store
        self._lock = threading.Lock()
        self._gone_at_s: dict[Digest, float] = {}
        """When models with rules were found to be gone."""
        self._items = ItemStore(kept, Released) if isinstance(kept, Path) else kept
        self._known: dict[Digest, Released] = {}
        for released in self._items:
            if store.has(released.model):
                self._known[released.model] = released
            else:
                self._items.forget(file_of(released.model))

    def record(self, model: Digest, owner: str, release_to: tuple[str, ...] = (ANY,)) -> None:
        """Record a model's owner and where it may go. Rules add up. Raises `StorageFull`."""
        with self._lock:
            self._gone_at_s.pop(model, None)
            before = self._known.get(model) or Released(model, (), (ANY,))
            owners = tuple(dict.fromkeys((*before.owners, owner)))
            released = Released(model, owners, narrowed(before.release_to, release_to))
            if released != before:
                self._items.put(file_of(model), released)
                self._known[model] = released

    def clean_up(self, now_s: float) -> None:
        """Forget the rules of models that have been gone for a day, on any thread. `now_s`: any
        monotonic clock."""
        for model in tuple(self._known):
            with self._lock:
                if self._store.has(model):
                    self._gone_at_s.pop(model, None)
                elif now_s - self._gone_at_s.setdefault(model, now_s) >= _GONE_S:
                    del self._known[model], self._gone_at_s[model]
                    self._items.forget(file_of(model))

    def check_own(self, model: Digest, owner: OwnerId) -> None:
        """Raise `NotFound` unless a model is known to be this owner's."""
        known = self._known.get(model)
        if known is None or owner not in known.owners:
            raise NotFound(
                f"{owner} has no model {model}", field="model.start", fix="name weights of your own"
            )

    def check(self, blob: Digest, member: Member) -> None:
        """Raise `Refused` unless a member may have a blob."""
        known = self._known.get(blob)
        if member.kind is Kind.SITE and not _WORKS & set(member.roles):
            raise _refused(f"{member.name} works on no models")
        if known is None or member.kind is Kind.OPERATOR:
            return
        if member.kind is not Kind.SITE:
            if member.name not in known.owners or member.kind is not Kind.OWNER:
                raise _refused(f"the model is not {member.name}'s")
        elif not allows(known.release_to, member.jurisdiction):
            raise _refused(
                f"the model may travel to {', '.join(known.release_to) or 'nowhere'} only, and "
                f"{member.name} is in {member.jurisdiction}"
            )


def _refused(why: str) -> Refused:
    return Refused(why, field="model", fix="ask a holder that may give it, or its owner")
