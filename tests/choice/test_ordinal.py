"""Ordinal rules against brute force in rational numbers, another package, textbook cases, and themselves turned round."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pref_voting import voting_methods as peers
from pref_voting.profiles import Profile

from pluralign import choice
from pluralign.choice import orders
from pluralign.choice.ballots import ballots
from pluralign.choice.orders import smith
from pluralign.errors import InputError, SolveError

# Ours and theirs.
PEERS = {
    choice.Plurality(): peers.plurality,
    choice.Positional((1.0, 0.0)): peers.plurality,
    choice.Positional((3.0, 2.0, 1.0, 0.0)): peers.borda,  # four candidates
    choice.Borda(): peers.borda,
    choice.Black(): peers.blacks,
    choice.IRV(): peers.instant_runoff_put,
    choice.Copeland(): peers.copeland,
    choice.Minimax(): peers.minimax,
    choice.Condorcet(): peers.condorcet,
    choice.Schulze(): peers.beat_path,
    choice.RankedPairs(): peers.ranked_pairs,
    choice.Kemeny(): peers.kemeny_young,
}


def random_rankings(rng, voters, candidates):
    """Rankings that are alike enough for majorities, and different enough for circles and ties."""
    return np.argsort(rng.normal(size=(voters, candidates)) + rng.normal(size=candidates) / 2, axis=1)


@pytest.mark.parametrize("rule", PEERS, ids=str)
def test_the_winners_are_those_of_pref_voting(rule):
    method = PEERS[rule]
    candidates = 3 if rule == choice.RankedPairs() else 4  # theirs tries all orders of equal margins
    rng = np.random.default_rng(0)
    several = 0
    for voters in (1, 2, 2, 3, 4, 5, 6, 9, 10) * 8:
        rankings = random_rankings(rng, voters, candidates)
        ours = rule.winners(rankings).tolist()
        assert ours == sorted(method(Profile(rankings.tolist()))), rankings
        several += len(ours) > 1
    assert several > 2  # ties were there


# The definitions, word by word, in rational numbers.


def exact_margins(votes, candidates):
    """`votes`: pairs of a ranking, and its mass as a Fraction."""
    m = [[Fraction(0)] * candidates for _ in range(candidates)]
    for order, mass in votes:
        for a, b in itertools.combinations(order, 2):
            m[a][b] += mass
            m[b][a] -= mass
    return m


def exact_best(value):
    top = max(value)
    return [a for a, x in enumerate(value) if x == top]


def exact_paths(m):
    """Strength of the strongest path, over all paths."""
    every = range(len(m))
    best = {}
    for a, b in itertools.permutations(every, 2):
        rest = [c for c in every if c not in (a, b)]
        best[a, b] = max(
            min((m[x][y] if m[x][y] > 0 else Fraction(0)) for x, y in itertools.pairwise((a, *via, b)))
            for n in range(len(rest) + 1)
            for via in itertools.permutations(rest, n)
        )
    return best


def exact_schulze(m):
    p = exact_paths(m)
    return [a for a in range(len(m)) if all(p[a, b] >= p[b, a] for b in range(len(m)) if b != a)]


def exact_kemeny(m):
    worth = {o: sum(m[a][b] for a, b in itertools.combinations(o, 2)) for o in itertools.permutations(range(len(m)))}
    return sorted({o[0] for o, x in worth.items() if x == max(worth.values())})


def exact_ranked_pairs(m):
    """All orders of all defeats that are sorted by margin."""
    edges = [(a, b) for a, b in itertools.permutations(range(len(m)), 2) if m[a][b] > 0]
    strengths = sorted({m[a][b] for a, b in edges}, reverse=True)
    groups = [[e for e in edges if m[e[0]][e[1]] == s] for s in strengths]
    wins = set()
    for ways in itertools.product(*(itertools.permutations(g) for g in groups)):
        locked = set()
        for a, b in itertools.chain(*ways):
            reached, todo = {b}, [b]
            while todo:
                here = todo.pop()
                new = {y for x, y in locked if x == here} - reached
                reached |= new
                todo += new
            if a not in reached:
                locked.add((a, b))
        wins |= set(range(len(m))) - {b for _, b in locked}
    return sorted(wins)


def exact_irv(votes, left):
    if len(left) == 1:
        return set(left)
    first = {a: sum(mass for order, mass in votes if next(c for c in order if c in left) == a) for a in left}
    last = [a for a in left if first[a] == min(first.values())]
    return set().union(*(exact_irv(votes, left - {a}) for a in last))


EXACT = {
    choice.Borda(): lambda votes, m: exact_best([sum(row) for row in m]),
    choice.Copeland(): lambda votes, m: exact_best([sum((x > 0) - (x < 0) for x in row) for row in m]),
    choice.Minimax(): lambda votes, m: exact_best([min(row) for row in m]),
    choice.Schulze(): lambda votes, m: exact_schulze(m),
    choice.Kemeny(): lambda votes, m: exact_kemeny(m),
    choice.RankedPairs(): lambda votes, m: exact_ranked_pairs(m),
    choice.IRV(): lambda votes, m: sorted(exact_irv(votes, frozenset(range(len(m))))),
    choice.Plurality(): lambda votes, m: exact_best([sum(w for o, w in votes if o[0] == a) for a in range(len(m))]),
}


@pytest.mark.parametrize("rule", EXACT, ids=str)
@pytest.mark.parametrize("near", [0, 1e-6, 1e-8])
def test_near_ties_are_told_from_ties_as_in_rational_numbers(rule, near):
    """Masses of thirds and sevenths, which no float holds, and some that miss a tie by `near`."""
    rng = np.random.default_rng(1)
    single = 0
    for _ in range(25):
        orders = [tuple(int(a) for a in row) for row in random_rankings(rng, 5, 4)]
        mass = [Fraction(int(rng.integers(1, 4)), int(rng.choice([3, 7]))) for _ in orders]
        mass[0] += Fraction(near)
        votes = list(zip(orders, mass, strict=True))
        expected = EXACT[rule](votes, exact_margins(votes, 4))
        found = rule.winners(np.array(orders), weights=np.array([float(x) for x in mass]))
        assert found.tolist() == expected
        single += len(expected) == 1
    assert single > 3


def test_a_peer_s_tolerance_would_make_false_winners():
    """Margins that differ by 1e-6 of the mass: equal by numpy's default tolerance, and not equal."""
    m = np.array([[0, 0.5, -0.5], [-0.5, 0, 0.5 - 1e-6], [0.5, -0.5 + 1e-6, 0]])
    worst = m.max(0)
    assert np.isclose(worst, worst.min()).sum() == 3
    for rule in (choice.Minimax(), choice.Schulze(), choice.RankedPairs(), choice.Kemeny()):
        assert rule.from_margins(m).sum() == 1, rule
    tiny = 1e-6 * np.array([[0, 3, -1], [-3, 0, 2], [1, -2, 0.0]])  # the lottery is (2, 1, 3) / 6
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(tiny), np.array([2, 1, 3]) / 6, atol=1e-12)


