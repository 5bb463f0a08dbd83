"""What processes tell Prometheus, over a real network."""

from __future__ import annotations

import urllib.error
import urllib.request

import openai
import pytest

from daitn.oam.monitoring.catalogue import CATALOGUE
from daitn.tools.monitoring.metrics import MetricKind
from tests.oam.monitoring.scene import Watched
from tests.scenes.waiting import wait_until

pytestmark = pytest.mark.processes


def test_every_metric_is_told_by_some_process(watched: Watched) -> None:
    wait_until(lambda: watched.value("mpvu", "daitn_verifier_examinations_total") > 0)
    scrapes = [watched.scrape(site) for site in watched.sites]
    told = {(name, family.type) for scrape in scrapes for name, family in scrape.items()}
    described = {
        (metric.name.removesuffix("_total"), metric.kind.value)
        for metrics in CATALOGUE.values()
        for metric in metrics
    }
    assert not described - told
    # And nothing else but what Prometheus' own library tells.
    assert all(name.startswith(("process_", "python_")) for name, _ in told - described)


def test_a_gateway_counts_each_query_once(watched: Watched) -> None:
    def asked(**labels: str) -> float:
        return watched.value("gate", "daitn_gateway_requests_total", **labels)

    before, tokens = asked(), watched.value("gate", "daitn_gateway_generation_tokens_total")
    answered = asked(outcome="answered", model="doctor", api="chat")
    watched.ask()
    watched.ask(stream=True)
    with pytest.raises(openai.NotFoundError):
        watched.client.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "?"}]
        )
    wait_until(lambda: asked() - before >= 3)
    assert asked(outcome="answered", model="doctor", api="chat") - answered >= 2
    assert asked(outcome="refused", model="other") >= 1
    assert watched.value("gate", "daitn_gateway_errors_total", code="model_not_found") >= 1
    assert watched.value("gate", "daitn_gateway_generation_tokens_total") > tokens
    # Of one moment: the verifier asks too.
    scrape = watched.scrape("gate")
    durations = scrape["daitn_gateway_request_duration_seconds"].samples
    ended = scrape["daitn_gateway_requests"].samples
    assert sum(s.value for s in durations if s.name.endswith("_count")) == sum(
        s.value for s in ended if s.labels["outcome"] == "answered"
    )


def test_names_that_clients_make_up_are_one(watched: Watched) -> None:
    for number in range(5):
        with pytest.raises(openai.NotFoundError):
            watched.client.chat.completions.create(
                model=f"made-up-{number}", messages=[{"role": "user", "content": "?"}]
            )
    family = watched.scrape("gate")["daitn_gateway_requests"]
    assert not [s for s in family.samples if s.labels["model"].startswith("made-up")]


def test_a_facility_tells_its_queue_and_a_forwarder_its_packets(watched: Watched) -> None:
    asked = watched.value("ward", "daitn_facility_requests_total", outcome="answered")
    delivered = watched.value("ward", "daitn_forwarder_packets_total", event="delivered")
    passed = watched.value("hub", "daitn_forwarder_packets_total", event="sent")
    watched.ask(constraints={"autonomous": True})
    assert watched.value("ward", "daitn_facility_requests_total", outcome="answered") > asked
    assert watched.value("ward", "daitn_forwarder_packets_total", event="delivered") > delivered
    assert watched.value("hub", "daitn_forwarder_packets_total", event="sent") >= passed + 2
    assert watched.value("ward", "daitn_facility_slots", model="doctor") == 2
    hops = watched.scrape("ward")["daitn_forwarder_hops"]
    total, count = (
        next(s.value for s in hops.samples if s.name.endswith(end)) for end in ("_sum", "_count")
    )
    assert total / count == pytest.approx(3)


def test_a_control_centre_tells_of_jobs_and_sites(watched: Watched) -> None:
    assert watched.value("center", "daitn_center_jobs", state="reached") == 1
    assert watched.value("center", "daitn_center_sites", state="alive") == 5
    assert watched.value("center", "daitn_center_requests_total", verb="submit", outcome="ok") == 1
    assert watched.value("center", "daitn_center_decision_duration_seconds_count", kind="route") > 0
    assert watched.value("center", "daitn_journal_facts_total") > 5
    assert watched.value("west", "daitn_work_total", kind="visit", outcome="done") >= 1
    assert watched.value("mpvu", "daitn_work_total", kind="verify", outcome="done") >= 1
    assert watched.value("mpvu", "daitn_mobility_received_bytes_total") > 0
    assert watched.value("west", "daitn_mobility_sent_bytes_total") > 0


def test_only_metrics_are_served_and_only_on_loopback(watched: Watched) -> None:
    for site in watched.sites:
        assert watched.target(site).startswith("127.0.0.1:")
    at = f"http://{watched.target('hub')}"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{at}/")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(f"{at}/metrics", data=b"x")


def test_names_follow_prometheus_rules() -> None:
    metrics = [metric for part in CATALOGUE.values() for metric in part]
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.name.startswith("daitn_")
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER), metric.name
        assert metric.help.endswith("."), metric.name
        # What a target has is not hidden by what its metrics have.
        assert not {"site", "process", "instance", "job", "le"} & set(metric.labels), metric.name
