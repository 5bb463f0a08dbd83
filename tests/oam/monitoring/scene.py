"""A network with every role, whose processes are watched."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import openai
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from daitn.cli.logs import LogFormat
from daitn.files.state_folder import ProcessState
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.corpora.split import choices
from tests.scenes.breast_cancer import write_intent, write_network
from tests.scenes.clinic import examining, facility, gateway
from tests.scenes.forwarders import Mesh
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import wait_until
from tests.system.conftest import Network, running

__all__ = ["QUESTION", "Watched"]

QUESTION = "is-it-malignant"
"""No metric, span or log record contains it."""


class Watched:
    """gate - hub - ward: a gateway, a forwarder and a facility; `west` trains, `mpvu` measures."""

    def __init__(self, folder: Path, server: OpenAiServer, **everywhere: Any) -> None:
        """`everywhere`: fields of every process."""
        self.folder = folder
        mesh = Mesh()
        door = gateway("gate")
        path = write_network(folder)
        plain = yaml.safe_load(path.read_text())
        learn = [node for node in plain["nodes"] if node["site"] in ("west", "mpvu")]
        (biopsies,) = learn[0]["datasets"]
        private = {"privacy": {"epsilon_total": 1.0, "epsilon_per_visit": 1.0}}
        scans = {"name": "scans", "topics": ["radiology"], "policy": biopsies["policy"] | private}
        learn[0]["datasets"] = [biopsies, biopsies | scans]
        exam = folder / "exam.jsonl"
        items = [choice for pairs in clinic().values() for choice in choices(pairs, "exam")]
        write_records(exam, items[:100])
        server.control(answers=str(exam))  # Who guesses is now and then found to be degraded.
        asks = examining(exam)
        learn[-1]["tests"] += asks["tests"]
        learn[-1] |= {"recipes": ["classifier", "causal-lm"], "asking": asks["asking"]}
        upstream = {
            "name": "doctor",
            "url": server.url,
            "apis": ["chat"],
            "slots": 2,
            "price_usd_per_1k_out": 0.5,
        }
        to_hub = {"hub": mesh.port("hub")}
        plain["nodes"] = [
            *learn,
            mesh.node("gate", to_hub, entry=door),
            mesh.node("hub", {}, "gate", "ward"),
            mesh.node("ward", to_hub, entry=facility("ward", upstream)),
        ]
        plain["center"] |= everywhere
        plain["defaults"] |= everywhere
        path.write_text(yaml.safe_dump(plain))
        self.config = path
        self.network: Network = running(folder, path, LogFormat.JSON)
        self.url = f"http://{door['gateway']['listen']}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        self.sites = ("center", "west", "mpvu", "gate", "hub", "ward")

    def ask(self, *, headers: dict[str, str] | None = None, **options: Any) -> dict[str, str]:
        """Ask the model; returns the answer's headers."""
        constraints = options.pop("constraints", {})
        answer = self.client.chat.completions.with_raw_response.create(
            model="doctor",
            messages=[{"role": "user", "content": QUESTION}],
            extra_headers=headers,
            extra_body={"daitn": constraints},
            **options,
        )
        return dict(answer.headers)

    def ready(self) -> None:
        """Wait until the gateway finds the model, over the fabric and by packets."""
        wait_until(lambda: self._answers() and self._answers(autonomous=True))

    def _answers(self, **constraints: Any) -> bool:
        try:
            self.ask(constraints=constraints)
        except openai.APIStatusError:
            return False
        return True

    def train(self) -> None:
        """Train a model; returns when its job has ended."""
        intent = write_intent(self.folder)
        ended = self.network.daitn("train", "-f", str(intent), "--watch")
        assert ended.returncode == 0, ended.stderr

    def target(self, site: str) -> str:
        """`host:port` of a process's metrics, as it tells Prometheus."""
        (entry,) = json.loads((self.folder / "state" / site / ProcessState.TARGETS).read_text())
        (target,) = entry["targets"]
        return str(target)

    def scrape(self, site: str) -> dict[str, Metric]:
        """The metrics of a process."""
        with urllib.request.urlopen(f"http://{self.target(site)}/metrics") as answer:
            text = answer.read().decode()
        assert QUESTION not in text
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, site: str, name: str, **labels: str) -> float:
        """The sum of a metric over all samples with these labels."""
        family = self.scrape(site)[name.removesuffix("_total").removesuffix("_count")]
        return sum(
            sample.value
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
