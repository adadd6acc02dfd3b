"""Simulation-based calibration of every population with every response, at small size.

    python benchmarks/calibration.py [--only Mixture sticks] [--replications 100] [--seed 1]

For each pair of the two: communities simulated from the prior, fitted by NUTS, the truth ranked among the draws
(`reward.calibrate`). `smallest p` is over all quantities, corrected for their number; under a right model it is below
0.05 in one row of twenty. The last rows are wrong on purpose, and must be found out.
"""

import argparse
import time
import warnings
from dataclasses import replace

import datasets
import numpy as np
from rich.console import Console
from rich.table import Table

from pluralign import reward
from pluralign.errors import ConvergenceWarning
from pluralign.types import Choices, Features, Feedback, Grades, Scale

ANNOTATORS, EACH, ITEMS = 4, 8, 8
RATER = reward.Rater(lapse=False)
PLAIN = reward.Response(
    reward.Davidson(tie_spread=False), grades=reward.OrderedLogit(leniency=False, stretch=False), rater=RATER
)
console = Console(width=110)


def design(form: str, objectives: tuple[str, ...] = ("overall",)) -> Feedback:
    """Return who judges what: comparisons with ties and strengths, rankings, grades or votes."""
    rng = np.random.default_rng(0)
    n = ANNOTATORS * EACH
    who, none = np.repeat(np.arange(ANNOTATORS), EACH), np.zeros(n, int)
    asked = np.arange(n) % len(objectives)
    slate = np.array([rng.permutation(ITEMS)[: 3 if form == "slates" else 2] for _ in range(n)])
    rank = np.array([[0, 1, 2] if i % 2 else [0, -1, -1] for i in range(n)])
    if form != "slates":
        rank = np.array([[[0, 1], [1, 0], [0, 0]][i % 3] for i in range(n)])
    strength = np.where(np.arange(n) % 3 == 2, 0, 1 + np.arange(n) % 2) if form == "pairs" else none
    choices = Choices(slate, rank, who, asked, none - 1, strength=strength)
    graded = form in ("grades", "votes")
    texts = {"prompt_id": [0] * ITEMS, "prompt": ["p"] * ITEMS, "response": [str(i) for i in range(ITEMS)]}
    people = {"id": list("abcd"), "weight": [1.0] * ANNOTATORS, "age": ["20", "30", "50", "70"], "team": list("xxyy")}
    return Feedback(
        items=datasets.Dataset.from_dict(texts),
        annotators=datasets.Dataset.from_dict(people),
        objectives=objectives,
        choices=Choices.none() if graded else choices,
        grades=Grades(rng.integers(0, ITEMS, n), none, none, who, asked, none - 1) if graded else Grades.none(),
        scales=(Scale("s", ("a", "b", "c"), "vote" if form == "votes" else "rating"),) if graded else (),
    )


RESPONSES = {
    "Davidson": ("pairs", PLAIN),
    "Davidson, ties of each": ("pairs", replace(PLAIN, pairs=reward.Davidson())),
    "Rao-Kupper": ("pairs", replace(PLAIN, pairs=reward.RaoKupper())),
    "Thurstone": ("pairs", replace(PLAIN, pairs=reward.Thurstone(tie_spread=False))),
    "strengths": ("pairs", replace(PLAIN, pairs=reward.GradedComparison(tie_spread=False))),
    "lapse": ("pairs", replace(PLAIN, rater=reward.Rater())),
    "temperature, sides": ("pairs", replace(PLAIN, rater=reward.Rater(False, True, True, True))),
    "Plackett-Luce": ("slates", PLAIN),
    "Plackett-Luce, ties": ("slates", replace(PLAIN, slates=reward.PlackettLuce(ties=2))),
    "grades": ("grades", PLAIN),
    "grades, leniency": ("grades", replace(PLAIN, grades=reward.OrderedLogit())),
    "votes": ("votes", PLAIN),
}
POPULATIONS = {
    "Pooled": reward.Pooled(),
    "Hierarchical": reward.Hierarchical(),
    "Mixture": reward.Mixture(2),
    "LowRank": reward.LowRank(1),
}
VARIANTS = {
    "groups, covariates": (reward.Hierarchical(group="team", covariates=("age",)), ("overall",)),
    "two objectives": (reward.Hierarchical(), ("one", "two")),
    "trade-offs": (reward.Hierarchical(overall="two"), ("one", "two")),
    "sparse centre": (reward.Hierarchical(centre="laplace"), ("overall",)),
    "items": (reward.Hierarchical(items=reward.ItemEffects()), ("overall",)),
    "item factors": (reward.LowRank(1, items=reward.ItemEffects(factors=1)), ("overall",)),
    "sticks": (reward.Mixture(3, sticks=True), ("overall",)),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose name contains one of these")
    parser.add_argument("--replications", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    x = np.random.default_rng(1).normal(size=(ITEMS, 1))
    phi = Features(x, np.zeros(ITEMS, int), ("f0",), np.zeros(1), np.eye(1))
    rows = {
        f"{name}, {said}": (replace(population, response=response), design(form), None)
        for name, population in POPULATIONS.items()
        for said, (form, response) in RESPONSES.items()
    }
    for name, (population, objectives) in VARIANTS.items():
        rows[name] = (replace(population, response=PLAIN), design("pairs", objectives), None)
    wide = reward.Pooled(scale=3.0, response=PLAIN)
    rows["wrong: tastes ten times as strong"] = (replace(wide, scale=0.3), design("pairs"), wide)
    table = Table(
        "model", "quantities", "smallest p", "calibrated", "time", title="Simulation-based calibration", box=None
    )
    inference = reward.NUTS(draws=300, warmup=200)
    for name, (population, votes, truth) in rows.items():
        if not any(part in name for part in args.only):
            continue
        start = time.perf_counter()
        found = reward.calibrate(
            population, votes, phi, inference=inference, replications=args.replications, truth=truth, seed=args.seed
        )
        worst = found.names[int(np.argmin(found.p))]
        verdict = "yes" if found.calibrated else f"no: {worst}"
        table.add_row(
            name, str(len(found.names)), f"{found.p.min():.3f}", verdict, f"{time.perf_counter() - start:.0f} s"
        )
        console.print(f"[dim]{name}: {found.p.min():.3f} {worst}[/dim]")
    console.print(table)


if __name__ == "__main__":
    main()
