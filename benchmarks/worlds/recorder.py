"""Trains along routes and records the measurements, each shared beginning once."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.worlds.routes import Effort, planned
from daitn.learning.recipe import (
    LEAST_RECORDS,
    Adapting,
    Config,
    LocalTask,
    MergeTask,
    Merging,
    Progress,
    Recipe,
)
from daitn.node.disclosure import LossGate
from daitn.objects.merging import LocalRule, MergeRule
from daitn.sim.learning.recordings import (
    RecordedModel,
    RecordedSite,
    Route,
    Score,
    Split,
    Test,
    TrainedSplit,
)

__all__ = ["Case", "Recorder", "SiteData", "TestData", "repeatable"]

_DIGITS = 4
MERGED = -1
"""In place of a site: the step of a route that stands for a merged model, by its number."""


@dataclass(frozen=True)
class SiteData:
    """A site's records, what its owner says they are about, and what is wrong with them."""

    name: str
    path: Path
    topics: tuple[str, ...]
    flaw: str = ""


@dataclass(frozen=True)
class TestData:
    """A test set."""

    objective: str
    topic: str
    path: Path
    chance: float


@dataclass(frozen=True)
class Case:
    """One split to record."""

    name: str
    recipe: Recipe
    config: Config
    sites: tuple[SiteData, ...]
    tests: tuple[TestData, ...]
    expert: str
    """Topic of the expert objective, which makes some sites specialists."""
    effort: Effort
    held_out: bool = False
    """All of it."""
    seed: int = 0
    repeats: str = ""
    """The split of which this is a repetition with another seed."""
    repeated_routes: int = 0
    start: Path | None = None
    """Parts of the model, where it is not made from the seed."""
    note: str = ""


