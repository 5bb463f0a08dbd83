"""Holds back a wheel, or a source archive, without the dashboard: git does not know what is built.

An editable installation needs none, as the dashboard is built by what it installs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = "src/daitn/oam/static/index.html"


class DashboardHook(BuildHookInterface[Any]):
    """Asked by hatchling before it packs anything."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable" and not (Path(self.root) / PAGE).is_file():
            self.app.abort(f"the dashboard is not built ({PAGE} is missing): run `make web` first")
