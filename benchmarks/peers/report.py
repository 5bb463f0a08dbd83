"""The table of a comparison: medians of a system's runs of a task on a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.peers.run import Outcome

__all__ = ["table"]

_COLUMNS = (
    "system",
    "setting",
    "reached",
    "accuracy",
    "s",
    "processor s",
    "MB moved",
    "memory MB",
    "start-up s",
    "its processor s",
    "models",
)


def table(found: Sequence[Outcome]) -> str:
    """A table for each task and network, a line for each system and setting in it.

    Seconds are those until the target was measured, or until the run was given up.
    """
    lines: list[str] = []
    for task, network in dict.fromkeys((one.task, one.network) for one in found):
        mine = [one for one in found if (one.task, one.network) == (task, network)]
        lines += ["", f"{task}, {network}:", "", f"| {' | '.join(_COLUMNS)} |"]
        lines.append("|---" * len(_COLUMNS) + "|")
        for key in dict.fromkeys((one.system, one.setting) for one in mine):
            runs = [one for one in mine if (one.system, one.setting) == key]
            lines.append(f"| {' | '.join((*key, *_cells(runs)))} |")
    return "\n".join(lines).lstrip()


def _cells(runs: Sequence[Outcome]) -> Iterable[str]:
    def middle(of: Callable[[Outcome], float | None], scale: float = 1.0, digits: int = 1) -> str:
        values = [value for one in runs if (value := of(one)) is not None]
        return f"{median(values) / scale:.{digits}f}" if values else ""

    yield f"{sum(one.reached for one in runs)} of {len(runs)}"
    yield middle(lambda one: one.value, digits=3)
    yield middle(lambda one: one.seconds)
    yield middle(lambda one: one.processor_s)
    yield middle(lambda one: one.sent_bytes, 1e6, 2)
    yield middle(lambda one: one.memory_bytes, 1e6, 0)
    yield middle(lambda one: one.startup_s)
    yield middle(lambda one: one.startup_processor_s)
    yield middle(lambda one: one.models, digits=0)
