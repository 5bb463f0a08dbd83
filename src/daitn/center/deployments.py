"""The deployment service: what is to answer where is kept, and made so again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

import msgspec

from daitn.center.backoff import Backoff
from daitn.center.placement import placement
from daitn.control.placement.reconcile import (
    Place,
    Retire,
    chosen_places,
    deployed_at,
    hindrance,
    next_steps,
)
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState, ModelPolicy
from daitn.objects.descriptors import ModelDescriptor, NodeDescriptor
from daitn.objects.errors import DaitnError, InvalidInput, NotFound, Refused, Unreachable
from daitn.objects.identifiers import Digest, SiteId, checked_name
from daitn.objects.messages import DeployModel, RetireModel, Serving
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
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.journal.protocol import Journal
from daitn.tools.membership import Membership
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.tools.tasks import Tasks

__all__ = ["DeploymentService"]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
ASK_AGAIN_S = 5.0
"""A facility that was asked has so long to tell that it is at work."""
ASK_TIMEOUT_S = 5.0
OPTIMISE_EVERY_S = 30.0
TROUBLE_PAUSE_S = 5.0
"""After an error that nobody foresaw, so that it does not fill the log."""
_KIND, _MODEL_KIND = "deployment", "model"


class DeploymentService:
    """Keeps what operators wish in the journal, and facilities in line with it."""

    def __init__(
        self, fabric: Fabric, journal: Journal, membership: Membership, qrrt: QrrtFeed
    ) -> None:
        self._fabric = fabric
        self._journal = journal
        self._membership = membership
        self._qrrt = qrrt
        self._desired: dict[str, DesiredDeployment] = {}
        self._retired: set[str] = set()
        """Names that were desired once: a facility that was away may still have them."""
        self._free_bytes: dict[SiteId, int] = {}
        self._backoff = Backoff()
        self._asked_at_s: dict[tuple[str, SiteId, str], float] = {}
        self._trouble: dict[tuple[str, SiteId], str] = {}
        self._optimised_at_s = 0.0
        self._tasks = Tasks()
        self._serving: Registration | None = None

    async def start(self) -> None:
        """Read back what is wished, and go on with it."""
        for name, kept in self._journal.all(_KIND).items():
            wish = decode(kept, DesiredDeployment)
            if wish.why == _GONE:
                self._retired.add(name)
            else:
                self._desired[name] = wish
        for site in {site for wish in self._desired.values() for site in wish.places}:
            # Who is there shows within moments; until then nothing is chosen anew.
            self._backoff.there(site, time.monotonic())
        self._serving = await self._fabric.subscribe(keys.ALL_SERVING, self._on_serving)
        self._tasks.spawn(self._look_for_ever(), "deployments")

    async def close(self) -> None:
        await self._tasks.close()
        if self._serving is not None:
            await self._serving.close()

    def models(self) -> frozenset[Digest]:
        """Weights that facilities may still ask for."""
        return frozenset(wish.model.manifest for wish in self._desired.values())

    def deploy(self, intent: DeployIntent) -> DeploymentView:
        """Take a wish; it is on disk when this returns.

        Raises `NotFound` for an unknown model or facility, `InvalidInput` for a name that cannot be
        used, `Refused` where no facility may host it now.
        """
        kept = self._journal.get(_MODEL_KIND, intent.model)
        if kept is None:
            raise NotFound(
                f"there is no trained model {intent.model}",
                field="model",
                fix="see `daitn get models`; a model is there when its job has ended",
            )
        model = decode(kept, ModelDescriptor)
        name = checked_name(intent.name or intent.model, "name")
        if name == AUTO:
            raise InvalidInput(
                f"{AUTO} means any model", field="name", fix="use another name, see `--as`"
            )
        intent = msgspec.structs.replace(intent, to=tuple(dict.fromkeys(intent.to)))
        before = self._desired.get(name)
        wish = DesiredDeployment(
            name=name, intent=intent, model=model, places=before.places if before else ()
        )
        self._check(wish)
        self._keep(self._placed(wish))
        return self.view(name)

    def retire(self, intent: RetireIntent) -> DeploymentView:
        """Take a wish back, everywhere or at one facility. Raises `NotFound`, `InvalidInput`."""
        wish = self._desired.get(intent.name)
        if wish is None:
            raise NotFound(
                f"there is no deployment {intent.name}", field="name", fix="see `daitn get models`"
            )
        left = tuple(site for site in wish.places if site != intent.site)
        if intent.site is not None and left == wish.places:
            raise InvalidInput(
                f"{intent.name} is not to be at {intent.site}",
                field="site",
                fix=f"use one of: {', '.join(wish.places) or 'none'}",
            )
        if intent.site is None or not left:
            self._forget(intent.name)
            left = ()
        else:
            to = msgspec.structs.replace(wish.intent, to=left)
            self._keep(msgspec.structs.replace(wish, intent=to, places=left))
        return self._view(msgspec.structs.replace(wish, places=left))

    def view(self, name: str) -> DeploymentView:
        return self._view(self._desired[name])

    def all(self) -> DeploymentList:
        """Every deployment that is wished, by name."""
        return DeploymentList(
            deployments=tuple(self._view(wish) for _, wish in sorted(self._desired.items()))
        )

    async def placement(self) -> PlacementView:
        """What the optimiser would change now, of what is left to it."""
        free_bytes = self._room(self._facilities())
        return await asyncio.to_thread(
            placement, dict(self._desired), self._qrrt.snapshot(), free_bytes
        )

    def _check(self, wish: DesiredDeployment) -> None:
        nodes = {node.site: node for node in self._facilities()}
        for position, site in enumerate(wish.intent.to):
            if site not in nodes:
                raise NotFound(
                    f"there is no facility {site} now",
                    field=f"to[{position}]",
                    fix=f"use one of: {', '.join(sorted(nodes)) or 'none is there'}",
                )
            problem = hindrance(wish.model, nodes[site], None)
            if problem:
                raise Refused(problem, field=f"to[{position}]", fix="choose another facility")
        if wish.intent.to:
            return
        problems = [hindrance(wish.model, node, None) for node in nodes.values()]
        if all(problems):
            reasons = "; ".join(problems) or "none is there"
            raise Refused(
                f"no facility may host {wish.model.name}: {reasons}",
                field="model",
                fix="start a facility that may, see `daitn get facilities`",
            )

    def _placed(self, wish: DesiredDeployment) -> DesiredDeployment:
        now_s = time.monotonic()
        avoided = self._backoff.avoided(wish.name, now_s)
        nodes = [node for node in self._facilities() if node.site not in avoided]
        away = self._backoff.away(now_s) - avoided
        places = chosen_places(wish, nodes, self._room(nodes, wish.name), away)
        why = wish.why if places == wish.places else ""
        if wish.intent.to:
            why = why or "as its operator says"
        elif not places:
            why = "no facility that may host it has room"
        return msgspec.structs.replace(wish, places=places, why=why or "where there is most room")

    def _room(self, nodes: Iterable[NodeDescriptor], but: str = "") -> dict[SiteId, int]:
        """Bytes left per facility, what it is still to take off; `but`: a wish left aside."""
        room = {}
        for node in nodes:
            assert node.facility is not None
            there = sum(d.size_bytes for d in node.facility.deployments)
            free = self._free_bytes.get(node.site, node.facility.memory_bytes - there)
            coming = sum(
                wish.model.size_bytes
                for wish in self._desired.values()
                if wish.name != but
                and node.site in wish.places
                and deployed_at(node, wish.name) is None
            )
            room[node.site] = max(0, free - coming)
        return room

    def _keep(self, wish: DesiredDeployment) -> None:
        self._journal.put(_KIND, wish.name, encode(wish))
        self._desired[wish.name] = wish

    def _forget(self, name: str) -> None:
        # The journal has no deletion: a record that says nothing is none.
        gone = msgspec.structs.replace(self._desired[name], places=(), why=_GONE)
        self._journal.put(_KIND, name, encode(gone))
        del self._desired[name]
        self._retired.add(name)
        self._trouble = {of: why for of, why in self._trouble.items() if of[0] != name}

    def _facilities(self) -> tuple[NodeDescriptor, ...]:
        return tuple(node for node in self._membership.nodes() if node.facility is not None)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self._look()
                self._replace()
                self._carry_out()
                if time.monotonic() - self._optimised_at_s >= OPTIMISE_EVERY_S:
                    self._optimised_at_s = time.monotonic()
                    await self._optimise()
            except Exception:
                # One wish that cannot be dealt with must not keep the others from being.
                log.exception("deployments are not what they should be")
                await asyncio.sleep(TROUBLE_PAUSE_S)

    def _look(self) -> None:
        """Note who is there, and who fails at what is wished."""
        now_s = time.monotonic()
        for node in self._facilities():
            self._backoff.there(node.site, now_s)
            for wish in self._desired.values():
                found = deployed_at(node, wish.name)
                failing = found is not None and found.state is DeploymentState.FAILED
                self._backoff.tried(wish.name, node.site, failing, now_s)

    def _replace(self) -> None:
        """Choose anew where what was chosen is not to be had any more."""
        for wish in tuple(self._desired.values()):
            placed = self._placed(wish)
            if placed.places != wish.places:
                log.info("%s is to be at %s", wish.name, ", ".join(placed.places) or "no place")
                self._keep(placed)

    async def _optimise(self) -> None:
        """Follow the optimiser for what leaves the number of replicas to it."""
        planned_for = dict(self._desired)
        if not any(wish.intent.automatic for wish in planned_for.values()):
            return
        moved: dict[str, DesiredDeployment] = {}
        for change in (await self.placement()).changes:
            wish = moved.get(change.name, planned_for[change.name])
            places = tuple(site for site in wish.places if site != change.site)
            if change.add:
                places = (*places, change.site)
            moved[change.name] = msgspec.structs.replace(wish, places=places, why=change.why)
        for name, wish in moved.items():
            # What an operator wished meanwhile goes before what was planned.
            if wish.places and self._desired.get(name) == planned_for[name]:
                log.info("%s is to be at %s: %s", name, ", ".join(wish.places), wish.why)
                self._keep(wish)

    def _carry_out(self) -> None:
        begun_s = time.monotonic() - ASK_AGAIN_S
        self._asked_at_s = {what: at_s for what, at_s in self._asked_at_s.items() if at_s > begun_s}
        for step in next_steps(self._desired, self._retired, self._facilities()):
            name = step.desired.name if isinstance(step, Place) else step.name
            what = step.desired.model.manifest if isinstance(step, Place) else "retire"
            if (name, step.site, what) in self._asked_at_s:
                continue
            self._asked_at_s[name, step.site, what] = time.monotonic()
            # A facility that is slow to answer must not keep the others waiting.
            self._tasks.anew((name, step.site), self._ask(step, name), f"ask {step.site}")

    async def _ask(self, step: Place | Retire, name: str) -> None:
        if isinstance(step, Place):
            verb, payload = "deploy", encode(_wish(step.desired))
        else:
            verb, payload = "retire", encode(RetireModel(name=step.name))
        try:
            key = keys.site_do(step.site, verb)
            await self._fabric.request(key, payload, timeout_s=ASK_TIMEOUT_S)
            self._trouble.pop((name, step.site), None)
            self._backoff.accepted(name, step.site)
        except DaitnError as error:
            log.warning("%s does not %s %s: %s", step.site, verb, name, error)
            self._trouble[name, step.site] = error.problem
            if isinstance(step, Place) and not isinstance(error, Unreachable):
                self._backoff.refused(name, step.site, time.monotonic())

    async def _on_serving(self, key: str, payload: bytes) -> None:
        try:
            serving = decode(payload, Serving)
            if serving.site == keys.site_of(key):
                self._free_bytes[serving.site] = serving.memory_free_bytes
        except DaitnError as error:
            log.warning("what is said at %s is not believed: %s", key, error)

    def _view(self, wish: DesiredDeployment) -> DeploymentView:
        found = {
            node.site: deployed
            for node in self._facilities()
            if (deployed := deployed_at(node, wish.name)) is not None
        }
        sites = sorted({*wish.places, *found})
        return DeploymentView(
            name=wish.name,
            model=wish.model.name,
            replicas=len(wish.places),
            places=tuple(self._place(wish, site, found.get(site)) for site in sites),
            why=wish.why,
        )

    def _place(
        self, wish: DesiredDeployment, site: SiteId, found: DeploymentDescriptor | None
    ) -> PlaceView:
        current = found is not None and found.manifest == wish.model.manifest
        return PlaceView(
            site=site,
            state=found.state if found is not None and current else None,
            wanted=site in wish.places,
            detail=self._trouble.get((wish.name, site), ""),
        )


_GONE = "retired"
"""In the journal's record: it is wished no more."""


def _wish(desired: DesiredDeployment) -> DeployModel:
    model, intent = desired.model, desired.intent
    return DeployModel(
        name=desired.name,
        owner=model.owner,
        recipe=model.recipe,
        config=model.config,
        model=ModelRef(manifest=model.manifest, size_bytes=model.size_bytes, holders=model.holders),
        policy=ModelPolicy(release_to=model.release_to, askers=intent.askers),
        evidence=model.evidence,
        price_usd_per_1k_in=intent.price_usd_per_1k_in,
        price_usd_per_1k_out=intent.price_usd_per_1k_out,
    )
