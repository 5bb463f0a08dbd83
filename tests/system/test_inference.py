"""Queries find models, through real processes: a control centre, facilities and gateways."""

from __future__ import annotations

import concurrent.futures
import json
import math
import os
import re
import signal
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.corpora.split import choices
from tests.scenes.clinic import examining, facility, gateway
from tests.scenes.openai_server import OpenAiServer, Settings
from tests.scenes.ports import free_port
from tests.scenes.relay import Relay
from tests.scenes.waiting import wait_until

from .conftest import Network, build

pytestmark = pytest.mark.processes

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SLOW = {"first_token_s": 0.2, "per_token_s": 0.02}


class Scene:
    """Two facilities with the same model and one with another, behind a gateway."""

    def __init__(self, network: Network, url: str, servers: dict[str, OpenAiServer]) -> None:
        self.network = network
        self.servers = servers
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.url = url

    def ask(self, model: str = "doctor", **constraints: Any) -> tuple[str, dict[str, str]]:
        answer = self.client.chat.completions.with_raw_response.create(
            model=model, messages=HELLO, temperature=0, extra_body={"daitn": constraints}
        )
        said = answer.parse().choices[0].message.content
        return said or "", {k: v for k, v in answer.headers.items() if k.startswith("daitn-")}

    def there(self, *models: str) -> bool:
        return {m.id for m in self.client.models.list().data} >= set(models)

    def known_everywhere(self, deployments: int) -> bool:
        """Whether gateway and control centre have heard of so many, and the gateway of all by their
        bare names, which a facility that starts before the control centre gets somewhat later."""
        found = self.network.json("get", "models")["deployed"]
        by_name = self.left_out("doctor") + self.left_out("nurse")
        return self.left_out("auto") == by_name == len(found) == deployments

    def left_out(self, model: str) -> int:
        """How many deployments could answer if they were elsewhere."""
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
            self.ask(model, jurisdictions=["AQ"])
        said = re.search(r"left out (\d+) by jurisdiction", str(refused.value))
        return int(said[1]) if said else 0

    def facility_of(self, model: str = "doctor", **constraints: Any) -> str:
        return self.ask(model, **constraints)[1]["daitn-facility"]


def upstream(name: str, server: OpenAiServer, **changes: Any) -> dict[str, Any]:
    apis = ["chat", "completions", "embeddings"]
    return {"name": name, "url": server.url, "apis": apis, **changes}


CLINIC = "clinic"
SAYS = {"east": "from east", "west": "from west", "home": "from the nurse"}


@contextmanager
def built(folder: Path) -> Iterator[Scene]:
    door = gateway("gate")
    with ExitStack() as stack:
        servers = {
            site: stack.enter_context(OpenAiServer(text=text)) for site, text in SAYS.items()
        }
        nodes = [
            facility("east", upstream("doctor", servers["east"], slots=2, queue=6), owner=CLINIC),
            facility("west", upstream("doctor", servers["west"], slots=2, queue=6), owner=CLINIC),
            facility(
                "home",
                upstream("nurse", servers["home"], price_usd_per_1k_out=0.001),
                jurisdiction="FR",
                facility={"keeps_queries": True},
            ),
            door,
        ]
        network = build(folder, nodes)
        stack.callback(network.processes.stop)
        scene = Scene(network, f"http://{door['gateway']['listen']}", servers)
        wait_until(lambda: scene.known_everywhere(3))
        yield scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """For a test that looks at what has not happened yet, or that costs a model its good name."""
    with built(tmp_path) as scene:
        yield scene


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with built(tmp_path_factory.mktemp("hall")) as scene:
        yield scene


@pytest.fixture
def hall(standing: Scene) -> Scene:
    """One for all tests that leave it as it is; they may change how its servers behave."""
    return _behaving(standing)


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with built(tmp_path_factory.mktemp("breakable")) as scene:
        yield scene


@pytest.fixture
def whole(breakable: Scene) -> Scene:
    """One for all tests that kill, and freeze, processes of it."""
    breakable.network.mend()
    return _behaving(breakable)


