"""`daitn network invite | join | admit`: becoming a member."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from daitn.center.config import CenterConfig
from daitn.cli.founding import admit_local
from daitn.cli.network import read_center, read_network, read_node
from daitn.cli.roster import NetworkOption, TellOption, app, root_folder, tell
from daitn.cli.session import DEFAULT_CENTER, CenterOption, JsonOption, print_json, run, screen
from daitn.files.atomic import make_folder
from daitn.files.yaml_file import read_yaml
from daitn.identity.certificates import Certificates, Issuer, hosts_of, keep, requested
from daitn.identity.invitations import (
    INVITATION_DAYS,
    AdmissionLetter,
    Claim,
    Invitation,
    JoinRequest,
    answer_invitation,
    check_request,
    invite,
    read_letter,
    write_letter,
)
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.network import MEMBER_DAYS, TLS, NetworkFolder, key_path
from daitn.identity.roster import ROSTER, RosterFile, open_roster, read_roster, write_roster
from daitn.node.config import NodeConfig
from daitn.objects.addresses import check_reachable
from daitn.objects.descriptors import Role
from daitn.objects.errors import InvalidInput, Refused
from daitn.objects.identifiers import CENTER_SITE, checked_name, checked_owner
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import to_json
from daitn.tools import clock

__all__ = ["app"]

_JURISDICTION = re.compile("[A-Z]{2}")
"""As in a node's file."""


class _Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a command, as printed by `--json`."""

    kind: Kind
    name: str
    fingerprint: str = ""
    """Fingerprint of the member's key: the new member and the operator see the same one."""
    hosts: tuple[str, ...] = ()
    file: str = ""
    """The file to send."""
    folder: str = ""
    version: int = 0
    """Version of the roster."""


@app.command("invite")
def invite_command(
    site: Annotated[str, typer.Option("--site", help="Invite a site of this name.")] = "",
    role: Annotated[
        list[Role] | None, typer.Option("--role", help="Role that the site may play; repeatable.")
    ] = None,
    owner: Annotated[str, typer.Option("--owner", help="Owner of the site.")] = "",
    jurisdiction: Annotated[
        str, typer.Option("--jurisdiction", help="Jurisdiction of the site, like CA.")
    ] = "",
    owner_name: Annotated[
        str, typer.Option("--owner-name", help="Invite a model owner of this name.")
    ] = "",
    operator_name: Annotated[
        str, typer.Option("--operator-name", help="Invite an operator of this name.")
    ] = "",
    control_center: Annotated[
        bool, typer.Option("--control-center", help="Invite the control centre.")
    ] = False,
    center_name: Annotated[
        str,
        typer.Option(
            "--control-center-name", help="Invite an additional control centre, such as a domain's."
        ),
    ] = "",
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at", help="Endpoint at which the new member reaches the control centre; repeatable."
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=3650, help="Validity of the membership in days.")
    ] = MEMBER_DAYS,
    valid_days: Annotated[
        int,
        typer.Option("--valid-days", min=1, max=365, help="Validity of the invitation in days."),
    ] = INVITATION_DAYS,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The invitation; default NAME.invitation.")
    ] = None,
    network: NetworkOption = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Write an invitation for one new member. Anybody with the file can join: send it in
    confidence.

    Examples:

      daitn network invite --site ghr --role data --role compute --owner nih --jurisdiction US

      daitn network invite --owner-name acme --days 30
    """

    async def work() -> _Done:
        kind, name = _invited(
            site, owner_name, operator_name, center_name or (CENTER_SITE if control_center else "")
        )
        if kind is Kind.SITE:
            _check_site(role, owner, jurisdiction)
        for endpoint in at or ():
            check_reachable("--at", endpoint)
        folder = root_folder(network, center)
        now_s = clock.wall_s()
        claim = Claim(
            network=folder.roster().network,
            id="",
            once="",
            until_s=now_s + valid_days * DAY_S,
            kind=kind,
            name=name,
            roles=tuple(role or ()),
            owner=owner,
            jurisdiction=jurisdiction,
            member_days=days,
        )
        path = out or Path(f"{name}.invitation")
        write_letter(path, invite(claim, folder.root, folder.file(), tuple(at or ())))
        return _Done(kind=kind, name=name, file=str(path))

    done = run(work())
    _say(
        done,
        f"send {done.file} to {done.name}, in confidence; it is good once, for {valid_days} days",
        as_json,
    )


@app.command()
def join(
    file: Annotated[Path, typer.Argument(help="The invitation; then the admission.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="Folder for key, roster and certificate: a site's or control centre's `state`, an "
            "owner's DAITN_NETWORK. Default: state/NAME, or NAME for owners and operators.",
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            help="Name or IP address by which others reach this machine, for its certificate; "
            "repeatable. Default: localhost.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The request; default NAME.request.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Join a network, in two steps, on the new member's machine.

    With an invitation: make the key, and write a request for the operator, who answers it with
    `daitn network admit`. With the admission that the operator sends back: keep the roster and the
    certificate. The private keys never leave the folder.

    Examples:

      daitn network join ghr.invitation --to state/ghr --host ghr.example.org

      daitn network join ghr.admission --to state/ghr
    """

    async def work() -> tuple[_Done, str]:
        letter = read_letter(file)
        if isinstance(letter, Invitation):
            done = _answer(letter, to, host or ["localhost"], out)
            return done, (
                f"send {done.file} to the operator, who admits it; the key has the fingerprint "
                f"{done.fingerprint}"
            )
        if isinstance(letter, AdmissionLetter):
            done = _enter(letter, to)
            return done, f"{done.name} is a member; all that it needs is in {done.folder}"
        raise InvalidInput(
            f"{file} is a request", field="FILE", fix="send it to the operator, who admits it"
        )

    _say(*run(work()), as_json)


