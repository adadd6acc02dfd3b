"""Findings against another package's checks of the same axioms, and against brute force."""

import itertools

import numpy as np
import pytest
from pref_voting import voting_methods as peers
from pref_voting.dominance_axioms import (
    has_condorcet_loser_violation,
    has_condorcet_winner_violation,
    has_pareto_dominance_violation,
    has_smith_violation,
)
from pref_voting.monotonicity_axioms import has_monotonicity_violation
from pref_voting.other_axioms import has_reversal_symmetry_violation
from pref_voting.profiles import Profile
from pref_voting.strategic_axioms import has_strategy_proofness_violation

from pluralign import choice
from pluralign.choice import axioms

METHODS = {
    choice.Borda(): peers.borda,
    choice.Plurality(): peers.plurality,
    choice.Copeland(): peers.copeland,
    choice.Minimax(): peers.minimax,
    choice.IRV(): peers.instant_runoff_put,
    choice.Condorcet(): peers.condorcet,
}


def better_away(rankings, method):
    """Whether voters of one opinion like all who win without them as much as all who win with them, and some better."""
    present, rankings = method(Profile(rankings)), [tuple(r) for r in rankings]
    for mine in set(rankings):
        rest = [r for r in rankings if r != mine]
        for stay in range(rankings.count(mine)):
            if not rest and not stay:
                continue
            absent = method(Profile([list(r) for r in rest + [mine] * stay]))
            pairs = [(mine.index(a), mine.index(p)) for a in absent for p in present]
            if all(a <= p for a, p in pairs) and any(a < p for a, p in pairs):
                return True
    return False


def torn(rankings, method):
    """Whether two parts of the electorate have winners in common who are not just those of the whole."""
    whole, every = set(method(Profile(rankings))), range(len(rankings))
    for size in range(1, len(rankings)):
        for part in itertools.combinations(every, size):
            one = set(method(Profile([rankings[v] for v in part])))
            two = set(method(Profile([rankings[v] for v in every if v not in part])))
            if one & two and one & two != whole:
                return True
    return False


ORACLES = {
    axioms.Pareto(): has_pareto_dominance_violation,
    axioms.CondorcetWinner(): has_condorcet_winner_violation,
    axioms.CondorcetLoser(): has_condorcet_loser_violation,
    axioms.Smith(): has_smith_violation,
    axioms.ReversalSymmetry(): has_reversal_symmetry_violation,
    axioms.Monotonicity(): has_monotonicity_violation,
    axioms.Reinforcement(): lambda p, m: torn(p.rankings, m),
    axioms.Participation(): lambda p, m: better_away(p.rankings, m),
    axioms.StrategyProofness(): lambda p, m: has_strategy_proofness_violation(p, m, set_preference="weak-dominance"),
}


def profiles(count, seed, voters, candidates):
    rng = np.random.default_rng(seed)
    every = list(itertools.permutations(range(candidates)))
    for _ in range(count):
        yield np.array([every[i] for i in rng.choice(len(every), voters, replace=False)])


BREAKING = [  # something that random profiles seldom break
    [[0, 1, 2], [2, 0, 1]],  # pareto, by who elects everyone
    [[2, 1, 3, 0], [1, 3, 0, 2], [0, 2, 1, 3], [0, 2, 1, 3]],  # participation, by copeland
    [[2, 1, 0], [2, 0, 1], [0, 1, 2]],  # reversal symmetry, by plurality
    [[0, 1, 2]] * 2 + [[1, 0, 2]] * 2 + [[2, 0, 1]] * 3,  # the condorcet loser, by plurality
    [
        [2, 1, 0],
        [1, 2, 0],
        [2, 0, 1],
        [2, 0, 1],
        [1, 0, 2],
        [1, 0, 2],
        [0, 2, 1],
        [0, 1, 2],
        [0, 1, 2],
    ],  # raised, by irv
]


