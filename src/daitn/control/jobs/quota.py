"""How many jobs an owner may have open, at a control centre or at a home of travelling models."""

from __future__ import annotations

from daitn.objects.errors import Refused
from daitn.objects.identifiers import OwnerId

__all__ = ["check_quota"]


def check_quota(owner: OwnerId, open_: int, most: int, where: str = "") -> None:
    """Raise `Refused` if an owner with so many open jobs may not submit another one. `where`: a
    word for the error, if the limit is not that of the whole network."""
    if open_ >= most:
        place = f" {where}" if where else ""
        raise Refused(
            f"{owner} has {open_} open jobs{place}, the maximum",
            field="owner",
            fix="wait for one to end, or cancel one",
        )
