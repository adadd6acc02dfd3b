"""One policy judged over all prompts together, or each prompt judged by itself."""

from dataclasses import replace

import numpy as np
from rich.progress import track

from pluralign.choice.risk import AbstractRisk
from pluralign.choice.rule import MEAN, AbstractRule
from pluralign.choice.scale import AbstractScale, rescale
from pluralign.errors import InputError, SolveError
from pluralign.types import Certificate, Choice, Linear, Utilities

MANY = 200  # prompts, from which on progress is shown


def each_prompt(
    rule: AbstractRule,
    utilities: Utilities,
    risk: AbstractRisk = MEAN,
    beta: float = 0.1,
    scale: AbstractScale | None = None,
) -> Choice:
    """Return the lotteries that a rule chooses where each prompt is judged by itself.

        max_{p_x}  rho_draw( W(u_x[draw, :]) ) - beta KL(p_x || ref_x),   u_x[draw, voter] = sum_y p U,   for every x

    `rule.choose` judges one policy over all prompts: a voter who loses on one may gain on another, and Nash or maximin
    weigh what each has in all. Here nobody's loss on one prompt is made good by another, so each prompt is as fair as
    the rule is, and the average of all may be worse for everyone. For voting rules and lotteries, which look at one
    prompt at a time, and for the utilitarian mean, both are the same. There is no one weight of each voter, so the
    choice has no multipliers and no reward for responses that are not candidates.

    Args:
        rule: the rule.
        utilities: of every voter for every candidate, in posterior draws.
        risk: how draws are combined.
        beta: price of a nat of divergence from the reference, in units of welfare.
        scale: measured on each prompt by itself; None leaves utilities on the scale that they have, whose zero is a
            mean over prompts (then Nash may lack positive utilities on one).

    Returns:
        The choice; its certificate has means over prompts of value, bound and distance, and the sum of cuts.

    Raises:
        InputError: as `rule.choose`, naming the prompt.
        SolveError: likewise.
    """
    prompts = range(len(utilities.reference))
    lottery, certificates = np.zeros(utilities.reference.shape), []
    for x in track(prompts, "prompts", disable=len(prompts) < MANY):
        on = np.flatnonzero(utilities.reference[x] > 0)
        try:
            alone = _prompt(utilities, x, on)
            chosen = rule.choose(alone if scale is None else rescale(alone, scale), risk, beta)
        except (InputError, SolveError) as error:
            raise type(error)(f"prompt {(utilities.prompts or prompts)[x]}, judged by itself: {error}") from error
        lottery[x, on] = chosen.lottery[0]
        certificates.append(chosen.certificate)
    mean = {
        name: float(np.mean([getattr(c, name) for c in certificates]))
        for name in ("value", "upper_bound", "gap", "tv_bound")
    }
    total = Certificate(**mean, cuts=sum(c.cuts for c in certificates), seconds=sum(c.seconds for c in certificates))
    return Choice(rule.name, lottery, None, None, beta, risk.words, total, utilities)


def _prompt(utilities: Utilities, x: int, on: np.ndarray) -> Utilities:
    """Return one prompt's candidates alone."""
    value = utilities.value
    if isinstance(value, Linear):
        value = Linear(value.phi[x : x + 1, on], value.weights, value.offset)
    else:
        value = value[:, :, x : x + 1, on]
    reference, item = utilities.reference[x : x + 1, on], utilities.item
    return replace(
        utilities,
        value=value,
        reference=reference / reference.sum(),
        item=None if item is None else item[x : x + 1, on],
        prompts=(utilities.prompts or range(x + 1))[x : x + 1],
    )
