"""The tracer of a process, as its file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daitn.objects.errors import InvalidInput
from daitn.tools.monitoring.config import TracesConfig
from daitn.tools.monitoring.tracing import OFF, Tracer

if TYPE_CHECKING:
    from daitn.oam.monitoring.span_sender import SpanSender

__all__ = ["Traces"]


class Traces:
    """Holds the tracer and the sender of its spans. Needs a running event loop."""

    def __init__(self, config: TracesConfig, *, kind: str, site: str) -> None:
        """`kind` and `site` identify the process, see `MetricsServer`. Raises `InvalidInput` if
        traces are wanted and OpenTelemetry's protocol is not installed."""
        self.tracer = OFF
        self._sender: SpanSender | None = None
        if not config.endpoint:
            return
        try:
            # Takes a tenth of a second, only if traces are wanted.
            from daitn.oam.monitoring.otlp import SpanEncoder
            from daitn.oam.monitoring.span_sender import SpanSender
        except ImportError:
            raise InvalidInput(
                "OpenTelemetry's protocol is not installed",
                field="traces.endpoint",
                fix="pip install 'daitn[traces]', or leave `traces` out",
            ) from None
        self._sender = SpanSender(config.endpoint, SpanEncoder(kind=kind, site=site))
        self.tracer = Tracer(config.ratio, self._sender.send)

    async def close(self) -> None:
        """Send the rest."""
        if self._sender is not None:
            await self._sender.close()
