"""`daitn network`: founding, inviting, joining, revoking, as people type it."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.founding import found_network, live_roster, remember_network
from daitn.cli.known_networks import network_of
from daitn.cli.network import read_center, read_node
from daitn.identity.keys import SigningKey
from daitn.identity.network import NetworkFolder, inviting
from daitn.identity.roster import read_roster
from daitn.objects.errors import InvalidInput, NotFound, WorkFailed
from daitn.objects.roster import Kind
from daitn.tools import clock
from tests.scenes.command_line import Ended, daitn

SITE = ("--role", "data", "--owner", "nih", "--jurisdiction", "US")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run; it holds the network `clinics`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAITN_NETWORK", "network")
    assert daitn("network", "init", "network", "--name", "clinics").returncode == 0
    return tmp_path


def good(*arguments: str) -> Ended:
    ended = daitn("network", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended


def said(*arguments: str) -> Any:
    return json.loads(good(*arguments, "--json").stdout)


def refused(code: int, *arguments: str) -> str:
    ended = daitn("network", *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "error" in ended.stderr
    assert "fix" in ended.stderr
    return " ".join(ended.stderr.split())


def members() -> dict[str, Any]:
    roster = read_roster(Path("network/roster.json")).opened()
    return {member.name: member for member in roster.members}


def test_a_site_joins_and_leaves(folder: Path) -> None:
    made = said("invite", "--site", "ghr", *SITE, "--role", "compute", "--days", "30")
    assert made == {"kind": "site", "name": "ghr", "file": "ghr.invitation"}
    assert stat.S_IMODE(Path("ghr.invitation").stat().st_mode) == 0o600
    asked = said("join", "ghr.invitation", "--host", "ghr.example.org", "--host", "10.0.0.9")
    assert (asked["file"], asked["folder"]) == ("ghr.request", "state/ghr")
    admitted = said("admit", "ghr.request")
    assert admitted["fingerprint"] == asked["fingerprint"]
    assert admitted["hosts"] == ["ghr.example.org", "10.0.0.9"]
    entered = said("join", "ghr.admission")
    assert (entered["name"], entered["version"]) == ("ghr", 2)
    state = Path("state/ghr")
    assert {p.name for p in state.iterdir()} == {"key", "roster.json", "tls"}
    assert {p.name for p in (state / "tls").iterdir()} == {
        "authority.pem",
        "certificate.pem",
        "key.pem",
        "membership.pem",
    }
    assert stat.S_IMODE((state / "key").stat().st_mode) == 0o600
    ghr = members()["ghr"]
    assert ghr.public_key == SigningKey.at(state / "key").public
    assert ghr.hosts == ("ghr.example.org", "10.0.0.9")
    assert (ghr.roles, ghr.owner, ghr.jurisdiction) == (("data", "compute"), "nih", "US")
    secret = (state / "key").read_text(), (state / "tls/key.pem").read_text()
    for sent in ("ghr.request", "ghr.admission"):
        assert not any(private.strip() in Path(sent).read_text() for private in secret)

    assert "already answered" in refused(3, "admit", again(folder))
    assert "roster 3" in good("revoke", "site", "ghr").stdout
    assert "ghr" not in members()
    assert "no site ghr" in refused(2, "revoke", "site", "ghr")


def test_letters_are_taken_from_standard_input(folder: Path) -> None:
    """As in a container, whose user may not read the invitation's file."""
    good("invite", "--site", "ghr", *SITE)
    for letter in ("ghr.invitation", "ghr.admission"):
        command = [sys.executable, "-m", "daitn", "network", "join", "/dev/stdin", "--to", "volume"]
        with open(letter) as sent:
            ended = subprocess.run(command, stdin=sent, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        if letter == "ghr.invitation":
            good("admit", "ghr.request")
    assert Path("volume/roster.json").is_file()


def again(folder: Path) -> str:
    """Another one answers the same invitation."""
    said("join", "ghr.invitation", "--to", "thief", "-o", "thief.request")
    return "thief.request"


def test_owners_operators_and_the_control_centre_join_too(folder: Path) -> None:
    for options, name, key in (
        (["--owner-name", "acme"], "acme", "acme/keys/owner-acme"),
        (["--operator-name", "eve"], "eve", "eve/keys/operator-eve"),
        (["--control-center"], "center", "daitn-center/key"),
    ):
        good("invite", *options)
        good("join", f"{name}.invitation")
        good("admit", f"{name}.request")
        good("join", f"{name}.admission")
        assert members()[name].public_key == SigningKey.at(Path(key)).public
    assert Path("daitn-center/tls/issuer.pem").is_file()
    assert not Path("acme/tls/issuer.pem").exists()
    assert {m.kind for m in members().values()} == {Kind.OPERATOR, Kind.OWNER, Kind.CENTER}


def test_the_roster_is_shown(folder: Path) -> None:
    good("invite", "--site", "ghr", *SITE)
    shown = said("roster", "--center", "tcp/127.0.0.1:9")
    assert (shown["network"], shown["version"]) == ("clinics", 1)
    (operator,) = shown["members"]
    assert (operator["kind"], operator["name"], operator["connected"]) == (
        "operator",
        "operator",
        None,
    )
    table = good("roster", "--center", "tcp/127.0.0.1:9")
    assert "clinics, roster 1, until 20" in table.stdout
    assert "does not answer" in table.stderr


def test_renewing(folder: Path) -> None:
    good("renew", "--days", "200")
    now_s = clock.wall_s()
    roster = NetworkFolder(Path("network")).roster()
    assert abs(roster.until_s - now_s - 200 * 86400) < 3600
    good("renew", "operator", "operator", "--member-days", "5")
    assert abs(members()["operator"].until_s - now_s - 5 * 86400) < 3600
    assert "NAME" in refused(2, "renew", "site")


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    assert "--site" in refused(2, "invite")
    assert "--site" in refused(2, "invite", "--site", "a", "--owner-name", "b", *SITE)
    assert "--role" in refused(2, "invite", "--site", "ghr")
    assert "--owner" in refused(2, "invite", "--site", "ghr", "--role", "data")
    assert "not a usable name" in refused(2, "invite", "--site", "**", *SITE)
    assert "control centre's name" in refused(2, "invite", "--site", "center", *SITE)
    data = ("invite", "--site", "ghr", "--role", "data")
    for owner in ("*", "a*", "center", "a\u200bb", "a\nb", "\u202eab", " "):
        assert "owner" in refused(2, *data, "--owner", owner, "--jurisdiction", "US")
    for law in ("*", "us", "U\u200b", "center"):
        assert "jurisdiction" in refused(2, *data, "--owner", "nih", "--jurisdiction", law)
    assert "not a usable name" in refused(2, "init", "other", "--name", "a b")
    assert "already holds a network" in refused(2, "init", "network", "--name", "other")
    assert "no root key" in refused(2, "revoke", "site", "ghr", "--network", str(tmp_path))
    assert "no file nowhere" in refused(2, "join", "nowhere")
    Path("garbage").write_text("{}")
    assert "not an invitation, request or admission" in refused(2, "join", "garbage")
    good("invite", "--site", "ghr", *SITE)
    assert "is not a request" in refused(2, "admit", "ghr.invitation")
    good("join", "ghr.invitation")
    assert "is a request" in refused(2, "join", "ghr.request")
    good("admit", "ghr.request")
    assert "not in elsewhere" in refused(3, "join", "ghr.admission", "--to", "elsewhere")
    good("init", "second", "--name", "second")
    good("invite", "--site", "ghr", *SITE, "--network", "second", "-o", "second.invitation")
    assert "another network" in refused(3, "join", "second.invitation", "--to", "state/ghr")
    for changed in ("signature", "claim"):
        letter = json.loads(Path("ghr.invitation").read_text())
        text = letter[changed]
        letter[changed] = text[:9] + ("A" if text[9] != "A" else "B") + text[10:]
        Path("forged").write_text(json.dumps(letter))
        assert refused(5, "join", "forged", "--to", "other")


NODE: dict[str, Any] = {
    "site": "branch",
    "owner": "me",
    "jurisdiction": "CA",
    "roles": ["forwarder"],
    "forwarder": {},
    "state": "state/branch",
}


def written(name: str, plain: dict[str, Any]) -> Path:
    path = Path(name)
    path.write_text(yaml.safe_dump(plain))
    return path


def test_processes_of_this_machine_are_admitted_by_their_files(folder: Path) -> None:
    written("node.yaml", NODE)
    written("center.yaml", {"state": "state/center"})
    assert said("admit", "node.yaml")["name"] == "branch"
    assert said("admit", "center.yaml")["kind"] == "center"
    branch = members()["branch"]
    assert (branch.roles, branch.owner, branch.jurisdiction) == (("forwarder",), "me", "CA")
    for config in (read_node(Path("node.yaml"), ""), read_center(Path("center.yaml"))):
        roster = live_roster(config)
        assert roster is not None
        assert SigningKey.at(Path(config.state) / "key").public in roster.members()


def test_nobody_is_admitted_with_a_host_that_no_certificate_can_have(folder: Path) -> None:
    written("node.yaml", NODE)
    assert "is not a host" in refused(2, "admit", "node.yaml", "--host", "a b")
    assert "branch" not in members()


@pytest.mark.parametrize(
    "changes",
    [
        {"roles": ["forwarder", "gateway"], "gateway": {}},
        {"owner": "bank"},
        {"jurisdiction": "US"},
    ],
)
def test_a_process_whose_file_says_more_than_the_roster_grants_is_told(
    folder: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    written("node.yaml", NODE)
    good("admit", "node.yaml")
    assert live_roster(read_node(Path("node.yaml"), "")) is not None
    assert caplog.text == ""
    assert live_roster(read_node(written("node.yaml", {**NODE, **changes}), "")) is not None
    assert "the roster grants branch forwarder, owned by 'me', in 'CA'" in caplog.text
    (folder / "state/branch/key").unlink()
    assert live_roster(read_node(Path("node.yaml"), "")) is not None
    assert "does not have the key of the site branch yet" in caplog.text


def test_without_a_roster_no_process_starts(folder: Path, tmp_path: Path) -> None:
    written("node.yaml", NODE)
    for ended in (
        daitn("node", "-c", "node.yaml"),
        daitn("center", "-c", str(written("center.yaml", {"state": "c"}))),
    ):
        assert ended.returncode == 2
        text = " ".join(ended.stderr.split())
        assert "there is no roster" in text
        assert "daitn network join" in text
        assert "daitn network init" in text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"listen": ["tcp/0.0.0.0:0"]}, "listen"),
        ({"listen": ["tcp/127.0.0.1:0", "tcp/[::]:0"]}, "listen"),
        ({"listen": ["tcp/clinic.example.org:0"]}, "listen"),
        ({"forwarder": {"listen": ["tcp/10.0.0.1:0"]}}, "forwarder.listen"),
        ({"forwarder": {"scout": "224.0.0.225:7448"}}, "forwarder.scout"),
        ({"roles": ["forwarder", "gateway"], "gateway": {"listen": "0.0.0.0:0"}}, "gateway.listen"),
        (
            {"roles": ["forwarder", "facility"], "facility": {"listen": "[::]:0"}},
            "facility.listen",
        ),
        ({"roster": "network/roster.json"}, "insecure"),
    ],
)
def test_insecure_is_alone_on_its_machine(
    folder: Path, changes: dict[str, Any], field: str
) -> None:
    config = read_node(written("node.yaml", {**NODE, "insecure": True, **changes}), "")
    with pytest.raises(InvalidInput) as raised:
        live_roster(config)
    assert raised.value.field == field
    assert raised.value.fix


