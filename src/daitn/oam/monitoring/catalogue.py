"""All metrics, by the part of a process that reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daitn.center import metrics as center
from daitn.node import metrics as node
from daitn.node.forwarder import metrics as forwarder
from daitn.node.gateway import metrics as gateway
from daitn.node.serving import metrics as facility
from daitn.node.training import metrics as work
from daitn.node.verifier import metrics as verifier
from daitn.oam.api import metrics as api
from daitn.oam.monitoring import exposition
from daitn.tools.fabric import metrics as fabric
from daitn.tools.journal import metrics as journal
from daitn.tools.mobility import metrics as mobility
from daitn.tools.monitoring.metrics import Metric

__all__ = ["CATALOGUE"]

CATALOGUE: Final[Mapping[str, tuple[Metric, ...]]] = {
    "process": exposition.METRICS,
    "fabric": fabric.METRICS,
    "center": (*center.METRICS, *journal.METRICS, *api.METRICS),
    "gateway": gateway.METRICS,
    "facility": facility.METRICS,
    "forwarder": forwarder.METRICS,
    "work": (*work.METRICS, *node.METRICS),
    "mobility": (*mobility.FETCH_METRICS, *mobility.SERVE_METRICS),
    "verifier": verifier.METRICS,
}
"""Sections of the reference."""
