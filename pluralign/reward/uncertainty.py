"""What a judgement is uncertain about: noise, disagreement, ignorance; and how far a question is from the data."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from pluralign.errors import InputError
from pluralign.reward.judgements import FIRST
from pluralign.reward.pointwise import response_of
from pluralign.types import Features, Feedback, RewardPosterior

CHUNK = 4_000_000  # entries [draw voter pair] at a time


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Variance of "the first is preferred", by the law of total variance; the three parts add up to `p (1 - p)`.

        noise        = E[p_sv (1 - p_sv)]                  what would remain if the voter and its weights were known
        disagreement = E_s[Var_v(p_sv)]                    voters want different things
        ignorance    = Var_s(E_v[p_sv])                    the posterior does not know

    `p_sv` is the probability in draw `s` that voter `v` prefers the first, asked without slips and told to choose; `v`
    is drawn by mass.

    Attributes:
        probability: that a voter drawn by mass prefers the first.
        noise, disagreement, ignorance: as above.
    """

    probability: Float[np.ndarray, " pair"]
    noise: Float[np.ndarray, " pair"]
    disagreement: Float[np.ndarray, " pair"]
    ignorance: Float[np.ndarray, " pair"]


def decompose(
    posterior: RewardPosterior, phi: Features, pairs: Int[np.ndarray, "pair two"], *, objective: int = 0
) -> Decomposition:
    """Return what comparisons are uncertain about.

    With a hierarchical population the voters are the annotators that were met; where few were, disagreement is that of
    these few.

    Args:
        posterior: fitted.
        phi: features of the items.
        pairs: indices of items, first and second.
        objective: index of what is asked.

    Raises:
        InputError: the features are not those of the posterior.
    """
    if phi.names != posterior.features:
        raise InputError(f"phi has the features {phi.names}, the posterior was fitted to {posterior.features}.")
    comparison = response_of(posterior).pairs
    pairs = np.asarray(pairs)
    x = (phi.phi[pairs[:, 0]] - phi.phi[pairs[:, 1]]).astype(np.float64)
    weights = posterior.weights[:, :, objective].astype(np.float64)
    size = max(1, CHUNK // (weights.shape[0] * weights.shape[1]))
    parts = []
    for start in range(0, len(x), size):
        here = slice(start, start + size)
        eta = weights @ x[here].T
        beyond = posterior.beyond(pairs[here], objective)
        eta = eta + beyond[..., 0] - beyond[..., 1]
        with jax.enable_x64(True):
            p = np.exp(np.asarray(comparison.log_probability(FIRST, eta, {})))
        mean = np.einsum("svp,v->sp", p, posterior.mass)
        square = np.einsum("svp,v->sp", p**2, posterior.mass)
        parts.append(
            [mean.mean(0), (mean - square).mean(0), (square - mean**2).mean(0), mean.var(0)],
        )
    return Decomposition(*np.concatenate(parts, axis=1))


def hidden_context(posterior: RewardPosterior, phi: Features, *, objective: int = 0) -> Float[np.ndarray, " draw"]:
    """Return the share of the variance of utilities that items explain, whoever is asked; 1 = nobody disagrees.

        r2 = Var_item(mu) / (Var_item(mu) + E_item[sigma^2])          within prompts

    `mu` and `sigma` are the mean and the standard deviation over voters of an item's utility, centred within its prompt
    (Siththaranjan, Laidlaw and Hadfield-Menell 2023, section 4.2). A low value says that a hidden context decides: a
    pooled reward then ranks by Borda count, not by mean utility.

    Args:
        posterior: fitted.
        phi: features of the items.
        objective: index of what is asked.

    Raises:
        InputError: no prompt has two items, so that utilities have no spread.
    """
    _, prompt, size = np.unique(phi.prompt_id, return_inverse=True, return_counts=True)
    several = size[prompt] > 1
    if not several.any():
        raise InputError("no prompt has two items, so utilities cannot be compared within prompts.")
    x = phi.phi.astype(np.float64)
    centre = np.zeros((len(size), x.shape[1]))
    np.add.at(centre, prompt, x)
    x = (x - (centre / size[:, None])[prompt])[several]
    r2 = []
    for s, weights in enumerate(posterior.weights[:, :, objective].astype(np.float64)):
        u = weights @ x.T
        if posterior.quality is not None:
            own = posterior.at(np.array([s])).beyond(np.arange(len(prompt)), objective)[0]
            own = own - (np.stack([np.bincount(prompt, row) for row in own]) / size)[:, prompt]
            u = u + own[:, several]
        mu = posterior.mass @ u
        between, within = (mu**2).mean(), (posterior.mass @ u**2 - mu**2).mean()
        r2.append(between / (between + within))
    return np.asarray(r2)


def leverage(votes: Feedback, phi: Features, x: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, " row"]:
    """Return how far differences of features are from those that judgements were about.

        h(x) = x^T S^+ x / rank(S),    S = mean over compared pairs of (phi[first] - phi[second]) (...)^T

    Its mean over the compared pairs is 1 (the trace of a projection over its rank). Infinite where `x` leaves the span
    of the data: there the posterior is the prior.

    Args:
        votes: the judgements; every two items of a slate are a pair.
        phi: features of their items.
        x: differences of features to ask about.

    Raises:
        InputError: no two items were compared.
    """
    slate = votes.choices.slate
    square, count = np.zeros((phi.phi.shape[1],) * 2), 0
    for i in range(slate.shape[1]):
        for j in range(i + 1, slate.shape[1]):
            both = (slate[:, i] >= 0) & (slate[:, j] >= 0)
            d = (phi.phi[slate[both, i]] - phi.phi[slate[both, j]]).astype(np.float64)
            square, count = square + d.T @ d, count + len(d)
    if not count:
        raise InputError("no two items were compared, so no question is near the data.")
    value, vector = np.linalg.eigh(square / count)
    told = value > value.max() * len(value) * np.finfo(np.float64).eps * 10
    x = np.asarray(x, np.float64)
    along = x @ vector
    beyond = (along[:, ~told] ** 2).sum(1) > 1e-12 * (x**2).sum(1)
    return np.where(beyond, np.inf, (along[:, told] ** 2 / value[told]).sum(1) / max(told.sum(), 1))