FACILITY = {"roles": ["forwarder", "facility"]}
GATEWAY = {"roles": ["forwarder", "gateway"]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"listen": ["tcp/0.0.0.0:0"]}, "listen"),
        ({"listen": ["tls/0.0.0.0:0", "tcp/[::]:0"]}, "listen"),
        ({"listen": ["tcp/127.0.0.1.example.org:0"]}, "listen"),
        ({"center": ["tls/10.0.0.1:7447", "tcp/10.0.0.1:7447"]}, "center"),
        ({"forwarder": {"listen": ["tcp/10.0.0.1:0"]}}, "forwarder.listen"),
        (
            {"forwarder": {"neighbours": {"south": ["tcp/south.example.org:7"]}}},
            "forwarder.neighbours.south",
        ),
        ({**GATEWAY, "gateway": {"listen": "0.0.0.0:0"}}, "gateway.listen"),
        ({**GATEWAY, "gateway": {"advertise": "http://10.0.0.1:80/"}}, "gateway.advertise"),
        ({**FACILITY, "facility": {"listen": "[::]:0"}}, "facility.listen"),
        ({**FACILITY, "facility": {"advertise": "http://mdf.example.org"}}, "facility.advertise"),
    ],
)
def test_nobody_speaks_in_the_open_beyond_the_machine(
    folder: Path, changes: dict[str, Any], field: str
) -> None:
    config = read_node(written("node.yaml", {**NODE, **changes}), "")
    with pytest.raises(InvalidInput) as raised:
        live_roster(config)
    assert raised.value.field == field
    assert "not encrypted" in raised.value.problem
    assert "tls/" in raised.value.fix or "https://" in raised.value.fix