def _behaving(scene: Scene) -> Scene:
    for site, server in scene.servers.items():
        server.control(**msgspec.to_builtins(Settings(port=server.port, text=SAYS[site])))
    return scene


def test_a_query_finds_its_model_and_is_told_how(hall: Scene) -> None:
    said, headers = hall.ask("nurse")
    assert said == "from the nurse"
    assert headers["daitn-facility"] == "home"
    assert headers["daitn-path"] == "gate,home"
    assert float(headers["daitn-cost-usd"]) > 0
    said, last = hall.ask("doctor@west")
    assert said == "from west"
    listed = hall.network.json("get", "queries")
    assert listed[0]["id"] == last["daitn-decision"]
    assert listed[1]["deployment"] == "nurse"
    assert len(hall.network.json("get", "queries", "--limit", "1")) == 1
    assert hall.network.json("get", "queries", "--owner", "nobody") == []
    wide = hall.network.daitn("get", "queries", "--limit", "2", "-o", "wide").stdout.splitlines()
    assert len(wide) == 3
    assert "gate > home" in wide[2]
    odd = hall.network.daitn("get", "nodes", "--owner", "ada")
    assert odd.returncode == 2
    assert "only queries have" in " ".join(odd.stderr.split())
    page = hall.network.daitn("describe", "node", "gate").stdout
    assert "gateway at" in page
    assert "{" not in page
    explained = hall.network.json("explain", headers["daitn-decision"])
    assert explained["decision"]["chosen"] == "nurse@home"
    assert explained["query"]["http_status"] == 200


def test_what_matters_to_a_query_is_shown_and_drawn(hall: Scene, tmp_path: Path) -> None:
    drawn = tmp_path / "cut.graphml"
    cut = hall.network.json(
        "topology", "query", "--jurisdiction", "US", "--min-accuracy", "0.5", "-o", str(drawn)
    )
    options = {option["deployment"]: option for option in cut["options"]}
    assert set(options) == {"doctor@east", "doctor@west", "nurse@home"}
    reasons = {no["filter"] for no in options["nurse@home"]["rejections"]}
    assert reasons == {"jurisdiction", "accuracy"}
    assert options["doctor@east"]["path"] == ["gate", "east"]
    root = ElementTree.parse(drawn).getroot()
    assert root.tag.endswith("graphml")
    assert "doctor@west" in drawn.read_text()


def test_a_model_and_a_facility_are_described(scene: Scene) -> None:
    for _ in range(3):
        scene.ask("nurse")
    model = scene.network.json("describe", "model", "doctor")
    assert (model["name"], model["trained"], model["measured"]) == ("doctor", None, [])
    assert [each["known"]["site"] for each in model["deployments"]] == ["east", "west"]
    wait_until(lambda: _nurse_at_home(scene)["known"]["first_token_s"] != 0.001)
    nurse = _nurse_at_home(scene)
    assert nurse["descriptor"]["price_usd_per_1k_out"] == 0.001
    for arguments in (("get", "facilities"), ("describe", "facility", "home")):
        shown = scene.network.daitn(*arguments)
        assert shown.returncode == 0, shown.stderr
        assert " ms" in " ".join(shown.stdout.split())
    # Nobody asked the doctors: what is assumed of them is not shown as if it were measured.
    assert " ms" not in scene.network.daitn("describe", "model", "doctor").stdout
    for kind, name, near in (("model", "docter", "doctor"), ("facility", "easy", "east")):
        unknown = scene.network.daitn("describe", kind, name)
        assert unknown.returncode == 2
        assert f"there is no {kind} {name}" in unknown.stderr
        assert f"did you mean {near}" in unknown.stderr


def _nurse_at_home(scene: Scene) -> Any:
    return scene.network.json("describe", "facility", "home")["deployments"][0]


