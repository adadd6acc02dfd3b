import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features import Classifier, Scorers, classify
from pluralign.functions import fingerprint
from pluralign.types import Features


def words(prompts, responses):
    return [len(r.split()) for r in responses]


def echo(prompts, responses):
    """How many words of the prompt come back."""
    return np.array([sum(w in p.split() for w in r.split()) for p, r in zip(prompts, responses, strict=True)])


IDS = [0, 0, 0, 1, 1]
PROMPTS = ["why is the sky blue"] * 3 + ["who asks"] * 2
RESPONSES = ["because light scatters", "the sky is blue", "never", "who", "a deep sea"]
WORDS, ECHO = [3, 4, 1, 1, 3], [0, 4, 0, 1, 0]


def spread(scores, ids) -> float:
    """Root mean square within prompts, one score at a time."""
    ids = np.array(ids)
    return float(np.sqrt(np.mean([(x - np.mean(np.array(scores)[ids == i])) ** 2 for x, i in zip(scores, ids)])))  # noqa: B905


def test_scores_are_those_made_by_hand(feedback):
    votes = feedback([*IDS, 0], [*PROMPTS, PROMPTS[0]], [*RESPONSES, RESPONSES[0]])  # one item twice: it counts once
    scorers = Scorers({"words": words, "echo": echo})
    phi = scorers.encode(votes)
    assert phi.names == ("words", "echo")
    for column, scores in enumerate((WORDS, ECHO)):
        expected = (np.array(scores) - np.mean(scores)) / spread(scores, IDS)
        np.testing.assert_allclose(phi.phi[:5, column], expected, rtol=1e-5)
    np.testing.assert_array_equal(phi.phi[5], phi.phi[0])
    new = scorers.encode_texts(["who asks"], ["who who who who who who"], phi)
    np.testing.assert_allclose(new, [[(6 - 2.4) / spread(WORDS, IDS), (6 - 1) / spread(ECHO, IDS)]], rtol=1e-5)
    plain = Scorers({"words": words}, standardise=False).encode(votes)
    np.testing.assert_allclose(plain.phi[:5, 0], np.array(WORDS) - 2.4, rtol=1e-5)


def some(prompts, responses):
    """No score for what is longer than three words, said in two ways."""
    said = {4: None, 5: np.nan}
    return [said.get(len(r.split()), float(len(r.split()))) for r in responses]


def test_a_missing_score_is_average_and_marked(feedback, tmp_path):
    scorers = Scorers({"words": some, "echo": echo}, missing="indicate")
    phi = scorers.encode(feedback(IDS, PROMPTS, RESPONSES))
    assert phi.names == ("words", "echo", "words missing")
    np.testing.assert_array_equal(phi.phi[:, 2], [0, 1, 0, 0, 0])
    scored = [0, 2, 3, 4]
    x = np.array(WORDS)[scored]
    unit = spread(x, np.array(IDS)[scored])
    np.testing.assert_allclose(phi.phi[scored, 0], (x - x.mean()) / unit, rtol=1e-5)
    assert phi.phi[1, 0] == pytest.approx(0, abs=1e-6)
    assert phi.provenance["missing_scores"] == 1
    artifacts.save(phi, tmp_path / "phi")
    loaded = artifacts.load(tmp_path / "phi", Features)
    found = scorers.encode_texts(["who"] * 3, ["a a", "a a a a", "a a a a a"], loaded)
    np.testing.assert_allclose(found[:, [0, 2]], [[0, 0], [0, 1], [0, 1]], atol=1e-6)  # the mean of scores is 2
    with pytest.raises(InputError, match=r"scorer 'words' gives nan for the response 'the sky is blue' to the prompt "):
        Scorers({"words": some}).encode(feedback(IDS, PROMPTS, RESPONSES))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, r: [np.inf if "deep" in x else 1 for x in r], "'f' gives inf for the response 'a deep sea' to the"),
        (lambda p, r: [1.0] * (len(r) - 1), "'f' gives scores of shape (4,) for 5 responses"),
        (lambda p, r: np.ones((len(r), 2)), "'f' gives scores of shape (5, 2) for 5 responses"),
        (lambda p, r: ["good"] * len(r), "'f' does not give one number for each response (could not convert"),
        (lambda p, r: 3, "'f' does not give one number for each response ('int' object is not iterable)"),
        (lambda p, r: [len(x) for x in p], "'f' gives all responses to a prompt the same score"),
        (lambda p, r: [None] * len(r), "'f' gives all responses to a prompt the same score"),
    ],
)
def test_a_scorer_that_gives_no_score_is_named(function, message, feedback):
    with pytest.raises(InputError, match=re.escape(message)):
        Scorers({"f": function}, missing="indicate").encode(feedback(IDS, PROMPTS, RESPONSES))


class Weighed:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, prompts, responses):
        return [self.weight * len(r) for r in responses]

    def method(self, prompts, responses):
        return self(prompts, responses)


def scaled(factor, prompts, responses):
    return [factor * len(r) for r in responses]


def closure(factor):
    return lambda prompts, responses: [factor * len(r) for r in responses]


