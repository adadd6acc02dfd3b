"""Every form of judgement under a posterior written down by hand, against loops in plain numpy: nothing is fitted."""

import dataclasses
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import datasets
import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from pluralign import reward
from pluralign.reward.judgements import Acts, Judgements
from pluralign.types import FORMS, Choices, Feedback, FitReport, Grades, RewardPosterior, Scale

DRAWS, ANNOTATORS, ITEMS, FEATURES, TIES = 2, 4, 9, 2, 2
OBJECTIVES = ("help", "harm")
SCALES = (Scale("short", ("low", "middle", "high")), Scale("long", ("1", "2", "3", "4", "5")))
LEVELS = [len(s.labels) for s in SCALES]
FIT = FitReport("by hand", 1, DRAWS, 0, {}, {}, {}, 0.0)
RANKS = [  # best of three, of four, all of three, of four, ties at the top, in the middle, twice, at the end, two places
    (0, -1, -1, None),
    (-1, -1, 0, -1),
    (2, 0, 1, None),
    (1, 2, 3, 0),
    (0, None, 0, -1),
    (2, 1, 0, 1),
    (1, 0, 0, 1),
    (None, 0, 1, 1),
    (-1, 1, None, 0),
]


def posterior(comparison, *, kinds=0, seed=0) -> RewardPosterior:
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    rater = {name: 0.7 * normal(DRAWS, ANNOTATORS) for name in ("tie", "position", "leniency", "stretch")}
    rater |= {name: np.exp(0.5 * normal(DRAWS, ANNOTATORS)) for name in ("temperature", "threshold")}
    rater["lapse"] = rng.beta(1, 4, (DRAWS, ANNOTATORS)).astype(np.float32)
    rater.pop("threshold" if isinstance(comparison, reward.Davidson) else "tie")
    voters = kinds or ANNOTATORS
    cuts = np.cumsum(rng.gamma(2, 0.4, (DRAWS, 2, 2, 4)), -1) - 1.5
    response = reward.Response(comparison, reward.PlackettLuce(ties=TIES), rater=reward.Rater(temperature=True))
    return RewardPosterior(
        weights=normal(DRAWS, voters, 2, FEATURES),
        mass=np.full(voters, 1 / voters),
        voters=tuple(f"v{v}" for v in range(voters)),
        membership=rng.dirichlet(np.ones(kinds), ANNOTATORS) if kinds else None,
        rater=rater,
        features=tuple(f"f{i}" for i in range(FEATURES)),
        fit=FIT,
        objectives=OBJECTIVES,
        quality=normal(DRAWS, ITEMS, 2),
        common={"base": cuts.astype(np.float32), "slate_tie": normal(DRAWS, TIES - 1) - 0.5},
        model=dataclasses.asdict(reward.Hierarchical(response=response)),
    )


def choices(slates, ranks, annotator, objective, form: Any = None) -> Choices:
    return Choices(slates, ranks, annotator, objective, np.full(len(slates), -1), form=form)


@pytest.fixture(scope="module")
def said() -> Feedback:
    """Pairs, corrections and slates in one block, in no order, and grades on two scales."""
    rng = np.random.default_rng(1)
    slates, ranks, form = [], [], []
    for n, rank in enumerate(4 * [(0, 1), (1, 0), (0, 0), (-1, 0), (None, 0, 1)] + 2 * RANKS):
        full = (*rank, *[None] * (4 - len(rank)))
        item = rng.permutation(ITEMS)[:4]
        slates.append([-1 if r is None else i for r, i in zip(full, item, strict=True)])
        ranks.append([-1 if r is None else r for r in full])
        two = sum(r is not None for r in full) == 2
        form.append(FORMS.index("correction" if n % 3 == 0 else "comparison") if two else FORMS.index("ranking"))
    order = rng.permutation(len(slates))
    n, graded = len(slates), 30
    scale = rng.integers(0, 2, graded)
    return Feedback(
        items=datasets.Dataset.from_dict(
            {"prompt_id": [0] * ITEMS, "prompt": ["p"] * ITEMS, "response": [str(i) for i in range(ITEMS)]}
        ),
        annotators=datasets.Dataset.from_dict({"id": list("abcd"), "weight": [1.0] * ANNOTATORS}),
        objectives=OBJECTIVES,
        choices=choices(
            np.array(slates)[order],
            np.array(ranks)[order],
            rng.choice(ANNOTATORS, n, p=[0.6, 0.2, 0.2, 0]),
            rng.integers(0, 2, n),
            np.array(form)[order],
        ),
        grades=Grades(
            rng.integers(0, ITEMS, graded),
            rng.integers(0, np.array(LEVELS)[scale]),
            scale,
            rng.choice(ANNOTATORS, graded, p=[0.7, 0.1, 0.1, 0.1]),
            rng.integers(0, 2, graded),
            np.full(graded, -1),
        ),
        scales=SCALES,
    )


