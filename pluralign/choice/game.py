"""The symmetric game behind maximal lotteries: two name a candidate each, and the payoff is the margin.

With `m[a, b] = -m[b, a]` the game is worth 0, and a lottery is optimal if no candidate gains against it, `m p <= 0`.
"""

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.special import rel_entr

from pluralign.choice.bundle import qp as clarabel  # compiled, without type stubs
from pluralign.errors import InputError, SolveError

Square = Float[np.ndarray, "candidate candidate"]
Batch = Float[np.ndarray, "candidate candidate batch"]
ROUNDING = 1e-10  # a Pfaffian this small, relative to the sum of its terms' sizes, may be 0
NEWTON = 60  # steps at each price, at most
SETTLED = 1e-12  # a payoff that is off by less is not improved on; the gap is its square
HALVINGS = 30  # of a step, at most
RESIDUAL = 1e-8  # what a candidate may gain against a lottery, relative to the largest margin


def strict(m: Batch) -> tuple[Float[np.ndarray, "candidate batch"], Bool[np.ndarray, " batch"]]:
    """Return the optimal lotteries of games that have only one, and which games those are.

    For an odd set T the vector `v_i = (-1)^{#T below i} Pf(m_{T - i})` spans the kernel of `m_T`, and
    `(m v)_b = (-1)^{#T below b} Pf(m_{T + b})` for b outside. So T is the support, every member with positive
    probability and everyone outside losing, if and only if `(-1)^{#T below c} Pf(m_{T xor c})`, times -1 outside T, has
    one sign for all c. Then the lottery is the only one (Laffond, Laslier and Le Breton 1997; Kaplansky 1945), and the
    signs of all Pfaffians of sets of even size decide it. A Pfaffian that may be 0 but for rounding has no sign.
    """
    size = len(m)
    odd, flipped, parity = _flips(size)
    pfaffian, terms = np.zeros((2, 1 << size, m.shape[2]))
    pfaffian[0] = terms[0] = 1
    for sets, first, other, rest, sign in _expansion(size):
        edge = m[first, other]
        pfaffian[sets] += sign * edge * pfaffian[rest]
        terms[sets] += np.abs(edge) * terms[rest]
    signs = np.sign(np.where(np.abs(pfaffian) > ROUNDING * terms, pfaffian, 0)).astype(np.int8)
    pattern = signs[flipped] * parity[..., None]  # [set candidate batch]
    fits = (pattern == pattern[:, :1]).all(1) & (pattern[:, 0] != 0)
    which, every = fits.argmax(0), np.arange(m.shape[2])
    inside = odd[which] >> np.arange(size)[:, None] & 1 == 1
    lottery = np.where(inside, np.abs(pfaffian[flipped[which].T, every]), 0)
    found = fits[which, every]
    return lottery / np.where(found, lottery.sum(0), 1), found


def program(m: Square, entropy: bool) -> Float[np.ndarray, " candidate"]:
    """Return, of all optimal lotteries of one game, that of least norm or of largest entropy, by a conic program.

    Raises:
        SolveError: it was not solved.
    """
    size = len(m)
    unit = np.abs(m).max() or 1.0
    rows = np.vstack([m / unit, -np.eye(size)])
    zeros, one, nothing = np.zeros(len(rows)), np.ones(1), sp.csc_matrix((size, size))
    if not entropy:
        rows, cones = np.vstack([np.ones(size), rows]), [clarabel.NonnegativeConeT(2 * size)]
        offsets, square, linear = np.append(one, zeros), sp.eye(size, format="csc"), np.zeros(size)
    else:  # maximise sum t with (t, p, 1) in the exponential cone: t <= -p log p
        rows = np.vstack([np.ones(size), rows])
        rows = np.hstack([rows, np.zeros((len(rows), size))])
        triples = np.zeros((3 * size, 2 * size))
        triples[0::3, size:], triples[1::3, :size] = -np.eye(size), -np.eye(size)
        rows = np.vstack([rows, triples])
        offsets = np.concatenate([one, zeros, np.tile([0.0, 0, 1], size)])
        cones = [clarabel.NonnegativeConeT(2 * size), *[clarabel.ExponentialConeT()] * size]
        square, linear = sp.block_diag([nothing, nothing], format="csc"), np.append(np.zeros(size), -np.ones(size))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    cones = [clarabel.ZeroConeT(1), *cones]
    found = clarabel.DefaultSolver(square, linear, sp.csc_matrix(rows), offsets, cones, settings).solve()
    p = np.maximum(np.asarray(found.x)[:size], 0)
    if not abs(p.sum() - 1) < 1e-3:  # no answer at all
        return certified(p, m, str(found.status))
    face = (_most_entropy if entropy else _least_norm)(m / unit, p, np.asarray(found.z)[1 : 2 * size + 1])
    if np.abs(face - p).max() < 1e-3 and face.min() > -1e-12 and (m @ face).max() < 1e-12 * unit:
        p = np.where(face > 1e-12, face, 0)  # the same to the last digits
    return certified(p / p.sum(), m, str(found.status))