def default(factor):
    def f(prompts, responses, factor=factor):
        return [factor * len(r) for r in responses]

    return f


def table(weights):
    return lambda prompts, responses: [float(weights @ np.ones(2)) * len(r) for r in responses]


@pytest.mark.parametrize(
    "make",
    [
        Weighed,
        lambda f: Weighed(f).method,
        lambda f: partial(scaled, f),
        closure,
        default,
        lambda f: table(np.r_[f, 0]),
    ],
)
def test_other_code_or_other_numbers_are_another_scorer(make, feedback):
    one, same, other = make(2.0), make(2.0), make(3.0)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert repr(Scorers({"f": one})) == repr(Scorers({"f": same})) != repr(Scorers({"f": other}))
    votes = feedback(IDS, PROMPTS, RESPONSES)
    phi = Scorers({"f": one}).encode(votes)
    np.testing.assert_array_equal(Scorers({"f": same}).encode_texts(PROMPTS, RESPONSES, phi), phi.phi)
    with pytest.raises(InputError, match=r"made with scorers = .* do not mean the same"):
        Scorers({"f": other}).encode_texts(PROMPTS, RESPONSES, phi)


def test_a_fingerprint_of_its_own_counts_and_outlives_the_process():
    class Versioned:
        def __init__(self, version):
            self.fingerprint = version

        def __call__(self, prompts, responses):
            return [0]

    assert fingerprint(Versioned("a")) == fingerprint(Versioned("a")) != fingerprint(Versioned("b"))
    code = "from pluralign.functions import fingerprint as f\ndef g(p, r, x={1.5: frozenset('ab')}): return [len(y) for y in r if y in {'a', 'b'}]\nprint(f(g))"
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(told) == 1


def test_a_function_that_calls_itself_has_a_fingerprint():
    def outer():
        def again(prompts, responses):
            return [0.0] if not responses else again(prompts[1:], responses[1:]) + [1.0]  # noqa: RUF005

        return again

    assert fingerprint(outer()) == fingerprint(outer())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scorers(), "scorers are []"),
        (lambda: Scorers({"a": words}, (Classifier("a", "m"),)), "scorers are ['a', 'a']"),
        (lambda: Classifier("a", "m", max_tokens=7), "max_tokens of 'a' is 7"),
        (lambda: Classifier("a", "m", labels=()), "labels of 'a' are ()"),
    ],
)
def test_fields_out_of_range_are_named(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def with_head(base, folder, kind, config, labels, **fields):
    """A classifier on the vocabulary of a tiny model."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(4)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    size = len(tokenizer)
    kind(
        config(vocab_size=size, max_position_embeddings=64, initializer_range=0.5, **shape, **names, **fields)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def moods(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moods")
    return with_head(bert, folder, BertForSequenceClassification, BertConfig, ["sad", "calm", "glad"], pad_token_id=3)


@pytest.fixture(scope="session")
def judge(llama, tmp_path_factory):
    """A causal reward model without a padding token."""
    return with_head(llama, tmp_path_factory.mktemp("judge"), LlamaForSequenceClassification, LlamaConfig, ["LABEL_0"])


def logits(kind, model, texts, **options) -> np.ndarray:
    """One text at a time, as the model's card would have it."""
    tokenizer, network = AutoTokenizer.from_pretrained(model), kind.from_pretrained(model).eval()
    with torch.no_grad():
        rows = [network(**tokenizer(*text, return_tensors="pt", **options)).logits[0].double() for text in texts]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("context", ["none", "prompt"])
def test_labels_are_log_odds(context, moods, texts):
    _, prompts, responses = texts(30)
    given = list(zip(prompts, responses, strict=True)) if context == "prompt" else [(r,) for r in responses]
    z = np.exp(logits(BertForSequenceClassification, moods, given))
    p = z / z.sum(1, keepdims=True)
    mood = Classifier("mood", moods, context=context, device="cpu", batch_tokens=40)
    reading = Scorers(classifiers=(mood,)).read(prompts, responses)
    assert reading.how["columns"] == ("mood sad", "mood calm", "mood glad")
    np.testing.assert_allclose(reading.raw[:, :3], np.log(p / (1 - p)), rtol=1e-3, atol=1e-4)
    one = Scorers({"words": words}, (Classifier("mood", moods, labels=("calm",), context=context),))
    reading = one.read(prompts, responses)
    assert reading.how["columns"] == ("words", "mood")
    np.testing.assert_allclose(reading.raw[:, 1], np.log(p / (1 - p))[:, 1], rtol=1e-3, atol=1e-4)


def test_a_reward_model_gives_its_reward(judge, texts, feedback):
    ids, prompts, responses = texts(30)
    scorers = Scorers(classifiers=(Classifier("reward", judge, context="prompt", device="cpu"),))
    z = logits(LlamaForSequenceClassification, judge, list(zip(prompts, responses, strict=True)))[:, 0]
    phi = scorers.encode(feedback(ids, prompts, responses))
    assert phi.names == ("reward",)
    np.testing.assert_allclose(phi.phi[:, 0], (z - z.mean()) / spread(z, ids), atol=1e-3)
    np.testing.assert_allclose(scorers.encode_texts(prompts[:3], responses[:3], phi), phi.phi[:3], atol=1e-4)


def test_of_two_labels_the_second_is_the_feature(bert, tmp_path, texts):
    model = with_head(bert, tmp_path, BertForSequenceClassification, BertConfig, ["no", "yes"], pad_token_id=3)
    _, prompts, responses = texts(10)
    z = logits(BertForSequenceClassification, model, [(r,) for r in responses])
    reading = Scorers(classifiers=(Classifier("says", model),)).read(prompts, responses)
    assert reading.how["columns"] == ("says",)
    np.testing.assert_allclose(reading.raw[:, 0], z[:, 1] - z[:, 0], atol=1e-4)


def test_labels_that_do_not_exclude_each_other_keep_their_logits(bert, tmp_path, texts):
    kind = "multi_label_classification"
    model = with_head(
        bert, tmp_path, BertForSequenceClassification, BertConfig, ["rude", "long"], pad_token_id=3, problem_type=kind
    )
    _, prompts, responses = texts(10)
    z = logits(BertForSequenceClassification, model, [(r,) for r in responses])
    reading = Scorers(classifiers=(Classifier("is", model),)).read(prompts, responses)
    assert reading.how["columns"] == ("is rude", "is long")
    np.testing.assert_allclose(reading.raw[:, :2], z, atol=1e-4)


def test_a_chat_template_frames_both_texts(judge, tmp_path):
    folder = shutil.copytree(judge, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'who ' if m['role'] == 'user' else 'asks ' }}{{ m['content'] }} {% endfor %}never"
    )
    tokenizer.save_pretrained(folder)
    expected = logits(
        LlamaForSequenceClassification, judge, [("who why is asks deep sea never",)], add_special_tokens=False
    )
    found = Scorers(classifiers=(Classifier("r", str(folder), context="prompt"),)).read(["why is"], ["deep sea"]).raw
    np.testing.assert_allclose(found[0, 0], expected[0, 0], atol=1e-4)


