import re

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.special import erf

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features import Concatenate, Encoder, Items, Lexicon, RandomFourier, Scorers
from pluralign.types import Features

COUNTS = Lexicon({"sea": ("sea", "salt", "deep"), "sky": ("sky", "blue"), "who": ("who", "asks")}, length=True)


def squares(phi, ids) -> np.ndarray:
    """Mean square within prompts of each feature, item by item."""
    phi, ids = np.asarray(phi, np.float64), np.asarray(ids)
    rows = [row - phi[ids == i].mean(0) for row, i in zip(phi, ids, strict=True)]
    return np.mean(np.square(rows), axis=0)


@pytest.mark.parametrize("bandwidth", [0.7, 2.0, None])
def test_inner_products_are_near_the_kernel(bandwidth, texts, feedback):
    ids, prompts, responses = texts(40)
    votes = feedback(ids, prompts, responses)
    z = COUNTS.encode(votes).phi
    within = [d for i in set(ids) for d in pdist(z[np.array(ids) == i])]
    phi = RandomFourier(COUNTS, count=20_000, bandwidth=bandwidth).encode(votes)
    width = np.median(within) if bandwidth is None else bandwidth
    assert phi.provenance["bandwidth"] == pytest.approx(width, rel=1e-5)
    kernel = np.exp(-cdist(z, z, "sqeuclidean") / (2 * width**2))
    found = phi.phi.astype(np.float64) @ phi.phi.T.astype(np.float64)
    assert np.abs(found - kernel).max() < 0.04  # six standard deviations of 1 / sqrt(20000)
    wrong = np.exp(-cdist(z, z, "sqeuclidean") / (2 * (1.2 * width) ** 2))
    assert np.abs(found - wrong).max() > 0.04


def test_the_error_falls_with_the_root_of_the_count(texts, feedback):
    votes = feedback(*texts(40))
    z = COUNTS.encode(votes).phi
    kernel = np.exp(-cdist(z, z, "sqeuclidean") / 2)
    errors = {}
    for count in (50, 800):
        maps = [RandomFourier(COUNTS, count=count, bandwidth=1.0, seed=s) for s in range(20)]
        gaps = [m.encode(votes).phi @ m.encode(votes).phi.T - kernel for m in maps]
        errors[count] = np.sqrt(np.mean(np.square(gaps)))
        assert errors[count] < 1 / np.sqrt(count)
        assert abs(np.mean(gaps)) < 3 * errors[count] / np.sqrt(20)  # no bias: the mean over seeds goes to 0
    assert errors[50] / errors[800] == pytest.approx(4, rel=0.25)


def test_a_linear_reward_of_fourier_features_is_a_curved_one(feedback):
    """Ridge regression on them finds erf(x), which no linear reward of the length comes near."""
    x = np.linspace(-2, 2, 41)
    responses = [f"r{i}" for i in range(41)]
    at = dict(zip(responses, x, strict=True))
    number = Scorers({"x": lambda p, r: [at[t] for t in r]}, standardise=False)
    votes = feedback([0] * 41, ["why"] * 41, responses)
    residual = {}
    for name, features in (("bent", RandomFourier(number, count=300, bandwidth=0.5)), ("straight", number)):
        phi = features.encode(votes).phi.astype(np.float64)
        fitted = phi @ np.linalg.solve(phi.T @ phi + 1e-3 * np.eye(phi.shape[1]), phi.T @ erf(2 * x))
        residual[name] = np.abs(fitted - erf(2 * x)).max()
    assert residual["bent"] < 0.03 < 0.3 < residual["straight"]


