"""Siththaranjan, Laidlaw and Hadfield-Menell (2023), Distributional Preference Learning: comparisons rank by Borda."""

import numpy as np

from pluralign import choice


def borda_count(x, y):
    """Share of others that (x, y) is preferred to: u = y / (1 - xy) with probability 1 - xy, else 0, so E u = y.

    Others are uniform on the unit square, and two zeros tie: with v = y / (1 - xy),
    `P(u' < v) = 1/4 + int_0^1 s - x' s^2 / 2 dx'`, `s = min(1, v / (1 + v x'))`, since y' / (1 - x'y') < v if y' < s.
    """
    t = (np.arange(2000) + 0.5) / 2000
    v = y / (1 - x * y)
    s = np.minimum(1, v[:, None] / (1 + v[:, None] * t))
    return (1 - x * y) * (0.25 + (s - t * s**2 / 2).mean(1)) + x * y * 0.125


def test_the_margins_of_hidden_contexts_are_the_borda_count():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 1500))
    value, share = y / (1 - x * y), 1 - x * y
    worth = ((value, share), (np.zeros(len(x)), 1 - share))
    m = sum(np.sign(a[:, None] - b) * p[:, None] * q for a, p in worth for b, q in worth)
    np.fill_diagonal(m, 0)
    counted = (1 + m.sum(1) / (len(x) - 1)) / 2
    np.testing.assert_allclose(counted, borda_count(x, y), atol=0.03)
    best = int(np.flatnonzero(choice.Borda().from_margins(m))[0])
    assert best == counted.argmax()
    assert x[best] < 0.1 and y[best] > 0.95  # of the answers that are worth most, the one that never is worth nothing
    risky = int((y * (x > 0.9)).argmax())
    assert y[risky] > 0.95 and (counted[risky] < counted[y < 0.9].max()).all()  # many that are worth less come before


def test_the_polynomial_is_the_count_by_y():
    """`1/4 + y - y^2/4 - xy/8 - xy^2 + xy^3/4` orders values that are not 0 by y, in place of y / (1 - xy).

    At x = 0, y = 1 it says 1, where answers with y' / (1 - x'y') > 1 are preferred: `1/2 + log(2) / 2`.
    """
    x, y = np.random.default_rng(1).random((2, 300))
    polynomial = 0.25 + y - y**2 / 4 - x * y / 8 - x * y**2 + x * y**3 / 4
    by_y = (1 - x * y) * (0.25 + y - y**2 / 4) + x * y * 0.125
    np.testing.assert_allclose(polynomial, by_y, atol=1e-12)
    np.testing.assert_allclose(borda_count(np.zeros(1), np.ones(1)), 0.5 + np.log(2) / 2, atol=1e-6)
