import numpy as np
import pytest

from pluralign import choice
from pluralign.types import Linear, Utilities


def problem(seed: int = 0, shape=(6, 4, 3, 4), features: int = 3, scale=None) -> Utilities:
    """Random utilities, linear in features, of unequal voters, with an empty slot in the first prompt."""
    rng = np.random.default_rng(seed)
    draws, voters, prompts, candidates = shape
    weights = rng.normal(size=(1, voters, features)) + 0.5 * rng.normal(size=(draws, voters, features))
    reference = rng.dirichlet(np.full(candidates, 3.0), size=prompts)
    if candidates > 1:
        reference[0, -1] = 0
    utilities = Utilities(
        value=Linear(rng.normal(size=(prompts, candidates, features)), weights, np.zeros((draws, voters))),
        mass=rng.dirichlet(np.full(voters, 5.0)),
        reference=reference / reference.sum(-1, keepdims=True),
    )
    return choice.rescale(utilities, scale or choice.StdScale())


@pytest.fixture
def make():
    return problem
