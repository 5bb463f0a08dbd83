"""The model card of an exported model (Mitchell et al., FAT* 2019)."""

from __future__ import annotations

from daitn.objects.lineage import Origin, Verification, Visit
from daitn.objects.requests import TrainedModel

__all__ = ["model_card"]


def model_card(trained: TrainedModel) -> str:
    """Markdown: what the model is, its verified measurements, and where it learned."""
    job = trained.job
    assert job.model is not None
    lines = [
        f"# {job.job}",
        "",
        f"Trained by DA-ITN for {job.owner} with the recipe `{job.recipe}` "
        f"({job.needs.parameters:,} parameters, {job.model.size_bytes:,} bytes), "
        f"{job.algorithm} over {len(job.route)} visits. State of the job: {job.state}.",
        "",
        "## Measured",
        "",
        "| objective | metric | topic | reached | standard error | items | target | verifier |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {o.name} | {o.metric} | {o.topic} | {o.reached:.4f} | {o.standard_error:.4f} "
        f"| {o.items} | {o.target} | {o.verifier} |"
        for o in job.objectives
        if o.reached is not None and o.standard_error is not None
    ]
    lines += [
        "",
        "These figures are results on the verifiers' private test sets, and "
        "nothing more: they are no proof of fitness for any use.",
        "",
        "## Where it learned",
        "",
        "| site | data set | examples | loss |",
        "|---|---|---|---|",
    ]
    lines += [f"| {v.site} | {v.dataset} | {v.work} | {_loss(v.loss)} |" for v in job.route]
    lines += [
        "",
        "## Lineage",
        "",
        f"Model digest `{job.model.manifest}` (BLAKE3 of its manifest). `lineage.json` holds "
        f"{len(trained.lineage.entries)} entries, each signed by its site:",
        "",
    ]
    lines += [f"- {_entry_line(entry.fact)}" for entry in trained.lineage.entries]
    return "\n".join(lines) + "\n"


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3g}"


def _entry_line(fact: Origin | Visit | Verification) -> str:
    match fact:
        case Origin():
            return f"`{fact.visit}` made at {fact.site}, seed {fact.seed}"
        case Visit():
            return f"`{fact.visit}` trained at {fact.site} on {fact.examples} examples"
        case Verification():
            return f"`{fact.visit}` measured by {fact.site}: {fact.topic} {fact.value:.4f}"
