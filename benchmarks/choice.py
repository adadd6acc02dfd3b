"""Voting rules and maximal lotteries beside pref_voting, in one run.

python benchmarks/choice.py              # ratios of time per profile, and lotteries where a linear program fails
python benchmarks/choice.py --agree 100000    # the same winners on so many random profiles (ten minutes and more)
"""

import argparse
import time
from collections import Counter

import numpy as np
from pref_voting import voting_methods as peers
from pref_voting.probabilistic_methods import maximal_lottery
from pref_voting.profiles import Profile
from pref_voting.weighted_majority_graphs import MarginGraph

from pluralign import choice
from pluralign.errors import InputError

FROM_MARGINS = {
    choice.Borda(): peers.borda,
    choice.Copeland(): peers.copeland,
    choice.Minimax(): peers.minimax,
    choice.Schulze(): peers.beat_path,
    choice.RankedPairs(): peers.ranked_pairs,
    choice.Kemeny(): peers.kemeny_young,
    choice.MaximalLottery(): maximal_lottery,
}
FROM_BALLOTS = {
    choice.Plurality(): peers.plurality,
    choice.Borda(): peers.borda,
    choice.Copeland(): peers.copeland,
    choice.Minimax(): peers.minimax,
    choice.Schulze(): peers.beat_path,
    choice.Kemeny(): peers.kemeny_young,
    choice.Black(): peers.blacks,
    choice.Condorcet(): peers.condorcet,
    choice.IRV(): peers.instant_runoff_put,
    choice.RankedPairs(): peers.ranked_pairs,
}


def graph(m: np.ndarray) -> MarginGraph:
    return MarginGraph(list(range(len(m))), [(int(a), int(b), float(m[a, b])) for a, b in np.argwhere(m > 0)])


def ratios(profiles: int, candidates: int, seed: int = 0) -> None:
    m = np.triu(np.random.default_rng(seed).normal(size=(profiles, candidates, candidates)), 1)
    m -= m.swapaxes(1, 2)
    print(f"{profiles:,} profiles of {candidates} candidates, from margins, no ties; microseconds per profile")
    print(f"{'rule':<18}{'pluralign':>10}{'pref_voting':>13}{'ratio':>9}  same on")
    for rule, method in FROM_MARGINS.items():
        spent = []
        for _ in range(7):
            start = time.perf_counter()
            ours = rule.from_margins(m)
            spent.append(time.perf_counter() - start)
        few = 2 if rule == choice.Kemeny() else 40
        graphs = [graph(x) for x in m[:few]]
        start = time.perf_counter()
        theirs = [method(g) for g in graphs]
        beside = (time.perf_counter() - start) / few
        if isinstance(theirs[0], dict):
            alike = sum(np.allclose(list(x.values()), y, atol=1e-6) for x, y in zip(theirs, ours, strict=False))
        else:
            alike = sum(sorted(x) == np.flatnonzero(y).tolist() for x, y in zip(theirs, ours, strict=False))
        own = min(spent) / profiles
        print(f"{rule.name:<18}{1e6 * own:>10.2f}{1e6 * beside:>13.1f}{beside / own:>9.0f}  {alike} of {few}")
        if isinstance(rule, choice.MaximalLottery):
            print(f"  largest gain of any candidate against ours: {np.einsum('nab,nb->na', m, ours).max():.1e}")


def failures() -> None:
    print("\nA circle of three with margins 3, 2, 1; its lottery is (1/3, 1/6, 1/2). In larger and smaller units:")
    m = np.array([[0, 3, -1], [-3, 0, 2], [1, -2, 0.0]])
    for unit in (1.0, 1e-9, 1e15, 1e300):
        theirs = np.array(list(maximal_lottery(graph(unit * m)).values()))
        ours = choice.MaximalLottery().from_margins(unit * m)
        told = [f"{p.round(3)}, someone gains {(m @ p).max():.2g}" for p in (theirs, ours)]
        print(f"  {unit:7.0e}  pref_voting {told[0]:<48} pluralign {told[1]}")
    try:
        choice.MaximalLottery().from_margins(np.where(m, np.copysign(np.inf, m), 0))
    except InputError as error:
        print(f"  infinite  pluralign raises: {str(error)[:60]}...")


def agree(profiles: int, seed: int = 0) -> None:
    """Compare winner sets; ranked-pairs only where its peer need not try more than 24 orders of equal margins."""
    rng = np.random.default_rng(seed)
    same, tied, asked = Counter(), Counter(), Counter()
    for i in range(profiles):
        candidates, voters = int(rng.choice([2, 3, 4, 5], p=[0.1, 0.45, 0.4, 0.05])), int(rng.integers(1, 13))
        likeness = rng.choice([0.0, 0.5, 2.0])
        rankings = np.argsort(rng.normal(size=(voters, candidates)) + likeness * rng.normal(size=candidates), axis=1)
        profile = Profile(rankings.tolist())
        for rule, method in FROM_BALLOTS.items():
            if rule == choice.RankedPairs() and ways(np.array(profile.margin_matrix)) > 24:
                continue
            ours, theirs = rule.winners(rankings).tolist(), sorted(method(profile))
            asked[rule.name] += 1
            same[rule.name] += ours == theirs
            tied[rule.name] += len(theirs) > 1
            if ours != theirs:
                print(f"{rule.name}: {ours}, pref_voting {theirs}: {rankings.tolist()}")
        if (i + 1) % 10_000 == 0:
            print(f"... {i + 1:,} profiles, {same.total():,} of {asked.total():,} winner sets the same", flush=True)
    print(f"{'rule':<18}{'profiles':>10}{'same':>10}{'with ties':>11}")
    for name in asked:
        print(f"{name:<18}{asked[name]:>10,}{same[name]:>10,}{tied[name]:>11,}")


def ways(m: np.ndarray) -> float:
    """Return how many orders of equal margins there are, as ranked_pairs of pref_voting counts them."""
    edges = m[(m > 0) | ((m == 0) & ~np.eye(len(m), dtype=bool))]
    return float(np.prod([np.prod(np.arange(1.0, n + 1)) for n in np.unique(edges, return_counts=True)[1]]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agree", type=int, default=0, metavar="PROFILES")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.agree:
        agree(given.agree, given.seed)
    else:
        ratios(2000, 8)
        failures()
