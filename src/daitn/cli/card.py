"""The model card of an exported model (Mitchell et al., FAT* 2019)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from daitn.objects.identifiers import Digest, JobId
from daitn.objects.lineage import Entry, LineageFact, Merge, Origin, Verification, Visit
from daitn.objects.text import counted

__all__ = [
    "MEASURED",
    "METADATA_LINES",
    "USE",
    "SignedFacts",
    "Words",
    "is_prose",
    "measured_row",
    "model_card",
]

USE: Final = "## Use"
MEASURED: Final = "## Measured"
METADATA_LINES: Final = 5
"""Lines of metadata, with their marks, before the text."""
_TASKS: Final = {
    "boosted-trees": "tabular-classification",
    "causal-lm": "text-generation",
    "classifier": "tabular-classification",
}
"""What models of a recipe are for, in the words of the Hugging Face Hub."""
_FENCE: Final = re.compile(r"(`{3,})[a-z]*")
_CODE: Final = re.compile(r"`[^`]+`")
_MARKUP: Final = re.compile(r"``|[\r`#|<>~\\\[]|^\s*[=-]")
"""What makes headings, tables, pictures, comments and code of text, or hides what follows."""


@dataclass(frozen=True)
class SignedFacts:
    """What sites signed about a model."""

    job: JobId
    model: Digest
    entries: tuple[Entry, ...]
    """The model's ancestors only."""

    @property
    def every(self) -> list[LineageFact]:
        """All of them, oldest first."""
        return [entry.fact for entry in self.entries]

    @property
    def visits(self) -> list[Visit]:
        """Where it learned."""
        return [fact for fact in self.every if isinstance(fact, Visit)]

    @property
    def measured(self) -> list[Verification]:
        """The figures of these very weights."""
        return [f for f in self.every if isinstance(f, Verification) and f.model == self.model]


@dataclass(frozen=True)
class Words:
    """What only the exporter says."""

    owner: str
    parameters: int
    recipe: str
    """The manifest's; the exporter's word in a form without a manifest."""
    size_bytes: int = 0
    """Likewise."""
    state: str = ""
    targets: Sequence[str] = ()
    """Of each measured figure; empty for one that was no objective."""
    usage: str = ""
    """How to use the model, as its recipe says."""
    at: str = ""
    """When it was exported, ISO 8601."""
    version: str = ""
    """Of the software that exported it."""


def model_card(facts: SignedFacts, words: Words) -> str:
    """Markdown: what the model is, its verified measurements, and where it learned. Before it, the
    same for programs, as metadata of the Hugging Face Hub.

    Figures are those that verifiers signed for these very weights.
    """
    measured, visits = facts.measured, facts.visits
    owner, usage = words.owner.replace("`", "'"), words.usage.rstrip()
    lines = [
        *_metadata(facts, words.recipe),
        f"# {facts.job}",
        "",
        f"Trained by DA-ITN for `{owner}` with the recipe `{words.recipe}` "
        f"({words.parameters:,} parameters, {words.size_bytes:,} bytes), "
        f"{_counted(visits)}. State of the job: {words.state}.",
        "",
        *([USE, "", _inert(usage), ""] if usage else []),
        MEASURED,
        "",
        "| metric | topic | measured | standard error | items | target | verifier |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        target.join(measured_row(one)) for one, target in zip(measured, words.targets, strict=True)
    ]
    lines += [
        "",
        "Verifiers signed these figures for these very weights. They are results on the verifiers' "
        "private test sets, and "
        "nothing more: they are no proof of fitness for any use.",
        "",
        "## Where it learned",
        "",
        "| site | data set | examples | loss | epsilon |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {v.site} | {v.dataset} | {v.examples} | {_loss(v.loss)} | {_epsilon(v)} |"
        for v in visits
    ]
    lines += [
        "",
        "Epsilon is what a visit may tell of any record (differential privacy of weights). "
        "The loss is the mean over the last tenth of a visit, blurred and rounded by the site. "
        "Losses of different sites and recipes are not to be compared: what the model can do is "
        "measured above.",
        "",
        "## Lineage",
        "",
        f"Model digest `{facts.model}` (BLAKE3 of its manifest). `lineage.json` holds "
        f"{_entries(len(facts.entries))}, each signed by its site:",
        "",
    ]
    lines += [f"- {_entry_line(fact)}" for fact in facts.every]
    return "\n".join(lines) + "\n"


def _metadata(facts: SignedFacts, recipe: str) -> list[str]:
    """YAML, of which JSON is a part: no name can end a value."""
    task = {"type": _TASKS.get(recipe, "other")}
    results = [
        {
            "task": task,
            "dataset": {"type": "private", "name": f"{fact.topic} at {fact.site}"},
            "metrics": [{"type": fact.metric, "value": fact.value}],
        }
        for fact in facts.measured
    ]
    index = [{"name": facts.job, "results": results}]
    return [
        "---",
        "library_name: daitn",
        f"tags: {json.dumps(['daitn', recipe])}",
        f"model-index: {json.dumps(index)}",
        "---",
    ]


def measured_row(fact: Verification) -> tuple[str, str]:
    """A row of the card's figures: what stands before its target, and after it."""
    return (
        f"| {fact.metric} | {fact.topic} | {fact.value:.4f} | {fact.standard_error:.4f} "
        f"| {fact.items} | ",
        f" | {fact.site} |",
    )


def is_prose(text: str) -> bool:
    """Whether a text in Markdown is prose and blocks of code, so that it cannot pass for another
    part of the card, or hide one."""
    fence = ""
    for line in text.split("\n"):
        if fence:
            if fence in line and line != fence:
                return False
            fence = "" if line == fence else fence
        elif opened := _FENCE.fullmatch(line):
            fence = opened[1]
        elif _MARKUP.search(_CODE.sub("", line)) or "``" in line:
            return False
    return not fence and "\r" not in text


def _inert(usage: str) -> str:
    """A recipe's text, as code if it is more than prose."""
    if is_prose(usage):
        return usage
    runs = [len(run) for run in re.findall("`+", usage)]
    fence = "`" * (max([2, *runs]) + 1)
    return f"{fence}\n{usage.replace(chr(13), '')}\n{fence}"


def _epsilon(visit: Visit) -> str:
    """As signed by the site."""
    spent = visit.privacy
    return "no bound" if spent is None else f"{spent.epsilon:.3g} (delta {spent.delta:g})"


def _counted(visits: list[Visit]) -> str:
    """For instance `over 2 visits to 1 site`."""
    sites = len({visit.site for visit in visits})
    return f"over {counted(len(visits), 'visit')} to {counted(sites, 'site')}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3g}"


def _entry_line(fact: LineageFact) -> str:
    match fact:
        case Origin():
            return (
                f"`{fact.visit}` made at {fact.site}, seed {fact.seed} (the intent's and "
                "the number of the piece of work, added)"
            )
        case Visit():
            return f"`{fact.visit}` trained at {fact.site} on {counted(fact.examples, 'example')}"
        case Merge():
            return (
                f"`{fact.visit}` merged at {fact.site} from {counted(len(fact.models), 'model')} "
                f"({fact.rule.reduction}, {fact.rule.outer})"
            )
        case Verification():
            return f"`{fact.visit}` measured by {fact.site}: {fact.topic} {fact.value:.4f}"