def certified(p: Float[np.ndarray, " candidate"], m: Square, status: str = "") -> Float[np.ndarray, " candidate"]:
    """Return an optimal lottery as it is; optimal: nobody gains against it.

    Raises:
        SolveError: someone does.
    """
    gain, unit = float((m @ p).max()), float(np.abs(m).max())
    # The negation also catches what is not a number.
    if not (gain <= RESIDUAL * unit and abs(p.sum() - 1) <= RESIDUAL):
        raise SolveError(
            f"maximal-lottery was not solved{f' ({status})' if status else ''}: a candidate gains {gain:.3g} against "
            f"the lottery, where margins go up to {unit:.3g}. Usually margins differ by more orders of magnitude than "
            "numbers have digits; check how they were made."
        )
    return p


def priced(
    m: Float[np.ndarray, "batch candidate candidate"], reference: Float[np.ndarray, "batch candidate"], beta: float
) -> tuple[Float[np.ndarray, "batch candidate"], Float[np.ndarray, " batch"]]:
    """Return the equilibrium where both pay beta for each nat of divergence, and by how much each may gain against it.

    `p ∝ ref exp(m p / (2 beta))`, by Newton's method on `y = m p(y) / 2` from a high price down to beta. Its Jacobian
    is never singular: `I - A D` with A skew and D positive semidefinite.
    """
    y, price = np.zeros(reference.shape), max(1.0, beta)
    eye = np.eye(m.shape[1])
    while True:
        p, off = _respond(m, reference, y, price)
        for _ in range(NEWTON):
            size = np.abs(off).max(-1)
            if (size <= SETTLED).all():
                break
            spread = p[:, :, None] * eye - p[:, :, None] * p[:, None]
            step = np.linalg.solve(eye - m @ spread / (2 * price), off[..., None])[..., 0]
            length, before = np.ones(len(y)), y
            for _ in range(HALVINGS):
                y = before - length[:, None] * step
                p, off = _respond(m, reference, y, price)
                worse = (np.abs(off).max(-1) > (1 - 1e-4 * length) * size) & (size > SETTLED)
                if not worse.any():
                    break
                length = np.where(worse, length / 2, length)
            else:  # rounding: no step is an improvement any more
                y = np.where((np.abs(off).max(-1) <= size)[:, None], y, before)
                p, off = _respond(m, reference, y, price)
                if (y == before).all():
                    break
        if price <= beta:
            break
        price = max(beta, price / 2)
    gain = (m @ p[..., None])[..., 0] / 2  # of each candidate against p
    best = gain.max(-1)
    against = best + beta * np.log((reference * np.exp((gain - best[:, None]) / beta)).sum(-1))
    return p, against + beta * rel_entr(p, reference).sum(-1)


