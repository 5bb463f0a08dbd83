"""`daitn doctor` with a node's file: it connects as the node does, and says whether it belongs."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.cli.network import own_network, read_node
from daitn.files.lock import FolderLock
from daitn.files.state_folder import ProcessState
from daitn.identity.keys import SigningKey
from daitn.identity.network import NetworkFolder
from daitn.identity.roster import write_roster
from daitn.oam.doctor.diagnoses import Diagnosis, Level
from daitn.oam.doctor.link import CenterLink, check_links, check_listening
from daitn.objects.errors import Unreachable
from daitn.objects.messages import RosterAnswer
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryFabric, MemoryNetwork
from daitn.tools.fabric.settings import FabricSettings
from tests.scenes.command_line import Ended, daitn
from tests.scenes.ports import free_port
from tests.system.conftest import Network, running

ROLES = ("--role", "gateway", "--owner", "acme", "--jurisdiction", "US")


def node_file(folder: Path, site: str, center: str, **changes: Any) -> Path:
    plain = {
        "site": site,
        "owner": "acme",
        "jurisdiction": "US",
        "roles": ["gateway"],
        "center": [center],
        "listen": [f"{center.partition('/')[0]}/127.0.0.1:0"],
        "gateway": {"listen": "127.0.0.1:0"},
        "metrics": {"listen": ""},
        "state": f"state/{site}",
        **changes,
    }
    path = folder / f"{site}.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A control centre, and a gateway `door`."""
    folder = tmp_path_factory.mktemp("links")
    center = f"tls/127.0.0.1:{free_port()}"
    door = yaml.safe_load(node_file(folder, "door", center).read_text())
    plain = {
        "center": {
            "listen": [center],
            "state": "state/center",
            "api": {"listen": ""},
            "metrics": {"listen": ""},
        },
        "nodes": [door],
    }
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump(plain))
    built = running(folder, path)
    yield built
    built.processes.stop()


