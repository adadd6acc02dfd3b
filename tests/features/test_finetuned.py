import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

from pluralign import artifacts, config, pipeline
from pluralign.errors import InputError
from pluralign.features import Encoder, FineTuned, finetune
from pluralign.types import Choices, Features, Feedback, Grades

WORDS = "why is the sky blue because light scatters red green sea deep asks who what never a".split()
HALVES = ["plain", "strange"]


def answers(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Random words, in every other answer one of them "salt"; how salty each is."""
    rng = np.random.default_rng(seed)
    words = [rng.choice(WORDS, 5).tolist() for _ in range(n)]
    for row in words[::2]:
        row[rng.integers(5)] = "salt"
    return [" ".join(row) for row in words], np.arange(n) % 2 == 0


def votes(n: int = 400, items: int = 300, seed: int = 0, taste=lambda annotator, salty: salty) -> Feedback:
    """Comparisons of a salty answer with another, by two annotators who have tastes of their own."""
    rng = np.random.default_rng(seed)
    responses, salty = answers(items, seed)
    slate = np.stack([2 * rng.integers(items // 2, size=n), 2 * rng.integers(items // 2, size=n) + 1], axis=1)
    slate = rng.permuted(slate, axis=1)
    annotator = rng.integers(2, size=n)
    likes = np.array([[taste(a, salty[i]) for i in pair] for a, pair in zip(annotator, slate, strict=True)], int)
    rank = (likes.max(1, keepdims=True) - likes).astype(int)
    none = np.zeros(n, int)
    return Feedback(
        Dataset.from_dict({"prompt_id": [0] * items, "prompt": ["why"] * items, "response": responses}),
        Dataset.from_dict({"id": ["a", "b"], "weight": [1.0, 1.0], "half": HALVES}),
        ("overall",),
        Choices(slate, rank, annotator, none, none),
        Grades.none(),
    )


def tuned(model, **fields) -> FineTuned:
    encoder = Encoder(str(model), length=False, device="cpu", dimensions=4)
    return FineTuned(encoder, **{"epochs": 6, "learning_rate": 5e-3} | fields)


@pytest.mark.parametrize(("name", "epochs"), [("llama", 5), ("bert", 2)])
def test_one_word_decides(name, epochs, request, tmp_path):
    """Accuracy on texts held out rises from chance, and the reward of new texts tells that word."""
    f = tuned(request.getfixturevalue(name), epochs=epochs)
    feedback = votes(800, items=600)
    phi = f.encode(feedback)
    told = phi.provenance
    assert told["held_out_log_loss_before"] == pytest.approx(math.log(2))
    assert told["held_out_log_loss_after"] < 0.4 and told["held_out_accuracy_after"] > 0.8
    assert told["comparisons"] + told["comparisons_held_out"] == 800
    assert "counts them twice" in told["note"] and f"{told['comparisons']:,} comparisons" in told["note"]
    artifacts.save(phi, tmp_path / "phi")
    loaded = artifacts.load(tmp_path / "phi", Features)
    assert loaded.provenance == told
    responses, salty = answers(200, seed=9)
    found = f.encode_texts(["why"] * 200, responses, loaded)
    assert phi.names == ("pc1", "pc2", "pc3", "pc4", "reward1")
    reward = phi.phi[:, 4].astype(np.float64)
    assert reward.std() == pytest.approx(1, rel=1e-3)  # one prompt, so the spread within it
    assert np.mean((found[:, 4] > np.median(found[:, 4])) == salty) > 0.9
    # The twin: of the model as it was, no component splits the texts so.
    frozen = f.encoder.encode(feedback)
    before = f.encoder.encode_texts(["why"] * 200, responses, frozen)
    share = np.mean((before > np.median(before, axis=0)) == salty[:, None], axis=0)
    assert np.maximum(share, 1 - share).max() < 0.75
    bare = replace(f, heads=False)
    np.testing.assert_allclose(bare.encode(feedback).phi, phi.phi[:, :4], atol=1e-5)
    with pytest.raises(InputError, match="heads = True, this map has False"):
        bare.encode_texts(["why"], ["salt"], phi)


@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")  # two annotators tell little of a spread
def test_a_run_keeps_what_is_held_out_from_the_adapter(llama, tmp_path):
    made = votes(100, items=60)
    choices, texts = made.choices, made.items["response"]
    first = np.take_along_axis(choices.slate, choices.rank.argmin(1)[:, None], 1)[:, 0]
    rows = ["prompt,first,second,outcome,annotator"]
    rows += [
        f"why,{texts[a]},{texts[b]},first,{'ab'[who]}"
        for a, b, who in zip(first, choices.slate.sum(1) - first, choices.annotator, strict=True)
    ]
    (tmp_path / "votes.csv").write_text("\n".join(rows))
    tuning = f"{{kind: fine-tuned, epochs: 1, encoder: {{kind: encoder, model: {llama}, dimensions: 4, device: cpu}}}}"
    columns = ", ".join(f"{c}: {c}" for c in ("prompt", "first", "second", "outcome", "annotator"))
    experiment = config.parse(
        f"feedback: {{kind: table, path: {tmp_path}/votes.csv, {columns}}}\nfeatures: {{kind: concatenate, parts: [{tuning}, "
        "{kind: lexicon, categories: {salty: [salt]}}]}\ninference: {kind: laplace}\nholdout: 0.3\nrules: [{kind: utilitarian}]"
    )
    train, test = experiment.split(experiment.feedback.load())
    assert len(train.choices) + len(test.choices) == 100 and len(test.choices) >= 25
    report = pipeline.run(experiment, tmp_path / "run")
    told = artifacts.load(tmp_path / "run/features", Features).provenance["read"][0]
    assert told["comparisons"] + told["comparisons_held_out"] == len(train.choices)
    assert "counts them twice" in report.html.read_text()


def test_coins_teach_nothing(llama):
    """The twin: judgements at random are not predicted, and the adapter with the least loss says so."""
    rng = np.random.default_rng(1)
    told = tuned(llama).encode(votes(taste=lambda annotator, salty: rng.integers(2))).provenance
    assert told["held_out_log_loss_after"] > 0.62
    assert 0.3 < told["held_out_accuracy_after"] < 0.7
    assert told["ties"] > 80  # half of the pairs of coins are equal


def test_groups_with_opposite_tastes_need_heads_of_their_own(llama):
    feedback = votes(taste=lambda annotator, salty: salty == (annotator == 0))
    pooled, apart = (tuned(llama, group=group).encode(feedback).provenance for group in (None, "half"))
    assert (pooled["trained_heads"], apart["trained_heads"]) == (1, 2)
    assert pooled["held_out_accuracy_after"] < 0.7 < 0.8 < apart["held_out_accuracy_after"]
    assert apart["held_out_log_loss_after"] < pooled["held_out_log_loss_after"] - 0.1


def test_states_are_those_under_the_adapter(llama, tmp_path):
    f = tuned(llama)
    phi = f.encode(votes())
    (folder,) = (tmp_path / "cache" / "pluralign" / "adapters").iterdir()
    assert folder.name == phi.provenance["adapter"]
    tokenizer = AutoTokenizer.from_pretrained(llama)
    base = AutoModel.from_pretrained(llama).eval()
    bare = base(**tokenizer("salt sea", return_tensors="pt")).last_hidden_state[0, 1:].mean(0)
    network = PeftModel.from_pretrained(base, str(folder)).eval()
    with torch.no_grad():
        h = network(**tokenizer("salt sea", return_tensors="pt")).last_hidden_state[0, 1:].mean(0)
    raw = f.read(["why"], ["salt sea"], phi.provenance).raw[0]
    np.testing.assert_allclose(raw[:-1], h / h.norm(), atol=1e-5)
    np.testing.assert_allclose(raw[-1], np.load(folder / "head.npy")[0] @ (h / h.norm()).numpy(), rtol=1e-4)
    assert np.abs(raw[:-1] - (bare / bare.norm()).detach().numpy()).max() > 0.05


def test_the_same_call_does_not_train_twice(llama, monkeypatch):
    f = tuned(llama, epochs=1)
    first = f.encode(votes(60, items=40))

    class Trained(Exception):
        pass

    def fail(*args):
        raise Trained

    monkeypatch.setattr(finetune, "train", fail)
    again = f.encode(votes(60, items=40))
    np.testing.assert_array_equal(first.phi, again.phi)
    assert again.provenance == first.provenance
    for other in (tuned(llama, epochs=1, seed=1), tuned(llama, epochs=1, rank=4), tuned(llama, epochs=1, group="half")):
        with pytest.raises(Trained):
            other.encode(votes(60, items=40))
    with pytest.raises(Trained):
        f.encode(votes(60, items=40, taste=lambda annotator, salty: not salty))


def test_the_seed_decides_and_the_callers_random_numbers_stay(llama, tmp_path, monkeypatch):
    phis = []
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for cache, seed in (("one", 0), ("two", 0), ("two", 1)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        phis.append(tuned(llama, epochs=1, seed=seed).encode(votes(60, items=40)).phi)
    assert torch.rand(1) == expected
    np.testing.assert_array_equal(phis[0], phis[1])
    assert np.abs(phis[0] - phis[2]).max() > 1e-3


def test_ties_count_half_and_slates_are_read_as_they_are(llama):
    """By hand: first wins, second wins, tie, second not ranked, an empty slot between, three items, one text twice."""
    slate = [[0, 1, -1], [1, 0, -1], [0, 2, -1], [2, 1, -1], [2, -1, 0], [0, 1, 2], [0, 3, -1]]
    rank = [[0, 1, -1], [1, 0, -1], [0, 0, -1], [0, -1, -1], [1, -1, 0], [0, 1, 2], [0, 1, -1]]
    feedback = Feedback(
        Dataset.from_dict({"prompt_id": [0] * 4, "prompt": ["why"] * 4, "response": ["sea", "salt", "deep", "sea"]}),
        Dataset.from_dict({"id": ["a", "b"], "weight": [1.0, 1.0], "half": HALVES}),
        ("kind", "true"),
        Choices(np.array(slate), np.array(rank), np.array([0, 0, 1, 0, 1, 0, 0]), np.array([0, 0, 1, 1, 1, 0, 0]), np.zeros(7, int)),
        Grades.none(),
    )  # fmt: skip
    pairs = tuned(llama)._pairs(feedback)
    response = [text[1] for text in pairs.texts]
    read = [(response[i], response[j], won) for i, j, won in zip(pairs.first, pairs.second, pairs.won, strict=True)]
    assert read == [
        ("sea", "salt", 1),
        ("salt", "sea", 0),
        ("sea", "deep", 0.5),
        ("deep", "salt", 1),
        ("deep", "sea", 0),
    ]
    assert pairs.head.tolist() == [0, 0, 1, 1, 1] and pairs.heads == 2
    grouped = tuned(llama, group="half")._pairs(feedback)
    assert grouped.head.tolist() == [0, 0, 2, 1, 2] and grouped.heads == 3


def test_held_out_comparisons_have_a_text_that_training_never_sees(llama):
    pairs = tuned(llama)._pairs(votes(300, items=40))
    fitted, held = finetune._split(pairs, 0.25, np.random.default_rng(0))
    seen = {*pairs.first[fitted].tolist(), *pairs.second[fitted].tolist()}
    assert all(i not in seen or j not in seen for i, j in zip(pairs.first[held], pairs.second[held], strict=True))
    assert sorted([*fitted, *held]) == list(range(300)) and 75 <= len(held) < 100
    one = tuned(llama)._pairs(votes(3, items=2))
    with pytest.raises(InputError, match="3 comparisons of 2 texts are too few"):
        finetune._split(one, 0.25, np.random.default_rng(0))


def test_an_adapter_that_is_gone_or_anothers_is_refused(llama, bert, tmp_path):
    f = tuned(llama, epochs=1)
    phi = f.encode(votes(60, items=40))
    with pytest.raises(InputError, match=r"weights = .* do not mean the same"):
        tuned(_copy(llama, tmp_path)).encode_texts(["why"], ["salt"], phi)
    with pytest.raises(InputError, match="the adapter None that made these features is not in"):
        f.encode_texts(["why"], ["salt"], f.encoder.encode(votes(60, items=40)))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match=f"the adapter {phi.provenance['adapter']} .* encode the feedback again"):
        f.encode_texts(["why"], ["salt"], phi)


def _copy(llama, tmp_path):
    copy = shutil.copytree(llama, tmp_path / "other")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    return copy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"seed": -1}, "seed -1"),
        ({"encoder": Encoder("m", gguf_file="m.gguf")}, "GGUF format, which cannot be trained"),
    ],
)
def test_fields_out_of_range_are_named(fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        FineTuned(**{"encoder": Encoder("m")} | fields)


def test_without_comparisons_there_is_nothing_to_learn(llama, feedback):
    with pytest.raises(InputError, match="no comparisons of two different texts"):
        tuned(llama).encode(feedback([0, 0], ["why"] * 2, ["sea", "salt"]))
