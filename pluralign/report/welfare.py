"""What each rule does to each group and to each voter, and how far the rules agree."""

from typing import Any

import numpy as np
from jaxtyping import Float

from pluralign.artifacts import plain
from pluralign.report.groups import EVERYONE, Groups, estimate, group
from pluralign.report.run import Run
from pluralign.types import Choice, Utilities

FEWEST = 5  # with fewer voters a distribution over voters says nothing that the groups do not


def rules(run: Run, attribute: str | None) -> dict[str, Any]:
    """Return welfare per rule and group, gains per voter, and certificates.

    For each posterior draw the welfare of a group is the mass-weighted mean over its voters of
    `u[draw, voter] = mean_prompt sum_candidate lottery U`; estimates are means and 5 % and 95 % quantiles over draws.
    """
    rows, individuals, certificates = [], [], []
    for name, chosen in run.choices.items():
        utilities = chosen.utilities
        groups = group(_voters(utilities), utilities.mass, run.feedback, attribute)
        before, after = utilities.expected(utilities.reference), utilities.expected(chosen.lottery)
        true = _true(run.truth, chosen)
        rows += _rows(name, groups.with_everyone(), before, after, _true_groups(run, groups, true, attribute))
        if len(utilities.mass) >= FEWEST:
            own = true[1] - true[0] if true is not None and true.shape[1] == len(utilities.mass) else None
            individuals.append({"rule": name, **_individuals(_voters(utilities), groups, after - before, own)})
        certificates.append(
            {"rule": name, "risk": chosen.risk, "beta": chosen.beta, **plain(chosen.certificate)} | _distance(chosen)
        )
    first = next(iter(run.choices.values())).utilities
    return {
        "scale": _common([c.utilities.scale for c in run.choices.values()], "not the same for all rules"),
        "risk": _common([c.risk for c in run.choices.values()], "not the same for all rules"),
        "draws": first.shape[0],
        "prompts": first.shape[2],
        "candidates": float((first.reference > 0).sum(1).mean()),
        "voters": first.shape[1],
        "voters_are_annotators": run.feedback is not None and len(run.feedback.annotators) == first.shape[1],
        "welfare": rows,
        "known": any(row["true_gain"] is not None for row in rows),
        "individuals": individuals,
        "best_for_worst_off": _worst_off(run, attribute),
        "certificates": certificates,
        "demands": [{"rule": name, **plain(d)} for name, chosen in run.choices.items() for d in chosen.demands],
    }


def agreement(run: Run) -> dict[str, Any]:
    """Return how alike the rules' lotteries are.

    `tv[a][b] = mean_prompt sum_candidate |p_a - p_b| / 2`; `same_top[a][b]` is the share of prompts on which both
    rules give their highest probability to the same candidate.
    """
    names, chosen = list(run.choices), list(run.choices.values())
    items = [c.utilities.item for c in chosen]
    if len(names) < 2 or any(not np.array_equal(np.asarray(items[0]), np.asarray(item)) for item in items):
        why = (
            "There is only one rule."
            if len(names) < 2
            else "The rules were applied to different prompts or candidates."
        )
        return {"rules": names, "tv": None, "same_top": None, "why_not": why}
    p = np.stack([c.lottery for c in chosen])
    top = p.argmax(-1)
    return {
        "rules": names,
        "prompts": p.shape[1],
        "tv": (np.abs(p[:, None] - p[None]).sum(-1) / 2).mean(-1).tolist(),
        "same_top": (top[:, None] == top[None]).mean(-1).tolist(),
        "why_not": None,
    }


def _voters(utilities: Utilities) -> tuple[str, ...]:
    return tuple(utilities.voters or ())


def _common(values: list[str], otherwise: str) -> str:
    return values[0] if len(set(values)) == 1 else f"{otherwise}: {'; '.join(dict.fromkeys(values))}"


def _true(truth: Utilities | None, chosen: Choice) -> Float[np.ndarray, "2 voter"] | None:
    """Return the simulated voters' own utility of the reference and of the lottery; None if it is not known."""
    if truth is None or not np.array_equal(np.asarray(truth.item), np.asarray(chosen.utilities.item)):
        return None
    return np.stack([truth.expected(p)[0] for p in (chosen.utilities.reference, chosen.lottery)])


