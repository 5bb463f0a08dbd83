"""Serves a process's metrics to Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from daitn import __version__
from daitn.files.atomic import replace_file
from daitn.files.state_folder import ProcessState
from daitn.oam.monitoring.targets import ScrapeTarget
from daitn.tools.http import HttpServer, Reply, Request, Response, served
from daitn.tools.monitoring.config import MetricsConfig
from daitn.tools.monitoring.metrics import Histogram, Measured, Metric, MetricKind, Sample, gauge

__all__ = ["METRICS", "MetricsServer"]

log = logging.getLogger(__name__)

PATH = "/metrics"
_PLAIN = {"content-type": "text/plain; charset=utf-8"}

BUILD: Metric = gauge(
    "daitn_build_info", "Always 1; the label shows the running version.", "version"
)
METRICS = (BUILD,)


class MetricsServer:
    """Serves `/metrics`, with one registry for its process."""

    def __init__(
        self,
        config: MetricsConfig,
        measured: Iterable[Measured],
        *,
        kind: str,
        site: str,
        state: Path,
        tls: str = "",
        usual: str,
    ) -> None:
        """`kind`, `center` or `node`, and `site` identify the process. `state`: its state folder.
        `tls`: the folder with its certificate. `usual`: default address."""
        self._site = site
        self._kind = kind
        self._state = state
        self._tls = tls
        self._usual = usual
        self._listen = config.listen
        self._registry = CollectorRegistry()
        own = BUILD.at(1, __version__)
        self._registry.register(_Parts((lambda: (own,), *measured)))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """URL of the metrics; empty if there is none."""
        return "" if self._server is None else self._server.published + PATH

    async def start(self) -> None:
        """Serve. Raises `InvalidInput` for an address in the file that cannot be used."""
        if self._listen == "":
            return
        self._server = await served(self._listen, self._usual, self._serving)
        log.info("metrics at %s", self.url)
        scheme, _, address = self._server.published.partition("://")
        labels = {"site": self._site, "process": self._kind, "__scheme__": scheme}
        target = msgspec.json.encode([ScrapeTarget((address,), labels)])
        replace_file(self._state / ProcessState.TARGETS, target)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
            (self._state / ProcessState.TARGETS).unlink(missing_ok=True)

    async def _serving(self, listen: str) -> HttpServer:
        server = HttpServer(listen, "metrics.listen", self._handle, self._tls, anywhere=True)
        await server.start()
        return server

    async def _handle(self, request: Request) -> Reply:
        if request.path != PATH:
            return Response(b"metrics are at /metrics\n", 404, _PLAIN)
        if request.method not in ("GET", "HEAD"):
            return Response(b"only GET\n", 405, {**_PLAIN, "allow": "GET, HEAD"})
        # The parts' numbers belong to this thread.
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), 200, {"content-type": content_type})


class _Parts(Collector):
    """Collects samples from the parts of a process."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._measured = tuple(measured)

    def collect(self) -> Iterator[Family]:
        found: dict[Metric, list[Sample]] = {}
        for part in self._measured:
            for sample in part():
                found.setdefault(sample.metric, []).append(sample)
        for metric, samples in found.items():
            yield _family(metric, samples)

    def describe(self) -> Iterator[Family]:
        """Empty: names are unique, as a test checks, and parts need not be asked twice."""
        return iter(())


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    if metric.kind is MetricKind.HISTOGRAM:
        shown = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for sample in samples:
            assert isinstance(sample.value, Histogram)
            shown.add_metric(sample.labels, sample.value.buckets(), sample.value.sum)
        return shown
    simple = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = simple(metric.name, metric.help, labels=metric.labels)
    for sample in samples:
        assert not isinstance(sample.value, Histogram)
        family.add_metric(sample.labels, float(sample.value))
    return family
