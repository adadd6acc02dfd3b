import numpy as np
import pytest
import torch

from pluralign.policy import Pretrained, scoring
from pluralign.policy.text import Row
from tests.policy.conftest import by_hand

rng = np.random.default_rng(0)


def random_rows(vocabulary):
    sizes = [(1, 1), (9, 2), (3, 7), (5, 0), (2, 4), (7, 7)]
    return [Row(*(tuple(rng.integers(vocabulary, size=n).tolist()) for n in size)) for size in sizes]


@pytest.fixture(scope="module", params=["tiny", "stories260K", "stories15M"])
def network(request):
    if request.param == "tiny":
        return request.getfixturevalue("tiny").load()[0]
    return Pretrained(str(request.getfixturevalue("real_models") / request.param)).load()[0]


def test_log_probs_are_those_of_one_unpadded_row_at_a_time(network):
    rows = random_rows(network.config.vocab_size)
    with torch.no_grad():
        got = scoring.log_probs(network, rows)
    np.testing.assert_allclose(got, [by_hand(network, row) for row in rows], rtol=1e-5, atol=1e-4)
    # a row scored with a neighbour's response is not a row: the oracle would notice
    wrong = [Row(a.prompt, b.response) for a, b in zip(rows, rows[1:] + rows[:1], strict=True)]
    assert np.abs(np.array([by_hand(network, row) for row in wrong]) - got.numpy()).max() > 0.1


def test_company_and_order_do_not_matter(network):
    rows = random_rows(network.config.vocab_size)
    alone = scoring.score(network, rows, batch=1)
    seen = []
    np.testing.assert_allclose(scoring.score(network, rows, 4, seen.append), alone, rtol=1e-5, atol=1e-4)
    assert sum(seen) == len(rows)
    np.testing.assert_allclose(scoring.score(network, rows[::-1], 3)[::-1], alone, rtol=1e-5, atol=1e-4)


def test_a_model_without_positions_or_kept_logits_is_scored_alike(tiny):
    """A model whose forward takes neither argument gives all logits; only the right columns count."""
    network = tiny.load()[0]

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, input_ids, attention_mask, use_cache):
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions)

    rows = random_rows(network.config.vocab_size)
    np.testing.assert_allclose(scoring.score(Plain(), rows, 4), scoring.score(network, rows, 4), atol=1e-6)
