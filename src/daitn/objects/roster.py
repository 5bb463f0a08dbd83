"""The roster: a network's members with their keys, roles and expiry dates.

One file per network, signed by the network's root key. It replaces trust on first use and roles
that a node declares for itself: a descriptor counts only within what the roster grants its key.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import checked_name
from daitn.objects.moments import Moment

__all__ = ["ADMISSION_FIX", "Kind", "Member", "Roster", "SignedRoster", "ungranted"]

ADMISSION_FIX: Final = (
    "ask the network's operator for an invitation: the key was revoked, replaced by another one, "
    "or never admitted"
)
"""For a key that the roster does not have."""
_MOST_MEMBERS = 100_000
_MOST_HOSTS = 64


class Kind(enum.StrEnum):
    """The part that a member has."""

    CENTER = "center"
    """A control centre."""
    SITE = "site"
    """A node, with the roles that the roster grants it."""
    OWNER = "owner"
    """A person or program that owns models and queries: it submits, cancels and deploys."""
    OPERATOR = "operator"
    """A person or program that runs the network: it steers and reads everything."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A public key, and what its holder may do."""

    name: str
    """For a site, its name; for an owner, the name in its intents. Unique within a kind."""
    kind: Kind
    public_key: str
    """Ed25519, base64."""
    until_s: Moment
    """When the membership ends."""
    roles: tuple[Role, ...] = ()
    """For a site: the roles it may play."""
    owner: str = ""
    """For a site: its owner, as in its descriptor."""
    jurisdiction: str = ""
    """For a site: its jurisdiction, as in its descriptor."""
    hosts: Annotated[tuple[str, ...], msgspec.Meta(max_length=_MOST_HOSTS)] = ()
    """Names and IP addresses at which others reach it, for its certificates."""


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """The members of one network at one time. Raises `InvalidInput` for a malformed one."""

    network: str
    """Name of the network: signatures for one network are invalid in another."""
    version: Annotated[int, msgspec.Meta(ge=1)]
    """Increases with every change. A process accepts no lower version than it has seen
    (rollback)."""
    issued_at_s: Moment
    until_s: Moment
    """When the roster becomes invalid (freeze); it must be renewed earlier."""
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=_MOST_MEMBERS)]

    def __post_init__(self) -> None:
        checked_name(self.network, "network")
        for field, used in (
            ("public_key", [member.public_key for member in self.members]),
            ("name", [(member.kind, member.name) for member in self.members]),
        ):
            if len(set(used)) < len(used):
                raise InvalidInput(
                    "two members share one",
                    field=f"members[].{field}",
                    fix="give each member its own",
                )

    def current(self, now_s: float) -> dict[str, Member]:
        """The members whose membership is valid, by public key; none if the roster has expired."""
        if now_s >= self.until_s:
            return {}
        return {m.public_key: m for m in self.members if now_s < m.until_s}


class SignedRoster(msgspec.Struct, frozen=True, kw_only=True):
    """A roster as stored and sent."""

    roster: bytes
    """The signed canonical MessagePack of a `Roster`."""
    signature: str
    """By the network's root key, base64."""


def ungranted(node: NodeDescriptor, member: Member) -> tuple[str, ...]:
    """What a node's descriptor claims beyond what the roster grants the site, in words."""
    used = {
        Role.DATA: bool(node.datasets),
        Role.COMPUTE: node.compute is not None,
        Role.VERIFIER: node.verifier is not None,
        Role.FACILITY: node.facility is not None,
        Role.GATEWAY: node.gateway is not None,
    }
    roles = set(node.roles) | {role for role, is_used in used.items() if is_used}
    laws = {node.jurisdiction, *(dataset.jurisdiction for dataset in node.datasets)}
    names = {node.site, *(dataset.site for dataset in node.datasets)}
    return (
        *(f"the role {role}" for role in sorted(roles - set(member.roles))),
        *(f"the name {name!r}" for name in sorted(names - {member.name})),
        *(f"the owner {node.owner!r}" for _ in range(node.owner != member.owner)),
        *(f"the jurisdiction {law!r}" for law in sorted(laws - {member.jurisdiction})),
    )
