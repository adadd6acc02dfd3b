"""Posteriors for ArviZ, which has the plots and tables that Bayesians know."""

from typing import Any

import numpy as np

from pluralign.errors import InputError
from pluralign.reward.prediction import log_likelihood
from pluralign.types import Features, Feedback, RewardPosterior

FIXED = ("unit", "group_share")
"""Of `RewardPosterior.common`: the same in all draws."""


def to_arviz(posterior: RewardPosterior, votes: Feedback | None = None, phi: Features | None = None) -> Any:
    """Return the posterior as an `xarray.DataTree` in ArviZ's schema, chains apart, axes named by our words.

    Groups are `posterior` (weights, noise of raters, worths of items, and what all share), `constant_data` (mass,
    memberships) and, with the judgements, `log_likelihood`, one variable per form: what `arviz.loo` takes.

    Args:
        posterior: fitted.
        votes: the judgements of the fit; none: no `log_likelihood`.
        phi: features of their items; needed with `votes`.

    Raises:
        InputError: the package `arviz-base` is not there; `votes` came without `phi`; or they are not about the
            posterior's annotators, features, objectives and items.
    """
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise InputError("ArviZ's container is the package `arviz-base`; `pip install pluralign[arviz]`.") from error
    if (votes is None) != (phi is None):
        raise InputError("votes and phi go together: give both for the log likelihood, or neither.")
    draws, voters, objectives, features = posterior.weights.shape
    together = posterior.fit.chains * posterior.fit.draws == draws
    chains = posterior.fit.chains if together else 1
    apart = lambda value: np.reshape(value, (chains, draws // chains, *value.shape[1:]))  # noqa: E731
    annotators = voters if posterior.membership is None else len(posterior.membership)
    if posterior.membership is None:
        names = list(posterior.voters)
    else:
        names = list(range(annotators)) if votes is None else [str(name) for name in votes.annotators["id"]]
    coords: dict[str, Any] = {
        "voter": list(posterior.voters),
        "annotator": names,
        "objective": list(posterior.objectives),
        "feature": list(posterior.features),
    }
    dims = {"weights": ["voter", "objective", "feature"], "mass_of_voters": ["voter"]}
    dims |= {name: ["annotator"] for name in posterior.rater} | {"membership": ["annotator", "voter"]}
    groups: dict[str, dict[str, Any]] = {
        "posterior": {"weights": apart(posterior.weights)},
        "constant_data": {"mass_of_voters": posterior.mass},
    }
    groups["posterior"] |= {name: apart(value) for name, value in posterior.rater.items()}
    if posterior.membership is not None:
        groups["constant_data"]["membership"] = posterior.membership
    if posterior.quality is not None:
        groups["posterior"]["quality"] = apart(posterior.quality)
        dims["quality"] = ["item", "objective"]
    for name, value in posterior.common.items():
        if name in FIXED:
            groups["constant_data"][name] = value[0]
        elif name not in groups["posterior"] and value.size:
            groups["posterior"][name] = apart(value)
            if value.shape[-2:] == (objectives, features):
                dims[name] = [*(f"{name}_dim_{i}" for i in range(value.ndim - 3)), "objective", "feature"]
    if votes is not None and phi is not None:
        found = log_likelihood(posterior, votes, phi)
        groups["log_likelihood"] = {form: apart(value) for form, value in found.items()}
        dims |= {form: [form.removesuffix("s")] for form in found}
    about = {"method": posterior.fit.method, "caveats": " ".join(posterior.fit.caveats), "library": "pluralign"}
    return from_dict(groups, coords=coords, dims=dims, attrs={"/": about})
