from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy.special import expit, softmax
from scipy.stats import chisquare

from pluralign import choice
from pluralign.errors import InputError
from pluralign.policy import DPO
from pluralign.policy.candidates import Candidates
from pluralign.policy.labels import FromPosterior, FromRule, FromVotes, Slates
from pluralign.policy.losses import ChiSquare, Distil, Logistic, LogRatio, Robust, Square
from pluralign.policy.reweigh import GroupRobust, MaxMin, State
from pluralign.types import Linear, Utilities
from tests.policy.conftest import make_choice
from tests.policy.tabular import at, community, everything, labelled, minimiser, texts, voting

rng = np.random.default_rng(0)
LINK = LogRatio()
TILT = rng.normal(size=(2, 4))
REFERENCE = np.array([[0.4, 0.3, 0.2, 0.1], [0.5, 0.3, 0.2, 0.0]])


def linear(draws=6, voters=3, prompts=2, candidates=3, groups=None, mass=None):
    phi, weights = rng.normal(size=(prompts, candidates, 4)), rng.normal(size=(draws, voters, 4))
    mass = np.full(voters, 1 / voters) if mass is None else mass
    reference = np.full((prompts, candidates), 1 / candidates)
    return Utilities(Linear(phi, weights, np.zeros((draws, voters))), mass, reference, groups=groups)


def test_slates_are_distinct_candidates_of_one_prompt_uniform_and_of_every_size():
    chosen = make_choice(TILT, reference=REFERENCE)
    candidates = Candidates.of(chosen, texts(chosen))
    assert candidates.rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, -1]]
    whole = candidates.draw(0, 0, 8, None)
    assert {tuple(row) for row in whole} == {(0, 1, 2, 3), (4, 5, 6, -1)}
    drawn = np.concatenate([candidates.draw(0, step, 20, 3) for step in range(60)])
    sets, counts = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    assert sets.tolist() == [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3], [4, 5, 6]]
    assert chisquare(counts, len(drawn) * np.array([1 / 8] * 4 + [1 / 2])).pvalue > 1e-3
    np.testing.assert_array_equal(candidates.draw(0, 5, 20, 3), drawn[100:120])
    assert candidates.draw(0, 0, 50, 9)[:, -1].max() <= 3  # no slate is longer than its prompt


def test_of_a_slate_labels_are_what_the_rule_says_of_its_candidates():
    chosen = make_choice(TILT, reference=REFERENCE)
    labels = labelled(DPO("x"), chosen)
    wanted = labels.wanted(Slates(np.array([[3, 0, 1], [6, 4, -1]]), np.full(2, -1)), 0.7, LINK)
    p, t = chosen.lottery, TILT
    assert wanted.wins[0, 0, 1, 0].item() == pytest.approx(expit(0.7 * (t[0, 3] - t[0, 0])))
    assert wanted.wins[1, 1, 0, 0].item() == pytest.approx(expit(0.7 * (t[1, 0] - t[1, 2])))
    np.testing.assert_allclose(wanted.lottery[0, :, 0], p[0, [3, 0, 1]] / p[0, [3, 0, 1]].sum())
    np.testing.assert_allclose(wanted.lottery[1, :, 0], [*(p[1, [2, 0]] / p[1, [2, 0]].sum()), 0])
    mass = p[1, [2, 0]].sum() / REFERENCE[1, [2, 0]].sum()
    assert wanted.share[1, 0].item() == pytest.approx(mass**0.7 / (1 + mass**0.7))
    np.testing.assert_allclose(wanted.reference, [REFERENCE[0, [3, 0, 1]], [0.2, 0.5, 0]])
    assert wanted.pairs.sum((1, 2)).tolist() == [3, 1]