@pytest.fixture(scope="module")
def phi(simulation):
    return simulation.features(np.random.default_rng(2).normal(size=(ITEMS, FEATURES)))


@cache
def rankings(slots: int, places: int) -> tuple[tuple[int, ...], ...]:
    """All ways to fill places with blocks of at most TIES slots, until there is no place or no slot left."""

    def fill(left, place):
        if not left or place == places:
            return [{}]
        blocks = (b for size in range(1, TIES + 1) for b in combinations(left, size))
        return [dict.fromkeys(b, place) | rest for b in blocks for rest in fill(tuple(set(left) - set(b)), place + 1)]

    return tuple(tuple(found.get(k, -1) for k in range(slots)) for found in fill(tuple(range(slots)), 0))


def places(rank) -> int:
    """How many places there were to fill: if all are ranked, until nothing was left."""
    return max(rank) + 1 if -1 in rank else len(rank)


def slate_probability(rank, u, tie) -> float:
    """Stage by stage, the block chosen among all subsets that could have been."""
    weight = lambda block: np.exp(np.mean([u[k] for k in block]) + (0, *tie)[len(block) - 1])  # noqa: E731
    left, p = set(range(len(u))), 1.0
    for place in range(max(rank) + 1):
        block = [k for k in range(len(u)) if rank[k] == place]
        rivals = (b for size in range(1, TIES + 1) for b in combinations(sorted(left), size))
        p *= weight(block) / sum(weight(b) for b in rivals)
        left -= set(block)
    return p


def pair_probability(p, s, a, first, eta) -> float:
    """Return the probability of `first`: 0 = the first won, 1 = the second, 2 = tie."""
    kind = p.model["response"]["pairs"]["kind"]
    if kind == "davidson":
        odds = np.exp([eta / 2, -eta / 2, float(p.rater["tie"][s, a])])
        return odds[first] / odds.sum()
    cdf, threshold = {"rao-kupper": expit, "thurstone": norm.cdf}[kind], float(p.rater["threshold"][s, a])
    wins = [cdf(eta - threshold), cdf(-eta - threshold)]
    return (*wins, 1 - sum(wins))[first]


def by_loop(p: RewardPosterior, votes: Feedback, phi) -> dict[str, np.ndarray]:
    """The definition of `log_predictive`, one number at a time."""
    membership: Any = np.eye(ANNOTATORS) if p.membership is None else p.membership
    rater = {name: value.astype(float) for name, value in p.rater.items()}
    quality: Any = p.quality
    found = {"pairs": [], "slates": [], "grades": []}

    def mean(a, probability, outcomes):
        total = 0.0
        for s in range(DRAWS):
            lapse = rater["lapse"][s, a]
            for v, share in enumerate(membership[a]):
                total += share / DRAWS * ((1 - lapse) * probability(s, v) + lapse / outcomes)
        return np.log(total)

    def utility(s, v, a, o, item):
        x, w = phi.phi[item].astype(float), p.weights[s, v, o].astype(float)
        return (x @ w + float(quality[s, item, o])) / rater["temperature"][s, a]

    c, g = votes.choices, votes.grades
    for slate, rank, a, o, form in zip(c.slate, c.rank, c.annotator, c.objective, c.form, strict=True):
        shown = [k for k in range(len(slate)) if slate[k] >= 0]
        rank = [int(rank[k]) for k in shown]
        items = [int(slate[k]) for k in shown]
        if len(shown) > 2:

            def slate_p(s, v, a=a, o=o, items=items, rank=rank):
                u = [utility(s, v, a, o, i) for i in items]
                return slate_probability(rank, u, p.common["slate_tie"][s].astype(float))

            found["slates"].append(mean(a, slate_p, len(rankings(len(shown), places(rank)))))
        else:
            low = [r if r >= 0 else 99 for r in rank]
            outcome = 2 if low[0] == low[1] else int(low[0] > low[1])

            def pair_p(s, v, a=a, o=o, items=items, outcome=outcome, form=form):
                eta = utility(s, v, a, o, items[0]) - utility(s, v, a, o, items[1])
                eta += rater["position"][s, a] if FORMS[form] != "correction" else 0
                return pair_probability(p, s, a, outcome, eta)

            found["pairs"].append(mean(a, pair_p, 3))
    for item, value, scale, a, o in zip(g.item, g.value, g.scale, g.annotator, g.objective, strict=True):

        def grade_p(s, v, item=item, value=value, scale=scale, a=a, o=o):
            cut = p.common["base"][s, scale, o, : LEVELS[scale] - 1].astype(float)
            cut = np.exp(rater["stretch"][s, a]) * cut - rater["leniency"][s, a]
            below = np.array([0, *expit(cut - utility(s, v, a, o, item)), 1])
            return below[value + 1] - below[value]

        found["grades"].append(mean(a, grade_p, LEVELS[scale]))
    return {form: np.array(value) for form, value in found.items()}