@app.command()
def admit(
    file: Annotated[
        Path,
        typer.Argument(help="The request; or a node, centre or network file of this machine."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The admission; default NAME.admission.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            help="For a file: additional name or IP address by which others reach the processes; "
            "repeatable.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace the member's current key, which then becomes worthless.",
        ),
    ] = False,
    network: NetworkOption = None,
    to: TellOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Admit the answer to an invitation, or the processes of a file on this machine.

    Compare the fingerprint with the new member before you send the admission back.

    Examples:

      daitn network admit ghr.request

      daitn network admit node.yaml
    """

    async def work() -> tuple[_Done, str]:
        folder = root_folder(network, center)
        if file.suffix in (".yaml", ".yml"):
            configs = _described(file)
            admit_local(folder, *configs, hosts=host or (), replace=replace)
            done = _Done(
                kind=Kind.CENTER if isinstance(configs[0], CenterConfig) else Kind.SITE,
                name=", ".join(c.name if isinstance(c, CenterConfig) else c.site for c in configs),
                version=folder.roster().version,
            )
            words = f"{done.name} belongs to the network: roster {done.version}"
        else:
            done = _admitted(folder, file, out, replace=replace)
            words = (
                f"{done.kind} {done.name} belongs to the network: roster {done.version}. Its key "
                f"has the fingerprint {done.fingerprint}, its certificate is for "
                f"{', '.join(done.hosts) or 'no host'}. Send {done.file} back"
            )
        await tell(folder, to)
        return done, words

    _say(*run(work()), as_json)


def _invited(site: str, owner: str, operator: str, center: str) -> tuple[Kind, str]:
    stated = [
        (Kind.SITE, site, "--site"),
        (Kind.OWNER, owner, "--owner-name"),
        (Kind.OPERATOR, operator, "--operator-name"),
        (Kind.CENTER, center, "--control-center"),
    ]
    found = [one for one in stated if one[1]]
    if len(found) != 1:
        raise InvalidInput(
            "an invitation is for one member",
            field="--site",
            fix="state one of --site, --owner-name, --operator-name, --control-center and "
            "--control-center-name",
        )
    ((kind, name, option),) = found
    if kind is not Kind.CENTER and name == CENTER_SITE:
        raise InvalidInput(
            f"{name} is the control centre's name", field=option, fix="use another name"
        )
    return kind, checked_name(name, option)


def _check_site(roles: list[Role] | None, owner: str, jurisdiction: str) -> None:
    for option, given in (("--role", roles), ("--owner", owner), ("--jurisdiction", jurisdiction)):
        if not given:
            raise InvalidInput(
                f"a site needs {option}", field=option, fix="state what the site's file says"
            )
    checked_owner(owner, "--owner")
    if not _JURISDICTION.fullmatch(jurisdiction):
        raise InvalidInput(
            f"{jurisdiction!r} is not a jurisdiction",
            field="--jurisdiction",
            fix="use the two capital letters of a country, such as CA",
        )


def _answer(invitation: Invitation, to: Path | None, hosts: list[str], out: Path | None) -> _Done:
    claim = invitation.read()
    folder = to or _default_folder(claim.kind, claim.name)
    _keep_roster(folder, invitation.roster)
    key = SigningKey.at(_member_key(folder, claim.kind, claim.name))
    request = answer_invitation(invitation, key, requested(folder / TLS, hosts))
    path = out or Path(f"{claim.name}.request")
    write_letter(path, request)
    return _Done(
        kind=claim.kind,
        name=claim.name,
        fingerprint=key_mark(key.public),
        hosts=tuple(hosts),
        file=str(path),
        folder=str(folder),
    )


def _admitted(folder: NetworkFolder, file: Path, out: Path | None, *, replace: bool) -> _Done:
    request = read_letter(file)
    if not isinstance(request, JoinRequest):
        raise InvalidInput(
            f"{file} is not a request",
            field="FILE",
            fix="name the file that `daitn network join` made",
        )
    now_s = clock.wall_s()
    claim = check_request(request, folder.roster().network, folder.root.public, now_s)
    hosts = hosts_of(request.certificate)
    authority = Issuer.authority(folder.authority)
    member = claim.member(request.public_key, now_s, hosts)
    issued = authority.certify(request.certificate, member)
    roster = folder.admit_invited(claim.id, member, now_s, replace=replace)
    path = out or Path(f"{claim.name}.admission")
    write_letter(
        path,
        AdmissionLetter(
            public_key=request.public_key,
            roster=folder.file(),
            authority=issued.authority,
            membership=issued.membership,
            issuer=authority.delegate(member) if member.kind is Kind.CENTER else "",
        ),
    )
    return _Done(
        kind=claim.kind,
        name=claim.name,
        fingerprint=key_mark(request.public_key),
        hosts=hosts,
        file=str(path),
        version=roster.version,
    )


def _enter(admission: AdmissionLetter, to: Path | None) -> _Done:
    member = _own(admission)
    folder = to or _default_folder(member.kind, member.name)
    path = _member_key(folder, member.kind, member.name)
    if not path.exists() or SigningKey.at(path).public != member.public_key:
        raise Refused(
            f"the admission is of a key that is not in {folder}",
            field="--to",
            fix="name the folder that the invitation was answered with",
        )
    roster = _keep_roster(folder, admission.roster)
    # It requests a current certificate when it first connects.
    entry = Certificates(admission.authority, admission.membership, admission.membership)
    keep(folder / TLS, entry, issuer=admission.issuer)
    return _Done(
        kind=member.kind,
        name=member.name,
        fingerprint=key_mark(member.public_key),
        folder=str(folder),
        version=roster.opened().version,
    )


def _own(admission: AdmissionLetter) -> Member:
    for member in admission.roster.opened().members:
        if member.public_key == admission.public_key:
            return member
    raise Refused(
        "the admission's roster does not have its key",
        field="FILE",
        fix="have the operator admit the request again",
    )


def _keep_roster(folder: Path, file: RosterFile) -> RosterFile:
    """Write a roster to a member's folder unless it has a newer one; returns the stored one."""
    path = folder / ROSTER
    known = read_roster(path) if path.exists() else None
    if known is not None and known.root != file.root:
        raise Refused(
            f"{folder} belongs to another network", field="--to", fix="name another folder"
        )
    roster = open_roster(file.signed, file.root, clock.wall_s())
    if known is not None and known.opened().version >= roster.version:
        return known
    make_folder(folder)
    write_roster(path, file)
    return file


def _default_folder(kind: Kind, name: str) -> Path:
    match kind:
        case Kind.SITE:
            return Path("state") / name
        case Kind.CENTER:
            return Path(CenterConfig().state if name == CENTER_SITE else f"state/{name}")
    return Path(name)


def _member_key(folder: Path, kind: Kind, name: str) -> Path:
    """A process has its key in its state folder; people have theirs by name."""
    return folder / "key" if kind in (Kind.SITE, Kind.CENTER) else key_path(folder, kind, name)


def _described(file: Path) -> list[CenterConfig | NodeConfig]:
    """The processes that a file describes."""
    plain = read_yaml(file, "file")
    if isinstance(plain, dict) and "nodes" in plain:
        center, nodes = read_network(file)
        return [*([center] if plain.get("center") else []), *nodes]
    if isinstance(plain, dict) and "site" in plain:
        return [read_node(file, "")]
    return [read_center(file)]


def _say(done: _Done, words: str, as_json: bool) -> None:
    if as_json:
        print_json(to_json(done))
    else:
        screen.print(words, soft_wrap=True, markup=False, highlight=False)
