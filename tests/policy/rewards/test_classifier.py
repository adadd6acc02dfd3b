"""Scores of sequence classifiers, one text at a time and beside what the feature of the same model says."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from pluralign import choice, features
from pluralign.errors import InputError
from pluralign.policy.rewards import Classifier, Rewards, Term
from tests.policy.rewards.test_total import Table, problem

PROMPTS = ["tell me about the cat", "tell me about the dog", "tell me about the fish", "cat"]
RESPONSES = ["it sleeps", "it runs , and runs", "no", "we love it we love it"]


@pytest.fixture(scope="module")
def judge(tiny, tmp_path_factory):
    """Make a causal classifier with these labels, on the vocabulary of the tiny model."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.path)

    def make(labels, **fields):
        folder = tmp_path_factory.mktemp("judge")
        torch.manual_seed(len(labels))
        names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.5, **shape, **names, **fields)
        LlamaForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


def by_hand(model, texts):
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        return np.array([network(**tokenizer(*t, return_tensors="pt")).logits[0].double().numpy() for t in texts])


@pytest.mark.parametrize("context", ["none", "prompt"])
@pytest.mark.parametrize("label", [None, "sad", "calm", "glad"])
def test_scores_are_those_of_one_text_at_a_time_and_of_the_feature(judge, label, context):
    model = judge(["sad", "calm", "glad"] if label else ["LABEL_0"])
    found = Classifier(model, label, context, batch_tokens=12)(PROMPTS, RESPONSES)
    pairs = list(zip(PROMPTS, RESPONSES, strict=True))
    z = by_hand(model, pairs if context == "prompt" else [(r,) for r in RESPONSES])
    if label:
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        p = p[:, ["sad", "calm", "glad"].index(label)]
        z = np.log(p / (1 - p))[:, None]
    np.testing.assert_allclose(found, z[:, 0], atol=1e-4)
    labels = (label,) if label else None
    feature = features.Classifier("mood", model, labels, context, cache=False).score(PROMPTS, RESPONSES)
    np.testing.assert_allclose(found, feature.scores[:, 0], atol=1e-5)


def test_labels_that_do_not_exclude_each_other(judge):
    model = judge(["rude", "long"], problem_type="multi_label_classification")
    z = by_hand(model, [(r,) for r in RESPONSES])
    np.testing.assert_allclose(Classifier(model, "rude")(PROMPTS, RESPONSES), z[:, 0], atol=1e-4)
    with pytest.raises(InputError, match="must be one of them"):
        Classifier(model)(PROMPTS, RESPONSES)
    two = judge(["no", "yes"])
    z = by_hand(two, [(r,) for r in RESPONSES])
    np.testing.assert_allclose(Classifier(two)(PROMPTS, RESPONSES), z[:, 1] - z[:, 0], atol=1e-4)


def test_what_is_no_classifier(judge, tiny):
    with pytest.raises(InputError, match="no sequence classifier"):
        Classifier(tiny.path)(PROMPTS, RESPONSES)
    with pytest.raises(InputError, match="cannot load the classifier"):
        Classifier("/nowhere/at/all")(PROMPTS, RESPONSES)
    with pytest.raises(InputError, match="must be at least 8"):
        Classifier("x", max_tokens=7)
    with pytest.raises(InputError, match="labels"):
        Classifier(judge(["sad", "calm", "glad"]), "gald")(PROMPTS, RESPONSES)


def test_a_classifier_is_a_term(judge):
    votes, phi, utilities = problem(20)
    model = judge(["LABEL_0"])
    term = Term("taste", Classifier(model, context="prompt"), weight=0.5)
    words = Table({r: np.ones(3) for r in RESPONSES})
    scored = Rewards.of(choice.Utilitarian().choose(utilities), votes, phi, words, (term,))(PROMPTS, RESPONSES)
    z = by_hand(model, list(zip(PROMPTS, RESPONSES, strict=True)))[:, 0]
    np.testing.assert_allclose(scored.total - scored.parts["rule"], 0.5 * z, atol=1e-4)
