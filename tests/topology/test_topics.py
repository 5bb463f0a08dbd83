from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.choices import as_question
from daitn.objects.descriptors import DatasetDescriptor, TopicSketch
from daitn.objects.identifiers import SiteId
from daitn.topology.topics import BUCKETS, LEAST_RECORDS, TopicModel, features, sketch
from tests.topology.medicine import data_site, dataset

HEART = ["cardiac", "artery", "valve", "heart rhythm", "blood pressure", "cardiology ward"]
NERVES = ["neurons", "seizure", "migraine", "brain stem", "neuropathy", "spinal cord"]


def questions(words: list[str]) -> list[str]:
    return [f"What helps with {word} in case {n}?" for word in words for n in range(8)]


def heard(*sets: DatasetDescriptor) -> TopicModel:
    model = TopicModel()
    for data in sets:
        model.described(data_site(data.site, data))
    return model


def model(**sets: list[str]) -> TopicModel:
    return heard(
        *(
            dataset(topic, f"medicine/{topic}", sketch=sketch(texts))
            for topic, texts in sets.items()
        )
    )


def test_a_query_is_about_what_is_worded_like_it() -> None:
    found = model(cardiology=questions(HEART), neurology=questions(NERVES))
    for text, topic in (
        ("is my artery blocked", "medicine/cardiology"),
        ("a SEIZURE at night", "medicine/neurology"),
        ("neuropathic pain", "medicine/neurology"),
    ):
        name, sure = found.classify(text)
        assert name == topic
        assert 0.5 < sure <= 1


def test_what_nobody_words_is_not_known() -> None:
    assert model().classify("anything") == ("", 0.0)
    assert model(cardiology=questions(HEART)).classify("?!") == ("", 0.0)
    assert model(cardiology=questions(HEART)).classify("artery") == ("", 0.0), "nothing to compare"


def test_what_a_site_says_later_replaces_what_it_said() -> None:
    found = model(cardiology=questions(HEART), neurology=questions(NERVES))
    found.described(
        data_site("neurology", dataset("neurology", "law", sketch=sketch(questions(NERVES))))
    )
    assert found.classify("migraine")[0] == "law"


def test_what_a_removed_site_taught_is_forgotten() -> None:
    found = model(cardiology=questions(HEART), neurology=questions(NERVES))
    assert found.topics() == ("medicine/cardiology", "medicine/neurology")
    found.lost(SiteId("neurology"))
    assert len(found.topics()) == 2
    found.removed(SiteId("neurology"))
    assert found.topics() == ("medicine/cardiology",)


def test_data_sets_on_one_topic_count_together() -> None:
    apart = heard(
        dataset("one", "medicine/neurology", sketch=sketch(questions(NERVES[:3]))),
        dataset("two", "medicine/neurology", sketch=sketch(questions(NERVES[3:]))),
        dataset("three", "medicine/cardiology", sketch=sketch(questions(HEART))),
    )
    assert apart.topics() == ("medicine/cardiology", "medicine/neurology")
    assert apart.classify("spinal cord")[0] == "medicine/neurology"
    assert apart.classify("migraine")[0] == "medicine/neurology"


def test_a_word_of_few_records_is_not_told() -> None:
    # One record that is there often is one record.
    secret = ["the patient is called Wolferstan"] * 40 + [f"Wolferstan {n}" for n in range(3)]
    told = sketch([*secret, *questions(HEART)])
    assert not set(sketch(secret).buckets)
    assert sketch(questions(HEART)).buckets == told.buckets
    assert min(told.counts) >= LEAST_RECORDS


def test_a_sketch_fits_into_an_advert() -> None:
    words = ["".join(w) for w in zip(string.ascii_lowercase * 60, string.digits * 156, strict=True)]
    texts = [f"{word} {n} {word}{n}{word} question" for word in words for n in range(6)]
    assert len(msgspec.msgpack.encode(sketch(texts))) < 64_000


def test_a_sketch_that_makes_no_sense_is_left_out() -> None:
    with pytest.raises(ValueError, match="one count"):
        TopicSketch(texts=5, buckets=(1, 2), counts=(1,))
    for bad in (
        TopicSketch(texts=5, buckets=(BUCKETS,), counts=(1,)),
        TopicSketch(texts=5, buckets=(-1,), counts=(1,)),
        TopicSketch(texts=5, buckets=(1,), counts=(10,)),
        TopicSketch(texts=10**9, buckets=(1,), counts=(10**9,)),
    ):
        assert heard(dataset("evil", "medicine", sketch=bad)).topics() == ()


@given(st.text())
def test_any_text_has_features_in_range(text: str) -> None:
    assert all(0 <= bucket < BUCKETS for bucket in features(text))
    name, sure = model(cardiology=questions(HEART), neurology=questions(NERVES)).classify(text)
    assert 0 <= sure <= 1
    assert name in ("", "medicine/cardiology", "medicine/neurology")


def test_what_comes_with_a_question_does_not_say_what_it_is_about() -> None:
    found = model(cardiology=questions(HEART * 3), neurology=questions(NERVES))
    options = as_question("what helps with a seizure?", ("aspirin for the heart. " * 20,) * 4)
    assert found.classify(options) == found.classify("what helps with a seizure?")
    report = "The valve and the artery were looked at. Blood pressure was high. " * 100
    asked = "Does he have migraine?"
    for text in (f"{report}\n{asked}", f"{asked}\n{report}"):
        assert found.classify(text) == found.classify(asked)
    assert found.classify(report)[0] == "medicine/cardiology", "nothing else is there"
