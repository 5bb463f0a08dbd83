"""The sandbox in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.learning.sandbox.policy import USUAL, Limits, Mechanism

__all__ = ["SandboxConfig"]


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sandbox of recipes: required mechanisms, and limits."""

    required: tuple[Mechanism, ...] = ()
    """Mechanisms without which the node does not start. All available ones are used in any case."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=2**26)] = USUAL.memory_bytes
    """Memory of one visit or measurement, beyond twice its recipe's estimate; the same for an
    inspection of data and for one estimate; for a placed model, beyond twice its size."""
    cpu_s: Annotated[float, msgspec.Meta(gt=0.0)] = USUAL.cpu_s
    """CPU time of a visit, beyond 100 times the time at the site's measured speed."""
    time_s: Annotated[float, msgspec.Meta(gt=0.0)] = USUAL.time_s
    """The same for wall-clock time."""
    file_bytes: Annotated[int, msgspec.Meta(ge=2**20)] = USUAL.file_bytes
    """Bytes that a visit may write, beyond twice the estimated size of the model."""

    @property
    def limits(self) -> Limits:
        return Limits(
            memory_bytes=self.memory_bytes,
            cpu_s=self.cpu_s,
            time_s=self.time_s,
            file_bytes=self.file_bytes,
        )
