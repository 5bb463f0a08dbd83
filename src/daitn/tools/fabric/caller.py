"""The sender of the message that is being handled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from daitn.objects.errors import NotFound, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import Kind, Member

__all__ = ["caller", "caller_name", "check_owner", "check_site", "no_such", "speaking", "visible"]

_CALLER: ContextVar[Member | None] = ContextVar("caller", default=None)


def caller() -> Member | None:
    """The member that sent the message being handled.

    None on a fabric without signatures, where everybody may do everything.
    """
    return _CALLER.get()


def caller_name() -> str:
    """The name of that member; empty on a fabric without signatures."""
    member = caller()
    return member.name if member else ""


@contextlib.contextmanager
def speaking(member: Member) -> Iterator[None]:
    """While a message of this member is handled."""
    token = _CALLER.set(member)
    try:
        yield
    finally:
        _CALLER.reset(token)


def visible(owner: str) -> bool:
    """Whether the caller may see what belongs to `owner`: its own, or anything as an operator."""
    member = caller()
    if member is None or member.kind is Kind.OPERATOR:
        return True
    return member.kind is Kind.OWNER and member.name == owner


def check_owner(owner: str, what: str) -> None:
    """Raise `Refused` unless the caller may see and command what belongs to `owner`."""
    if not visible(owner):
        raise Refused(f"{what} is not yours", field="owner", fix="ask with its owner's key")


def no_such(kind: str, name: str, *, field: str, see: str) -> NotFound:
    """The error for a name that does not exist or is another owner's, without telling which, so
    that guessing reveals nothing. `see`: a command that lists the caller's own."""
    member = caller()
    if member is None or member.kind is Kind.OPERATOR:
        return NotFound(f"there is no {kind} {name}", field=field, fix=f"see `{see}`")
    return NotFound(
        f"there is no {kind} {name} of {member.name}",
        field=field,
        fix=f"see `{see}`, or ask with its owner's key",
    )


def check_site(site: SiteId) -> None:
    """Raise `Refused` if a caller speaks for a site other than its own."""
    member = caller()
    if member is not None and (member.kind, member.name) != (Kind.SITE, site):
        raise Refused(f"{member.name} claims to be {site}", field="site")
