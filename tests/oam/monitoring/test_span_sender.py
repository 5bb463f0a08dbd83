"""Spans and a collector that is away, busy or picky; and what strangers put into spans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from daitn.oam.monitoring import span_sender
from daitn.oam.monitoring.traces import Traces
from daitn.objects.errors import InvalidInput
from daitn.tools.monitoring.config import TracesConfig
from daitn.tools.monitoring.tracing import Attribute, SpanKind
from tests.scenes.otlp_collector import OtlpCollector
from tests.scenes.ports import free_port
from tests.scenes.waiting import until


@asynccontextmanager
async def tracing(url: str) -> AsyncIterator[Traces]:
    traces = Traces(TracesConfig(endpoint=url, ratio=1.0), kind="node", site="gate")
    try:
        yield traces
    finally:
        await traces.close()


def end_span(traces: Traces, name: str = "chat", **attributes: Attribute) -> str:
    """Begin and end one; returns its trace."""
    span = traces.tracer.begin(name, SpanKind.SERVER, None)
    assert span is not None
    span.attributes |= attributes
    span.end()
    return f"{span.context.trace_id:032x}"


class PickyCollector:
    """Answers with these statuses in turn, then with the last one for good."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.asked: list[dict[str, str]] = []
        self.port = free_port()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append({**request.headers})
        await request.read()
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        return web.Response(status=status)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/v1/traces", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            await runner.cleanup()


async def test_all_kinds_of_attributes_arrive_as_they_are() -> None:
    with OtlpCollector() as collector:
        async with tracing(collector.url) as traces:
            trace = end_span(traces, text="ä", yes=True, count=1, share=1.0, path=["a", "b"])
        (span,) = collector.spans(trace)
    values = [*span.attributes.values()]
    assert values == ["ä", True, 1, 1.0, ["a", "b"]]
    assert [type(value) for value in values] == [str, bool, int, float, list]
    assert (span.process, span.parent_id, span.failed) == ("gate", "", False)


@pytest.mark.parametrize(
    ("value", "arrives"),
    [("doc\udc80tor", "doc?tor"), (2**70, str(2**70)), (-(2**63), str(-(2**63)))],
)
async def test_what_strangers_say_costs_no_span(value: Attribute, arrives: Attribute) -> None:
    """Neither that one nor others of its batch."""
    with OtlpCollector() as collector:
        async with tracing(collector.url) as traces:
            odd = end_span(traces, f"chat {value}", said=value)
            other = end_span(traces)
        (span,) = collector.spans(odd)
        assert collector.spans(other)
    assert span.attributes["said"] == arrives


async def test_spans_wait_for_a_collector_that_is_away() -> None:
    picky = PickyCollector(200)
    async with tracing(f"http://127.0.0.1:{picky.port}") as traces:
        end_span(traces)
        await asyncio.sleep(3 * span_sender.EVERY_S)
        async with picky.listening():
            await until(lambda: picky.asked)


async def test_a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for statuses, times in (((503, 429, 200), 3), ((400,), 1)):
        picky = PickyCollector(*statuses)
        async with picky.listening() as url:
            async with tracing(url) as traces:
                end_span(traces)
                await until(lambda: len(picky.asked) == times)  # noqa: B023
                await asyncio.sleep(3 * span_sender.EVERY_S)
            assert len(picky.asked) == times
    assert "takes no spans: it answers 503" in caplog.text
    assert "takes no spans: it answers 400" in caplog.text


async def test_while_a_collector_is_away_no_more_wait_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_sender, "MOST_WAITING", 10)
    with OtlpCollector() as collector:
        async with tracing(collector.url) as traces:
            for _ in range(25):
                end_span(traces)
        assert len(collector.traces()) == 10


async def test_headers_and_authorities_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x, tenant = a=b")
    picky = PickyCollector(200)
    async with picky.listening() as url, tracing(url + "/v1/traces") as traces:
        end_span(traces)
        await until(lambda: picky.asked)
    assert picky.asked[0]["Authorization"] == "Bearer x"
    assert picky.asked[0]["tenant"] == "a=b"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "none.pem"))
    with pytest.raises(InvalidInput, match=r"none\.pem"):
        Traces(TracesConfig(endpoint="https://127.0.0.1:1"), kind="node", site="gate")


@pytest.mark.parametrize(
    "stated",
    ["key=a%0d%0ab", "key=a\r\nb", "key=%00", "a%0a=b", "a b=c", "=b", "ü=b", "Content-Type=a/b"],
)
async def test_headers_that_cannot_be_sent_are_refused_at_the_start(
    stated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each span is lost, and the process's shutdown fails."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", stated)
    with pytest.raises(InvalidInput) as raised:
        Traces(TracesConfig(endpoint="http://127.0.0.1:1"), kind="node", site="gate")
    assert raised.value.field == "OTEL_EXPORTER_OTLP_HEADERS"


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[::1", "http://127.0.0.1:99999", "http://a..b", f"http://{'a' * 64}.org"],
)
async def test_an_address_that_cannot_be_one_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Traces(TracesConfig(endpoint=url), kind="node", site="gate")
    assert raised.value.field == "traces.endpoint"


async def test_a_collector_that_has_moved_is_told_and_not_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that follows it asks with a GET, whose answer says nothing about the spans."""
    for status in (302, 304, 307):
        caplog.clear()
        picky = PickyCollector(status)
        async with picky.listening() as url, tracing(url) as traces:
            end_span(traces)
            await until(lambda: picky.asked)  # noqa: B023
        assert f"takes no spans: it answers {status}" in caplog.text


async def test_a_password_in_the_address_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    picky = PickyCollector(400)
    async with picky.listening() as url, tracing(url.replace("//", "//ann:s3cret@")) as traces:
        end_span(traces)
        await until(lambda: picky.asked)
    assert picky.asked[0]["Authorization"].startswith("Basic ")
    assert "takes no spans" in caplog.text
    assert "s3cret" not in caplog.text
