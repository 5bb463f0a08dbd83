"""How well a data set suits an objective: by topic, and by the labels of the test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from daitn.objects.descriptors import TestSetDescriptor

__all__ = ["label_coverage", "other_labels", "pooled_labels", "topic_fit", "topics_fit"]


def topic_fit(one: str, other: str) -> float:
    """Similarity of two topics in [0, 1]: twice their common path over the sum of their paths.

    1 for the same topic, 0 for topics of different trees. The measure is symmetric: `medicine` and
    `medicine/neurology` give 2/3, two branches of `medicine` give 1/2. Source: Wu and Palmer, "Verb
    semantics and lexical selection", ACL 1994, with the path's length as depth.
    """
    if one == other:
        return 1.0
    steps, others = one.split("/"), other.split("/")
    common = 0
    for step, other_step in zip(steps, others, strict=False):
        if step != other_step:
            break
        common += 1
    return 2.0 * common / (len(steps) + len(others))


def topics_fit(topics: Iterable[str], wanted: str) -> float:
    """Similarity of `wanted` to the nearest of `topics`; 0 if there are none."""
    return max((topic_fit(topic, wanted) for topic in topics), default=0.0)


def pooled_labels(tests: Iterable[TestSetDescriptor]) -> dict[str, int]:
    """Items per label over all `tests`."""
    items: Counter[str] = Counter()
    for test in tests:
        items.update(test.labels)
    return dict(items)


def label_coverage(labels: Mapping[str, int], items: Mapping[str, int]) -> float:
    """Share of the test `items` (per label) whose label has samples in `labels`.

    1 if no test item has a label: the data can lack nothing.
    """
    total = sum(items.values())
    if total == 0:
        return 1.0
    return sum(count for label, count in items.items() if labels.get(label, 0) > 0) / total


def other_labels(labels: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Labels that the model does not distinguish; none if it accepts any."""
    return tuple(sorted(set(labels) - set(known))) if known else ()
