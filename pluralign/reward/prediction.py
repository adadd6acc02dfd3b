"""What the posterior says about judgements, and how well."""

import jax
import numpy as np
import scipy.special
from jaxtyping import Float

from pluralign.errors import InputError
from pluralign.reward.judgements import FIRST, SECOND, TIE, Judgements, outcomes
from pluralign.reward.response import log_probability
from pluralign.types import Features, Feedback, RewardPosterior, Score

BLOCK = 1024  # choices at a time


def predict(posterior: RewardPosterior, feedback: Feedback, phi: Features) -> Float[np.ndarray, "choice outcome"]:
    """Return the posterior predictive probability of each outcome of the comparisons in `feedback`.

        P(outcome) = mean_draw sum_voter membership[annotator, voter] Davidson(x · w[draw, voter], rater[draw])

    The outcomes in `feedback` are not looked at.

    Args:
        posterior: fitted to feedback with the same annotators.
        feedback: comparisons of two items.
        phi: features of its items, from the same feature map.

    Returns:
        Probabilities of (first wins, second wins, tie), rows sum to 1; ties have 0 if the model had none.

    Raises:
        InputError: annotators or features are not those of the posterior.
    """
    judgements = Judgements.read(feedback, phi)
    members = len(posterior.voters) if posterior.membership is None else len(posterior.membership)
    if members != judgements.annotators:
        raise InputError(f"feedback has {judgements.annotators} annotators, the posterior was fitted to {members}.")
    if phi.names != posterior.features:
        raise InputError(f"phi has the features {phi.names}, the posterior was fitted to {posterior.features}.")
    blocks = [slice(i, i + BLOCK) for i in range(0, len(judgements.outcome), BLOCK)]
    with jax.enable_x64(True):
        return np.concatenate(
            [_predict(posterior, judgements.x[b], judgements.annotator[b], judgements.placed[b]) for b in blocks]
        )


def _predict(posterior: RewardPosterior, x: np.ndarray, annotator: np.ndarray, placed: np.ndarray) -> np.ndarray:
    rater = {name: value[:, annotator].astype(np.float64) for name, value in posterior.rater.items()}
    tie, lapse_logit = rater.get("tie"), scipy.special.logit(rater["lapse"]) if "lapse" in rater else None
    weights = posterior.weights[:, :, 0].astype(np.float64)
    out = np.zeros((len(x), 3))
    for share, eta in _advantages(posterior, weights, x, annotator):
        eta = eta + placed * rater.get("position", 0.0)
        for outcome in (FIRST, SECOND) if tie is None else (FIRST, SECOND, TIE):
            out[:, outcome] += share * np.exp(log_probability(outcome, eta, tie, lapse_logit)).mean(0)
    return out


def _advantages(posterior: RewardPosterior, weights: np.ndarray, x: np.ndarray, annotator: np.ndarray):
    """Yield, per voter to whom an annotator may belong, its share and the advantage `[draw choice]` in its eyes."""
    if posterior.membership is None:
        eta = np.empty((len(weights), len(x)))
        for a in np.unique(annotator):
            eta[:, annotator == a] = weights[:, a] @ x[annotator == a].T
        yield np.ones(len(x)), eta
    else:
        for voter, share in enumerate(posterior.membership.T):
            yield share[annotator], weights[:, voter] @ x.T


def score(
    prediction: RewardPosterior | Float[np.ndarray, "choice outcome"],
    feedback: Feedback,
    phi: Features,
    name: str = "posterior",
) -> Score:
    """Return how well judgements that were not seen in the fit are predicted.

        log_loss = -mean_choice log P(outcome)
        stderr^2 = A / (A - 1) sum_annotator (sum_{choice of annotator} (loss - log_loss))^2 / choices^2

    A is the number of annotators: one person's judgements are not independent (Liang and Zeger 1986).

    Args:
        prediction: a posterior, or the probabilities of each outcome.
        feedback: the judgements that were held out.
        phi: features of its items.
        name: of the model, in tables.

    Raises:
        InputError: a held-out outcome has probability 0 (a tie, where the model was fitted without any).
    """
    return _score(
        predict(prediction, feedback, phi) if isinstance(prediction, RewardPosterior) else prediction, feedback, name
    )


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
    loss = -np.log(likelihood)
    _, cluster = np.unique(annotator, return_inverse=True)
    total = np.bincount(cluster, loss - loss.mean())
    variance = (total**2).sum() / len(loss) ** 2
    return Score(
        model=name,
        log_loss=float(loss.mean()),
        stderr=float(np.sqrt(variance * len(total) / (len(total) - 1))) if len(total) > 1 else float("nan"),
        accuracy=float((p.argmax(1) == outcome).mean()),
        judgements=len(loss),
    )


def constant(train: Feedback, test: Feedback, name: str = "constant") -> Score:
    """Return the score of predicting the training set's frequencies of outcomes, whoever judges whatever.

    Raises:
        InputError: `test` holds an outcome that `train` does not.
    """
    share = np.bincount(outcomes(train), minlength=TIE + 1) / len(train.choices)
    return _score(np.tile(share, (len(test.choices), 1)), test, name)
