"""Whole votes, up to a million voters: who wins is decided as in rational numbers, however near a tie it is.

The oracle counts votes in Python's whole numbers and never divides; `tests.choice.test_ordinal` has the definitions.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import game
from pluralign.errors import SolveError
from pluralign.types import Linear, Utilities
from tests.choice.test_lottery import exact_lottery
from tests.choice.test_ordinal import EXACT, exact_margins

ORDERS = list(itertools.permutations(range(4)))


def nearly_tied(rng, voters):
    """Votes for all 24 orders, such that pairs of candidates are within a few votes of each other."""
    # Every order gets as many votes as the reverse one, so that everyone ties with everyone, then a few votes move.
    half = rng.multinomial(voters // 2, np.full(12, 1 / 12))
    first = [i for i, o in enumerate(ORDERS) if o < o[::-1]]
    votes = np.zeros(24, int)
    for i, n in zip(first, half, strict=True):
        votes[i] = votes[ORDERS.index(ORDERS[i][::-1])] = n
    for _ in range(rng.integers(1, 6)):
        i, j = rng.choice(24, 2)
        moved = min(int(rng.integers(0, 3)), int(votes[i]))
        votes[i], votes[j] = votes[i] - moved, votes[j] + moved
    return votes


def profiles(voters):
    rng = np.random.default_rng(voters)
    for _ in range(12):
        yield nearly_tied(rng, voters)


@pytest.mark.parametrize("voters", [1_000, 999_998])
@pytest.mark.parametrize("rule", EXACT, ids=lambda r: r.kind)
def test_one_vote_in_a_million_is_seen_and_none_is_made_up(rule, voters):
    single = several = 0
    for votes in profiles(voters):
        counted = [(o, Fraction(int(n))) for o, n in zip(ORDERS, votes, strict=True) if n]
        expected = EXACT[rule](counted, exact_margins(counted, 4))
        found = rule.winners(np.array([o for o, _ in counted]), np.array([float(n) for _, n in counted]))
        assert found.tolist() == expected, votes
        single, several = single + (len(expected) == 1), several + (len(expected) > 1)
    assert single > 2
    if rule not in (choice.Plurality(), choice.IRV(), choice.Borda()):  # there, pairs that tie seldom do in total
        assert several > 1


def test_a_coarse_tolerance_would_fail(monkeypatch):
    """The negative twin: with ties up to 1e-5 of the mass, which a common default is, wrong winners come out."""
    from pluralign.choice import tournament

    monkeypatch.setattr(tournament, "TIE", 1e-5)
    wrong = 0
    for votes in profiles(999_998):
        counted = [(o, Fraction(int(n))) for o, n in zip(ORDERS, votes, strict=True) if n]
        expected = EXACT[choice.Copeland()](counted, exact_margins(counted, 4))
        weights = np.array([float(n) for _, n in counted])
        wrong += choice.Copeland().winners(np.array([o for o, _ in counted]), weights).tolist() != expected
    assert wrong > 5


def test_margins_of_a_vote_or_two_make_the_exact_lottery():
    """Of five candidates that differ by single votes among a million; by Gauss elimination in fractions."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        m = np.triu(2 * rng.integers(-3, 3, (5, 5)) + 1, 1)  # odd, so there is one lottery
        m = m - m.T
        exact = np.array([float(x) for x in exact_lottery(m.tolist())])
        for voters in (1, 1_000_000):
            np.testing.assert_allclose(choice.MaximalLottery().from_margins(m / voters), exact, atol=1e-13)
    ahead = np.array([[0, 1e-6, 0.3], [-1e-6, 0, 0.9], [-0.3, -0.9, 0]])  # one vote decides, not the 90 %
    np.testing.assert_array_equal(choice.MaximalLottery().from_margins(ahead), [1, 0, 0])


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("answer", [np.nan, 0.0, 1.0])
def test_a_failed_solve_never_is_a_lottery(monkeypatch, entropy, answer):
    """A solver that gives up, or answers with anything: no uniform lottery, no lottery at all."""

    class Broken:
        def __init__(self, *_):
            pass

        def solve(self):
            size = np.full(60, answer)
            size[1:] = 0 if answer == 1 else answer
            return type("Found", (), {"x": size, "z": np.zeros(200), "status": "MaxIterations"})

    # Four tie in two pairs and beat nobody but the others of a circle: several lotteries, so a program is needed.
    m = np.zeros((5, 5))
    m[0, 1], m[1, 2], m[2, 0] = 1, 1, 1
    m[:3, 4], m[3, 4] = 1, 1
    m = m - m.T
    assert choice.MaximalLottery(entropy).from_margins(m)[3] > 0.1  # solved, it is not the uniform one
    monkeypatch.setattr(game.clarabel, "DefaultSolver", Broken)
    with pytest.raises(SolveError, match="MaxIterations"), np.errstate(all="ignore"):
        choice.MaximalLottery(entropy).from_margins(m)


def test_linear_rules_see_a_vote_in_a_million():
    """One vote more for each of two directions; equal votes are a tie for both."""
    phi = np.array([[[1.0, 0], [0, 1]]])
    for ahead in (0, 1):
        votes = np.array([500_000.0, 500_000])
        votes[ahead] += 1
        u = Utilities(Linear(phi, np.eye(2)[None], np.zeros((1, 2))), votes / votes.sum(), np.full((1, 2), 0.5))
        for rule in (choice.LCPO(), choice.LeximaxPlurality(), choice.LinearKemeny()):
            assert rule.rank(u).above[0, ahead] == 0, rule
