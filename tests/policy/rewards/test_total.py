"""Rewards of texts, on tables small enough to work out what they must be."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from scipy.special import softmax

from pluralign import choice
from pluralign.choice.ballots import electorates
from pluralign.errors import InputError, TrainError
from pluralign.policy.rewards import Rewards, Term
from pluralign.policy.rewards.duels import AgainstLottery, AgainstReference, AgainstWinner, Ballots, SelfPlay
from pluralign.types import Features, Linear, LinearReward, Utilities
from tests.policy.conftest import make_feedback

PROMPTS = ("ask one", "ask two", "ask three")
NAMES = tuple("abcd")


class Table:
    """A feature map that looks texts up, and keeps what it was asked."""

    def __init__(self, phi):
        self.phi = phi
        self.asked = []

    def encode_texts(self, prompts, responses, like):
        self.asked += list(zip(prompts, responses, strict=True))
        return np.array([self.phi[r] for r in responses])


def problem(seed=0, groups=None, draws=5, voters=4, features=3, reference=None):
    """Feedback, features and utilities of three prompts with four candidates each."""
    rng = np.random.default_rng(seed)
    votes = make_feedback(PROMPTS, [[f"{x[4:]} {name}" for name in NAMES] for x in PROMPTS])
    n = len(votes.items)
    phi = Features(
        rng.normal(size=(n, features)), votes.prompt_id, tuple(map(str, range(features))),
        np.zeros(features), np.eye(features),
    )  # fmt: skip
    weights = rng.normal(size=(draws, voters, features))
    utilities = Utilities(
        Linear(phi.phi.reshape(3, 4, features), weights, rng.normal(size=(draws, voters))),
        rng.dirichlet(np.full(voters, 5.0)),
        rng.dirichlet(np.full(4, 3.0), size=3) if reference is None else reference,
        groups=groups,
    )
    return votes, phi, utilities


def texts(votes):
    return list(votes.items["prompt"]), list(votes.items["response"])


def orders(rankings, mass, reference=None):
    """One prompt whose features are the candidates themselves, so that any utilities are linear in them."""
    value = -np.argsort(np.array(rankings), axis=1).astype(float)
    size = value.shape[1]
    votes = make_feedback(["who"], [list(NAMES[:size])])
    phi = Features(np.eye(size), votes.prompt_id, NAMES[:size], np.zeros(size), np.eye(size))
    reference = np.full((1, size), 1 / size) if reference is None else np.asarray(reference)[None]
    return votes, phi, Utilities(Linear(np.eye(size)[None], value[None], np.zeros((1, len(value)))), mass, reference)


JACKPOT = orders([[0, 1, 2], [2, 0, 1]], [0.4, 0.6])  # 2 x (R > G > B), 3 x (B > R > G): Maura-Rivero et al. (2025)
NOTHING = Table({})


@pytest.mark.parametrize("rule", [choice.Utilitarian(), choice.Maximin(), choice.Nash(), choice.LCPO()], ids=str)
def test_the_optimum_of_a_rules_reward_is_its_lottery(rule):
    votes, phi, utilities = problem(1)
    utilities = choice.rescale(utilities, choice.StdScale())
    chosen = rule.choose(utilities, beta=0.3)
    scored = Rewards.of(chosen, votes, phi, NOTHING)(*texts(votes))
    found = softmax(np.log(utilities.reference) + scored.total.reshape(3, 4) / 0.3, -1)
    np.testing.assert_allclose(found, chosen.lottery, atol=1e-5)
    assert np.abs(utilities.reference - chosen.lottery).max() > 0.05


@pytest.mark.parametrize("caution", [choice.LowerBound(1.5), choice.LowerTail(0.3)], ids=str)
def test_caution_is_measured_from_what_the_reference_writes_on_that_prompt(caution):
    votes, phi, utilities = problem(2)
    chosen = choice.cautious(choice.Utilitarian().choose(utilities, beta=0.3), caution)
    rewards = Rewards.of(chosen, votes, phi, NOTHING)
    prompts, responses = texts(votes)
    turned = np.random.default_rng(0).permutation(len(prompts))
    total = np.empty(len(prompts))
    total[turned] = rewards([prompts[i] for i in turned], [responses[i] for i in turned]).total
    found = softmax(np.log(utilities.reference) + total.reshape(3, 4) / 0.3, -1)
    np.testing.assert_allclose(found, chosen.lottery, atol=1e-9)
    from_origin = chosen.reward.score(phi.phi).reshape(3, 4)  # what is unsure of a whole prompt would count too
    assert np.abs(softmax(np.log(utilities.reference) + from_origin / 0.3, -1) - chosen.lottery).max() > 1e-3
    assert rewards.caveats == ()


def test_caution_on_other_prompts():
    votes, phi, utilities = problem(3)
    chosen = choice.cautious(choice.Utilitarian().choose(utilities, beta=0.3), choice.LowerBound(1.0))
    words = {f"new {k}": row for k, row in enumerate(np.random.default_rng(1).normal(size=(4, 3)))}
    rewards = Rewards.of(chosen, votes, phi, Table(words))
    asked, said = ["new"] * 3, [*words][:3]
    before = rewards(asked, said).total
    values = (np.array([words[w] for w in said]) - chosen.reward.origin) @ chosen.reward.weights.T
    np.testing.assert_allclose(before, values.mean(1) - values.std(1))
    assert len(rewards.caveats) == 1 and "learn" in rewards.caveats[0]
    rewards.learn(["new", "new"], ["new 0", "new 3"])
    centre = (words["new 0"] + words["new 3"]) / 2
    values = (np.array([words[w] for w in said]) - centre) @ chosen.reward.weights.T
    np.testing.assert_allclose(rewards(asked, said).total, values.mean(1) - values.std(1))


def test_margins_are_those_of_the_ballots():
    _, _, utilities = problem(4, draws=7, voters=5)
    utilities = replace(utilities, mass=np.array([0.4, 0.3, 0.2, 0.1, 0.0]))
    for x, (on, profile) in enumerate(electorates(utilities)):
        phi = utilities.value.phi[x, on]
        np.testing.assert_allclose(Ballots.of(utilities).margins(phi, phi), profile.margins(), atol=1e-12)
    few, whole = Ballots.of(utilities), np.random.default_rng(0).normal(size=(6, 3))
    expected = few.margins(whole[:4], whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pluralign.policy.rewards.duels.CHUNK", 50)  # two ballots at a time
        np.testing.assert_allclose(few.margins(whole[:4], whole), expected, atol=1e-12)
    np.testing.assert_allclose(expected[:, :4], -expected[:, :4].T)


@pytest.mark.parametrize("tau", [0.5, 0.1, 0.05])
def test_the_maximal_lottery_is_the_best_response_to_itself(tau):
    """Regularised Nash of the jackpot population (Munos et al. 2023); numbers of the reference."""
    expected = {0.5: (0.3955, 0.2148, 0.3897), 0.1: (0.30571, 0.0513, 0.643), 0.05: (0.14558, 0.02614, 0.82827)}[tau]
    votes, phi, utilities = JACKPOT
    chosen = choice.MaximalLottery().choose(utilities, beta=tau)
    total = Rewards.of(chosen, votes, phi, NOTHING, opponents=AgainstLottery())(*texts(votes)).total
    np.testing.assert_allclose(softmax(total / tau), expected, atol=6e-5)


def test_self_play_settles_at_the_maximal_lottery():
    votes, phi, utilities = JACKPOT
    chosen, tau = choice.MaximalLottery().choose(utilities, beta=0.5), 0.5
    rewards, n, log = Rewards.of(chosen, votes, phi, NOTHING), 600, np.zeros(3)
    for _ in range(25):  # what a policy that writes many responses would do, by small steps
        counts = np.floor(softmax(log) * n).astype(int) + 1
        written = np.repeat(NAMES[:3], counts).tolist()
        scored = rewards(["who"] * len(written), written)
        reward = np.array([scored.total[written.index(name)] for name in NAMES[:3]])
        log += 0.3 * (reward / tau - log)
    np.testing.assert_allclose(softmax(log), chosen.lottery[0], atol=3e-3)
    assert abs(scored.total.mean()) < 1e-12  # whoever wins, others lose as much
    np.testing.assert_allclose(scored.parts["win_rate"][[0, -1]], [(0.5 + 1 + 0.4) / 3, (0.6 + 0.6 + 0.5) / 3])


def test_self_play_leaves_the_response_itself_out():
    votes, phi, utilities = JACKPOT
    rewards = Rewards.of(choice.MaximalLottery().choose(utilities), votes, phi, NOTHING)
    np.testing.assert_allclose(rewards(["who"] * 3, ["a", "b", "a"]).total, [1 / 4, -1 / 2, 1 / 4])
    with pytest.raises(InputError, match="two responses"):
        rewards(["who"], ["a"])


def test_borda_is_a_win_rate_against_the_reference():
    reference = np.array([0.5, 0.2, 0.3])
    votes, phi, utilities = orders([[0, 1, 2], [2, 0, 1]], [0.4, 0.6], reference)
    chosen = choice.Borda().choose(utilities, beta=0.2)
    scored = Rewards.of(chosen, votes, phi, NOTHING)(*texts(votes))
    prefer = np.array([[0.5, 1, 0.4], [0, 0.5, 0.4], [0.6, 0.6, 0.5]])
    np.testing.assert_allclose(scored.parts["win_rate"], prefer @ reference)
    np.testing.assert_allclose(scored.total, prefer @ reference - 0.5)


@pytest.mark.parametrize("seed", [5, 6])
def test_against_the_winner_the_optimum_is_bordas_lottery(seed):
    votes, phi, utilities = problem(seed)
    chosen = choice.Borda().choose(utilities, beta=0.25)
    scored = Rewards.of(chosen, votes, phi, NOTHING, opponents=AgainstWinner())(*texts(votes))
    found = softmax(np.log(utilities.reference) + scored.total.reshape(3, 4) / 0.25, -1)
    np.testing.assert_allclose(found, chosen.lottery, atol=1e-12)
    even = choice.Borda().choose(replace(utilities, reference=np.full((3, 4), 0.25)))
    soft = Rewards.of(even, votes, phi, NOTHING)(*texts(votes)).total.reshape(3, 4)
    np.testing.assert_array_equal(soft.argmax(1), even.lottery.argmax(1))


def test_a_new_response_wins_if_it_beats_the_candidates():
    votes, phi, utilities = problem(7)
    chosen = choice.Borda().choose(utilities)
    mean = utilities.value.weights.mean((0, 1))
    words = Table({"dull": -100 * mean, "grand": np.zeros(3)})
    duels = Ballots.of(utilities).margins(utilities.value.phi[0], utilities.value.phi[0]).sum(1)
    best = NAMES[int(duels.argmax())]
    rewards = Rewards.of(chosen, votes, phi, words, opponents=AgainstWinner())
    near = Table({"near": utilities.value.phi[0, duels.argmax()] * (1 + 1e-15)})
    np.testing.assert_array_equal(rewards([PROMPTS[0]] * 2, ["dull", f"one {best}"]).total, [0, 1])
    again = Rewards.of(chosen, votes, phi, near, opponents=AgainstWinner())
    np.testing.assert_array_equal(again([PROMPTS[0]], ["near"]).total, [1])


def test_opponents_that_nobody_told():
    votes, phi, utilities = problem(8)
    rewards = Rewards.of(choice.Borda().choose(utilities), votes, phi, Table({"x": np.ones(3), "y": -np.ones(3)}))
    with pytest.raises(InputError, match=r"Rewards\.learn"):
        rewards(["elsewhere"], ["x"])
    rewards.learn(["elsewhere"], ["y"])
    m = np.sign(utilities.value.weights.sum(-1)).mean(0) @ utilities.mass
    np.testing.assert_allclose(rewards(["elsewhere", "elsewhere"], ["x", "y"]).total, [m / 2, 0])
    lottery = Rewards.of(
        choice.MaximalLottery().choose(utilities), votes, phi, rewards._texts, opponents=AgainstLottery()
    )
    lottery.learn(["elsewhere"], ["y"])
    with pytest.raises(InputError, match="did not decide"):
        lottery(["elsewhere"], ["x"])


def test_groups_are_told_by_mass():
    votes, phi, utilities = problem(9, groups=("old", "young", "old", "gone"))
    utilities = replace(utilities, mass=np.array([0.2, 0.5, 0.3, 0.0]))
    chosen = choice.Utilitarian().choose(utilities)
    scored = Rewards.of(chosen, votes, phi, NOTHING)(*texts(votes))
    value = utilities.dense().mean(0).reshape(4, -1)
    np.testing.assert_allclose(scored.parts["group/old"], (0.2 * value[0] + 0.3 * value[2]) / 0.5)
    np.testing.assert_allclose(scored.parts["group/young"], value[1])
    assert "group/gone" not in scored.parts
    alone = Rewards.of(chosen := choice.Utilitarian().choose(replace(utilities, groups=None)), votes, phi, NOTHING)
    assert {n for n in alone(*texts(votes)).parts if "/" in n} == {"group/voter 0", "group/voter 1", "group/voter 2"}
    assert alone(*texts(votes)).means()["group/voter 1"] == pytest.approx(value[1].mean())
    many = replace(
        utilities, groups=None, voters=None, mass=np.full(13, 1 / 13),
        value=Linear(utilities.value.phi, np.ones((2, 13, 3)), np.zeros((2, 13))),
    )  # fmt: skip
    told = Rewards.of(choice.Utilitarian().choose(many), votes, phi, NOTHING)(*texts(votes)).parts
    np.testing.assert_allclose(told["group/everyone"], phi.phi.sum(1), rtol=1e-6)


def test_texts_are_read_once_and_candidates_never():
    votes, phi, utilities = problem(10)
    words = Table({"new": np.ones(3), "other": np.zeros(3)})
    rewards = Rewards.of(choice.Utilitarian().choose(utilities), votes, phi, words)
    prompts = [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    total = rewards(prompts, ["new", "one b", "new", "new"]).total
    assert words.asked == [(PROMPTS[0], "new"), (PROMPTS[1], "new")]
    assert total[0] == total[3]
    assert rewards([], []).total.shape == (0,)
    with pytest.raises(InputError, match="one prompt per response"):
        rewards(prompts, ["new"])


def lengths(prompts, responses):
    return [float(len(r)) for r in responses]


def test_terms_add_up():
    votes, phi, utilities = problem(11)
    chosen, objective = choice.Utilitarian().choose(utilities), problem(12)[2]
    terms = (Term("length", lengths, weight=0.1), Term("care", objective, weight=-2.0), Term("told", lengths))
    scored = Rewards.of(chosen, votes, phi, NOTHING, terms)(*texts(votes))
    plain = Rewards.of(chosen, votes, phi, NOTHING)(*texts(votes))
    length = np.array([len(r) for r in texts(votes)[1]])
    weights, offset = objective.value.weights.mean(0), objective.value.offset.mean(0)
    care = objective.mass @ (weights @ phi.phi.T + offset[:, None])
    np.testing.assert_allclose(scored.total, plain.total + 0.1 * length - 2 * care)
    np.testing.assert_allclose(scored.parts["term/care"], care)
    np.testing.assert_allclose(scored.parts["term/told"], length)
    np.testing.assert_allclose(scored.parts["rule"], plain.total)
    np.testing.assert_array_equal(scored.phi, phi.phi)


def test_what_is_missing_gives_no_advantage():
    votes, phi, utilities = problem(13)
    chosen = choice.Utilitarian().choose(utilities)
    said = {"one a": 4.0, "one b": None, "one c": 8.0, "two a": None, "two b": None, "three a": 0.0}
    term = Term("odd", lambda prompts, responses: [said[r] for r in responses], weight=1.0)
    prompts = [PROMPTS[("one", "two", "three").index(r.split()[0])] for r in said]
    rewards = Rewards.of(chosen, votes, phi, NOTHING, (term,))
    scored = rewards(prompts, list(said))
    added = scored.total - scored.parts["rule"]
    np.testing.assert_allclose(added, [4, 6, 8, 4, 4, 0], atol=1e-12)  # the prompt's mean; else the batch's, (4+8+0)/3
    assert scored.means()["term/odd"] == pytest.approx(4.0)
    assert rewards.caveats == ()
    zero = Term("odd", lambda prompts, responses: [said[r] or 0.0 for r in responses], weight=1.0)
    other = Rewards.of(chosen, votes, phi, NOTHING, (zero,))(prompts, list(said))
    assert other.total[1] - other.parts["rule"][1] == 0  # what a sum without the missing ones would have made of it

    nothing = Term("none", lambda prompts, responses: [None] * len(responses), weight=1.0, at_least=1.0)
    rewards = Rewards.of(chosen, votes, phi, NOTHING, (nothing,))
    scored = rewards(prompts, list(said))
    np.testing.assert_array_equal(scored.total, scored.parts["rule"])
    assert "term/none" not in scored.means()
    assert np.isnan(scored.parts["term/none"]).all()
    assert rewards.caveats == ("the term 'none' had no score for any response of a batch; it was left out there.",)
    rewards.update(scored.means())
    assert rewards.multipliers == {"none at least": 0.0}


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (lambda p, r: [1.0, np.nan], "odd' is nan for the response 'one b' to the prompt 'ask one'"),
        (lambda p, r: np.array([np.inf, 1.0]), "odd' is inf for the response 'one a'"),
        (lambda p, r: [1.0], "gives 1 scores for 2 responses"),
        (lambda p, r: ["good", "bad"], "one number for each response"),
    ],
    ids=["nan", "inf", "short", "words"],
)
def test_what_is_no_score_is_named(source, match):
    votes, phi, utilities = problem(14)
    rewards = Rewards.of(choice.Utilitarian().choose(utilities), votes, phi, NOTHING, (Term("odd", source),))
    with pytest.raises(TrainError, match=match):
        rewards([PROMPTS[0]] * 2, ["one a", "one b"])


def test_features_that_are_not_finite_are_named():
    votes, phi, utilities = problem(15)
    words = Table({"fine": np.ones(3), "odd": np.array([0, np.nan, 0])})
    for rule in (choice.Utilitarian(), choice.Borda()):
        rewards = Rewards.of(rule.choose(utilities), votes, phi, words)
        assert np.isfinite(rewards([PROMPTS[0]], ["fine"]).total).all()
        with pytest.raises(TrainError, match="a feature is nan for the response 'odd'"):
            rewards([PROMPTS[0]] * 2, ["fine", "odd"])


@pytest.mark.parametrize(("least", "most"), [(None, 0.2), (0.6, None), (None, 5.0)])
def test_multipliers_come_to_the_dual_of_the_convex_program(least, most):
    """max E r - beta KL under a limit on E score, by a conic solver; with one that does not bind the price is 0."""
    votes, phi, utilities = problem(16)
    beta, rng = 0.3, np.random.default_rng(3)
    prompts, responses = texts(votes)
    score = dict(zip(responses, rng.uniform(0, 1, len(responses)), strict=True))
    term = Term("s", lambda p, r: [score[y] for y in r], at_least=least, at_most=most, rate=0.5)
    rewards = Rewards.of(choice.Utilitarian().choose(utilities, beta=beta), votes, phi, NOTHING, (term,))
    for _ in range(1500):
        scored = rewards(prompts, responses)
        p = softmax(np.log(utilities.reference) + scored.total.reshape(3, 4) / beta, -1)
        rewards.update({name: float((p.ravel() @ column) / 3) for name, column in scored.parts.items()})
    q, reference = cp.Variable((3, 4)), utilities.reference
    s = np.array(list(score.values())).reshape(3, 4)
    gain = cp.sum(cp.multiply(q, scored.parts["rule"].reshape(3, 4))) / 3
    mean = cp.sum(cp.multiply(q, s)) / 3
    limit = mean >= least if least is not None else mean <= most
    divergence = cp.sum(cp.rel_entr(q, reference)) / 3
    program = cp.Problem(cp.Maximize(gain - beta * divergence), [cp.sum(q, 1) == 1, limit])
    program.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(p, q.value, atol=1e-4)
    ((name, price),) = rewards.multipliers.items()
    assert price == pytest.approx(float(limit.dual_value), abs=1e-3)
    assert rewards.metrics() == {f"multiplier/{name}": price}
    assert (price > 0.05) == (most != 5.0)


def test_multipliers_are_found_again():
    votes, phi, utilities = problem(17)
    chosen = choice.Utilitarian().choose(utilities)

    def make(**limits):
        return Rewards.of(chosen, votes, phi, NOTHING, (Term("s", lengths, rate=0.5, **limits),))

    first = make(at_least=6.0, at_most=7.0)
    first.update({"term/s": 5.0})
    assert first.multipliers == {"s at least": 0.5, "s at most": 0.0}
    second = make(at_least=6.0, at_most=7.0)
    second.load(first.state())
    np.testing.assert_array_equal(first(*texts(votes)).total, second(*texts(votes)).total)
    assert (second(*texts(votes)).total != make(at_least=6.0, at_most=7.0)(*texts(votes)).total).all()
    with pytest.raises(InputError, match="go on with the terms"):
        make(at_least=6.0).load(first.state())
    prints = {make(at_least=6.0).fingerprint(), make(at_least=7.0).fingerprint(), first.fingerprint()}
    assert len(prints) == 3 and second.fingerprint() == first.fingerprint()

    def double(prompts, responses):
        return [2.0 * len(r) for r in responses]

    other = Rewards.of(chosen, votes, phi, NOTHING, (Term("s", double, rate=0.5, at_least=6.0),))
    assert other.fingerprint() not in prints


def test_a_reward_can_be_replaced():
    votes, phi, utilities = problem(18)
    one, two = (choice.Utilitarian().choose(replace(utilities, mass=m)) for m in np.eye(4)[:2])
    rewards = Rewards.of(one, votes, phi, NOTHING)
    rewards.follow(two)
    np.testing.assert_allclose(rewards(*texts(votes)).total, Rewards.of(two, votes, phi, NOTHING)(*texts(votes)).total)
    with pytest.raises(InputError, match="pass the phi"):
        rewards.follow(replace(two, reward=LinearReward(np.ones(2))))
    with pytest.raises(InputError, match="no reward to follow"):
        rewards.follow(choice.Borda().choose(utilities))


def test_what_has_no_reward_for_new_responses():
    votes, phi, utilities = problem(19)
    dense = replace(utilities, value=utilities.dense())
    with pytest.raises(InputError, match=r"without features.*DPO"):
        Rewards.of(choice.Utilitarian().choose(dense), votes, phi, NOTHING)
    with pytest.raises(InputError, match=r"without features.*DPO"):
        Rewards.of(choice.Borda().choose(dense), votes, phi, NOTHING)
    copeland = choice.Copeland().choose(utilities)
    with pytest.raises(InputError, match="Distil"):
        Rewards.of(copeland, votes, phi, NOTHING)
    assert Rewards.of(copeland, votes, phi, NOTHING, opponents=SelfPlay())(*texts(votes)).total.any()
    with pytest.raises(InputError, match="leave out opponents"):
        Rewards.of(choice.Utilitarian().choose(utilities), votes, phi, NOTHING, opponents=AgainstReference())
    fewer = replace(phi, phi=phi.phi[:5], prompt_id=phi.prompt_id[:5])
    with pytest.raises(InputError, match="5 rows"):
        Rewards.of(copeland, votes, fewer, NOTHING)
    narrow = replace(phi, phi=phi.phi[:, :2], names=("0", "1"), origin=np.zeros(2), basis=np.eye(2))
    with pytest.raises(InputError, match="weighs 3 features, phi has 2"):
        Rewards.of(choice.Utilitarian().choose(utilities), votes, narrow, NOTHING)
    with pytest.raises(InputError, match="a name of its own"):
        Rewards.of(choice.Utilitarian().choose(utilities), votes, phi, NOTHING, (Term("s", lengths),) * 2)
    with pytest.raises(InputError, match="dense utilities"):
        Term("s", dense)
    with pytest.raises(InputError, match=r"at least 3\.0 and at most 2\.0"):
        Term("s", lengths, at_least=3.0, at_most=2.0)
    with pytest.raises(InputError, match="above 0"):
        Term("s", lengths, rate=0.0)
    with pytest.raises(InputError, match="must be finite"):
        Term("s", lengths, weight=np.inf)
