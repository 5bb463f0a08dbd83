"""Computing in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["ComputeConfig"]


class ComputeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Price of a site's computing."""

    price_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 0.0
    """Price of an hour of training, merging or measuring at a site with the role `compute` or
    `verifier`; the data has its own price. Fetching models is free."""
