"""What the job cost, and what each data set contributed."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from daitn.oam.pictures.drawing import box, line
from daitn.oam.pictures.visits import LOSS_COLOUR, objective_colour
from daitn.oam.report.facts import ReportFacts
from daitn.oam.report.html import Safe, joined, section, table, tag
from daitn.oam.words import size, value_words
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Merge, Verification, Visit
from daitn.objects.value import Credit

__all__ = ["cost_section", "value_section"]

_MOST_SITES = 24
_BAR = 150.0


@dataclass
class _Cost:
    visits: int = 0
    examples: int = 0
    training_s: float = 0.0
    moving_s: float = 0.0
    other_s: float = 0.0
    measuring_s: float = 0.0
    bytes_in: int = 0
    cost_usd: float = 0.0

    def add(self, other: _Cost) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def row(self, name: str) -> tuple[str, ...]:
        return (
            name,
            f"{self.visits:,}",
            f"{self.examples:,}",
            f"{self.training_s:.1f}",
            f"{self.moving_s:.1f}",
            f"{self.measuring_s:.1f}",
            f"{self.other_s:.1f}",
            size(self.bytes_in),
            f"{self.cost_usd:.2f}",
        )


def cost_section(facts: ReportFacts) -> Safe | None:
    """Seconds, examples, bytes and money, by site."""
    costs: dict[SiteId, _Cost] = defaultdict(_Cost)
    for visit in facts.job.route:
        costs[visit.site].add(
            _Cost(
                visits=1,
                examples=visit.work,
                training_s=visit.seconds,
                moving_s=visit.transfer_s,
                other_s=visit.overhead_s,
                cost_usd=visit.cost_usd,
            )
        )
    for entry in facts.entries:
        fact = entry.fact
        if isinstance(fact, Verification):
            costs[fact.site].add(
                _Cost(measuring_s=fact.seconds, moving_s=fact.transfer_s, bytes_in=fact.bytes_in)
            )
        elif isinstance(fact, Merge):
            costs[fact.site].add(
                _Cost(other_s=fact.seconds + fact.overhead_s, moving_s=fact.transfer_s)
            )
            costs[fact.site].bytes_in += fact.bytes_in
        elif isinstance(fact, Visit):
            costs[fact.site].bytes_in += fact.bytes_in
    if not costs:
        return None
    order = sorted(
        costs, key=lambda site: (-costs[site].training_s, -costs[site].measuring_s, site)
    )
    rows = [costs[site].row(site) for site in order[:_MOST_SITES]]
    total, rest = _Cost(), _Cost()
    for number, site in enumerate(order):
        total.add(costs[site])
        if number >= _MOST_SITES:
            rest.add(costs[site])
    if len(order) > _MOST_SITES:
        rows.append(rest.row(f"{len(order) - _MOST_SITES:,} other sites"))
    rows.append(total.row("together"))
    seconds = ("training s", "moving s", "measuring s", "other s")
    columns = ("site", "visits", "examples", *seconds, "received", "USD")
    checks_usd = facts.job.cost_usd - total.cost_usd
    besides = f"; merging, measuring and visits without a model cost {checks_usd:.2f} besides"
    besides = besides if checks_usd > 0 else ""
    note = (
        "Seconds of work at each site. Sites may work at the same time, so these do not sum to the "
        "job's duration. Received: what travelled; parts that a site had are not in it. USD: of "
        f"visits{besides}."
    )
    return section(
        "cost",
        "What it cost",
        table(columns, rows, range(1, len(columns))),
        tag("p", note, class_="soft"),
    )


def value_section(facts: ReportFacts) -> Safe | None:
    """Contributions with their errors."""
    value = facts.value
    note = tag("p", value_words(value), class_="soft")
    if not value.credits:
        return section("value", "What each data set brought", note) if facts.job.route else None
    names = [objective.name for objective in facts.job.objectives if objective.name in value.gain]
    reach = max(
        (
            abs(credit.value[name]) + credit.standard_error[name]
            for credit in value.credits
            for name in names
        ),
        default=1.0,
    )
    rows = [
        (
            joined((tag("b", credit.site), tag("div", _about(credit), class_="soft"))),
            f"{credit.visits:,}",
            f"{credit.examples:,}",
            *(_part(facts, credit, name, reach or 1.0) for name in names),
        )
        for credit in value.credits[:_MOST_SITES]
    ]
    left = value.credits[_MOST_SITES:]
    if left:
        sums = (f"{math.fsum(credit.value[name] for credit in left):+.3f}" for name in names)
        visits, examples = (sum(getattr(c, n) for c in left) for n in ("visits", "examples"))
        rows.append((f"{len(left):,} other data sets", f"{visits:,}", f"{examples:,}", *sums))
    rows.append(
        (tag("b", "together"), "", "", *(tag("b", f"{value.gain[name]:+.3f}") for name in names))
    )
    columns = ("data", "visits", "examples", *names)
    return section("value", "What each data set brought", table(columns, rows, (1, 2)), note)


def _about(credit: Credit) -> str:
    of = f" of {credit.owner}" if str(credit.owner) != str(credit.site) else ""
    return f"{credit.dataset}{of}"


def _part(facts: ReportFacts, credit: Credit, name: str, reach: float) -> Safe:
    """A bar from the middle, with one standard error, above the number."""
    value, error = credit.value[name], credit.standard_error[name]
    scale, middle = _BAR / 2 / reach, _BAR / 2
    colour = objective_colour(facts.job, name) if value >= 0 else LOSS_COLOUR
    left = middle + min(0.0, value) * scale
    body = (
        line(complex(middle, 0), complex(middle, 12), class_="axis")
        + box(left, 2.0, max(0.8, abs(value) * scale), 8.0, rx=2, fill=colour)
        + line(
            complex(middle + (value - error) * scale, 6),
            complex(middle + (value + error) * scale, 6),
            class_="axis",
            stroke_width=1.5,
        )
    )
    sign = "+" if value >= 0 else "−"
    words = f"{sign}{abs(value):.3f} ± {error:.3f}"
    return joined(
        (
            Safe(f'<svg class="meter" viewBox="0 0 {_BAR:.0f} 12" aria-hidden="true">{body}</svg>'),
            tag("span", words, class_="bad" if value < -2 * error else "n"),
        )
    )