def test_the_whole_topology_of_queries_is_exported(hall: Scene, tmp_path: Path) -> None:
    told, drawn = tmp_path / "qrrt.json", tmp_path / "qrrt.graphml"
    export = ("topology", "export", "--queries")
    for arguments in (("-o", str(told), "--format", "json"), ("-o", str(drawn))):
        ended = hall.network.daitn(*export, *arguments)
        assert ended.returncode == 0, ended.stderr
    qrrt = json.loads(told.read_text())
    assert [g["site"] for g in qrrt["gateways"]] == ["gate"]
    assert [f["site"] for f in qrrt["facilities"]] == ["east", "home", "west"]
    deployed = [(d["name"], d["site"]) for d in qrrt["deployments"]]
    assert deployed == [("doctor", "east"), ("doctor", "west"), ("nurse", "home")]
    assert ElementTree.parse(drawn).getroot().tag.endswith("graphml")
    assert "deployment:nurse@home" in drawn.read_text()
    refused = hall.network.daitn(*export, "-o", str(drawn), "--intent", "intent.yaml")
    assert refused.returncode == 2


def test_law_privacy_and_cost_decide_who_may_answer(hall: Scene) -> None:
    assert hall.facility_of("auto", jurisdictions=["FR"]) == "home"
    assert hall.facility_of("auto", privacy="unkept") in ("east", "west")
    assert hall.facility_of("auto", max_cost_usd=0.0) in ("east", "west")
    with pytest.raises(openai.BadRequestError) as refused:
        hall.ask("nurse", jurisdictions=["US"])
    error: Any = refused.value.body
    assert error["code"] == "infeasible"
    assert error["param"] == "daitn.jurisdictions"
    assert error["daitn"]["relaxations"][0]["proposed"] == '["FR","US"]'
    with pytest.raises(openai.BadRequestError):
        hall.ask("auto", privacy="site")


def test_what_is_wrong_is_an_openai_error(hall: Scene) -> None:
    with pytest.raises(openai.NotFoundError, match="there is doctor, nurse"):
        hall.ask("surgeon")
    with pytest.raises(openai.BadRequestError, match="min_accurcy"):
        hall.ask("doctor", min_accurcy=0.9)
    with pytest.raises(openai.BadRequestError, match="left out 2 by accuracy") as unproven:
        hall.ask("doctor", min_accuracy=0.9)
    assert unproven.value.param == "daitn.min_accuracy"


def test_a_conversation_outlives_its_facilitys_process(whole: Scene) -> None:
    ask = whole.client.responses
    first = ask.create(model="nurse", input="one")
    whole.network.processes.kill("home")
    with pytest.raises((openai.InternalServerError, openai.BadRequestError)):
        ask.create(model="nurse", input="two", previous_response_id=first.id)
    whole.network.processes.launch("home")
    wait_until(lambda: _answers(whole, "nurse@home"))
    second = ask.create(model="nurse@home", input="two", previous_response_id=first.id)
    assert second.output_text == "from the nurse"
    messages = whole.servers["home"].control()["last"][-1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    ask.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        ask.retrieve(first.id)
    assert ask.retrieve(second.id).previous_response_id == first.id
    assert ask.create(model="doctor", input="one").store is False  # type: ignore[attr-defined]


def test_a_killed_facility_loses_no_query(whole: Scene) -> None:
    for server in ("east", "west"):
        whole.servers[server].control(**SLOW)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(whole.ask) for _ in range(40)]
        wait_until(lambda: sum(a.done() for a in asked) >= 8)
        # On a busy machine either may seem the faster one, and have answered all of them.
        lost = next(a.result()[1]["daitn-facility"] for a in asked if a.done())
        whole.network.processes.kill(lost)
        answers = [a.result() for a in asked]
    assert {said for said, _ in answers} == {"from east", "from west"}
    assert all(headers["daitn-facility"] != lost for _, headers in answers[-8:])
    whole.network.processes.launch(lost)
    wait_until(lambda: _answers(whole, f"doctor@{lost}"))


