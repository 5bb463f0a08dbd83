"""Examines deployed models with the verifier's private tests.

Questions go through a gateway to one deployment by name and look like any client's. A deployment
could still tell an examination by its questions coming together; see `probing`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from daitn.control.attesting import Examination, Tally
from daitn.control.two_faced import Paired
from daitn.files.atomic import replace_file
from daitn.files.state_folder import NodeState
from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.identity.signing import sign_attestation
from daitn.identity.tls import trusting
from daitn.learning.corpora.records import MultipleChoice, read_choices
from daitn.node.admission import Admission
from daitn.node.config import NodeConfig, TestSetConfig
from daitn.node.disclosure import coarse_tally
from daitn.node.verifier.metrics import VerifierMetrics
from daitn.node.verifier.probing import Probing
from daitn.objects.choices import as_question, chosen
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState
from daitn.objects.descriptors import NodeDescriptor, VerifierDescriptor
from daitn.objects.errors import Corrupt, DaitnError, Refused
from daitn.objects.findings import Attestation, Finding
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.wire import decode, encode
from daitn.openai.http import JSON
from daitn.openai.responses import answers
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.membership import Membership
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.tasks import Tasks

__all__ = ["SCHEMA", "DeploymentVerifier", "oldest_beyond"]

T = TypeVar("T")

log = logging.getLogger(__name__)

SCHEMA = "multiple-choice/1"
"""Any chat model can take tests of this schema."""
FIRST_AFTER_S = 1.0
NEW_SEEN_WITHIN_S = 1.0
"""A new deployment is examined this soon; it does not wait for the next round."""
QUESTION_TIMEOUT_S = 30.0
AT_ONCE = 2
"""Concurrent questions to a facility: an examination must not load it noticeably."""
SITES_AT_ONCE = 16
"""Facilities examined at the same time: a silent one delays only itself."""
_ANSWER_TOKENS = 8
_MOST_ANSWER_BYTES = 1 << 16
"""Room for these few tokens with all metadata that a server may add."""
_FAILED_MOST = 0.5
"""A round in which a larger share of the questions gets no answer does not count."""
_SILENT_AFTER = 4
"""If the first questions, this many, get no answer, the round stops."""
_MOST_KNOWN = 10_000
"""Limit on remembered pairs of deployment and topic, latest examined: strangers choose the
names."""


class _Target(msgspec.Struct, frozen=True):
    site: SiteId
    deployment: str
    topic: str


class _State(msgspec.Struct, frozen=True):
    """Contents of the verifier's file."""

    manifests: dict[str, Digest | None]
    rounds: dict[str, tuple[tuple[int, int], ...]]
    before: dict[str, tuple[int, int]]
    findings: tuple[Attestation, ...]
    older: dict[str, tuple[int, int]] = {}
    paired: dict[str, Paired] = {}
    marked_at_s: dict[str, float] = {}


@dataclass(frozen=True)
class _Test:
    config: TestSetConfig
    items: list[MultipleChoice]
    """All distinct."""

    @property
    def topic(self) -> str:
        return self.config.topic

    @property
    def least(self) -> int:
        """Minimum number of items behind a finding."""
        return self.config.terms.least_records


@dataclass(frozen=True)
class _Route:
    """How to reach a deployment: an address, the model's name there, and the audience of passes."""

    endpoint: str
    model: str
    audience: SiteId


_Due = tuple[_Target, _Test]


