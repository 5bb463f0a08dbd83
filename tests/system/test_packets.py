"""Ensembles and sealed queries that find their own way, through real processes."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.scenes.clinic import facility, gateway
from tests.scenes.command_line import daitn
from tests.scenes.forwarders import Mesh
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import wait_until

from .conftest import Network, build

pytestmark = pytest.mark.processes

QUESTION = "is it malignant"
SAYS = {"east": "it is", "west": "It is", "clinic": "it is not"}


def class_key(file: Path) -> str:
    """Made by the command line; returns the public half."""
    first, again = (daitn("key", str(file)) for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == again.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return first.stdout.strip()


class Star:
    """gate - hub - east, west, clinic: a model of one name at all three, and clinic alone is of the
    class `clinics`."""

    def __init__(self, folder: Path, servers: dict[str, OpenAiServer]) -> None:
        mesh = Mesh()
        door = gateway("gate", autonomous=True)
        self.url = f"http://{door['gateway']['listen']}"
        classes = {"clinics": class_key(folder / "clinics.key")}
        to_hub = {"hub": mesh.port("hub")}
        nodes = [mesh.node("gate", to_hub, entry=door, classes=classes)]
        nodes.append(mesh.node("hub", {}, "gate", *servers))
        for site, server in servers.items():
            upstream = {
                "name": "doctor",
                "url": server.url,
                "apis": ["chat"],
                "claimed": {"medicine": 0.9},
                "price_usd_per_1k_in": 1.0,
            }
            receives = {"receives": ["clinics.key"]} if site == "clinic" else {}
            nodes.append(
                mesh.node(
                    site, to_hub, entry=facility(site, upstream, owner="hospital"), **receives
                )
            )
        self.network: Network = build(folder, nodes)

    def ask(self, **constraints: Any) -> tuple[str, dict[str, str]]:
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.with_raw_response.create(
            model="doctor",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"daitn": constraints},
        )
        return answer.parse().choices[0].message.content or "", dict(answer.headers)


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Star]:
    with ExitStack() as stack:
        servers = {
            site: stack.enter_context(OpenAiServer(text=text)) for site, text in SAYS.items()
        }
        built = Star(tmp_path_factory.mktemp("star"), servers)
        stack.callback(built.network.processes.stop)
        wait_until(lambda: facilities(built) == {*SAYS})
        yield built


def facilities(star: Star) -> set[str]:
    """Those that answer an ensemble now."""
    try:
        _, headers = star.ask(strategy="ensemble", members=4, hedge=False)
    except openai.APIStatusError:
        return set()
    return {*headers["daitn-facilities"].split(",")}


def test_an_ensemble_finds_its_own_ways_and_votes(star: Star) -> None:
    said, headers = star.ask(strategy="ensemble", members=4, hedge=False)
    assert said.casefold() == "it is"
    assert headers["daitn-strategy"] == "packet, ensemble"
    assert sorted(headers["daitn-facilities"].split(",")) == ["clinic", "east", "west"]
    assert headers["daitn-facility"] in {"east", "west"}
    assert float(headers["daitn-cost-usd"]) == pytest.approx(3 * 7 / 1000)
    (asked, *_) = star.network.json("get", "queries")
    assert asked["strategy"] == "ensemble"

    def branches() -> set[int]:
        traced = star.network.json("trace", headers["daitn-object"], "--site", "gate")
        return {entry["branch"] for entry in traced["pending"]}

    wait_until(lambda: branches() == {0, 1, 2, 3})


def test_a_sealed_query_is_answered_by_the_class_and_known_to_no_other(star: Star) -> None:
    for _ in range(3):
        said, headers = star.ask(sealed_to="clinics")
        assert (said, headers["daitn-facility"]) == ("it is not", "clinic")
        assert headers["daitn-path"] == "gate,hub,clinic"
    logs = [file.read_text(errors="replace") for file in (star.network.folder / "logs").iterdir()]
    assert not any(QUESTION in log or "it is not" in log for log in logs)


def test_what_packets_cannot_do_is_said(star: Star) -> None:
    for constraints, param in (
        ({"strategy": "cascade"}, "daitn.strategy"),
        ({"sealed_to": "nurses"}, "daitn.sealed_to"),
        ({"sealed_to": "clinics", "autonomous": False}, "daitn.sealed_to"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            star.ask(**constraints)
        assert refused.value.param == param
