"""Compare training algorithms: real recipes on splits of the learning worlds, without a network.

    python -m benchmarks.algorithms
    python -m benchmarks.algorithms --family wine --family digits --passes 8 --json out.json

Each algorithm starts from the same fresh model and trains on all sites' data in passes: one site
after the other, or all at once followed by a merge. A pass is `--epochs` over every site's records,
for all algorithms. The model is measured after each visit or merge. A split ends when its targets
are reached (those of the recorded world, which about a quarter of random routes reach) or after
`--passes`.

Time is expressed as examples processed one after the other: for sequential visits their sum, for a
round those of its largest site. This is proportional to seconds if training takes long compared
with transfers, and sites are alike. Moves are transfers of a whole model, to sites and to the
aggregator; those to a verifier are the same for all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import msgspec

from benchmarks.record_worlds import FAMILIES, cases
from benchmarks.worlds.files import load
from benchmarks.worlds.recorder import Case, repeatable
from daitn.control.route.chains import chains
from daitn.learning.recipe import Adapting, LocalTask, MergeTask, Merging
from daitn.objects.merging import LOCAL_RULES, RULES, Algorithm, LocalRule, MergeRule

_ROUNDS = (
    Algorithm.FEDAVG,
    Algorithm.FEDPROX,
    Algorithm.SCAFFOLD,
    Algorithm.FEDSEQ,
    Algorithm.FEDADAM,
    Algorithm.FEDYOGI,
    Algorithm.DILOCO,
    Algorithm.MEDIAN,
    Algorithm.TIES,
)
_ROUTES = ("ring", "by size")
"""The obvious routes: sites in their order, and the largest first; both come back again."""
_HELD = (Algorithm.EWC, Algorithm.LWF)
"""Against forgetting, on the ring."""
_SEED = 7


_ALL = (*_ROUTES, *map(str, _HELD), *map(str, _ROUNDS))


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an algorithm did on a split."""

    split: str
    algorithm: str
    reached: bool
    way: float
    """Examples on the way until then, or at the end; of the fastest that reached: 1 pass is the sum
    over all sites."""
    examples: int
    moves: int
    best: float
    """Least over the objectives of value minus target, at its best."""
    forgot: float
    """Most that an objective ever lost from its best to a later measurement."""


@dataclass
class Run:
    """One algorithm on one split."""

    case: Case
    targets: dict[str, float]
    work: Path
    epochs: float
    rule: LocalRule
    config: dict[str, Any] = field(default_factory=dict)
    way: float = 0.0
    examples: int = 0
    moves: int = 0
    best: float = -1.0
    forgot: float = 0.0
    highest: dict[str, float] = field(default_factory=dict)
    number: int = 0
    own: dict[int, Path] = field(default_factory=dict)
    """What each site made last, where that is of use."""

    def begin(self) -> Path:
        self.config = dict(self.case.config)
        out = self._folder()
        if self.case.start is None:
            self.case.recipe.initialise(self.config, _SEED, out)
        else:
            shutil.copytree(self.case.start, out, dirs_exist_ok=True)
        return out

    def visit(self, model: Path, site: int, seed: int) -> tuple[Path, int]:
        """The model that a site makes of it, and on how many examples."""
        recipe, data = self.case.recipe, self.case.sites[site].path
        assert isinstance(recipe, Adapting)
        own = self.own.get(site, "") if self.rule.variates else ""
        adapted = recipe.adapting(LocalTask(rule=self.rule, own=str(own)))
        examples = max(1, round(self.epochs * recipe.inspect(data).samples))
        out = self._folder()
        done = adapted.train(model, self.config, data, examples, seed, out, lambda progress: None)
        for part in done.carried:
            shutil.copyfile(model / part, out / part)
        self.examples += examples
        self.moves += 1
        return out, examples

    def chain(self, model: Path, sites: Sequence[int], seed: int) -> tuple[Path, int]:
        """What sites make of a model in a row, and on how many examples."""
        whole = 0
        for number, site in enumerate(sites):
            before = model
            model, examples = self.visit(model, site, seed + site)
            whole += examples
            if number:
                shutil.rmtree(before)
        return model, whole

    def merge(
        self, base: Path, made: Sequence[tuple[Path, int]], rule: MergeRule, moments: Path
    ) -> Path:
        recipe, out = self.case.recipe, self._folder()
        assert isinstance(recipe, Merging)
        task = MergeTask(
            base=str(base),
            models=tuple(str(model) for model, _ in made),
            shares=tuple(float(examples) for _, examples in made),
            rule=rule,
            seed=_SEED,
            moments=str(moments) if moments.is_file() else "",
        )
        kept = moments.with_suffix(".new")
        for part in recipe.merge(task, self.config, out, kept):
            shutil.copyfile(base / part, out / part)
        if kept.is_file():
            kept.replace(moments)
        self.moves += len(made) - 1  # One of them merges.
        return out

    def holds(self, model: Path) -> bool:
        """Measure a model; whether it reaches all targets."""
        values = {
            test.objective: self.case.recipe.evaluate(
                model, self.config, test.path, "accuracy"
            ).value
            for test in self.case.tests
            if test.objective in self.targets
        }
        for name, value in values.items():
            self.highest[name] = max(value, self.highest.get(name, 0.0))
            self.forgot = max(self.forgot, self.highest[name] - value)
        self.best = max(self.best, min(values[n] - at for n, at in self.targets.items()))
        return self.best >= 0.0

    def _folder(self) -> Path:
        self.number += 1
        out = self.work / str(self.number)
        out.mkdir()
        return out


