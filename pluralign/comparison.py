"""Every rule on the posterior of one run, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pluralign import artifacts, choice, config, report
from pluralign.config import Rule
from pluralign.errors import InputError, PluralignError
from pluralign.pipeline import PATIENCE, choose, problem, split_prompts, voter_groups
from pluralign.types import Choice, Decisions, Features, Feedback, RewardPosterior, Utilities


def compare(
    run_folder: str | Path,
    rules: Literal["all", "experiment"] = "all",
    enough: float | None = None,
    out: str | Path | None = None,
) -> report.Comparison:
    """Return what every rule makes of a finished run's posterior, and how sure that is, as tables and a figure.

    Args:
        run_folder: of the run.
        rules: those of the experiment, or these and every rule that has no number to be set.
        enough: the data decide on a prompt if some candidate wins with at least this probability; None: as the run.
        out: folder for `compare.json`, `compare.svg` and `compare.png`; None: the run's.

    Raises:
        InputError: the folder holds no finished posterior, or `enough` is not in (0, 1].
    """
    folder = Path(run_folder)
    needed = ("experiment.yaml", *(f"{part}/{artifacts.MANIFEST}" for part in ("feedback", "features", "posterior")))
    if not all((folder / name).exists() for name in needed):
        raise InputError(
            f"{folder} holds no finished posterior; give the folder that `pluralign run` wrote, such as "
            "runs/quickstart, once its posterior is there (run it again, it goes on where it was)."
        )
    e = config.load(folder / "experiment.yaml")
    votes = artifacts.load(folder / "feedback", Feedback)
    posterior, phi = RewardPosterior.load(folder / "posterior"), artifacts.load(folder / "features", Features)
    seen, _ = split_prompts(votes, e.sampling.prompts, e.seed)
    utilities, constraints = problem(e, posterior, votes, phi, seen)
    compared = _every_rule(e.rules) if rules == "all" else e.rules
    groups = np.array(voter_groups(e, posterior, votes))
    gains, reasons, lotteries = [], {}, {}
    for rule in compared:
        try:
            chosen = choose(e, rule, utilities, constraints)
            gains += _gains(chosen, groups)
            lotteries[rule.name] = chosen.lottery
        except PluralignError as error:
            reasons[rule.name] = str(error)
    decided = choice.decisions(compared, utilities, e.enough if enough is None else enough, PATIENCE)
    tables = {
        "run": folder.resolve().name,
        "rules": [rule.name for rule in compared],
        "unit": utilities.scale,
        "risk": e.risk.words,
        "beta": e.beta,
        "gains": gains,
        "decisions": report.decisions(decided),
        "demands": _met(constraints, utilities, lotteries, decided),
        "reasons": reasons,
        "caveats": utilities.caveats,
    }
    return report.compared(tables, folder if out is None else out)


def _met(
    constraints: tuple[choice.AbstractConstraint, ...],
    utilities: Utilities,
    lotteries: Mapping[str, np.ndarray],
    decided: Decisions,
) -> list[dict[str, Any]]:
    """Return how surely every rule's lottery and decisions meet the experiment's demands, also rules that know none."""
    if not constraints:
        return []
    asked = {
        "lottery": lotteries,
        "plug-in decision": {d.name: d.plug_in for d in decided.rules},
        "decision in every draw": {d.name: d.shares for d in decided.rules},
    }
    rows = []
    for what, by_rule in asked.items():
        for rule, lottery in by_rule.items():
            found = choice.met(lottery, utilities, constraints)
            for demand, kept, chance in zip(found.names, found.kept, found.probability, strict=True):
                rows.append({"rule": rule, "demand": demand, "of": what, "kept": kept, "probability": chance})
    return rows


def _every_rule(known: Sequence[Rule]) -> list[Rule]:
    """Return these rules and all others that have no number to be set: no field but switches that are off."""
    (union, *_), have = get_args(Rule), {rule.name for rule in known}
    plain = [k for k in get_args(union) if all(f.name == "kind" or _off(f.default) for f in fields(k))]
    return [*known, *(rule for rule in (kind() for kind in plain) if rule.name not in have)]


def _off(default: Any) -> bool:
    return default is None or default is False


def _gains(chosen: Choice, groups: np.ndarray) -> list[dict[str, Any]]:
    """Return what a choice gives to each group, and to everyone if there are several."""
    several = [groups, np.full(len(groups), "everyone")] if len(set(groups)) > 1 else [groups]
    rows = []
    for labels in several:
        found = choice.gains(chosen, labels.tolist())
        for name, share, gain, chance in zip(found.names, found.share, found.gain, found.probability, strict=True):
            estimate = dict(zip(("mean", "low", "high"), gain, strict=True))
            row = {"rule": chosen.name, "group": name, "share": share, "gain": estimate, "probability_of_gain": chance}
            rows.append(row)
    return rows