@pytest.fixture(scope="module")
def everything(said) -> tuple[Feedback, dict[str, np.ndarray]]:
    """Every act put once per outcome, and by form the index of the act."""
    c, g = said.choices, said.grades
    slates, ranks, act = [], [], []
    for n, (slate, rank) in enumerate(zip(c.slate, c.rank, strict=True)):
        shown = np.flatnonzero(slate >= 0)
        pair = len(shown) == 2
        for outcome in [(0, 1), (1, 0), (0, 0)] if pair else rankings(len(shown), places(rank[shown].tolist())):
            ranks.append(np.full(4, -1))
            ranks[-1][shown] = outcome
            slates.append(slate)
            act.append(n)
    other = choices(np.array(slates), np.array(ranks), c.annotator[act], c.objective[act], c.form[act])
    level = np.concatenate([np.arange(LEVELS[s]) for s in g.scale])
    graded = np.repeat(np.arange(len(g)), np.array(LEVELS)[g.scale])
    two = (np.array(slates) >= 0).sum(1) == 2
    of = {"pairs": np.array(act)[two], "slates": np.array(act)[~two], "grades": graded}
    return replace(said, choices=other, grades=replace(g.where(graded), value=level)), of


def assert_probabilities(p, votes, of, phi):
    """Those of the definition, and one in sum over all that could have been said of the same."""
    found, expected = reward.log_predictive(p, votes, phi), by_loop(p, votes, phi)
    assert found.keys() == {form for form, value in expected.items() if len(value)}
    for form, value in found.items():
        np.testing.assert_allclose(value, expected[form], rtol=1e-6, err_msg=form)
        total = np.bincount(of[form], np.exp(value))[np.unique(of[form])]
        np.testing.assert_allclose(total, 1, rtol=1e-6, err_msg=form)


@pytest.mark.parametrize("kinds", [0, 3])
def test_judgements_have_the_probability_of_the_definition(everything, phi, kinds):
    votes, of = everything
    assert_probabilities(posterior(reward.Davidson(), kinds=kinds), votes, of, phi)


@pytest.mark.parametrize("comparison", [reward.RaoKupper(), reward.Thurstone()])
def test_comparisons_by_thresholds_have_the_probability_of_the_definition(everything, phi, comparison):
    votes, of = everything
    two = votes.where((votes.choices.slate >= 0).sum(1) == 2)
    assert_probabilities(posterior(comparison), replace(two, grades=Grades.none()), of, phi)


def changed(p: RewardPosterior, name: str) -> RewardPosterior:
    """Return the posterior with one parameter changed."""
    if name in p.rater:
        moved = expit(logit(p.rater[name]) + 1) if name == "lapse" else 1.5 * p.rater[name] + 0.1
        return replace(p, rater=p.rater | {name: moved})
    if name in p.common:
        return replace(p, common=p.common | {name: 1.5 * p.common[name]})
    return replace(p, **{name: 1.5 * getattr(p, name)})


