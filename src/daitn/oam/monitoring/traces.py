"""The tracer of a process, as its file says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from daitn.objects.errors import InvalidInput
from daitn.tools.monitoring.config import TracesConfig
from daitn.tools.monitoring.tracing import OFF, Tracer

if TYPE_CHECKING:
    from daitn.oam.monitoring.otlp import SpanSender

__all__ = ["Traces"]


class Traces:
    """Holds the tracer and what sends its spans."""

    def __init__(self, config: TracesConfig, *, kind: str, site: str) -> None:
        """`kind` and `site`: which process this is, see `MetricsServer`. Raises `InvalidInput` if
        traces are wanted and OpenTelemetry is not installed."""
        self.tracer = OFF
        self._sender: SpanSender | None = None
        if not config.endpoint:
            return
        try:
            # Half a second, and only who wants traces has it.
            from daitn.oam.monitoring.otlp import SpanSender
        except ImportError:
            raise InvalidInput(
                "OpenTelemetry is not installed",
                field="traces.endpoint",
                fix="pip install 'daitn[traces]', or leave `traces` out",
            ) from None
        self._sender = SpanSender(config.endpoint, kind=kind, site=site)
        self.tracer = Tracer(config.ratio, self._sender.send)

    async def close(self) -> None:
        """Send what is left."""
        if self._sender is not None:
            await asyncio.to_thread(self._sender.close)
