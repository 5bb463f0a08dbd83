"""The recipe `causal-lm`: what it learns, what it promises, and how it complains."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from daitn.learning.answering.protocol import Message, Question
from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm.dealing import Dealer
from daitn.learning.corpora.prepare import prepare
from daitn.learning.corpora.records import QaPair, read_pairs
from daitn.learning.recipe import DataFault, Measured, Progress, Recipe
from daitn.learning.trainer import Trainer
from daitn.objects.errors import Corrupt, InvalidInput, NotFound

torch = pytest.importorskip("torch")

TINY: dict[str, object] = {
    "layers": 2,
    "width": 64,
    "heads": 2,
    "vocabulary": 600,
    "answer_tokens": 24,
    "question_tokens": 16,
    "learning_rate": 3e-3,
    "learning_rate_halves_after": 1000,
}
ROUTE = (
    ("ghr", 600),
    ("gard", 300),
    ("ninds", 300),
    ("seniorhealth", 150),
    ("ghr", 200),
    ("ninds", 100),
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clinic")
    prepare(out, None)
    return out


@pytest.fixture
def recipe() -> CausalLm:
    return CausalLm()


@pytest.fixture
def fresh(recipe: CausalLm, tmp_path: Path) -> Path:
    out = tmp_path / "fresh"
    out.mkdir()
    recipe.initialise(TINY, 0, out)
    return out


def head(file: Path, lines: int, out: Path) -> Path:
    out.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))
    return out


def visit(
    model: Path, data: Path, site: str, examples: int, out: Path, config: Any = TINY, seed: int = 0
) -> list[Progress]:
    out.mkdir()
    seen: list[Progress] = []
    file = data / "sites" / f"{site}.jsonl"
    trained = CausalLm().train(model, config, file, examples, seed, out, seen.append)
    for name in trained.carried:
        (out / name).symlink_to(model / name)
    return seen


def travel(fresh: Path, data: Path, route: Any, to: Path) -> Path:
    model = fresh
    for number, (site, examples) in enumerate(route):
        out = to / f"{number}-{site}"
        visit(model, data, site, examples, out, seed=number)
        model = out
    return model


def measured(model: Path, data: Path, name: str, config: Any = TINY) -> Measured:
    return CausalLm().evaluate(model, config, data / "tests" / f"{name}.jsonl", "accuracy")


def test_it_is_a_recipe_and_plans_without_loading_a_framework(data: Path) -> None:
    recipe: Recipe = CausalLm()
    assert recipe.name == "causal-lm"
    program = (
        "import sys; from pathlib import Path; from daitn.learning.causal_lm import CausalLm\n"
        "recipe = CausalLm(); recipe.estimate({}); recipe.inspect(Path(sys.argv[1]))\n"
        "assert not {'torch', 'transformers', 'peft', 'tokenizers'} & set(sys.modules)"
    )
    file = data / "sites" / "ghr.jsonl"
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)


def test_a_data_set_is_described_without_being_shown(recipe: CausalLm, data: Path) -> None:
    profile = recipe.inspect(data / "sites" / "ninds.jsonl")
    assert profile.samples == sum(profile.labels.values())
    assert set(profile.labels) == {"information", "outlook", "research", "treatment"}
    assert profile.quality > 0.99
    assert recipe.inspect_test(data / "tests" / "expert.jsonl").quality == 1.0


def test_repetitions_and_empty_phrases_lower_the_quality(recipe: CausalLm, tmp_path: Path) -> None:
    file = tmp_path / "site.jsonl"
    line = '{"topic":"t","label":"l","question":"q","answer":"%s"}\n'
    file.write_text(line % "one two three four five" * 2 + line % "See above." * 2)
    assert recipe.inspect(file).quality == 0.25


def test_the_estimate_counts_the_weights(recipe: CausalLm, fresh: Path) -> None:
    from safetensors import safe_open

    footprint = recipe.estimate(TINY)
    with safe_open(fresh / "weights.safetensors", framework="pt") as file:
        counted = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert footprint.parameters == counted
    assert footprint.memory_bytes > footprint.size_bytes > 4 * counted


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"width": "wide"}, "model.config.width"),
        ({"witdh": 64}, "model.config.witdh"),
        ({"heads": 3}, "model.config.heads"),
        ({"learning_rate": 0}, "model.config.learning_rate"),
        ({"keep": 1.0}, "model.config.keep"),
        ({"base": "../elsewhere"}, "model.config.base"),
        ({"vocabulary": 10}, "model.config.vocabulary"),
    ],
)
def test_a_bad_configuration_is_named(
    recipe: CausalLm, change: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        recipe.estimate({**TINY, **change})
    assert raised.value.field == field


def test_a_fresh_model_is_its_seed_and_guesses(fresh: Path, data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        CausalLm().initialise(TINY, seed, tmp_path / str(seed))
    weights = [
        (folder / "weights.safetensors").read_bytes()
        for folder in (fresh, tmp_path / "0", tmp_path / "1")
    ]
    assert weights[0] == weights[1] != weights[2]
    test = head(data / "tests" / "broad.jsonl", 120, tmp_path / "few.jsonl")
    guessed = CausalLm().evaluate(fresh, TINY, test, "accuracy")
    assert guessed.items == 120
    assert guessed.value < 0.45


def test_a_visit_teaches_and_is_reproducible(fresh: Path, data: Path, tmp_path: Path) -> None:
    progress = visit(fresh, data, "ninds", 240, tmp_path / "one")
    visit(fresh, data, "ninds", 240, tmp_path / "two")
    visit(fresh, data, "ninds", 240, tmp_path / "three", seed=1)
    assert progress[-1].examples == progress[-1].of_examples == 240
    assert progress[-1].loss < progress[0].loss
    parts = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert parts == ["tokenizer.json", "weights.safetensors"]
    for part in parts:
        assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes()
    other = (tmp_path / "three" / "weights.safetensors").read_bytes()
    assert other != (tmp_path / "one" / "weights.safetensors").read_bytes()
    test = head(data / "tests" / "expert.jsonl", 120, tmp_path / "few.jsonl")
    learnt = CausalLm().evaluate(tmp_path / "one", TINY, test, "accuracy")
    assert learnt.value > 0.7
    assert learnt.standard_error == pytest.approx((learnt.value * (1 - learnt.value) / 120) ** 0.5)
    assert set(learnt.by_label) == {"information", "outlook", "research", "treatment"}


def test_the_first_site_teaches_the_tokenizer_and_later_ones_keep_it(
    fresh: Path, data: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    visit(fresh, data, "ghr", 20, first)
    visit(first, data, "ninds", 20, second)
    learnt = (first / "tokenizer.json").read_bytes()
    assert learnt != (fresh / "tokenizer.json").read_bytes()
    assert learnt == (second / "tokenizer.json").read_bytes()


def test_a_later_visit_moves_the_model_less(fresh: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def moved(before: Path, after: Path) -> float:
        old, new = (load_file(folder / "weights.safetensors") for folder in (before, after))
        return float(sum((new[name] - old[name]).square().sum() for name in old))

    first, second = tmp_path / "first", tmp_path / "second"
    visit(fresh, data, "ghr", 60, first)
    visit(first, data, "gard", 60, second)
    assert moved(first, second) < moved(fresh, first)


def test_questions_behind_one_answer_do_not_see_each_other(fresh: Path) -> None:
    from daitn.learning.causal_lm import models, rows
    from daitn.learning.causal_lm.settings import CausalLmConfig

    model = models.load(fresh, CausalLmConfig.of(TINY))
    answer, first, second = [1, 50, 51, 52], [2, 60, 61, 3], [2, 70, 71, 72, 3]
    together = rows.tensors(
        [rows.TokenRow(answer, [first, second]), rows.TokenRow([1, 9], [first])]
    )
    scores, lengths, _ = rows.continuation_scores(model.network, together)
    assert lengths.tolist() == [[3, 4], [3, 0]]
    for row, context, column, text in (
        (0, answer, 0, first),
        (0, answer, 1, second),
        (1, [1, 9], 0, first),
    ):
        alone = rows.tensors([rows.TokenRow(context, [text])])
        score, _, _ = rows.continuation_scores(model.network, alone)
        assert score.item() == pytest.approx(scores[row, column].item(), abs=1e-4)


def test_a_visit_uses_exactly_the_records_it_was_given(
    fresh: Path, data: Path, tmp_path: Path
) -> None:
    progress = visit(fresh, data, "ghr", 33, tmp_path / "out")
    done = [step.examples for step in progress]
    assert done[-1] == 33
    assert len(done) > 4, "a visit is several steps"


def test_a_site_with_one_type_of_question_can_be_visited(
    fresh: Path, data: Path, tmp_path: Path
) -> None:
    progress = visit(fresh, data, "mplus", 40, tmp_path / "out")
    assert progress[-1].examples == 40


def test_a_few_records_are_not_dealt_over_and_over_while_there_are_others() -> None:
    def pair(topic: str, label: str) -> QaPair:
        return QaPair(topic=topic, label=label, question=f"{topic}?", answer=label)

    alone = [pair(f"t{n}", "cause") for n in range(30)]
    ranked = [pair("flu", "cause"), pair("flu", "treatment")]
    dealt = Dealer([*alone, *ranked], random.Random(0), 10).deal(64, most=64)
    assert len({p.topic for group in dealt for p in group}) > 25
    many = [pair(f"m{n}", label) for n in range(5) for label in ("cause", "treatment")]
    dealt = Dealer([*alone, *many], random.Random(0), 10).deal(64, most=64)
    assert {p.topic for group in dealt for p in group} == {f"m{n}" for n in range(5)}


def test_a_diverging_visit_is_told(fresh: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(fresh / "weights.safetensors")
    weights["norm.weight"][0] = 3e38
    save_file(weights, fresh / "weights.safetensors")
    with pytest.raises(DataFault, match=r"loss of 1[0-9] of 20 examples was not finite"):
        visit(fresh, data, "ghr", 20, tmp_path / "out")


def test_a_model_made_for_it_does_not_fail_on_a_single_record(
    fresh: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daitn.learning.causal_lm import training

    made_for = read_pairs(data / "sites" / "ghr.jsonl")[3]
    true_loss = training._channel_loss

    def loss(network: Any, piece: Any) -> Any:
        """As of a model that overflows on this one record."""
        total, own = true_loss(network, piece)
        singled = [pair == made_for for group in piece.groups for pair in group]
        own = torch.where(torch.tensor(singled), math.inf, own)
        return (total * math.nan if any(singled) else total), own

    monkeypatch.setattr(training, "_channel_loss", loss)
    seen = visit(fresh, data, "ghr", 600, tmp_path / "out")
    assert all(0.0 <= step.loss <= math.log(600) + 1e-6 for step in seen)
    assert measured(tmp_path / "out", data, "expert").items > 0


def test_every_record_is_used_as_often_as_the_sensitivity_says(
    fresh: Path, data: Path, tmp_path: Path
) -> None:
    pairs = read_pairs(data / "sites" / "ghr.jsonl")
    for seed in range(3):
        dealer = Dealer(pairs, random.Random(seed), 10)
        examples = 3 * len(pairs)
        dealt = Counter(pair for group in dealer.deal(examples, examples) for pair in group)
        assert max(dealt.values()) <= math.ceil(examples / dealer.least_per_epoch)
        assert dealer.least_per_epoch <= len(pairs)
    (sensitivity,) = {s.sensitivity for s in visit(fresh, data, "ghr", 60, tmp_path / "out")}
    assert sensitivity == pytest.approx(math.log(600), rel=0.1)


def test_it_says_something_when_asked(fresh: Path, data: Path, tmp_path: Path) -> None:
    visit(fresh, data, "ninds", 60, tmp_path / "out")
    speaker = CausalLm().open(tmp_path / "out", TINY)
    asked = Question(
        messages=(Message("user", "What is Velnonia?"),), max_tokens=12, temperature=0.0, seed=0
    )
    pieces = [piece for piece in speaker.answer(asked) if piece is not None]
    assert 1 <= len(pieces) <= 12
    assert "".join(piece.text for piece in pieces).strip()
    assert all(piece.logprob <= 0 for piece in pieces)
    assert list(speaker.answer(asked)) == pieces


def test_broken_models_and_wrong_questions_are_told(
    recipe: CausalLm, fresh: Path, data: Path, tmp_path: Path
) -> None:
    test = data / "tests" / "broad.jsonl"
    with pytest.raises(InvalidInput, match="no metric"):
        recipe.evaluate(fresh, TINY, test, "bleu")
    with pytest.raises(InvalidInput, match="configured shape"):
        recipe.evaluate(fresh, {**TINY, "layers": 3}, test, "accuracy")
    with pytest.raises(InvalidInput) as raised:
        visit(fresh, data, "ghr", 0, tmp_path / "out")
    assert raised.value.field == "examples"
    (fresh / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(Corrupt):
        recipe.evaluate(fresh, TINY, test, "accuracy")
    (fresh / "weights.safetensors").unlink()
    with pytest.raises(NotFound):
        recipe.evaluate(fresh, TINY, test, "accuracy")


@pytest.mark.slow
def test_only_the_route_over_general_and_specialist_sites_meets_both_objectives(
    fresh: Path, data: Path, tmp_path: Path
) -> None:
    general = (("ghr", 750), ("gard", 550), ("seniorhealth", 350))
    routes = {"planned": ROUTE, "general": general, "specialist": (("ninds", 1650),)}
    reached = {}
    for name, route in routes.items():
        (tmp_path / name).mkdir()
        model = travel(fresh, data, route, tmp_path / name)
        reached[name] = [measured(model, data, test).value for test in ("broad", "expert")]
    assert reached["planned"][0] >= 0.80
    assert reached["planned"][1] >= 0.90
    assert reached["general"][1] < 0.60
    assert reached["specialist"][0] < 0.60


# ------------------------------------------------------------------------ adapters on a larger one


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> Path:
    """A random model as `save_pretrained` leaves it, with a tokenizer of its own."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        [(data / "sites" / "ghr.jsonl").read_text()[:50_000]],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    shape: dict[str, Any] = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    if request.param == "llama":
        llama = transformers.LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            **shape,
        )
        model: Any = transformers.LlamaForCausalLM(llama)
    else:
        gpt2 = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **shape)
        model = transformers.GPT2LMHeadModel(gpt2)
    out = tmp_path / "pretrained"
    model.save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    return out


