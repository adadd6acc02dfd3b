"""Whether intervals hold the truth as often as they say, and who answers badly is found, over many communities.

    python benchmarks/recovery.py [coverage diverse membership raters] [--communities 100]

`coverage`: annotators with tastes, temperatures and favourite sides of their own, by NUTS; the share of truths inside
the central 50 and 90 % intervals, with a standard error over communities. Communities are drawn from the prior, over
which a posterior covers as often as it says. `diverse`: the same where all communities differ within more than the
prior expects, of which nothing is promised. `membership`: two kinds of people, who is of which; how often annotators
are of the kind that they were given a probability of. `raters`: the simulator's spammers, found by the posterior
(random answers more often than not; always one side) and by `feedback.suspects`.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import datasets
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from pluralign import features, feedback, reward
from pluralign.errors import ConvergenceWarning
from pluralign.reward.together import fit_together
from pluralign.types import Choices, Features, Feedback, Grades, RewardPosterior

ITEMS, PEOPLE = 30, 16
NUTS = reward.NUTS(draws=200, warmup=250)
console = Console(width=110)


def compared(rng, weights, each: int, temperature=1.0, position=0.0) -> tuple[Feedback, Features]:
    """Return Bradley-Terry comparisons of random items by people with these weights `[annotator feature]`.

    Differences of features have length 1 (root mean square), so weights are in logits, as the priors are.
    """
    people, width = weights.shape
    x = rng.normal(size=(ITEMS, width))
    who = np.repeat(np.arange(people), each)
    first = rng.integers(0, ITEMS, len(who))
    second = (first + rng.integers(1, ITEMS, len(who))) % ITEMS
    x /= np.sqrt(((x[first] - x[second]) ** 2).sum(1).mean())
    eta = ((x[first] - x[second]) * weights[who]).sum(1) / np.broadcast_to(temperature, people)[who]
    won = rng.random(len(who)) < expit(eta + np.broadcast_to(position, people)[who])
    none = np.zeros(len(who), int)
    texts = {"prompt_id": [0] * ITEMS, "prompt": ["p"] * ITEMS, "response": [str(i) for i in range(ITEMS)]}
    table = {"id": [f"a{a}" for a in range(people)], "weight": [1.0] * people}
    choices = Choices(np.stack([first, second], 1), np.stack([~won, won], 1).astype(int), who, none, none - 1)
    votes = Feedback(
        items=datasets.Dataset.from_dict(texts),
        annotators=datasets.Dataset.from_dict(table),
        objectives=("overall",),
        choices=choices,
        grades=Grades.none(),
    )
    names = tuple(f"f{f}" for f in range(width))
    return votes, Features(x, np.zeros(ITEMS, int), names, np.zeros(width), np.eye(width))


def fitted(population, communities, inference: reward.AbstractInference = NUTS) -> Iterator[RewardPosterior]:
    """Yield the posterior of each community; twenty-five at a time are one run."""
    for start in range(0, len(communities), 25):
        votes, phi = zip(*communities[start : start + 25], strict=True)
        posteriors = fit_together(population, votes, phi, inference=inference, seed=start)
        fit = posteriors[0].fit
        console.print(
            f"[dim]{fit.method}: R-hat {max(fit.rhat.values(), default=1):.2f}, {fit.divergences} divergent[/dim]"
        )
        yield from posteriors


def from_prior(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the people of a community as the priors of `Hierarchical` and `Rater` have them."""
    about = lambda median, *shape: median * np.exp(0.8 * rng.normal(size=shape))  # noqa: E731
    return {
        "weights": about(1) * rng.normal(size=2) + about(0.5, 2) * rng.normal(size=(PEOPLE, 2)),
        "temperature": np.exp(about(0.3) * rng.normal(size=PEOPLE)),
        "position": 0.5 * rng.normal() + about(0.25) * rng.normal(size=PEOPLE),
    }


