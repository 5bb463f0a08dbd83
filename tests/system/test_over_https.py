"""The command line through a control centre's API, beside the same over Zenoh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daitn.cli.network import own_network
from daitn.cli.session import ExitCode
from daitn.identity.keys import SigningKey
from daitn.identity.network import key_path
from daitn.objects.roster import Kind
from tests.scenes.breast_cancer import INTENT, write_intent
from tests.scenes.command_line import Ended, daitn
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

from .conftest import Network

pytestmark = pytest.mark.processes

MODEL = {**INTENT["model"], "seed": 15}


@pytest.fixture(scope="session")
def url(shared: Network) -> str:
    """Of the API; the command that prints it lets `--center` know whose it is."""
    address: str = shared.json("dashboard")["url"]
    return address.partition("/#")[0]


@pytest.fixture(scope="session")
def trained(shared: Network, url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained, followed and fetched over HTTP; its folder."""
    folder = tmp_path_factory.mktemp("over-https")
    out = folder / "model"
    intent = write_intent(folder, name="webbed", model=MODEL)
    ended = daitn("train", "-f", str(intent), "--json", "-o", str(out), DAITN_CENTER=url)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["state"] == "reached"
    return out


def told(ended: Ended) -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def begun(url: str, folder: Path, **changes: Any) -> str:
    """A job that goes on until it is cancelled; its name."""
    route = [{"site": "east", "examples": 10**8}]
    intent = write_intent(folder, route=route, budget={}, **changes)
    ended = daitn("train", "-f", str(intent), "--insist", "--json", DAITN_CENTER=url)
    job: str = told(ended)["job"]
    return job


@pytest.mark.parametrize(
    "words",
    [
        "get jobs",
        "get models",
        "get datasets",
        "get verifiers",
        "describe job webbed-1",
        "describe model webbed-1",
        "describe dataset east/biopsies",
        "explain webbed-1",
        "value webbed-1",
        "watch webbed-1",
        "account list",
        "deploy --plan",
        "steer",
        "events",
    ],
)
def test_commands_tell_the_same_both_ways(
    shared: Network, url: str, trained: Path, words: str
) -> None:
    over_zenoh = shared.daitn(*words.split(), "--json")
    over_http = daitn(*words.split(), "--json", DAITN_CENTER=url)
    assert over_http == over_zenoh
    assert over_http.returncode == 0, over_http.stderr


def test_what_moves_has_the_same_names_both_ways(shared: Network, url: str) -> None:
    ways = (url, shared.processes.endpoint)
    nodes = [told(daitn("get", "nodes", "--json", DAITN_CENTER=way)) for way in ways]
    assert [[one["descriptor"] for one in found] for found in nodes] == [
        [one["descriptor"] for one in nodes[0]]
    ] * 2
    views = [told(daitn("topology", "show", "--json", DAITN_CENTER=way)) for way in ways]
    assert views[0].keys() == views[1].keys()
    found = [daitn("doctor", "--json", DAITN_CENTER=way) for way in ways]
    assert found[0].returncode == found[1].returncode


def test_a_model_fetched_over_http_is_whole_and_goes_back(
    shared: Network, url: str, trained: Path, tmp_path: Path
) -> None:
    assert daitn("model", "verify", str(trained), DAITN_CENTER=url).returncode == 0
    job = begun(url, tmp_path, name="again", model={**MODEL, "start": str(trained)})
    assert told(daitn("cancel", job, "--json", DAITN_CENTER=url))["state"] == "cancelled"


def test_a_site_obeys_who_signed(shared: Network, url: str) -> None:
    closed = told(daitn("cordon", "north", "--json", DAITN_CENTER=url))
    assert closed["site"] == "north"
    assert closed["cordon"]
    opened = told(daitn("uncordon", "north", "--json", DAITN_CENTER=url))
    assert not opened["cordon"]


def key_of(shared: Network, owner: str) -> Path:
    """Of an owner whom a command has made."""
    return key_path(own_network(shared.processes.center), Kind.OWNER, owner)