def test_parts_contribute_the_same_whatever_their_number_and_units(bert, texts, feedback, tmp_path):
    ids, prompts, responses = texts(60)
    votes = feedback(ids, prompts, responses)
    encoder = Encoder(str(bert), dimensions=7, device="cpu")
    metres = Scorers({"mm": lambda p, r: [1000.0 * len(t) for t in r]}, standardise=False)
    parts = (encoder, COUNTS, metres, RandomFourier(encoder, count=30, seed=3))
    both = Concatenate(parts)
    phi = both.encode(votes)
    sizes = [8, 4, 1, 30]
    assert phi.names[0] == "encoder.pc1" and phi.names[8:13] == (
        *(f"lexicon.{n}" for n in (*COUNTS.categories, "length")),
        "scorers.mm",
    )
    assert phi.names[-1] == "random-fourier.rff30"
    blocks = np.split(phi.phi, np.cumsum(sizes)[:-1], axis=1)
    totals = [squares(block, ids).sum() for block in blocks]
    np.testing.assert_allclose(totals, sum(sizes) / 4, rtol=1e-4)
    assert squares(phi.phi, ids).mean() == pytest.approx(1, rel=1e-4)
    for part, block in zip(parts, blocks, strict=True):  # one scale for each part: its own features are kept
        alone = part.encode(votes).phi
        alone = alone - alone.mean(0)
        moved = block - block.mean(0)
        np.testing.assert_allclose(moved, alone * np.sqrt((moved**2).sum() / (alone**2).sum()), atol=2e-3)
    artifacts.save(phi, tmp_path / "phi")
    loaded = artifacts.load(tmp_path / "phi", Features)
    assert loaded.provenance == phi.provenance
    np.testing.assert_allclose(both.encode_texts(prompts[:9], responses[:9], loaded), phi.phi[:9], atol=2e-3)


def test_what_a_part_learned_it_finds_again(texts, feedback):
    """Alternatives are known by the table of their own part, also below a kernel."""
    ids, prompts, responses = texts(20)
    votes = feedback(ids, prompts, responses)
    for features in (Concatenate((Items(), COUNTS)), RandomFourier(Concatenate((COUNTS, Items())), count=16)):
        phi = features.encode(votes)
        found = features.encode_texts(prompts[::-1], responses[::-1], phi)
        np.testing.assert_allclose(found, phi.phi[::-1], atol=1e-5)
        assert np.abs(found - phi.phi).max() > 0.1


def test_features_of_other_parts_are_refused(texts, feedback):
    ids, prompts, responses = texts(20)
    votes = feedback(ids, prompts, responses)
    other = Lexicon({"sea": ("sea",)})
    like = Concatenate((COUNTS, Items())).encode(votes)
    for wrong in (Concatenate((other, Items())), Concatenate((COUNTS, Items(), other))):
        with pytest.raises(InputError, match="do not mean the same"):
            wrong.encode_texts(prompts, responses, like)
    bent = RandomFourier(COUNTS, count=8).encode(votes)
    for wrong in (RandomFourier(other, count=8), RandomFourier(COUNTS, count=8, seed=1), COUNTS):
        with pytest.raises(InputError, match="do not mean the same"):
            wrong.encode_texts(prompts, responses, bent)
    same = RandomFourier(COUNTS, count=9, bandwidth=5.0)  # frequencies are those of `bent`
    np.testing.assert_allclose(same.encode_texts(prompts, responses, bent), bent.phi, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Concatenate((COUNTS,)), "parts must be at least two"),
        (lambda: Concatenate((COUNTS, COUNTS), names=("a", "a")), "names are ('a', 'a') for 2 parts"),
        (lambda: Concatenate((COUNTS, COUNTS), names=("a",)), "names are ('a',) for 2 parts"),
        (lambda: RandomFourier(COUNTS, count=0), "count is 0 and seed 0"),
        (lambda: RandomFourier(COUNTS, bandwidth=0.0), "bandwidth is 0.0"),
        (lambda: RandomFourier(Concatenate((COUNTS, RandomFourier(COUNTS)))), "features that are not bent already"),
    ],
)
def test_what_cannot_be_combined_is_refused(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_a_part_that_says_nothing_is_named(feedback):
    votes = feedback([0, 0], ["why"] * 2, ["sea", "sky"])
    with pytest.raises(InputError, match="the features of 'lexicon2' are the same for all responses to a prompt"):
        Concatenate((COUNTS, Lexicon({"green": ("green",)}))).encode(votes)
    with pytest.raises(InputError, match=r"median distance between responses to a prompt is 0\.0"):
        RandomFourier(Lexicon({"green": ("green",)})).encode(votes)
