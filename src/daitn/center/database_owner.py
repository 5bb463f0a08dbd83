"""Which control centre a database belongs to.

Control centres that take turns have one name in one network, and usually one key. Any other one
that is started over their database, by a mistake in its file, would lead their jobs and show them
to its owners.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daitn.center.config import CenterConfig
from daitn.files.state_folder import ProcessState
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.roster import read_roster
from daitn.objects.errors import InvalidInput
from daitn.objects.wire import decode, encode
from daitn.tools.journal.sql import SqlJournal

__all__ = ["DatabaseOwner", "claim_database"]

_KIND, _NAME = "control-centre", "owner"


class DatabaseOwner(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre by its key, and by its name in the network with this root key."""

    key: str
    name: str
    root: str = ""
    """Empty without a roster."""

    @classmethod
    def of(cls, config: CenterConfig) -> DatabaseOwner:
        """A control centre whose state folder is there. Raises `InvalidInput` if its files are
        unusable."""
        state = Path(config.state)
        roster = state / ProcessState.ROSTER
        root = read_roster(roster).root if roster.exists() else ""
        key = SigningKey.at(state / ProcessState.KEY).public
        return cls(key=key, name=config.name, root=root)

    def is_same(self, other: DatabaseOwner) -> bool:
        """Whether both may have one database: within a network, a key may be replaced."""
        within = self.root != "" and (self.root, self.name) == (other.root, other.name)
        return within or self.key == other.key


def claim_database(config: CenterConfig) -> None:
    """Record a control centre as the owner of its database, unless that has one. Raises
    `InvalidInput` if it belongs to another one, and as `SqlJournal` does. Blocking."""
    owner = DatabaseOwner.of(config)
    journal = SqlJournal(config.database_url)
    try:
        known = decode(journal.put_once(_KIND, _NAME, encode(owner)), DatabaseOwner)
        if not owner.is_same(known):
            raise InvalidInput(
                f"the database belongs to the control centre {known.name} with the key "
                f"{key_mark(known.key)}; this one, {owner.name}, has {key_mark(owner.key)}",
                field="database",
                fix="name the database of this control centre, or the state folder of that one",
            )
        new = msgspec.structs.replace(owner, root=owner.root or known.root)
        if new != known:
            journal.put(_KIND, _NAME, encode(new))
    finally:
        journal.close()
