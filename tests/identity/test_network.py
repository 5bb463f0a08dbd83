"""The network's folder: founding, inviting, joining, revoking; versions only rise."""

from __future__ import annotations

import contextlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daitn.identity.certificates import AUTHORITY, Issuer, hosts_of, keep, requested
from daitn.identity.invitations import (
    Claim,
    Invitation,
    answer_invitation,
    check_request,
    invite,
    read_letter,
    write_letter,
)
from daitn.identity.keys import SigningKey
from daitn.identity.network import MEMBER_DAYS, NetworkFolder, own_key
from daitn.identity.roster import ROSTER, RosterFile, write_roster
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, Refused
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member, SignedRoster
from daitn.objects.wire import canonical

NOW_S = 1_000_000.0
GHR = Claim(
    network="clinics",
    id="",
    until_s=NOW_S + DAY_S,
    once="",
    kind=Kind.SITE,
    name="ghr",
    roles=(Role.DATA, Role.COMPUTE),
    owner="nih",
    jurisdiction="US",
    member_days=30,
)


@pytest.fixture
def network(tmp_path: Path) -> NetworkFolder:
    return NetworkFolder.found(tmp_path / "network", "clinics", "me", NOW_S)


def invited(network: NetworkFolder, claim: Claim = GHR) -> Invitation:
    return invite(claim, network.root, network.file(), ("tcp/10.0.0.1:7447",))


def site(name: str, key: SigningKey | None = None) -> Member:
    key = key or SigningKey.generate()
    until_s = NOW_S + MEMBER_DAYS * DAY_S
    return Member(name=name, kind=Kind.SITE, public_key=key.public, until_s=until_s)


def test_no_roster_is_signed_that_nobody_can_read(network: NetworkFolder) -> None:
    """Its own folder could not be read any more, so that nobody could be revoked."""
    hosts = tuple(f"host-{n}.example.org" for n in range(65))
    with pytest.raises(Corrupt, match="hosts"):
        network.admit(msgspec.structs.replace(site("east"), hosts=hosts), now_s=NOW_S)
    network.admit(msgspec.structs.replace(site("east"), hosts=hosts[1:]), now_s=NOW_S)
    assert network.roster().version == 2


def test_a_network_begins_with_its_operator(network: NetworkFolder) -> None:
    roster = network.roster()
    assert (roster.network, roster.version) == ("clinics", 1)
    (operator,) = roster.members
    assert (operator.kind, operator.name) == (Kind.OPERATOR, "me")
    assert own_key(network.path, Kind.OPERATOR, "me", NOW_S).public == operator.public_key
    for private in (network.path / "root-key", network.path / "keys" / "operator-me"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert (network.authority / AUTHORITY).is_file()


def test_a_second_network_needs_a_second_folder(network: NetworkFolder) -> None:
    before = network.file()
    with pytest.raises(InvalidInput, match="already holds a network"):
        NetworkFolder.found(network.path, "other", "me", NOW_S)
    assert network.file() == before


def test_a_folder_without_a_root_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no root key") as raised:
        NetworkFolder(tmp_path)
    assert "daitn network init" in raised.value.fix


@pytest.mark.parametrize(("name", "operator"), [("**", "me"), ("a/b", "me"), ("n", "a\nb")])
def test_names_are_checked(tmp_path: Path, name: str, operator: str) -> None:
    with pytest.raises(InvalidInput, match="not a usable name"):
        NetworkFolder.found(tmp_path / "n", name, operator, NOW_S)
    assert not (tmp_path / "n" / "root-key").exists()


def test_an_invited_site_joins(network: NetworkFolder, tmp_path: Path) -> None:
    write_letter(tmp_path / "sent", invited(network))
    assert stat.S_IMODE((tmp_path / "sent").stat().st_mode) == 0o600
    invitation = read_letter(tmp_path / "sent")
    assert isinstance(invitation, Invitation)
    key = SigningKey.generate()
    csr = requested(tmp_path / "tls", ["ghr.example.org", "10.0.0.9"])
    request = answer_invitation(invitation, key, csr)
    claim = check_request(request, "clinics", network.root.public, NOW_S)
    hosts = hosts_of(request.certificate)
    assert hosts == ("ghr.example.org", "10.0.0.9")
    roster = network.admit_invited(claim.id, claim.member(key.public, NOW_S, hosts), NOW_S)
    member = roster.current(NOW_S)[key.public]
    assert member.hosts == hosts
    assert (member.name, member.roles, member.owner) == ("ghr", GHR.roles, "nih")
    assert member.until_s == NOW_S + 30 * DAY_S
    assert roster.version == 2

    issued = Issuer.authority(network.authority).certify(request.certificate, member)
    keep(tmp_path / "tls", issued)
    certificate = x509.load_pem_x509_certificate(issued.membership.encode())
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate((network.authority / AUTHORITY).read_bytes())
    )


