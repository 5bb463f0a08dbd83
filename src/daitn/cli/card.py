"""The model card of an exported model (Mitchell et al., FAT* 2019)."""

from __future__ import annotations

from daitn.objects.lineage import LineageFact, Merge, Origin, Verification, Visit
from daitn.objects.requests import TrainedModel
from daitn.objects.text import counted

__all__ = ["model_card"]


def model_card(trained: TrainedModel, usage: str = "") -> str:
    """Markdown: what the model is, its verified measurements, and where it learned.

    Figures are those that verifiers signed for these very weights. The lineage must hold the
    model's ancestors only. `usage`: how to use it, as its recipe says.
    """
    job = trained.job
    assert job.model is not None
    facts = [entry.fact for entry in trained.lineage.entries]
    visits = [fact for fact in facts if isinstance(fact, Visit)]
    lines = [
        f"# {job.job}",
        "",
        f"Trained by DA-ITN for {job.owner} with the recipe `{job.recipe}` "
        f"({job.needs.parameters:,} parameters, {job.model.size_bytes:,} bytes), "
        f"{_counted(visits)}. State of the job: {job.state}.",
        "",
        *(["## Use", "", usage.rstrip(), ""] if usage else []),
        "## Measured",
        "",
        "| metric | topic | measured | standard error | items | target | verifier |",
        "|---|---|---|---|---|---|---|",
    ]
    targets = {(o.metric, o.topic): f"{o.target}" for o in job.objectives}
    lines += [
        f"| {v.metric} | {v.topic} | {v.value:.4f} | {v.standard_error:.4f} | {v.items} "
        f"| {targets.get((v.metric, v.topic), '')} | {v.site} |"
        for v in facts
        if isinstance(v, Verification) and v.model == job.model.manifest
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
        f"Model digest `{job.model.manifest}` (BLAKE3 of its manifest). `lineage.json` holds "
        f"{_entries(len(facts))}, each signed by its site:",
        "",
    ]
    lines += [f"- {_entry_line(fact)}" for fact in facts]
    return "\n".join(lines) + "\n"


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