def test_a_control_centre_does_not_speak_in_the_open_either(folder: Path) -> None:
    for field in ("listen", "root"):
        path = written("center.yaml", {"state": "c", field: ["tcp/10.0.0.1:7447"]})
        with pytest.raises(InvalidInput) as raised:
            live_roster(read_center(path))
        assert raised.value.field == field
    ended = daitn("center", "-c", "center.yaml")
    assert ended.returncode == 2
    assert "not encrypted" in ended.stderr
    for name, address in (("listen", "0.0.0.0:7448"), ("advertise", "http://10.0.0.1:7448")):
        path = written("center.yaml", {"state": "c", "api": {name: address}})
        with pytest.raises(InvalidInput) as raised:
            live_roster(read_center(path))
        assert raised.value.field == f"api.{name}"


def test_an_insecure_control_centres_api_is_for_this_machine_alone(folder: Path) -> None:
    for listen in ("0.0.0.0:0", "https://0.0.0.0:0", "192.0.2.1:80"):
        path = written("center.yaml", {"state": "c", "insecure": True, "api": {"listen": listen}})
        with pytest.raises(InvalidInput) as raised:
            live_roster(read_center(path))
        assert raised.value.field == "api.listen"


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"metrics": {"listen": "0.0.0.0:0"}}, "metrics.listen"),
        ({"metrics": {"listen": "192.0.2.1:9100"}}, "metrics.listen"),
        ({"traces": {"endpoint": "http://192.0.2.1:4318"}}, "traces.endpoint"),
    ],
)
@pytest.mark.parametrize("kind", ["center", "node"])
def test_what_a_process_tells_of_itself_does_not_travel_in_the_open(
    folder: Path, kind: str, part: dict[str, Any], field: str
) -> None:
    own: dict[str, Any] = {"state": "c"}
    if kind == "node":
        own |= {"site": "s", "owner": "o", "jurisdiction": "US", "roles": ["compute"]}
        own |= {"center": ["tls/127.0.0.1:7447"]}
    path = written(f"{kind}.yaml", {**own, **part})
    with pytest.raises(InvalidInput, match=r"encrypt|open") as raised:
        live_roster(read_center(path) if kind == "center" else read_node(path, ""))
    assert raised.value.field == field