def test_what_is_too_long_is_cut_and_counted(moods):
    long, short = "salt " * 60, "salt"
    scorers = Scorers(classifiers=(Classifier("mood", moods, max_tokens=12),))
    reading = scorers.read(["", ""], [long, short])
    assert reading.facts["classifiers"]["mood"]["truncated"] == 1
    z = logits(BertForSequenceClassification, moods, [(long,)], truncation=True, max_length=12)
    p = np.exp(z) / np.exp(z).sum()
    np.testing.assert_allclose(reading.raw[0, :3], np.log(p / (1 - p))[0], atol=1e-3)


def test_scores_are_computed_once(moods, texts, monkeypatch):
    _, prompts, responses = texts(10)
    scorers = Scorers(classifiers=(Classifier("mood", moods),))
    first = scorers.read(prompts, responses)

    def fail(*args, **options):
        raise AssertionError

    monkeypatch.setattr(classify, "scores", fail)
    again = scorers.read(prompts, responses)
    np.testing.assert_array_equal(first.raw, again.raw)
    assert first.how == again.how
    Scorers(classifiers=(Classifier("other name", moods, labels=("sad",)),)).read(prompts, responses)
    with pytest.raises(AssertionError):
        Scorers(classifiers=(Classifier("mood", moods, max_tokens=9),)).read(prompts, responses)


def test_texts_that_come_in_batches_load_the_classifier_once(judge, texts, feedback, loads, tmp_path):
    ids, prompts, responses = texts(12)
    scorers = Scorers(classifiers=(Classifier("reward", judge, device="cpu"),))
    phi = scorers.encode(feedback(ids, prompts, responses))
    files = sorted((tmp_path / "cache" / "pluralign" / "states").iterdir())
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        written = [f"{response} sea" for response in responses[part]]
        found = scorers.encode_texts(prompts[part], written, phi)
        z = logits(LlamaForSequenceClassification, judge, [(text,) for text in written])[:, 0]
        np.testing.assert_allclose(found[:, 0], phi.project(np.column_stack([z, np.zeros(4)]))[:, 0], atol=1e-3)
    assert len(loads) == 2
    assert sorted((tmp_path / "cache" / "pluralign" / "states").iterdir()) == files


def test_a_model_without_a_head_or_without_such_a_label_is_refused(bert, moods, tmp_path):
    with pytest.raises(InputError, match=r"no weights for .*'classifier.weight'.*it is no sequence classifier"):
        Scorers(classifiers=(Classifier("mood", str(bert)),)).read(["why"], ["sea"])
    with pytest.raises(InputError, match=r"labels of 'mood' name \['angry'\]; .* has \['sad', 'calm', 'glad'\]"):
        Scorers(classifiers=(Classifier("mood", moods, labels=("sad", "angry")),)).read(["why"], ["sea"])
    with pytest.raises(InputError, match="cannot be loaded as a transformers model"):
        Scorers(classifiers=(Classifier("mood", str(tmp_path)),)).read(["why"], ["sea"])
