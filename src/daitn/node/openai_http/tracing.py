"""Attributes of spans by OpenTelemetry's conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/). None contains any of a query's text."""

from __future__ import annotations

from typing import Final

from daitn.objects.deployments import Api
from daitn.tools.monitoring.tracing import Attribute

__all__ = ["operation", "request_attributes"]

_OPERATIONS: Final = {Api.COMPLETIONS: "text_completion"}
"""Operations of APIs whose operation has a different name."""


def operation(api: Api) -> str:
    """The operation of an API: `chat`, `text_completion`, `embeddings`, `rerank`."""
    return _OPERATIONS.get(api, api.value)


def request_attributes(api: Api, model: str) -> dict[str, Attribute]:
    """Attributes of the request."""
    return {
        "gen_ai.operation.name": operation(api),
        "gen_ai.provider.name": "daitn",
        "gen_ai.request.model": model,
    }
