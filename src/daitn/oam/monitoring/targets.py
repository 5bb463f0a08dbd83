"""Where the metrics of processes are, in files of Prometheus' `file_sd_configs`."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["ALL_TARGETS", "TARGETS", "ScrapeTarget", "read_targets"]

TARGETS = "metrics.json"
"""In the state folder of each process."""
ALL_TARGETS = "metrics-of-network.json"
"""In the state folder of the control centre of `daitn up`: those of all its processes."""


class ScrapeTarget(msgspec.Struct, frozen=True):
    """One entry of such a file."""

    targets: tuple[str, ...]
    """`host:port`"""
    labels: dict[str, str]


def read_targets(file: Path) -> list[ScrapeTarget]:
    """The entries of a file that a process of ours wrote."""
    return msgspec.json.decode(file.read_bytes(), type=list[ScrapeTarget])