def _true_groups(
    run: Run, groups: Groups, true: Float[np.ndarray, "2 voter"] | None, attribute: str | None
) -> dict[str, Float[np.ndarray, "2"]]:
    """Return the true welfare before and after of those groups for which it is known.

    Where voters are not the annotators (a pooled model has one voter), it is known of everyone together.
    """
    if true is None or run.truth is None:
        return {}
    own = group(_voters(run.truth), run.truth.mass, run.feedback, attribute).with_everyone()
    known = dict(zip(own.names, own.mean(true).T, strict=True))
    if len(run.truth.mass) == len(groups.mass):
        return known
    everyone = run.truth.mass @ true.T
    return {EVERYONE: everyone, **({groups.names[0]: everyone} if len(groups.names) == 1 else {})}


def _rows(
    rule: str,
    groups: Groups,
    before: Float[np.ndarray, "draw voter"],
    after: Float[np.ndarray, "draw voter"],
    true: dict[str, Float[np.ndarray, "2"]],
) -> list[dict[str, Any]]:
    low, high = groups.mean(before), groups.mean(after)
    rows = []
    for g, name in enumerate(groups.names):
        known = [float(x) for x in true[name]] if name in true else [None, None]
        rows.append(
            {
                "rule": rule,
                "group": name,
                "share": float(groups.share[g]),
                "voters": int(groups.member[g].sum()),
                "before": plain(estimate(low[:, g])),
                "after": plain(estimate(high[:, g])),
                "gain": plain(estimate(high[:, g] - low[:, g])),
                "probability_of_gain": float((high[:, g] > low[:, g]).mean()),
                "true_before": known[0],
                "true_after": known[1],
                "true_gain": None if known[0] is None or known[1] is None else known[1] - known[0],
            }
        )
    return rows


def _individuals(
    voters: tuple[str, ...],
    groups: Groups,
    gain: Float[np.ndarray, "draw voter"],
    true: Float[np.ndarray, " voter"] | None,
) -> dict[str, Any]:
    expected = gain.mean(0)
    tenth = -(-len(expected) // 10)
    return {
        "voters": len(expected),
        "losers": int((expected < 0).sum()),
        "share_losing": float((expected < 0).mean()),
        "sure_losers": int(((gain < 0).mean(0) >= 0.95).sum()),
        "median_gain": float(np.median(expected)),
        "worst_tenth": tenth,
        "worst_tenth_gain": float(np.sort(expected)[:tenth].mean()),
        "lowest_gain": float(expected.min()),
        "true_losers": None if true is None else int((true < 0).sum()),
        "name": list(voters),
        "group": list(groups.label),
        "gain": expected.tolist(),
        "true_gain": None if true is None else true.tolist(),
    }


def _distance(chosen: Choice) -> dict[str, float]:
    """Return how far the lottery went from the reference, mean over prompts: total variation, and nats of KL."""
    p, q = chosen.lottery, chosen.utilities.reference
    counts = p > 0
    ratio = np.log(np.where(counts, p, 1) / np.where(counts & (q > 0), q, 1))
    return {"tv_reference": float(np.abs(p - q).sum(1).mean() / 2), "kl_reference": float((p * ratio).sum(1).mean())}


def _worst_off(run: Run, attribute: str | None) -> dict[str, Any] | None:
    """Return which rule leaves the group that has least with most, and how sure that is.

    None if there is one rule or one group, or if rules were not applied to the same voters, scale and draws.
    """
    lowest, level = {}, {}
    for name, chosen in run.choices.items():
        utilities = chosen.utilities
        groups = group(_voters(utilities), utilities.mass, run.feedback, attribute)
        after = groups.mean(utilities.expected(chosen.lottery))
        worst = int(after.mean(0).argmin())
        lowest[name], level[name] = groups.names[worst], after[:, worst]
        if len(groups.names) < 2:
            return None
    same = {(c.utilities.shape, c.utilities.scale, _voters(c.utilities)) for c in run.choices.values()}
    if len(run.choices) < 2 or len(same) > 1:
        return None
    first, second = sorted(level, key=lambda name: -level[name].mean())[:2]
    return {
        "rule": first,
        "group": lowest[first],
        "welfare": plain(estimate(level[first])),
        "next_rule": second,
        "next_group": lowest[second],
        "next_welfare": plain(estimate(level[second])),
        "probability": float((level[first] > level[second]).mean()),
    }
