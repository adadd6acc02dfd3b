"""The probability of every judgement in every draw: what predictions and checks are made of."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float
from pydantic import TypeAdapter

from pluralign.reward.items import advantage
from pluralign.reward.judgements import Acts, Judgements
from pluralign.reward.noise import SHARED, Noise
from pluralign.reward.population import Population
from pluralign.reward.response import Response
from pluralign.types import RewardPosterior

BLOCK = 8_000_000  # entries [draw voter act slot slot] at a time


def response_of(posterior: RewardPosterior) -> Response:
    """Return the response model that a posterior was fitted with."""
    return TypeAdapter(Population).validate_python(posterior.model).response if posterior.model else Response()


def levels_of(judgements: Judgements) -> tuple[int, ...]:
    """Return the number of grades of each scale."""
    return tuple(len(scale.labels) for scale in judgements.scales)


def parameters(posterior: RewardPosterior) -> dict[str, Any]:
    """Return whatever the probability of a judgement depends on, `[draw ...]` each."""
    noise: Noise = dict(posterior.rater)
    if "lapse" in noise:
        noise["lapse_logit"] = scipy.special.logit(noise["lapse"].astype(np.float64))
    noise |= {name: posterior.common[name] for name in SHARED if name in posterior.common}
    draws = {"weights": posterior.weights, "noise": noise}
    if posterior.quality is not None:
        draws["items"] = {"quality": posterior.quality}
        if "item_factor" in posterior.common:
            draws["items"] |= {"factor": posterior.common["item_factor"], "place": posterior.own["place"]}
    return draws


def in_blocks(
    posterior: RewardPosterior, acts: Acts, outcomes: int = 1
) -> Iterator[tuple[Any, Float[np.ndarray, " block"]]]:
    """Yield parameters in blocks of draws of one size, which are compiled once, with 1 for each draw that counts.

    Args:
        posterior: whose.
        acts: what their probability is asked of.
        outcomes: how many are looked at at a time.
    """
    draws, total = parameters(posterior), len(posterior.weights)
    voters = 1 if posterior.membership is None else len(posterior.voters)
    most = max(1, BLOCK // (len(acts.counts) * voters * outcomes * acts.item.shape[1] ** 2))
    size = -(-total // -(-total // most))
    for start in range(0, total, size):
        at = np.arange(start, start + size)
        here = jax.tree.map(lambda value, at=at: value[np.minimum(at, total - 1)].astype(np.float64), draws)
        yield here, (at < total).astype(np.float64)


def log_probability(
    response: Response, levels: tuple[int, ...], personal: bool, acts: Acts, draws: Any
) -> Float[jax.Array, "draw voter act"]:
    """Return the log probability of each act if its annotator were each of the voters; to be traced.

    Args:
        response: the model of responses.
        levels: number of grades of each scale.
        personal: voters are the annotators: each act has its own annotator as its one voter.
        acts: what was said.
        draws: of `parameters`.
    """

    def one(draw: Any) -> Any:
        """Return that of one draw."""
        weights = draw["weights"]
        utility = acts.utility(weights)[None] if personal else acts.shared(weights)
        if "items" in draw:
            utility = utility + advantage(acts, draw["items"])
        return response.log_probability(acts, utility, draw["noise"], levels)

    return jax.vmap(one)(draws)


@partial(jax.jit, static_argnums=(0, 1, 2))
def by_draw(response: Response, levels: tuple[int, ...], personal: bool, acts: Acts, draws: Any, share: Any) -> Any:
    """Return `log sum_voter share[annotator, voter] P(said)`, `[draw act]`; arguments as of `log_probability`."""
    log_p = log_probability(response, levels, personal, acts, draws)
    return log_p[:, 0] if personal else jax.nn.logsumexp(log_p + jnp.log(acts.each(share)).T, 1)


@partial(jax.jit, static_argnums=(0, 1, 2))
def over_draws(
    response: Response, levels: tuple[int, ...], personal: bool, acts: Acts, draws: Any, share: Any, counts: Any
) -> Any:
    """Return the log of the sum of `by_draw` over the draws that count, `[act]`."""
    return jax.nn.logsumexp(by_draw(response, levels, personal, acts, draws, share), 0, b=counts[:, None])


def in_order(acts: Acts, value: Float[np.ndarray, "... padded"]) -> Float[np.ndarray, "... act"]:
    """Return what stands in the padded order of acts in the order of the feedback."""
    return value[..., acts.counts][..., np.argsort(acts.row[acts.counts])]
