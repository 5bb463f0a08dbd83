"""A verification unit at work on deployed models: it asks them what it asks any model.

Questions go through a gateway, to one deployment by name, and look like anybody's: who answers them
cannot know that it is examined.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from daitn.control.attesting import Examination, Tally
from daitn.files.atomic import replace_file
from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.identity.signing import sign_attestation
from daitn.identity.tls import trusting
from daitn.learning.corpora.records import MultipleChoice, read_choices
from daitn.node.config import NodeConfig, TestSetConfig
from daitn.objects.choices import as_question, chosen
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState
from daitn.objects.descriptors import VerifierDescriptor
from daitn.objects.errors import Corrupt, DaitnError
from daitn.objects.findings import Attestation
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.wire import decode, encode
from daitn.openai.http import JSON
from daitn.openai.responses import answers
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.membership import Membership

__all__ = ["SCHEMA", "DeploymentVerifier", "oldest_beyond"]

T = TypeVar("T")

log = logging.getLogger(__name__)

SCHEMA = "multiple-choice/1"
"""Tests of this form can be asked of any model that chats."""
FIRST_AFTER_S = 1.0
NEW_SEEN_WITHIN_S = 1.0
"""A deployment that nobody examined yet does not wait for the next round."""
QUESTION_TIMEOUT_S = 30.0
AT_ONCE = 2
"""Questions at the same time: an examination is not to be felt as load."""
SITES_AT_ONCE = 16
"""Facilities that are examined at the same time: one that is silent holds up none but itself."""
_ANSWER_TOKENS = 8
_MOST_ANSWER_BYTES = 1 << 16
"""Of so few tokens with all that a server may tell of them."""
_FAILED_MOST = 0.5
"""Where more of a round's questions get no answer, nothing is made of the others."""
_SILENT_AFTER = 4
"""Where the first so many get no answer, the others are not asked."""
_MOST_KNOWN = 10_000
"""Deployments and topics that are remembered, the latest examined: names are strangers' words."""


class _Target(msgspec.Struct, frozen=True):
    site: SiteId
    deployment: str
    topic: str


class _Kept(msgspec.Struct, frozen=True):
    """The examiner's file."""

    manifests: dict[str, Digest | None]
    rounds: dict[str, tuple[tuple[int, int], ...]]
    before: dict[str, tuple[int, int]]
    findings: tuple[Attestation, ...]


@dataclass(frozen=True)
class _Test:
    topic: str
    items: list[MultipleChoice]


@dataclass(frozen=True)
class _Way:
    """To a deployment: an address, the model's name there, and for whom a pass is."""

    endpoint: str
    model: str
    audience: SiteId


_Due = tuple[_Target, _Test]


