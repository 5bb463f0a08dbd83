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
    "PULL",
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
"""Models of one job that travel at the same time: each is sent out, monitored and stored at
home."""
MOST_BEHIND = 20
"""Maximum age of an update in rounds, relative to the model into which it is merged. FedBuff's
article trains with such delays and stays stable; an older update says little about the current
model."""


def discount(behind: int) -> float:
    """Weight of an update based on a model this many rounds old: FedBuff's 1 / sqrt(1 + behind)
    (Nguyen et al. 2022, arXiv:2106.06639, section 5)."""
    return float((1 + behind) ** -0.5)


class Reduces(enum.StrEnum):
    """Reductions: combine several updates into one."""

    MEAN = "mean"
    """The mean, weighted by examples."""
    MEDIAN = "median"
    """The median of each weight; shares do not count. Tolerates f of 2 f + 1."""
    TRIMMED_MEAN = "trimmed-mean"
    """The mean of each weight without the f smallest and largest values. Tolerates f of 2 f + 1."""
    KRUM = "krum"
    """The mean of the updates with the nearest neighbours. Tolerates f of 2 f + 3."""
    BULYAN = "bulyan"
    """Among updates chosen by Krum, the mean of the values near the median of each weight.
    Tolerates f of 4 f + 3."""
    TIES = "ties"
    """The largest values of each update; a sign is elected for each weight, and the values with
    that sign are averaged.
    """
    DARE = "dare"
    """The mean of random parts of the updates, scaled up."""
    MEETING = "meeting"
    """The mean of two models with separate histories, weighted by what each has learned alone."""


class OuterStep(enum.StrEnum):
    """How the reduced update moves the model."""

    PLAIN = "plain"
    """The update times `rate`."""
    MOMENTUM = "momentum"
    """The update plus Nesterov momentum, as in DiLoCo."""
    ADAM = "adam"
    """Adam, with the update as the gradient."""
    YOGI = "yogi"
    """Yogi, with the update as the gradient."""


Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Tolerated = Annotated[int, msgspec.Meta(ge=0, le=MOST_MERGED // 2)]
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=10.0)]
Momentum = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


class MergeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reduction and an outer step, with their numbers."""

    reduction: Reduces = Reduces.MEAN
    """Reductions: combine several updates into one."""
    tolerates: Tolerated = 0
    """How many of the models may be malicious."""
    density: Share = 0.2
    """Share of each update that `ties` and `dare` keep."""
    outer: OuterStep = OuterStep.PLAIN
    """How the reduced update moves the model."""
    rate: Rate = 1.0
    """How far the reduced update moves the model."""
    momentum: Momentum = 0.9
    """How much of earlier updates a step keeps."""
    second_momentum: Momentum = 0.99
    """The same for squared updates, with `adam` and `yogi`."""
    least: Share = 1e-3
    """With `adam` and `yogi`: the smallest divisor of a step."""

    @property
    def leaves_update(self) -> bool:
        """Whether the outer step only adds the reduced update to the model."""
        return (self.outer, self.rate) == (OuterStep.PLAIN, 1.0)

    @property
    def least_models(self) -> int | None:
        """Number of models that the rule needs to tolerate malicious ones; absent means it
        tolerates none."""
        if self.tolerates == 0:
            return 1
        needed = TOLERANT.get(self.reduction)
        return None if needed is None else needed[0] * self.tolerates + needed[1]


def tuned(rule: Rule, stated: Mapping[str, object | None]) -> Rule:
    """A copy of the rule with these numbers; absent means it keeps its own."""
    changed = {name: value for name, value in stated.items() if value is not None}
    return msgspec.structs.replace(rule, **changed)


class MergeTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Overrides the numbers of an algorithm's merge rule; absent ones keep their values."""

    reduction: Reduces | None = None
    """Must be that of the algorithm."""
    tolerates: Tolerated | None = None
    """How many of the models may be malicious."""
    density: Share | None = None
    """Share of each update that `ties` and `dare` keep."""
    outer: OuterStep | None = None
    """Must be that of the algorithm, too."""
    rate: Rate | None = None
    """How far the reduced update moves the model."""
    momentum: Momentum | None = None
    """How much of earlier updates a step keeps."""
    second_momentum: Momentum | None = None
    """The same for squared updates, with `adam` and `yogi`."""
    least: Share | None = None
    """With `adam` and `yogi`: the smallest divisor of a step."""

    def of(self, rule: MergeRule) -> MergeRule:
        """The rule with these numbers."""
        return tuned(rule, {name: getattr(self, name) for name in self.__struct_fields__})


TOLERANT = {
    Reduces.MEDIAN: (2, 1),
    Reduces.TRIMMED_MEAN: (2, 1),
    Reduces.KRUM: (2, 3),
    Reduces.BULYAN: (4, 3),
}
"""According to the articles, a reduction of `a f + b` models tolerates f malicious ones: its a and
b."""


class LocalRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site does in a visit in addition to the recipe's configuration."""

    merged: bool = False
    """The model will be merged with others, so nothing else holds it back."""
    mu: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] | None = None
    """Pull towards the arriving weights (FedProx); absent means as configured."""
    variates: bool = False
    """Steps are corrected by control variates (SCAFFOLD)."""
    consolidation: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 0.0
    """Pull towards the arriving weights, by their earlier importance (EWC)."""
    distillation: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 0.0
    """Weight of the arriving model's predictions for the site's records (LwF)."""

    @property
    def plain(self) -> bool:
        """Whether a visit only trains as its recipe does by default. Differential privacy covers
        nothing else."""
        return self in (LocalRule(), LocalRule(merged=True))


class Algorithm(enum.StrEnum):
    """How the sites train one model."""

    AUTO = "auto"
    """The network chooses; currently always `sequential`, because nothing else that was tried did
    better."""
    ADAPTIVE = "adaptive"
    """Like `sequential`, but compared before each step with rounds of `fedavg`, `diloco` and
    `ties`, which may replace it. Experimental."""
    SEQUENTIAL = "sequential"
    """The model goes from site to site, on a route that is recomputed after each visit."""
    FEDAVG = "fedavg"
    """Rounds: all sites train the same model, and their results are averaged."""
    FEDPROX = "fedprox"
    """Rounds in which `mu` pulls each site towards the arriving weights."""
    SCAFFOLD = "scaffold"
    """Rounds in which control variates correct each site's steps; they double the size of the
    model.
    """
    FEDSEQ = "fedseq"
    """Rounds of short chains: in each chain the model goes from site to site, and the final models
    are averaged."""
    FEDADAM = "fedadam"
    """Rounds whose average serves as a gradient for Adam."""
    FEDYOGI = "fedyogi"
    """Rounds whose average serves as a gradient for Yogi."""
    FEDBUFF = "fedbuff"
    """Rounds that end with half of the updates; the others join later rounds with less weight."""
    DILOCO = "diloco"
    """Rounds of much local work whose average serves as a gradient with momentum, for slow
    links."""
    MEDIAN = "median"
    """Rounds; the median of each weight. Tolerates lies by fewer than half of the sites."""
    TRIMMED_MEAN = "trimmed-mean"
    """Rounds; the mean of each weight without the `tolerates` smallest and largest values."""
    KRUM = "krum"
    """Rounds; the mean of the updates with the nearest neighbours."""
    BULYAN = "bulyan"
    """Rounds; among updates chosen by Krum, the mean of the values near the median of each
    weight."""
    TIES = "ties"
    """Rounds; a sign is elected for each weight, and the values with that sign are averaged."""
    DARE = "dare"
    """Rounds; random parts of the updates are averaged."""
    EWC = "ewc"
    """Like `sequential`; `consolidation` protects weights that were important at earlier sites."""
    LWF = "lwf"
    """Like `sequential`; `distillation` also trains on the arriving model's own predictions for the
    site's records."""
    GOSSIP = "gossip"
    """Without a control centre: several models of the job travel, and each is averaged with weights
    that another left at a site. Experimental."""


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
"""Merge rule of each algorithm that trains in rounds."""

GOSSIP_RULE = MergeRule(reduction=Reduces.MEETING)
"""How a travelling model is averaged with one that another left at a site. There are no rounds, so
it is not among `RULES`."""

MERGE_RULES = {**RULES, Algorithm.GOSSIP: GOSSIP_RULE}
"""Merge rule of each algorithm that merges, in rounds or where models meet."""

PULL = 0.03
"""Usual pull of a visit towards the arriving weights (`proximal` of `classifier`, `fedprox`)."""

LOCAL_RULES = {
    **dict.fromkeys(RULES, LocalRule(merged=True)),
    Algorithm.FEDPROX: LocalRule(merged=True, mu=PULL),
    Algorithm.SCAFFOLD: LocalRule(merged=True, variates=True),
    Algorithm.FEDSEQ: LocalRule(),
    Algorithm.EWC: LocalRule(consolidation=0.1),
    Algorithm.LWF: LocalRule(distillation=1.0),
}
"""What sites do in visits of each algorithm; for others, only what the recipe does."""

AT_ONCE = (Algorithm.FEDSEQ, Algorithm.SCAFFOLD)
"""Algorithms whose rounds wait for all sites, and whose models travel whole and are merged at once:
chains take as long as their visits together, and variates belong to the round's base."""

CONSIDERED = (Algorithm.FEDAVG, Algorithm.DILOCO, Algorithm.TIES)
"""Algorithms that `adaptive` compares with `sequential`; all others must be named."""
