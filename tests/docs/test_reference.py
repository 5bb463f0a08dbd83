"""The reference is what the code says: tables are made from types, and no type lacks its table."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import daitn
from daitn.cli.schemas import FILES, File, json_schema, structs_in
from daitn.control.queries.scoring import QIRCE
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.classifier.config import ClassifierConfig
from daitn.node.forwarder.query_service import PacketQuestion, PacketReply
from daitn.oam.docstring_values import filled, stale
from daitn.oam.field_docs import field_docs
from daitn.objects import agents, lineage, messages, requests, statements, steering
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.header_names import AnswerHeader, PeerHeader
from daitn.objects.intents import WALKERS
from daitn.objects.merging import PULL
from daitn.objects.queries import QueryConstraints
from daitn.openai.codes import CODES
from daitn.openai.query_needs import TOKENS_PER_LOW_DETAIL
from daitn.steering.wire import intent, offers, replies
from daitn.steering.wire.replies import Reason
from daitn.tools.fabric import keys
from scripts.reference import commands
from scripts.reference.defaults import stale_defaults
from scripts.reference.fabric import handlers
from scripts.reference.pages import DOCS, REFERENCE, marks, rewritten, values
from scripts.reference.rows import NoTable
from scripts.reference.tables import TABLES, named

SOURCES = Path(daitn.__file__).parent
PAGES = sorted(REFERENCE.glob("*.md"))
MARKED = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- " in page.read_text()]
MARKS = [words for page in PAGES for words in marks(page.read_text())]


def published(struct: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """What a descriptor holds, without the lineage of models, of which others write."""
    of_lineage = {*structs_in(lineage.Entry)}
    return (kind for kind in structs_in(struct) if kind not in of_lineage)


SHOWN: tuple[type[msgspec.Struct], ...] = (
    *(struct for file in FILES.values() for struct in structs_in(file)),
    ClassifierConfig,
    CausalLmConfig,
    QueryConstraints,
    intent.PacketIntent,
    replies.Refusal,
    *(offers.Update, offers.SeqnoRequest, offers.Greeting),
    *(offers.RouteEntry, offers.Offer),
    *(PacketQuestion, PacketReply),
    *published(NodeDescriptor),
    *(agents.Agent, agents.DatedFact, agents.AgentReport),
)
"""Whoever writes a file, a query or a packet needs these."""


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    text = page.read_text()
    assert text == rewritten(text), "write it anew: python -m scripts.reference"


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.name)
def test_no_line_begins_with_a_value(page: Path) -> None:
    """A comment there would end the paragraph."""
    assert not re.search(r"(?m)^\s*<!-- = ", page.read_text())


def test_a_value_in_a_sentence_is_that_of_the_code() -> None:
    name = "openai.query_needs.TOKENS_PER_LOW_DETAIL"
    mark = f"<!-- = {name} -->"
    assert values(f"It is {mark}7<!-- end --> tokens.") == [name]
    written = rewritten(f"It is {mark}7<!-- end --> tokens.")
    assert written == f"It is {mark}{TOKENS_PER_LOW_DETAIL}<!-- end --> tokens."
    with pytest.raises(LookupError):
        rewritten("<!-- = openai.query_needs.NO_SUCH -->7<!-- end -->")


@pytest.mark.parametrize(
    ("page", "head", "names"),
    [
        ("run-a-forwarder.md", "| reason | meaning | what to check |", [*Reason.__members__]),
        ("hand-a-model-over.md", "| `predicateType` | subject |", [*statements._TYPES.values()]),
    ],
)
def test_a_table_with_advice_on_each_member_lacks_none(
    page: str, head: str, names: list[str]
) -> None:
    _, _, table = (DOCS / "how-to" / page).read_text().partition(head)
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == names


def test_no_field_states_a_default_as_a_number() -> None:
    assert list(stale_defaults()) == []


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("For `gossip`: how many; by default 4.", "by default 4"),
        ("By default `127.0.0.1:7489` for a node.", "By default `127.0.0.1:7489` for a node"),
        ("In place of the defaults: `accuracy` 2.", "In place of the defaults: `accuracy` 2"),
        ("FedProx, Li et al. 2020; by default {PULL} on routes.", ""),
        ("At most 10^9. By default nothing.", ""),
    ],
)
def test_a_default_stated_as_a_number_is_found(text: str, clause: str) -> None:
    assert stale(text) == clause


def test_a_name_in_a_text_is_replaced_by_its_value() -> None:
    module = "daitn.objects.intents"
    assert filled("by default {WALKERS}", module) == f"by default {WALKERS}"
    assert filled("{objects.merging.PULL} and {age: [0, 100]}", module) == (
        f"{PULL} and {{age: [0, 100]}}"
    )
    docs = field_docs(QueryConstraints)["prefer"]
    for scorer, weight in QIRCE.weights.items():
        assert f"`{scorer}` {weight:g}" in docs
    with pytest.raises(LookupError):
        filled("{NO_SUCH}", module)


OF_MEASUREMENTS = {"benchmarks.md", "glossary.md"}
"""Pages whose tables are no facts of the code."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_is_made_from_the_code(page: Path) -> None:
    made = False
    for line in page.read_text().splitlines():
        if line.startswith("<!-- "):
            made = line.startswith("<!-- generated")
        assert made or page.name in OF_MEASUREMENTS or not line.startswith("|"), line