def test_a_rule_that_decides_by_lot_asks_for_zeros():
    lottery = np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]])
    chosen = replace(make_choice(np.zeros((2, 4)), reference=REFERENCE), lottery=lottery, weights=None)
    labels = labelled(DPO("x"), chosen)
    wanted = labels.wanted(Slates(np.array([[0, 1], [1, 2], [5, 4]]), np.full(3, -1)), 1.0, LINK)
    np.testing.assert_allclose(wanted.lottery[..., 0], [[1, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(wanted.wins[:, 0, 1, 0], [1, 0.5, 1], atol=1e-10)
    assert wanted.share[1, 0].item() < 1e-10  # a slate of losers is to lose all it has


@pytest.mark.parametrize("risk", [choice.Mean(), choice.CVaR(0.3)], ids=str)
def test_posterior_labels_are_means_over_draws_of_the_rules_reward(risk):
    utilities = linear()
    chosen = choice.Nash().choose(replace(utilities, value=replace(utilities.value, offset=np.full((6, 3), 9.0))), risk)
    assert chosen.weights is not None
    labels = labelled(DPO("x", labels=FromPosterior()), chosen)
    wanted = labels.wanted(Slates(np.array([[0, 2], [4, 3]]), np.full(2, -1)), 0.05, LINK)
    reward = np.einsum("v,svxy->sxy", chosen.weights.sum(0), utilities.dense()) / chosen.beta
    for k, (x, a, b) in enumerate([(0, 0, 2), (1, 1, 0)]):
        expected = expit(0.05 * (reward[:, x, a] - reward[:, x, b])).mean()
        assert wanted.wins[k, 0, 1, 0].item() == pytest.approx(expected, abs=1e-9)
        weights = softmax(reward[:, x], axis=1)[:, [a, b]]
        lottery = (weights / weights.sum(1, keepdims=True)).mean(0)
        np.testing.assert_allclose(wanted.lottery[k, :, 0], lottery, atol=1e-9)
    rule = labelled(DPO("x"), chosen).wanted(Slates(np.array([[0, 2]]), np.array([-1])), 0.05, LINK)
    if risk == choice.Mean():  # caution about draws is the rule's alone
        assert abs(rule.wins[0, 0, 1, 0] - 0.5) > abs(wanted.wins[0, 0, 1, 0] - 0.5)  # what is uncertain is softer


def test_constraints_are_part_of_posterior_labels():
    """One draw: the posterior's labels are the rule's, demands included."""
    value = np.array([[1.0, 0, 0.3], [1, 0, 0.3], [0, 1, 0.5]])[None, :, None]
    utilities = Utilities(value, np.full(3, 1 / 3), np.full((1, 3), 1 / 3), groups=("a", "a", "b"))
    chosen = choice.Utilitarian().choose(utilities, beta=0.1, constraints=(choice.Floor(),))
    assert chosen.prices is not None and chosen.prices.sum() > 1e-3
    made = [labelled(DPO("x", labels=source), chosen) for source in (FromRule(), FromPosterior())]
    every = Slates(made[0].candidates.rows, np.array([-1]))
    rule, posterior = (m.wanted(every, 1.0, LINK).wins for m in made)
    np.testing.assert_allclose(posterior, rule, atol=1e-6)


VOTES = [  # first, second, ranks, annotator
    *[(0, 1, (0, 1), 0)] * 3,
    *[(1, 0, (0, 1), 1)] * 1,
    *[(0, 1, (0, 0), 1)] * 2,
    *[(2, 1, (0, -1), 2)] * 2,
]


def counted(labels, first, second):
    """Weighted share of comparisons of two candidates that the first won, from the ballots themselves."""
    won = total = 0.0
    for (a, b), label, weight in zip(labels.ballots.pair, labels.ballots.label, labels.ballots.weight, strict=True):
        if {a, b} == {first, second}:
            won, total = won + weight * (label if a == first else 1 - label), total + weight
    return won / total


def test_votes_are_taken_as_they_were_cast():
    chosen = make_choice(np.zeros((1, 3)))
    votes = voting(texts(chosen), VOTES, annotators=("ada", "bob", "eve"))
    train = DPO("x", labels=FromVotes(), anchor=0.0, beta=0.5)
    labels = labelled(train, chosen, votes)
    assert counted(labels, 0, 1) == pytest.approx((3 + 0 + 2 * 0.5) / 6)
    assert counted(labels, 2, 1) == 1
    batch = labels.draw(0, 3, 2000, None)
    assert batch.candidates.shape == (2000, 2)
    wanted = labels.wanted(batch, 0.5, LINK)
    pairs = (batch.candidates == [0, 1]).all(1)
    assert wanted.wins[pairs, 0, 1, 0].mean().item() == pytest.approx(0.8, abs=0.05)  # three won of five, two tied
    np.testing.assert_array_equal(labels.draw(0, 3, 2000, None).ballot, batch.ballot)


def test_votes_count_as_much_as_the_rule_says_their_annotators_do():
    """Weights [draw, voter] sum to .6, .3, .1 over masses of a third; the same votes, counted that often."""
    chosen = make_choice(np.zeros((1, 3)))
    utilities = Utilities(
        np.zeros((2, 3, 1, 3)), np.full(3, 1 / 3), chosen.utilities.reference, voters=("ada", "bob", "eve")
    )
    weights = np.array([[0.4, 0.1, 0.1], [0.2, 0.2, 0.0]])
    chosen = replace(chosen, utilities=utilities, weights=weights)
    votes = voting(texts(chosen), VOTES, annotators=("ada", "bob", "eve"))
    labels = labelled(DPO("x", labels=FromVotes(weigh="rule")), chosen, votes)
    assert counted(labels, 0, 1) == pytest.approx((3 * 0.6 + 2 * 0.3 * 0.5) / (3 * 0.6 + 3 * 0.3))
    assert labels.ballots.weight.sum() == pytest.approx(1)
    nobody = replace(chosen, weights=None)
    with pytest.raises(InputError, match="no multipliers to weigh votes by"):
        labelled(DPO("x", labels=FromVotes(weigh="rule")), nobody, votes)
    strangers = replace(chosen, utilities=replace(utilities, voters=("cluster 0", "cluster 1", "cluster 2")))
    with pytest.raises(InputError, match="annotator 'ada' is no voter of the choice"):
        labelled(DPO("x", labels=FromVotes(weigh="rule")), strangers, votes)


def test_only_comparisons_of_two_candidates_about_the_objective_count():
    chosen = make_choice(np.zeros((1, 3)))
    votes = voting(
        texts(chosen), [(0, 1, (0, 1), 0, 0), (1, 0, (0, 1), 0, 1), (2, 0, (0, 1), 0, 1)], objectives=("help", "harm")
    )
    labels = labelled(DPO("x", labels=FromVotes(objective="harm")), chosen, votes)
    assert labels.ballots.pair.tolist() == [[1, 0], [2, 0]]
    with pytest.raises(InputError, match=r"objective is 'style'; the feedback has \('help', 'harm'\)"):
        labelled(DPO("x", labels=FromVotes(objective="style")), chosen, votes)
    ranking = replace(
        votes.choices.where(np.array([True, False, False])), slate=[[0, 1, 2]], rank=[[0, 1, 2]], form=None
    )
    with pytest.raises(InputError, match="no recorded comparison is of two candidates"):
        labelled(DPO("x", labels=FromVotes()), chosen, replace(votes, choices=ranking))


def test_votes_of_a_voter_without_weight_change_nothing():
    chosen = make_choice(np.zeros((1, 3)))
    utilities = Utilities(
        np.zeros((1, 3, 1, 3)), [0.5, 0.5, 0], chosen.utilities.reference, voters=("ada", "bob", "eve")
    )
    chosen = replace(chosen, utilities=utilities, weights=np.array([[0.7, 0.3, 0.0]]))
    everybody, without = (
        labelled(DPO("x", labels=FromVotes(weigh="rule")), chosen, voting(texts(chosen), v, ("ada", "bob", "eve")))
        for v in (VOTES, VOTES[:-2])
    )
    one, other = everybody.draw(0, 1, 50, 2), without.draw(0, 1, 50, 2)
    np.testing.assert_array_equal(one.candidates, other.candidates)
    np.testing.assert_allclose(everybody.ballots.weight, without.ballots.weight)


def test_a_voter_without_mass_is_an_absent_voter_and_copies_of_members_change_nothing():
    value = rng.normal(size=(2, 2, 1, 3))
    both = community(value, [0.4, 0.6], groups=("a", "b"))
    ghost = community(
        np.concatenate([value, rng.normal(size=(2, 1, 1, 3))], 1), [0.4, 0.6, 0.0], groups=("a", "b", "c")
    )
    copied = community(value[:, [0, 1, 1]], [0.4, 0.1, 0.5], groups=("a", "b", "b"))
    for labels in (FromRule(), FromPosterior()):
        for reweigh in (GroupRobust(), MaxMin()):
            train = DPO("x", labels=labels, reweigh=reweigh)
            expected, *others = (labelled(train, chosen) for chosen in (both, ghost, copied))
            for other in others:
                assert other.groups == ("a", "b")
                for name in ("target", "mass", "utility"):
                    np.testing.assert_allclose(getattr(other, name), getattr(expected, name), atol=1e-12)


def test_the_order_of_slates_and_of_candidates_does_not_matter():
    train = DPO("x", slate=None)
    labels = labelled(train, make_choice(TILT, reference=REFERENCE))
    h = rng.normal(size=7)

    def total(order):
        slates = Slates(np.array(order), np.full(len(order), -1))
        table = torch.tensor(h, requires_grad=True)
        there = torch.from_numpy(slates.candidates >= 0)
        values = torch.where(there, table[torch.from_numpy(slates.candidates)], 0)
        loss, _ = train.objective(values, slates, labels, State.start(labels))
        loss.sum().backward()
        return loss.sum().item(), table.grad.numpy()

    one, other = total([[0, 1, 2, 3], [4, 5, 6, -1]]), total([[6, 4, 5, -1], [2, 0, 3, 1]])
    assert one[0] == pytest.approx(other[0], abs=1e-12)
    np.testing.assert_allclose(one[1], other[1], atol=1e-12)


def test_robust_over_groups_votes_loss_of_each_group_is_of_its_own_votes():
    value = np.zeros((1, 2, 1, 3))
    chosen = community(value, [0.5, 0.5])
    chosen = replace(chosen, utilities=replace(chosen.utilities, voters=("ada", "bob")))
    votes = voting(texts(chosen), VOTES[:6], annotators=("ada", "bob"))
    train = DPO("x", labels=FromVotes(), reweigh=GroupRobust(), anchor=0.0)
    labels = labelled(train, chosen, votes)
    slates, weight = everything(train, labels)
    table = torch.tensor([0.9, 0.0, 0.0], dtype=torch.float64)
    _, told = train.objective(at(table, slates), slates, labels, State.start(labels))
    q = expit(0.9)
    expected = {"ada": -np.log(q), "bob": -(np.log(1 - q) + 2 * (0.5 * np.log(q) + 0.5 * np.log(1 - q))) / 3}
    for name, value in expected.items():
        assert (told[f"loss/{name}"] * torch.from_numpy(weight)).sum().item() == pytest.approx(value, abs=1e-9)
    strangers = replace(votes, annotators=votes.annotators.map(lambda row: {"id": "x" + row["id"]}))
    with pytest.raises(InputError, match="annotator 'xada' is no voter"):
        labelled(train, chosen, strangers)


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(InputError, match="no lottery to distil"):
        DPO("x", loss=Distil(), labels=FromVotes())
    with pytest.raises(InputError, match="maxmin, which mixes utilities"):
        DPO("x", labels=FromVotes(), reweigh=MaxMin())
    with pytest.raises(InputError, match="slate is 1"):
        DPO("x", slate=1)
    lot = replace(make_choice(TILT), weights=None)
    with pytest.raises(InputError, match="no multipliers, so it is no reward"):
        labelled(DPO("x", labels=FromPosterior()), lot)
    for margin, words in ((np.zeros(7), "one number for each item"), (np.full(8, np.nan), "item 0 is nan")):
        with pytest.raises(InputError, match=words):
            labelled(DPO("x"), make_choice(TILT), margin=margin)


def test_minimising_over_votes_ends_at_the_share_of_wins():
    chosen = make_choice(np.zeros((1, 3)))
    train = DPO("x", labels=FromVotes(), anchor=0.0, beta=0.5)
    labels = labelled(train, chosen, voting(texts(chosen), VOTES[:6], annotators=("ada", "bob", "eve")))
    h = minimiser(train, labels)
    assert expit(0.5 * (h[0] - h[1])) == pytest.approx(4 / 6, abs=1e-6)


def test_all_of_it_is_read_from_plain_values():
    """As a config has it: kinds tell the members of unions apart, also where all else has defaults."""
    said = {
        "model": "x",
        "loss": {"kind": "logistic", "link": {"kind": "chi-square", "largest": 3.0}},
        "labels": {"kind": "posterior"},
        "reweigh": {"kind": "group-robust", "rate": 0.2},
        "slate": None,
    }
    read = TypeAdapter(DPO).validate_python(said)
    link = ChiSquare(3.0)
    assert read == DPO("x", loss=Logistic(link=link), labels=FromPosterior(), reweigh=GroupRobust(0.2), slate=None)
    for kind, component in (("square", Square()), ("robust", Robust()), ("distil", Distil())):
        assert TypeAdapter(DPO).validate_python({"model": "x", "loss": {"kind": kind}}).loss == component
    assert TypeAdapter(DPO).validate_python({"model": "x", "reweigh": {"kind": "maxmin"}}).reweigh == MaxMin()
