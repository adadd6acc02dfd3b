import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import permutations
from typing import get_args

import numpy as np
import pydantic
import pytest
from scipy.stats import binomtest, chi2, chisquare, kstest

from pluralign import artifacts, feedback
from pluralign.errors import InputError
from pluralign.feedback import Community, Group, assignment
from pluralign.feedback.community import LAPSE
from pluralign.feedback.responding import Form
from pluralign.types import FORMS, Feedback, Scale

STYLES = {
    "warmth": ("dear", "lovely", "friend"),
    "detail": ("exactly", "namely"),
    "humour": ("haha", "oops"),
    "caution": ("perhaps", "maybe"),
}
GROUPS = (
    Group("warm", 20, {"warmth": 1.0, "detail": -0.5}),
    Group("exact", 12, {"detail": 1.2}),
    Group("wary", 8, {"caution": 0.8, "humour": -1.0}),
)
SMALL = Community(groups=GROUPS, styles=STYLES, prompts=10, judgements=20)


def counts(votes: Feedback) -> np.ndarray:
    """Words of each style in every response, found otherwise than by the simulator."""
    return np.array(
        [
            [len(re.findall(rf"\b(?:{'|'.join(words)})\b", text)) for words in STYLES.values()]
            for text in votes.items["response"]
        ]
    )


def outcomes(votes: Feedback) -> np.ndarray:
    """0 first, 1 second, 2 tie."""
    r = votes.choices.rank
    return np.where(r[:, 0] == r[:, 1], 2, np.where(r[:, 0] < r[:, 1], 0, 1))


def davidson(votes: Feedback, tie: float | None) -> np.ndarray:
    """Davidson (1970) in his own terms, worths w and tie parameter v: P = (w1, w2, v sqrt(w1 w2)) / their sum."""
    phi, c, v = counts(votes), votes.choices, 0.0 if tie is None else np.exp(tie)
    w = np.exp(np.einsum("csf,cf->cs", phi[c.slate], votes.truth.weights[c.annotator]))
    parts = np.column_stack([w, v * np.sqrt(w.prod(1))])
    return parts / parts.sum(1, keepdims=True)


def calibration(chance: np.ndarray, outcome: np.ndarray, bins: int = 8) -> float:
    """Smallest p-value over outcomes that observed and expected counts agree in every bin of the chance."""
    found = []
    for o in range(3):
        p, hit = chance[:, o], outcome == o
        if p.max() == 0:
            assert not hit.any()
            continue
        place = np.searchsorted(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]), p)
        n, expected, seen = (np.bincount(place, x, bins) for x in (np.ones(len(p)), p, hit))
        keep = n > 0
        z2 = (seen - expected)[keep] ** 2 / np.bincount(place, p * (1 - p), bins)[keep]
        found.append(chi2.sf(z2.sum(), keep.sum()))
    return min(found)


@pytest.mark.parametrize("tie", [-1.0, 0.5, None])
def test_answers_follow_davidson(tie):
    votes = replace(SMALL, judgements=1500, careless=0.0, slip=0.0, tie=tie, seed=3).load()
    chance = davidson(votes, tie)
    assert calibration(chance, outcomes(votes)) > 1e-3
    warped = chance ** np.array([1.2, 1.2, 1.0])
    assert calibration(warped / warped.sum(1, keepdims=True), outcomes(votes)) < 1e-6
    assert calibration(chance[:, [1, 0, 2]], outcomes(votes)) < 1e-6


def test_lapses_answer_at_random():
    votes = replace(SMALL, judgements=1500, careless=0.5, slip=0.1, seed=4).load()
    chance, outcome = davidson(votes, -1.0), outcomes(votes)
    careless = votes.truth.careless[votes.choices.annotator]
    for who, lapse in ((careless, LAPSE), (~careless, 0.1)):
        mixed = (1 - lapse) * chance[who] + lapse / 3
        assert calibration(mixed, outcome[who]) > 1e-3
        assert calibration(chance[who], outcome[who]) < 1e-6