def test_a_dead_server_behind_a_living_facility_is_avoided_and_comes_back(whole: Scene) -> None:
    whole.servers["east"].kill()
    for _ in range(10):
        assert whole.ask()[0] == "from west"
    with pytest.raises(openai.InternalServerError) as away:
        whole.ask("doctor@east")
    assert away.value.response.headers.get("retry-after")
    whole.servers["east"].start()
    wait_until(lambda: _answers(whole, "doctor@east"))


def test_a_frozen_facility_is_overtaken(whole: Scene) -> None:
    # On a busy machine either may seem the faster one.
    favourite = whole.facility_of()
    other = {"east": "west", "west": "east"}[favourite]
    frozen = whole.network.processes.pid(favourite)
    os.kill(frozen, signal.SIGSTOP)
    try:
        answers = [whole.ask() for _ in range(6)]
        assert {said for said, _ in answers} == {f"from {other}"}
    finally:
        os.kill(frozen, signal.SIGCONT)


def test_full_facilities_turn_away_in_order_and_at_once(hall: Scene) -> None:
    servers = [hall.servers[name] for name in ("east", "west")]
    for server in servers:
        server.control(slots=0)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(hall.ask) for _ in range(24)]
        try:
            # Two facilities with two slots and six places to wait each: eight find no place.
            wait_until(lambda: sum(one.done() for one in asked) >= 8)
            turned_away = [one.exception() for one in asked if one.done()]
        finally:
            for server in servers:
                server.control(slots=9)
        ended = [one.exception() for one in asked]
    assert all(turned_away), "who is turned away does not wait until the others are served"
    failures = [error for error in ended if error]
    assert 24 - len(failures) >= 8
    for failure in failures:
        assert isinstance(failure, openai.RateLimitError | openai.InternalServerError)
        assert failure.response.status_code in (429, 503)
        assert int(failure.response.headers["retry-after"]) >= 1
    seen = [hall.servers[s].control()["most_in_flight"] for s in ("east", "west")]
    assert max(seen) <= 2


def test_who_goes_away_frees_the_server(hall: Scene) -> None:
    hall.servers["home"].control(first_token_s=0.0, per_token_s=0.05, huge=True)
    stream = hall.client.chat.completions.create(model="nurse", messages=HELLO, stream=True)
    assert next(iter(stream)).choices
    assert hall.servers["home"].control()["in_flight"] == 1
    stream.close()
    wait_until(lambda: hall.servers["home"].control()["in_flight"] == 0)
    assert hall.servers["home"].control()["cancelled"] == 1


def test_queries_go_on_while_the_control_centre_is_down(whole: Scene) -> None:
    whole.network.processes.kill("center")
    assert whole.ask("doctor")[0].startswith("from")
    assert whole.ask("nurse")[0] == "from the nurse"


