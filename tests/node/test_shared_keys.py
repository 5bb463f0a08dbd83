"""Money of a key that several gateways take: together they spend what it has, and little more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from daitn.center.key_sums import KeySums
from daitn.node.gateway.context import AskingKey
from daitn.node.gateway.limits import NANOS, KeyLimits
from daitn.node.usage import shared_keys
from daitn.node.usage.counts import UsageCounts, UsageRecord
from daitn.node.usage.shared_keys import SharedKeys
from daitn.objects.grants import UseLimits
from daitn.objects.identifiers import SiteId
from daitn.objects.usage import KeyRow, KeySpent, UsageSide
from daitn.openai.errors import ApiError
from daitn.tools.journal.memory import MemoryJournal

DAY_S = 86_400.0
BEGIN_S = 20_000 * DAY_S
EVERY_S = 60.0
SECRET = "5" * 64
USD = 3.0
LIMITS = [UseLimits(usd_per_day=USD), UseLimits(usd_per_month=USD), UseLimits(usd_total=USD)]


class Gateway:
    """Counts and checks as a gateway does, by a clock of the test's."""

    def __init__(self, folder: Path, name: str, scene: Scene) -> None:
        self.name = SiteId(name)
        self.scene = scene
        self.counts = UsageCounts(
            folder / name, self.name, UsageSide.GATEWAY, lambda: scene.at_s, EVERY_S
        )
        self.counts.shared = SharedKeys(EVERY_S, lambda: scene.at_s)
        self.limits = KeyLimits(self.counts, lambda: scene.at_s, lambda: scene.at_s)

    def ask(self, usd: float) -> bool:
        """Whether a query that costs so much is let in."""
        try:
            self.limits.check_money(self.scene.key)
        except ApiError as error:
            assert error.status == 402
            assert error.code == "insufficient_quota"
            self.scene.told.append(error.message)
            return False
        until_s = BEGIN_S + 365 * DAY_S
        spent = UsageRecord(None, api_key=SECRET, nano_usd=round(usd * NANOS), until_s=until_s,
                            at_s=self.scene.at_s)  # fmt: skip
        self.counts.count(spent)
        self.counts.shared.mark_used(SECRET)
        self.scene.spent.append((self.scene.at_s, self.name, usd))
        return True

    def spent(self, key: str) -> KeySpent:
        return self.counts.spent(key, self.scene.at_s)

    def state(self, sums: KeySums, *, arrives: bool = True, answered: bool = True) -> None:
        rows = self.counts.shared.begin(self.spent)
        if arrives:
            others = sums.take(self.name, rows, self.scene.at_s)
            if answered:
                self.counts.shared.acknowledge(rows, others, self.spent)


class Scene:
    """Gateways, and what was spent at them: when, where and how much."""

    def __init__(self, folder: Path, limits: UseLimits, count: int = 3) -> None:
        self.at_s = BEGIN_S
        self.key = AskingKey(SECRET, limits, BEGIN_S + 365 * DAY_S, count)
        self.told: list[str] = []
        self.spent: list[tuple[float, SiteId, float]] = []
        self.gateways = [Gateway(folder, f"gate-{n}", self) for n in range(count)]

    @property
    def total(self) -> float:
        return round(sum(usd for _, _, usd in self.spent), 6)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("lost", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_all_gateways_together_spend_what_the_key_has_and_what_the_others_spent_just_now(
    tmp_path: Path, limits: UseLimits, lost: float, seed: int
) -> None:
    """Against the plain sum of what was spent. `lost`: so many statements are, and answers to them,
    for which the others wait."""
    rng, journal = random.Random(seed), MemoryJournal()
    scene, sums = Scene(tmp_path, limits), KeySums(journal)
    stated_at_s = {one.name: BEGIN_S - rng.uniform(0.0, EVERY_S) for one in scene.gateways}
    for _ in range(600):
        scene.at_s += rng.uniform(1.0, 5.0)
        if rng.random() < 0.01:  # The control centre restarts.
            sums = KeySums(journal)
            sums.start()
        for one in scene.gateways:
            if scene.at_s >= stated_at_s[one.name] + EVERY_S:
                stated_at_s[one.name] = scene.at_s
                one.state(sums, arrives=rng.random() >= lost, answered=rng.random() >= lost)
        at, before = rng.choice(scene.gateways), scene.total
        if at.ask(rng.uniform(0.0, 0.05)) and not lost:
            since_s = scene.at_s - (shared_keys._FRESH + 1) * (EVERY_S + 5.0)
            late = (usd for at_s, name, usd in scene.spent if name != at.name and at_s > since_s)
            assert before < USD + sum(late)
    assert scene.total >= USD, "what it has, it may spend"
    assert scene.total < 1.5 * USD, "three times as much without a sum"
    for one in scene.gateways * 2:
        one.ask(0.0)
        one.state(sums)
    assert not any(one.ask(0.01) for one in scene.gateways)
    assert "at all its gateways" in scene.told[-1]


@pytest.mark.parametrize("limits", LIMITS)
def test_without_a_control_centre_each_gateway_has_its_part(
    tmp_path: Path, limits: UseLimits
) -> None:
    scene = Scene(tmp_path, limits)
    for _ in range(300):
        scene.at_s += 1.0
        for one in scene.gateways:
            one.ask(0.01)
    assert USD <= scene.total <= USD + 3 * 0.01
    assert "this gateway's part, one of 3" in scene.told[-1]


def test_what_was_left_when_a_control_centre_was_heard_last_is_divided(tmp_path: Path) -> None:
    scene, sums = Scene(tmp_path, LIMITS[2]), KeySums(MemoryJournal())
    first, *others = scene.gateways
    for _ in range(50):
        first.ask(0.01)
        first.state(sums)
    assert scene.total == 0.5, "half of its own part"
    for _ in range(2):  # Once each has shown what it spent, each hears of all.
        for one in scene.gateways:
            one.ask(0.0)
            one.state(sums)
    scene.at_s += 10 * EVERY_S
    for one in others:
        while one.ask(0.01):
            pass
    while first.ask(0.01):
        pass
    assert USD <= scene.total <= USD + 3 * 0.01


def test_a_new_day_begins_with_nothing_spent_anywhere(tmp_path: Path) -> None:
    scene, sums = Scene(tmp_path, LIMITS[0]), KeySums(MemoryJournal())
    scene.gateways[0].ask(USD)
    for one in scene.gateways:
        one.state(sums)
    other = scene.gateways[1]
    assert other.ask(0.01), "it has not heard of the key yet"
    other.state(sums)
    assert not other.ask(0.01)
    scene.at_s += DAY_S
    assert other.ask(0.01)


def test_a_control_centre_keeps_the_more_of_what_a_gateway_states_and_forgets_keys_that_ended() -> (
    None
):
    journal = MemoryJournal()
    sums, a, b = KeySums(journal), SiteId("a"), SiteId("b")

    def row(total: int, until_s: float = BEGIN_S + 9) -> KeyRow:
        return KeyRow(SECRET, KeySpent(total=total, until_s=until_s))

    assert sums.take(a, [row(5)], BEGIN_S)[0].spent.total == 0
    sums.take(a, [row(3)], BEGIN_S)  # It comes late.
    again = KeySums(journal)
    again.start()
    assert again.take(b, [row(2)], BEGIN_S)[0].spent.total == 5
    again.take(a, [KeyRow("6" * 64, KeySpent(until_s=BEGIN_S + 99))], BEGIN_S + 10)
    assert again.take(b, [row(2, BEGIN_S + 99)], BEGIN_S + 10)[0].spent.total == 0
