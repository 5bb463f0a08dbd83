"""How long there is no leader after a control centre was killed, hung, was cut off or was stopped.

Two control centres share a PostgreSQL database, four sites and a running job.

    python -m benchmarks.standby --times 5
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.scenes.breast_cancer import write_intent
from tests.scenes.standby import Pair, pair
from tests.scenes.waiting import wait_until

_NEVER = [{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}]
_ROUTE = [{"site": site, "examples": 100} for site in ("east", "north", "west") * 200]
_MARKS = {"leads": "leads, epoch", "ready": "is ready", "visit": "is visiting"}


class Measured(NamedTuple):
    """Seconds from the fault on."""

    leads: float
    ready: float
    visit: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="how often to repeat each failure")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    faults: dict[str, Callable[[Pair, str], None]] = {
        "kill -9": _killed,
        "SIGSTOP": _stopped,
        "cut from the database": _cut,
        "SIGTERM": _ended,
    }
    found: dict[str, list[Measured]] = {name: [] for name in faults}
    with tempfile.TemporaryDirectory() as folder, pair(Path(folder), Pair) as two:
        intent = write_intent(
            Path(folder), route=_ROUTE, objectives=_NEVER, budget={"duration_s": 86400}
        )
        asked = two.daitn("train", "-f", str(intent), "--insist", "--json")
        job = json.loads(asked.stdout)["job"]
        wait_until(lambda: (two.json("describe", "job", job) or {}).get("route"))
        for _ in range(options.times):
            for name, fault in faults.items():
                leader = _leader(two)
                if name == "cut from the database" and leader != "a":
                    _killed(two, leader)
                    _settled(two)
                    leader = _leader(two)
                at_s = time.time()  # As logs have it.
                fault(two, leader)
                found[name].append(_settled(two, at_s, "b" if leader == "a" else "a"))
    if options.json:
        print(json.dumps({name: [m._asdict() for m in each] for name, each in found.items()}))
        return
    for name, each in found.items():
        columns = [
            f"{part} {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) s"
            for part, values in zip(Measured._fields, zip(*each, strict=True), strict=True)
        ]
        print(f"{name:22} {'; '.join(columns)}")


def _leader(two: Pair) -> str:
    while not (found := two.leader()):
        time.sleep(0.1)
    return found


def _killed(two: Pair, leader: str) -> None:
    two.kill(leader)
    _after(two, leader, lambda: two.launch(leader))


def _stopped(two: Pair, leader: str) -> None:
    two.pause(leader)
    _after(two, leader, lambda: two.go_on(leader))


def _cut(two: Pair, leader: str) -> None:
    assert leader == "a"
    two.relay.silent = True
    _after(two, leader, two.relay.mend)


def _ended(two: Pair, leader: str) -> None:
    two.end(leader)
    _after(two, leader, lambda: two.launch(leader))


def _after(two: Pair, leader: str, mend: Callable[[], None]) -> None:
    wait_until(lambda: two.leader() not in ("", leader))
    mend()


def _settled(two: Pair, at_s: float = 0.0, leader: str = "") -> Measured:
    """When both are there again, and what the logs say of the new leader."""
    wait_until(lambda: len(two.centers()) == 2)
    if not leader:
        return Measured(0.0, 0.0, 0.0)
    wait_until(lambda: _first(two, leader, "visit", at_s) is not None)
    return Measured(*(_first(two, leader, mark, at_s) or 0.0 for mark in Measured._fields))


def _first(two: Pair, name: str, mark: str, at_s: float) -> float | None:
    for line in two.log(name).splitlines():
        match = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ", line)
        if match is None or _MARKS[mark] not in line:
            continue
        stamp = datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").astimezone()
        after_s = stamp.timestamp() + int(match[2]) / 1000 - at_s
        if after_s > 0:
            return after_s
    return None


if __name__ == "__main__":
    main()