def in_a_row(run: Run, order: Sequence[int], passes: int) -> bool:
    """Visits one after the other."""
    model = run.begin()
    for number in range(passes * len(order)):
        before = model
        model, examples = run.visit(model, order[number % len(order)], _SEED + number)
        shutil.rmtree(before)
        run.way += examples
        if run.holds(model):
            return True
    return False


def in_rounds(
    run: Run, rule: MergeRule, order: Sequence[int], groups: Sequence[Sequence[int]], passes: int
) -> bool:
    """Visits at the same time, or groups of visits in a row. A model that cannot be merged before
    visits the largest site."""
    model, moments = run.begin(), run.work / "moments"
    if not run.case.recipe.estimate(run.config).merges_fresh:
        model, examples = run.visit(model, order[0], _SEED)
        run.way += examples
        if run.holds(model):
            return True
    for number in range(passes):
        made = [run.chain(model, group, _SEED + 1000 * (number + 1)) for group in groups]
        run.way += max(examples for _, examples in made)
        left, run.own = (
            [model, *run.own.values()],
            {group[0]: path for group, (path, _) in zip(groups, made, strict=True)},
        )
        model = run.merge(model, made, rule, moments)
        for folder in left:
            shutil.rmtree(folder)
        if run.holds(model):
            return True
    return False


def outcomes(
    case: Case,
    targets: dict[str, float],
    epochs: float,
    passes: int,
    names: Sequence[str],
) -> Iterator[Outcome]:
    """Each algorithm on one split."""
    recipe = case.recipe
    sizes = [recipe.inspect(site.path).samples for site in case.sites]
    by_size = sorted(range(len(sizes)), key=lambda site: -sizes[site])
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            rule = LocalRule() if name in _ROUTES else LOCAL_RULES.get(Algorithm(name), LocalRule())
            run = Run(case, targets, Path(work), epochs, rule)
            if name in (*_ROUTES, *_HELD):
                order = by_size if name == "by size" else list(range(len(sizes)))
                reached = in_a_row(run, order, passes)
            else:
                groups = [[site] for site in sorted(by_size)]
                if name == Algorithm.FEDSEQ:
                    groups = chains([recipe.inspect(s.path).labels for s in case.sites])
                reached = in_rounds(run, RULES[Algorithm(name)], by_size, groups, passes)
        yield Outcome(
            split=case.name,
            algorithm=name,
            reached=reached,
            way=round(run.way / sum(sizes), 3),
            examples=run.examples,
            moves=run.moves,
            best=round(run.best, 4),
            forgot=round(run.forgot, 4),
        )


def table(found: Sequence[Outcome]) -> str:
    """Per algorithm, over all splits; ways against the best of each split that somebody reached."""
    best: dict[str, float] = {}
    for one in found:
        if one.reached:
            best[one.split] = min(one.way, best.get(one.split, one.way))
    lines = [
        "| algorithm | reached | way against the best | splits where it is the best | moves "
        "| short of the targets | forgot |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(one.algorithm for one in found):
        mine = [one for one in found if one.algorithm == name]
        reached = [one for one in mine if one.reached]
        ways = [one.way / best[one.split] for one in reached]
        wins = sum(one.way <= best[one.split] for one in reached)
        lines.append(
            f"| {name} | {len(reached)} of {len(mine)} "
            f"| {geometric_mean(ways) if ways else float('nan'):.2f} | {wins} "
            f"| {fmean(one.moves for one in mine):.0f} "
            f"| {fmean(max(0.0, -one.best) for one in mine):.3f} "
            f"| {fmean(one.forgot for one in mine):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument(
        "--family", action="append", choices=FAMILIES, help="only this family; may be repeated"
    )
    parser.add_argument("--passes", type=int, default=8, help="maximum number of passes")
    parser.add_argument("--epochs", type=float, default=1.0, help="epochs per pass")
    parser.add_argument(
        "--algorithm", action="append", choices=_ALL, help="only this algorithm; may be repeated"
    )
    parser.add_argument(
        "--split", action="append", type=int, help="only the split with this number"
    )
    parser.add_argument("--json", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    repeatable()
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as work:
        for family in options.family or ("breast-cancer", "digits", "wine", "clinic"):
            known = {one.split.split: one.split.targets for one in load(family).splits}
            for case in cases(family, Path(work)):
                if case.repeats or case.name not in known:
                    continue
                prefixes = tuple(f"{family} {number}," for number in options.split or ())
                if prefixes and not case.name.startswith(prefixes):
                    continue
                names = options.algorithm or _ALL
                for one in outcomes(case, known[case.name], options.epochs, options.passes, names):
                    found.append(one)
                    print(json.dumps(msgspec.to_builtins(one)), flush=True)
    print(table(found))
    if options.json:
        options.json.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
