"""Welfare where somebody has nothing, or less: limits worked out with sixty digits, and orders by hand."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import axioms
from pluralign.choice.decision import World, best_alone
from pluralign.errors import InputError
from pluralign.types import Utilities

UNIFORM = np.full((1, 4), 0.25)


def limit(value, alpha):
    """Who has most of `sum_v W(u_v + e)` at e = 1e-40."""
    with localcontext() as context:
        context.prec = 60

        def worth(u):
            u = Decimal(float(u)) + Decimal("1e-40")
            return {0.5: 2 * u.sqrt(), 1.0: u.ln(), 2.0: -1 / u}[alpha]

        total = [sum(worth(u) for u in column) for column in value.T]
        return np.array([t >= max(total) - Decimal("1e-11") for t in total])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_who_has_nothing_counts_as_in_the_limit(alpha):
    rng, differs = np.random.default_rng(0), 0
    for _ in range(100):
        value = rng.integers(0, 4, (3, 4)) * np.array([[1.0], [10.0], [0.1]])
        value -= value.min(1, keepdims=True)
        expected = limit(value, alpha)
        u = Utilities(value[None, :, None], np.full(3, 1 / 3), UNIFORM)
        found = choice.decide(choice.AlphaFair(alpha=alpha), u).shares[0, 0]
        np.testing.assert_allclose(found, expected / expected.sum())
        differs += not (expected == (value.sum(0) >= value.sum(0).max() - 1e-9)).all()
    assert differs > 5  # from the sum


def test_who_loses_by_an_agreement_comes_before_who_has_nothing_by_it():
    """Gains over a reference of 0: candidate 0 costs voter 1 something, 1 gives it nothing, 2 both something."""
    value = np.array([[5.0, 1, 0.5], [-1, 0, 0.5]])

    def best(columns, **strict):
        u = value[:, columns]
        world = World(u[None, :, None], np.full(2, 0.5), np.full((1, len(columns)), 1 / len(columns)))
        return best_alone(choice.Nash(), world, **strict)[0, 0].tolist()

    assert best([0, 1, 2]) == [0, 0, 1] and best([0, 1]) == [0, 1] and best([0]) == [1]
    with pytest.raises(InputError, match="below its zero"):
        best([0], strict=True)
    assert best([0, 1], strict=True) == [0, 1]


def test_bargaining_is_judged_where_some_answer_is_better_for_all():
    agree, quarrel = np.array([[0.1, 0.6, 0.4], [0.2, 0.5, 0.9]]), np.array([[0.1, 0.9], [0.9, 0.1]])
    judge = axioms.Judge(choice.NashBargaining())
    assert judge(axioms.Society.of_utility(agree)).wins.tolist() == [
        False,
        False,
        True,
    ]  # 1 has the larger sum and product
    with pytest.raises(InputError, match="nash-bargaining is not defined here"):
        judge(axioms.Society.of_utility(quarrel))
