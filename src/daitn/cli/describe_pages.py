"""Pages of `daitn describe` for a node and a data set."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from rich.console import Group, RenderableType

from daitn.cli.tables import age, plain_table
from daitn.oam.words import size
from daitn.objects.descriptors import ANY, DatasetDescriptor
from daitn.objects.text import decimals
from daitn.topology.snapshot import SiteState

__all__ = ["dataset_page", "gaps", "node_page", "words_of"]

_SHOWN_LABELS = 12


def _state(site: SiteState) -> str:
    state = "alive" if site.alive else "lost"
    if site.since_s is None:
        return f"{state}, since before the control centre started"
    return f"{state}, since {age(site.since_s)}"


def node_page(site: SiteState) -> RenderableType:
    """A node's descriptor, and its state."""
    node = site.descriptor
    rows: list[tuple[str, object]] = [
        ("state", _state(site)),
        ("owner, law", f"{node.owner}, {node.jurisdiction}"),
        ("roles", ", ".join(node.roles) or "-"),
        ("started", f"{age(node.started_at_s)}, {node.software}"),
        ("key", node.public_key),
    ]
    if node.compute is not None:
        compute = node.compute
        rows += [
            ("computes with", f"{compute.device}, {compute.speed_flops / 1e9:.0f} GFLOP/s"),
            ("memory", size(compute.memory_bytes)),
            ("price", f"{decimals(compute.price_usd_per_hour)} USD for an hour of training"),
            ("recipes", ", ".join(compute.recipes) or "-"),
        ]
    elif node.verifier is not None:
        rows.append(
            ("price", f"{decimals(node.measuring_usd_per_hour)} USD for an hour of measuring")
        )
    if site.load is not None:
        load = site.load
        rows += [
            ("work there", f"{load.queue.value:.0f}, {age(load.queue.at_s)}"),
            ("processors", f"{load.cpu_share.value:.0%} busy"),
            ("disk", f"{size(load.disk_free_bytes.value)} free"),
        ]
    if node.gateway is not None:
        rows.append(("gateway at", node.gateway.endpoint))
    if node.facility is not None:
        many = len(node.facility.deployments)
        rows.append(("facility at", f"{node.facility.endpoint}, with {many} deployments"))
    parts: list[RenderableType] = [plain_table(node.site, ("", ""), rows)]
    if node.datasets:
        of_data = [
            (d.name, d.data_schema, ", ".join(d.topics), d.samples, len(d.labels), _share(d))
            for d in node.datasets
        ]
        columns = ("data set", "schema", "topics", "samples", "labels", "without gaps")
        parts.append(plain_table("data sets", columns, of_data))
    if node.verifier is not None and node.verifier.tests:
        tests = [
            (t.topic, t.test_schema, ", ".join(t.metrics), t.items, f"{t.chance:.2f}")
            for t in node.verifier.tests
        ]
        of_tests = ("topic", "schema", "metrics", "items", "chance")
        parts.append(plain_table("test sets", of_tests, tests))
    return Group(*parts)


def dataset_page(dataset: DatasetDescriptor) -> RenderableType:
    """A data set's properties, and who may train on it."""
    policy = dataset.policy
    rows: list[tuple[str, object]] = [
        ("site, law", f"{dataset.site}, {dataset.jurisdiction}"),
        ("schema", f"{dataset.data_schema} ({dataset.modality})"),
        ("topics", ", ".join(dataset.topics) or "-"),
        ("records", dataset.samples),
        ("quality", f"{dataset.quality:.2f}: {gaps(dataset)}"),
        ("changed", age(dataset.fresh_at_s)),
        ("price", f"{decimals(dataset.price_usd_per_1k)} USD for 1,000 examples"),
        ("recipes that may learn", words_of(policy.recipes)),
        ("owners whose models may", words_of(policy.owners)),
        ("purposes", words_of(policy.purposes)),
        ("models may travel to", words_of(policy.release_to)),
        ("hours", "any" if ANY in policy.hours else f"{words_of(policy.hours)} {policy.time_zone}"),
        ("start models of owners", "yes" if policy.start_models else "no"),
        (
            "wording is published",
            "no" if dataset.sketch is None else f"of {dataset.sketch.texts} texts",
        ),
    ]
    if dataset.columns is not msgspec.UNSET:
        rows.append(("columns to learn from", dataset.columns))
    if dataset.licence:
        rows.append(("licence", dataset.licence))
    if dataset.description:
        rows.append(("description", dataset.description))
    return Group(
        plain_table(f"{dataset.site}/{dataset.name}", ("", ""), rows),
        plain_table("labels", ("label", "records", "share"), _labels(dataset.labels)),
    )


def _labels(labels: Mapping[str, int]) -> list[tuple[object, ...]]:
    together = sum(labels.values()) or 1
    ordered = sorted(labels.items(), key=lambda of: (-of[1], of[0]))
    rows: list[tuple[object, ...]] = [
        (label, count, f"{count / together:.1%}") for label, count in ordered[:_SHOWN_LABELS]
    ]
    if left := ordered[_SHOWN_LABELS:]:
        count = sum(count for _, count in left)
        rows.append((f"{len(left)} more", count, f"{count / together:.1%}"))
    return rows


def gaps(dataset: DatasetDescriptor) -> str:
    """Explains the share of usable records."""
    if dataset.quality >= 1.0:
        return "every record is usable"
    share = f"{1.0 - dataset.quality:.0%} of the records"
    if dataset.data_schema == "table/1":
        return (
            f"{share} lack a value; none is left out: to `classifier` a gap is its column's mean, "
            "`boosted-trees` decides by it"
        )
    return f"{share} cannot be learned from"


def _share(dataset: DatasetDescriptor) -> str:
    return f"{dataset.quality:.0%}"


def words_of(words: tuple[str, ...]) -> str:
    """The words of a rule: `any`, `none`, or each."""
    return "any" if ANY in words else ", ".join(words) or "none"
