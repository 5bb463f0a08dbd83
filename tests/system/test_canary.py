"""No record leaves a site: a network trains, deploys, answers and fails on marked records.

Marks stand in the data set of `ninds` (questions and answers) and of `ward` (a table). Afterwards
they are sought in every byte that crossed the links of these sites, in every publication, in all
that other processes keep and log, in exports, and in what owners were shown.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zenoh

from tests.scenes.clinic import facility, gateway, write_clinic, write_clinic_intent
from tests.scenes.ports import free_port
from tests.scenes.relay import RecordingRelay

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

NAME, NUMBER = "Quuxworth Zebulon", "48151623421"
VALUE = 31415.9265
RARE = "tetrodotoxinosis"
MARKS = [
    *(text.encode() for text in (NAME, NUMBER, RARE, "Quuxworth", "Zebulon", "MRN-900")),
    *(text.encode("utf-16-le") for text in (NAME, RARE)),
    *(str(VALUE).encode(), struct.pack("<f", VALUE), struct.pack("<d", VALUE)),
    struct.pack(">d", VALUE),
]
SITES = ("ninds", "ward")


class Hospital:
    """A network with marked records, and all that was seen to leave the sites that hold them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = gateway("gate")
        config = write_clinic(folder, facility("east"), self.port, _ward())
        _mark_questions(folder / "data/sites/ninds.jsonl")
        _write_table(folder / "ward.csv")
        plain = yaml.safe_load(config.read_text())
        (endpoint,) = plain["center"]["listen"]
        self.relays = {site: RecordingRelay(int(endpoint.rpartition(":")[2])) for site in SITES}
        for node in plain["nodes"]:
            if node["site"] in SITES:
                node["center"] = [f"tcp/127.0.0.1:{self.relays[node['site']].port}"]
                self.relays[f"{node['site']} inward"] = inward = RecordingRelay(free_port())
                node["listen"] = [f"tcp/127.0.0.1:{inward.target}"]
        config.write_text(yaml.safe_dump(plain))
        self.endpoint = endpoint
        self.config = config
        self.published = bytearray()
        self.shown = bytearray()
        self._lock = threading.Lock()

    def __enter__(self) -> Hospital:
        for relay in self.relays.values():
            relay.__enter__()
        self.network: Network = running(self.folder, self.config)
        options = zenoh.Config()
        options.insert_json5("mode", '"client"')
        options.insert_json5("connect/endpoints", json.dumps([self.endpoint]))
        self._spy = zenoh.open(options)
        self._all = self._spy.declare_subscriber("daitn/**", self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._spy.close()  # type: ignore[no-untyped-call]
        self.network.processes.stop()
        for relay in self.relays.values():
            relay.__exit__()

    def _hear(self, sample: zenoh.Sample) -> None:
        with self._lock:
            self.published += sample.payload.to_bytes()

    def run(self, *arguments: str) -> str:
        """What an owner is shown by a command, whether it succeeds or not."""
        ended = self.network.daitn(*arguments)
        self.shown += (ended.stdout + ended.stderr).encode()
        return ended.stdout + ended.stderr

    def left(self) -> Iterator[tuple[str, bytes]]:
        """Everything that left the two sites, by where it was found."""
        yield "publications", bytes(self.published)
        yield "shown", bytes(self.shown)
        for name, relay in self.relays.items():
            yield f"link of {name}", bytes(relay.inbound)
        own = {self.folder / "state" / site for site in SITES}
        logs = {f"{site}.log" for site in SITES}
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file() or own & set(path.parents) or path.name in logs:
                continue
            if path.name in ("ward.csv", "rare.csv", "same.csv", "ninds.jsonl"):
                continue
            yield str(path.relative_to(self.folder)), path.read_bytes()


def _ward() -> dict[str, Any]:
    table = {"label": "outcome", "ignore": ["mrn", "name"]}
    cases = {
        "name": "cases",
        "path": "ward.csv",
        "data_schema": "table/1",
        "modality": "table",
        "topics": ["ward"],
        "policy": {"recipes": ["*"]},
        **table,
    }
    rare = cases | {"name": "rare", "path": "rare.csv", "topics": ["rare"]}
    same = cases | {"name": "same", "path": "same.csv", "topics": ["same"]}
    lost = cases | {"name": "lost", "path": "a folder/lost.csv", "topics": ["lost"]}
    return {
        "site": "ward",
        "owner": "ward",
        "roles": ["data", "compute", "verifier"],
        "state": "state/ward",
        "recipes": ["classifier"],
        "datasets": [cases, rare, same, lost],
        "tests": [{"topic": "ward", "path": "ward.csv", "test_schema": "table/1", **table}],
    }


def _mark_questions(path: Path) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[7]["question"] += f" {NAME} asks, record {NUMBER}."
    records[7]["answer"] = f"{NAME} has {RARE}. {records[7]['answer']}"
    records[8]["label"] = RARE
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _write_table(path: Path) -> None:
    rows = [f"MRN-{900 + n},Patient {n},{n / 7:.3f},{('no', 'yes')[n % 2]}" for n in range(60)]
    rows[11] = f"{NUMBER},{NAME},{VALUE},yes"
    path.write_text("mrn,name,x,outcome\n" + "\n".join(rows) + "\n")
    rows[12:15] = [f"MRN-{700 + n},P,{n},{RARE}" for n in range(3)]
    path.with_name("rare.csv").write_text("mrn,name,x,outcome\n" + "\n".join(rows) + "\n")
    same = [f"MRN-{900 + n},Patient {n},{VALUE},{('no', 'yes')[n % 2]}" for n in range(60)]
    path.with_name("same.csv").write_text("mrn,name,x,outcome\n" + "\n".join(same) + "\n")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with Hospital(tmp_path_factory.mktemp("hospital")) as running_hospital:
        yield running_hospital


def _train_table(
    hospital: Hospital, name: str, examples: int = 60, topic: str = "ward", **config: Any
) -> str:
    """What is said of a job on the ward's table of a topic."""
    classes = ["no", "yes"]
    intent = {
        "name": name,
        "owner": "acme",
        "model": {"recipe": "classifier", "config": {"classes": classes} | config},
        "objectives": [{"name": "ward", "topic": "ward", "at_least": 0.99}],
        "data": {"topics": [topic]},
        "budget": {"duration_s": 3600},
        "route": [{"site": "ward", "examples": examples}],
    }
    path = hospital.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(intent))
    return hospital.run("train", "-f", str(path), "--watch", "--insist")


