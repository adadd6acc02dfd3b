"""A rule asked again, on what the policy writes now."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from pluralign.errors import InputError
from pluralign.types import Choice, Linear, LinearReward, Utilities

Solve = Callable[[Utilities, float], Choice]
TRUST = 0.5  # see `again`


def again(
    chosen: Choice,
    solve: Solve,
    phi: Float[np.ndarray, "prompt response feature"],
    log_ratio: Float[np.ndarray, "prompt response"],
    trust: float = TRUST,
) -> Choice:
    """Return what a rule chooses among responses that the policy wrote; its multipliers are those of the policy.

    Multipliers are right where they were solved for, at the optimum over the candidates; what a language model can
    write is another set. Responses of the policy are samples of `pi`, so as candidates with the reference weights
    `(pi_ref / pi)^trust` and the price `beta / trust` they pose the program of a proximal step,

        max_p W(u(p)) - beta KL(p || pi_ref) - (1 / trust - 1) beta KL(p || pi)

    up to constants. Where the policy is the answer, `pi = p`, it is the optimum of the program without the last term:
    so the fixed point does not depend on `trust`, which in (0, 1] says how far samples are believed to speak for the
    reference: at 1 their weights vary as `pi_ref / pi` does, and few of them decide; far below 1 multipliers answer so
    strongly to a small step that a policy which follows at once runs to and fro (half of the way at 1/2 is steady).

    Args:
        chosen: the choice whose rule is asked again.
        solve: the rule with its risk and constraints, `(utilities, beta) -> Choice`.
        phi: features of responses to some prompts.
        log_ratio: `log(pi / pi_ref)` of each, in nats.
        trust: in (0, 1].

    Raises:
        InputError: the choice's utilities are dense, or its reward is not linear.
    """
    value = chosen.utilities.value
    if not isinstance(value, Linear) or not isinstance(chosen.reward, LinearReward):
        raise InputError(
            f"{chosen.name} cannot be asked again: that takes utilities linear in features and a reward without "
            "pointwise caution; set reestimate to 0."
        )
    table = replace(
        chosen.utilities,
        value=replace(value, phi=np.asarray(phi, np.float64)),
        reference=softmax(-trust * np.asarray(log_ratio, np.float64), axis=-1),
        item=None,
        prompts=None,
    )
    return solve(table, chosen.beta / trust)


def half_way(chosen: Choice, found: Choice) -> tuple[Choice, float]:
    """Return a choice with multipliers half of the way to those found, and by what share of its size the reward moved.

    Multipliers found from few responses are noisy; half of the way each time, they are averaged.
    """
    assert isinstance(chosen.reward, LinearReward) and isinstance(found.reward, LinearReward)
    assert chosen.weights is not None and found.weights is not None
    before = chosen.reward.weights
    after = (before + found.reward.weights) / 2
    moved = float(np.linalg.norm(after - before) / max(np.linalg.norm(before), 1e-12))
    return replace(chosen, reward=LinearReward(after), weights=(chosen.weights + found.weights) / 2), moved
