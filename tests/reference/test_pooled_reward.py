"""The whole path, from votes to a chosen policy: a pooled reward breaks unanimity, and linear rules do not."""

from itertools import combinations

import numpy as np
from datasets import Dataset

from pluralign import choice, reward
from pluralign.types import Choices, Features, Feedback, Grades, Linear, Utilities


def test_a_pooled_reward_ranks_against_everyone():
    """Ge et al. (2024), theorem 3.1, p = 0.6, delta = 0.25, e = 0.01: the minimiser is (0.26817, 0.00568).

    200 copies of five voters who compare all pairs of answers a, a', b, b', c', c, in that order or (two of them) the
    other way round, but for c', which all prefer to c.
    """
    e, delta, copies = 0.01, 0.25, 200
    phi = np.array([[2, 1], [2 - e, 1], [1, 1], [1 - e, 1], [-e, delta * e], [0, 0]])
    ballots = 3 * [(0, 1, 2, 3, 4, 5)] + 2 * [(4, 5, 3, 2, 1, 0)]
    pairs = np.array([pair for ballot in ballots for pair in combinations(ballot, 2)] * copies)
    zero = np.zeros(len(pairs), int)
    votes = Feedback(
        items=Dataset.from_dict({"prompt_id": [0] * 6, "prompt": ["?"] * 6, "response": list("aAbBCc")}),
        annotators=Dataset.from_dict({"id": ["all"], "weight": [1.0]}),
        objectives=("overall",),
        choices=Choices(pairs, np.tile([0, 1], (len(pairs), 1)), zero, zero, zero - 1),
        grades=Grades.none(),
    )
    features = Features(phi, np.zeros(6, int), ("one", "two"), np.zeros(2), np.eye(2))
    population = reward.Pooled(scale=30.0, response=reward.PLAIN)
    posterior = population.fit(votes, features, inference=reward.Laplace(draws=4000), seed=0)
    weights = posterior.weights[:, 0, 0]
    error = 5 * weights.std(0) / np.sqrt(len(weights))
    assert (np.abs(weights.mean(0) - [0.26817, 0.00568]) < error + 1e-3).all(), (weights.mean(0), error)
    assert ((phi[4] - phi[5]) @ weights.T < 0).mean() > 0.999  # and it is sure of it

    pooled = choice.utilities(posterior, features, draws=50)
    assert choice.Utilitarian().choose(pooled).reward.score(phi)[4:].argmax() == 1
    value = Linear(phi[None], np.array([[[1, 8], [-1, 0]]]), np.zeros((1, 2)))
    people = Utilities(value, np.array([0.6, 0.4]), np.full((1, 6), 1 / 6))
    for rule in (choice.LCPO(), choice.LinearKemeny()):
        assert (np.diff(rule.choose(people).reward.score(phi)) < 0).all()
