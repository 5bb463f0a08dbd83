"""One trace leads through all processes that a query or a job needs, over a real network."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import openai
import pytest

from tests.oam.monitoring.scene import QUESTION, Watched
from tests.scenes.otlp_collector import Collected, OtlpCollector
from tests.scenes.waiting import wait_until

pytestmark = pytest.mark.processes

SERVER, CLIENT, CONSUMER = 2, 3, 5
"""OTLP's numbers of kinds."""


class Client:
    """Whoever asks has a span of its own."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-0{int(sampled)}"}


def complete(
    collector: OtlpCollector, trace_id: str, whole: Callable[[list[Collected]], bool]
) -> list[Collected]:
    """The spans of a trace, once it is whole."""
    wait_until(lambda: whole(collector.spans(trace_id)))
    return collector.spans(trace_id)


def below(parent: Collected, spans: list[Collected]) -> list[Collected]:
    return [span for span in spans if span.parent_id == parent.span_id]


def one(spans: list[Collected], **wanted: object) -> Collected:
    (found,) = (
        span
        for span in spans
        if all(getattr(span, name) == value for name, value in wanted.items())
    )
    return found


def test_one_trace_leads_from_the_client_to_the_facility(
    watched: Watched, collector: OtlpCollector
) -> None:
    client = Client()
    watched.ask(headers=client.headers)
    # The last of each process.
    spans = complete(
        collector,
        client.trace_id,
        lambda spans: {s.process for s in spans if s.kind == SERVER} == {"gate", "ward"},
    )
    gate = one(spans, process="gate", kind=SERVER)
    assert gate.parent_id == client.span_id
    assert {span.name for span in below(gate, spans)} == {"decide", "chat doctor"}
    attempt = one(spans, process="gate", kind=CLIENT)
    ward = one(spans, process="ward", kind=SERVER)
    assert ward.parent_id == attempt.span_id
    assert gate.began_ns <= attempt.began_ns <= attempt.ended_ns <= gate.ended_ns
    assert (
        gate.attributes.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "doctor",
            "gen_ai.response.model": "doctor",
            "daitn.outcome": "answered",
            "daitn.site": "ward",
        }.items()
    )
    assert gate.attributes["gen_ai.usage.output_tokens"] > 0
    assert not any(span.failed for span in spans)


def test_one_trace_leads_over_the_hops_of_a_packet(
    watched: Watched, collector: OtlpCollector
) -> None:
    client = Client()
    watched.ask(headers=client.headers, constraints={"autonomous": True})
    spans = complete(collector, client.trace_id, lambda spans: len(spans) >= 7)
    gate = one(spans, process="gate", kind=SERVER)
    packet = one(spans, name="packet")
    assert packet.parent_id == gate.span_id
    hops = [span for span in below(packet, spans) if span.name.startswith("hop ")]
    assert [span.attributes["daitn.site"] for span in hops] == ["gate", "hub", "ward"]
    assert [span.attributes["daitn.hop.action"] for span in hops][-1] == "delivered"
    served = one(spans, name="serve packet", kind=CONSUMER)
    assert served.parent_id == packet.span_id
    assert served.attributes["daitn.object.id"] == gate.attributes["daitn.object.id"]
    assert one(spans, process="ward", kind=SERVER).parent_id == served.span_id


def test_what_its_client_does_not_sample_leaves_no_span(
    watched: Watched, collector: OtlpCollector
) -> None:
    quiet, loud = Client(sampled=False), Client()
    watched.ask(headers=quiet.headers)
    watched.ask()
    watched.ask(headers=loud.headers)
    complete(collector, loud.trace_id, lambda spans: len(spans) >= 4)
    assert quiet.trace_id not in collector.traces()


def test_a_refused_query_is_a_failed_span(watched: Watched, collector: OtlpCollector) -> None:
    client = Client()
    with pytest.raises(openai.NotFoundError):
        watched.client.chat.completions.create(
            model="no-such-model",
            messages=[{"role": "user", "content": QUESTION}],
            extra_headers=client.headers,
        )
    spans = complete(collector, client.trace_id, lambda spans: len(spans) == 2)
    span = one(spans, kind=SERVER)
    assert span.failed
    assert span.attributes["error.type"] == "model_not_found"


def test_the_visits_of_a_job_are_spans_of_one_trace(
    watched: Watched, collector: OtlpCollector
) -> None:
    def jobs() -> list[str]:
        return [
            trace
            for trace in collector.traces()
            if any(span.name == "job tumour-1" for span in collector.spans(trace))
        ]

    wait_until(jobs)
    (trace_id,) = jobs()
    spans = complete(
        collector, trace_id, lambda spans: {s.process for s in spans} >= {"center", "west", "mpvu"}
    )
    job = one(spans, name="job tumour-1")
    assert job.parent_id == ""
    assert job.attributes["daitn.job.state"] == "reached"
    assert below(job, spans) == [span for span in spans if span != job]
    names = {span.name for span in spans}
    assert names >= {"visit west", "verify mpvu", "route", "verifiers"}
    visit = next(span for span in spans if span.name == "visit west")
    assert job.began_ns <= visit.began_ns <= visit.ended_ns <= job.ended_ns


def test_no_span_has_a_query_s_text(watched: Watched, collector: OtlpCollector) -> None:
    client = Client()
    watched.ask(headers=client.headers)
    complete(collector, client.trace_id, lambda spans: len(spans) >= 4)
    assert not [body for body in collector.received if QUESTION.encode() in body]