def test_the_definition_feels_each_parameter_in_the_forms_that_it_is_about(said, phi):
    """So an implementation that forgot one of them would not agree with it."""
    p = posterior(reward.Davidson())
    before, every = by_loop(p, said, phi), {"pairs", "slates", "grades"}
    about = dict.fromkeys(("weights", "quality", "lapse", "temperature"), every)
    about |= {"position": {"pairs"}, "tie": {"pairs"}, "slate_tie": {"slates"}}
    about |= {name: {"grades"} for name in ("base", "leniency", "stretch")}
    assert about.keys() == {"weights", "quality", *p.rater, *p.common}
    for name, touched in about.items():
        after = by_loop(changed(p, name), said, phi)
        assert {form for form in every if np.abs(before[form] - after[form]).max() > 1e-3} == touched, name


@pytest.mark.parametrize("form", ["pairs", "slates", "grades"])
def test_the_padded_order_says_the_same_as_a_loop(simulation, said, form):
    """Counts per annotator and objective are skewed, one owner has none: several buckets, padding in them."""
    rng = np.random.default_rng(0)
    size = rng.permutation([1, 2, 23, 9, 5, 40, 0, int(rng.integers(1, 60))])
    owner = rng.permutation(np.repeat(np.arange(8), size))
    n, slots = len(owner), {"pairs": 2, "slates": 4, "grades": 1}[form]
    item = np.stack([rng.permutation(ITEMS)[:slots] for _ in range(n)])
    if form == "slates":
        item[rng.random(n) < 0.3, 3] = -1
    block, grades = Choices.none(), Grades.none()
    if form == "grades":
        scale = np.ones(n, int)
        grades = Grades(item[:, 0], rng.integers(0, 5, n), scale, owner // 2, owner % 2, scale)
    else:
        rank = np.where(np.arange(slots) == 0, 0, np.full((n, 1), -1))
        block = choices(item, rank, owner // 2, owner % 2)
    phi = simulation.features(rng.normal(size=(ITEMS, FEATURES)))
    judgements = Judgements.read(replace(said, choices=block, grades=grades), phi)
    acts = Acts.of(form, judgements, 2.0)
    assert len(acts.buckets) > 2 and (~acts.counts).any()
    assert sorted(acts.row[acts.counts]) == list(range(n))

    own = rng.normal(size=(ANNOTATORS, 2, FEATURES)).astype(np.float32)
    kinds = rng.normal(size=(3, 2, FEATURES)).astype(np.float32)
    worth = rng.normal(size=(ITEMS, 2)).astype(np.float32)
    value, mark = rng.normal(size=(3, len(acts.counts))).astype(np.float32), rng.normal(size=(ANNOTATORS, 2))
    utility, shared, each = (np.asarray(v) for v in (acts.utility(own), acts.shared(kinds), acts.each(mark)))
    one = np.asarray(acts.shared(kinds[0]))
    contrast = np.asarray(acts.contrast(worth[acts.item, np.asarray(acts.objective)[:, None]]))
    total = np.zeros((3, ANNOTATORS))
    for place, row in enumerate(acts.row):
        if not acts.counts[place]:
            continue
        a, o = divmod(int(owner[row]), 2)
        shown = item[row] >= 0
        x = np.where(shown[:, None], phi.phi[item[row]].astype(float) / 2, 0)
        u, by_kind, w = x @ own[a, o], np.einsum("sf,kf->ks", x, kinds[:, o]), worth[item[row], o]
        if form == "pairs":
            u, by_kind, w = u[0] - u[1], by_kind[:, 0] - by_kind[:, 1], w[0] - w[1]
        if form == "grades":
            u, by_kind, w = u[0], by_kind[:, 0], w[0]
        np.testing.assert_allclose(utility[place], u, atol=2e-5)
        np.testing.assert_allclose(shared[:, place], by_kind, atol=2e-5)
        np.testing.assert_allclose(one[place], by_kind[0], atol=2e-5)
        np.testing.assert_allclose(contrast[place], w, atol=1e-6)
        np.testing.assert_allclose(each[place], mark[a], atol=1e-6)
        assert int(np.asarray(acts.objective)[place]) == o
        total[:, a] += value[:, place]
    np.testing.assert_allclose(acts.total(value), total, atol=1e-4)
    np.testing.assert_allclose(acts.total(value[1]), total[1], atol=1e-4)
