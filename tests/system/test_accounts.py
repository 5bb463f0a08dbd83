"""What is asked and answered is in the ledger once, whoever is killed, and keys have limits."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from daitn.cli.identity import owner_identity
from tests.scenes.clinic import facility, gateway
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import wait_until

from .conftest import Network, build

pytestmark = pytest.mark.processes

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
PRICES = {"price_usd_per_1k_in": 0.5, "price_usd_per_1k_out": 2.0}


@dataclass
class Scene:
    """acme's facility `hall` with `doctor`, and gateways `gate` and `porch` of `host`."""

    network: Network
    url: str
    other: str
    """Of `porch`."""

    def client(self, key: str, url: str = "") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{url or self.url}/v1", api_key=key, max_retries=0)

    def token(self, owner: str, *options: str) -> str:
        make = ("token", "create", "--owner", owner, "--new-owner", "--gateway", "gate")
        made = self.network.json(*make, *options)
        return str(made["token"])

    def ask(self, key: str, *, stream: bool = False) -> tuple[int, int]:
        """Ask once. Returns the tokens that were read and written, as the client is told."""
        create: Callable[..., Any] = self.client(key).chat.completions.create
        if not stream:
            usage = create(model="doctor", messages=HELLO).usage
        else:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            usage = [chunk.usage for chunk in create(model="doctor", messages=HELLO, **options)][-1]
        return usage.prompt_tokens, usage.completion_tokens

    def account(self, name: str) -> dict[str, Any]:
        """An account, as it is shown; with nothing in it, if nobody knows it."""
        listed = self.network.json("account", "list")["accounts"]
        nothing = {"balance_micro_usd": 0, "quantities": {}}
        return next((one for one in listed if one["account"] == name), nothing)

    def answers(self, owner: str) -> int:
        return int(self.account(f"owner/{owner}")["quantities"].get("answers", 0))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("accounts")
    with ExitStack() as stack:
        server = stack.enter_context(OpenAiServer(text="take two of these a day"))
        upstream = {"name": "doctor", "url": server.url, "apis": ["chat"], **PRICES}
        often = {"states_every_s": 0.3}
        hall = facility("hall", upstream, owner="acme", facility=often)
        doors = [gateway("gate", **often), gateway("porch", **often)]
        network = build(folder, [hall, *({**door, "owner": "host"} for door in doors)])
        stack.callback(network.processes.stop)
        scene = Scene(network, *(f"http://{door['gateway']['listen']}" for door in doors))
        wait_until(lambda: _ready(scene))
        yield scene


def _ready(scene: Scene) -> bool:
    with suppress(openai.OpenAIError):
        return any(one.id == "doctor" for one in scene.client("none").models.list().data)
    return False


def test_answers_are_paid_for_once_whoever_is_killed(scene: Scene, tmp_path: Path) -> None:
    network, token = scene.network, scene.token("ann")
    told = [scene.ask(token, stream=bool(n % 2)) for n in range(6)]
    network.processes.kill("gate")  # Some of these are in its log alone.
    network.mend()
    wait_until(lambda: _ready(scene))
    wait_until(lambda: scene.answers("ann") == 6)
    told += [scene.ask(token) for _ in range(3)]
    network.processes.kill("center")
    told += [scene.ask(token, stream=True) for _ in range(3)]
    network.processes.kill("gate")
    network.mend()
    wait_until(lambda: _ready(scene))
    told += [scene.ask(token)]
    wait_until(lambda: scene.answers("ann") == len(told))

    read, written = (sum(column) for column in zip(*told, strict=True))
    price = round(1000 * (0.5 * read + 2.0 * written))
    used = scene.account("owner/ann")
    assert used["quantities"] == {
        "answers": len(told),
        "tokens_in": read,
        "tokens_out": written,
    }
    assert used["balance_micro_usd"] == -price
    assert scene.account("owner/acme")["balance_micro_usd"] == price

    def compared() -> list[dict[str, Any]]:
        found = network.json("account", "compare")["compared"]
        return [one for one in found if one["owner"] == "ann"]

    wait_until(lambda: [one["by_facility"] == one["by_gateway"] for one in compared()] == [True])
    (both,) = compared()
    assert both["by_gateway"] == {"answers": len(told), "tokens_in": read, "tokens_out": written}

    checked = network.json("account", "check")
    assert checked["problems"] == []
    assert checked["entries"] >= 1
    table = tmp_path / "ann.csv"
    ended = network.daitn("account", "export", "--account", "ann", "--output", str(table))
    assert ended.returncode == 0, ended.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["micro_usd"]) for row in rows) == -price
    assert sum(int(row["tokens_out"]) for row in rows) == written
    shown = network.daitn("account", "show", "ann", "--from", "7d")
    assert f"-{price / 1e6:.6f}" in shown.stdout
    assert "acme/doctor" in shown.stdout
    before = network.json("account", "statement", "ann", "--to", "7d")
    assert before["lines"] == []