def test_errors_end_commands_the_same_both_ways(
    shared: Network, url: str, trained: Path, tmp_path: Path
) -> None:
    vain = write_intent(tmp_path, name="vain", data={"topics": ["astronomy"]})
    late = write_intent(tmp_path, name="late", owner="late")
    acme = {"DAITN_KEY": str(key_of(shared, "acme"))}
    for ended in both(shared, url, "train", "-f", str(late), "--dry-run"):
        assert ended.returncode == 0, ended.stderr
    network = ("--network", str(own_network(shared.processes.center)))
    revoked = {"DAITN_KEY": str(key_of(shared, "late"))}
    tell = ("--tell", url)
    assert daitn("network", "revoke", "owner", "late", *tell, *network).returncode == 0
    stranger = tmp_path / "stranger"
    SigningKey.at(stranger)
    for code, words, environment in (
        (ExitCode.BAD_INPUT, "describe job nobody-1", {}),
        (ExitCode.BAD_INPUT, "cancel nobody-1", {}),
        (ExitCode.BAD_INPUT, "retire nothing", {}),
        (ExitCode.INFEASIBLE, f"train -f {vain} --dry-run", {}),
        (ExitCode.INFEASIBLE, "steer standalone", acme),
        (ExitCode.INFEASIBLE, "cordon east", acme),
        (ExitCode.UNREACHABLE, "cordon nowhere", {}),
        (ExitCode.INFEASIBLE, "get jobs", revoked),
        (ExitCode.INFEASIBLE, "get jobs", {"DAITN_KEY": str(stranger)}),
    ):
        over_zenoh, over_http = both(shared, url, *words.split(), **environment)
        assert (over_zenoh.returncode, over_http.returncode) == (code, code), (
            words,
            over_zenoh.stderr,
            over_http.stderr,
        )


def both(shared: Network, url: str, *words: str, **environment: str) -> tuple[Ended, Ended]:
    """How a command ends over Zenoh, and over HTTP."""
    ways = (shared.processes.endpoint, url)
    over_zenoh, over_http = (daitn(*words, **environment, DAITN_CENTER=way) for way in ways)
    return over_zenoh, over_http


def test_a_url_is_checked_before_anything_is_sent() -> None:
    open_ = daitn("get", "jobs", "--center", "http://control.example.org:7448")
    assert open_.returncode == ExitCode.BAD_INPUT
    assert "https://control.example.org:7448" in open_.stderr
    silent = daitn("get", "jobs", "--center", f"http://127.0.0.1:{free_port()}")
    assert silent.returncode == ExitCode.UNREACHABLE
    assert "--center (DAITN_CENTER)" in silent.stderr


def test_a_token_does_for_who_has_no_key(shared: Network, url: str, trained: Path) -> None:
    """At a spelling of the address for which no network is known."""
    elsewhere = url.replace("127.0.0.1", "localhost")
    unknown = daitn("get", "jobs", DAITN_CENTER=elsewhere)
    assert unknown.returncode == ExitCode.INFEASIBLE
    assert "DAITN_TOKEN" in unknown.stderr
    made = shared.json("token", "create", "--center-api", "--read-only", "--days", "1")
    environment = {"DAITN_CENTER": elsewhere, "DAITN_TOKEN": made["token"]}
    assert told(daitn("get", "jobs", "--json", **environment)) == shared.json("get", "jobs")
    refused = daitn("cancel", "webbed-1", **environment)
    assert refused.returncode == ExitCode.INFEASIBLE
    assert "read-only" in refused.stderr
    wrong = daitn("get", "jobs", **{**environment, "DAITN_TOKEN": made["token"][:-4]})
    assert wrong.returncode == ExitCode.INFEASIBLE
    assert "DAITN_TOKEN" in wrong.stderr


def test_events_go_on_as_they_happen(
    shared: Network, url: str, trained: Path, tmp_path: Path
) -> None:
    """Of a control centre at a Zenoh endpoint too, which says where its API is."""
    said = tmp_path / "events"
    command = [sys.executable, "-m", "daitn.cli.app", "events", "--follow", "--json", "-n", "1"]
    with said.open("wb") as file:
        process = subprocess.Popen([*command, "--center", shared.processes.endpoint], stdout=file)
    try:
        wait_until(lambda: said.read_bytes().count(b"\n") == 1)
        job = begun(url, tmp_path, name="noted", model=MODEL)
        assert daitn("cancel", job, DAITN_CENTER=url).returncode == 0
        wait_until(lambda: b"cancelled" in said.read_bytes())
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
    events = [json.loads(line) for line in said.read_text().splitlines()]
    assert {event["data"]["job"] for event in events[1:] if event["kind"] == "job"} == {job}
    shown = daitn("events", DAITN_CENTER=url)
    assert f"{job} cancelled" in shown.stdout
