"""The page: one file without scripts, links or external resources. Its size is bounded, and it
states what it leaves out."""

from __future__ import annotations

import time
from collections.abc import Iterator

from daitn.oam.pictures.drawing import STYLE
from daitn.oam.report.facts import ReportFacts
from daitn.oam.report.html import Safe, joined, section, table, tag
from daitn.oam.report.origin import lineage_section, privacy_section
from daitn.oam.report.progress import labels_section, progress_section, visits_section
from daitn.oam.report.reasons import algorithm_section, decisions_section, refused_section
from daitn.oam.report.worth import cost_section, value_section
from daitn.oam.words import size
from daitn.objects.jobs import JobState, JobView
from daitn.objects.text import counted

__all__ = ["POLICY", "page"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: nothing, so that text posing as code has no effect
either."""
_CSS = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--page:#f6f8fa;--card:#fff;
--edge:#d8dee4;--good:#1a7f37;--bad:#cf222e;--warn:#9a6700;--accent:#3b7dd8}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--page:#010409;
--card:#0d1117;--edge:#3d444d;--good:#3fb950;--bad:#f85149;--warn:#d29922;--accent:#58a6ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 ui-sans-serif,system-ui,
-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}
main{max-width:1040px;margin:0 auto;padding:24px 16px 56px}
h1{font-size:27px;line-height:1.25;margin:0 0 6px}h2{font-size:18px;margin:0 0 10px}
h3{font-size:14.5px;margin:18px 0 6px}p{margin:6px 0}ul{margin:6px 0;padding-left:20px}
section,.tiles>div{background:var(--card);border:1px solid var(--edge);border-radius:10px}
section{padding:18px 20px;margin-top:16px}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.badge{display:inline-block;border:1.5px solid currentColor;border-radius:99px;padding:1px 12px;
font-size:14px;font-weight:650;vertical-align:4px;margin-left:8px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;
margin-top:16px}
.tiles>div{padding:10px 14px}.tiles b{display:block;font-size:20px;line-height:1.3}
.tiles span{color:var(--soft);font-size:13px}
.scroll{overflow-x:auto;margin:8px 0}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:600;color:var(--soft);text-align:left;vertical-align:bottom}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--edge)}
td{vertical-align:top}td:not(.n){min-width:92px}td.n{min-width:30px}
tr:last-child td{border-bottom:0}.n{text-align:right;white-space:nowrap}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
svg.wide{display:block;width:100%;min-width:560px;height:auto}
svg .flow{stroke:var(--accent);opacity:.55}svg .flowhead{fill:var(--accent)}
svg .visited{fill:var(--accent);stroke:var(--card)}
.gain,.loss{border-radius:4px;padding:1px 6px;white-space:nowrap}
.meter{display:block;width:150px;height:12px}
ol.chain{list-style:none;margin:10px 0;padding:0}
ol.chain>li{position:relative;padding:0 0 16px 28px}
ol.chain>li::before{content:'';position:absolute;left:6px;top:6px;width:11px;height:11px;
border-radius:50%;background:var(--accent)}
ol.chain>li.made::before{border-radius:2px;transform:rotate(45deg)}
ol.chain>li.gap::before{background:var(--edge)}
ol.chain>li:not(:last-child)::after{content:'';position:absolute;left:11px;top:21px;bottom:-2px;
width:2px;background:var(--edge)}
.chips{margin:4px 0}.chips span{display:inline-block;border:1px solid var(--edge);
border-radius:99px;padding:0 9px;margin:2px 4px 2px 0;font-size:13px}
footer{color:var(--soft);font-size:13px;margin-top:20px}
@media(max-width:560px){section{padding:14px}h1{font-size:22px}table{font-size:13px}}
@media print{body{background:#fff}main{max-width:none;padding:0}
section{border:0;padding:8px 0}tr,li,svg{break-inside:avoid}h2,h3{break-after:avoid}
.scroll{overflow:visible}svg.wide{min-width:0}}
"""
_STATES = {
    JobState.REACHED: "good",
    JobState.EXHAUSTED: "warn",
    JobState.CANCELLED: "warn",
    JobState.INFEASIBLE: "bad",
    JobState.FAILED: "bad",
}


def page(facts: ReportFacts) -> str:
    """The report as HTML."""
    job = facts.job
    sections = [found for found in _sections(facts) if found]
    title = tag("title", f"{job.job}: report")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="referrer" content="no-referrer">{title}<style>{STYLE}{_CSS}</style>'
    )
    body = tag("main", *_heading(facts), *sections, _footer(facts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _sections(facts: ReportFacts) -> Iterator[Safe | None]:
    yield _targets(facts)
    yield progress_section(facts)
    yield visits_section(facts)
    yield labels_section(facts)
    yield value_section(facts)
    yield cost_section(facts)
    yield algorithm_section(facts)
    yield decisions_section(facts)
    yield refused_section(facts)
    yield privacy_section(facts)
    yield lineage_section(facts)


def _heading(facts: ReportFacts) -> Iterator[Safe]:
    job = facts.job
    badge = tag("span", str(job.state), class_=f"badge {_STATES.get(job.state, 'soft')}")
    yield tag("h1", job.job, badge)
    yield tag("p", _sentence(job), class_="lead")
    if job.error is not None:
        fix = f" {job.error.fix}" if job.error.fix else ""
        yield tag("p", f"{job.error.problem}.{fix}", class_="bad")
    started = _moment(job.submitted_at_s)
    yield tag(
        "p",
        joined(("Recipe ", tag("code", job.recipe), " for ", job.owner, f", submitted {started}.")),
        class_="soft",
    )
    reached = sum(objective.holds for objective in job.objectives)
    rounds = max((visit.round for visit in job.route), default=0)
    visits = f"in {counted(rounds, 'round')}" if rounds else job.algorithm
    tiles = (
        (f"{reached} of {len(job.objectives)}", "targets hold"),
        (_duration(job.seconds), "so far" if not job.state.final else "from submission to end"),
        (f"{len(job.route):,}", f"{counted(len(job.route), 'visit').split()[1]}, {visits}"),
        (f"{job.examples:,}", "training examples"),
        (size(job.bytes_moved), "moved between sites"),
        (f"{job.cost_usd:.2f} USD", "paid for data and compute"),
    )
    yield tag("div", *(tag("div", tag("b", a), tag("span", b)) for a, b in tiles), class_="tiles")


def _sentence(job: JobView) -> str:
    if not job.state.final:
        return f"The job is still running: {job.detail or job.sentence}."
    if job.state is JobState.REACHED:
        return "Every target holds, as independent verification units measured."
    sentence = job.sentence[:1].upper() + job.sentence[1:]
    why = job.detail.partition(";")[0]  # The rest is said below.
    return f"{sentence}: {why}." if why else f"{sentence}."


def _targets(facts: ReportFacts) -> Safe:
    rows = []
    for one in facts.job.objectives:
        before = facts.job.untrained.get(one.name)
        error = f" ± {one.standard_error:.3f}" if one.standard_error else ""
        verdict = ("good", "holds") if one.holds else ("bad", "missed")
        if one.reached is None:
            verdict = ("soft", "not measured")
        rows.append(
            (
                joined(
                    (tag("b", one.name), tag("div", f"{one.metric} on {one.topic}", class_="soft"))
                ),
                "-" if before is None else f"{before:.3f}",
                "-" if one.reached is None else tag("b", f"{one.reached:.3f}{error}"),
                f"{one.target:.3f}",
                tag("span", verdict[1], class_=verdict[0]),
                f"{one.items:,}" if one.items else "-",
                one.verifier or "-",
            )
        )
    columns = ("target", "before", "measured", "wanted", "", "test items", "measured by")
    note = (
        "± is one standard error. A value is the share of a private test set's items that the "
        "model got right. It is not evidence of fitness for any use."
    )
    return section(
        "targets", "Targets", table(columns, rows, (1, 2, 3, 5)), tag("p", note, class_="soft")
    )


def _footer(facts: ReportFacts) -> Safe:
    made = f"Made {_moment(facts.made_at_s)} by DA-ITN {facts.version}. "
    rest = "The page loads nothing and runs nothing. "
    json = joined(("All facts: ", tag("code", f"daitn report {facts.job.job} --json"), "."))
    return tag("footer", made, rest, json)


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
