"""A site with one table: its node file, and the descriptor that it publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daitn.node.config import DatasetConfig, NodeConfig, PolicyConfig
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
)
from daitn.objects.identifiers import OwnerId, SiteId

__all__ = ["SITE", "clinic_config", "clinic_descriptor"]

SITE = SiteId("clinic")
_POLICY = PolicyConfig(recipes=("*",), start_models=True)


def clinic_config(folder: Path, rows: list[str], **changes: Any) -> NodeConfig:
    """Its file, with these `rows` of its table; all that it keeps is in `folder`."""
    data = folder / "data.csv"
    if not data.exists():
        data.write_text("x,y,label\n" + "".join(f"{row}\n" for row in rows))
    facts: dict[str, Any] = {
        "site": SITE,
        "owner": OwnerId("clinic"),
        "jurisdiction": "US",
        "roles": (Role.DATA, Role.COMPUTE),
        "state": str(folder / "state"),
        "center": ("tcp/127.0.0.1:1",),
        "datasets": (
            DatasetConfig(
                name="notes",
                path=str(data),
                data_schema="table/1",
                topics=("t",),
                label="label",
                policy=_POLICY,
            ),
        ),
    }
    return NodeConfig(**facts | changes)


def clinic_descriptor(samples: int) -> NodeDescriptor:
    """What it publishes."""
    return NodeDescriptor(
        site=SITE,
        owner=OwnerId("clinic"),
        roles=(Role.DATA, Role.COMPUTE),
        jurisdiction="US",
        public_key="",
        started_at_s=1.0,
        version=1,
        software="daitn",
        datasets=(
            DatasetDescriptor(
                name="notes",
                site=SITE,
                data_schema="table/1",
                modality="table",
                topics=("t",),
                samples=samples,
                labels={},
                quality=1.0,
                fresh_at_s=1.0,
                jurisdiction="US",
                policy=_POLICY.published,
            ),
        ),
        compute=ComputeDescriptor(
            device="cpu", memory_bytes=2**30, speed_flops=1e9, recipes=("classifier",)
        ),
    )
