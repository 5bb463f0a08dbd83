"""The deployment service: stores the desired deployments and reconciles facilities with them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from daitn.center.backoff import Backoff
from daitn.center.names import PLACE_LASTS_S, BareNames
from daitn.center.placement import placement
from daitn.center.published import PublishedModels
from daitn.control.placement.reconcile import (
    Deploy,
    Retire,
    answers,
    chosen_places,
    deployed_at,
    hindrance,
    next_steps,
)
from daitn.identity.grants import GrantBook
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState, standing_of
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import DaitnError, InvalidInput, NotFound, Refused, Unreachable
from daitn.objects.grants import Signed, full_name
from daitn.objects.identifiers import Digest, JobId, SiteId, checked_name
from daitn.objects.messages import DeployModel, NameAnswer, NameQuestion, RetireModel, Serving
from daitn.objects.models import ModelRef
from daitn.objects.placement import (
    DeployIntent,
    DeploymentList,
    DeploymentView,
    DesiredDeployment,
    PlacementView,
    PlaceView,
    RetireIntent,
)
from daitn.objects.queries import AUTO
from daitn.objects.wire import decode, encode, encode_request
from daitn.tools.entitled import check_grant, check_latest
from daitn.tools.fabric import keys
from daitn.tools.fabric.caller import caller, check_owner, no_such, visible
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.journal.protocol import Journal
from daitn.tools.membership import Membership
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog

__all__ = ["DeploymentService"]

log = logging.getLogger(__name__)

RECONCILE_EVERY_S = 0.5
ASK_AGAIN_S = 5.0
"""A facility has this long to report progress before it is asked again."""
ASK_TIMEOUT_S = 5.0
OPTIMISE_EVERY_S = 30.0
_KIND = "deployment"


class DeploymentService:
    """Stores operators' intents in the journal, and reconciles facilities with them."""

    def __init__(
        self,
        fabric: Fabric,
        journal: Journal,
        published: PublishedModels,
        membership: Membership,
        qrrt: QrrtFeed,
        grants: GrantBook | None = None,
        names: BareNames | None = None,
    ) -> None:
        """`grants` checks what owners signed, `names` signs bare names and places; none in a
        network without a roster."""
        self._grants = grants
        self._names = names
        self._fabric = fabric
        self._journal = journal
        self._published = published
        self._membership = membership
        self._qrrt = qrrt
        self._desired: dict[str, DesiredDeployment] = {}
        self._retired: set[str] = set()
        """Names of retired deployments: a facility that was away may still host them."""
        self._free_bytes: dict[SiteId, int] = {}
        self._backoff = Backoff()
        self._asked_at_s: dict[tuple[str, SiteId, str], float] = {}
        self._problems: dict[tuple[str, SiteId], str] = {}
        self._placed_at_s: dict[tuple[str, SiteId], float] = {}
        """When a place was last signed (monotonic), if a control centre chooses it."""
        self._optimised_at_s = 0.0
        self._changed: Callable[[str], None] = lambda name: None
        self._tasks = Tasks()
        self._dropped = ThrottledLog(log)
        self._subscription: Registration | None = None

    async def start(self) -> None:
        """Load the desired deployments and start to reconcile."""
        for name, stored in self._journal.all(_KIND).items():
            desired = decode(stored, DesiredDeployment)
            if desired.why == _RETIRED:
                self._retired.add(name)
            else:
                self._desired[name] = desired
        for site in {site for desired in self._desired.values() for site in desired.places}:
            # Connected facilities appear within moments; until then, no place is chosen again.
            self._backoff.seen(site, time.monotonic())
        self._subscription = await self._fabric.subscribe(keys.ALL_SERVING, self._on_serving)
        self._tasks.repeat(self._reconcile, "deployments")

    async def close(self) -> None:
        await self._tasks.close()
        if self._subscription is not None:
            await self._subscription.close()

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call `changed` with the name of each deployment, and again whenever it is placed, fails
        to be, or is retired. What facilities report of it is in their descriptors."""
        self._changed = changed
        for name in self._desired:
            changed(name)

    def models(self) -> frozenset[Digest]:
        """Weights that facilities may still fetch."""
        return frozenset(desired.model.manifest for desired in self._desired.values())

    def deploy(self, intent: DeployIntent) -> DeploymentView:
        """Accept an intent; it is on disk when this returns.

        Raises `NotFound` for an unknown model or facility, `InvalidInput` for a reserved or
        malformed name, `Refused` if the model learned nothing, no facility may host it now, or the
        caller may not.
        """
        model = self._published.of(JobId(intent.model))
        if model is None or not visible(model.owner):  # A job publishes its model when it ends.
            raise no_such("trained model", intent.model, field="model", see="daitn get models")
        if model.untrained:
            raise Refused(
                f"no visit of its job improved {intent.model}",
                field="model",
                fix="see its job in `daitn get jobs`; train it longer, or on other data",
            )
        name = checked_name(intent.name or intent.model, "name")
        if name == AUTO:
            raise InvalidInput(
                f"{AUTO} means any model", field="name", fix="use another name, see `--as`"
            )
        intent = msgspec.structs.replace(intent, to=tuple(dict.fromkeys(intent.to)))
        before = self._desired.get(name)
        if before is not None:
            check_owner(before.model.owner, f"the deployment {name}")
            if before.model.owner != model.owner:
                raise Refused(
                    f"{before.model.owner} has deployed a model as {name}",
                    field="name",
                    fix="use another name, see `--as`",
                )
        desired = DesiredDeployment(
            name=name, intent=intent, model=model, places=before.places if before else ()
        )
        self._check(desired)
        if self._grants is not None:
            desired = self._granted(desired, self._grants)
        self._store(self._with_places(desired))
        return self.view(name)

    def _granted(self, desired: DesiredDeployment, grants: GrantBook) -> DesiredDeployment:
        """Check what the model's owner signed, and assign it the bare name if that is free."""
        model, signed = desired.model, desired.intent.grant
        grant = check_grant(
            grants, signed, model.owner, desired.name, model.manifest, desired.terms
        )
        if set(grant.sites) != set(desired.intent.to):
            raise Refused(
                f"{model.owner} signed for other facilities",
                field="to",
                fix="deploy it with its owner's key: `daitn deploy`",
            )
        if (stored := self._journal.get(_KIND, desired.name)) is not None:
            before = decode(stored, DesiredDeployment)
            check_latest(grant, before.intent.grant, retired=before.why == _RETIRED)
        name_grant = None
        try:
            name_grant = self._bare_name(model.owner, desired.name, grant.until_s)
        except Refused as error:
            log.warning("%s: %s", desired.name, error)
        return msgspec.structs.replace(desired, name_grant=name_grant)

    def _bare_name(self, owner: str, name: str, until_s: float = 0.0) -> Signed | None:
        """Assign a bare name; see `BareNames.give`. Raises `Refused` also if another control centre
        assigns them."""
        if self._names is None:
            return None
        first = self._grants.naming() if self._grants else None
        if first is not None and first.public_key != self._names.key.public:
            raise Refused(
                f"{first.name} assigns the bare names of this network",
                field="name",
                fix=f"queries find it as {full_name(owner, name)}",
            )
        return self._names.give(owner, name, until_s)

    async def on_deploy(self, key: str, payload: bytes) -> bytes:
        """`DeployIntent` -> `DeploymentView`: deploy a trained model."""
        return encode(self.deploy(decode(payload, DeployIntent)))

    async def on_retire(self, key: str, payload: bytes) -> bytes:
        """`RetireIntent` -> `DeploymentView`: retire a deployment."""
        return encode(self.retire(decode(payload, RetireIntent)))

    async def on_deployments(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `DeploymentList`: every desired deployment and its state at facilities."""
        return encode(self.all())

    async def on_placement(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `PlacementView`: what the deployment optimiser would now change."""
        return encode(await self.placement())

    async def on_name(self, key: str, payload: bytes) -> bytes:
        """`NameQuestion` -> `NameAnswer`: assign a bare name to a model that a facility's owner
        offers."""
        name, asker = decode(payload, NameQuestion).name, caller()
        if self._names is None or asker is None:
            return encode(NameAnswer())
        if Role.FACILITY not in asker.roles:
            raise Refused(f"{asker.name} is not a facility", field="role")
        if name in self._desired and self._desired[name].model.owner != asker.owner:
            raise Refused(f"the name {name} is {self._desired[name].model.owner}'s", field="name")
        return encode(NameAnswer(grant=self._bare_name(asker.owner, name)))

    def retire(self, intent: RetireIntent) -> DeploymentView:
        """Retire a deployment, everywhere or at one facility. Raises `NotFound`, `InvalidInput`,
        `Refused`."""
        desired = self._desired.get(intent.name)
        if desired is None:
            raise NotFound(
                f"there is no deployment {intent.name}", field="name", fix="see `daitn get models`"
            )
        check_owner(desired.model.owner, f"the deployment {intent.name}")
        left = tuple(site for site in desired.places if site != intent.site)
        if intent.site is not None and left == desired.places:
            raise InvalidInput(
                f"{intent.name} is not deployed at {intent.site}",
                field="site",
                fix=f"use one of: {', '.join(desired.places) or 'none'}",
            )
        if intent.site is None or not left:
            self._forget(intent.name)
            left = ()
        else:
            to = msgspec.structs.replace(desired.intent, to=left)
            self._store(msgspec.structs.replace(desired, intent=to, places=left))
        return self._view(msgspec.structs.replace(desired, places=left))

    def view(self, name: str) -> DeploymentView:
        return self._view(self._desired[name])

    def current(self, name: str) -> DeploymentView | None:
        """Like `view`; none if there is no such deployment."""
        return self.view(name) if name in self._desired else None

    def at(self, site: SiteId) -> tuple[str, ...]:
        """Names of the deployments that are, or should be, at a facility."""
        node = self._membership.node(site)
        return tuple(
            name
            for name, desired in self._desired.items()
            if site in desired.places or (node is not None and deployed_at(node, name) is not None)
        )

    def all(self) -> DeploymentList:
        """Every desired deployment, by name."""
        return DeploymentList(
            deployments=tuple(self._view(desired) for _, desired in sorted(self._desired.items()))
        )

    async def placement(self) -> PlacementView:
        """The optimiser's current changes to the deployments left to it."""
        free_bytes = self._room(self._facilities())
        return await asyncio.to_thread(
            placement, dict(self._desired), self._qrrt.snapshot(), free_bytes
        )

    def _check(self, desired: DesiredDeployment) -> None:
        nodes = {node.site: node for node in self._facilities()}
        for position, site in enumerate(desired.intent.to):
            if site not in nodes:
                raise NotFound(
                    f"no facility {site} is connected",
                    field=f"to[{position}]",
                    fix=f"use one of: {', '.join(sorted(nodes)) or 'none is connected'}",
                )
            problem = _barred(nodes[site]) or hindrance(desired.model, nodes[site], None)
            if problem:
                raise Refused(problem, field=f"to[{position}]", fix="choose another facility")
        if desired.intent.to:
            return
        problems = [
            _barred(node) or hindrance(desired.model, node, None) for node in nodes.values()
        ]
        if all(problems):
            reasons = "; ".join(problems) or "none is connected"
            raise Refused(
                f"no facility may host {desired.model.name}: {reasons}",
                field="model",
                fix="start a facility that may host it, see `daitn get facilities`",
            )

    def _with_places(self, desired: DesiredDeployment) -> DesiredDeployment:
        now_s = time.monotonic()
        avoided = self._backoff.avoided(desired.name, now_s)
        nodes = [node for node in self._facilities() if node.site not in avoided]
        away = self._backoff.recently_seen(now_s) - avoided
        places = chosen_places(desired, nodes, self._room(nodes, desired.name), away)
        why = desired.why if places == desired.places else ""
        if desired.intent.to:
            why = why or "chosen by its operator"
        elif not places:
            why = "no facility that may host it has enough free memory"
        return msgspec.structs.replace(desired, places=places, why=why or "the most free memory")

    def _room(self, nodes: Iterable[NodeDescriptor], ignored: str = "") -> dict[SiteId, int]:
        """Free bytes per facility after all pending placements, except for deployment `ignored`."""
        room = {}
        for node in nodes:
            assert node.facility is not None
            hosted = sum(d.size_bytes for d in node.facility.deployments)
            free = self._free_bytes.get(node.site, node.facility.memory_bytes - hosted)
            pending = sum(
                desired.model.size_bytes
                for desired in self._desired.values()
                if desired.name != ignored
                and node.site in desired.places
                and deployed_at(node, desired.name) is None
            )
            room[node.site] = max(0, free - pending)
        return room

    def _store(self, desired: DesiredDeployment) -> None:
        self._journal.put(_KIND, desired.name, encode(desired))
        self._desired[desired.name] = desired
        self._changed(desired.name)

    def _forget(self, name: str) -> None:
        # The journal cannot delete, so a record marks the deployment as retired.
        retired = msgspec.structs.replace(self._desired[name], places=(), why=_RETIRED)
        self._journal.put(_KIND, name, encode(retired))
        del self._desired[name]
        self._retired.add(name)
        self._problems = {of: why for of, why in self._problems.items() if of[0] != name}
        self._changed(name)

    def _facilities(self) -> tuple[NodeDescriptor, ...]:
        return tuple(node for node in self._membership.nodes() if node.facility is not None)

    async def _reconcile(self) -> None:
        await asyncio.sleep(RECONCILE_EVERY_S)
        self._observe()
        self._replace()
        self._request_steps()
        if time.monotonic() - self._optimised_at_s >= OPTIMISE_EVERY_S:
            self._optimised_at_s = time.monotonic()
            await self._optimise()

    def _observe(self) -> None:
        """Note which facilities are connected, and which fail to load a deployment."""
        now_s = time.monotonic()
        for node in self._facilities():
            self._backoff.seen(node.site, now_s)
            for desired in self._desired.values():
                found = deployed_at(node, desired.name)
                failing = found is not None and found.state is DeploymentState.FAILED
                self._backoff.load_reported(desired.name, node.site, failing, now_s)

    def _replace(self) -> None:
        """Choose other places if a chosen facility is lost or refuses."""
        for desired in tuple(self._desired.values()):
            placed = self._with_places(desired)
            if placed.places != desired.places:
                log.info(
                    "%s is placed at %s", desired.name, ", ".join(placed.places) or "no facility"
                )
                self._store(placed)

    async def _optimise(self) -> None:
        """Apply the optimiser's changes to deployments with automatic replicas."""
        planned_for = dict(self._desired)
        if not any(desired.intent.automatic for desired in planned_for.values()):
            return
        moved: dict[str, DesiredDeployment] = {}
        for change in (await self.placement()).changes:
            desired = moved.get(change.name, planned_for[change.name])
            places = tuple(site for site in desired.places if site != change.site)
            if change.add:
                places = (*places, change.site)
            moved[change.name] = msgspec.structs.replace(desired, places=places, why=change.why)
        for name, desired in moved.items():
            # An operator's change meanwhile takes precedence over the plan.
            if desired.places and self._desired.get(name) == planned_for[name]:
                log.info("%s is placed at %s: %s", name, ", ".join(desired.places), desired.why)
                self._store(desired)

    def _request_steps(self) -> None:
        since_s = time.monotonic() - ASK_AGAIN_S
        self._asked_at_s = {what: at_s for what, at_s in self._asked_at_s.items() if at_s > since_s}
        nodes = self._facilities()
        for step in (*next_steps(self._desired, self._retired, nodes), *self._to_renew(nodes)):
            name = step.desired.name if isinstance(step, Deploy) else step.name
            what = step.desired.model.manifest if isinstance(step, Deploy) else "retire"
            if (name, step.site, what) in self._asked_at_s:
                continue
            self._asked_at_s[name, step.site, what] = time.monotonic()
            # A slow facility must not delay the others.
            self._tasks.anew((name, step.site), self._ask(step, name), f"ask {step.site}")

    def _to_renew(self, nodes: Iterable[NodeDescriptor]) -> Iterator[Deploy]:
        """Places whose signature has reached half of its lifetime, if the model answers."""
        since_s = time.monotonic() - PLACE_LASTS_S / 2
        live = {node.site: node for node in nodes}
        for desired in self._desired.values() if self._names is not None else ():
            for site in () if desired.intent.to else desired.places:
                if (
                    site in live
                    and answers(live[site], desired)
                    and self._placed_at_s.get((desired.name, site), -math.inf) <= since_s
                ):
                    yield Deploy(desired, site)

    async def _ask(self, step: Deploy | Retire, name: str) -> None:
        asked_at_s = time.monotonic()
        if isinstance(step, Deploy):
            verb, payload = "deploy", encode_request(self._deploy_request(step))
        else:
            verb, payload = "retire", encode_request(RetireModel(name=step.name))
        try:
            key = keys.site_do(step.site, verb)
            await self._fabric.request(key, payload, timeout_s=ASK_TIMEOUT_S)
            self._note_problem(name, step.site, "")
            if isinstance(step, Deploy):
                self._placed_at_s[name, step.site] = asked_at_s
            else:
                self._placed_at_s.pop((name, step.site), None)
            self._backoff.accepted(name, step.site)
        except DaitnError as error:
            log.warning("%s did not %s %s: %s", step.site, verb, name, error)
            self._note_problem(name, step.site, error.problem)
            if isinstance(step, Deploy) and not isinstance(error, Unreachable):
                self._backoff.refused(name, step.site, time.monotonic())

    def _note_problem(self, name: str, site: SiteId, problem: str) -> None:
        """Why a facility did not do what it was asked; empty: it did."""
        if problem == self._problems.get((name, site), ""):
            return
        if problem:
            self._problems[name, site] = problem
        else:
            del self._problems[name, site]
        self._changed(name)

    def _deploy_request(self, step: Deploy) -> DeployModel:
        desired = step.desired
        model, intent = desired.model, desired.intent
        place = None
        if self._names is not None and not intent.to:
            place = self._names.place(model.owner, desired.name, model.manifest, step.site)
        return DeployModel(
            name=desired.name,
            owner=model.owner,
            recipe=model.recipe,
            config=model.config,
            model=ModelRef(
                manifest=model.manifest, size_bytes=model.size_bytes, holders=model.holders
            ),
            policy=desired.terms.policy,
            evidence=model.evidence,
            price_usd_per_1k_in=intent.price_usd_per_1k_in,
            price_usd_per_1k_out=intent.price_usd_per_1k_out,
            grant=intent.grant,
            name_grant=desired.name_grant,
            place_grant=place,
        )

    async def _on_serving(self, key: str, payload: bytes) -> None:
        try:
            serving = decode(payload, Serving)
            if serving.site == keys.site_of(key):
                self._free_bytes[serving.site] = serving.memory_free_bytes
        except DaitnError as error:
            self._dropped.warning(key, "the serving report at %s was rejected: %s", key, error)

    def _view(self, desired: DesiredDeployment) -> DeploymentView:
        nodes = {node.site: node for node in self._membership.nodes()}
        found = {
            site: deployed
            for site, node in nodes.items()
            if (deployed := deployed_at(node, desired.name)) is not None
        }
        sites = sorted({*desired.places, *found})
        return DeploymentView(
            name=desired.name,
            model=desired.model.name,
            replicas=len(desired.places),
            places=tuple(
                self._place(desired, site, nodes.get(site), found.get(site)) for site in sites
            ),
            why=desired.why,
        )

    def _place(
        self,
        desired: DesiredDeployment,
        site: SiteId,
        node: NodeDescriptor | None,
        found: DeploymentDescriptor | None,
    ) -> PlaceView:
        current = found is not None and found.manifest == desired.model.manifest
        state = found.state if found is not None and current else None
        cordon = node.cordon if node else None
        return PlaceView(
            site=site,
            state=state,
            wanted=site in desired.places,
            detail=self._problems.get((desired.name, site), ""),
            standing=standing_of(
                state or "asked",
                None if cordon is msgspec.UNSET else cordon,
                alive=node is not None,
            ),
        )


def _barred(node: NodeDescriptor) -> str:
    """Why a facility takes no new deployments; empty if it does."""
    return f"{node.site} {node.cordon}" if node.cordon else ""


_RETIRED = "retired"
"""`why` in the journal's record of a retired deployment."""
