"""What the posterior says about judgements, and how well."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float
from pydantic import TypeAdapter

from pluralign.errors import InputError
from pluralign.reward.items import advantage
from pluralign.reward.judgements import PAIRS, TIE, Acts, Judgements, outcomes
from pluralign.reward.population import Population
from pluralign.reward.response import SHARED, Noise, Response
from pluralign.types import Features, Feedback, RewardPosterior, Score

BLOCK = 8_000_000  # entries [draw voter act slot slot] at a time


def response_of(posterior: RewardPosterior) -> Response:
    """Return the response model that a posterior was fitted with."""
    return TypeAdapter(Population).validate_python(posterior.model).response if posterior.model else Response()


def predict(posterior: RewardPosterior, feedback: Feedback, phi: Features) -> Float[np.ndarray, "choice outcome"]:
    """Return the posterior predictive probability of each outcome of the comparisons of two in `feedback`.

        P(outcome) = mean_draw sum_voter membership[annotator, voter] P(outcome | x · w[draw, voter], rater[draw])

    The outcomes in `feedback` are not looked at.

    Args:
        posterior: fitted to feedback with the same annotators.
        feedback: comparisons of two items.
        phi: features of its items, from the same feature map.

    Returns:
        Probabilities of (first wins, second wins, tie), rows sum to 1; ties have 0 if the model had none.

    Raises:
        InputError: annotators or features are not those of the posterior, or there is something else than comparisons.
    """
    outcomes(feedback)
    judgements = Judgements.read(feedback, phi)
    check(posterior, judgements, people=True)
    possible = 3 if {"tie", "threshold"} & set(posterior.rater) else 2
    out = np.zeros((len(feedback.choices), 3))
    with jax.enable_x64(True):
        acts = Acts.of(PAIRS, judgements, 1.0)
        for outcome in range(possible):
            out[:, outcome] = np.exp(_log_predictive(posterior, acts.instead(outcome), ()))
    return out


def log_predictive(
    posterior: RewardPosterior, feedback: Feedback, phi: Features
) -> dict[str, Float[np.ndarray, " act"]]:
    """Return the log posterior predictive probability of what was said, judgement by judgement.

        log mean_draw sum_voter membership[annotator, voter] P(said | draw, voter)

    Args:
        posterior: fitted to feedback with the same annotators.
        feedback: judgements of any form.
        phi: features of its items, from the same feature map.

    Returns:
        By form, `pairs`, `slates` and `grades`, in the order of the feedback.

    Raises:
        InputError: annotators, objectives or features are not those of the posterior.
    """
    judgements = Judgements.read(feedback, phi)
    check(posterior, judgements, people=True)
    levels = tuple(len(scale.labels) for scale in judgements.scales)
    with jax.enable_x64(True):
        return {form: _log_predictive(posterior, Acts.of(form, judgements, 1.0), levels) for form in judgements.blocks}


def check(posterior: RewardPosterior, judgements: Judgements, *, people: bool = False) -> None:
    """Raise unless judgements speak of the features, objectives, items and (if `people`) annotators of a posterior.

    Raises:
        InputError: naming what differs.
    """
    members = len(posterior.voters) if posterior.membership is None else len(posterior.membership)
    if people and members != judgements.annotators:
        raise InputError(f"feedback has {judgements.annotators} annotators, the posterior was fitted to {members}.")
    if judgements.names != posterior.features:
        raise InputError(f"phi has the features {judgements.names}, the posterior was fitted to {posterior.features}.")
    if judgements.objectives != posterior.objectives:
        raise InputError(
            f"feedback has the objectives {judgements.objectives}, the posterior was fitted to {posterior.objectives}."
        )
    if posterior.quality is not None and posterior.quality.shape[1] != len(judgements.phi):
        raise InputError(
            f"feedback has {len(judgements.phi)} items, the posterior's item effects are of "
            f"{posterior.quality.shape[1]}; split one feedback by judgements, so that its items stay."
        )


def _log_predictive(posterior: RewardPosterior, acts: Acts, levels: tuple[int, ...]) -> Float[np.ndarray, " act"]:
    """Return the log posterior predictive probability of each act, in the order of the feedback."""
    response = response_of(posterior)
    noise: Noise = dict(posterior.rater)
    if "lapse" in noise:
        noise["lapse_logit"] = scipy.special.logit(noise["lapse"].astype(np.float64))
    noise |= {name: posterior.common[name] for name in SHARED if name in posterior.common}
    draws = {"weights": posterior.weights, "noise": noise}
    if posterior.quality is not None:
        draws["quality"] = posterior.quality

    def one(draw: Any) -> Any:
        """Log probability of each act in one draw."""
        personal = posterior.membership is None
        utility = acts.utility(draw["weights"]) if personal else acts.shared(draw["weights"])
        if "quality" in draw:
            utility = utility + advantage(acts, draw["quality"])
        log_p = response.log_probability(acts, utility, draw["noise"], levels)
        if personal:
            return log_p
        return jax.nn.logsumexp(log_p + jnp.log(acts.each(posterior.membership).T), 0)

    several = jax.jit(lambda draws: jax.nn.logsumexp(jax.vmap(one)(draws), 0))
    total = len(posterior.weights)
    voters = 1 if posterior.membership is None else len(posterior.voters)
    chunk = max(1, BLOCK // (len(acts.counts) * voters * acts.item.shape[1] ** 2))
    parts = []
    for start in range(0, total, chunk):
        here = jax.tree.map(lambda value, start=start: value[start : start + chunk].astype(np.float64), draws)
        parts.append(np.asarray(several(here)))
    log_p = scipy.special.logsumexp(parts, axis=0) - np.log(total)
    return log_p[acts.counts][np.argsort(acts.row[acts.counts])]


def score(
    prediction: RewardPosterior | Float[np.ndarray, "choice outcome"],
    feedback: Feedback,
    phi: Features,
    name: str = "posterior",
) -> Score:
    """Return how well judgements that were not seen in the fit are predicted.

        log_loss = -mean_judgement log P(what was said)
        stderr^2 = A / (A - 1) sum_annotator (sum_{judgement of annotator} (loss - log_loss))^2 / judgements^2

    A is the number of annotators: one person's judgements are not independent (Liang and Zeger 1986).

    Args:
        prediction: a posterior, or the probabilities of each outcome if all judgements are comparisons of two.
        feedback: the judgements that were held out.
        phi: features of its items.
        name: of the model, in tables.

    Raises:
        InputError: a held-out judgement has probability 0 (a tie, where the model was fitted without any).
    """
    if not isinstance(prediction, RewardPosterior):
        return _score(prediction, feedback, name)
    if not len(feedback.grades) and (np.sum(feedback.choices.slate >= 0, 1) == 2).all():
        return _score(predict(prediction, feedback, phi), feedback, name)
    log_p = log_predictive(prediction, feedback, phi)
    blocks = Judgements.read(feedback, phi).blocks
    who = np.concatenate([blocks[form].annotator for form in log_p])
    return _summary(np.concatenate(list(log_p.values())), who, float("nan"), name)


def _score(p: np.ndarray, feedback: Feedback, name: str) -> Score:
    outcome, annotator = outcomes(feedback), feedback.choices.annotator
    likelihood = p[np.arange(len(outcome)), outcome]
    if not (likelihood > 0).all():
        row = int(np.argmin(likelihood))
        what = ("a win of the first", "a win of the second", "a tie")[outcome[row]]
        raise InputError(
            f"{name} gives probability {likelihood[row]} to what happened in held-out choice {row}: {what}. "
            "Usually the feedback it was fitted to holds none; hold out less, or drop these judgements from both."
        )
    return _summary(np.log(likelihood), annotator, float((p.argmax(1) == outcome).mean()), name)


def _summary(log_p: np.ndarray, annotator: np.ndarray, accuracy: float, name: str) -> Score:
    if not np.isfinite(log_p).all():
        raise InputError(
            f"{name} gives probability 0 to {int((~np.isfinite(log_p)).sum())} held-out judgements: usually ties that "
            "the model has no parameter for (`PlackettLuce(ties=...)`)."
        )
    loss = -log_p
    _, cluster = np.unique(annotator, return_inverse=True)
    total = np.bincount(cluster, loss - loss.mean())
    variance = (total**2).sum() / len(loss) ** 2
    return Score(
        model=name,
        log_loss=float(loss.mean()),
        stderr=float(np.sqrt(variance * len(total) / (len(total) - 1))) if len(total) > 1 else float("nan"),
        accuracy=accuracy,
        judgements=len(loss),
    )


def constant(train: Feedback, test: Feedback, name: str = "constant") -> Score:
    """Return the score of predicting the training set's frequencies of outcomes, whoever judges whatever.

    Raises:
        InputError: `test` holds an outcome that `train` does not.
    """
    share = np.bincount(outcomes(train), minlength=TIE + 1) / len(train.choices)
    return _score(np.tile(share, (len(test.choices), 1)), test, name)