def self_play(
    margins: Square,
    steps: int = 10_000,
    rate: float = 0.05,
    start: Float[np.ndarray, " candidate"] | None = None,
) -> tuple[Float[np.ndarray, " candidate"], Float[np.ndarray, " candidate"]]:
    """Return where a lottery that learns by playing against itself has been on average, and where it ends.

    `p <- p exp(rate m p / max|m|)`, made to sum to 1 (multiplicative weights: Freund and Schapire 1999; with policies,
    SPO: Swamy et al. 2024, algorithm 1). Against the average nobody gains more than
    `max|m| (-log min(start) / (rate steps) + rate / 2)`, so it comes to the maximal lotteries; where majorities go in
    circles the last lottery does not, but runs round them, ever farther out. Train on the average.

    Args:
        margins: `m[a, b]`, votes or share of votes for a over b less those for b over a.
        steps: how often it learns.
        rate: how much.
        start: where it begins, all positive; None: uniform.

    Raises:
        InputError: these are no margins, or there is nothing to learn from.
    """
    m = np.asarray(margins, np.float64)
    p = np.full(len(m), 1 / len(m)) if start is None else np.asarray(start, np.float64)
    if m.shape != (len(p), len(p)) or not np.isfinite(m).all() or np.abs(m + m.T).max() > 1e-9 * np.abs(m).max():
        raise InputError(f"margins must be finite, [{len(p)}, {len(p)}], with m[a, b] = -m[b, a].")
    if not (steps > 0 and rate > 0 and (p > 0).all() and abs(p.sum() - 1) < 1e-6):
        raise InputError(f"steps ({steps}) and rate ({rate}) must be positive, and so all of start, of sum 1: {start}.")
    log, mean, unit = np.log(p), np.zeros(len(p)), np.abs(m).max() or 1.0
    for _ in range(steps):
        mean += p / steps
        log += rate / unit * (m @ p)
        log -= log.max()
        p = np.exp(log)
        p /= p.sum()
    return mean, p


def _respond(m, reference, y, price):
    """Return `p ∝ ref exp(y / price)`, and by how much y is off."""
    scaled = y / price
    p = reference * np.exp(scaled - scaled.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p, y - (m @ p[..., None])[..., 0] / 2


def _least_norm(m: Square, p: Float[np.ndarray, " candidate"], duals: Float[np.ndarray, " row"]) -> np.ndarray:
    """Return the point of least norm on the face that `p` came to."""
    slack = np.concatenate([-(m @ p), p])
    tight = np.vstack([m, np.eye(len(m))])[slack < duals]
    return np.linalg.lstsq(np.vstack([np.ones(len(m)), tight]), np.append(1.0, np.zeros(len(tight))), rcond=1e-9)[0]


def _most_entropy(m: Square, p: Float[np.ndarray, " candidate"], duals: Float[np.ndarray, " row"]) -> np.ndarray:
    """Return the point of largest entropy on the face that `p` came to: `p ∝ exp(tight^T weights)`, by Newton."""
    inside = p > 1e-7
    tight = m[np.ix_(-(m @ p) < duals[: len(m)], inside)]
    start = np.log(p[inside])
    weights = np.linalg.lstsq(tight.T, start - start.mean(), rcond=1e-9)[0]
    for _ in range(20):
        q = np.exp(weights @ tight)
        q /= q.sum()
        spread = tight * q @ tight.T - np.outer(tight @ q, tight @ q)
        weights -= np.linalg.lstsq(spread, tight @ q, rcond=1e-9)[0]
    face = np.zeros(len(p))
    face[inside] = q  # pyright: ignore[reportPossiblyUnboundVariable]
    return face


@lru_cache
def _flips(size: int) -> tuple[Int[np.ndarray, " set"], Int[np.ndarray, "set candidate"], np.ndarray]:
    """Return the odd sets, each with one candidate put in or out, and the sign that goes with it."""
    sets, candidate = np.arange(1 << size), np.arange(size)
    odd = sets[np.bitwise_count(sets) % 2 == 1]
    below = np.bitwise_count(odd[:, None] & ((1 << candidate) - 1))
    parity = np.where(below % 2 == 0, 1, -1) * np.where(odd[:, None] >> candidate & 1, 1, -1)
    return odd, odd[:, None] ^ (1 << candidate), parity.astype(np.int8)


@lru_cache
def _expansion(size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]]:
    """Return the steps of `Pf(S) = sum_j (-1)^(j - 1) m[s_0, s_j] Pf(S - s_0 - s_j)`, small sets first."""
    sets, steps = np.arange(1 << size), []
    for count in range(2, size + 1, 2):
        these = sets[np.bitwise_count(sets) == count]
        member = np.nonzero(these[:, None] >> np.arange(size) & 1)[1].reshape(-1, count)
        for j in range(1, count):
            rest = these ^ (1 << member[:, 0]) ^ (1 << member[:, j])
            steps.append((these, member[:, 0], member[:, j], rest, 1.0 if j % 2 else -1.0))
    return steps
