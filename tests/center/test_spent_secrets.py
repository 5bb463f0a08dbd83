"""What is spent stays spent, in bounded room."""

from __future__ import annotations

import pytest

from daitn.center import spent_secrets as module
from daitn.center.spent_secrets import SpentSecrets
from daitn.objects.errors import StorageFull
from daitn.tools.fabric.turns import TooOften
from daitn.tools.journal.memory import MemoryJournal


class _Full(MemoryJournal):
    def put(self, kind: str, name: str, value: bytes) -> None:
        raise StorageFull("no room", field="database", fix="make room")


def test_it_outlives_the_process_and_is_forgotten_once_expired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_SPENT", 1000)
    journal, now_s = MemoryJournal(), 0.0

    def opened() -> SpentSecrets:
        made = SpentSecrets(journal, lambda: now_s)
        made.start()
        return made

    first = opened()
    for number in range(1000):
        first.add(f"secret {number}", 100.0)
    with pytest.raises(TooOften, match="sessions must wait"):
        first.add("one more", 100.0)
    again = opened()
    assert len(again) == 1000
    assert "secret 7" in again
    assert "one more" not in again
    now_s = 101.0
    for number in range(1000):
        again.add(f"later {number}", 200.0)
    assert len(again) == 1000
    assert "later 7" in opened()
    assert len(journal.all("spent")) <= 256


def test_what_cannot_be_stored_is_spent_and_an_error() -> None:
    spent = SpentSecrets(_Full(), lambda: 0.0)
    with pytest.raises(StorageFull):
        spent.add("secret", 100.0)
    assert "secret" in spent