def diverse(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return people whose spreads all exceed the prior's medians, by a third to more than twice."""
    return {
        "weights": 2 * rng.normal(size=2) + 1.2 * rng.normal(size=(PEOPLE, 2)),
        "temperature": np.exp(0.4 * rng.normal(size=PEOPLE)),
        "position": 0.3 + 0.4 * rng.normal(size=PEOPLE),
    }


def coverage(count: int, community: Callable = from_prior) -> None:
    """Print the share of truths inside their intervals."""
    rng = np.random.default_rng(0)
    truths = [community(rng) for _ in range(count)]
    communities = [compared(rng, each=40, **truth) for truth in truths]
    rater = reward.Rater(lapse=False, temperature=True, position_spread=True)
    population = reward.Hierarchical(response=reward.Response(rater=rater))
    inside: dict[str, list[list[float]]] = {}
    for truth, posterior in zip(truths, fitted(population, communities), strict=True):
        draws = {"weights": posterior.weights[:, :, 0], **posterior.rater}
        for name, value in truth.items():
            rank = (draws[name] < value).mean(0)
            inside.setdefault(name, []).append([float((np.abs(rank - 0.5) < level / 2).mean()) for level in (0.5, 0.9)])
    title = f"{count} communities of {PEOPLE}, {community.__name__}"
    table = Table("", "inside 50 %", "inside 90 %", title=title, box=None)
    for name, shares in inside.items():
        mean, error = np.mean(shares, 0), np.std(shares, 0, ddof=1) / np.sqrt(count)
        table.add_row(name, *(f"{m:.1%} ± {e:.1%}" for m, e in zip(mean, error, strict=True)))
    console.print(table, "")


def membership(count: int) -> None:
    """Print how often annotators are of the kind that they are given a probability of."""
    rng = np.random.default_rng(1)
    kinds, communities, truths = np.array([[2.0, 0.0], [0.0, 1.6]]), [], []
    for _ in range(count):
        kind = (rng.random(24) < 0.35).astype(int)
        communities.append(compared(rng, kinds[kind], 15))
        truths.append(kind)
    said, was, rank = [], [], []
    for kind, posterior in zip(truths, fitted(reward.Mixture(2, response=reward.PLAIN), communities), strict=True):
        centre = posterior.weights[:, :, 0].mean(0)
        straight = np.abs(centre - kinds).sum() <= np.abs(centre[::-1] - kinds).sum()
        said.append(posterior.membership[:, int(straight)])
        was.append(kind)
        draws = posterior.weights[:, :: 1 if straight else -1, 0]
        rank.append((draws < kinds).mean(0).ravel())
    p, truth = np.concatenate(said), np.concatenate(was)
    bins = np.minimum((p * 5).astype(int), 4)
    table = Table("given probability", "annotators", "of that kind", title=f"{count} communities of 24", box=None)
    for b in range(5):
        mine = bins == b
        error = np.sqrt(truth[mine].mean() * (1 - truth[mine].mean()) / mine.sum())
        table.add_row(f"{p[mine].mean():.2f}", str(mine.sum()), f"{truth[mine].mean():.2f} ± {error:.2f}")
    off = np.abs(np.array(rank) - 0.5)
    console.print(table)
    shares = ", ".join(f"{(off < level / 2).mean():.1%} inside {level:.0%}" for level in (0.5, 0.9))
    console.print(f"weights of the kinds: {shares}\n")


STYLES = {"warmth": ("dear", "lovely"), "detail": ("exactly", "measured"), "caution": ("careful", "risk")}


def raters(count: int) -> None:
    """Print the precision and recall with which the simulator's spammers are found."""
    behaviours = {
        "answer at random": (feedback.AtRandom(share=0.15), "careless"),
        "always the first": (feedback.AlwaysFirst(share=0.15), "straight"),
        "the wrong way round": (feedback.Flip(share=0.15), "opposite"),
    }
    groups = (
        feedback.Group("one", 24, {"warmth": 1.2, "detail": -0.5}, item_spread=0.3),
        feedback.Group("two", 16, {"detail": 1.0, "caution": 0.8}, item_spread=0.3),
    )
    rater = reward.Rater(lapse=True, position=True, position_spread=True)
    population = reward.Hierarchical(response=reward.Response(rater=rater))
    table = Table("who", "by", "there were", "found", "precision", "recall", box=None)
    for name, (behaviour, reason) in behaviours.items():
        found: dict[str, list[np.ndarray]] = {"posterior": [], "suspects": []}
        truth, communities = [], []
        for seed in range(count):
            votes = feedback.Community(
                groups,
                STYLES,
                prompts=20,
                candidates=5,
                judgements=40,
                careless=0.0,
                behaviours=(behaviour,),
                seed=seed,
            ).load()
            communities.append((votes, features.Lexicon(STYLES).encode(votes)))
        svi = reward.SVI(steps=1500, draws=300)
        for (votes, _), p in zip(communities, fitted(population, communities, svi), strict=True):
            # One who always takes the first has a bonus of its side that no utility outweighs.
            side = (p.rater["position"] > 2).mean(0) > 0.5
            found["posterior"].append(side if reason == "straight" else (p.rater["lapse"] > 0.5).mean(0) > 0.5)
            flagged = np.zeros(len(votes.annotators), bool)
            flagged[[a for s in feedback.describe(votes).suspects if s.reason == reason for a in s.annotators]] = True
            found["suspects"].append(flagged)
            truth.append(np.isin(np.arange(len(flagged)), votes.provenance["behaviours"][0]["annotators"]))
        bad = np.concatenate(truth)
        for by, parts in found.items():
            hit = np.concatenate(parts)
            both = (hit & bad).sum()
            shares = [f"{both / n:.0%}" if n else "-" for n in (hit.sum(), bad.sum())]
            table.add_row(name, by, f"{bad.sum()} of {len(bad)}", str(hit.sum()), *shares)
    console.print(table)


TASKS = {
    "coverage": coverage,
    "diverse": partial(coverage, community=diverse),
    "membership": membership,
    "raters": raters,
}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), choices=[*TASKS, []])
    parser.add_argument("--communities", type=int, default=100)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # short chains, and SVI on purpose
    for task in args.tasks:
        start = time.perf_counter()
        TASKS[task](args.communities)
        console.print(f"[dim]{time.perf_counter() - start:.0f} s[/dim]\n")


if __name__ == "__main__":
    main()
