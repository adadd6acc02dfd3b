from types import SimpleNamespace

import cvxpy as cp
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


TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10, "max_iter": 500}


def cone_primal(f, utilities, beta):
    """Return lottery, multipliers and value."""
    reference, value = utilities.reference, utilities.dense()
    x, y = np.nonzero(reference > 0)
    p, u = cp.Variable(len(x), nonneg=True), cp.Variable(utilities.shape[:2])
    rows = np.zeros((len(reference), len(x)))
    rows[x, np.arange(len(x))] = 1
    gain = value[..., x, y].reshape(u.size, -1) @ p / len(reference)
    link = u <= cp.reshape(gain, u.shape, order="C")
    divergence = cp.sum(cp.rel_entr(p, reference[x, y])) / len(reference)
    problem = cp.Problem(cp.Maximize(f(u) - beta * divergence), [rows @ p == 1, link])
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    assert problem.status == cp.OPTIMAL
    lottery = np.zeros_like(reference)
    lottery[x, y] = p.value
    return lottery, link.dual_value, problem.value


def cone_conjugate(f, low, high, multipliers):
    """Return `max_u f(u) - <multipliers, u>` over the box of attainable utilities."""
    u = cp.Variable(low.shape)
    problem = cp.Problem(cp.Maximize(f(u) - cp.sum(cp.multiply(multipliers, u))), [u >= low, u <= high])
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    assert problem.status == cp.OPTIMAL
    return problem.value


@pytest.fixture(scope="session")
def cone():
    """The oracle: the same program stated in full for a conic solver, whose duals are the multipliers.

    max_{p, u}  f(u) - beta mean_x KL(p_x || ref_x)    s.t.  u[draw, voter] <= mean_x sum_y p U    (multipliers lambda)
    """
    return SimpleNamespace(primal=cone_primal, conjugate=cone_conjugate)
