"""Which control centre a database belongs to.

Control centres that take turns have one key, and are of one network. Any other one that is started
over their database, by a mistake in its file, would lead their jobs and show them to its owners.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daitn.files.state_folder import ProcessState
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.roster import read_roster
from daitn.objects.errors import InvalidInput
from daitn.objects.wire import decode, encode
from daitn.tools.journal.sql import SqlJournal

__all__ = ["DatabaseOwner", "claim_database"]

_KIND, _NAME = "control-centre", "owner"


class DatabaseOwner(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre by its key, and its network by that of its root."""

    key: str
    root: str = ""
    """Empty without a roster."""

    @classmethod
    def of(cls, state: Path) -> DatabaseOwner:
        """The control centre with this state folder. Raises `InvalidInput` if its files are
        unusable."""
        roster = state / ProcessState.ROSTER
        root = read_roster(roster).root if roster.exists() else ""
        return cls(key=SigningKey.at(state / ProcessState.KEY).public, root=root)

    def is_same(self, other: DatabaseOwner) -> bool:
        """Whether both may have one database: a key may be replaced within a network."""
        return self.key == other.key or (self.root != "" and self.root == other.root)


def claim_database(url: str, state: Path) -> None:
    """Record the control centre with this state folder as the owner of a database, unless it has
    one. Raises `InvalidInput` if that is another one, and as `SqlJournal` does. Blocking."""
    owner = DatabaseOwner.of(state)
    journal = SqlJournal(url)
    try:
        stored = journal.get(_KIND, _NAME)
        known = owner if stored is None else decode(stored, DatabaseOwner)
        if not owner.is_same(known):
            raise InvalidInput(
                f"the database belongs to another control centre, with the key "
                f"{key_mark(known.key)}; this one has {key_mark(owner.key)}",
                field="database",
                fix="name the database of this control centre, or the state folder of that one",
            )
        if stored is None or owner != known:
            journal.put(_KIND, _NAME, encode(owner))
    finally:
        journal.close()