def test_parquet_has_the_same_numbers(scene: Scene, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    wait_until(lambda: bool(scene.answers("ann")) or bool(scene.ask(scene.token("ann"))))
    path = tmp_path / "all.parquet"
    ended = scene.network.daitn("account", "export", "--output", str(path))
    assert ended.returncode == 0, ended.stderr
    table = parquet.read_table(path).to_pydict()
    assert sum(table["micro_usd"]) == 0
    assert {"owner/ann", "owner/acme", "facility/hall", "gateway/gate"} <= set(table["account"])
    refused = scene.network.daitn("account", "export", "--output", str(tmp_path / "all.xlsx"))
    assert refused.returncode == 2
    assert "--output" in refused.stderr
    assert ".parquet" in refused.stderr


def test_owners_see_their_own_accounts(scene: Scene, tmp_path: Path) -> None:
    wait_until(lambda: bool(scene.answers("ann")) or bool(scene.ask(scene.token("ann"))))
    scene.token("bob")
    identity = owner_identity(scene.network.processes.endpoint, "bob")
    assert identity is not None
    key = tmp_path / "key"
    key.write_bytes(base64.b64encode(identity.key._key.private_bytes_raw()))
    seen = scene.network.daitn_as(key, "account", "list", "--json")
    assert seen.returncode == 0, seen.stderr
    assert {one["account"] for one in json.loads(seen.stdout)["accounts"]} <= {"owner/bob"}
    refused = scene.network.daitn_as(key, "account", "show", "ann")
    assert refused.returncode == 3
    assert "not yours" in refused.stderr


def test_a_key_spends_no_more_than_it_may_in_either_api_and_not_after_a_restart(
    scene: Scene,
) -> None:
    # In total as well, for runs over midnight.
    limits = ("--usd-per-day", "0.01", "--usd-total", "0.01")
    token = scene.token("carl", *limits, "--model", "doctor")
    scene.ask(token)  # It costs more than that.
    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as error:
            scene.ask(token)
        assert error.value.status_code == 402
        assert error.value.code == "insufficient_quota"
        assert "0.01 USD" in str(error.value)
        claude = anthropic.Anthropic(base_url=scene.url, api_key=token, max_retries=0)
        with pytest.raises(anthropic.APIStatusError) as told:
            claude.messages.create(model="doctor", max_tokens=9, messages=HELLO)
        assert told.value.status_code == 402
        assert told.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
        scene.network.processes.kill("gate")
        scene.network.mend()
        wait_until(lambda: _ready(scene))
    wait_until(lambda: scene.answers("carl") == 1)


def test_a_key_of_two_gateways_spends_at_both_together_what_it_may(scene: Scene) -> None:
    """The control centre sums what they state, and tells each what the other has spent."""
    token = scene.token("eve", "--gateway", "porch", "--usd-total", "0.2")

    def answered(url: str) -> str:
        """Why it is not answered; empty: it is, and costs something."""
        try:
            scene.client(token, url).chat.completions.create(model="doctor", messages=HELLO)
        except openai.APIStatusError as error:
            assert error.code in ("insufficient_quota", "no_model")
            return str(error)
        return ""

    told: list[str] = []

    def refused(url: str) -> bool:
        told.append(answered(url))
        return "at all its gateways" in told[-1]

    wait_until(lambda: refused(scene.url))
    assert "UTC" not in told[-1], "no day makes it usable again"
    spent = [why for why in told if not why]
    wait_until(lambda: scene.answers("eve") == len(spent))
    told.clear()
    wait_until(lambda: refused(scene.other))
    more = [why for why in told if not why]
    assert len(more) <= len(spent) // 2 + 1, "its part, before it has heard anything"
    assert "0.2 USD" in told[-1]
    scene.network.processes.kill("center")
    scene.network.processes.kill("porch")
    scene.network.mend()
    wait_until(lambda: _ready(scene))
    wait_until(lambda: refused(scene.other))
    assert refused(scene.url)


def test_whoever_makes_a_key_for_several_gateways_is_told_what_each_counts_alone(
    scene: Scene,
) -> None:
    make = ("token", "create", "--owner", "dora", "--new-owner")
    limited = ("--gateway", "gate", "--tokens-per-minute", "9")
    assert scene.network.daitn(*make, *limited).stderr == ""
    several = scene.network.daitn(*make, *limited, "--gateway", "porch")
    assert "2 gateways count tokens per minute each for itself" in several.stderr
    assert len(several.stdout.split()) == 1, "the token alone"


def test_a_key_asks_its_own_models_at_its_own_pace(scene: Scene) -> None:
    other = scene.token("dora", "--model", "nurse")
    with pytest.raises(openai.PermissionDeniedError, match="nurse") as refused:
        scene.ask(other)
    assert refused.value.code == "model_not_allowed"
    slow = scene.token(
        "dora", "--tokens-per-minute", "5", "--model", "acme/doctor", "--model", "doctor"
    )
    scene.ask(slow)
    with pytest.raises(openai.RateLimitError, match="tokens per minute") as limited:
        scene.ask(slow)
    assert int(limited.value.response.headers["retry-after"]) >= 1
