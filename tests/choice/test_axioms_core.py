"""Groups that leave with their share of the lottery: against every group, one linear program each."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from pluralign import choice
from pluralign.choice import axioms


def by_hand(society, chance):
    """The most that any group can gain for each of its members, utilities from 0 (worst) to 1 (best)."""
    u = society.utility - society.utility.min(1, keepdims=True)
    u, best = u / u.max(1, keepdims=True), -np.inf
    for joins in product([False, True], repeat=len(u)):
        rows = np.flatnonzero(joins)
        if len(rows):
            spent = society.share[rows].sum()
            table = np.hstack([-u[rows], np.ones((len(rows), 1))])
            found = linprog(
                np.append(np.zeros(u.shape[1]), -1.0),
                A_ub=table,
                b_ub=-(u[rows] @ chance),
                A_eq=np.append(np.ones(u.shape[1]), 0.0)[None],
                b_eq=[spent],
                bounds=[(0, None)] * u.shape[1] + [(None, None)],
            )
            best = max(best, -found.fun)
    return best


def stated(society, outcome):
    """The gain that a fault tells; None if there is no fault."""
    found = axioms.Core(gain=1e-3).fault(society, outcome)
    return None if found is None else float(found.words.split("at least ")[1].split(" %")[0]) / 100


def test_the_group_that_gains_most_is_found():
    rng, seen = np.random.default_rng(0), set()
    for rule in (choice.Plurality(), choice.RandomDictatorship(), choice.MaximalLottery()):
        for _ in range(5):
            mass = rng.dirichlet(np.full(5, 4.0))
            society = axioms.Society.of_utility(rng.random((5, 3)), mass)
            outcome = axioms.Judge(rule)(society)
            gain, told = by_hand(society, outcome.chance), stated(society, outcome)
            assert told == pytest.approx(gain, rel=0.01) if gain > 1.1e-3 else told is None
            seen.add(gain > 1.1e-3)
    assert seen == {True, False}


@pytest.mark.parametrize("size", [12, 40])
def test_many_kinds_of_voters_are_no_hindrance(size):
    """A third like the last candidate best and get nothing: with their share each would have a third, and no more."""
    rng = np.random.default_rng(size)
    one, two = rng.random((2, size, 1)) * [[[0.2]], [[0.2]]] + [[[0.0]], [[0.4]]]
    utility = np.concatenate([np.ones((size, 1)), one, np.zeros((size, 1))], axis=1)
    third = size // 3
    utility[:third] = np.concatenate([np.zeros((third, 1)), two[:third] / 4, np.ones((third, 1))], axis=1)
    society = axioms.Society.of_utility(utility)
    assert len(society.kinds) == size
    found = axioms.Core().fault(society, axioms.Judge(choice.Plurality())(society))
    assert found is not None and set(found.voters) == set(range(third))
    assert f"at least {100 * third / size:.3g} %" in found.words
    fair = axioms.Judge(choice.Nash(), beta=0.01)(society)
    assert axioms.Core().fault(society, fair) is None
