"""Skills of workers do not hang on where the search began: a known fault of noisy Bradley-Terry models elsewhere."""

import datasets
import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

from pluralign import features, reward
from pluralign.types import Choices, Feedback, Grades

ITEMS, PEOPLE, EACH = 20, 16, 60


def test_skills_are_the_same_from_every_start_and_those_of_the_workers():
    """Half the workers are skilled, a quarter guess half the time, a quarter always; worths are of items alone."""
    rng = np.random.default_rng(0)
    worth = np.linspace(-2, 2, ITEMS)
    guesses = np.repeat([0.0, 0.5, 1.0], [8, 4, 4])
    who = np.repeat(np.arange(PEOPLE), EACH)
    first = rng.integers(0, ITEMS, len(who))
    second = (first + rng.integers(1, ITEMS, len(who))) % ITEMS
    p = (1 - guesses[who]) * expit(worth[first] - worth[second]) + guesses[who] / 2
    won = rng.random(len(who)) < p
    none = np.zeros(len(who), int)
    texts = {"prompt_id": [0] * ITEMS, "prompt": ["p"] * ITEMS, "response": [f"r{i:02d}" for i in range(ITEMS)]}
    people = {"id": [f"w{a:02d}" for a in range(PEOPLE)], "weight": [1.0] * PEOPLE}
    votes = Feedback(
        items=datasets.Dataset.from_dict(texts),
        annotators=datasets.Dataset.from_dict(people),
        objectives=("overall",),
        choices=Choices(np.stack([first, second], 1), np.stack([~won, won], 1).astype(int), who, none, none - 1),
        grades=Grades.none(),
    )
    phi = features.Items().encode(votes)
    population = reward.Pooled(scale=2.0, response=reward.Response(rater=reward.Rater(lapse=True, position=False)))
    inference = reward.SVI(steps=1500, learning_rate=0.05, draws=300)
    fits = [population.fit(votes, phi, inference=inference, seed=seed) for seed in range(3)]
    lapse = np.array([fit.rater["lapse"].mean(0) for fit in fits])
    assert np.abs(lapse - lapse.mean(0)).max() < 0.05
    assert all(spearmanr(row, guesses).statistic > 0.8 for row in lapse)
    assert lapse[0, guesses == 1].min() > 0.5 > lapse[0, guesses == 0].max()
    item = fits[0].weights[:, 0, 0].astype(float).mean(0) @ phi.phi.T
    assert np.corrcoef(item, worth)[0, 1] > 0.95
