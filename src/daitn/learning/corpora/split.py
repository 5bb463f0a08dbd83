"""Splits a corpus into site files and test files so that no test disease was ever trained on.

The split is by disease over the whole corpus, not per institute: a disease that two institutes
write about falls on the same side for both. It is not random, so every party with the same records
gets the same split.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from daitn.learning.corpora.records import OPTIONS, MultipleChoice, QaPair, write_records

__all__ = ["MOST_ITEMS", "Prepared", "choices", "is_test_topic", "normalised", "write_corpus"]

_TEST_SHARE = 1 / 3
"""Share of the diseases reserved for testing: NINDS covers about 242, so about 80 are tested there
with four questions each, which makes the standard error at 0.92 about 1.5 %."""
MOST_ITEMS = 480
"""Maximum items per test set: a standard error of 1.8 % at 0.80, and an evaluation of seconds."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """The files written, with their sizes."""

    source: str
    """`medquad` or `clinic`."""
    general: tuple[str, ...]
    """Sites that write about diseases of all kinds."""
    specialist: tuple[str, ...]
    """Sites that write about one field of medicine."""
    sites: dict[str, int]
    """Training records per site, in `sites/<site>.jsonl`."""
    tests: dict[str, int]
    """Items per test set, in `tests/<name>.jsonl`."""


def normalised(topic: str) -> str:
    """A disease's name without case, punctuation and text in brackets.

    This unifies `Gaucher's disease (type 1)` at one institute and `Gauchers Disease` at another. It
    does not recognise true synonyms.
    """
    plain = re.sub(r"\([^)]*\)", " ", topic.casefold()).replace("'", "").replace("\u2019", "")
    return " ".join(re.findall(r"[^\W_]+", plain)) or topic.casefold().strip()


def is_test_topic(topic: str) -> bool:
    """Whether the disease is reserved for testing, by a hash of its normalised name."""
    digest = hashlib.sha256(b"daitn split 1:" + normalised(topic).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < _TEST_SHARE


def choices(pairs: Iterable[QaPair], seed: str) -> list[MultipleChoice]:
    """Make the multiple-choice items of one site.

    The wrong options are answers about the same disease to other types of question, so that knowing
    the disease does not help. Skips diseases with fewer than four types of question, and items
    whose options are not all different. `seed` names the site and, together with the question,
    decides the draw.
    """
    by_topic: dict[str, list[QaPair]] = defaultdict(list)
    for pair in pairs:
        by_topic[normalised(pair.topic)].append(pair)
    items: list[MultipleChoice] = []
    for topic in sorted(by_topic):
        for number, pair in enumerate(by_topic[topic]):
            rng = random.Random(f"{seed}:{topic}:{number}")  # noqa: S311  seeded, not secret
            item = _choice(pair, by_topic[topic], rng)
            if item is not None:
                items.append(item)
    return items


def _choice(
    pair: QaPair, same_topic: Sequence[QaPair], rng: random.Random
) -> MultipleChoice | None:
    others: dict[str, list[str]] = defaultdict(list)
    for other in same_topic:
        if other.label != pair.label:
            others[other.label].append(other.answer)
    if len(others) < OPTIONS - 1:
        return None
    labels = rng.sample(sorted(others), OPTIONS - 1)
    options = [pair.answer, *(rng.choice(others[label]) for label in labels)]
    if len({" ".join(option.split()) for option in options}) < OPTIONS:
        return None
    order = rng.sample(range(OPTIONS), OPTIONS)
    first, second, third, fourth = (options[index] for index in order)
    return MultipleChoice(
        topic=pair.topic,
        label=pair.label,
        question=pair.question,
        options=(first, second, third, fourth),
        answer=order.index(0),
    )


def write_corpus(
    out: Path,
    source: str,
    sites: Mapping[str, Sequence[QaPair]],
    general: tuple[str, ...],
    expert: str,
    most_items: int = MOST_ITEMS,
) -> Prepared:
    """Write `sites/<site>.jsonl`, `tests/broad.jsonl` and `tests/expert.jsonl` under `out`, the
    tests with at most `most_items` each.

    `broad` is drawn over all sites in proportion to their items, `expert` over the site `expert`
    alone.
    """
    counts: dict[str, int] = {}
    items: dict[str, list[MultipleChoice]] = {}
    for site, pairs in sites.items():
        kept = [pair for pair in pairs if not is_test_topic(pair.topic)]
        counts[site] = write_records(out / "sites" / f"{site}.jsonl", kept)
        items[site] = choices((pair for pair in pairs if is_test_topic(pair.topic)), site)
    broad = _drawn([item for site in sorted(items) for item in items[site]], most_items, "broad")
    tests = {"broad": broad, "expert": _drawn(items[expert], most_items, "expert")}
    return Prepared(
        source=source,
        general=general,
        specialist=tuple(site for site in sites if site not in general),
        sites=counts,
        tests={
            name: write_records(out / "tests" / f"{name}.jsonl", drawn)
            for name, drawn in tests.items()
        },
    )


def _drawn(items: Sequence[MultipleChoice], most: int, seed: str) -> list[MultipleChoice]:
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    return rng.sample(items, min(most, len(items)))
