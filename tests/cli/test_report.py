"""A report says all there is to say of a job, and is safe to open, whatever the job is called."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import msgspec
import pytest
from rich.console import Console

from daitn.cli.tables import job_table
from daitn.oam.report.facts import Proof, ReportFacts
from daitn.oam.report.html import Safe, inline, table, tag
from daitn.oam.report.page import page
from daitn.oam.words import setback_lines
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.jobs import JobState, Setback, VisitView
from daitn.objects.lineage import Entry, Visit
from daitn.objects.privacy import NoiseMechanism, PrivacySpent
from daitn.objects.value import Contributions, ValueOfData
from daitn.objects.wire import checked, to_json
from tests.cli.reported import RouteWorld, a_route, facts_of, rounds
from tests.control.jobs.test_rounds import is_visit_at
from tests.scenes.command_line import daitn

VOID = {"meta"}
EVIL = "<script>alert(1)</script>\"'&amp;"
ODD = ("مستشفى الملك", "病院🏥", "x‮txt.exe", EVIL)


class Read(HTMLParser):
    """What a browser would see: elements that close each other, attributes, and text."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(written)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"

    def section(self, id_: str) -> bool:
        return ("section", {"id": id_}) in self.tags


def read(facts: ReportFacts) -> Read:
    return Read(page(facts))


def test_a_report_tells_what_was_reached_where_and_at_what_cost() -> None:
    facts = a_route()
    seen = read(facts)
    for id_ in ("targets", "route", "visits", "labels", "value", "cost", "decisions", "lineage"):
        assert seen.section(id_), id_
    for objective in facts.job.objectives:
        assert f"{objective.reached:.3f}" in seen.text
    for words in ("ninds", "ghr hospital", "by size, 2 epochs a visit", "14 s (84%)", "migraine"):
        assert words in seen.text
    assert "lets no model leave CH" in seen.text
    assert "All " in seen.text
    assert not seen.section("privacy"), "no visit was private"


def test_a_report_loads_and_runs_nothing() -> None:
    for facts in (a_route(), rounds()):
        seen = read(facts)
        names = {name for name, _ in seen.tags}
        assert not names & {"script", "link", "img", "iframe", "object", "base", "form", "image"}
        for name, attributes in seen.tags:
            assert not {"src", "href", "action", "srcdoc"} & attributes.keys(), name
            assert not any(key.startswith("on") for key in attributes)
            assert "url(" not in (attributes.get("style") or "")
        policies = [a["content"] for n, a in seen.tags if a.get("http-equiv")]
        assert policies
        assert policies[0]
        assert "default-src 'none'" in policies[0]
        assert "url(" not in page(facts)
        assert "@import" not in page(facts)


@pytest.mark.parametrize("odd", ODD)
def test_names_from_the_network_are_text(odd: str) -> None:
    facts = a_route()
    name = odd
    route = tuple(msgspec.structs.replace(v, site=name, dataset=name) for v in facts.job.route)
    objectives = tuple(
        msgspec.structs.replace(o, verifier=name, topic=name) for o in facts.job.objectives
    )
    job = msgspec.structs.replace(
        facts.job,
        owner=name,
        recipe=name,
        detail=name,
        route=route,
        objectives=objectives,
        excluded=(name,),
        setbacks=(Setback(site=SiteId(name), reason=name, times=1, at_s=facts.job.submitted_at_s),),
        state=JobState.FAILED,
        error=ErrorReport(code="WorkFailed", problem=name, fix=name),
    )
    credits_ = tuple(
        msgspec.structs.replace(c, site=name, owner=name, dataset=name) for c in facts.value.credits
    )
    value = msgspec.structs.replace(facts.value, credits=credits_, why=name)
    odd_facts = msgspec.structs.replace(
        facts, job=job, value=value, proof=Proof(holds=False, sentence=name)
    )
    seen = read(odd_facts)
    assert "script" not in {tag for tag, _ in seen.tags}
    assert "‮" not in page(odd_facts)
    assert name.replace("‮", r"\u202e") in seen.text


def test_members_that_were_set_back_are_told_with_reason_and_time() -> None:
    facts = a_route()
    site, at_s = SiteId("quack"), facts.job.submitted_at_s + 90.0
    held = Setback(site=site, reason="its update points backwards", times=2, at_s=at_s)
    job = msgspec.structs.replace(facts.job, setbacks=(held,), excluded=(site,))
    line = "quack: its update points backwards (2 times), 90 s after it began; left out"
    assert line in read(msgspec.structs.replace(facts, job=job)).text
    assert setback_lines(job) == [line]
    console = Console(file=io.StringIO(), width=200)
    console.print(job_table(job))
    assert isinstance(console.file, io.StringIO)
    assert f"set back: {line}" in console.file.getvalue()