def test_an_invitation_is_answered_once(network: NetworkFolder) -> None:
    invitation = invited(network)
    first, second = SigningKey.generate(), SigningKey.generate()
    claim = check_request(
        answer_invitation(invitation, first), "clinics", network.root.public, NOW_S
    )
    network.admit_invited(claim.id, claim.member(first.public, NOW_S), NOW_S)
    before = network.roster()
    again = network.admit_invited(claim.id, claim.member(first.public, NOW_S), NOW_S)
    assert again == before, "the same one may ask again, as after a crash"
    with pytest.raises(Refused, match="already answered"):
        network.admit_invited(claim.id, claim.member(second.public, NOW_S), NOW_S)
    network.revoke(Kind.SITE, "ghr", NOW_S)
    with pytest.raises(Refused, match="already answered"):
        network.admit_invited(claim.id, claim.member(first.public, NOW_S), NOW_S)


def test_who_is_invited_anew_keeps_its_place(network: NetworkFolder) -> None:
    """The roster's first control centre gives bare names, also after it was invited again."""
    keys = {name: SigningKey.generate().public for name in ("root", "domain", "again")}
    members = [
        Member(name=name, kind=Kind.CENTER, public_key=keys[name], until_s=NOW_S + DAY_S)
        for name in ("root", "domain")
    ]
    network.admit(*members, now_s=NOW_S)
    anew = msgspec.structs.replace(members[0], public_key=keys["again"])
    roster = network.admit_invited("1", anew, NOW_S, replace=True)
    centers = [(m.name, m.public_key) for m in roster.members if m.kind is Kind.CENTER]
    assert centers == [("root", keys["again"]), ("domain", keys["domain"])]


def test_a_request_is_good_with_all_its_signatures_only(network: NetworkFolder) -> None:
    root, key, thief = network.root.public, SigningKey.generate(), SigningKey.generate()
    request = answer_invitation(invited(network), key)
    other = answer_invitation(invited(network), thief)
    more = msgspec.structs.replace(
        check_request(request, "clinics", root, NOW_S), roles=(Role.VERIFIER,)
    )
    forged: list[dict[str, object]] = [
        {"public_key": thief.public},
        {"public_key": thief.public, "by_key": other.by_key},
        {"by_once": other.by_once},
        {"by_key": other.by_key},
        {"certificate": "another"},
        {"claim": other.claim},
        {"claim": other.claim, "signature": other.signature},
        {"claim": msgspec.msgpack.encode(more)},
    ]
    for changes in forged:
        with pytest.raises(Corrupt):
            check_request(msgspec.structs.replace(request, **changes), "clinics", root, NOW_S)
    with pytest.raises(Corrupt):
        check_request(request, "clinics", thief.public, NOW_S)
    with pytest.raises(Refused, match="has expired"):
        check_request(request, "clinics", root, GHR.until_s)
    with pytest.raises(Refused, match="for the network clinics"):
        check_request(request, "other", root, NOW_S)


def test_an_invitation_that_another_root_signed_is_not_answered(network: NetworkFolder) -> None:
    forged = invite(GHR, SigningKey.generate(), network.file(), ())
    with pytest.raises(Corrupt):
        answer_invitation(forged, SigningKey.generate())


