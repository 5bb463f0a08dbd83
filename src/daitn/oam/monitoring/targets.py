"""Addresses of processes' metrics, in files for Prometheus' `file_sd_configs`."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["ScrapeTarget", "read_targets"]


class ScrapeTarget(msgspec.Struct, frozen=True):
    """One entry of such a file."""

    targets: tuple[str, ...]
    """`host:port`"""
    labels: dict[str, str]


def read_targets(file: Path) -> list[ScrapeTarget]:
    """The entries of a file written by one of our processes."""
    return msgspec.json.decode(file.read_bytes(), type=list[ScrapeTarget])