def test_the_marks_are_found_where_they_are(hospital: Hospital) -> None:
    """The search works: it finds marks in the files that hold them."""
    table = (hospital.folder / "ward.csv").read_bytes()
    questions = (hospital.folder / "data/sites/ninds.jsonl").read_bytes()
    assert all(mark.encode() in table for mark in (NAME, NUMBER, str(VALUE)))
    assert all(mark.encode() in questions for mark in (NAME, NUMBER, RARE))


def test_an_owner_who_names_the_label_column_learns_no_value_of_it(hospital: Hospital) -> None:
    told = _train_table(hospital, "curious", label="mrn")
    assert "does not offer that column as the label" in " ".join(told.split())
    shown = json.loads(hospital.run("get", "datasets", "--json"))
    labels = {one["name"]: set(one["labels"]) for one in shown if one["site"] == "ward"}
    assert labels == {"cases": {"no", "yes"}, "rare": {"no", "yes"}}


def test_losses_record_by_record_are_not_told(hospital: Hospital) -> None:
    _train_table(hospital, "drop-by-drop", batch=1, learning_rate=1e-9)
    told = _train_table(hospital, "one-drop", examples=1)
    assert "whose data owner demands 10" in " ".join(told.split())
    progress = bytes(hospital.published).count(b"training")
    assert progress <= 2 * 20, "each visit tells of twenty steps at most"


def test_a_rare_label_decides_neither_success_nor_counts(hospital: Hospital) -> None:
    """A model that lacks a label, on a table that has three records of it, which nobody tells."""
    for topic in ("ward", "rare"):
        told = _train_table(hospital, f"plain-{topic}", topic=topic)
        assert "the stated route is complete" in told
        assert "labels" not in told
    jobs = json.loads(hospital.run("get", "jobs", "--json"))
    reached = [one["reached"] for job in jobs for one in job["objectives"] if one["reached"]]
    assert reached, "accuracy, of sixty items"
    assert all((60 * value) % 5 == pytest.approx(0) for value in reached)
    shown = json.loads(hospital.run("get", "datasets", "--json"))
    rows = {one["name"]: one["samples"] for one in shown if one["site"] == "ward"}
    assert rows["rare"] == 55, "three records of a label that is not told"


def test_one_record_written_sixty_times_is_not_offered(hospital: Hospital) -> None:
    shown = json.loads(hospital.run("get", "datasets", "--json"))
    assert {one["name"] for one in shown if one["site"] == "ward"} == {"cases", "rare"}
    ward = json.loads(hospital.run("describe", "node", "ward", "--json"))["descriptor"]
    reasons = {entry["name"]: entry["reason"] for entry in ward["left_out"]}
    assert reasons == {"same": "has fewer than 10 records", "lost": "a file is missing"}


def test_a_model_is_trained_deployed_and_asked(hospital: Hospital) -> None:
    intent = write_clinic_intent(hospital.folder, route=[{"site": "ninds", "examples": 400}])
    hospital.run("train", "-f", str(intent), "--watch", "--insist")
    hospital.run("deploy", "doctor-1", "--to", "east", "--wait")
    url = f"http://{hospital.port['gateway']['listen']}"
    for question in ("What is Velnonia?", f"Who is {NAME.split()[0][:3]}?"):
        asked = hospital.run("query", question, "--model", "doctor-1", "--gateway", url)
        assert asked
    out = str(hospital.folder / "export")
    hospital.run("model", "export", "doctor-1", "-o", out)
    assert list(Path(out).rglob("tokenizer.json")), "the model and its text parts were exported"
    for arguments in (
        ("get", "datasets", "--json"),
        ("get", "nodes", "--json"),
        ("get", "verifiers", "--json"),
        ("get", "jobs", "--json"),
        ("explain", "job", "curious-1"),
        ("explain", "job", "doctor-1"),
    ):
        hospital.run(*arguments)


def test_none_of_the_marks_left_the_sites(hospital: Hospital) -> None:
    """Runs last: all of the above happened in this network."""
    hospital.network.processes.stop()
    looked_at = 0
    for where, content in hospital.left():
        looked_at += len(content)
        for mark in MARKS:
            assert mark not in content, f"{mark!r} left its site: {where}"
    assert looked_at > 1_000_000
    told = bytes(hospital.published) + b"".join(
        bytes(hospital.relays[site].inbound) for site in SITES
    )
    for folder in (hospital.folder, "a folder"):
        assert str(folder).encode() not in told, "where a site keeps its files"
    for relay in hospital.relays.values():
        assert relay.target
    assert len(hospital.relays["ninds"].inbound) > 10_000
