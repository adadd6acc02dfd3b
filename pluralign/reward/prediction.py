"""What the posterior says about judgements, and how well."""

import jax
import numpy as np
import scipy.special
from jaxtyping import Float, Int

from pluralign.errors import InputError
from pluralign.reward.judgements import PAIRS, TIE, Acts, Judgements, outcomes
from pluralign.reward.pointwise import by_draw, in_blocks, in_order, levels_of, over_draws, response_of
from pluralign.types import Features, Feedback, RewardPosterior, Score


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
    with jax.enable_x64(True):
        return {
            form: _log_predictive(posterior, Acts.of(form, judgements, 1.0), levels_of(judgements))
            for form in judgements.blocks
        }


def log_likelihood(
    posterior: RewardPosterior, feedback: Feedback, phi: Features
) -> dict[str, Float[np.ndarray, "draw _"]]:
    """Return the log probability of what was said, judgement by judgement and draw by draw.

        log sum_voter membership[annotator, voter] P(said | draw, voter)

    Arguments, order and errors are those of `log_predictive`, which is the log of its mean over draws.
    """
    judgements = Judgements.read(feedback, phi)
    check(posterior, judgements, people=True)
    response, found = response_of(posterior), {}
    with jax.enable_x64(True):
        for form in judgements.blocks:
            acts = Acts.of(form, judgements, 1.0)
            settings = (response, levels_of(judgements), posterior.membership is None, acts)
            parts = [
                np.asarray(by_draw(*settings, draws, posterior.membership))[counts > 0]
                for draws, counts in in_blocks(posterior, acts)
            ]
            found[form] = in_order(acts, np.concatenate(parts))
    return found


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
    settings = (response_of(posterior), levels, posterior.membership is None, acts)
    parts = [
        np.asarray(over_draws(*settings, draws, posterior.membership, counts))
        for draws, counts in in_blocks(posterior, acts)
    ]
    return in_order(acts, scipy.special.logsumexp(parts, axis=0) - np.log(len(posterior.weights)))


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
    mean, stderr = clustered(log_p, annotator)
    return Score(model=name, log_loss=-mean, stderr=stderr, accuracy=accuracy, judgements=len(log_p))


def clustered(value: Float[np.ndarray, " act"], annotator: Int[np.ndarray, " act"]) -> tuple[float, float]:
    """Return the mean of values with its standard error, clustered by annotator; NaN if there is but one."""
    _, cluster = np.unique(annotator, return_inverse=True)
    total = np.bincount(cluster, value - value.mean())
    variance = (total**2).sum() / len(value) ** 2
    several = len(total) > 1
    return float(value.mean()), float(np.sqrt(variance * len(total) / (len(total) - 1))) if several else float("nan")


def constant(train: Feedback, test: Feedback, name: str = "constant") -> Score:
    """Return the score of predicting the training set's frequencies of outcomes, whoever judges whatever.

    Raises:
        InputError: `test` holds an outcome that `train` does not.
    """
    share = np.bincount(outcomes(train), minlength=TIE + 1) / len(train.choices)
    return _score(np.tile(share, (len(test.choices), 1)), test, name)
