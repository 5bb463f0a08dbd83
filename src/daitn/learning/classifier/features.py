"""The columns that a classifier on disk reads, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from daitn.objects.errors import Corrupt
from daitn.objects.models import CONFIG_FIX

__all__ = ["FEATURES", "WEIGHTS", "Features", "mismatch", "read_features"]

WEIGHTS = "weights.safetensors"
FEATURES = "features.json"
_MOST_BYTES = 16 << 20


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """The file `features.json`."""

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    columns: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=10_000)], ...],
        msgspec.Meta(max_length=100_000),
    ] = ()


def read_features(path: Path) -> Features:
    """Raises `Corrupt`."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise mismatch(f"{path.name} has more than {_MOST_BYTES} bytes")
        return msgspec.json.decode(path.read_bytes(), type=Features)
    except (OSError, msgspec.DecodeError) as error:
        raise mismatch(f"{error}") from error


def mismatch(problem: str) -> Corrupt:
    """Error for parts that do not match their configuration."""
    return Corrupt(
        f"the parts do not match a classifier of this configuration: {problem}",
        field="model.config",
        fix=CONFIG_FIX,
    )
