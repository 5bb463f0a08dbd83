"""What a running process takes over of its file, and what waits for its restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from daitn.center.config import LIVE as CENTER_LIVE
from daitn.center.config import CenterConfig
from daitn.cli.network import read_node
from daitn.files.live_changes import taken_over
from daitn.node.config.live import LIVE, NOTES
from daitn.objects.descriptors import LeftOut
from tests.scenes.breast_cancer import write_network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_network(tmp_path)


def changed(path: Path, **changes: Any) -> None:
    """Change the first node of the file, at dotted paths."""
    plain = yaml.safe_load(path.read_text())
    for dotted, value in changes.items():
        at = plain["nodes"][0]
        *way, last = dotted.split("__")
        for name in way:
            at = at[int(name)] if name.isdecimal() else at[name]
        at[last] = value
    path.write_text(yaml.safe_dump(plain))


def test_policies_and_prices_hold_at_once_and_the_rest_waits(path: Path) -> None:
    before = read_node(path, "east")
    changed(
        path,
        datasets__0__policy__hours=["Mon-Fri 18:00-08:00"],
        datasets__0__price_usd_per_1k=2.0,
        datasets__0__policy__least_records=50,
        threads=2,
        roles=["data"],
    )
    stated = read_node(path, "east")
    config, changes = taken_over(before, stated, LIVE)
    assert set(changes.live) == {"datasets[0].policy.hours", "datasets[0].price_usd_per_1k"}
    assert set(changes.waiting) == {"datasets[0].policy.least_records", "threads", "roles"}
    assert config.datasets[0].terms.hours == ("Mon-Fri 18:00-08:00",)
    assert config.datasets[0].price_usd_per_1k == 2.0
    assert config.datasets[0].terms.least_records == before.datasets[0].terms.least_records
    assert (config.threads, config.roles) == (before.threads, before.roles)
    assert type(config) is type(before)
    assert taken_over(config, stated, LIVE)[1].live == ()


def test_a_list_that_grows_waits_unless_it_is_live(path: Path) -> None:
    before = read_node(path, "east")
    more = msgspec.structs.replace(
        before, datasets=(*before.datasets, msgspec.structs.replace(before.datasets[0], name="b"))
    )
    config, changes = taken_over(before, more, LIVE)
    assert changes == ((), ("datasets",))
    assert config == before
    center = CenterConfig(open_jobs=1)
    other = CenterConfig(open_jobs=2, listen=("tls/127.0.0.1:1",))
    config_, changes = taken_over(center, other, CENTER_LIVE)
    assert changes == (("open_jobs",), ("listen[0]",))
    assert config_ == CenterConfig(open_jobs=2)


def test_nothing_changed_changes_nothing(path: Path) -> None:
    config = read_node(path, "east")
    assert taken_over(config, read_node(path, "east"), LIVE) == (config, ((), ()))


def test_every_live_field_is_one(path: Path) -> None:
    """So that none of them is a slip of the pen."""
    from daitn.node.config import NodeConfig

    def has(kind: Any, parts: list[str]) -> bool:
        if not parts:
            return True
        name = parts[0].removesuffix("[]")
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        inner = _structs(fields.get(name))
        return name in fields and (len(parts) == 1 or any(has(t, parts[1:]) for t in inner))

    assert all(has(NodeConfig, live.split(".")) for live in LIVE)
    assert all(has(CenterConfig, live.split(".")) for live in CENTER_LIVE)


def _structs(kind: Any) -> list[Any]:
    found = [kind] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []
    for inner in getattr(kind, "__args__", ()):
        found += _structs(inner)
    return found


def test_what_was_noted_when_a_file_was_read_is_no_change_of_it(path: Path) -> None:
    """`daitn doctor` said that `left_out`, which no file has, was not in force."""
    before = read_node(path, "east")
    entry = LeftOut(field="datasets[1]", name="more", reason="it is not there")
    stated = msgspec.structs.replace(before, left_out=(entry,), dataset_positions=(1,))
    assert taken_over(before, stated, LIVE)[1].waiting == ("left_out", "dataset_positions[0]")
    assert taken_over(before, stated, LIVE, NOTES)[1] == ((), ())
    stated = msgspec.structs.replace(stated, threads=7)
    config, changes = taken_over(before, stated, LIVE, NOTES)
    assert changes == ((), ("threads",))
    assert config == before