def test_the_door_of_a_facility_opens_for_gateways_alone(hall: Scene) -> None:
    nodes = hall.network.json("get", "nodes")
    endpoint = next(
        n["descriptor"]["facility"]["endpoint"] for n in nodes if n["descriptor"]["site"] == "east"
    )
    stranger = openai.OpenAI(base_url=f"{endpoint}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="pass"):
        stranger.chat.completions.create(model="doctor", messages=HELLO)
    assert "url" not in json.dumps(nodes)


def test_a_cut_link_is_gone_around_and_a_slow_one_avoided(tmp_path: Path) -> None:
    near, far = gateway("near"), gateway("far")
    door = free_port()
    with OpenAiServer(text="from the mountain") as server, Relay(door) as link:
        mountain = facility(
            "mountain",
            upstream("doctor", server),
            facility={"listen": f"127.0.0.1:{door}", "advertise": f"http://127.0.0.1:{link.port}"},
        )
        network = build(tmp_path, [mountain, near, far])
        scene = Scene(network, f"http://{near['gateway']['listen']}", {})
        try:
            wait_until(lambda: scene.there("doctor"))
            path = scene.ask()[1]["daitn-path"].split(",")
            assert (path[0], path[-1]) == ("near", "mountain")
            link.cut()
            # The link is one for both gateways: nobody gets through, and that is told at once.
            with pytest.raises(openai.APIStatusError) as gone:
                scene.ask()
            assert gone.value.status_code in (502, 503)
            link.mend()
            wait_until(lambda: _answers(scene, "doctor"))
        finally:
            network.processes.stop()


def _answers(scene: Scene, model: str) -> bool:
    try:
        return scene.ask(model)[0].startswith("from")
    except openai.APIStatusError:
        return False


def test_bad_queries_take_a_deployment_from_nobody(scene: Scene) -> None:
    poison: list[Any] = [{"role": "user", "content": "poison"}]
    for server in scene.servers.values():
        server.control(chokes_on="poison")
    for model in ("nurse", "doctor"):
        for _ in range(4):
            with pytest.raises(openai.APIStatusError, match="500") as failed:
                scene.client.chat.completions.create(model=model, messages=poison)
            assert failed.value.status_code in (502, 503)
            assert scene.ask(model)[0].startswith("from"), "at once, and for everybody else"
    # Where another one answers, it is the deployment that is at fault.
    before = scene.servers["east"].control(fail=1.0)["requests"]
    began_s = time.monotonic()
    for _ in range(15):
        assert scene.ask("doctor")[0] == "from west"
    lasted_s = time.monotonic() - began_s
    tried = scene.servers["east"].control()["requests"] - before
    assert tried <= 1 + math.log2(1 + lasted_s / 0.5), "it is left alone for 0.5 s, then 1, 2, 4"


def test_a_model_that_was_swapped_is_found_out_and_drained(tmp_path: Path) -> None:
    items = [choice for pairs in clinic().values() for choice in choices(pairs, "exam")][:160]
    exam = tmp_path / "exam.jsonl"
    write_records(exam, items)
    door = gateway("gate")
    with (
        OpenAiServer(accuracy=0.95, answers=str(exam), seed=1) as good,
        OpenAiServer(accuracy=0.95, answers=str(exam), seed=2) as swapped,
    ):
        claims = {"claimed": {"medicine": 0.99}}
        nodes = [
            facility("honest", upstream("doctor", good, price_usd_per_1k_out=1.0)),
            facility("liar", upstream("quack", swapped, **claims)),
            examining(exam),
            door,
        ]
        network = build(tmp_path, nodes)
        scene = Scene(network, f"http://{door['gateway']['listen']}", {})
        constraints = {"topic": "medicine", "min_accuracy": 0.8, "trust": "asked"}
        try:
            # Nobody is believed before a verifier has asked; then the cheaper one is taken.
            wait_until(lambda: _served_by(scene, constraints) == "quack")
            requests = swapped.control()["last"]
            assert all("verif" not in json.dumps(r).lower() for r in requests)
            assert all("daitn-pass" in {h.lower() for h in r["headers"]} for r in requests) is False
            swapped.control(accuracy=0.2)
            wait_until(lambda: _served_by(scene, constraints) == "doctor")
            (found,) = network.json("describe", "model", "quack")["measured"]
            assert (found["verifier"], found["site"], found["trust"]) == ("mpvu", "liar", "asked")
            deployed = network.json("get", "models")["deployed"]
            wait_until(
                lambda: (
                    [m["degraded"] for m in network.json("get", "models")["deployed"]]
                    == [False, True]
                )
            )
            assert {m["name"] for m in deployed} == {"doctor", "quack"}
            # Drained also for those who wish nothing; reached by name.
            assert scene.ask("auto")[1]["daitn-model"] == "doctor"
            assert scene.ask("quack@liar")[1]["daitn-facility"] == "liar"
            swapped.control(accuracy=0.95)
            wait_until(lambda: _served_by(scene, constraints) == "quack")
        finally:
            network.processes.stop()


def _served_by(scene: Scene, constraints: dict[str, Any]) -> str:
    try:
        return scene.ask("auto", **constraints)[1]["daitn-model"]
    except openai.APIStatusError:
        return ""