def test_what_is_not_marked_as_safe_is_escaped() -> None:
    assert inline("<b>") == "&lt;b&gt;"
    assert tag("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'
    assert "<i>" not in table(("<i>",), [("<i>",)])
    assert inline(Safe("<b>")) == "<b>"
    assert inline("שלום").startswith("<bdi>")


def test_rounds_are_told_as_rounds_with_contributions_and_their_errors() -> None:
    facts = rounds()
    assert facts.value.method is Contributions.SHAPLEY
    seen = read(facts)
    assert "3 sites at once" in seen.text
    assert "divided by Shapley values" in seen.text
    for credit in facts.value.credits:
        assert f"± {credit.standard_error['broad']:.3f}" in seen.text
    assert "merged at" in seen.text


def test_a_job_without_any_model_has_a_report() -> None:
    world = RouteWorld(("ghr",))
    facts = facts_of(world)
    assert read(facts).section("targets")
    assert "still running" in read(facts).text
    failed = msgspec.structs.replace(facts.job, state=JobState.INFEASIBLE, detail="no data")
    none = ValueOfData(job=facts.job.job, method=Contributions.NONE, why="nothing")
    seen = read(msgspec.structs.replace(facts, job=failed, value=none))
    assert "no data" in seen.text
    assert not seen.section("route")


def test_a_job_that_runs_has_a_report_at_any_moment() -> None:
    world = RouteWorld(("ghr", "gard", "ninds"))
    world.run_until(is_visit_at("gard"))
    assert "still running" in read(facts_of(world)).text
    while world.step():
        read(facts_of(world))


def test_one_visit_has_a_report() -> None:
    assert "1 visits" not in read(a_route(("ghr",))).text


def test_what_private_visits_may_tell_is_summed_by_data_set() -> None:
    facts = a_route(("ghr", "gard", "ghr"))
    spent = iter((0.5, 0.25))

    def with_privacy(entry: Entry) -> Entry:
        if not isinstance(entry.fact, Visit) or entry.fact.site != "ghr":
            return entry
        mechanism = NoiseMechanism(rate=0.1, noise=1.5, steps=100)
        privacy = PrivacySpent(epsilon=next(spent), delta=1e-5, clip=1.0, mechanism=mechanism)
        fact = msgspec.structs.replace(entry.fact, privacy=privacy)
        return msgspec.structs.replace(entry, fact=fact)

    entries = tuple(map(with_privacy, facts.entries))
    seen = read(msgspec.structs.replace(facts, entries=entries))
    assert seen.section("privacy")
    told = seen.text.split("Privacy spent")[1]
    assert re.search(r"ghr\s+\S+\s+2\s+0\.5\s+0\.75\s+2e-05", told)
    assert "1 visit had no such bound" in told


def long_job(visits: int) -> ReportFacts:
    """The facts of a short job, with its last visits over and over."""
    facts = a_route()
    route = list[VisitView]()
    for number in range(visits):
        visit = facts.job.route[number % len(facts.job.route)]
        route.append(
            msgspec.structs.replace(
                visit,
                model=Digest(f"{number:064x}"),
                site=f"site{number % 700}",
            )
        )
    many = facts.decisions * (visits // len(facts.decisions))
    job = msgspec.structs.replace(facts.job, route=tuple(route))
    return msgspec.structs.replace(facts, job=job, decisions=many)


def test_four_thousand_visits_fit_into_a_page_that_says_what_it_leaves_out() -> None:
    short, long = page(long_job(100)), page(long_job(4000))
    assert len(long) < 300_000
    assert len(long) < 2.5 * len(short)
    seen = Read(long)
    assert re.search(r"3,960 of 4,000 stages are left out", seen.text)
    assert "decisions are left out" in seen.text
    assert "18 most visited of 700 sites are drawn" in seen.text


@pytest.mark.parametrize("folder", ["", "."])
def test_a_folder_is_no_file_for_a_report(folder: str) -> None:
    ended = daitn("report", "qa-1", "-o", folder)
    assert ended.returncode == 2
    assert "--out" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_all_facts_go_out_as_json() -> None:
    facts = rounds()
    assert checked(msgspec.json.decode(to_json(facts)), ReportFacts, "report") == facts
