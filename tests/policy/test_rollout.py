from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from pluralign.policy import rollout
from pluralign.policy.text import Format, Row
from tests.policy.conftest import by_hand
from tests.policy.test_scoring import MODELS, WORDS, make

PROMPTS = [(3, 4, 5, 6, 7), (8,), (9, 10, 11)]  # of unequal length, so that some are padded
STOP, OTHER = 2, 17


def stopping(*stops) -> Format:
    return Format(None, "", stops[:1], stops)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MODELS)
def test_the_most_probable_tokens_are_those_of_generate(name):
    """Whatever the model remembers of a prompt; with rows that end early, and one that waits for a second stop."""
    model = make(name)
    config = GenerationConfig(max_new_tokens=9, eos_token_id=[STOP, OTHER], pad_token_id=STOP, do_sample=False)
    for row, prompt in zip(
        rollout.write(model, stopping(STOP, OTHER), PROMPTS, 1, 9, 0.0, seeded()), PROMPTS, strict=True
    ):
        alone = model.generate(input_ids=torch.tensor([prompt]), generation_config=config)
        assert row[0].response == tuple(alone[0, len(prompt) :].tolist())
        assert row[0].prompt == prompt
        assert row[0].cut == (row[0].response[-1] not in (STOP, OTHER))


@pytest.mark.parametrize("name", ["llama", "mistral", "mamba"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sequences_come_as_often_as_the_model_says(name, temperature):
    """Against the exact probability of every sequence of two tokens, the first of which may end it."""
    model, n = make(name), 4000
    rows = rollout.write(model, stopping(STOP), PROMPTS[:2], n, 2, temperature, seeded(), 1000)
    for prompt, group in zip(PROMPTS[:2], rows, strict=True):
        found = Counter(row.response for row in group)
        expected = enumerated(model, prompt, temperature)
        assert sum(expected.values()) == pytest.approx(1, abs=1e-9)
        assert set(found) <= set(expected)
        assert all(row.cut == (row.response[-1] != STOP) for row in group)
        assert fits(found, expected, n)
        assert not fits(found, enumerated(model, prompt, 0.8), n)


def enumerated(model, prompt, temperature):
    with torch.no_grad():
        one = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        two = model(input_ids=torch.tensor([[*prompt, a] for a in range(WORDS)])).logits[:, -1]
    one, two = ((x.double() / temperature).softmax(-1).numpy() for x in (one, two))
    both = {(a, b): one[a] * two[a, b] for a, b in product(range(WORDS), range(WORDS)) if a != STOP}
    return {(STOP,): one[STOP], **both}


def fits(found, expected, n):
    """Whether counts pass a chi-square test; sequences expected fewer than ten times share a cell."""
    often = [t for t, p in expected.items() if n * p >= 10]
    assert len(often) > 10
    counts, chances = [found[t] for t in often], [expected[t] for t in often]
    return chisquare([*counts, n - sum(counts)], np.array([*chances, 1 - sum(chances)]) * n).pvalue > 1e-4


def test_responses_depend_on_the_generator_alone_and_not_on_the_batch():
    model, form = make("llama"), stopping(STOP, *range(20, 30))  # rows end often, so that batches shrink
    state = torch.random.get_rng_state()
    first = rollout.write(model, form, PROMPTS, 6, 12, 1.0, seeded())
    assert torch.equal(torch.random.get_rng_state(), state)
    lengths = {len(row.response) for group in first for row in group}
    assert len(lengths) > 4
    for batch in (1, 4, 7, 12):
        told = []
        assert rollout.write(model, form, PROMPTS, 6, 12, 1.0, seeded(), batch, told.append) == first
        assert sum(told) == 18
    assert rollout.write(model, form, PROMPTS, 6, 12, 1.0, seeded(1)) != first


def test_a_prompt_is_read_once_for_all_its_responses():
    model, seen = make("llama"), []
    with model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"].shape), with_kwargs=True):
        rollout.write(model, stopping(STOP), PROMPTS, 5, 4, 1.0, seeded())
    assert [tuple(shape) for shape in seen] == [(3, 5), *[(15, 1)] * 3]


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_what_the_generation_config_says_bends_nothing(name):
    model = make(name)
    first = rollout.write(model, stopping(STOP), PROMPTS, 3, 5, 1.0, seeded())
    own = GenerationConfig(repetition_penalty=9.0, suppress_tokens=[t for t in range(WORDS) if t % 2], top_k=1)
    model.generation_config = own  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    assert rollout.write(model, stopping(STOP), PROMPTS, 3, 5, 1.0, seeded()) == first
    assert model.generation_config is own


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_an_adapter_writes_while_it_is_on(name):
    model = make(name, ["q_proj"] if name == "llama" else ["in_proj"])
    form = stopping(STOP)
    on = rollout.write(model, form, PROMPTS, 4, 5, 1.0, seeded())
    with model.disable_adapter():
        off = rollout.write(model, form, PROMPTS, 4, 5, 1.0, seeded())
    assert on != off
    assert off == rollout.write(make(name), form, PROMPTS, 4, 5, 1.0, seeded())
    row = max((row for group in on for row in group), key=lambda row: len(row.response))
    assert by_hand(model, row) != by_hand(make(name), row)


@pytest.mark.parametrize("words", [1, 5, 256, 700, 1000])
def test_a_drawn_token_is_where_the_distribution_function_passes_the_number(words):
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(50, words)) * 3).float()
    logits[:, rng.random(words) < 0.3] = -torch.inf
    logits[:, -1] = 0.0
    for uniform in (rng.random(50), np.zeros(50), np.full(50, 1 - 2.0**-53)):
        got = rollout.draw(logits, torch.tensor(uniform), 0.7).numpy()
        p = (logits.double() / 0.7).softmax(-1).numpy()
        above = np.cumsum(p, -1)
        for i, k in enumerate(got):
            assert p[i, k] > 0
            assert above[i, k] > uniform[i] - 1e-6
            assert above[i, k] - p[i, k] <= uniform[i] + 1e-6


def test_rows_end_with_the_first_stop():
    assert rollout._row((1,), [5, 9, 7, 9], (7, 9)) == Row((1,), (5, 9))
    assert rollout._row((1,), [5, 6], (7, 9)) == Row((1,), (5, 6), cut=True)
