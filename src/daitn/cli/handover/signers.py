"""The owners of keys, as known to the reader of an exported model: from a roster, or from keys
alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daitn.cli.handover.exporter import Exporter
from daitn.cli.handover.folder import EXPORTER, read
from daitn.cli.times import day
from daitn.identity.roster import read_roster
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Lineage, Verification
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member, Roster

__all__ = ["Signers", "read_keys", "rostered"]

_MOST_KEYS_BYTES = 64 << 20
_MOST_ROSTER_BYTES = 256 << 20


@dataclass(frozen=True)
class Signers:
    """The admissible signers."""

    keys: Mapping[SiteId, str] = field(default_factory=dict)
    """Public keys that the reader knows, of sites that the roster lacks."""
    roster: Roster | None = None

    def __post_init__(self) -> None:
        """Raise `InvalidInput` for keys that contradict the roster."""
        if self.roster is None:
            return
        listed, owners = self._listed(), {m.public_key: m for m in self.roster.members}
        for site, key in self.keys.items():
            owner = owners.get(key)
            problem = ""
            if site in listed and listed[site].public_key != key:
                problem = f"{site} has another key in {_named(self.roster)}"
            elif owner is not None and (owner.kind, owner.name) != (Kind.SITE, site):
                problem = (
                    f"the key of {site} is {owner.kind} {owner.name}'s in {_named(self.roster)}"
                )
            if problem:
                raise InvalidInput(
                    problem,
                    field="--keys",
                    fix=f"leave {site} out: the roster decides whose key is whose",
                )

    def _listed(self) -> dict[SiteId, Member]:
        members = self.roster.members if self.roster else ()
        return {SiteId(m.name): m for m in members if m.kind is Kind.SITE}

    @property
    def sites(self) -> dict[SiteId, str]:
        """The sites' public keys."""
        return {**self.keys, **{site: m.public_key for site, m in self._listed().items()}}

    def check_lineage(self, lineage: Lineage) -> None:
        """Raise `Corrupt` for an entry of a site that the roster and the keys lack, or to which the
        roster does not grant such work, or that signed it after its membership had ended."""
        if self.roster is None:
            return
        listed, named = self._listed(), _named(self.roster)
        for position, entry in enumerate(lineage.entries):
            site = entry.fact.site
            role = Role.VERIFIER if isinstance(entry.fact, Verification) else Role.DATA
            problem = ""
            fix = "get the current roster; if it does not grant this either, do not use the model"
            if site not in listed:
                if site in self.keys:
                    continue
                problem = f"{site} is not in {named}"
                fix = (
                    "if the site was revoked, or never was in the network, do not use the model; "
                    "if it left on good terms, give its key with --keys"
                )
            elif role not in listed[site].roles:
                problem = f"{site} does not have the role {role} in {named}"
            elif entry.fact.at_s > listed[site].until_s:
                problem = (
                    f"{site} signed it on {day(entry.fact.at_s)}, and its membership ended on "
                    f"{day(listed[site].until_s)}"
                )
            if problem:
                raise Corrupt(problem, field=f"entries[{position}]", fix=fix)

    def check_exporter(self, exporter: Exporter) -> None:
        """Raise `Corrupt` unless the exporter is in the roster."""
        roster = self.roster
        if roster is None:
            return
        if exporter.network != roster.network:
            raise Corrupt(
                f"the model is handed over in the network {exporter.network}, and the roster is "
                f"that of {roster.network}",
                field=EXPORTER,
                fix=f"get the roster of {exporter.network}, from an operator whom you trust",
            )
        member = _member(roster, exporter.public_key)
        if member is None or (member.kind, member.name) != (exporter.kind, exporter.name):
            raise Corrupt(
                f"{exporter.kind} {exporter.name} is not in {_named(roster)} with the key that "
                "signed the folder",
                field=EXPORTER,
                fix="get the current roster; if it does not have the member either, which was "
                "revoked, then have a member export the model again",
            )
        if exporter.at_s > member.until_s:
            raise Corrupt(
                f"{exporter.name} signed it on {day(exporter.at_s)}, and its membership ended on "
                f"{day(member.until_s)}",
                field=EXPORTER,
                fix="have a member export the model again",
            )


def rostered(path: Path, at_s: float, keys: Mapping[SiteId, str] | None = None) -> Signers:
    """The members of the network with the roster in this file, if it is in force at `at_s`.

    Raises as `read_roster` does, and `Refused` for a roster that has expired or comes later.
    """
    if path.is_file() and path.stat().st_size > _MOST_ROSTER_BYTES:
        raise InvalidInput(f"{path} is too large", field="--roster", fix="name a roster.json")
    try:
        roster = read_roster(path).opened()
    except Corrupt as error:
        raise Corrupt(f"{path}: {error.problem}", field="--roster", fix=error.fix) from None
    if at_s >= roster.until_s:
        raise Refused(
            f"{_named(roster)} ended on {day(roster.until_s)}: it does not show who was revoked "
            f"since",
            field="--roster",
            fix="get the current one from the network's operator; or check what held on a day "
            f"before: --as-of {day(roster.issued_at_s)}",
        )
    if at_s < roster.issued_at_s - DAY_S:
        raise Refused(
            f"{_named(roster)} was issued on {day(roster.issued_at_s)}, which is later",
            field="--as-of",
            fix="leave it out, or check this machine's clock",
        )
    return Signers(keys or {}, roster)


def read_keys(path: Path) -> dict[SiteId, str]:
    """Read a JSON file of sites and their public keys.

    Raises `NotFound` or `InvalidInput`.
    """
    if not path.is_file():
        raise NotFound(
            f"there is no file {path}", field="--keys", fix="name a JSON file {site: key}"
        )
    try:
        return read(path, dict[SiteId, str], _MOST_KEYS_BYTES)
    except Corrupt as error:
        raise InvalidInput(error.problem, field="--keys", fix="write {site: key}") from None


"""A date stands for its beginning, and clocks differ."""


def _member(roster: Roster, public_key: str) -> Member | None:
    return next((m for m in roster.members if m.public_key == public_key), None)


def _named(roster: Roster) -> str:
    return f"roster {roster.version} of {roster.network}"