def test_a_command_does_not_speak_in_the_open_beyond_the_machine(folder: Path) -> None:
    ended = daitn("get", "nodes", DAITN_CENTER="tcp/10.0.0.1:7447", DAITN_NETWORK="network")
    assert ended.returncode == 2, ended.stderr
    assert "DAITN_CENTER" in ended.stderr
    assert "tls/10.0.0.1:7447" in ended.stderr
    ended = daitn("query", "hello", "--key", "secret", "--gateway", "http://10.0.0.1:7480")
    assert ended.returncode == 2, ended.stderr
    assert "not encrypted" in ended.stderr


def test_a_key_that_goes_to_its_server_in_the_open_is_warned_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warned(**upstream: str) -> bool:
        caplog.clear()
        facility = {"upstreams": [{"name": "doctor", **upstream}]}
        config = read_node(written("f.yaml", {**NODE, **FACILITY, "facility": facility}), "")
        with pytest.raises(NotFound):  # No roster, which is asked for afterwards.
            live_roster(config)
        return "travels unencrypted" in caplog.text

    assert warned(url="http://10.0.0.1:8000/v1", key_env="KEY")
    assert not warned(url="http://10.0.0.1:8000/v1")
    assert not warned(url="https://models.example.org/v1", key_env="KEY")
    assert not warned(url="http://127.0.0.1:8000/v1", key_env="KEY")


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"listen": ["tls/127.0.0.1:0"]}, ()),
        ({"listen": ["tls/[::]:7450"]}, ("facility",)),
        ({"center": ["tls/control.example.org:7447"]}, ("facility",)),
        ({"listen": ["tls/[::]:7450"], "facility": {"listen": "https://[::]:7490"}}, ()),
        ({"listen": ["tls/[::]:7450"], "facility": {"advertise": "https://mdf.example.org"}}, ()),
        (
            {
                "listen": ["tls/[::]:7450"],
                "facility": {"advertise": "https://localhost:7490"},
                "roles": ["forwarder", "facility", "gateway"],
                "gateway": {},
            },
            ("facility", "gateway"),
        ),
    ],
)
def test_a_server_that_only_its_own_machine_reaches_is_warned_of(
    folder: Path, changes: dict[str, Any], warned: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    config = read_node(written("f.yaml", {**NODE, **FACILITY, "facility": {}, **changes}), "")
    with pytest.raises(NotFound):  # No roster, which is asked for afterwards.
        live_roster(config)
    for name in ("facility", "gateway"):
        assert (f"only this machine reaches the {name}" in caplog.text) == (name in warned)


@pytest.mark.parametrize("at", ["tls/0.0.0.0:7447", "tls/[::]:7447", "tls/a.example.org:0"])
def test_nobody_is_invited_to_an_address_that_nobody_reaches(folder: Path, at: str) -> None:
    assert "others cannot connect" in refused(2, "invite", "--site", "ghr", *SITE, "--at", at)
    assert not Path("ghr.invitation").exists()


@pytest.mark.parametrize(
    "listen", [["tcp/127.0.0.1:0"], ["tcp/localhost:0"], ["tcp/[::1]:0", "tcp/127.0.0.9:7"], []]
)
def test_insecure_on_loopback_is_allowed(folder: Path, listen: list[str]) -> None:
    plain = {**NODE, "insecure": True, "listen": listen, "center": ["tcp/127.0.0.1:7447"]}
    assert live_roster(read_node(written("n.yaml", plain), "")) is None


def test_a_network_file_has_a_roster_of_its_own_unless_it_says_otherwise(folder: Path) -> None:
    entry = {k: v for k, v in NODE.items() if k != "jurisdiction"}
    plain: dict[str, Any] = {
        "center": {"state": "c"},
        "defaults": {"jurisdiction": "CA"},
        "nodes": [entry],
    }
    own = str((folder / "c/network/roster.json").resolve())
    path = written("network.yaml", plain)
    assert read_center(path).roster == read_node(path, "branch").roster == own
    plain["center"]["roster"] = "network/roster.json"
    path = written("network.yaml", plain)
    stated = str((folder / "network/roster.json").resolve())
    assert read_center(path).roster == read_node(path, "branch").roster == stated
    plain["center"] = {"insecure": True}
    path = written("network.yaml", plain)
    assert live_roster(read_center(path)) is live_roster(read_node(path, "branch")) is None


def test_a_command_finds_no_network_that_nobody_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAITN_NETWORK")
    text = refused(2, "roster", "--center", "tcp/127.0.0.1:1")
    assert "no network is known here" in text
    assert "DAITN_NETWORK" in text
    monkeypatch.setenv("DAITN_NETWORK", "nowhere")
    assert "nowhere" in refused(2, "roster")
    with pytest.raises(NotFound):
        read_roster(Path("nowhere"))


def test_up_speaks_as_the_operator_of_the_network_that_it_starts(folder: Path) -> None:
    """`DAITN_NETWORK` names another one, for commands: `up` asked its own processes with that."""
    Path("local.yaml").write_text(
        yaml.safe_dump({"center": {"listen": ["tcp/127.0.0.1:7999"], "state": "own"}, "nodes": []})
    )
    network = EmbeddedNetwork(Path("local.yaml"), Path("logs"))
    found_network(network.center, network.nodes)
    identity = network._identity()
    assert identity is not None
    assert identity.network == "local"
    assert identity.members()[identity.key.public].kind is Kind.OPERATOR


def test_a_network_that_does_not_start_takes_no_other_one_s_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands of a healthy network failed, after `up` elsewhere with the same ports."""
    monkeypatch.delenv("DAITN_NETWORK")
    endpoint = "tls/127.0.0.1:7998"
    networks = []
    for name in ("healthy", "other"):
        plain = {"center": {"listen": [endpoint], "state": name}, "nodes": []}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(plain))
        networks.append(EmbeddedNetwork(Path(f"{name}.yaml"), Path("logs")))
    healthy, other = networks
    found_network(healthy.center, healthy.nodes)
    remember_network(healthy.center, healthy.nodes)

    def launch(name: str) -> None:
        raise WorkFailed("the address is in use")

    monkeypatch.setattr(other, "launch", launch)
    for insecure in (False, True):
        other.center = msgspec.structs.replace(other.center, insecure=insecure)
        with pytest.raises(WorkFailed):
            asyncio.run(other.start(lambda what, done, of: None))
        assert network_of(endpoint) == Path("healthy/network").resolve()
    own = str(Path("other/network/tls").resolve())
    other.center = msgspec.structs.replace(other.center, insecure=False)
    assert other._certificates() == own, "it speaks with its own processes"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.OWNER, "acme"),
        (Kind.OPERATOR, "ops"),
        (Kind.CENTER, "center"),
        (Kind.CENTER, "east"),
        (Kind.SITE, "ghr"),
    ],
)
def test_the_advice_to_invite_somebody_can_be_followed(folder: Path, kind: Kind, name: str) -> None:
    words = inviting(kind, name).removeprefix("daitn network ").split()
    good(*words, *(SITE if kind is Kind.SITE else ()))
    assert Path(f"{name}.invitation").is_file()


def test_a_network_has_several_control_centres(folder: Path) -> None:
    """Two could not be members: both were called alike."""
    for name in ("root", "west"):
        Path(f"{name}.yaml").write_text(
            yaml.safe_dump(
                {"name": name, "state": f"state/{name}", "listen": [f"tcp/[::1]:{len(name)}"]}
            )
        )
        good("admit", f"{name}.yaml")
    said("invite", "--control-center-name", "east")
    asked = said("join", "east.invitation")
    assert asked["folder"] == "state/east"
    good("admit", "east.request")
    centers = {name for name, member in members().items() if member.kind is Kind.CENTER}
    assert centers == {"root", "west", "east"}
    Path("bad.yaml").write_text(yaml.safe_dump({"name": "*"}))
    with pytest.raises(InvalidInput):
        read_center(Path("bad.yaml"))
