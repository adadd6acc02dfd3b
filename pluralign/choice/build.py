"""From a posterior and features to the table of utilities that every rule starts from."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from pluralign.choice.scale import AbstractScale, StdScale, rescale
from pluralign.errors import InputError
from pluralign.types import Features, Linear, RewardPosterior, Utilities

STD = StdScale()


def utilities(
    posterior: RewardPosterior,
    phi: Features,
    *,
    scale: AbstractScale = STD,
    draws: int = 100,
    prompts: Sequence[int] | None = None,
    reference: Float[np.ndarray, " item"] | None = None,
    objectives: Mapping[str, float] | None = None,
    items: bool = False,
    groups: Sequence[str] | None = None,
) -> Utilities:
    """Return every voter's utility of every candidate, in posterior draws, kept factored.

    `U[draw, voter, prompt, candidate] = (phi[item] · sum_objective objectives w[draw, voter, objective] - zero) / unit`

    Args:
        posterior: reward weights per voter.
        phi: features of the items; the items of a prompt are its candidates.
        scale: what makes utilities of different voters comparable; sets `zero` and `unit`.
        draws: at most so many draws are kept, evenly spaced over the posterior's; the cost of every rule grows
            with it.
        prompts: ids of the prompts that become rows, in this order; None takes all.
        reference: how much the policy to stay near favours each item, in any unit (rows are made to sum to 1);
            items with 0 are no candidates. None: uniform over each prompt's candidates.
        objectives: how much each objective counts in a voter's utility, by name; needed if there are several. One that
            is not named counts 0.
        items: add what each item is worth beyond its features, if the reward model has item effects. The table is then
            dense, and says nothing of responses that were not judged.
        groups: of each voter, for constraints that speak of groups.

    Raises:
        InputError: features and posterior do not belong together; a prompt without candidates; several objectives
            and no word on how they add up; a voter whom the scale cannot measure.
    """
    if posterior.features != phi.names:
        raise InputError(
            f"the posterior was fitted to {len(posterior.features)} features {posterior.features[:3]}..., these are "
            f"{len(phi.names)} features {phi.names[:3]}...; encode with the map that it was fitted with."
        )
    if draws < 1:
        raise InputError(f"draws is {draws}; keep at least 1.")
    total, voters, count, _ = posterior.weights.shape
    if objectives is None and count > 1:
        names = posterior.objectives
        raise InputError(f"the posterior has the objectives {names}; say with `objectives` how much each counts.")
    objectives = {posterior.objectives[0]: 1.0} if objectives is None else objectives
    if unknown := [name for name in objectives if name not in posterior.objectives]:
        raise InputError(f"objectives names {unknown}; the posterior has {posterior.objectives}.")
    share = np.array([objectives.get(name, 0.0) for name in posterior.objectives])
    keep = np.linspace(0, total - 1, min(draws, total)).round().astype(int)
    weights = np.einsum("svof,o->svf", posterior.weights[keep], share)

    favour = np.ones(len(phi.phi)) if reference is None else np.asarray(reference, np.float64)
    if favour.shape != (len(phi.phi),) or not (np.isfinite(favour).all() and (favour >= 0).all()):
        raise InputError(f"reference must be [item] = [{len(phi.phi)}], finite and not negative.")
    rows = [int(p) for p in (np.unique(phi.prompt_id[favour > 0]) if prompts is None else prompts)]
    members = [np.flatnonzero((phi.prompt_id == prompt) & (favour > 0)) for prompt in rows]
    if not rows or not all(len(m) for m in members):
        empty = [prompt for prompt, m in zip(rows, members, strict=True) if not len(m)]
        raise InputError(f"prompts {empty[:5]} have no candidates." if rows else "prompts is empty; name at least one.")
    item = np.full((len(rows), max(map(len, members))), -1)
    for x, m in enumerate(members):
        item[x, : len(m)] = m
    table = np.where(item >= 0, favour[item], 0)
    padded = np.where(item[..., None] >= 0, phi.phi[item], 0)
    value = Linear(padded, weights, np.zeros((len(keep), voters)))
    if items:
        if posterior.quality is None:
            raise InputError("items is True, but the posterior has no item effects; fit with `items=ItemEffects()`.")
        beyond = sum(posterior.at(keep).beyond(np.maximum(item, 0), o) * s for o, s in enumerate(share))
        value = np.einsum("svf,xyf->svxy", weights, padded, optimize=True) + np.where(item >= 0, beyond, 0)
    raw = Utilities(
        value=value,
        mass=posterior.mass,
        reference=table / table.sum(-1, keepdims=True),
        item=item,
        voters=posterior.voters,
        prompts=tuple(rows),
        caveats=posterior.fit.caveats,
        groups=None if groups is None else tuple(groups),
    )
    return rescale(raw, scale)