class DeploymentVerifier:
    """Examines every deployment that chats, on every test set that can be asked."""

    def __init__(
        self,
        config: NodeConfig,
        fabric: Fabric,
        membership: Membership,
        key: SigningKey,
        rng: random.Random,
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
        self._now_s = now_s
        self._file = Path(config.state) / "examinations"
        self._known: dict[_Target, Examination] = {}
        self._attested: dict[_Target, Attestation] = {}
        self._examined_at_s: dict[_Target, float] = {}
        """Of deployments that are there."""
        self._decks: dict[_Target, list[MultipleChoice]] = {}
        self._unkept = False
        """Whether something was found that is not in the file yet."""
        self._examining: asyncio.Task[None] | None = None
        self._at: dict[SiteId, asyncio.Task[None]] = {}
        """Facilities that are being examined."""

    def offer(self, verifier: VerifierDescriptor | None) -> None:
        """Examine on no other test sets than those that are told of."""
        told = {(t.topic, t.test_schema) for t in (verifier.tests if verifier else ())}
        self._tests = [t for t in self._tests if (t.topic, t.test_schema) in told]

    async def start(self) -> None:
        """Examine from now on."""
        self._recall()
        if self._tests:
            read = [await asyncio.to_thread(_read, test) for test in self._tests]
            tests = [test for test in read if test is not None]
            self._examining = asyncio.create_task(self._examine_for_ever(tests), name="examiner")

    async def close(self) -> None:
        tasks = [task for task in (self._examining, *self._at.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._remember()

    def current(self) -> tuple[Attestation, ...]:
        """What was found last of every deployment and topic."""
        return tuple(self._attested.values())

    async def on_attested(self, key: str, payload: bytes) -> bytes:
        """nothing -> list of `Attestation`: of a verifier: what it found last of every
        deployment."""
        return encode(self.current())

    async def _examine_for_ever(self, tests: list[_Test]) -> None:
        await asyncio.sleep(FIRST_AFTER_S)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusting(self._tls)),
            timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            while True:
                at: dict[SiteId, list[_Due]] = {}
                for due in self._due(tests):
                    at.setdefault(due[0].site, []).append(due)
                self._at = {site: task for site, task in self._at.items() if not task.done()}
                for site, there in at.items():
                    if site not in self._at and len(self._at) < SITES_AT_ONCE:
                        examining = self._examine_site(session, there)
                        self._at[site] = asyncio.create_task(examining, name=f"examine {site}")
                await asyncio.sleep(NEW_SEEN_WITHIN_S)
                self._remember()

    async def _examine_site(self, session: aiohttp.ClientSession, there: list[_Due]) -> None:
        """One round at one facility, one deployment after the other."""
        for target, test in there:
            try:
                await self._examine(session, target, test)
            except DaitnError as error:
                log.warning("%s at %s: %s", target.deployment, target.site, error)
            except Exception:
                log.exception("%s at %s cannot be examined", target.deployment, target.site)

    def _due(self, tests: list[_Test]) -> list[_Due]:
        """What was not examined for a round's time, in random order."""
        now_s = time.monotonic()
        due, there = [], set()
        for node in self._membership.nodes():
            for said in node.facility.deployments if node.facility else ():
                if not _can_be_asked(said):
                    continue
                for test in tests:
                    target = _Target(node.site, said.name, test.topic)
                    there.add(target)
                    last_s = self._examined_at_s.get(target, -self._asking.every_s)
                    if now_s - last_s >= self._asking.every_s:
                        due.append((target, test))
        self._examined_at_s = {t: at_s for t, at_s in self._examined_at_s.items() if t in there}
        kept = there | self._known.keys()
        self._decks = {target: deck for target, deck in self._decks.items() if target in kept}
        self._rng.shuffle(due)
        return due

    async def _examine(self, session: aiohttp.ClientSession, target: _Target, test: _Test) -> None:
        """One round of questions, and what follows from it."""
        self._examined_at_s[target] = time.monotonic()
        said, way = self._said(target), self._way(target)
        if said is None or way is None:
            return
        items = self._drawn(target, test)
        heard = await self._heard(session, way, items)
        right = [answer for answer in heard if answer is not None]
        if len(right) < len(items) * (1 - _FAILED_MOST):
            log.info("%s at %s does not answer", target.deployment, target.site)
            return
        now = self._said(target)
        if now is None or now.manifest != said.manifest:
            # Nobody can say which of the two answered what.
            return
        known = self._known.setdefault(target, Examination(said.manifest))
        known.took(said.manifest, right, self._asking.window)
        at_s = self._later_s(target)
        finding = known.finding(self._site, target.site, target.deployment, target.topic, at_s)
        if finding.degraded:
            log.warning("%s at %s is degraded: %s", target.deployment, target.site, finding)
        # The latest examined stand last.
        del self._known[target]
        self._known[target] = known
        self._attested.pop(target, None)
        self._attested[target] = sign_attestation(finding, self._key)
        self._forget()
        self._unkept = True
        await self._fabric.publish(keys.site_attested(self._site), encode(self._attested[target]))

    def _later_s(self, target: _Target) -> float:
        """Now, and after what was found before: others take the later finding for the newer."""
        before = self._attested.get(target)
        return max(self._now_s(), before.finding.at_s + 0.001 if before is not None else 0.0)

    def _said(self, target: _Target) -> DeploymentDescriptor | None:
        """What is told of a deployment now; none where it cannot be asked."""
        node = self._membership.node(target.site)
        for said in node.facility.deployments if node and node.facility else ():
            if said.name == target.deployment and _can_be_asked(said):
                return said
        return None

    async def _heard(
        self, session: aiohttp.ClientSession, way: _Way, items: list[MultipleChoice]
    ) -> list[bool | None]:
        """Whether each question was answered rightly; none where it was not answered."""
        turns = asyncio.Semaphore(AT_ONCE)
        heard: list[bool | None] = []

        async def ask(item: MultipleChoice) -> None:
            async with turns:
                if len(heard) < _SILENT_AFTER or any(answer is not None for answer in heard):
                    heard.append(await self._ask(session, way, item))

        async with asyncio.TaskGroup() as asking:
            for item in items:
                asking.create_task(ask(item))
        return heard

    def _way(self, target: _Target) -> _Way | None:
        """A gateway, by lot, and one whose owner has no part in the facility where there is one: a
        gateway sees who asks. Without any, the facility's own door."""
        facility = self._membership.node(target.site)
        if facility is None or facility.facility is None:
            return None
        gateways = [node for node in self._membership.nodes() if node.gateway is not None]
        others = [node for node in gateways if node.owner != facility.owner]
        if gateways:
            node = self._rng.choice(others or gateways)
            assert node.gateway is not None
            return _Way(node.gateway.endpoint, f"{target.deployment}@{target.site}", node.site)
        return _Way(facility.facility.endpoint, target.deployment, target.site)

    def _drawn(self, target: _Target, test: _Test) -> list[MultipleChoice]:
        """The round's items: all are asked once before any is asked again."""
        deck = self._decks.setdefault(target, [])
        if len(deck) < self._asking.items:
            fresh = list(test.items)
            self._rng.shuffle(fresh)
            deck.extend(fresh)
        drawn, self._decks[target] = deck[: self._asking.items], deck[self._asking.items :]
        return drawn

    async def _ask(
        self, session: aiohttp.ClientSession, way: _Way, item: MultipleChoice
    ) -> bool | None:
        """Whether the answer is right; none where there is none. The options are shuffled, so that
        no answer can be known by its letter."""
        order = self._rng.sample(range(len(item.options)), len(item.options))
        text = as_question(item.question, [item.options[index] for index in order])
        body = {
            "model": way.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": _ANSWER_TOKENS,
        }
        headers = {
            "content-type": JSON,
            "daitn-pass": sign_pass(self._site, way.audience, clock.wall_s(), self._key),
        }
        try:
            async with session.post(
                f"{way.endpoint.rstrip('/')}/v1/chat/completions",
                data=msgspec.json.encode(body),
                headers=headers,
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    return None
                came = await _bounded(answer)
        except (aiohttp.ClientError, OSError, ValueError):
            return None
        said = answers(came)
        if said is None or (said and said[0].message is None):
            return None
        content = said[0].message.content if said and said[0].message else None
        picked = chosen(content or "", len(order))
        return picked is not None and order[picked] == item.answer

    def _forget(self) -> None:
        for target in oldest_beyond(self._attested, _MOST_KNOWN):
            del self._attested[target], self._known[target]
            self._decks.pop(target, None)

    def _remember(self) -> None:
        """A restart is no chance to be measured anew. All is in one file: it is written once for
        all that was examined meanwhile."""
        if not self._unkept:
            return
        self._unkept = False
        names = {_name(target): known for target, known in self._known.items()}
        kept = _Kept(
            {name: known.manifest for name, known in names.items()},
            {n: tuple((r.right, r.items) for r in k.rounds) for n, k in names.items()},
            {n: (k.before.right, k.before.items) for n, k in names.items() if k.before},
            self.current(),
        )
        try:
            replace_file(self._file, encode(kept))
        except OSError as error:
            log.warning("findings are not on disk: %s", error)

    def _recall(self) -> None:
        try:
            kept = decode(self._file.read_bytes(), _Kept)
        except FileNotFoundError:
            return
        except Corrupt as error:
            log.warning("%s is not readable, and left aside: %s", self._file, error.problem)
            return
        except OSError as error:
            log.warning("%s is not readable, and left aside: %s", self._file, error.strerror)
            return
        for attestation in kept.findings:
            finding = attestation.finding
            target = _Target(finding.site, finding.deployment, finding.topic)
            self._attested[target] = attestation
            self._known[target] = _recalled(kept, _name(target))


def _read(config: TestSetConfig) -> _Test | None:
    """None where it cannot be read: a test set that is broken holds up none but itself."""
    try:
        return _Test(config.topic, read_choices(Path(config.path)))
    except DaitnError as error:
        log.error("nobody is examined on %s: %s", config.topic, error)
        return None


def _can_be_asked(said: DeploymentDescriptor) -> bool:
    return said.state is DeploymentState.READY and Api.CHAT in said.apis


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The body. Raises `ValueError` for one that is too large for what was asked."""
    body = b""
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > _MOST_ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return body


def _name(target: _Target) -> str:
    return f"{target.deployment}@{target.site} {target.topic}"


def _recalled(kept: _Kept, name: str) -> Examination:
    before = kept.before.get(name)
    return Examination(
        manifest=kept.manifests.get(name),
        rounds=[Tally(right, items) for right, items in kept.rounds.get(name, ())],
        before=Tally(*before) if before else None,
    )


def oldest_beyond(kept: Mapping[T, object], most: int) -> list[T]:
    """The first that were put, as many as there are more than `most`."""
    return list(kept)[: max(0, len(kept) - most)]