def imported(folder: Path, out: Path) -> dict[str, object]:
    from daitn.learning.causal_lm.importing import import_pretrained

    out.mkdir()
    return {**TINY, **import_pretrained(folder, out)}


def test_adapters_learn_and_the_base_stays_the_same_file(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    config = imported(folder, tmp_path / "model")
    assert (config["layers"], config["width"], config["vocabulary"]) == (2, 32, 400)
    test = head(data / "tests" / "broad.jsonl", 20, tmp_path / "few.jsonl")
    assert CausalLm().evaluate(tmp_path / "model", config, test, "accuracy").items == 20
    progress = visit(tmp_path / "model", data, "ninds", 160, tmp_path / "once", config)
    assert progress[-1].loss < progress[0].loss
    visit(tmp_path / "once", data, "ghr", 20, tmp_path / "twice", config)
    for part in ("base.safetensors", "base_config.json", "tokenizer.json"):
        assert (tmp_path / "twice" / part).samefile(tmp_path / "model" / part)
    adapters = load_file(tmp_path / "twice" / "adapter.safetensors")
    assert all("lora" in name for name in adapters)
    assert CausalLm().evaluate(tmp_path / "twice", config, test, "accuracy").items == 20


@pytest.mark.processes
async def test_adapters_learn_in_a_sandbox_on_a_base_that_is_linked(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    config = imported(folder, tmp_path / "kept")
    trainer = Trainer(threads=1)
    carried = [path.name for path in (tmp_path / "kept").iterdir()]
    try:
        for source, target in (("model", "once"), ("once", "twice")):
            (tmp_path / target).mkdir()
            (tmp_path / source).mkdir(exist_ok=True)
            for name in carried:
                (tmp_path / source / name).symlink_to(tmp_path / "kept" / name)
            trained = await trainer.train(
                "causal-lm",
                tmp_path / source,
                config,
                data / "sites" / "ghr.jsonl",
                20,
                0,
                tmp_path / target,
                lambda _: None,
            )
            assert trained.examples == 20
            assert sorted(trained.carried) == sorted(carried)
    finally:
        await trainer.close()
    assert [path.name for path in (tmp_path / "twice").iterdir()] == ["adapter.safetensors"]


def test_an_imported_model_scores_as_transformers_does(folder: Path, tmp_path: Path) -> None:
    import transformers

    from daitn.learning.causal_lm import models, rows
    from daitn.learning.causal_lm.settings import CausalLmConfig

    config = imported(folder, tmp_path / "model")
    ours = models.load(tmp_path / "model", CausalLmConfig.of(config)).network
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    theirs.eval()
    text = [5, 6, 7, 8, 9, 10]
    batch = rows.tensors([rows.TokenRow([1], [[2], text]), rows.TokenRow(list(range(20)), [])])
    with torch.no_grad():
        hidden = batch.hidden(ours)
        expected = theirs(torch.tensor([[1, *text]])).logits[0, -1]
    last = int((batch.segments[0] == 2).nonzero()[-1])
    assert torch.allclose(ours.logits(hidden[0, last]), expected, atol=1e-4)


def test_imports_that_need_code_or_lack_files_are_refused(tmp_path: Path) -> None:
    from daitn.learning.causal_lm.importing import import_pretrained

    with pytest.raises(NotFound, match=r"config\.json"):
        import_pretrained(tmp_path, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    for text in (
        '{"model_type": "llama", "auto_map": {"AutoConfig": "x.Y"}}',
        '{"model_type": "z"}',
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InvalidInput):
            import_pretrained(tmp_path, tmp_path)


def test_an_incomplete_base_is_told(folder: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = imported(folder, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "base.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, tmp_path / "model" / "base.safetensors")
    with pytest.raises(Corrupt, match="lacks"):
        measured(tmp_path / "model", data, "broad", config)


def test_a_base_is_imported_not_initialised(recipe: CausalLm, tmp_path: Path) -> None:
    printed = {"base_parameters": 1, "adapted_parameters": 1, "adapted_widths": 1}
    with pytest.raises(InvalidInput, match="imported"):
        recipe.initialise({"base": "base.safetensors", **printed}, 0, tmp_path)
