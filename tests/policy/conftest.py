from dataclasses import fields

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import logsumexp
from transformers import LlamaConfig, LlamaForCausalLM

from pluralign.policy import Scratch, resolve, scoring
from pluralign.policy.models import Pretrained, _words
from pluralign.policy.text import Format
from pluralign.types import Certificate, Choice, Choices, Features, Feedback, Grades, Utilities

ANIMALS = ("cat", "dog", "fish")
RESPONSES = ("it sleeps", "it runs , and runs", "no", "we love it", "")
WORDS = ("red", "green", "blue")


def make_feedback(prompts, responses) -> Feedback:
    rows = [(i, x, y) for i, x in enumerate(prompts) for y in responses[i]]
    items = Dataset.from_dict(
        dict(zip(("prompt_id", "prompt", "response"), map(list, zip(*rows, strict=True)), strict=True))
    )
    annotators = Dataset.from_dict({"id": ["ada"], "weight": [1.0]})
    return Feedback(items, annotators, ("overall",), Choices([[0, 1]], [[0, 1]], [0], [0], [-1]), Grades.none())


def make_choice(tilt, name="nash", beta=0.5, reference=None) -> Choice:
    """A choice whose lottery is `reference exp(tilt) / Z`."""
    tilt = np.asarray(tilt, np.float64)
    reference = np.full(tilt.shape, 1 / tilt.shape[1]) if reference is None else np.asarray(reference)
    lottery = reference * np.exp(tilt)
    lottery /= lottery.sum(-1, keepdims=True)
    utilities = Utilities(tilt[None, None] * beta, [1.0], reference)
    certificate = Certificate(**{f.name: 0.0 if f.type is float else f.type() for f in fields(Certificate)})  # not read
    return Choice(name, lottery, np.ones((1, 1)), None, beta, "mean", certificate, utilities)


def make_features(votes) -> Features:
    n = len(votes.items)
    return Features(np.eye(n), votes.prompt_id, tuple(f"item {i}" for i in range(n)), np.zeros(n), np.eye(n))


@pytest.fixture(scope="session")
def votes() -> Feedback:
    return make_feedback([f"tell me about the {animal}" for animal in ANIMALS], [RESPONSES] * len(ANIMALS))


@pytest.fixture(scope="session")
def tiny(votes, tmp_path_factory) -> Pretrained:
    """A word-level Llama that writes the five responses, and seldom anything else."""
    scratch = Scratch(layers=2, width=32, heads=2, steps=100, batch=8, learning_rate=1e-2)
    return resolve(scratch, votes, tmp_path_factory.mktemp("tiny"), seed=0)


def by_hand(network, row, temperature=1.0) -> float:
    """log pi(response | prompt), token by token in float64, from the logits of one unpadded row."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([row.prompt + row.response])).logits[0].double().numpy() / temperature
    start = len(row.prompt) - 1
    return sum(float(logits[start + k, token] - logsumexp(logits[start + k])) for k, token in enumerate(row.response))


class Indicators:
    """One feature per word, none for any other text."""

    def encode_texts(self, prompts, responses, like):
        return np.array([[float(y == word) for word in WORDS] for y in responses]).reshape(-1, 3)


@pytest.fixture(scope="session")
def colours():
    votes = make_feedback(["which colour ?"], [WORDS])
    return votes, Features(np.eye(3), votes.prompt_id, WORDS, np.zeros(3), np.eye(3), {})


@pytest.fixture(scope="session")
def writer(colours, tmp_path_factory):
    """A language model that names one of three colours, each about as often.

    Its output layer is random and stays so: with words that were always alike, one that is trained makes their rows
    alike, and then no adapter below it can tell them apart.
    """
    prompt, folder = colours[0].items["prompt"][0], tmp_path_factory.mktemp("writer")
    tokenizer = _words([prompt, *WORDS])
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    form = Format.of(tokenizer)
    rows = [form.row(form.prompt(prompt, 64), word, 8) for word in WORDS]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        model.lm_head.weight.requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            (-scoring.log_probs(model, rows).mean()).backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Pretrained(str(folder))
