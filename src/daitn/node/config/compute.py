"""Computing in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["ComputeConfig"]


class ComputeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site's computing costs."""

    price_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] = 0.0
    """Price of an hour of training, besides that of the data. Fetching models, merging and
    measuring cost nothing."""
