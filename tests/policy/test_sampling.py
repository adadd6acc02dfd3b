from collections import Counter

import numpy as np
import pytest
import torch

from pluralign.errors import InputError
from pluralign.policy import sample
from tests.policy.conftest import RESPONSES, by_hand

PROMPTS = ["tell me about the cat", "dog"]  # of unequal length, so that one is padded


def test_the_same_seed_gives_the_same_texts(tiny):
    state = torch.random.get_rng_state()
    first = sample(tiny, PROMPTS, n=5, max_tokens=8)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's random numbers were left alone
    assert [len(texts) for texts in first] == [5, 5]
    assert sample(tiny.path, PROMPTS, n=5, max_tokens=8) == first
    assert sample(tiny, PROMPTS, n=5, max_tokens=8, seed=1) != first


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_texts_come_as_often_as_the_model_says(tiny, temperature):
    """Within 4.5 standard errors, for each known response to each prompt; n / 10 more or less would be seen."""
    n = 3000
    network, form = tiny.load()
    written = sample(tiny, PROMPTS, n=n, max_tokens=12, temperature=temperature, batch=1000)
    for prompt, texts in zip(PROMPTS, written, strict=True):
        found = Counter(texts)
        total = 0.0
        for response in RESPONSES:
            p = np.exp(by_hand(network, form.row(form.prompt(prompt, 50), response, 50), temperature))
            assert found[response] / n == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / n))
            total += p
        assert total > 0.1  # or the comparison would be empty


def test_temperature_zero_takes_the_most_probable_token(tiny):
    network, form = tiny.load()
    for prompt, texts in zip(PROMPTS, sample(tiny, PROMPTS, n=2, max_tokens=6, temperature=0.0), strict=True):
        ids = list(form.prompt(prompt, 50))
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] not in form.stops:
            ids.append(int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert texts == [form.text(ids[start:])] * 2


@pytest.mark.parametrize(("changes", "message"), [({"n": 0}, "n is 0"), ({"temperature": -1.0}, "temperature is -1")])
def test_a_number_out_of_range_is_named(tiny, changes, message):
    with pytest.raises(InputError, match=message):
        sample(tiny, PROMPTS, **changes)


def test_an_adapter_that_is_not_there_is_named(tiny, tmp_path):
    with pytest.raises(InputError, match="holds no adapter"):
        sample(tiny, PROMPTS, adapter=tmp_path)