def test_nothing_lies_in_a_state_folder_under_a_name_of_its_own() -> None:
    """What a process keeps is in the reference: names come from `files/state_folder.py`."""
    own = re.compile(r"""\b(state|\.state\)?|state\)) / f?["'](?!\{)""")
    found = [path for path in SOURCES.rglob("*.py") if own.search(path.read_text())]
    assert not found


def test_every_struct_that_somebody_writes_has_a_table() -> None:
    shown = {named(words[1]) for words in MARKS if words[0] in ("fields", "array", "map")}
    assert set(SHOWN) <= shown


@pytest.mark.parametrize("file", FILES)
def test_a_schema_describes_every_field(file: File) -> None:
    described = json_schema(FILES[file])["$defs"]
    for struct in structs_in(FILES[file]):
        for field, text in field_docs(struct).items():
            assert described[struct.__name__]["properties"][field]["description"] == text
        assert set(field_docs(struct)) == set(struct.__struct_fields__)


def test_every_command_has_a_table() -> None:
    shown = {" ".join(words[1:]) for words in MARKS if words[0] == "command"}
    known = {path for path, _ in commands.commands()}
    assert known - shown == {"daitn version"}
    text = (REFERENCE / "command-line.md").read_text()
    for path in known:
        assert f"### `{path}`\n" in text


@pytest.mark.parametrize(
    ("mark", "problem"),
    [
        ("command topology show", "no command is called by `topology show`"),
        ("commands daitn up", "no table is of the kind `commands`"),
    ],
)
def test_a_mark_of_no_table_is_told_in_a_sentence(mark: str, problem: str) -> None:
    with pytest.raises(NoTable, match=problem):
        rewritten(f"<!-- generated: {mark} -->\n<!-- end -->")


def test_preferences_name_every_scorer_with_its_weight() -> None:
    told = re.sub(r"\s+", " ", field_docs(QueryConstraints)["prefer"])
    for name, weight in QIRCE.weights.items():
        assert f"`{name}` {weight:g}" in told


def test_every_option_says_what_it_means() -> None:
    for path, _ in commands.commands():
        for row in TABLES["command"](*path.split()):
            assert all(row), f"{path} {row[0]}"


def test_the_list_of_keys_is_what_the_functions_make() -> None:
    names = {"site": "s", "job": "j", "verb": "v", "mark": "m"}
    listed = {row[0].strip("`").format(**names) for row in TABLES["keys"]()[1:]}
    makers = [getattr(keys, name) for name in keys.__all__ if _makes_a_key(name)]
    made = {make(*(names[each] for each in inspect.signature(make).parameters)) for make in makers}
    assert listed == made | {keys.ROSTER, keys.NEWER_ROSTER}


def _makes_a_key(name: str) -> bool:
    """Others are patterns, or read keys."""
    return name == "job_event" or (name.startswith(("center_", "site_")) and name != "site_of")


@pytest.mark.parametrize("who", ["center", "node", "home"])
def test_a_verb_asks_what_its_handler_reads(who: str) -> None:
    rows = TABLES["verbs"](who)[1:]
    assert len(rows) >= 6
    for (verb, handler), row in zip(handlers(who), rows, strict=True):
        read = re.findall(r"decode\(payload, (\w+)\)", ast.unparse(handler))
        assert row[0] == f"`{verb}`"
        assert row[1] == (f"`{read[0]}`" if read else row[1])


def test_every_message_is_in_the_reference() -> None:
    text = (REFERENCE / "wire.md").read_text()
    for name in (name for module in (messages, requests, steering) for name in module.__all__):
        assert f"`{name}`" in text, name


def test_every_header_is_in_its_list() -> None:
    listed = {
        value
        for kind in (AnswerHeader, PeerHeader)
        for name, value in vars(kind).items()
        if name.isupper()
    }
    nodes = [node for tree in _trees() for node in ast.walk(tree)]
    named = {
        vars(kind)[node.attr]
        for node in nodes
        for kind in (AnswerHeader, PeerHeader)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == kind.__name__
    }
    assert named == listed
    assert not listed & {node.value for node in nodes if isinstance(node, ast.Constant)}


def test_every_error_of_the_api_is_in_its_list() -> None:
    pairs = {pair for tree in _trees() for node in ast.walk(tree) for pair in _pairs(node)}
    raised = {(status, code) for status, code in pairs if 400 <= status < 600}
    assert raised == {(code.status, code.code) for code in CODES}


def _trees() -> Iterator[ast.Module]:
    """The code that answers queries, but for the list of errors itself."""
    for file in sorted((SOURCES / "node").rglob("*.py")):
        if file.name != "codes.py":
            yield ast.parse(file.read_text())


def _pairs(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Status and code, where an error is made, or in a literal table of either kind."""
    match node:
        case ast.Call(
            func=ast.Name(id="ApiError"),
            args=[ast.Constant(value=int(status)), ast.Constant(value=str(code)), *_],
        ):
            yield status, code
        case ast.Call(func=ast.Name(id="unsupported")):
            yield 400, "unsupported"
        case ast.Call(
            func=ast.Name(id="bad_request"),
            keywords=[*_, ast.keyword(arg="status", value=ast.Constant(value=int(status)))],
        ):
            yield status, "invalid_request"
        case ast.Tuple(elts=[ast.Constant(value=int(status)), ast.Constant(value=str(code))]):
            yield status, code
        case ast.Dict(keys=codes, values=statuses):
            for key, value in zip(codes, statuses, strict=True):
                match key, value:
                    case ast.Constant(value=str(code)), ast.Constant(value=int(status)):
                        yield status, code