@given(st.binary(max_size=300))
def test_garbage_is_no_letter(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("letters") / "x"
    path.write_bytes(content)
    with pytest.raises(InvalidInput):
        read_letter(path)


def test_what_is_no_request_for_a_certificate_is_refused(network: NetworkFolder) -> None:
    for text in ("", "garbage", "-----BEGIN CERTIFICATE REQUEST-----\n"):
        with pytest.raises(Corrupt, match="no request for a certificate"):
            Issuer.authority(network.authority).certify(text, site("ghr"))


def test_who_is_revoked_is_gone_and_who_is_unknown_is_named(network: NetworkFolder) -> None:
    network.admit(site("ghr"), site("ninds"), now_s=NOW_S)
    roster = network.revoke(Kind.SITE, "ghr", NOW_S)
    assert {m.name for m in roster.members} == {"me", "ninds"}
    with pytest.raises(NotFound, match="no site ghr") as raised:
        network.revoke(Kind.SITE, "ghr", NOW_S)
    assert "ninds" in raised.value.fix


def test_what_a_later_release_wrote_into_the_roster_is_not_lost(network: NetworkFolder) -> None:
    """Everybody reads it, so that a member that it revokes is revoked everywhere. Whoever would
    write it anew without that says so."""
    known = network.admit(site("ghr"), now_s=NOW_S)
    plain = msgspec.msgpack.decode(canonical(known))
    plain["members"][0]["shifts"] = ["night"]
    text = msgspec.msgpack.encode(plain)
    signed = SignedRoster(roster=text, signature=network.root.sign(b"daitn roster 1\0" + text))
    write_roster(network.path / ROSTER, RosterFile(root=network.root.public, signed=signed))
    assert network.roster() == known
    with pytest.raises(Refused, match="a later release"):
        network.revoke(Kind.SITE, "ghr", NOW_S)
    assert network.file().signed == signed
    del plain["members"][0]["shifts"]
    del plain["members"][0]["hosts"]
    text = msgspec.msgpack.encode(plain)  # Of a release that knew no `hosts`.
    signed = SignedRoster(roster=text, signature=network.root.sign(b"daitn roster 1\0" + text))
    write_roster(network.path / ROSTER, RosterFile(root=network.root.public, signed=signed))
    assert len(network.revoke(Kind.SITE, "ghr", NOW_S).members) == 1


def test_renewing_extends_what_it_names(network: NetworkFolder) -> None:
    before = network.admit(site("ghr"), now_s=NOW_S)
    later_s = NOW_S + 10 * DAY_S
    renewed = network.renew(later_s)
    assert renewed.until_s == before.until_s + 10 * DAY_S
    assert renewed.members == before.members
    longer = network.renew(later_s, roster_days=200, member=(Kind.SITE, "ghr"), member_days=5)
    assert longer.until_s == later_s + 200 * DAY_S
    assert {m.name: m.until_s for m in longer.members}["ghr"] == later_s + 5 * DAY_S


def test_a_member_that_is_there_already_makes_no_new_version(network: NetworkFolder) -> None:
    key = SigningKey.generate()
    before = network.admit(site("ghr", key), now_s=NOW_S)
    later = msgspec.structs.replace(site("ghr", key), until_s=site("ghr").until_s + DAY_S)
    assert network.admit(later, now_s=NOW_S + DAY_S) == before
    late_s = NOW_S + MEMBER_DAYS * DAY_S * 0.6
    due = msgspec.structs.replace(later, until_s=late_s + MEMBER_DAYS * DAY_S)
    assert network.admit(due, now_s=late_s).version == before.version + 1


def test_who_holds_the_root_key_may_be_any_owner_and_nobody_else(
    network: NetworkFolder, tmp_path: Path
) -> None:
    key = own_key(network.path, Kind.OWNER, "acme", NOW_S)
    assert network.roster().current(NOW_S)[key.public].name == "acme"
    assert own_key(network.path, Kind.OWNER, "acme", NOW_S).public == key.public
    for kind in (Kind.OWNER, Kind.OPERATOR):
        with pytest.raises(Refused, match=f"no key of the {kind} acme") as raised:
            own_key(tmp_path / "elsewhere", kind, "acme", NOW_S)
        assert f"`daitn network invite --{kind}-name acme`" in raised.value.fix


def test_no_key_takes_anothers_place_unasked(network: NetworkFolder) -> None:
    first = site("ghr")
    before = network.admit(first, now_s=NOW_S)
    other = site("ghr")
    with pytest.raises(Refused, match="the site ghr is a member with another key") as raised:
        network.admit(other, now_s=NOW_S)
    assert "--replace" in raised.value.fix
    with pytest.raises(Refused, match="another key"):
        network.admit_invited("one", other, NOW_S)
    assert network.roster() == before
    network.admit_invited("one", other, NOW_S, replace=True)
    assert other.public_key in network.roster().current(NOW_S)
    network.admit(first, now_s=NOW_S, replace=True)
    assert first.public_key in network.roster().current(NOW_S)


def test_the_operator_is_no_owner_who_joined(network: NetworkFolder) -> None:
    ann = Member(
        name="ann",
        kind=Kind.OWNER,
        public_key=SigningKey.generate().public,
        until_s=NOW_S + DAY_S,
    )
    before = network.admit(ann, now_s=NOW_S)
    for _ in range(2):  # The first refusal leaves no key that would be used by the second.
        with pytest.raises(Refused, match="ann joined with a key that is not on this machine"):
            own_key(network.path, Kind.OWNER, "ann", NOW_S)
    assert network.roster() == before


def test_a_host_is_one_owners(network: NetworkFolder) -> None:
    def hosted(name: str, owner: str, *hosts: str) -> Member:
        return msgspec.structs.replace(site(name), owner=owner, hosts=hosts)

    network.admit(hosted("gate", "host", "localhost", "gate.example.org"), now_s=NOW_S)
    thief = hosted("mallory", "mallory", "127.0.0.1", "GATE.example.org")
    with pytest.raises(Refused, match="belongs to the site gate"):
        network.admit_invited("one", thief, NOW_S)
    network.admit_invited("two", hosted("east", "mallory", "localhost", "127.0.0.1"), NOW_S)
    network.admit_invited("three", hosted("next", "host", "gate.example.org"), NOW_S)


def test_changes_at_once_are_all_kept(network: NetworkFolder) -> None:
    names = [f"s{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: network.admit(site(name), now_s=NOW_S), names))
    roster = network.roster()
    assert {m.name for m in roster.members} == {"me", *names}
    assert roster.version == 21


class Changes(RuleBasedStateMachine):
    """Whatever an operator does, in whatever order: no version comes twice with another content,
    and none goes back."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        self.network = NetworkFolder.found(Path(self._folder.name) / "n", "clinics", "me", NOW_S)
        self.seen: dict[int, bytes] = {}
        self.highest = 0

    @rule(name=st.sampled_from(["a", "b", "c"]))
    def admit(self, name: str) -> None:
        self.network.admit(site(name), now_s=NOW_S, replace=True)

    @rule(name=st.sampled_from(["a", "b", "me"]), kind=st.sampled_from([Kind.SITE, Kind.OPERATOR]))
    def revoke(self, name: str, kind: Kind) -> None:
        with contextlib.suppress(DaitnError):
            self.network.revoke(kind, name, NOW_S)

    @rule(days=st.floats(min_value=1, max_value=900))
    def renew(self, days: float) -> None:
        self.network.renew(NOW_S, roster_days=days)

    @rule(name=st.sampled_from(["x", "y"]))
    def own(self, name: str) -> None:
        own_key(self.network.path, Kind.OWNER, name, NOW_S)

    @invariant()
    def rises(self) -> None:
        file = self.network.file()
        version = file.opened().version
        assert version >= self.highest
        assert self.seen.setdefault(version, file.signed.roster) == file.signed.roster
        self.highest = version

    def teardown(self) -> None:
        self._folder.cleanup()


TestChanges = Changes.TestCase
