import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pydantic
import pytest
from scipy.stats import binomtest, chi2, chisquare, kstest

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.feedback import Community, Group
from pluralign.feedback.community import LAPSE
from pluralign.types import Feedback

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
    rows = []
    phi = counts(votes)
    for (one, two), a in zip(votes.choices.slate, votes.choices.annotator, strict=True):
        w1, w2 = (np.exp(phi[i] @ votes.truth.weights[a]) for i in (one, two))
        v = 0.0 if tie is None else np.exp(tie)
        rows.append(np.array([w1, w2, v * np.sqrt(w1 * w2)]) / (w1 + w2 + v * np.sqrt(w1 * w2)))
    return np.array(rows)


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
