"""From a trained model to answers: deployed, asked, verified, replaced, moved and retired."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import psutil
import pytest

from daitn.objects.choices import LETTERS, as_question
from tests.scenes.clinic import facility, gateway, write_clinic, write_clinic_intent
from tests.scenes.waiting import wait_until
from tests.scenes.workers import workers_of

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

BOTH = {"east": "ready", "west": "ready"}
QUESTION: list[Any] = [{"role": "user", "content": "What is Velnonia?"}]


class Ward:
    """A network that trained `doctor-1` and `doctor-2`, with two facilities and a gateway."""

    def __init__(self, network: Network, url: str) -> None:
        self.network = network
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def ask(self, model: str = "doctor-1", **constraints: Any) -> dict[str, str]:
        answer = self.client.chat.completions.with_raw_response.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            max_tokens=4,
            extra_body={"daitn": constraints},
        )
        return {name: value for name, value in answer.headers.items() if name.startswith("daitn-")}

    def places(self, name: str) -> dict[str, str]:
        """Facility to state, as the network sees it."""
        deployed = self.network.json("get", "models")["deployed"]
        return {m["site"]: m["state"] for m in deployed if m["name"] == name and m["available"]}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    door = gateway("gate")
    nodes = [facility("east"), facility("west"), facility("abroad", jurisdiction="FR"), door]
    network = running(folder, write_clinic(folder, *nodes, every_s=2.0))
    try:
        for seed in (1, 2):
            route = [{"site": "ninds", "examples": 400 * seed}]
            intent = write_clinic_intent(folder, route=route)
            ended = network.daitn("train", "-f", str(intent), "--watch", "--insist")
            assert ended.returncode in (0, 1), ended.stderr
        yield Ward(network, f"http://{door['gateway']['listen']}")
    finally:
        network.processes.stop()


@pytest.fixture(autouse=True)
def doctor(ward: Ward) -> None:
    """Whatever the test before left, and if there was none: the model is at both facilities."""
    if ward.places("doctor-1") != BOTH:
        options = ["--to", "east", "--to", "west", "--wait"]
        ended = ward.network.daitn("deploy", "doctor-1", *options)
        assert ended.returncode == 0, ended.stderr
        wait_until(lambda: ward.places("doctor-1") == BOTH)
    # The gateway hears of them by itself.
    wait_until(lambda: _answers(ward))


def test_a_trained_model_is_deployed_found_and_asked(ward: Ward) -> None:
    view = ward.network.json("deploy", "doctor-1", "--to", "east", "--to", "west", "--wait")
    assert {p["site"] for p in view["places"]} == {"east", "west"}
    wait_until(lambda: ward.places("doctor-1") == BOTH)
    # The signed measurement of its weights is believed before anybody has asked it.
    headers = ward.ask("auto:medicine/neurology", min_accuracy=0.2)
    assert headers["daitn-model"] == "doctor-1"
    # It reads a choice option by option, however long the whole is, and no other text in part.
    options = [f"It is {word}. " * 300 for word in ("a fever", "a cold", "a fracture", "nothing")]
    choice: list[Any] = [{"role": "user", "content": as_question("What is Velnonia?", options)}]
    answer = ward.client.chat.completions.create(model="doctor-1", messages=choice, max_tokens=4)
    assert (answer.choices[0].message.content or "?") in LETTERS
    long: list[Any] = [{"role": "user", "content": "What is Velnonia? " * 3000}]
    with pytest.raises(openai.BadRequestError, match="maximum context length is"):
        ward.client.chat.completions.create(model="doctor-1", messages=long, max_tokens=4)
    (shown, *_) = ward.network.json("get", "models")["deployed"]
    assert shown["accuracy"][0]["topic"] == "medicine/neurology"
    assert shown["accuracy"][0]["trust"] in ("weights", "asked")
    described = ward.network.json("describe", "model", "doctor-1")
    assert described["trained"]["recipe"] == "causal-lm"
    weighed = [m for m in described["measured"] if m["trust"] == "weights"]
    assert [(m["verifier"], m["topic"]) for m in weighed] == [("mpvu", "medicine/neurology")]


def test_verifiers_ask_what_is_deployed(ward: Ward) -> None:
    def asked() -> bool:
        deployed = ward.network.json("get", "models")["deployed"]
        known = [a for m in deployed if m["name"] == "doctor-1" for a in m["accuracy"]]
        return bool(known) and all(a["trust"] == "asked" for a in known)

    def answers() -> bool:
        """The gateway may hear of it later than the control centre."""
        try:
            return ward.ask(min_accuracy=0.2, trust="asked")["daitn-model"] == "doctor-1"
        except openai.APIStatusError:
            return False

    wait_until(asked)
    wait_until(answers)


def test_a_replaced_model_answers_all_the_time(ward: Ward) -> None:
    failures: list[Exception] = []
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            try:
                ward.ask()
            except openai.APIError as error:
                failures.append(error)

    manifest = _manifest(ward, "east")
    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        options = ["--to", "east", "--to", "west", "--as", "doctor-1", "--wait"]
        assert ward.network.daitn("deploy", "doctor-2", *options).returncode == 0
        wait_until(lambda: _manifest(ward, "east") != manifest)
    finally:
        ended.set()
        asking.join()
    assert not failures


def test_a_lost_facility_is_replaced_where_the_owner_lets_it_be(ward: Ward) -> None:
    ended = ward.network.daitn("deploy", "doctor-2", "--as", "moving", "--replicas", "1", "--wait")
    assert ended.returncode == 0, ended.stderr
    (home,) = ward.places("moving")
    ward.network.processes.kill(home)
    wait_until(lambda: "ready" in {s for at, s in ward.places("moving").items() if at != home})
    wait_until(lambda: _answered_at(ward, "moving") not in ("", home))
    ward.network.processes.launch(home)
    wait_until(lambda: ward.places("doctor-1") == BOTH)
    wait_until(lambda: home in ward.network.daitn("deploy", "doctor-1", "--to", "moon").stderr)


def test_the_control_centre_dies_and_nothing_deployed_is_lost(ward: Ward) -> None:
    before = ward.places("doctor-1")
    ward.network.processes.kill("center")
    assert ward.ask()["daitn-model"] == "doctor-1"
    ward.network.processes.launch("center")
    wait_until(lambda: ward.network.daitn("get", "models", "--json").returncode == 0)
    wait_until(lambda: ward.places("doctor-1") == before)
    assert ward.network.daitn("retire", "doctor-1", "--from", "west").returncode == 0
    wait_until(lambda: ward.places("doctor-1") == {"east": "ready"})


def test_a_drained_facility_hands_over_without_a_gap(ward: Ward) -> None:
    ended = ward.network.daitn("deploy", "doctor-2", "--as", "drained", "--wait")
    assert ended.returncode == 0, ended.stderr
    (home,) = ward.places("drained")
    wait_until(lambda: _answered_at(ward, "drained") == home)
    gaps: list[str] = []
    ended_ = threading.Event()

    def ask_on() -> None:
        while not ended_.is_set():
            if not _answered_at(ward, "drained"):
                gaps.append(home)

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        left = ward.network.daitn("drain", home, "--timeout", "5")
        # What its owner named this facility for stays: the owner has another place for it.
        wait_until(lambda: ward.places("drained").keys() - {home})
        drained = ward.network.daitn("drain", home, "--timeout", "120", "--reason", "new disks")
    finally:
        ended_.set()
        asking.join()
    assert drained.returncode == 0, left.stdout + drained.stdout
    assert not gaps
    assert home not in ward.places("doctor-1") | ward.places("drained")
    refused = ward.network.daitn("deploy", "doctor-2", "--as", "late", "--to", home)
    assert f"{home} is drained" in refused.stderr
    assert "new disks" in refused.stderr
    ward.network.processes.kill("center")
    ward.network.processes.kill(home)
    ward.network.mend()
    (node,) = [n for n in ward.network.json("get", "nodes") if n["descriptor"]["site"] == home]
    assert node["descriptor"]["cordon"]["draining"]
    assert ward.network.daitn("uncordon", home).returncode == 0
    wait_until(lambda: ward.places("doctor-1") == BOTH)
    assert ward.network.daitn("retire", "drained").returncode == 0


def test_a_worker_that_dies_while_it_answers_is_replaced(ward: Ward) -> None:
    node = ward.network.processes.pid("east")
    workers = workers_of(node, "answering.worker")
    assert workers
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):  # It ended with the one before.
            worker.kill()
    wait_until(lambda: _answers(ward))


def test_what_cannot_be_deployed_is_told(ward: Ward) -> None:
    unknown = ward.network.daitn("deploy", "nobody-1")
    assert unknown.returncode == 2
    assert "there is no trained model nobody-1" in unknown.stderr
    nowhere = ward.network.daitn("deploy", "doctor-1", "--to", "moon")
    assert nowhere.returncode == 2
    assert "abroad, east, west" in nowhere.stderr.replace("\n", " ")
    missing = ward.network.daitn("retire", "nothing")
    assert missing.returncode == 2


def test_a_retired_model_is_gone_everywhere(ward: Ward) -> None:
    assert ward.network.daitn("retire", "doctor-1").returncode == 0
    wait_until(lambda: not ward.places("doctor-1"))
    with pytest.raises(openai.APIStatusError) as gone:
        ward.ask()
    assert gone.value.status_code in (404, 503)


def _answers(ward: Ward) -> bool:
    return bool(_answered_at(ward, "doctor-1"))


def _answered_at(ward: Ward, model: str) -> str:
    """By which facility; empty where it is not answered."""
    try:
        return ward.ask(model)["daitn-facility"]
    except openai.APIStatusError:
        return ""


def _manifest(ward: Ward, site: str) -> str:
    nodes = ward.network.json("get", "nodes")
    descriptor = next(n["descriptor"] for n in nodes if n["descriptor"]["site"] == site)
    deployments = descriptor["facility"]["deployments"]
    manifests = [d["manifest"] for d in deployments if d["name"] == "doctor-1"]
    return json.dumps(manifests)
