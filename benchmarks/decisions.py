"""How sure decisions are on real judgements: all candidates of a prompt, and slates of five of them.

    export PLURALIGN_DATA=...  PLURALIGN_ENCODER=...    (folders; the encoder may be a name on the hub)
    python benchmarks/decisions.py [llmfao answers sushi] [--posterior FOLDER]    (FOLDER keeps the fits for next time)
    python benchmarks/decisions.py --cost    (time a draw of each rule on a made table as large as llmfao; no data)

llmfao: 124 annotators, 13 prompts, up to 58 answers each; a hierarchical reward on sentence features and a worth of
each answer of its own (variational). answers: the same judgements, and a worth of each answer to each annotator,
nothing else (variational EM; ten minutes). sushi: rankings of ten kinds by 5,000 people, a worth of each kind to each.
"""

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from pluralign import artifacts, choice, features, feedback, reward
from pluralign.errors import ConvergenceWarning, PluralignError
from pluralign.report import decisions
from pluralign.types import Features, Linear, RewardPosterior, Utilities

RULES = (
    choice.Utilitarian(), choice.Nash(), choice.Maximin(), choice.KalaiSmorodinsky(), choice.Plurality(),
    choice.Borda(), choice.Copeland(), choice.Minimax(), choice.Schulze(), choice.IRV(), choice.Approval(),
    choice.MaximalLottery(), choice.RandomDictatorship(), choice.NashLottery(), choice.EgalitarianLottery(),
    choice.LCPO(),
)  # fmt: skip
PAIRS = (("utilitarian", "maximin"), ("borda", "copeland"), ("utilitarian", "borda"))


def posterior(name: str, keep: Path | None) -> tuple[RewardPosterior, Features]:
    """Fit, or read what was fitted before."""
    folder = None if keep is None else keep / name
    if folder is not None and (folder / "posterior").exists():
        return RewardPosterior.load(folder / "posterior"), artifacts.load(folder / "features", Features)
    votes = feedback.Known("preflib-sushi" if name == "sushi" else "llmfao").load()
    if name == "llmfao":
        encoder = os.environ.get("PLURALIGN_ENCODER", "sentence-transformers/all-MiniLM-L6-v2")
        phi, items = features.Encoder(encoder, dimensions=32).encode(votes), reward.ItemEffects()
        model = reward.Hierarchical(items=items)
    else:
        phi, model = features.Items().encode(votes), reward.Hierarchical(response=reward.PLAIN)
    inference = reward.VariationalEM(draws=200) if name == "answers" else reward.SVI(draws=200, steps=4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = model.fit(votes, phi, inference=inference, seed=0)
    if folder is not None:
        artifacts.save(phi, folder / "features")
        found.save(folder / "posterior")
    return found, phi


def slates(utilities: Utilities, size: int, many: int, seed: int = 0) -> Utilities:
    """Return random slates of each prompt's candidates as prompts of their own, equally likely under the reference."""
    rng = np.random.default_rng(seed)
    value, rows = utilities.dense(), []
    for x, reference in enumerate(utilities.reference):
        on = np.flatnonzero(reference > 0)
        rows += [value[:, :, x, rng.choice(on, size, replace=False)] for _ in range(many)]
    return replace(
        utilities, value=np.stack(rows, axis=2), reference=np.full((len(rows), size), 1 / size), item=None, prompts=None
    )


def cost(draws: int = 10, voters: int = 124, prompts: int = 13, candidates: int = 58, features: int = 32) -> None:
    """Print the CPU time of each rule for a draw, on utilities that are linear in random features."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1, 1, features)) + rng.normal(size=(1, voters, features))
    value = Linear(
        rng.normal(size=(prompts, candidates, features)),
        weights + 0.5 * rng.normal(size=(draws, voters, features)),
        np.zeros((draws, voters)),
    )
    utilities = Utilities(value, np.full(voters, 1 / voters), np.full((prompts, candidates), 1 / candidates))
    print(f"{utilities.shape} draws, voters, prompts, candidates; milliseconds a draw")
    for rule in (*RULES, choice.LeximaxPlurality(), choice.Leximin(), choice.NashBargaining()):
        clock = time.process_time()
        try:
            choice.decide(rule, utilities)
        except PluralignError as error:
            print(f"{rule.name:<22}{error}")
            continue
        print(f"{rule.name:<22}{1e3 * (time.process_time() - clock) / (draws + 1):>8.1f}", flush=True)


def told(title: str, utilities: Utilities) -> None:
    clock = time.perf_counter()
    found = choice.decisions(RULES, utilities, patience=60)
    spent = time.perf_counter() - clock
    print(f"\n{title}: {utilities.shape} draws, voters, prompts, candidates; {spent:.1f} s for {len(RULES)} rules")
    print(f"{'rule':<22}{'likeliest':>10}{'decided':>9}{'plug-in':>9}{'draws':>7}")
    for d in found.rules:
        numbers = (d.likeliest.mean(), d.decided.mean(), d.differs.mean(), d.ignorance.mean())
        print(f"{d.name:<22}" + "".join(f"{v:>{w}.2f}" for v, w in zip(numbers, (10, 9, 9, 7), strict=True)))
    by_name = {d.name: d for d in found.rules}
    for a, b in PAIRS:
        apart = by_name[a].apart(by_name[b]).mean(1)
        print(f"{a} and {b} differ: {apart.mean():.3f} ± {apart.std(ddof=1) / np.sqrt(len(apart)):.3f}")
    table = decisions(found)
    print(*(table["sentences"] if table else ()), sep="\n")
    print(*found.reasons.values(), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["llmfao", "sushi"])
    parser.add_argument("--posterior", type=Path)
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    if arguments.cost:
        return cost()
    for name in arguments.data:
        fit, phi = posterior(name, arguments.posterior)
        utilities = choice.utilities(fit, phi, items=name == "llmfao", draws=100)
        told(f"{name}, all candidates", utilities)
        told(f"{name}, slates of five", slates(utilities, 5, 20))


if __name__ == "__main__":
    main()