def repeatable() -> None:
    """Makes training in this process give the same model each time."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


@dataclass
class Recorder:
    """Records one case. Models of all beginnings stay under `work`, so that it can go on later."""

    case: Case
    work: Path
    nodes: dict[Route, RecordedModel] = field(default_factory=dict)
    """What is recorded already."""

    def __post_init__(self) -> None:
        self._sites = tuple(_described(self.case.recipe, site) for site in self.case.sites)
        # repetitions take the routes of what they repeat
        draws = self.case.repeats or self.case.name
        routes = planned(self._sites, self.case.expert, self.case.effort, draws)
        self.routes = routes[: self.case.repeated_routes] if self.case.repeats else routes
        fitting = {
            route[:length]
            for route, held_out in self.routes
            if not held_out
            for length in range(len(route) + 1)
        }
        self._fitting = set() if self.case.held_out else fitting
        self._took_s: dict[str, list[float]] = defaultdict(list)

    def steps(self) -> Iterator[Iterator[RecordedModel]]:
        """Per route an iterator that records what is missing of it, visit by visit."""
        yield from (self._walk(route) for route, _ in self.routes)

    def node(self, route: Route) -> RecordedModel:
        """The end of a route, to which a model is trained if that is not recorded."""
        for _ in self._walk(route):
            pass
        return self.nodes[route]

    def merged(
        self,
        base: Route,
        made: tuple[Route, ...],
        shares: tuple[float, ...],
        rule: MergeRule,
        before: Route | None,
    ) -> Route:
        """Merge the models of some routes; see `daitn.sim.learning.replay.Merger`. Merging the same
        models again gives the same model, and takes no time."""
        asked = repr((base, made, shares, rule, before)).encode()
        route: Route = ((MERGED, int.from_bytes(hashlib.sha256(asked).digest()[:6], "big")),)
        if route in self.nodes:
            return route
        recipe, out = self.case.recipe, _emptied(self._model(route))
        assert isinstance(recipe, Merging)
        task = MergeTask(
            base=str(self._made(base)),
            models=tuple(str(self._made(one)) for one in made),
            shares=shares,
            rule=rule,
            seed=self.case.seed,
            moments=str(self._moments(before)) if before else "",
        )
        for part in recipe.merge(task, self.case.config, out, self._moments(route)):
            shutil.copyfile(Path(task.base) / part, out / part)
        out.rename(self._model(route))
        self.nodes[route] = RecordedModel(
            split=self.case.name,
            route=route,
            seconds=0.0,
            loss=None,
            measured=self._measure(route),
        )
        return route

    def _made(self, route: Route) -> Path:
        """The folder of a route's model, which is trained again if it was only recorded."""
        if not self._model(route).exists():
            self._train(route)
        return self._model(route)

    def _moments(self, merged: Route) -> Path:
        return self._model(merged).with_suffix(".moments")

    def trained(self, targets: dict[str, float]) -> TrainedSplit:
        """All that is recorded so far."""
        case = self.case
        needs = case.recipe.estimate(case.config)
        tests = tuple(self._test(test) for test in case.tests)
        split = Split(
            split=case.name,
            recipe=case.recipe.name,
            config=dict(case.config),
            parameters=needs.parameters,
            flops_per_example=round(needs.flops_per_example, 1),
            size_bytes=needs.size_bytes,
            sites=self._sites,
            tests=tests,
            targets=targets,
            seed=case.seed,
            repeats=case.repeats,
            note=case.note,
        )
        return TrainedSplit(split=split, nodes=self.nodes)

    def _walk(self, route: Route) -> Iterator[RecordedModel]:
        first = 1 if route and route[0][0] == MERGED else 0
        beginnings = [route[:length] for length in range(first, len(route) + 1)]
        missing = [beginning for beginning in beginnings if beginning not in self.nodes]
        for beginning in missing:
            seconds, loss = self._train(beginning)
            node = RecordedModel(
                split=self.case.name,
                route=beginning,
                seconds=round(seconds, _DIGITS),
                loss=None if loss is None else round(loss, _DIGITS),
                measured=self._measure(beginning),
                held_out=beginning not in self._fitting,
            )
            self.nodes[beginning] = node
            yield node

    def _train(self, route: Route) -> tuple[float, float | None]:
        """Make the model of a route, and those of its beginnings that are not there."""
        case, out = self.case, self._model(route)
        if not route:
            seconds, loss = 0.0, None
            if not out.exists():
                unfinished = _emptied(out)
                if case.start is None:
                    case.recipe.initialise(case.config, 7 + case.seed, unfinished)
                else:
                    shutil.copytree(case.start, unfinished, dirs_exist_ok=True)
                unfinished.rename(out)
            return seconds, loss
        before = self._model(route[:-1])
        if not before.exists():
            self._train(route[:-1])
        unfinished = _emptied(out)
        index, examples = route[-1]
        began_s = time.process_time()
        losses = LossGate(LEAST_RECORDS, b"recorder")

        def watch(progress: Progress) -> None:
            losses.take(progress)

        recipe = _merging(case.recipe) if examples < 0 else case.recipe
        trained = recipe.train(
            before,
            case.config,
            case.sites[index].path,
            abs(examples),
            _seed(case, route),
            unfinished,
            watch,
        )
        for name in trained.carried:
            shutil.copyfile(before / name, unfinished / name)
        if out.exists():
            shutil.rmtree(out)
        unfinished.rename(out)
        # not the recipe's own seconds: other work on the machine would be in them
        return time.process_time() - began_s, losses.loss()

    def _measure(self, route: Route) -> dict[str, Score]:
        case, scores = self.case, {}
        for test in case.tests:
            began_s = time.process_time()
            got = case.recipe.evaluate(self._model(route), case.config, test.path, "accuracy")
            self._took_s[test.objective].append(time.process_time() - began_s)
            scores[test.objective] = Score(
                round(got.value, _DIGITS),
                round(got.standard_error, _DIGITS),
                {
                    label: round(one.value, _DIGITS)
                    for label, one in got.by_label.items()
                    if one.items >= LEAST_RECORDS
                },
            )
        return scores

    def _model(self, route: Route) -> Path:
        name = hashlib.sha256(repr(route).encode()).hexdigest()[:24]
        return self.work / self.case.name / name

    def _test(self, test: TestData) -> Test:
        profile = self.case.recipe.inspect_test(test.path)
        took_s = self._took_s[test.objective]
        return Test(
            objective=test.objective,
            topic=test.topic,
            metric="accuracy",
            items=profile.samples,
            chance=test.chance,
            labels=profile.labels,
            measuring_s=round(statistics.median(took_s), _DIGITS) if took_s else 0.0,
        )


def _described(recipe: Recipe, site: SiteData) -> RecordedSite:
    profile = recipe.inspect(site.path)
    return RecordedSite(
        site=site.name,
        samples=profile.samples,
        labels=profile.labels,
        topics=site.topics,
        quality=round(profile.quality, _DIGITS),
        flaw=site.flaw,
    )


def _merging(recipe: Recipe) -> Recipe:
    """The recipe as a site of a round runs it."""
    assert isinstance(recipe, Adapting)
    return recipe.adapting(LocalTask(rule=LocalRule(merged=True)))


def _emptied(out: Path) -> Path:
    """A new folder beside `out`."""
    folder = out.with_suffix(".part")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _seed(case: Case, route: Route) -> int:
    """Of one visit: another for every beginning, as a control centre draws them."""
    named = f"{case.repeats or case.name}:{case.seed}:{route}"
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:4], "big") >> 1
