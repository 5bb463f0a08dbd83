"""`daitn up` names the files that a site starts without."""

from __future__ import annotations

from pathlib import Path

from daitn.cli.network import read_node
from daitn.cli.processes import missing_files

NODE = """\
site: west
owner: me
jurisdiction: CA
roles: [data]
center: [tcp/127.0.0.1:1]
state: state
datasets:
  - {name: here, path: here.csv, data_schema: table/1, topics: [t], policy: {recipes: ["*"]}}
  - {name: typo, pth: typo.csv}
  - {name: gone, path: nothere.csv, data_schema: table/1, topics: [t], policy: {recipes: ["*"]}}
"""


def test_a_missing_file_is_named_by_its_entry_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "here.csv").write_text("a,label\n")
    (tmp_path / "node.yaml").write_text(NODE)
    node = read_node(tmp_path / "node.yaml", "")
    assert missing_files(node) == {"datasets[2]": f"{tmp_path / 'nothere.csv'} does not exist"}


def test_a_path_that_no_file_can_have_is_named_too(tmp_path: Path) -> None:
    """As is one in a folder that this user may not enter: neither ends the network."""
    long = "x" * 300 + ".csv"
    (tmp_path / "here.csv").write_text("a,label\n")
    (tmp_path / "node.yaml").write_text(NODE.replace("nothere.csv", long))
    (why,) = missing_files(read_node(tmp_path / "node.yaml", "")).values()
    assert why.startswith(f"{tmp_path / long} cannot be found: ")
