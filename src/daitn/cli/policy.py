"""`daitn policy`: what a data owner's policy allows, and why."""

from __future__ import annotations

import zoneinfo
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml
from rich.console import Group

from daitn.cli.describe_pages import words_of
from daitn.cli.session import ExitCode, JsonOption, print_json, run, screen
from daitn.cli.tables import plain_table
from daitn.cli.times import moment
from daitn.node.config import PolicyConfig, read_policy
from daitn.objects.access import AccessRequest, DailyUsage, Ruling, refusals, rulings
from daitn.objects.descriptors import ANY
from daitn.objects.opening_hours import is_open
from daitn.objects.privacy import PrivacyDemand
from daitn.objects.wire import to_json
from daitn.tools import clock

__all__ = ["app"]

app = typer.Typer(help="A data owner's policy.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="Policy file (YAML).")]


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one rule, and its position in the file."""

    rule: str
    line: int | None
    """Line of the file, from 1; `None` means the rule's default, which the file does not change."""
    allowed: bool
    reason: str
    fix: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's answer to a request."""

    allowed: bool
    rules: tuple[RuleReport, ...]


@app.command()
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Check a policy file, and explain in plain words what it allows.

    Example: daitn policy check policy.yaml
    """
    policy = run(_read(file))
    if as_json:
        print_json(to_json(policy))
    else:
        screen.print(_page(policy))


@app.command()
def explain(
    file: FileArgument,
    owner: Annotated[str, typer.Option(help="Owner of the model.")],
    recipe: Annotated[str, typer.Option(help="Recipe that trains or measures it.")],
    purpose: Annotated[str, typer.Option(help="Purpose that its intent states.")] = "",
    at: Annotated[
        str,
        typer.Option(help="Time in the policy's time zone: `2026-11-27 10:00`; by default now."),
    ] = "",
    examples: Annotated[
        int, typer.Option(min=0, help="Examples of the visit; 0 means any number.")
    ] = 0,
    measure: Annotated[
        bool, typer.Option("--measure", help="It is a measurement on a test set.")
    ] = False,
    start: Annotated[
        bool, typer.Option("--start", help="The model starts from weights supplied by its owner.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show whether a policy allows something, and which line of the file decides.

    Limits by day are judged as if nothing was used yet. Ends with exit code 3 if it is refused.

    Examples:

      daitn policy explain policy.yaml --owner acme --recipe causal-lm

      daitn policy explain policy.yaml --owner acme --recipe causal-lm \
--purpose research --at "2026-11-27 22:00" --examples 5000
    """
    request = AccessRequest(
        owner, recipe, purpose, examples or (0 if measure else 1), measure, start
    )
    explanation = run(_explained(file, request, at, enough=examples == 0 or measure))
    if as_json:
        print_json(to_json(explanation))
    else:
        rows = [
            (
                "allowed" if each.allowed else "refused",
                f"{file.name}:{each.line}" if each.line else "by default",
                f"{each.rule}: the data owner {each.reason}",
                each.fix,
            )
            for each in explanation.rules
        ]
        word = "allowed" if explanation.allowed else "refused"
        screen.print(plain_table(word, ("", "line", "rule", "what helps"), rows))
    if not explanation.allowed:
        raise typer.Exit(ExitCode.INFEASIBLE)


async def _read(file: Path) -> PolicyConfig:
    return read_policy(file)


async def _explained(file: Path, request: AccessRequest, at: str, *, enough: bool) -> Explanation:
    policy = read_policy(file)
    now_s = clock.wall_s()
    at_s = moment(at, "--at", now_s, now_s, zone=zoneinfo.ZoneInfo(policy.time_zone))
    ruled = list(rulings(policy, policy.limits, request, DailyUsage(), at_s))
    if not enough:
        ruled.append(_enough(policy, request.examples))
    lines = _lines(file)
    return Explanation(
        allowed=not refusals(tuple(ruled)),
        rules=tuple(
            RuleReport(
                rule=each.rule,
                line=lines.get(each.rule),
                allowed=each.allowed,
                reason=each.reason,
                fix=each.fix,
            )
            for each in ruled
        ),
    )


def _enough(policy: PolicyConfig, examples: int) -> Ruling:
    least = policy.least_records
    allowed = examples >= least
    fix = "" if allowed else f"train on at least {least}"
    return Ruling("least_records", allowed, f"takes visits on at least {least} examples", fix=fix)


def _lines(file: Path) -> dict[str, int]:
    """The line of each field of a policy file that `read_policy` accepts, by its path."""
    found: dict[str, int] = {}
    parts = [("", yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader))]
    for prefix, node in parts:
        if not isinstance(node, yaml.MappingNode):
            continue
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            found[path] = key.start_mark.line + 1
            parts.append((f"{path}.", value))
    return found


def _page(policy: PolicyConfig) -> Group:
    hours = "any"
    if ANY not in policy.hours:
        now = "open" if is_open(policy.hours, policy.time_zone, clock.wall_s()) else "closed"
        hours = f"{words_of(policy.hours)} by the clock of {policy.time_zone}; {now} now"
    published = [
        ("recipes", words_of(policy.recipes)),
        ("models of", words_of(policy.owners)),
        ("purposes", words_of(policy.purposes)),
        ("start models of their owners", "yes" if policy.start_models else "no"),
        ("work begins", hours),
        ("trained models may travel to", words_of(policy.release_to)),
        ("differential privacy of weights", _demanded(policy.privacy)),
        ("sums with other sites' alone", "yes" if policy.secure_aggregation else "no"),
    ]
    limits = policy.limits
    private = [
        ("visits of one owner in a day", _most(limits.visits_per_day)),
        ("their examples", _most(limits.examples_per_day)),
        ("measurements of one owner in a day", _most(limits.measurements_per_day)),
        ("computing time in a day, of all", _most(limits.compute_s_per_day, " s")),
        ("sandbox must have", ", ".join(policy.sandbox.required) or "nothing in particular"),
    ]
    leaves = [
        ("counts, losses and measured values", f"over at least {policy.least_records} records"),
        (
            "measured values per label",
            "yes, of labels with as many" if policy.label_values else "no",
        ),
        ("wording of questions", "as hashed counts" if policy.sketch else "no"),
        (
            "trained weights",
            "yes, to all who may hold the model: they can remember records"
            + (", within epsilon" if policy.privacy else ""),
        ),
        ("records", "never"),
    ]
    return Group(
        plain_table("allowed, and published", ("", ""), published),
        plain_table("limits, which stay at the site", ("", ""), private),
        plain_table("what leaves", ("", ""), leaves),
    )


def _demanded(demand: PrivacyDemand | None) -> str:
    if demand is None:
        return "as the model's owner wishes"
    return (
        f"epsilon {demand.epsilon_per_visit:g} a visit, {demand.epsilon_total:g} of all visits "
        f"ever, delta {demand.delta:g}"
    )


def _most(number: float | None, unit: str = "") -> str:
    return "any number" if number is None else f"at most {number:,g}{unit}"