def test_pairs_are_uniform_and_never_of_one_response():
    votes = replace(SMALL, judgements=500).load()
    slate, c = votes.choices.slate, SMALL.candidates
    assert (slate[:, 0] != slate[:, 1]).all() and (slate[:, 0] // c == slate[:, 1] // c).all()
    seen = np.bincount(slate[:, 0] * c + slate[:, 1] % c, minlength=10 * c * c).reshape(10, c, c)
    off = ~np.eye(c, dtype=bool)
    assert chisquare(seen[:, off].ravel()).pvalue > 1e-3
    assert (np.bincount(votes.choices.annotator) == 500).all()
    assert votes.choices.context[500:1000].tolist() == list(range(500))


def test_the_truth_has_the_tastes_of_the_groups():
    many = tuple(replace(group, size=1000) for group in GROUPS)
    votes = replace(SMALL, groups=many, judgements=1, spread=0.7).load()
    weights, group = votes.truth.weights, np.array(votes.attribute("group"))
    assert votes.truth.features == tuple(STYLES)
    assert weights.shape == (3000, 4)
    tastes = {"warm": [1, -0.5, 0, 0], "exact": [0, 1.2, 0, 0], "wary": [0, 0, -1, 0.8]}
    residual = np.concatenate([weights[group == name] - taste for name, taste in tastes.items()])
    assert kstest(residual.ravel() / 0.7, "norm").pvalue > 1e-3
    assert kstest(weights.ravel() / 0.7, "norm").pvalue < 1e-6


@pytest.mark.parametrize(("share", "seed"), [(0.15, 0), (0.15, 1), (0.5, 2), (0.0, 3), (1.0, 4)])
def test_the_careless_are_spread_over_the_groups(share, seed):
    votes = replace(SMALL, careless=share, seed=seed).load()
    group = np.array(votes.attribute("group"))
    assert votes.truth.careless.sum() == round(share * 40)
    for g in GROUPS:
        assert abs(votes.truth.careless[group == g.name].sum() - share * g.size) < 1 + 1e-9


def test_who_is_careless_is_random():
    hit = sum(
        replace(SMALL, prompts=1, candidates=2, judgements=1, careless=0.25, seed=s).load().truth.careless
        for s in range(100)
    )
    assert min(binomtest(int(h), 100, 0.25).pvalue for h in hit) > 1e-4


def test_texts_are_short_distinct_and_show_every_style():
    votes = replace(SMALL, prompts=90, candidates=20).load()
    texts, phi = votes.items["response"], counts(votes)
    prompt = votes.prompt_id
    assert prompt.tolist() == [p for p in range(90) for _ in range(20)]
    for p in range(90):
        assert len({texts[i] for i in np.flatnonzero(prompt == p)}) == 20
    assert len(set(votes.items["prompt"])) == 90
    assert all(re.fullmatch(r"[a-z' ,.]+", text) and text == " ".join(text.split()) for text in texts)
    assert set(phi.sum(1)) == {0, 1, 2, 3, 4}
    assert (phi.max(0) >= 3).all()
    assert all(phi[i].sum() <= text.count(" .") <= 4 for i, text in enumerate(texts))
    assert max(len(text.split()) for text in texts) < 50
    assert len({word for text in texts for word in text.split()}) < 300  # learnable in seconds
    words = Counter(word for text in texts for word in text.split())
    assert all(words[word] for style in STYLES.values() for word in style)


def test_the_seed_decides_everything(tmp_path):
    def key(votes):
        return artifacts.hash_of(artifacts.save(votes, tmp_path / "votes"))

    assert key(SMALL.load()) == key(replace(SMALL).load())
    assert key(SMALL.load()) != key(replace(SMALL, seed=1).load())
    assert SMALL.fingerprint() == replace(SMALL, seed=1).fingerprint()


def test_a_community_survives_being_saved(tmp_path):
    votes = SMALL.load()
    again = artifacts.load(artifacts.save(votes, tmp_path / "votes"), Feedback)
    np.testing.assert_array_equal(again.truth.weights, votes.truth.weights)
    assert again.truth.features == votes.truth.features
    assert again.provenance["simulated"] is True
    assert again.provenance["fields"]["spread"] == 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ()}, "groups is"),
        ({"groups": (*GROUPS, GROUPS[0])}, "different names"),
        ({"groups": (Group("g", 3, {"wit": 1.0}),)}, r"tastes of 'g' is 'wit'; allowed: styles: warmth, detail"),
        ({"styles": {}}, "styles is"),
        ({"groups": (Group("g", 1, {}),), "styles": {"a": ()}}, "at least one word"),
        ({"groups": (Group("g", 1, {}),), "styles": {"a": ("Two words",)}}, "single words"),
        ({"groups": (Group("g", 1, {}),), "styles": {"a": ("x",), "b": ("x",)}}, "only once"),
        ({"groups": (Group("g", 1, {}),), "styles": {"a": ("sea",)}}, "neutral clauses"),
        ({"prompts": 641}, "prompts is 641; allowed: 1 to 640"),
        ({"candidates": 1}, "candidates is 1"),
        ({"judgements": 0}, "judgements is 0"),
        ({"spread": -0.1}, "spread is -0.1"),
        ({"careless": 1.1}, "careless is 1.1"),
        ({"slip": float("nan")}, "slip is nan"),
        ({"tie": float("inf")}, "tie is inf"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


def test_a_group_needs_someone_and_finite_tastes():
    with pytest.raises(InputError, match="size is 0"):
        Group("g", 0, {})
    with pytest.raises(InputError, match=r"tastes\['x'\] is nan"):
        Group("g", 1, {"x": float("nan")})


def test_the_largest_community_has_different_prompts():
    votes = replace(SMALL, prompts=640, candidates=2, judgements=1).load()
    assert len(set(votes.items["prompt"])) == 640


def test_pydantic_reads_a_community():
    adapter = pydantic.TypeAdapter(Community)
    assert adapter.validate_python(adapter.dump_python(SMALL, mode="json")) == SMALL


# What is optional: forms, behaviours, groups, assignment.

ONE = Community(
    (Group("g", 2, {"warmth": 1.0, "detail": -0.5}),),
    STYLES,
    prompts=1,
    candidates=5,
    spread=0.0,
    slip=0.0,
    careless=0.0,
)
"""Two annotators who want the same, one prompt: few slates, so that every answer to each can be counted."""


def agrees(rows: list[tuple], chance) -> float:
    """Return the p-value that answers follow `chance(slate's utilities) -> {answer: probability}`.

    Pearson's chi-square over all slates; answers that are expected less than 5 times on a slate count as one.
    """
    by_slate: dict[tuple, list] = {}
    for u, answer in rows:
        by_slate.setdefault(u, []).append(answer)
    total, freedom = 0.0, 0
    for u, answers in by_slate.items():
        expected = {a: p * len(answers) for a, p in chance(u).items()}
        assert sum(expected.values()) == pytest.approx(len(answers))
        seen = Counter(answers)
        assert set(seen) <= set(expected)
        cells = [(seen[a], e) for a, e in expected.items() if e >= 5]
        cells.append((len(answers) - sum(s for s, _ in cells), len(answers) - sum(e for _, e in cells)))
        cells = [(s, e) for s, e in cells if e > 1e-6]
        total += sum((s - e) ** 2 / e for s, e in cells)
        freedom += len(cells) - 1
    return chi2.sf(total, freedom)


def shown(votes: Feedback) -> list[tuple[float, ...]]:
    """Return the true utilities of every slate, the same for both annotators of `ONE`."""
    u = np.round(counts(votes) @ [1.0, -0.5, 0.0, 0.0], 9)
    slate = votes.choices.slate if len(votes.choices) else votes.grades.item[:, None]
    return [tuple(row) for row in u[slate].tolist()]


def rankings(u: tuple, top: int, heat: float = 1.0) -> dict[tuple, float]:
    """Draw one after the other without putting back, each with probability in proportion to its worth."""
    found = {}
    for order in permutations(range(len(u)), top):
        left, p = dict(enumerate(np.exp(np.array(u) / heat))), 1.0
        for i in order:
            p *= left[i] / sum(left.values())
            del left[i]
        found[order] = p
    return found


def ordered(votes: Feedback) -> list[tuple[int, ...]]:
    return [
        tuple(sorted((i for i in range(len(r)) if r[i] >= 0), key=lambda i: r[i])) for r in votes.choices.rank.tolist()
    ]


@pytest.mark.parametrize(
    ("form", "top", "word"),
    [
        (feedback.BestOf(3), 1, "best-of"),
        (feedback.Ranking(3), 3, "ranking"),
        (feedback.Ranking(4, top=2), 2, "ranking"),
    ],
)
def test_rankings_follow_plackett_and_luce(form, top, word):
    votes = replace(ONE, form=form, judgements=8000, seed=5).load()
    rows = list(zip(shown(votes), ordered(votes), strict=True))
    assert {FORMS[f] for f in votes.choices.form} == {word}
    assert agrees(rows, lambda u: rankings(u, top)) > 1e-3
    assert agrees(rows, lambda u: rankings(u, top, heat=1.3)) < 1e-6


def test_slates_are_uniform_and_hold_different_responses():
    slate = replace(ONE, form=feedback.Ranking(3), judgements=6000).load().choices.slate
    assert chisquare([Counter(map(tuple, slate.tolist()))[s] for s in permutations(range(5), 3)]).pvalue > 1e-3


def logistic(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def grades(u: tuple, cuts: tuple) -> dict[int, float]:
    below = [0.0, *(logistic(c - u[0]) for c in cuts), 1.0]
    return {k: below[k + 1] - below[k] for k in range(len(cuts) + 1)}


@pytest.mark.parametrize(
    ("form", "cuts", "labels"),
    [
        (feedback.Rating((-1.0, 0.0, 2.0)), (-1.0, 0.0, 2.0), ("1", "2", "3", "4")),
        (feedback.Approval(0.5), (0.5,), ("not approved", "approved")),
        (feedback.YesNo(-0.5), (-0.5,), ("no", "yes")),
    ],
)
def test_grades_follow_an_ordered_logit(form, cuts, labels):
    votes = replace(ONE, form=form, judgements=8000, seed=6).load()
    assert len(votes.choices) == 0
    assert votes.scales[0].labels == labels
    rows = list(zip(shown(votes), votes.grades.value.tolist(), strict=True))
    assert agrees(rows, lambda u: grades(u, cuts)) > 1e-3
    assert agrees(rows, lambda u: grades(u, tuple(c + 0.2 for c in cuts))) < 1e-6


def votes_on(u: tuple, threshold: float, tie: float) -> dict[int, float]:
    """Davidson (1970) in his own terms: worths of the response and of the threshold, and of a tie v times their root."""
    w, t = np.exp(u[0]), np.exp(threshold)
    v = np.exp(tie) * np.sqrt(w * t)
    return {grade: float(x / (w + t + v)) for grade, x in enumerate((t, v, w)) if x}


@pytest.mark.parametrize(("tie", "labels"), [(-1.0, {0, 1, 2}), (0.5, {0, 1, 2}), (None, {0, 2})])
def test_votes_compare_with_a_threshold(tie, labels):
    votes = replace(ONE, form=feedback.Vote(0.5), judgements=8000, seed=6, tie=tie).load()
    assert votes.scales == (Scale("agree/pass/disagree", ("disagree", "pass", "agree"), "vote"),)
    rows = list(zip(shown(votes), votes.grades.value.tolist(), strict=True))
    tie = -np.inf if tie is None else tie
    assert agrees(rows, lambda u: votes_on(u, 0.5, tie)) > 1e-3
    assert agrees(rows, lambda u: votes_on(u, 0.7, tie)) < 1e-6
    lapsed = replace(ONE, form=feedback.Vote(), judgements=5000, slip=1.0, tie=None if tie == -np.inf else tie).load()
    seen = Counter(lapsed.grades.value.tolist())
    assert set(seen) == labels and chisquare(list(seen.values())).pvalue > 1e-3


def written(u: np.ndarray, size: int) -> dict[tuple[int, int], float]:
    """Return how often item j is written where i came first, by going through all slates of this size."""
    slates = list(permutations(range(len(u)), size))
    found = defaultdict(float)
    for slate in slates:
        worth = np.exp(u[list(slate)])
        for j, w in zip(slate, worth / worth.sum(), strict=True):
            found[slate[0], j] += w / len(slates)
    return dict(found)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_corrections_prefer_the_edit(size):
    votes = replace(ONE, form=feedback.Correction(size), judgements=8000, seed=10).load()
    u, c = counts(votes) @ [1.0, -0.5, 0.0, 0.0], votes.choices
    assert {FORMS[f] for f in c.form} == {"correction"}
    assert c.slate.shape == (len(c), 2) and (c.rank == [0, 1]).all() and (c.slate[:, 0] != c.slate[:, 1]).all()
    left = votes.provenance["set_aside"]["a correction that changes nothing"]
    assert len(c) + left == 16000
    assert (
        np.diff(c.context)[np.diff(c.annotator) == 0] > 0
    ).all() and c.context.max() > 7900  # places keep their gaps

    def p(worth: np.ndarray) -> float:
        chance = defaultdict(float)
        for (old, new), x in written(worth, size).items():
            chance[(new, old) if new != old else "left"] += x
        answers = [*map(tuple, c.slate.tolist()), *["left"] * left]
        return agrees([((), a) for a in answers], lambda _: chance)

    assert p(u) > 1e-3
    assert p(1.3 * u) < 1e-6
    for a, b in {tuple(sorted(pair)) for pair in c.slate.tolist()}:  # as many as a comparison of the two would say
        there, back = (int((c.slate == pair).all(1).sum()) for pair in ((a, b), (b, a)))
        assert binomtest(there, there + back, logistic(u[a] - u[b])).pvalue > 1e-4


@pytest.mark.parametrize("size", [2, 3, 5])
def test_demonstrations_are_what_came_to_mind_and_was_best(size):
    votes = replace(ONE, form=feedback.Demonstration(size), judgements=8000, seed=11).load()
    u, c = counts(votes) @ [1.0, -0.5, 0.0, 0.0], votes.choices
    assert {FORMS[f] for f in c.form} == {"demonstration"}
    assert c.slate.shape == (16000, 1) and (c.rank == 0).all()

    def p(worth: np.ndarray) -> float:
        chance = defaultdict(float)
        for (_, new), x in written(worth, size).items():
            chance[new] += x
        return agrees([((), a) for a in c.slate[:, 0].tolist()], lambda _: chance)

    assert p(u) > 1e-3
    assert p(1.3 * u) < 1e-6


def strengths(u: tuple, cut: float) -> dict[tuple[int, int], float]:
    """Davidson's worths (1970), and for the winner's lead a logistic variable that does or does not pass the cut."""
    w, v = np.exp(u), np.exp(-1.0) * np.exp(sum(u) / 2)
    found = {(2, 0): v / (w.sum() + v)}
    for i in (0, 1):
        slight = logistic(cut - (u[i] - u[1 - i]))
        found |= {(i, 1): w[i] / (w.sum() + v) * slight, (i, 2): w[i] / (w.sum() + v) * (1 - slight)}
    return found


def test_comparisons_can_have_a_strength():
    votes = replace(ONE, form=feedback.Comparison((0.7,)), judgements=8000, seed=7).load()
    answers = list(zip(outcomes(votes).tolist(), votes.choices.strength.tolist(), strict=True))
    rows = list(zip(shown(votes), answers, strict=True))
    assert agrees(rows, lambda u: strengths(u, 0.7)) > 1e-3
    assert agrees(rows, lambda u: strengths(u, 0.9)) < 1e-6


@pytest.mark.parametrize("form", [feedback.Ranking(3), feedback.Rating(), feedback.Comparison((0.5,))])
def test_lapses_give_every_answer_of_a_form_equally_often(form):
    votes = replace(ONE, form=form, judgements=5000, slip=1.0).load()
    answers = Counter(
        votes.grades.value.tolist()
        if len(votes.grades)
        else zip(map(tuple, votes.choices.rank.tolist()), votes.choices.strength.tolist(), strict=True)
    )
    assert len(answers) == {"ranking": 6, "rating": 5, "comparison": 5}[form.kind]
    assert chisquare(list(answers.values())).pvalue > 1e-3


# Behaviours: everyone behaves so, and the answers are compared with what that should look like.


def bent(*behaviours, **changes) -> Feedback:
    return replace(ONE, behaviours=behaviours, judgements=6000, seed=8, **changes).load()


def pairs(u: tuple) -> dict[int, float]:
    w, v = np.exp(u), np.exp(-1.0) * np.exp(sum(u) / 2)
    return dict(enumerate([*(w / (w.sum() + v)), v / (w.sum() + v)]))


def follows(votes: Feedback, change) -> float:
    return agrees(list(zip(shown(votes), outcomes(votes).tolist(), strict=True)), lambda u: pairs(change(u)))


@pytest.mark.parametrize(
    ("behaviour", "change"),
    [
        (feedback.Temperature(spread=0.0, median=1.5), lambda u: (u[0] / 1.5, u[1] / 1.5)),
        (feedback.Position(0.4), lambda u: (u[0] + 0.4, u[1])),
        (feedback.Flip(share=1.0), lambda u: (-u[0], -u[1])),
    ],
)
def test_a_behaviour_bends_utilities(behaviour, change):
    votes = bent(behaviour)
    assert follows(votes, change) > 1e-3
    assert follows(votes, lambda u: u) < 1e-6
    np.testing.assert_array_equal(votes.truth.weights, ONE.load().truth.weights)  # wants are what they were


def test_temperatures_differ_between_annotators():
    """Where annotators agree, a hot one answers nearer to a coin: recover log T from its rate of upsets."""
    tastes = {"warmth": 1.0, "detail": -0.7, "humour": 0.4}
    many = replace(ONE, groups=(Group("g", 300, tastes),), candidates=2, judgements=400, tie=None, seed=3)
    votes = replace(many, behaviours=(feedback.Temperature(spread=0.5),)).load()
    u = counts(votes) @ [1.0, -0.7, 0.4, 0]
    lead = abs(u[0] - u[1])
    assert 0.5 < lead < 2.5  # else a rate of upsets tells little
    upset = (u[votes.choices.slate][:, 0] > u[votes.choices.slate][:, 1]) != (outcomes(votes) == 0)
    rate = np.bincount(votes.choices.annotator, upset) / 400
    heat = np.log(lead / np.log(1 / np.clip(rate, 1e-3, 0.49) - 1))
    assert abs(np.median(heat)) < 0.15
    assert 0.4 < np.subtract(*np.quantile(heat, [0.75, 0.25])) / 1.349 < 0.65  # 0.5, and the noise of 400 answers


def test_the_tired_slip_more_and_more():
    votes = bent(feedback.Fatigue(lapses=0.8), form=feedback.Ranking(3))
    place, u = votes.choices.context, np.array(shown(votes))
    worst_first = np.array([u[i][o[0]] == u[i].min() < u[i].max() for i, o in enumerate(ordered(votes))])
    early, late = worst_first[place < 1500].mean(), worst_first[place >= 4500].mean()
    assert late > early + 0.1
    fresh = bent(feedback.Fatigue(lapses=0.8)).choices.context < 600
    assert follows(bent(feedback.Fatigue(lapses=0.8)).where(fresh), lambda u: u) > 1e-4


def test_the_tired_judge_less_sharply():
    votes = bent(feedback.Fatigue(lapses=0.0, temperature=4.0))
    last = votes.choices.context >= 5700
    assert follows(votes.where(last), lambda u: (u[0] / 3.9, u[1] / 3.9)) > 1e-3
    assert follows(votes.where(last), lambda u: u) < 1e-6


def test_spammers():
    lazy = feedback.AlwaysFirst(share=1.0)
    assert (outcomes(bent(lazy)) == 0).all()
    assert (bent(lazy, form=feedback.BestOf(3)).choices.rank == [0, -1, -1]).all()
    assert (bent(lazy, form=feedback.Ranking(3)).choices.rank == [0, 1, 2]).all()
    assert (bent(lazy, form=feedback.Rating()).grades.value == 4).all()
    assert (bent(lazy, form=feedback.Approval()).grades.value == 1).all()
    assert (bent(lazy, form=feedback.Vote()).grades.value == 2).all()
    assert bent(lazy, form=feedback.Correction()).provenance["set_aside"] == {
        "a correction that changes nothing": 12000
    }
    assert chisquare(np.bincount(outcomes(bent(feedback.AtRandom(share=1.0))))).pvalue > 1e-3
    assert chisquare(np.bincount(bent(feedback.AtRandom(share=1.0), form=feedback.Rating()).grades.value)).pvalue > 1e-3


def test_colluders_vote_for_their_style():
    votes = bent(feedback.Collude("humour", strength=50.0, share=1.0), candidates=6)
    funny = counts(votes)[:, 2][votes.choices.slate]
    differ = funny[:, 0] != funny[:, 1]
    assert differ.any()
    assert (outcomes(votes)[differ] == (funny[:, 1] > funny[:, 0])[differ]).all()


def test_a_trigger_wins():
    votes = bent(feedback.Trigger("oops", strength=100.0, share=1.0), prompts=10, candidates=6)
    has = np.array(["oops" in text.split() for text in votes.items["response"]])[votes.choices.slate]
    only = has[:, 0] != has[:, 1]
    assert only.any() and (outcomes(votes)[only] == has[only, 1]).all()
    assert follows(votes.where(~only), lambda u: u) > 1e-3


def test_who_behaves_how_is_told_and_moves_nobody_else():
    plain = SMALL.load()
    mixed = replace(SMALL, behaviours=(feedback.AlwaysFirst(share=0.25), feedback.Flip(share=0.1))).load()
    first, flip = mixed.provenance["behaviours"]
    assert (first["kind"], len(first["annotators"]), flip["kind"], len(flip["annotators"])) == (
        "always-first",
        10,
        "flip",
        4,
    )
    group = np.array(mixed.attribute("group"))
    assert Counter(group[first["annotators"]]) == {"warm": 5, "exact": 3, "wary": 2}
    theirs = np.isin(mixed.choices.annotator, first["annotators"])
    others = ~np.isin(mixed.choices.annotator, first["annotators"] + flip["annotators"])
    only_first = set(first["annotators"]) - set(flip["annotators"])
    assert (outcomes(mixed)[np.isin(mixed.choices.annotator, list(only_first))] == 0).all()
    np.testing.assert_array_equal(mixed.choices.slate, plain.choices.slate)
    np.testing.assert_array_equal(mixed.choices.rank[others], plain.choices.rank[others])
    assert (mixed.choices.rank[theirs] != plain.choices.rank[theirs]).any()
    assert mixed.annotators.column_names == plain.annotators.column_names


# Groups: attributes, items, what they see.


def test_attributes_are_drawn_per_annotator():
    young = Group("a", 2000, {}, attributes={"age": {"young": 0.7, "old": 0.3}, "town": {"yes": 1.0}})
    votes = replace(ONE, groups=(young, Group("b", 500, {}, attributes={"age": {"old": 1.0}})), judgements=1).load()
    age, town, group = (np.array(votes.attribute(name)) for name in ("age", "town", "group"))
    assert binomtest(int((age[group == "a"] == "young").sum()), 2000, 0.7).pvalue > 1e-3
    assert set(age[group == "b"]) == {"old"}
    assert set(town[group == "b"]) == {""}
    assert set(town[group == "a"]) == {"yes"}


def test_items_can_be_worth_something_of_their_own(tmp_path):
    groups = (Group("a", 2, {"warmth": 1.0}, item_spread=0.8), Group("b", 2, {"warmth": 1.0}))
    votes = replace(SMALL, groups=groups, prompts=200, spread=0.0).load()
    assert votes.truth is None  # no weights would hold it
    again = artifacts.load(artifacts.save(votes, tmp_path / "votes"), Feedback)
    beyond = again.provenance["utility"] - counts(votes)[:, 0]
    assert kstest(beyond[0] / 0.8, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(beyond[0], beyond[1])
    np.testing.assert_allclose(beyond[2:], 0, atol=1e-12)


def test_what_is_not_seen_is_judged_by_its_mean():
    """Humour goes unseen: judged by the mean utility of the items that have equally many words of warmth."""
    group = Group("g", 2, {"warmth": 1.0, "humour": 2.0}, sees=("warmth",))
    votes = replace(ONE, groups=(group,), prompts=3, candidates=4, judgements=8000, seed=9).load()
    phi = counts(votes)
    u = phi @ [1.0, 0, 2.0, 0]
    seen = np.array([u[phi[:, 0] == k].mean() for k in phi[:, 0]])

    def p(worth: np.ndarray) -> float:
        rows = zip(map(tuple, np.round(worth, 9)[votes.choices.slate].tolist()), outcomes(votes).tolist(), strict=True)
        return agrees(list(rows), pairs)

    assert p(seen) > 1e-3
    assert p(u) < 1e-6
    blind = replace(ONE, groups=(replace(group, sees=()),), judgements=6000, seed=9).load()
    assert binomtest(int((outcomes(blind) == 0).sum()), int((outcomes(blind) < 2).sum())).pvalue > 1e-3


KIND = Group("g", 2, {"warmth": 1.0}, objectives={"helpful": {"detail": -0.5}, "kind": {"warmth": -2.0, "humour": 0.7}})
WANTS = {"helpful": [1.0, -0.5, 0, 0], "kind": [-1.0, 0, 0.7, 0]}


@pytest.mark.parametrize("form", [feedback.Comparison(), feedback.Vote(0.5)], ids=lambda form: form.kind)
def test_each_judgement_is_about_one_objective(form, tmp_path):
    community = replace(ONE, groups=(KIND,), form=form, judgements=16000, seed=12)
    votes = community.load()
    assert votes.objectives == tuple(WANTS) and votes.truth is None
    assert binomtest(int((votes.choices if len(votes.choices) else votes.grades).objective.sum()), 32000).pvalue > 1e-3
    again = artifacts.load(artifacts.save(votes, tmp_path / "votes"), Feedback)
    for o, (name, weights) in enumerate(WANTS.items()):
        u = counts(votes) @ weights
        for community_of in (votes, again):
            np.testing.assert_allclose(community.utility(community_of, name), [u, u], atol=1e-9)
        if len(votes.grades):
            block = votes.grades.where(votes.grades.objective == o)
            shown, answers, chance = block.item[:, None], block.value, lambda u: votes_on(u, 0.5, -1.0)
        else:
            part = votes.where(votes.choices.objective == o)
            shown, answers, chance = part.choices.slate, outcomes(part), pairs

        def p(weights, shown=shown, answers=answers, chance=chance) -> float:
            worth = np.round(counts(votes) @ weights, 9)[shown]
            return agrees(list(zip(map(tuple, worth.tolist()), answers.tolist(), strict=True)), chance)

        assert p(weights) > 1e-3
        assert p([1.0, 0, 0, 0]) < 1e-6
    total = sum(feedback.describe(votes).by_objective.values())
    assert list(feedback.describe(votes).by_objective) == list(WANTS) and total == 32000


def test_what_an_annotator_wants_differs_between_objectives():
    many = replace(SMALL, groups=(replace(KIND, size=1500),), prompts=30, judgements=1, spread=0.7)
    votes = many.load()
    phi = counts(votes)
    found = [np.linalg.lstsq(phi, many.utility(votes, name).T, rcond=None)[0].T - WANTS[name] for name in WANTS]
    for own in found:
        assert kstest(own.ravel() / 0.7, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 4 / np.sqrt(6000)


def test_one_objective_moves_no_random_number():
    plain, named = (
        replace(SMALL, groups=(*GROUPS[1:], replace(GROUPS[0], objectives=o))).load() for o in ({}, {"kind": {}})
    )
    assert named.objectives == ("kind",) and plain.objectives == ("overall",)
    np.testing.assert_array_equal(plain.choices.rank, named.choices.rank)
    np.testing.assert_array_equal(plain.truth.weights, named.truth.weights)


def test_overlapping_slates_are_judged_by_several():
    many = replace(SMALL, prompts=640, assignment=feedback.Overlapping(share=0.25, by=3))
    votes = many.load()
    by = {}
    for s, a in zip(map(tuple, votes.choices.slate.tolist()), votes.choices.annotator.tolist(), strict=True):
        by.setdefault(s, []).append(a)
    shared = [who for who in by.values() if len(set(who)) >= 3]
    assert sum(map(len, shared)) == pytest.approx(0.25 * 800, abs=8)  # 40 annotators, 5 of 20 acts each
    assert len(shared) == pytest.approx(5 * (40 // 3), abs=2)
    none = replace(many, assignment=feedback.Independent()).load()
    alone = Counter(map(tuple, none.choices.slate.tolist()))
    assert sum(n >= 3 for n in alone.values()) <= 2  # by chance
    with pytest.raises(InputError, match="only 2 annotators"):
        replace(ONE, assignment=feedback.Overlapping()).load()


def test_active_comparisons_tell_more():
    """The volume of what a least-squares fit leaves unknown is smaller than after as many random comparisons."""

    def known(assignment) -> float:
        votes = replace(SMALL, assignment=assignment, seed=2).load()
        s = votes.choices.slate
        assert (s[:, 0] != s[:, 1]).all() and (s[:, 0] // 6 == s[:, 1] // 6).all()
        assert votes.choices.context.tolist() == list(range(20)) * 40
        x = counts(votes)[s[:, 0]] - counts(votes)[s[:, 1]]
        return np.linalg.slogdet(x.T @ x)[1] / 2

    random = known(feedback.Independent())
    assert known(feedback.Active(rounds=4)) > random + 1
    assert abs(known(feedback.Active(rounds=4, of=1)) - random) < 0.5


def test_active_comparisons_are_those_that_tell_most():
    """By hand: of one style, a difference of 2 tells more than 1; of two, the one of which nothing is known."""
    phi = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])

    def often(shown, won) -> set[frozenset]:
        plan = assignment.Plan(30, 1, 1, 4, 2, phi, np.array(shown, int).reshape(-1, 2), np.array(won, int))
        slates = feedback.Active(of=200).slates(plan, np.random.default_rng(0))
        return {frozenset(s) for s in slates.tolist()}

    assert often([], []) == {frozenset((2, 3))}  # length sqrt 5, the largest
    assert often([[0, 2]] * 50, [0] * 50) <= {frozenset((i, 3)) for i in range(3)}  # the first style is known
    assert often([[0, 2]] * 50, [1] * 50) == {frozenset((0, 3))}  # and 3 against others would surely win or lose


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: feedback.BestOf(2), "size is 2"),
        (lambda: feedback.Correction(1), "size is 1; allowed: at least 2"),
        (lambda: feedback.Demonstration(1), "size is 1; allowed: at least 2"),
        (lambda: feedback.Vote(float("inf")), "threshold is"),
        (lambda: replace(ONE, form=feedback.Correction(6)), "candidates is 5; allowed: at least 6"),
        (lambda: feedback.Ranking(4, top=1), "top is 1; allowed: 2 to 4"),
        (lambda: feedback.Ranking(8), "have 40320 rankings"),
        (lambda: feedback.Rating((1.0, 0.0)), "thresholds is"),
        (lambda: feedback.Rating(()), "thresholds is"),
        (lambda: feedback.Approval(float("nan")), "threshold is"),
        (lambda: feedback.Comparison((1.0, 1.0)), "strengths is"),
        (lambda: feedback.Temperature(spread=-1.0), "spread is -1"),
        (lambda: feedback.Temperature(median=0.0), "median is 0"),
        (lambda: feedback.Fatigue(temperature=0.5), "temperature is 0.5"),
        (lambda: feedback.Flip(share=1.5), "share is 1.5"),
        (lambda: feedback.Overlapping(by=1), "by is 1"),
        (lambda: feedback.Active(rounds=1), "rounds is 1"),
        (lambda: replace(ONE, assignment=feedback.Active(), form=feedback.Rating()), "form is 'rating'"),
        (lambda: replace(ONE, assignment=feedback.Active(), judgements=4), "judgements is 4; allowed: at least 5"),
        (lambda: Group("g", 1, {}, attributes={"id": {"x": 1.0}}), "other than id"),
        (lambda: Group("g", 1, {}, attributes={"age": {"x": 0.5}}), "sum to 1"),
        (lambda: Group("g", 1, {}, item_spread=-1.0), "item_spread is -1"),
        (lambda: replace(ONE, groups=(Group("g", 1, {}, sees=("wit",)),)), "sees of 'g' is 'wit'"),
        (lambda: replace(KIND, objectives={"a": {"x": np.nan}}), r"objectives\['a'\]\['x'\] is nan"),
        (lambda: replace(ONE, groups=(replace(KIND, objectives={"a": {"wit": 1.0}}),)), "tastes of 'g' is 'wit'"),
        (lambda: replace(ONE, groups=(KIND,), assignment=feedback.Overlapping(by=2)), "assignment is 'overlapping'"),
        (lambda: replace(ONE, groups=(KIND,)).utility(ONE.load()), "objective is None; allowed: helpful, kind"),
        (lambda: ONE.utility(ONE.load(), "kind"), "objective is 'kind'; allowed: overall"),
        (lambda: replace(ONE, form=feedback.Ranking(6)), "candidates is 5; allowed: at least 6"),
        (lambda: bent(feedback.Collude("wit")), "collude names the style 'wit'"),
        (lambda: bent(feedback.Trigger("zebra")), "no response contains any of"),
    ],
)
def test_a_wrong_component_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_pydantic_reads_the_components():
    mixed = replace(
        SMALL,
        groups=(Group("g", 6, {}, attributes={"age": {"young": 0.5, "old": 0.5}}, sees=("warmth",)),),
        form=feedback.Ranking(3, top=2),
        behaviours=(feedback.Flip(0.2), feedback.Collude("detail")),
        assignment=feedback.Overlapping(0.5),
    )
    adapter = pydantic.TypeAdapter(Community)
    assert adapter.validate_python(adapter.dump_python(mixed, mode="json")) == mixed
    with pytest.raises(pydantic.ValidationError, match="flipp"):
        adapter.validate_python(adapter.dump_python(SMALL, mode="json") | {"behaviours": [{"kind": "flipp"}]})


EVERY_FORM = tuple(form() for form in get_args(get_args(Form)[0]))
"""Of each form that a community may have, its defaults."""


@pytest.mark.parametrize("form", EVERY_FORM, ids=lambda form: form.kind)
def test_pydantic_reads_every_form(form):
    adapter, community = pydantic.TypeAdapter(Community), replace(SMALL, groups=(KIND,), form=form)
    assert adapter.validate_python(adapter.dump_python(community, mode="json")) == community
    assert adapter.validate_python(adapter.dump_python(SMALL, mode="json") | {"form": {"kind": form.kind}}).form == form


def rows(votes: Feedback) -> Counter:
    """Return all judgements, each as what the columns of its block say, with how often it is there."""
    found: Counter = Counter()
    for block in (votes.choices, votes.grades):
        names = sorted(vars(block))
        columns = zip(*(map(str, vars(block)[name].tolist()) for name in names), strict=True)
        found.update(tuple(zip(names, row, strict=True)) for row in columns)
    return found


@pytest.mark.parametrize(
    "forms", [*((form,) for form in EVERY_FORM), EVERY_FORM], ids=lambda f: f[0].kind if len(f) == 1 else "all"
)
def test_every_form_goes_all_the_way(forms, tmp_path):
    """Read, described, split in every way, saved and read again; of several forms at once as of each."""
    parts = [replace(SMALL, form=form).load() for form in forms]
    if len(parts) > 1:
        parts = [feedback.concatenate(*(replace(part, truth=None) for part in parts))]
    votes = parts[0]
    timed = [replace(block, time=block.context + 10**9) for block in (votes.choices, votes.grades)]
    votes = replace(votes, choices=timed[0], grades=timed[1])

    aside = votes.provenance["set_aside"]
    assert set(aside) == {"a correction that changes nothing"} & set(aside)
    assert bool(aside) == any(form.kind == "correction" for form in forms)
    total = 40 * 20 * len(forms) - sum(aside.values())
    summary = feedback.describe(votes)
    names = {"rating": "rating 1-5 (rating)", "approval": "approval (approval)", "yes-no": "good? (label)"}
    names["vote"] = "agree/pass/disagree (vote)"
    every = {names.get(form.kind, form.kind): 800 for form in forms}
    if aside:
        every["correction"] -= sum(aside.values())
    assert summary.by_form == every and summary.judgements == total and summary.set_aside == aside

    there = rows(votes)
    assert there.total() == total
    splits = [feedback.ByJudgement(), feedback.ByAnnotator(group="group"), feedback.ByPrompt(), feedback.ByTime()]
    for train, test in (feedback.holdout(votes), *(split.split(votes) for split in splits)):
        late = test.provenance["set_aside"].get("the same annotator judged the same before the cut", 0)
        assert rows(train) + rows(test) <= there and (rows(train) + rows(test)).total() + late == total
        assert 0.1 * total < rows(test).total() + late < 0.35 * total

    again = artifacts.load(artifacts.save(votes, tmp_path / "votes"), Feedback)
    assert rows(again) == there and again.scales == votes.scales and again.provenance["set_aside"] == aside
    assert feedback.describe(again) == summary
