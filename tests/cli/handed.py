"""A model that an owner hands over, with a verifier's measurement and a roster beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from daitn.cli.handover.signers import rostered
from daitn.cli.handover.verifying import VerifiedModel, verify_folder
from daitn.cli.models import export_model
from daitn.identity.keys import SigningKey
from daitn.identity.roster import RosterFile, sign_roster, write_roster
from daitn.identity.signing import sign_entry
from daitn.objects.descriptors import DataPolicy, DatasetDescriptor, NodeDescriptor, Role
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.lineage import Entry, SignedStatement, Verification
from daitn.objects.models import ModelRef
from daitn.objects.requests import TrainedModel
from daitn.objects.roster import Kind, Member, Roster
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.memory import MemoryNetwork
from tests.cli.test_export import CLINIC, JOB, Stage

NETWORK = "hospitals"
EXAM = SiteId("exam")
NOW_S, ENDS_S = 1_000.0, 2e9


class Handed(Stage):
    """A stage with a roster: the clinic, a verifier, and the owner who exports."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.folder = folder
        self.root, self.owner = SigningKey.generate(), SigningKey.generate()
        self.verifier = SigningKey.generate()
        measured = self.measurement(self.entries[1], self.model.manifest, 0.75)
        self.entries = (*self.entries, measured)
        self.statements: tuple[SignedStatement, ...] = ()
        """As the control centre got them of the sites."""
        self.members = {
            "clinic": self.member("clinic", Kind.SITE, self.key, role=Role.DATA),
            "exam": self.member("exam", Kind.SITE, self.verifier, role=Role.VERIFIER),
            "ada": self.member("ada", Kind.OWNER, self.owner),
        }

    def member(
        self,
        name: str,
        kind: Kind,
        key: SigningKey,
        until_s: float = ENDS_S,
        role: Role | None = None,
    ) -> Member:
        roles = () if role is None else (role,)
        return Member(name=name, kind=kind, public_key=key.public, until_s=until_s, roles=roles)

    def trained(self, model: ModelRef | None, entries: tuple[Entry, ...]) -> TrainedModel:
        trained = super().trained(model, entries)
        return msgspec.structs.replace(trained, statements=self.statements)

    def become(self, owner: SigningKey) -> None:
        """Have the owner's key be this one."""
        self.owner = owner
        self.members["ada"] = self.member("ada", Kind.OWNER, owner)

    def measurement(self, left: Entry, model: Digest, value: float) -> Entry:
        """What the verifier found of a model that an entry left."""
        fact = Verification(
            job=JOB, visit=VisitId(f"qa-1.{value}"), site=EXAM, at_s=3.0, seconds=1.0,
            transfer_s=0.0, bytes_in=0, model=model, topic="colds", metric="accuracy", value=value,
            items=40, standard_error=0.05,
        )  # fmt: skip
        return sign_entry(fact, (left.digest,), self.verifier)

    def descriptor(self, key: str) -> NodeDescriptor:
        notes = DatasetDescriptor(
            name="notes", site=CLINIC, data_schema="table/1", modality="table", topics=("colds",),
            samples=60, labels={}, quality=1.0, fresh_at_s=1.7e9, price_usd_per_1k=3.5,
            jurisdiction="US",
            policy=DataPolicy(recipes=("classifier",), owners=("ada", "a rival")),
        )  # fmt: skip
        return msgspec.structs.replace(super().descriptor(key), datasets=(notes,))

    def roster(
        self,
        members: Mapping[str, Member] | None = None,
        until_s: float = ENDS_S,
        name: str = NETWORK,
    ) -> Path:
        """A roster's file, as its reader got it."""
        listed = tuple((self.members if members is None else members).values())
        roster = Roster(
            network=name, version=4, issued_at_s=0.0, until_s=until_s, members=listed
        )  # fmt: skip
        path = self.folder / "theirs" / "roster.json"
        path.parent.mkdir(exist_ok=True)
        write_roster(path, RosterFile(root=self.root.public, signed=sign_roster(roster, self.root)))
        return path

    async def export(self, out: Path) -> TrainedModel:
        """Hand the model over as the owner."""
        session = await self.start()
        members = {member.public_key: member for member in self.members.values()}
        session.identity = Identity(self.owner, NETWORK, lambda: members)
        return await export_model(session, JOB, out)

    def verify(self, out: Path, roster: Path | None = None, **asked: bool) -> VerifiedModel:
        return verify_folder(out, rostered(roster or self.roster(), NOW_S), **asked)


def elsewhere(handed: Handed) -> Handed:
    """The same parts on a network of their own."""
    handed.network = MemoryNetwork()
    return handed


def copied(out: Path, to: Path) -> Path:
    """Another copy of an export, links as links."""
    shutil.copytree(out, to, symlinks=True)
    return to