@pytest.mark.parametrize("axiom", ORACLES, ids=lambda a: a.name)
def test_findings_are_those_of_pref_voting(axiom):
    seen = set()
    some = [*profiles(4, 1, 3, 4), *profiles(4, 2, 5, 3), *map(np.array, BREAKING)]
    if axiom.name == "reinforcement":
        some = some[:-1]  # it has too many parts
    for rankings in some:
        for rule, peer in METHODS.items():
            society = axioms.Society.of_rankings(rankings)
            judge = axioms.Judge(rule)
            found = axiom.search(judge, society, judge(society))
            expected = bool(ORACLES[axiom](Profile(rankings.tolist()), peer))
            assert (found.violation is not None) == expected, (rule.name, rankings.tolist(), str(found))
            seen.add(expected)
    assert seen == {False, True}


WITNESSES = {
    "borda": (choice.Borda(), peers.borda, ["condorcet-winner", "majority", "clones", "strategy-proofness"]),
    "plurality": (choice.Plurality(), peers.plurality, ["condorcet-loser", "clones", "reversal-symmetry"]),
    "irv": (choice.IRV(), peers.instant_runoff_put, ["monotonicity", "condorcet-winner", "participation"]),
    "minimax": (choice.Minimax(), peers.minimax, ["condorcet-loser", "smith", "participation", "clones"]),
    "copeland": (choice.Copeland(), peers.copeland, ["participation", "clones", "reinforcement"]),
    "schulze": (choice.Schulze(), peers.beat_path, ["participation", "reinforcement", "irrelevant-alternatives"]),
    "kemeny": (choice.Kemeny(), peers.kemeny_young, ["participation", "clones", "reinforcement"]),
    "ranked-pairs": (choice.RankedPairs(), peers.ranked_pairs, ["participation", "reinforcement"]),
    "black": (choice.Black(), peers.blacks, ["participation", "clones"]),
}


@pytest.mark.parametrize("name", WITNESSES)
def test_witnesses_hold_when_worked_out_again(name):
    """What the textbooks say is broken is found, and another package names the same winners before and after."""
    rule, peer, broken = WITNESSES[name]
    asked = [axiom for axiom in axioms.ALL if axiom.name in broken]
    rankings = [axioms.Society.of_rankings(r) for r in profiles(12, 1, 5, 3)]
    card = axioms.card(rule, [*rankings, *map(axioms.named, axioms.PROFILES)], asked, tries=60)
    assert set(card.broken) == set(broken)
    for found in card.findings.values():
        witness = found.violation
        for society, outcome in zip(
            (witness.society, *witness.others), (witness.outcome, *witness.outcomes), strict=True
        ):
            order = np.argsort(society.level, axis=1)
            assert (np.sort(society.level, axis=1) == np.arange(society.shape[1])).all()
            assert peer(Profile(order.tolist())) == np.flatnonzero(outcome.wins).tolist()


def test_a_witness_can_lose_nobody():
    """By brute force: without any voter, or any candidate, the violation is gone."""
    witness = axioms.CondorcetWinner().check(axioms.Judge(choice.Borda()), axioms.named("tennessee"))
    assert witness is None  # Nashville wins by both
    society = axioms.profile({(0, 1, 2, 3): 5, (1, 2, 0, 3): 4, (3, 0, 1, 2): 2})
    witness = axioms.CondorcetWinner().check(axioms.Judge(choice.Borda()), society)
    assert witness is not None and witness.society.shape[0] < 11
    order = np.argsort(witness.society.level, axis=1)
    voters, candidates = order.shape

    def broken(rows):
        prof = Profile(rows)
        return has_condorcet_winner_violation(prof, peers.borda)

    assert broken(order.tolist())
    assert not any(broken(np.delete(order, v, 0).tolist()) for v in range(voters) if voters > 1)
    for y in range(candidates):
        rows = [[c - (c > y) for c in row if c != y] for row in order.tolist()]
        assert not broken(rows)
