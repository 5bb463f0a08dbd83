"""Facts that are signed once, and kept and passed on by others, of earlier releases too."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daitn.identity.audit import check_record, line_of, recorded
from daitn.identity.keys import SigningKey
from daitn.identity.signing import check_entry, check_model, sign_entry
from daitn.identity.statements import check_statement, sign_statement
from daitn.objects.audit import START, AuditEntry, AuditEvent
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.jobs import JobEvent, Reported
from daitn.objects.lineage import (
    MOST_LABELS,
    Entry,
    Lineage,
    LineageFact,
    Merge,
    Origin,
    Verification,
    Visit,
)
from daitn.objects.merging import MergeRule
from daitn.objects.messages import VerifyWork, Work, WorkOutcome, WorkReport, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.orders import Order
from daitn.objects.privacy import NoiseMechanism, PrivacySpent
from daitn.objects.unknown_fields import MOST_MORE, MOST_MORE_BYTES
from daitn.objects.wire import canonical, decode, encode, to_json

KEY = SigningKey.of(bytes(range(32)))
JOB, SITE = JobId("j-1"), SiteId("ghr")
FRESH, FIRST, MERGED = (Digest(digit * 64) for digit in "012")

ORIGIN = Origin(
    job=JOB, visit=VisitId("v-0"), site=SITE, at_s=1.0, recipe="classifier", seed=7, model=FRESH
)  # fmt: skip
VISIT = Visit(
    job=JOB, visit=VisitId("v-1"), site=SITE, dataset="notes", at_s=2.0, seconds=1.5,
    transfer_s=0.25, overhead_s=0.5, bytes_in=10, examples=60, loss=0.125, model_in=FRESH,
    model_out=FIRST, size_bytes=100, release_to=("US",),
    privacy=PrivacySpent(
        epsilon=1.0, delta=1e-5, clip=1.0, mechanism=NoiseMechanism(rate=0.5, noise=2.0, steps=3)
    ),
)  # fmt: skip
MERGE = Merge(
    job=JOB, visit=VisitId("v-2"), site=SITE, at_s=3.0, seconds=0.5, transfer_s=0.5,
    overhead_s=0.25, bytes_in=200, base=FRESH, models=(FIRST,), shares=(60,), rule=MergeRule(),
    model_out=MERGED, size_bytes=100,
)  # fmt: skip
MEASURED = Verification(
    job=JOB, visit=VisitId("v-3"), site=SITE, at_s=4.0, seconds=0.5, transfer_s=0.5, bytes_in=100,
    model=MERGED, topic="colds", metric="accuracy", value=0.75, items=40, standard_error=0.05,
    by_label={"yes": 0.5, "no": 1.0},
)  # fmt: skip
FACTS: tuple[LineageFact, ...] = (ORIGIN, VISIT, MERGE, MEASURED)
AUDITED = AuditEntry(
    number=1, at_s=1000.0, event=AuditEvent.MEASURED, values={"b": 1.0, "a": 0.5}
)  # fmt: skip

names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
single = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=30)
)
mores = st.dictionaries(
    names,
    single | st.lists(single, max_size=5).map(tuple) | st.dictionaries(names, single, max_size=4),
    min_size=1,
    max_size=5,
)


def chain(more: list[dict[str, Any]]) -> Lineage:
    """A lineage whose facts say more, each on all before it."""
    entries: list[Entry] = []
    for fact, said in zip(FACTS, more, strict=True):
        before = tuple(entry.digest for entry in entries)
        if isinstance(fact, Visit | Verification):
            before = before[-1:]
        entries.append(sign_entry(fact, before, KEY, said))
    return Lineage(job=JOB, entries=tuple(entries))


def passed_on(entry: Entry) -> Entry:
    """An entry as it comes out at the end: reported, stored with its job, sent to another site as
    part of what its work descends from, and exported."""
    model = ModelRef(manifest=MERGED, size_bytes=1, holders=())
    outcome = WorkOutcome(
        visit=entry.fact.visit, job=JOB, site=SITE, state=WorkState.DONE, entry=entry, model=model
    )  # fmt: skip
    report = decode(encode(WorkReport(outcome=outcome, signature="")), WorkReport)
    event = decode(encode(Reported(report.outcome)), JobEvent)
    assert event.outcome.entry is not None
    work = VerifyWork(
        visit=VisitId("v-9"), job=JOB, recipe="classifier", config={}, topic="t", metric="m",
        model=model, previous=(), lineage=(event.outcome.entry,),
    )  # fmt: skip
    (there,) = decode(encode(work), Work).lineage
    exported = to_json(Lineage(job=JOB, entries=(there,)))
    (read,) = msgspec.json.decode(exported, type=Lineage).entries
    return read


@settings(max_examples=50)
@given(st.lists(mores, min_size=4, max_size=4))
def test_a_lineage_in_which_later_releases_say_more_stays_whole_wherever_it_goes(
    more: list[dict[str, Any]],
) -> None:
    lineage = chain(more)
    check_model(lineage, MERGED, {SITE: KEY.public})
    there = Lineage(job=JOB, entries=tuple(map(passed_on, lineage.entries)))
    check_model(there, MERGED, {SITE: KEY.public})
    assert there == lineage
    assert [one.digest for one in there.entries] == [one.digest for one in lineage.entries]
    for entry, back in zip(lineage.entries, there.entries, strict=True):
        statement = sign_statement(entry, "net", KEY)
        assert check_statement(statement, back, "net") == KEY.public


@settings(max_examples=50)
@given(st.sampled_from(FACTS), mores, mores, st.data())
def test_what_later_releases_say_is_signed(
    fact: LineageFact, more: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    entry = sign_entry(fact, (), KEY, more)
    assume(canonical(other) != canonical(more))
    for changed in (msgspec.UNSET, other):
        with pytest.raises(Corrupt, match="signature"):
            check_entry(msgspec.structs.replace(entry, more=changed))
    plain = bytearray(encode(entry))
    plain[data.draw(st.integers(0, len(plain) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = decode(bytes(plain), Entry)
        assume(read != entry)  # A byte of a default that this entry need not have said.
        check_entry(read)
    except Corrupt:
        return
    pytest.fail(f"{read} was taken")


def more_of(value: object) -> object:
    """What a site reads of an entry with this `more`."""
    plain = msgspec.msgpack.decode(canonical(sign_entry(VISIT, (), KEY)))
    plain["more"] = value
    return decode(msgspec.msgpack.encode(plain), Entry)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {f"n{number}": 1 for number in range(MOST_MORE + 1)},
        {"long": "x" * MOST_MORE_BYTES},
        {"many": list(range(MOST_MORE_BYTES))},
        {"x" * 65: 1},
        {"": 1},
        {"two\nlines": 1},
        {"said": "two\nlines"},
        {"deep": [[1]]},
        {"deep": {"a": {"b": 1}}},
        {"bytes": b"x"},
        {"number": float("nan")},
        {"numbers": [1.0, float("inf")]},
        {"numbers": {"a": float("-inf")}},
        {1: 1},
        [1],
        None,
        "x",
    ],
    ids=str,
)
def test_what_later_releases_say_has_bounds_and_reads_the_same_everywhere(value: object) -> None:
    assert isinstance(more_of({"a" * 64: "x" * (MOST_MORE_BYTES - 100)}), Entry)
    with pytest.raises(Corrupt):
        more_of(value)


@pytest.mark.parametrize(
    "labels",
    [{"two\nlines": 1.0}, {f"l{number}": 1.0 for number in range(MOST_LABELS + 1)}],
    ids=len,
)
def test_what_a_verifier_says_of_labels_has_bounds(labels: dict[str, float]) -> None:
    """It is in all later work of the job, and in what each facility with the model publishes."""
    entry = sign_entry(MEASURED, (), KEY)
    assert decode(encode(entry), Entry) == entry
    fact = msgspec.structs.replace(MEASURED, by_label=labels)
    with pytest.raises(Corrupt):
        decode(encode(sign_entry(fact, (), KEY)), Entry)


def test_a_whole_number_beyond_64_bits_is_no_part_of_a_fact() -> None:
    text = json.dumps({**json.loads(to_json(sign_entry(VISIT, (), KEY))), "more": {"count": 2**64}})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Entry)


@settings(max_examples=50)
@given(mores, st.randoms(use_true_random=False))
def test_an_audit_entry_of_a_later_release_is_read_and_is_signed(
    more: dict[str, Any], rng: random.Random
) -> None:
    record = recorded(msgspec.structs.replace(AUDITED, more=more), START, KEY)
    line = line_of(record)
    assert check_record(line) == record
    other = recorded(AUDITED, START, KEY)
    for entry in (other.entry, msgspec.structs.replace(AUDITED, more={"of": "else"})):
        if entry != record.entry:
            with pytest.raises(Corrupt, match="digest"):
                check_record(line_of(msgspec.structs.replace(record, entry=entry)))
    changed = bytearray(line)
    changed[rng.randrange(len(line) - 1)] ^= rng.randint(1, 255)
    with pytest.raises(Corrupt):
        check_record(bytes(changed))


def test_facts_of_this_release_are_as_they_were() -> None:
    """The beginnings of what the release before this test signed, and the ends of its digests."""
    entries = [sign_entry(fact, (FRESH,), KEY) for fact in FACTS]
    assert [(entry.signature[:20], entry.digest[-12:]) for entry in entries] == [
        ("ZsN2Ui78mD8y0wfr/bRv", "74de081daa27"),
        ("6xtH8GQyLGVmwxVK4901", "6d7afd070ced"),
        ("XpD11iSaKn35L5dZL9CB", "d32616bae358"),
        ("hCpud6dWPHFI88h34Puk", "b07466fdc9fe"),
    ]
    assert line_of(recorded(AUDITED, START, KEY)).endswith(b'rSqKHAVXMpKF8FX2sH1jBQ=="}\n')
    for entry in entries:
        assert b"more" not in encode(entry) + to_json(entry).encode()


KEPT = {
    "Entry": "more fact previous public_key signature",
    "Origin": "job visit site at_s recipe seed model order",
    "Visit": "job visit site dataset at_s seconds transfer_s overhead_s bytes_in examples loss "
    "model_in model_out size_bytes order release_to privacy stands_for compression",
    "PrivacySpent": "epsilon delta clip mechanism accountant",
    "NoiseMechanism": "rate noise steps",
    "Verification": "job visit site at_s seconds transfer_s bytes_in model topic metric value "
    "items standard_error by_label",
    "Merge": "job visit site at_s seconds transfer_s overhead_s bytes_in base models shares "
    "rule starts part behind model_out size_bytes moments moments_bytes summed order",
    "MergeRule": "reduction tolerates density outer rate momentum second_momentum least",
    "AuditEntry": "more number at_s event data owner job visit recipe purpose examples seconds "
    "model size_bytes values reason field head",
    "CountersignedHead": "site number digest at_s public_key signature",
}
"""The fields of facts that are kept and passed on, and of what is in them."""

ORDERED = {
    "Order": "network intent start measurements visits examples until_s number",
    "TrainingIntent": "name owner purpose model objectives data requirements budget preferences "
    "training route",
    "ModelWanted": "recipe config seed start",
    "Objective": "name metric topic at_least",
    "DataWanted": "topics",
    "Requirement": "quantity at_least at_most one_of none_of",
    "Budget": "duration_s cost_usd examples",
    "Preference": "scorer weight",
    "Training": "algorithm epochs walkers merging mu consolidation distillation contributions "
    "compression privacy secure_aggregation",
    "MergeTuning": "reduction tolerates density outer rate momentum second_momentum least",
    "PrivacyWish": "epsilon delta clip visits",
    "PinnedVisit": "site examples",
    "Quorum": "quorum of",
}
"""The fields that are in every order, though they have their defaults."""


def structs_in(*kinds: type) -> dict[str, type[msgspec.Struct]]:
    """Some structs, and those in them, by name."""
    found: dict[str, type[msgspec.Struct]] = {}

    def walk(each: object) -> None:
        if isinstance(each, tuple):
            for one in each:
                walk(one)
        elif isinstance(each, msgspec.inspect.StructType):
            if found.setdefault(each.cls.__name__, each.cls) is each.cls:
                walk(tuple(field.type for field in each.fields))
        elif isinstance(each, msgspec.inspect.Type):
            walk(tuple(getattr(each, name) for name in each.__struct_fields__))

    walk(tuple(map(msgspec.inspect.type_info, kinds)))
    return found


def test_facts_that_are_kept_get_no_new_fields() -> None:
    """Releases without such a field would refuse them: what is new goes into `more`."""
    now = structs_in(Entry, AuditEntry)
    assert {name: " ".join(kind.__struct_fields__) for name, kind in now.items()} == KEPT


def test_an_order_that_uses_nothing_new_says_nothing_new() -> None:
    """So sites of earlier releases accept it: a new field is unset, unless its owner states it."""
    now = structs_in(Order)
    assert now.keys() == ORDERED.keys()
    for name, kind in now.items():
        for field in msgspec.structs.fields(kind):
            known = field.name in ORDERED[name].split()
            assert known or field.default is msgspec.UNSET, f"{name}.{field.name}"
