"""How sites train a model, and how the models of a round are merged."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

__all__ = [
    "AT_ONCE",
    "CONSIDERED",
    "GOSSIP_RULE",
    "LOCAL_RULES",
    "MERGE_RULES",
    "MOST_BEHIND",
    "MOST_MERGED",
    "MOST_WALKERS",
    "RULES",
    "TOLERANT",
    "Algorithm",
    "LocalRule",
    "MergeRule",
    "MergeTuning",
    "OuterStep",
    "Reduces",
    "discount",
    "tuned",
]

Rule = TypeVar("Rule", bound=msgspec.Struct)

MOST_MERGED = 256
"""Models in one merge. More sites merge in a tree."""
MOST_WALKERS = 16
"""Models of one job that travel at the same time: each is sent out, watched and kept at home."""
MOST_BEHIND = 20
"""Rounds by which an update may be older than the model that it is merged into. FedBuff's article
trains with such delays and stays stable; an older update says little of the model as it is."""


def discount(behind: int) -> float:
    """How much an update counts that is so many rounds behind: FedBuff's 1 / sqrt(1 + behind)
    (Nguyen et al. 2022, arXiv:2106.06639, section 5)."""
    return float((1 + behind) ** -0.5)


class Reduces(enum.StrEnum):
    """What makes one update of several."""

    MEAN = "mean"
    """The mean, weighted by examples."""
    MEDIAN = "median"
    """Of each weight the median; shares do not count. Tolerates f of 2 f + 1."""
    TRIMMED_MEAN = "trimmed-mean"
    """Of each weight the mean without the f least and greatest. Tolerates f of 2 f + 1."""
    KRUM = "krum"
    """The mean of the updates with the nearest neighbours. Tolerates f of 2 f + 3."""
    BULYAN = "bulyan"
    """Of each weight the mean of those near the median, of updates that Krum chooses. Tolerates f
    of 4 f + 3."""
    TIES = "ties"
    """The largest part of each update; signs are elected, and the values that have them averaged.
    """
    DARE = "dare"
    """The mean of random parts of the updates, scaled up."""
    MEETING = "meeting"
    """The mean of two models with pasts of their own, weighted by what each has learned alone."""


class OuterStep(enum.StrEnum):
    """How the reduced update moves the model."""

    PLAIN = "plain"
    """By the update, times `rate`."""
    MOMENTUM = "momentum"
    """By the update and the earlier ones, as Nesterov does: DiLoCo's."""
    ADAM = "adam"
    """As Adam, for which the update is a gradient."""
    YOGI = "yogi"
    """As Yogi does."""


Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Tolerated = Annotated[int, msgspec.Meta(ge=0, le=MOST_MERGED // 2)]
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=10.0)]
Momentum = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


class MergeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reduction and an outer step, with what they are set to."""

    reduction: Reduces = Reduces.MEAN
    """What makes one update of several."""
    tolerates: Tolerated = 0
    """How many of the models may be wrong on purpose."""
    density: Share = 0.2
    """Part of each update that `ties` and `dare` keep."""
    outer: OuterStep = OuterStep.PLAIN
    """How the reduced update moves the model."""
    rate: Rate = 1.0
    """How far the reduced update moves the model."""
    momentum: Momentum = 0.9
    """How much of earlier updates a step keeps."""
    second_momentum: Momentum = 0.99
    """The same of squared updates, for `adam` and `yogi`."""
    least: Share = 1e-3
    """Of `adam` and `yogi`: the least divisor of a step."""

    @property
    def leaves_update(self) -> bool:
        """Whether the outer step moves the model by the reduced update, and no more."""
        return (self.outer, self.rate) == (OuterStep.PLAIN, 1.0)

    @property
    def least_models(self) -> int | None:
        """Models that the rule needs to tolerate those that lie; none: it tolerates none."""
        if self.tolerates == 0:
            return 1
        needed = TOLERANT.get(self.reduction)
        return None if needed is None else needed[0] * self.tolerates + needed[1]


def tuned(rule: Rule, stated: Mapping[str, object | None]) -> Rule:
    """A rule with those numbers that are stated; none: it keeps its own."""
    changed = {name: value for name, value in stated.items() if value is not None}
    return msgspec.structs.replace(rule, **changed)


class MergeTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Numbers of a merge rule in the place of its algorithm's; what is left out stays as it is."""

    reduction: Reduces | None = None
    """Must be the algorithm's: another one is another algorithm."""
    tolerates: Tolerated | None = None
    """How many of the models may be wrong on purpose."""
    density: Share | None = None
    """Part of each update that `ties` and `dare` keep."""
    outer: OuterStep | None = None
    """Must be the algorithm's, too."""
    rate: Rate | None = None
    """How far the reduced update moves the model."""
    momentum: Momentum | None = None
    """How much of earlier updates a step keeps."""
    second_momentum: Momentum | None = None
    """The same of squared updates, for `adam` and `yogi`."""
    least: Share | None = None
    """Of `adam` and `yogi`: the least divisor of a step."""

    def of(self, rule: MergeRule) -> MergeRule:
        """The rule with these numbers."""
        return tuned(rule, {name: getattr(self, name) for name in self.__struct_fields__})


TOLERANT = {
    Reduces.MEDIAN: (2, 1),
    Reduces.TRIMMED_MEAN: (2, 1),
    Reduces.KRUM: (2, 3),
    Reduces.BULYAN: (4, 3),
}
"""By the articles, a reduction of `a f + b` models tolerates f that lie: its a and b."""


class LocalRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site does in a visit besides what the recipe's configuration says."""

    merged: bool = False
    """The model will be merged with others: nothing else holds it back."""
    mu: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] | None = None
    """Pull towards the weights that arrived (FedProx); none: as the configuration says."""
    variates: bool = False
    """Steps are corrected by control variates (SCAFFOLD)."""
    consolidation: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 0.0
    """Pull towards the weights that arrived, by how much they mattered before (EWC)."""
    distillation: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 0.0
    """Weight of what the model that arrived says about the site's records (LwF)."""

    @property
    def plain(self) -> bool:
        """Whether a visit does nothing but train as its recipe does by itself. That is all that
        differential privacy covers."""
        return self in (LocalRule(), LocalRule(merged=True))


class Algorithm(enum.StrEnum):
    """How the sites train one model."""

    AUTO = "auto"
    """The network chooses; at present always `sequential`: what else was tried did not win."""
    ADAPTIVE = "adaptive"
    """As `sequential`, but before each step rounds of `fedavg`, `diloco` and `ties` are compared
    with it, and may take its place. Experimental."""
    SEQUENTIAL = "sequential"
    """The model goes from site to site, by the route that is computed after each visit."""
    FEDAVG = "fedavg"
    """Rounds: all sites train the same model, and their results are averaged."""
    FEDPROX = "fedprox"
    """Rounds, in which each site is pulled towards the weights that arrived, by `mu`."""
    SCAFFOLD = "scaffold"
    """Rounds, in which control variates correct each site's steps: the model takes twice the room.
    """
    FEDSEQ = "fedseq"
    """Rounds of short chains: the model goes from site to site in each, and their last models are
    averaged."""
    FEDADAM = "fedadam"
    """Rounds, whose average is a gradient for Adam."""
    FEDYOGI = "fedyogi"
    """Rounds, whose average is a gradient for Yogi."""
    FEDBUFF = "fedbuff"
    """Rounds that end with half of the updates; the others join later rounds, for less."""
    DILOCO = "diloco"
    """Rounds of much local work, whose average is a gradient with momentum: for slow links."""
    MEDIAN = "median"
    """Rounds; of each weight the median: fewer than half of the sites may lie."""
    TRIMMED_MEAN = "trimmed-mean"
    """Rounds; of each weight the mean without the `tolerates` least and greatest."""
    KRUM = "krum"
    """Rounds; the mean of the updates with the nearest neighbours."""
    BULYAN = "bulyan"
    """Rounds; of each weight the mean of those near the median, of updates that Krum chooses."""
    TIES = "ties"
    """Rounds; signs are elected, and the values that have them averaged."""
    DARE = "dare"
    """Rounds; random parts of the updates are averaged."""
    EWC = "ewc"
    """As `sequential`; what mattered at the sites before is held, by `consolidation`."""
    LWF = "lwf"
    """As `sequential`; what the model that arrived says about the site's records is taught again,
    by `distillation`."""
    GOSSIP = "gossip"
    """Without a control centre: several models of the job travel, and are averaged where one finds
    what another left. Experimental."""


RULES = {
    Algorithm.FEDAVG: MergeRule(),
    Algorithm.FEDPROX: MergeRule(),
    Algorithm.SCAFFOLD: MergeRule(),
    Algorithm.FEDSEQ: MergeRule(),
    Algorithm.FEDADAM: MergeRule(outer=OuterStep.ADAM, rate=0.03),
    Algorithm.FEDYOGI: MergeRule(outer=OuterStep.YOGI, rate=0.03),
    Algorithm.FEDBUFF: MergeRule(),
    Algorithm.DILOCO: MergeRule(outer=OuterStep.MOMENTUM, rate=0.7),
    Algorithm.MEDIAN: MergeRule(reduction=Reduces.MEDIAN, tolerates=1),
    Algorithm.TRIMMED_MEAN: MergeRule(reduction=Reduces.TRIMMED_MEAN, tolerates=1),
    Algorithm.KRUM: MergeRule(reduction=Reduces.KRUM, tolerates=1),
    Algorithm.BULYAN: MergeRule(reduction=Reduces.BULYAN, tolerates=1),
    Algorithm.TIES: MergeRule(reduction=Reduces.TIES),
    Algorithm.DARE: MergeRule(reduction=Reduces.DARE),
}
"""How each algorithm that trains in rounds merges."""

GOSSIP_RULE = MergeRule(reduction=Reduces.MEETING)
"""How a model that travels is averaged with what another one left at a site. There are no rounds,
so it is none of `RULES`."""

MERGE_RULES = {**RULES, Algorithm.GOSSIP: GOSSIP_RULE}
"""How each algorithm merges that merges at all, in rounds or where models meet."""

LOCAL_RULES = {
    **dict.fromkeys(RULES, LocalRule(merged=True)),
    Algorithm.FEDPROX: LocalRule(merged=True, mu=0.03),
    Algorithm.SCAFFOLD: LocalRule(merged=True, variates=True),
    Algorithm.FEDSEQ: LocalRule(),
    Algorithm.EWC: LocalRule(consolidation=0.1),
    Algorithm.LWF: LocalRule(distillation=1.0),
}
"""What sites do in visits of each algorithm; of others, nothing more than the recipe's."""

AT_ONCE = (Algorithm.FEDSEQ, Algorithm.SCAFFOLD)
"""Rounds that wait for all, whose models travel whole and are merged at once: chains take as long
as their visits together, and variates belong to the round's base."""

CONSIDERED = (Algorithm.FEDAVG, Algorithm.DILOCO, Algorithm.TIES)
"""Algorithms that `adaptive` compares with `sequential`; the others have to be named."""
