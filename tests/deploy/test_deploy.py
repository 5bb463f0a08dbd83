"""What is in `deploy/` runs what there is: commands, options and fields are those of the code."""

from __future__ import annotations

import configparser
import copy
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from daitn.center.config import check_center_config
from daitn.node.config import check_node_config
from tests.deploy.chart import rendered
from tests.scenes.command_line import daitn

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
CHART = DEPLOY / "helm" / "daitn"


def check_command(words: list[str]) -> None:
    """A command line of `daitn`, whose files are somewhere else: its options are known."""
    options = [word for word in words[1:] if word.startswith("-")]
    help_ = daitn(words[0], "--help")
    assert help_.returncode == 0, help_.stderr
    for option in options:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_.stdout), option


def unit(path: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(path.read_text())
    return read


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_of_systemd_and_run_commands_that_exist(path: Path, tmp_path: Path) -> None:
    if "Service" in (read := unit(path)):
        words = shlex.split(read["Service"]["ExecStart"].replace("$$", "$").replace("%%", "%"))
        if words[0] == "/bin/sh":
            words = shlex.split(words[2])
        assert words[0] == "/opt/daitn/bin/daitn"
        check_command(words[1:])
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    for each in UNITS:  # As installed: where programs and units are on this machine.
        text = each.read_text().replace("/opt/daitn/bin/daitn", shutil.which("true") or "")
        (tmp_path / each.name.replace("@", "@ghr")).write_text(text)
    target = tmp_path / path.name.replace("@", "@ghr")
    made = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in made.stderr.splitlines() if path.name.replace("@", "@ghr") in line]
    assert (made.returncode, told) == (0, []), made.stderr


def test_a_node_s_unit_waits_longer_than_the_node_drains() -> None:
    drain_s = check_node_config(minimal(), DEPLOY).drain_s
    for path in DEPLOY.glob("systemd/*@.service"):
        assert float(unit(path)["Service"]["TimeoutStopSec"]) > drain_s


def minimal() -> dict[str, Any]:
    return {
        "site": "ghr",
        "owner": "nih",
        "jurisdiction": "US",
        "roles": ["forwarder"],
        "forwarder": {"listen": ["tls/127.0.0.1:0"]},
        "state": "state",
    }


def test_the_compose_file_runs_commands_that_exist_and_its_volumes_are_there() -> None:
    plain = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in plain["services"].values():
        check_command(service["command"])
        named = {volume.partition(":")[0] for volume in service["volumes"]}
        assert {name for name in named if not name.startswith(".")} <= plain["volumes"].keys()
        guide = (DEPLOY.parent / "docs/how-to/deploy.md").read_text()
        assert f"-v {plain['volumes']['site']['name']}:" in guide, "not that of another project"
        assert set(service.get("depends_on", [])) <= plain["services"].keys()
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["stop_grace_period"] == "120s"


def test_the_container_file_copies_what_is_there_and_starts_the_command() -> None:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "STOPSIGNAL",
             "ENTRYPOINT", "CMD"}  # fmt: skip
    assert {instruction for instruction, _ in lines} <= known
    for instruction, rest in lines:
        if instruction == "COPY":
            for source in rest.split()[:-1]:
                assert (DEPLOY.parent / source).exists(), source
    assert ["ENTRYPOINT", '["daitn"]'] in lines


def test_what_the_container_file_copies_is_sent_to_the_builder_and_nothing_else() -> None:
    """Without the list, a checkout's environments and `node_modules` go there, too."""
    text = (DEPLOY / "Containerfile").read_text()
    copied = {
        source.removeprefix("./")
        for line in text.splitlines()
        if line.startswith("COPY")
        for source in line.split()[1:-1]
    }
    ignored = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == copied


def values() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return read


def schema() -> Any:
    import json

    return json.loads((CHART / "values.schema.json").read_text())


def test_the_chart_s_values_are_of_its_schema_and_its_configurations_of_the_code() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.validate(values(), schema())
    check_center_config(values()["center"]["config"], CHART)
    for node in values()["nodes"]:
        check_node_config(node["config"], CHART)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("image",), ""),
        (("center", "storage"), "much"),
        (("center", "config", "state"), "/tmp/elsewhere"),
        (("center", "config", "insecure"), True),
        (("nodes", 0, "name"), "Not A Name"),
        (("nodes", 0, "name"), "center"),
        (("nodes", 0, "ports"), [7480, 7480]),
        (("center", "ports"), [7448]),
        (("nodes", 0, "config", "roles"), None),
        (("unknown",), 1),
    ],
)
def test_values_that_cannot_work_are_refused(path: tuple[Any, ...], value: Any) -> None:
    changed: Any = copy.deepcopy(values())
    at = changed
    for part in path[:-1]:
        at = at[part]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, schema())


def test_the_chart_s_manifests_belong_together() -> None:
    changed = values()
    changed["center"]["ports"] += [7448, 7449]
    door = changed["nodes"][0]
    changed["nodes"].append({**copy.deepcopy(door), "name": "mdf", "gpus": 2})
    changed["nodes"].append({**copy.deepcopy(door), "name": "inner", "ports": []})
    jsonschema.validate(changed, schema())
    found = rendered(CHART, changed, "daitn")
    by_kind: dict[str, dict[str, Any]] = {}
    for manifest in found:
        by_kind.setdefault(manifest["kind"], {})[manifest["metadata"]["name"]] = manifest
    reached = {"daitn-center": 3, "daitn-door": 2, "daitn-mdf": 2}
    assert {kind: set(each) for kind, each in by_kind.items()} == {
        "ConfigMap": {*reached, "daitn-inner"},
        "Service": {*reached},
        "StatefulSet": {*reached, "daitn-inner"},
    }
    for name, each in by_kind["StatefulSet"].items():
        spec = each["spec"]
        pod = spec["template"]
        assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        (container,) = pod["spec"]["containers"]
        check_command(container["args"])
        open_ = {port["containerPort"] for port in container.get("ports", ())}
        assert len(open_) == reached.get(name, 0)
        if name in reached:
            service = by_kind["Service"][name]["spec"]
            assert service["selector"].items() <= pod["metadata"]["labels"].items()
            assert {port["port"] for port in service["ports"]} == open_
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        (keys,) = (v["secret"] for v in pod["spec"]["volumes"] if v["name"] == "identities")
        assert keys["items"] == [{"key": f"{name[6:]}.tar", "path": f"{name[6:]}.tar"}]
        volumes |= {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes - {"identities"}
        stated = yaml.safe_load(by_kind["ConfigMap"][name]["data"]["daitn.yaml"])
        check = check_center_config if name == "daitn-center" else check_node_config
        check(stated, CHART)
    limits = by_kind["StatefulSet"]["daitn-mdf"]["spec"]["template"]["spec"]["containers"][0]
    assert limits["resources"]["limits"] == {"nvidia.com/gpu": 2}
    changed["center"]["enabled"] = False
    assert "daitn-center" not in {m["metadata"]["name"] for m in rendered(CHART, changed, "daitn")}