@given(st.integers(2, 5), st.integers(1, 8), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_margins_are_those_counted_by_hand(candidates, voters, seed):
    rng = np.random.default_rng(seed)
    rankings = np.stack([rng.permutation(candidates) for _ in range(voters)])
    cut = rng.integers(1, candidates + 1, voters)
    rankings = np.where(np.arange(candidates) < cut[:, None], rankings, -1)
    weights = rng.integers(1, 5, voters)
    expected = np.zeros((candidates, candidates))
    for row, w in zip(rankings.tolist(), weights, strict=True):
        place = {c: i for i, c in enumerate(row) if c >= 0}
        for a, b in itertools.permutations(range(candidates), 2):
            x, y = place.get(a, 99), place.get(b, 99)
            expected[a, b] += w * ((x < y) - (y < x))
    found = ballots(rankings, weights.astype(float), candidates).margins()
    np.testing.assert_allclose(found, expected / weights.sum(), atol=1e-15)
    np.testing.assert_array_equal(found, -found.T)


def test_ballots_cut_short():
    """Two name only their favourite; what they do not name is tied below it."""
    rankings = np.array([[0, -1, -1], [0, -1, -1], [1, 2, 0], [2, 1, 0], [2, 1, 0]])
    assert choice.Plurality().winners(rankings).tolist() == [0, 2]
    # Points 2, 1, 0; the unnamed share 1 + 0: 0 has 2 + 2, 1 has .5 + .5 + 2 + 1 + 1, 2 has .5 + .5 + 1 + 2 + 2.
    assert (
        choice.Borda().winners(rankings).tolist()
        == choice.Positional((2.0, 1.0, 0.0)).winners(rankings).tolist()
        == [2]
    )
    # 1 goes out; its ballot goes to 2: three against two.
    assert choice.IRV().winners(rankings).tolist() == [2]
    # If only the favourite is named, nothing is left of such ballots.
    assert choice.IRV().winners(np.array([[0, -1], [0, -1], [1, -1], [2, -1], [2, -1]]), candidates=3).tolist() == [
        0,
        2,
    ]
    assert choice.Approval().winners(np.array([[0, 1, -1], [1, -1, -1], [2, 0, -1], [2, 1, -1]])).tolist() == [1]
    assert choice.Approval(top=1).winners(rankings).tolist() == [0, 2]
    with pytest.raises(InputError, match="say `top`"):
        choice.Approval().winners(np.array([[0, 1], [1, 0]]))


def test_textbook_cases():
    """Tennessee's capital (Memphis 42, Nashville 26, Chattanooga 15, Knoxville 17), and Condorcet's circle."""
    rankings, votes = np.array([[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 1, 0], [3, 2, 1, 0]]), np.array([42.0, 26, 15, 17])
    nashville = [choice.Borda, choice.Copeland, choice.Minimax, choice.Schulze, choice.RankedPairs, choice.Kemeny]
    for rule in (*nashville, choice.Black, choice.Condorcet):
        assert rule().winners(rankings, votes).tolist() == [1]
    assert choice.Plurality().winners(rankings, votes).tolist() == [0]
    assert choice.IRV().winners(rankings, votes).tolist() == [3]
    circle = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    for rule in PEERS:
        assert rule.winners(circle).tolist() == [0, 1, 2]


def test_schulze_s_own_example():
    """Schulze (2011), example 1: 45 voters, A to E; E wins."""
    rankings = ["ACBED", "ADECB", "BEDAC", "CABED", "CAEBD", "CBADE", "DCEBA", "EBADC"]
    votes = np.array([5, 5, 8, 3, 7, 2, 7, 8.0])
    assert choice.Schulze().winners(np.array([["ABCDE".index(c) for c in r] for r in rankings]), votes).tolist() == [4]


def test_orders_of_many_candidates():
    """Beyond eight, Kemeny searches the smallest set that beats all others; its brute force is pref_voting's on five."""
    rng = np.random.default_rng(3)
    small = np.triu(rng.integers(-9, 10, (5, 5)).astype(float), 1)
    small -= small.T
    m = np.full((30, 30), 0.0)
    m[5:, 5:] = np.triu(np.ones((25, 25)), 1) - np.tril(np.ones((25, 25)), -1)
    m[:5, :5], m[:5, 5:], m[5:, :5] = small, 3, -3
    order = rng.permutation(30)
    m = m[np.ix_(order, order)]
    inside = smith(m)
    assert set(order[inside]) <= set(range(5))
    assert set(order[choice.Kemeny().from_margins(m)]) == set(exact_kemeny(small.tolist()))
    wide = np.triu(rng.normal(size=(30, 30)), 1)
    with pytest.raises(SolveError, match="too many to search"):
        choice.Kemeny().from_margins(wide - wide.T)
    with pytest.raises(InputError, match="at most 62"):
        choice.RankedPairs().from_margins(np.zeros((63, 63)))


def test_ties_that_cannot_be_followed_are_told(monkeypatch):
    monkeypatch.setattr(orders, "WAYS", 50)
    m = np.sign(np.triu(np.random.default_rng(0).normal(size=(12, 12)), 1))
    with pytest.raises(SolveError, match="use schulze"):
        choice.RankedPairs().from_margins(m - m.T)


def test_batches_have_any_shape():
    rng = np.random.default_rng(0)
    m = np.triu(rng.normal(size=(2, 3, 700, 5, 5)), 1)
    m -= m.swapaxes(-1, -2)
    for rule in (
        choice.Borda(),
        choice.Copeland(),
        choice.Black(),
        choice.Schulze(),
        choice.RankedPairs(),
        choice.Kemeny(),
    ):
        whole = rule.from_margins(m)
        assert whole.shape == (2, 3, 700, 5)
        np.testing.assert_array_equal(whole[1, 2, 501], rule.from_margins(m[1, 2, 501]))
    assert choice.Borda().from_margins(np.zeros((0, 4, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("margins", "message"),
    [
        (np.full((2, 2), 0.5), "shares - shares"),
        (np.array([[0, np.nan], [np.nan, 0]]), "must be finite"),
        (np.array([[0, np.inf], [-np.inf, 0]]), "must be finite"),
        (np.zeros((2, 3)), "candidate candidate"),
    ],
)
def test_what_are_no_margins(margins, message):
    with pytest.raises((InputError, TypeError), match=message):
        choice.Borda().from_margins(margins)


@pytest.mark.parametrize(
    ("rankings", "weights", "message"),
    [
        ([[0, 1], [1, 1]], None, r"rankings\[1\] = \[1, 1\] names a candidate twice"),
        ([[0, 1], [-1, 1]], None, r"rankings\[1\] = \[-1, 1\] goes on after -1"),
        ([[0, 5]], None, "0 to 5; candidates are 0 to 1"),
        ([[0, -2]], None, "-2 to 0"),
        ([[0, 1]], [-1.0], "weights"),
        ([[0, 1]], [0.0], "weights"),
    ],
)
def test_what_are_no_ballots(rankings, weights, message):
    with pytest.raises(InputError, match=message):
        choice.Borda().winners(np.array(rankings), None if weights is None else np.array(weights), candidates=2)


def test_what_is_no_rule():
    for scores in ((1.0,), (0.0, 1.0), (1.0, 1.0), (1.0, float("nan"))):
        with pytest.raises(InputError, match="scores are"):
            choice.Positional(scores)
    with pytest.raises(InputError, match="top is 0"):
        choice.Approval(top=0)
