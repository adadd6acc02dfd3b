"""Rules that break one axiom each, which every check must see; and what a finding says."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import axioms
from pluralign.errors import InputError
from pluralign.types import Utilities


def named(*names):
    return [axiom for axiom in axioms.ALL if axiom.name in names]


@dataclass(frozen=True)
class Off(choice.AbstractVoting):
    """Approximately Borda, but for one thing."""

    wrong: str
    kind: Literal["off"] = "off"

    def count(self, profile):
        level, mass = profile.level, profile.mass
        score = -(level @ mass)
        match self.wrong:
            case "ignores the first voter":
                score = -(level[:, 1:] @ mass[1:]) if len(mass) > 1 else score
            case "favours candidate 0":
                score = score + np.eye(len(score))[0] / 10
            case "likes the worst":
                score = -score
            case "counts voters":
                score = score if len(mass) < 6 else -score
            case "likes to be early":  # the more like it best, the worse
                score = -np.abs((level == 0) @ mass - 0.4)
            case "punishes crowds":  # who comes decides
                score = -score if len(mass) % 2 else score
            case "counts candidates":
                score = score if len(score) % 2 else -score
            case "serves the far ends":
                score = (level == 0) @ mass + (level == len(level) - 1) @ mass
        return score

    def decide(self, counted):
        return counted >= counted.max(-1, keepdims=True) - 1e-9


@dataclass(frozen=True)
class OfUtility(choice.AbstractRule):
    """The best sum of squares: units and zeros matter."""

    kind: Literal["of-utility"] = "of-utility"

    def choose(self, utilities, risk=choice.Mean(), beta=0.1):  # noqa: B008
        square = np.einsum("svxy,v->xy", utilities.dense() ** 2, utilities.mass)
        chosen = choice.Utilitarian().choose(utilities, beta=beta)
        return replace(chosen, lottery=(square == square.max()).astype(float) / (square == square.max()).sum())


TWINS = {
    "pareto": Off("likes the worst"),
    "majority": Off("likes the worst"),
    "pairwise-majority": Off("likes the worst"),
    "condorcet-winner": Off("likes the worst"),
    "condorcet-loser": Off("likes the worst"),
    "smith": Off("likes the worst"),
    "anonymity": Off("ignores the first voter"),
    "neutrality": Off("favours candidate 0"),
    "homogeneity": Off("counts voters"),
    "reversal-symmetry": Off("serves the far ends"),
    "unit-invariance": OfUtility(),
    "zero-invariance": OfUtility(),
    "monotonicity": Off("likes to be early"),
    "participation": Off("punishes crowds"),
    "reinforcement": Off("punishes crowds"),
    "clones": Off("counts candidates"),
    "irrelevant-alternatives": Off("counts candidates"),
    "strategy-proofness": Off("likes the worst"),
    "population-proportionality": Off("likes the worst"),
    "core": Off("likes the worst"),
    "proportional-fairness": Off("likes the worst"),
}


@pytest.mark.parametrize("axiom", axioms.ALL, ids=lambda a: a.name)
def test_a_broken_rule_is_seen(axiom):
    rule = TWINS[axiom.name]
    witness = axioms.card(rule, 30, [axiom], tries=40, seed=7).findings[axiom.name].violation
    assert witness is not None and witness.words and witness.axiom == axiom.name
    again = axiom.search(axioms.Judge(rule), witness.society, axioms.Judge(rule)(witness.society))
    assert again.violation is not None


def test_every_axiom_has_a_twin():
    assert set(TWINS) == {axiom.name for axiom in axioms.ALL}


def test_none_exists_is_told_from_none_was_found():
    rankings = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    found = axioms.check(choice.Borda(), rankings, named("condorcet-winner", "anonymity", "homogeneity"))
    assert all(f.violation is None for f in found.values())
    assert found["condorcet-winner"].complete and found["anonymity"].complete and found["anonymity"].tried == 5
    assert not found["homogeneity"].complete and "2 tries" in str(found["homogeneity"])
    sampled = axioms.check(choice.Borda(), rankings, named("anonymity"), tries=4)["anonymity"]
    assert not sampled.complete and sampled.tried == 4


def test_what_a_violation_says():
    found = axioms.check(choice.Borda(), np.array([[0, 1, 2]] * 6 + [[1, 2, 0]] * 4), named("majority"))["majority"]
    witness = found.violation
    assert witness.words == "60 % like 0 best, yet 1 wins."
    assert witness.candidates == ("0", "1") and witness.society.shape == (5, 3)
    assert "3 x 0 > 1 > 2" in str(witness) and "-> 1 wins" in str(witness)
    lie = axioms.check(choice.Borda(), np.array([[0, 1, 2]] * 3 + [[1, 2, 0]] * 2), named("strategy-proofness"))
    text = str(lie["strategy-proofness"].violation)
    assert "say 0 > 2 > 1" in text and text.count("->") == 2


def test_utilities_are_judged_prompt_by_prompt():
    """The sole answers that Nash and the sum of utilities prefer, by hand; and a lottery, if beta says so."""
    value = np.array([[[0.1, 0.6], [0.5, 0.5]], [[1.0, 0.2], [0.5, 0.5]]])[None]  # [draw voter prompt candidate]
    u = Utilities(value, np.full(2, 0.5), np.full((2, 2), 0.5))
    found = axioms.check(choice.Nash(), u, named("unit-invariance", "zero-invariance"), tries=50)
    assert found["unit-invariance"].violation is None
    assert found["zero-invariance"].violation.words.startswith("prompt 0: 1 wins")
    judged = axioms.Judge(choice.Utilitarian(), beta=0.05)(axioms.Society.of_utilities(u)[0])
    np.testing.assert_allclose(judged.chance, np.exp([11, 8]) / np.exp([11, 8]).sum(), atol=1e-4)


def test_an_unknown_welfare_is_worked_out_from_its_expression():
    @dataclass(frozen=True)
    class Roots(choice.AbstractWelfare):
        kind: Literal["roots"] = "roots"

        def welfare(self, u, mass):
            import cvxpy as cp

            return cp.sqrt(u) @ mass

    def best(last):  # the other two have welfare 9 / 4 and 5 / 4
        society = axioms.Society.of_utility(np.array([[0.0, 4.0, last], [9.0, 1.0, 9.0]]), np.array([1.0, 3.0]))
        return axioms.Judge(Roots())(society).wins.tolist()

    assert best(1.0) == [False, False, True] and best(0.0) == [True, False, True]
    with pytest.raises(InputError, match="positive = True"):
        best(-1.0)


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(InputError, match="top"):
        axioms.check(choice.Approval(), np.array([[0, 1], [1, 0]]))
    with pytest.raises(InputError, match="finite"):
        axioms.check(choice.Borda(), np.array([[0.0, np.nan]]))
    with pytest.raises(InputError, match="mass"):
        axioms.Society.of_utility(np.eye(2), np.array([0.0, 0.0]))
    with pytest.raises(InputError, match="no votes"):
        axioms.check(choice.Borda(), [])
    with pytest.raises(InputError, match="dense"):
        axioms.check(choice.LCPO(), np.eye(3))


def test_the_table_shows_what_is_broken():
    cards = [
        axioms.card(r, [axioms.named("majority")], named("majority", "pareto")) for r in (choice.Borda(), choice.IRV())
    ]
    assert axioms.table(cards).splitlines()[2:] == ["| pareto | . | . |", "| majority | broken | . |"]
