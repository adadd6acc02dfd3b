"""Do intervals cover what simulated annotators truly want as often as they say?"""

import numpy as np
import pytest

from pluralign import choice, features, feedback, reward
from pluralign.reward.together import fit_together
from pluralign.types import Features, Feedback, FitReport, RewardPosterior

SEEDS = 20
STYLES = {
    "warmth": ("dear", "lovely", "glad"),
    "detail": ("exactly", "measured", "because"),
    "caution": ("careful", "risk"),
}
GROUPS = (
    feedback.Group("newcomers", 12, {"warmth": 1.0, "detail": -0.5, "caution": 0.0}),
    feedback.Group("experts", 8, {"warmth": -0.5, "detail": 1.0, "caution": 0.3}),
    feedback.Group("guardians", 4, {"warmth": 0.2, "detail": -0.2, "caution": 1.0}),
)


def quantiles_of_truth(votes: Feedback, phi: Features, posterior: RewardPosterior) -> list[float]:
    """Return, for each group, the share of posterior draws of its welfare under the Nash lottery below the true one."""
    assert votes.truth is not None
    utilities = choice.utilities(posterior, phi, scale=choice.StdScale(), draws=300)
    lottery = (
        choice.Nash().choose(choice.utilities(posterior, phi, scale=choice.StdScale(), draws=30), beta=0.1).lottery
    )
    known = FitReport("known", 1, 1, 0, {}, {}, {}, 0.0)
    true = RewardPosterior(
        votes.truth.weights[None, :, None].astype(np.float32),
        posterior.mass,
        posterior.voters,
        None,
        {},
        phi.names,
        known,
    )
    u = utilities.expected(lottery)
    true_u = choice.utilities(true, phi, scale=choice.StdScale()).expected(lottery)[0]
    group = np.array(votes.attribute("group"))
    return [float((u[:, group == g].mean(1) < true_u[group == g].mean()).mean()) for g in dict.fromkeys(group)]


def calibrated(quantiles: np.ndarray) -> bool:
    """Check the share of truths inside the central 90 % and 50 % intervals.

    With 60 intervals whose coverage is as stated, 3.3 standard errors are .128 and .213; groups of one community share
    rater and population parameters, so their errors are somewhat correlated and a tighter bound would fail by chance.
    """
    inside_90 = np.mean((quantiles > 0.05) & (quantiles < 0.95))
    inside_50 = np.mean((quantiles > 0.25) & (quantiles < 0.75))
    return bool(abs(inside_90 - 0.9) < 0.128 and abs(inside_50 - 0.5) < 0.213)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")  # 150 draws: R-hat is judged elsewhere
def test_intervals_of_group_welfare_cover_the_truth():
    votes = [
        feedback.Community(GROUPS, STYLES, prompts=20, candidates=5, judgements=24, seed=seed).load()
        for seed in range(SEEDS)
    ]
    phi = [features.Lexicon(STYLES).encode(v) for v in votes]
    inference = reward.NUTS(draws=150, warmup=200, chains=2)
    posteriors = fit_together(reward.Hierarchical(group="group"), votes, phi, inference=inference)
    quantiles = np.array([quantiles_of_truth(*parts) for parts in zip(votes, phi, posteriors, strict=True)]).ravel()
    print("inside 90 %:", np.mean((quantiles > 0.05) & (quantiles < 0.95)))
    print("inside 50 %:", np.mean((quantiles > 0.25) & (quantiles < 0.75)))
    assert calibrated(quantiles), np.sort(quantiles)


def test_the_check_of_coverage_can_fail():
    uniform = (np.arange(60) + 0.5) / 60
    assert calibrated(uniform)
    overconfident = np.where(uniform < 0.5, uniform / 3, 1 - (1 - uniform) / 3)  # intervals a good deal too narrow
    timid = 0.5 + (uniform - 0.5) / 2  # twice too wide
    assert not calibrated(overconfident)
    assert not calibrated(timid)
