"""A small simulator of the model, in numpy alone, and the fits that several tests look at."""

from dataclasses import dataclass
from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from pluralign import reward
from pluralign.types import Choices, Features, Feedback, Grades

OUTCOME_RANK = np.array([[0, 1], [1, 0], [0, 0]])


def make_feedback(first, second, outcome, annotator, items, ids, *, team=None, weight=None) -> Feedback:
    n = len(outcome)
    table = {"prompt_id": [0] * items, "prompt": ["p"] * items, "response": [f"r{i}" for i in range(items)]}
    people = {"id": list(ids), "weight": [1.0] * len(ids) if weight is None else list(weight)}
    if team is not None:
        people["team"] = [str(t) for t in team]
    return Feedback(
        items=datasets.Dataset.from_dict(table),
        annotators=datasets.Dataset.from_dict(people),
        objectives=("overall",),
        choices=Choices(
            slate=np.stack([first, second], 1),
            rank=OUTCOME_RANK[outcome],
            annotator=annotator,
            objective=np.zeros(n, int),
            context=np.full(n, -1),
        ),
        grades=Grades.none(),
    )


def make_features(phi) -> Features:
    phi = np.asarray(phi, np.float64)
    d = phi.shape[1]
    return Features(
        phi=phi,
        prompt_id=np.zeros(len(phi), int),
        names=tuple(f"f{i}" for i in range(d)),
        origin=np.zeros(d),
        basis=np.eye(d),
    )


@dataclass
class World:
    """A simulated community: what it wants, how it errs, and its judgements."""

    votes: Feedback
    phi: Features
    weights: np.ndarray
    centre: np.ndarray
    team: np.ndarray
    careless: np.ndarray


def simulate(
    seed, *, annotators=24, judgements=30, features=3, items=40, teams=2, careless=0.15, tie=-0.7, position=0.0
):
    """Simulate Davidson's model with lapses: weights scatter by 0.3 about the team's, the careless lapse 8 times in 10."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(items, features))
    centre = rng.normal(size=(teams, features))
    team = np.arange(annotators) % teams
    weights = centre[team] + 0.3 * rng.normal(size=(annotators, features))
    careless = np.arange(annotators) >= round((1 - careless) * annotators)
    n = annotators * judgements
    annotator = np.repeat(np.arange(annotators), judgements)
    first = rng.integers(0, items, n)
    second = (first + rng.integers(1, items, n)) % items
    eta = ((phi[first] - phi[second]) * weights[annotator]).sum(1) + position
    odds = np.exp(np.stack([eta / 2, -eta / 2, np.full(n, tie)], 1))
    lapse = np.where(careless, 0.8, 0.02)[annotator][:, None]
    p = (1 - lapse) * odds / odds.sum(1, keepdims=True) + lapse / 3
    outcome = (rng.random((n, 1)) > p.cumsum(1)).sum(1)
    ids = [f"a{a:03d}" for a in range(annotators)]
    votes = make_feedback(first, second, outcome, annotator, items, ids, team=team)
    return World(votes, make_features(phi), weights, centre, team, careless)


@pytest.fixture(scope="session")
def simulation() -> SimpleNamespace:
    return SimpleNamespace(simulate=simulate, feedback=make_feedback, features=make_features)


@pytest.fixture(scope="session")
def world() -> World:
    return simulate(0, position=0.5)


@pytest.fixture(scope="session")
def hierarchical(world):
    """A fit that is good: any warning is an error."""
    inference = reward.NUTS(warmup=400)
    return reward.Hierarchical(group="team").fit(world.votes, world.phi, inference=inference, seed=0)
