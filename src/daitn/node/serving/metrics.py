"""Metrics of each deployment of a facility, under vLLM's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.protocol import Backend
from daitn.objects.deployments import DeploymentState
from daitn.tools.monitoring.metrics import Sample, counter, gauge, histogram

__all__ = ["METRICS", "measured"]

REQUESTS: Final = counter(
    "daitn_facility_requests_total",
    "Queries at a deployment: `answered`, `failed`, or `rejected` because its queue was full.",
    *("model", "outcome"),
)
RUNNING: Final = gauge("daitn_facility_requests_running", "Queries being answered.", "model")
WAITING: Final = gauge("daitn_facility_requests_waiting", "Queries that wait for a slot.", "model")
SLOTS: Final = gauge(
    "daitn_facility_slots", "Maximum number of queries answered at the same time.", "model"
)
QUEUE_TIME: Final = histogram(
    "daitn_facility_queue_time_seconds", "How long queries waited for a slot.", "model"
)
DURATION: Final = histogram(
    "daitn_facility_request_duration_seconds",
    "Time from getting a slot to the complete answer.",
    "model",
)
FIRST_TOKEN: Final = histogram(
    "daitn_facility_time_to_first_token_seconds",
    "Time from getting a slot to the first piece of the answer, if answers are streamed.",
    "model",
)
GENERATION_TOKENS: Final = counter(
    "daitn_facility_generation_tokens_total", "Tokens written in answers.", "model"
)
READY: Final = gauge(
    "daitn_facility_deployment_ready", "1 if a deployment accepts queries, else 0.", "model"
)
MEMORY_FREE: Final = gauge(
    "daitn_facility_memory_free_bytes", "Memory left for further deployments."
)
METRICS: Final = (
    *(REQUESTS, RUNNING, WAITING, SLOTS, QUEUE_TIME, DURATION, FIRST_TOKEN, GENERATION_TOKENS),
    *(READY, MEMORY_FREE),
)


def measured(backends: Mapping[str, Backend], memory_free_bytes: int) -> Iterator[Sample]:
    """See `Measured`. `backends`: the facility's deployments, by name."""
    for name, backend in backends.items():
        yield from _deployment(name, backend.admission)
        yield READY.at(backend.descriptor.state is DeploymentState.READY, name)
    yield MEMORY_FREE.at(memory_free_bytes)


def _deployment(name: str, admission: AdmissionQueue) -> Iterator[Sample]:
    yield REQUESTS.at(admission.duration.count, name, "answered")
    yield REQUESTS.at(admission.failed, name, "failed")
    yield REQUESTS.at(admission.rejected, name, "rejected")
    yield RUNNING.at(admission.in_flight, name)
    yield WAITING.at(admission.waiting, name)
    yield SLOTS.at(admission.slots, name)
    yield QUEUE_TIME.at(admission.queue_time, name)
    yield DURATION.at(admission.duration, name)
    yield FIRST_TOKEN.at(admission.first_token, name)
    yield GENERATION_TOKENS.at(admission.tokens, name)