class DeploymentVerifier:
    """Examines every chat deployment on every multiple-choice test set."""

    def __init__(
        self,
        config: NodeConfig,
        fabric: Fabric,
        membership: Membership,
        key: SigningKey,
        rng: random.Random,
        admission: Admission,
        now_s: Callable[[], float] = clock.now_s,
    ) -> None:
        self._site = config.site
        self._asking = config.asking
        self._tests = [t for t in config.tests if t.test_schema == SCHEMA]
        self._fabric = fabric
        self._membership = membership
        self._key = key
        self._tls = config.tls
        self._rng = rng
        self._admission = admission
        self._now_s = now_s
        self._file = Path(config.state) / NodeState.EXAMINATIONS
        self._examinations: dict[_Target, Examination] = {}
        self._attested: dict[_Target, Attestation] = {}
        self._examined_at_s: dict[_Target, float] = {}
        """For currently advertised deployments: when they were last examined."""
        self._decks: dict[_Target, list[MultipleChoice]] = {}
        self._probing = Probing[_Target](rng, lambda target: target.site)
        self._unsaved = False
        """Whether there are findings not yet in the file."""
        self._tasks = Tasks()
        self._at: dict[SiteId, asyncio.Task[None]] = {}
        """The running examination of each facility."""
        self._metrics = VerifierMetrics()

    def offer(self, verifier: VerifierDescriptor | None) -> None:
        """Examine only on the test sets that the descriptor advertises."""
        advertised = {(t.topic, t.test_schema) for t in (verifier.tests if verifier else ())}
        self._tests = [t for t in self._tests if (t.topic, t.test_schema) in advertised]

    async def start(self) -> None:
        """Start to examine deployments."""
        self._load()
        if self._tests:
            read = [await asyncio.to_thread(_read, test) for test in self._tests]
            tests = [test for test in read if test is not None]
            self._tasks.repeat(partial(self._examine_forever, tests), "verifier")

    async def close(self) -> None:
        await self._tasks.close()
        self._save()

    def current(self) -> tuple[Attestation, ...]:
        """The latest finding on every deployment and topic."""
        return tuple(self._attested.values())

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._metrics.measured(len(self._attested))

    async def on_attested(self, key: str, payload: bytes) -> bytes:
        """nothing -> list of `Attestation`: verifier: its latest result for every deployment."""
        return encode(self.current())

    async def _examine_forever(self, tests: list[_Test]) -> None:
        await asyncio.sleep(FIRST_AFTER_S)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusting(self._tls)),
            timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            while True:
                self._probe(session, tests)
                at: dict[SiteId, list[_Due]] = {}
                for due in self._due(tests):
                    at.setdefault(due[0].site, []).append(due)
                self._at = {site: task for site, task in self._at.items() if not task.done()}
                for site, due_at_site in at.items():
                    if site not in self._at and len(self._at) < SITES_AT_ONCE:
                        examining = self._examine_site(session, due_at_site)
                        self._at[site] = self._tasks.spawn(examining, f"examine {site}")
                await asyncio.sleep(NEW_SEEN_WITHIN_S)
                self._save()

    def _probe(self, session: aiohttp.ClientSession, tests: list[_Test]) -> None:
        """Ask the single questions that are due before the next call, each at its moment."""
        configs = {test.topic: test.config for test in tests}
        for at_s, target, item in self._probing.due(time.monotonic() + NEW_SEEN_WITHIN_S):
            asking = self._probe_one(session, configs[target.topic], target, item, at_s)
            self._tasks.spawn(asking, f"probe {target.site}")

    async def _probe_one(
        self,
        session: aiohttp.ClientSession,
        test: TestSetConfig,
        target: _Target,
        item: MultipleChoice,
        at_s: float,
    ) -> None:
        """Ask a single question, if its owner's rules allow a round to begin at that moment."""
        await asyncio.sleep(at_s - time.monotonic())
        examined, route = self._descriptor(target), self._route(target)
        if examined is None or route is None or not self._admission.may_examine(test, examined):
            return
        self._probing.answered(target, item, await self._ask(session, route, item))

    async def _examine_site(self, session: aiohttp.ClientSession, due: list[_Due]) -> None:
        """One round at one facility, one deployment after another."""
        for target, test in due:
            began_s, ended = time.monotonic(), self._metrics.examinations
            try:
                ended[await self._examine(session, target, test)] += 1
                self._metrics.duration.observe(time.monotonic() - began_s)
            except Refused as no:
                ended["refused"] += 1
                log.info("%s at %s is not examined: %s", target.deployment, target.site, no)
            except DaitnError as error:
                ended["failed"] += 1
                log.warning("%s at %s: %s", target.deployment, target.site, error)
            except Exception:
                ended["failed"] += 1
                log.exception("examining %s at %s failed", target.deployment, target.site)

    def _due(self, tests: list[_Test]) -> list[_Due]:
        """Targets whose last examination is a round or more ago, in random order."""
        now_s = time.monotonic()
        due, available = [], set()
        for node in self._membership.nodes():
            for deployment in _examinable(node):
                if not _can_chat(deployment):
                    continue
                for test in tests:
                    target = _Target(node.site, deployment.name, test.topic)
                    available.add(target)
                    last_s = self._examined_at_s.get(target, -self._asking.every_s)
                    if now_s - last_s >= self._asking.every_s:
                        due.append((target, test))
        self._examined_at_s = {t: at_s for t, at_s in self._examined_at_s.items() if t in available}
        known = available | self._examinations.keys()
        self._decks = {target: deck for target, deck in self._decks.items() if target in known}
        self._rng.shuffle(due)
        return due

    async def _examine(self, session: aiohttp.ClientSession, target: _Target, test: _Test) -> str:
        """Ask one round of questions; sign and publish the result. Returns its outcome in a word.
        Raises `Refused`."""
        self._examined_at_s[target] = time.monotonic()
        examined, route = self._descriptor(target), self._route(target)
        if examined is None or route is None:
            return "changed"
        attempt = self._admission.examination(test.config, examined)
        items = self._probing.round_of(target) or self._drawn(target, test)
        grades = await self._grades(session, route, items)
        right = [grade for _, grade in grades if grade is not None]
        if len(right) < max(test.least, len(items) * (1 - _FAILED_MOST)):
            log.info("%s at %s does not answer", target.deployment, target.site)
            return "silent"
        now = self._descriptor(target)
        if now is None or now.manifest != examined.manifest:
            # The model changed, and either may have given any of the answers.
            return "changed"
        examination = self._examinations.setdefault(target, Examination(examined.manifest))
        changed = examination.manifest != examined.manifest
        examination.took(examined.manifest, right, max(self._asking.window, test.least))
        paired = self._probing.compared(target, grades, self._now_s(), anew=changed)
        alone = paired.answered() if paired.marked else Tally()
        self._probing.plan(
            target, self._drawn(target, test), time.monotonic(), self._asking.every_s
        )
        finding = examination.finding(
            self._site,
            target.site,
            target.deployment,
            target.topic,
            self._later_s(target),
            published=coarse_tally,
            two_faced=paired.marked,
            alone=alone if alone.items >= test.least else None,
            unanswered=paired.unanswered,
        )
        self._warn_of(finding)
        self._admission.examined(attempt, finding)
        # The latest examined come last.
        del self._examinations[target]
        self._examinations[target] = examination
        self._attested.pop(target, None)
        self._attested[target] = sign_attestation(finding, self._key)
        self._evict()
        self._unsaved = True
        await self._fabric.publish(keys.site_attested(self._site), encode(self._attested[target]))
        return "measured"

    def _warn_of(self, finding: Finding) -> None:
        name = f"{finding.deployment} at {finding.site}"
        if finding.degraded:
            self._metrics.degraded += 1
            log.warning("%s is degraded: %s", name, finding)
        if finding.unanswered is True:
            log.warning("%s answers examinations, but not most single questions", name)

    def _later_s(self, target: _Target) -> float:
        """Now, but after the previous finding: readers take the later one as the newer."""
        before = self._attested.get(target)
        return max(self._now_s(), before.finding.at_s + 0.001 if before is not None else 0.0)

    def _descriptor(self, target: _Target) -> DeploymentDescriptor | None:
        """The deployment as advertised now; none if it cannot be examined."""
        node = self._membership.node(target.site)
        for deployment in _examinable(node) if node else ():
            if deployment.name == target.deployment and _can_chat(deployment):
                return deployment
        return None

    async def _grades(
        self, session: aiohttp.ClientSession, route: _Route, items: list[MultipleChoice]
    ) -> list[tuple[MultipleChoice, bool | None]]:
        """Whether the answer to each item was right; none for a question without an answer."""
        turns = asyncio.Semaphore(AT_ONCE)
        grades: list[tuple[MultipleChoice, bool | None]] = []

        async def ask(item: MultipleChoice) -> None:
            async with turns:
                if len(grades) < _SILENT_AFTER or any(grade is not None for _, grade in grades):
                    grades.append((item, await self._ask(session, route, item)))

        async with asyncio.TaskGroup() as asking:
            for item in items:
                asking.create_task(ask(item))
        return grades

    def _route(self, target: _Target) -> _Route | None:
        """Through a random gateway; directly to the facility if there is none.

        A gateway sees who asks, so one of another owner than the facility's is preferred.
        """
        facility = self._membership.node(target.site)
        if facility is None or facility.facility is None:
            return None
        gateways = [node for node in self._membership.nodes() if node.gateway is not None]
        others = [node for node in gateways if node.owner != facility.owner]
        if gateways:
            node = self._rng.choice(others or gateways)
            assert node.gateway is not None
            return _Route(node.gateway.endpoint, f"{target.deployment}@{target.site}", node.site)
        return _Route(facility.facility.endpoint, target.deployment, target.site)

    def _drawn(self, target: _Target, test: _Test) -> list[MultipleChoice]:
        """The round's items, all distinct and enough for a finding with some answers missing: each
        is asked once before any is asked again."""
        deck = self._decks.setdefault(target, [])
        enough = math.ceil(test.least / (1 - _FAILED_MOST))
        count = min(max(self._asking.items, enough), len(test.items))
        if len(deck) < count:
            again = [item for item in test.items if item not in deck]
            self._rng.shuffle(again)
            deck.extend(again)
        drawn, self._decks[target] = deck[:count], deck[count:]
        return drawn

    async def _ask(
        self, session: aiohttp.ClientSession, route: _Route, item: MultipleChoice
    ) -> bool | None:
        """Whether the answer is right; none if there is no answer.

        The options are shuffled, so that no letter gives an answer away.
        """
        order = self._rng.sample(range(len(item.options)), len(item.options))
        text = as_question(item.question, [item.options[index] for index in order])
        body = {
            "model": route.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": _ANSWER_TOKENS,
        }
        headers = {
            "content-type": JSON,
            PeerHeader.PASS: sign_pass(self._site, route.audience, clock.wall_s(), self._key),
        }
        try:
            async with session.post(
                f"{route.endpoint.rstrip('/')}/v1/chat/completions",
                data=msgspec.json.encode(body),
                headers=headers,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    return None
                received = await _bounded(response)
        except (aiohttp.ClientError, OSError, ValueError):
            return None
        choices = answers(received)
        if choices is None or (choices and choices[0].message is None):
            return None
        content = choices[0].message.text if choices and choices[0].message else None
        picked = chosen(content or "", len(order))
        return picked is not None and order[picked] == item.answer

    def _evict(self) -> None:
        for target in oldest_beyond(self._attested, _MOST_KNOWN):
            del self._attested[target], self._examinations[target]
            self._decks.pop(target, None)
            self._probing.forget(target)

    def _save(self) -> None:
        """Write new results to disk, all in one file at once.

        They outlive a restart, so that no deployment gets a fresh start from it.
        """
        if not self._unsaved:
            return
        self._unsaved = False
        named = {_name(target): examination for target, examination in self._examinations.items()}
        state = _State(
            {name: examination.manifest for name, examination in named.items()},
            {n: tuple((r.right, r.items) for r in e.rounds) for n, e in named.items()},
            {n: (e.before.right, e.before.items) for n, e in named.items() if e.before},
            self.current(),
            {n: (e.older.right, e.older.items) for n, e in named.items()},
            {_name(target): paired for target, paired in self._probing.paired.items()},
            self._probing.marked_at_s,
        )
        try:
            replace_file(self._file, encode(state))
        except OSError as error:
            log.warning("findings are not on disk: %s", error)

    def _load(self) -> None:
        try:
            state = decode(self._file.read_bytes(), _State)
        except FileNotFoundError:
            return
        except Corrupt as error:
            log.warning("%s is not readable and is ignored: %s", self._file, error.problem)
            return
        except OSError as error:
            log.warning("%s is not readable and is ignored: %s", self._file, error.strerror)
            return
        self._probing.marked_at_s = state.marked_at_s
        for attestation in state.findings:
            finding = attestation.finding
            target = _Target(finding.site, finding.deployment, finding.topic)
            # Signed again: a later release may have signed more than is known here.
            self._attested[target] = sign_attestation(finding, self._key)
            self._examinations[target] = _examination(state, _name(target))
            if (paired := state.paired.get(_name(target))) is not None:
                self._probing.paired[target] = paired


def _read(config: TestSetConfig) -> _Test | None:
    """The test set; none if it cannot be read, which must not stop the others."""
    try:
        items = read_choices(Path(config.path))
        if any(item.member is not msgspec.UNSET for item in items):
            log.info("no deployment is examined on %s: its items are probes", config.topic)
            return None
        test = _Test(config, list(dict.fromkeys(items)))
        config.disclosure.check_count(len(test.items))
        return test
    except DaitnError as error:
        log.error("no deployment is examined on %s: %s", config.topic, error)
        return None


def _examinable(node: NodeDescriptor) -> tuple[DeploymentDescriptor, ...]:
    """The deployments of a node that is in service."""
    return () if node.facility is None or node.cordon else node.facility.deployments


def _can_chat(deployment: DeploymentDescriptor) -> bool:
    return deployment.state is DeploymentState.READY and Api.CHAT in deployment.apis


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises `ValueError` if it is larger than any expected answer."""
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MOST_ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return body


def _name(target: _Target) -> str:
    return f"{target.deployment}@{target.site} {target.topic}"


def _examination(state: _State, name: str) -> Examination:
    before = state.before.get(name)
    return Examination(
        manifest=state.manifests.get(name),
        rounds=[Tally(right, items) for right, items in state.rounds.get(name, ())],
        before=Tally(*before) if before else None,
        older=Tally(*state.older.get(name, ())),
    )


def oldest_beyond(entries: Mapping[T, object], most: int) -> list[T]:
    """The oldest entries, as many as exceed `most`."""
    return list(entries)[: max(0, len(entries) - most)]