def done(*arguments: str, **environment: str) -> Ended:
    ended = daitn(*arguments, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def joined(network: Network, site: str) -> Path:
    """The file of a site that joined by invitation, and has not started yet."""
    path = node_file(network.folder, site, network.processes.endpoint)
    state, folder = str(network.folder / "state" / site), network.folder
    operator = ("--network", str(own_network(network.processes.center)))
    letters = [str(folder / f"{site}.{kind}") for kind in ("invitation", "request", "admission")]
    done("network", "invite", "--site", site, *ROLES, *operator, "-o", letters[0])
    done("network", "join", letters[0], "--to", state, "-o", letters[1])
    tell = ("--tell", network.processes.endpoint)
    done("network", "admit", letters[1], *operator, "-o", letters[2], *tell)
    done("network", "join", letters[2], "--to", state)
    return path


def examined(path: Path, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """The findings of the site's own user, who knows no network; those in order left out."""
    nobody = {"XDG_CONFIG_HOME": str(path.parent / "nobody"), "DAITN_CENTER": "", **environment}
    ended = daitn("doctor", "-c", str(path), "--json", *arguments, **nobody)
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    problems = [one for one in found if one["level"] == "problem"]
    assert ended.returncode == bool(problems), ended.stdout + ended.stderr
    if not problems:
        assert any("accepts its key" in one["what"] for one in found)
    return [one for one in found if one["level"] in ("problem", "skipped")]


def operator(network: Network) -> dict[str, str]:
    return {"DAITN_NETWORK": str(own_network(network.processes.center))}


def started_at_s(network: Network) -> float:
    (node,) = network.json("get", "nodes")
    assert node["alive"]
    at_s: float = node["descriptor"]["started_at_s"]
    return at_s


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.processes
def test_a_joined_site_is_in_order_before_its_first_start(network: Network) -> None:
    path = joined(network, "shed")
    before = contents(network.folder / "state" / "shed")
    (skipped,) = examined(path)
    assert (skipped["check"], skipped["level"]) == ("network", "skipped")
    assert contents(network.folder / "state" / "shed") == before
    nobody = {"XDG_CONFIG_HOME": str(network.folder / "nobody"), "DAITN_CENTER": ""}
    assert "1 not looked at" in done("doctor", "-c", str(path), **nobody).stdout


@pytest.mark.processes
def test_a_running_site_is_examined_as_itself_and_left_alone(network: Network) -> None:
    began_s = started_at_s(network)
    path = node_file(network.folder, "door", network.processes.endpoint)
    logs = network.folder / "logs"
    before = {name: (logs / name).read_text() for name in ("center.log", "door.log")}
    assert [one["level"] for one in examined(path)] == ["skipped"]
    assert examined(path, **operator(network)) == []
    assert started_at_s(network) == began_s
    assert {name: (logs / name).read_text() for name in before} == before


@pytest.mark.processes
def test_the_centre_of_the_file_is_examined_and_not_that_of_the_environment(
    network: Network,
) -> None:
    center = network.processes.endpoint
    nowhere = f"tls/127.0.0.1:{free_port()}"
    path = node_file(network.folder, "door", nowhere)
    (unreached,) = examined(path, DAITN_CENTER=center)
    assert unreached["subject"] == nowhere
    assert "cannot reach the control centre" in unreached["what"]
    (skipped,) = examined(path, "--center", center, DAITN_CENTER=nowhere)
    assert (skipped["subject"], skipped["level"]) == (center, "skipped")
    (invalid,) = examined(path, "--center", "nowhere")
    assert "--center" in invalid["what"]


@pytest.mark.processes
def test_a_site_of_another_network_is_told_so(network: Network, tmp_path: Path) -> None:
    center = network.processes.endpoint
    path = node_file(tmp_path, "barn", center)
    done("network", "init", str(tmp_path / "other"), "--name", "other")
    done("network", "admit", str(path), "--network", str(tmp_path / "other"))
    found, _ = examined(path)
    assert "is not of this site's network, other" in found["what"]
    (found,) = examined(path, **operator(network))
    assert found["what"] == ("its roster is of the network other, the control centre's is of local")
    assert "correct `center`" in found["fix"]


@pytest.mark.processes
def test_a_certificate_that_the_control_centre_does_not_accept_is_told(
    network: Network, tmp_path: Path
) -> None:
    path = joined(network, "loft")
    tls = network.folder / "state" / "loft" / ProcessState.TLS
    trusted = (tls / "authority.pem").read_bytes()
    other = NetworkFolder.found(tmp_path / "other", "other", "op", clock.wall_s())
    other.equip(Kind.OPERATOR, "op", tls)
    (tls / "authority.pem").write_bytes(trusted)
    found, _ = examined(path)
    assert "does not accept this site's certificate" in found["what"]


@pytest.mark.processes
def test_a_site_that_the_control_centre_does_not_have_is_told(network: Network) -> None:
    path = joined(network, "attic")
    folder = own_network(network.processes.center)
    tell = ("--tell", network.processes.endpoint)
    done("network", "revoke", "site", "attic", "--network", str(folder), *tell)
    (found,) = examined(path, **operator(network))
    assert "does not have this site's key" in found["what"]
    assert "daitn network invite --site attic" in found["fix"]
    found, _ = examined(path)
    assert "as if its roster did not have the site's key" in found["what"]


async def test_a_silent_control_centre_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daitn.oam.doctor.link._WITHIN_S", 0.2)

    async def served(answer: bytes | None) -> list[Diagnosis]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if answer is not None:
                writer.write(answer)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            center = f"tls/127.0.0.1:{server.sockets[0].getsockname()[1]}"
            assert (await check_listening(center)).level is Level.OK
            return await check_links([way(tmp_path, center)], tmp_path / "a.yaml", {}, refusing)

    async def refusing(settings: FabricSettings) -> MemoryFabric:
        raise Unreachable("cannot reach it", field="connect")

    (silent,) = await served(None)
    assert "accepts connections, and says nothing" in silent.what
    (other,) = await served(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "does not speak TLS" in other.what


def way(folder: Path, center: str, name: str = "local") -> CenterLink:
    """A site that is a member of the network in `folder`, which is made if missing."""
    node = read_node(node_file(folder, "door", center), "")
    path, now_s = folder / name, clock.wall_s()
    founded = (path / "roster.json").exists()
    network = NetworkFolder(path) if founded else NetworkFolder.found(path, name, "op", now_s)
    key = SigningKey.at(Path(node.state) / ProcessState.KEY)
    member = Member(
        name="door", kind=Kind.SITE, public_key=key.public, until_s=now_s + 1e6, roles=node.roles
    )
    network.admit(member, now_s=now_s)
    network.equip(Kind.SITE, "door", Path(node.tls))
    write_roster(Path(node.state) / ProcessState.ROSTER, network.file())
    return CenterLink("site door", node, center)


@asynccontextmanager
async def a_center(network: NetworkFolder) -> AsyncIterator[Callable[[FabricSettings], Any]]:
    """A control centre that tells its roster, and answers nothing else."""
    memory = MemoryNetwork()
    center = memory.open("center")

    async def answer(key: str, payload: bytes) -> bytes:
        return encode(RosterAnswer(version=network.roster().version, newer=network.file().signed))

    async def opening(settings: FabricSettings) -> MemoryFabric:
        return memory.open("door")

    await center.serve(keys.NEWER_ROSTER, answer)
    yield opening
    await center.close()


@pytest.mark.parametrize(
    ("name", "other"), [("other", "of other"), ("local", "of another network that is called local")]
)
async def test_rosters_of_two_networks_are_told_apart_whatever_their_versions(
    tmp_path: Path, name: str, other: str
) -> None:
    """Over `tcp/`, where no certificate tells."""
    site = way(tmp_path, "tcp/127.0.0.1:7447")
    theirs = NetworkFolder.found(tmp_path / "theirs", name, "op", clock.wall_s())
    for _ in range(3):
        async with a_center(theirs) as opening:
            (found,) = await check_links([site], tmp_path / "door.yaml", {}, opening)
        assert (found.check, found.level) == ("roster", Level.PROBLEM)
        assert found.what.startswith("its roster is of the network local, ")
        assert other in found.what
        theirs.renew(clock.wall_s())


async def test_an_old_roster_and_one_without_the_site_are_told(tmp_path: Path) -> None:
    site = way(tmp_path, "tcp/127.0.0.1:7447")
    network = NetworkFolder(tmp_path / "local")
    network.revoke(Kind.SITE, "door", clock.wall_s())
    async with a_center(network) as opening:
        stopped, gone = await check_links([site], tmp_path / "door.yaml", {}, opening)
        with FolderLock(Path(site.node.state)):
            runs, again = await check_links([site], tmp_path / "door.yaml", {}, opening)
    assert stopped.level is Level.OK
    assert runs.what == "its roster is version 2, the network has 3"
    assert again == gone
    assert "does not have this site's key" in gone.what
    assert "invite --site door --role gateway" in gone.fix


async def test_a_site_that_cannot_be_examined_is_left_to_other_checks(tmp_path: Path) -> None:
    async def opening(settings: FabricSettings) -> MemoryFabric:
        raise AssertionError

    site = way(tmp_path, "tls/127.0.0.1:7447")
    shutil.rmtree(site.node.tls)
    assert await check_links([site], tmp_path / "door.yaml", {}, opening) == []
    shutil.rmtree(site.node.state)
    assert await check_links([site], tmp_path / "door.yaml", {}, opening) == []
