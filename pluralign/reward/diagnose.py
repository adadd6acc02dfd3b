"""Whether draws can be trusted (Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from pluralign.errors import FitError
from pluralign.reward.effective import worst
from pluralign.types import FitReport

GIVEN_THE_REST = {"membership"}
"""Sites that are functions of others and stand still at 0 or 1 where the data are clear: not looked at."""

LEAST_BFMI = 0.3
"""E-BFMI below which the tails of the energy are hardly reached (Betancourt 2016, section 4)."""

Sites = dict[str, Shaped[np.ndarray, "chain draw ..."]]


def check_finite(sites: dict[str, np.ndarray]) -> None:
    """Raise if any number is not finite.

    Raises:
        FitError: naming the sites.
    """
    bad = [name for name, value in sites.items() if not np.isfinite(value).all()]
    if bad:
        raise FitError(
            f"{', '.join(bad)}: not finite. Usually the features have a huge scale, or the step or "
            "learning rate is too large: standardise the features, or lower `inference.learning_rate`."
        )


def rhat_limit(draws: int) -> float:
    """Return the R-hat above which chains of `draws` draws altogether are called not converged.

    1.01 for 4,000 draws or more (Vehtari et al. 2021, for four chains of 1,000). With fewer, the worst of thousands
    of R-hats exceeds 1.01 by chance even for independent draws; then 1.05.
    """
    return 1.01 if draws >= 4000 else 1.05


def report(
    sites: Sites,
    *,
    divergences: int,
    saturated: float,
    method: str,
    seconds: float,
    energy: Float[np.ndarray, "chain step"] | None = None,
) -> FitReport:
    """Return the diagnostics of Markov chains, worst over the entries of each site.

    Args:
        sites: draws in constrained space.
        divergences: divergent transitions after warm-up.
        saturated: share of transitions that stopped at the largest tree.
        method: what made the draws.
        seconds: wall time.
        energy: total energy of each draw; None if the sampler has none.
    """
    check_finite(sites)
    rhat, bulk, tail = {}, {}, {}
    for name, value in sites.items():
        if name in GIVEN_THE_REST:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # chains that stand still: NaN, which is a caveat
            rhat[name], bulk[name], tail[name] = worst(np.reshape(value, (*value.shape[:2], -1)))
    chains, draws = next(iter(sites.values())).shape[:2]
    bfmi = () if energy is None else energy_information(energy)
    return FitReport(
        method=method,
        chains=chains,
        draws=draws,
        divergences=divergences,
        rhat=rhat,
        ess_bulk=bulk,
        ess_tail=tail,
        seconds=seconds,
        caveats=(
            *_caveats(rhat, {"": bulk, " in the tails": tail}, chains, draws, divergences, saturated),
            *_energy_caveats(bfmi),
        ),
        bfmi=bfmi,
    )


def energy_information(energy: Float[np.ndarray, "chain step"]) -> tuple[float, ...]:
    """Return the estimated Bayesian fraction of missing information of each chain (Betancourt 2016, equation 9).

        E-BFMI = sum_draw (E[draw] - E[draw - 1])^2 / sum_draw (E[draw] - mean E)^2

    About 1 or more where fresh momenta reach every energy at once; below 0.3 they do not, and tails are missed. NaN if
    the energy did not move.
    """
    energy = np.asarray(energy, np.float64)
    with np.errstate(invalid="ignore"):
        found = (np.diff(energy, axis=1) ** 2).sum(1) / ((energy - energy.mean(1, keepdims=True)) ** 2).sum(1)
    return tuple(float(value) for value in found)


def _energy_caveats(bfmi: tuple[float, ...]) -> list[str]:
    low = [value for value in bfmi if not value >= LEAST_BFMI]
    if not low:
        return []
    return [
        f"The energy of {len(low)} of {len(bfmi)} chains wanders slowly (E-BFMI {min(low):.2f}, where at least "
        f"{LEAST_BFMI} is good), so tails may be missed: usually a scale that the data hardly tell. Run more `warmup`, "
        "or take a population with fewer scales."
    ]


def _caveats(
    rhat: dict[str, float],
    ess: dict[str, dict[str, float]],
    chains: int,
    draws: int,
    divergences: int,
    saturated: float,
) -> list[str]:
    limit, needed, found = rhat_limit(chains * draws), 100 * chains, []
    # Written so that NaN, from chains that did not move, is a caveat.
    if bad := {name: value for name, value in rhat.items() if not value <= limit}:
        found.append(
            f"The chains disagree: R-hat is up to {_worst(bad, np.nanmax)}, where at most {limit} is good; "
            "run more `warmup` and `draws`."
        )
    for where, values in ess.items():
        if bad := {name: value for name, value in values.items() if not value >= needed}:
            found.append(
                f"Too few effective draws{where}: down to {_worst(bad, np.nanmin, '.0f')}, where {needed} (100 per "
                "chain) are needed for stable diagnostics; run more `draws`."
            )
    if divergences:
        found.append(
            f"{divergences} of {chains * draws} transitions diverged: part of the posterior may be missed; "
            "raise `target_accept`."
        )
    if saturated > 0.01:
        found.append(
            f"{saturated:.0%} of the transitions stopped at the largest tree, which makes draws dependent; "
            "raise `max_tree_depth`."
        )
    return found


def _worst(values: dict[str, float], worst: Callable[[list[float]], float], form: str = ".3f") -> str:
    moved = [v for v in values.values() if np.isfinite(v)]
    number = worst(moved) if moved else np.nan
    return (
        f"{number:{form}} ({', '.join(sorted(values))})"
        if moved
        else f"undefined ({', '.join(sorted(values))}: chains stand still)"
    )


def independent(
    draws: int, *, method: str, seconds: float, caveats: tuple[str, ...], notes: tuple[str, ...]
) -> FitReport:
    """Return the report of independent draws from an approximation, which have no chains to compare."""
    return FitReport(
        method=method,
        chains=1,
        draws=draws,
        divergences=0,
        rhat={},
        ess_bulk={},
        ess_tail={},
        seconds=seconds,
        caveats=caveats,
        notes=notes,
    )


def variational(
    sites: dict[str, np.ndarray], elbo: Float[np.ndarray, " step"], *, method: str, seconds: float
) -> FitReport:
    """Return the diagnostics of a variational fit: whether the evidence lower bound still rose at the end.

    The mean of the last fifth of the steps against that of the fifth before, in standard errors of the difference.
    """
    check_finite(sites)
    fifth = len(elbo) // 5
    before, last = elbo[-2 * fifth : -fifth], elbo[-fifth:]
    rise, error = last.mean() - before.mean(), np.sqrt((before.var(ddof=1) + last.var(ddof=1)) / fifth)
    caveats = []
    if rise > 3 * error:
        caveats.append(
            f"The evidence lower bound still rose by {rise:.2f} nats (standard error {error:.2f}) over the last two "
            "fifths of the steps; take more `steps`, or a larger `learning_rate`."
        )
    return independent(
        len(next(iter(sites.values()))),
        method=method,
        seconds=seconds,
        caveats=tuple(caveats),
        notes=(
            "Variational intervals are too narrow: on real votes mean field understated the spread between annotators "
            "two to four times. Predictions suffer little; use NUTS where an interval matters.",
        ),
    )
