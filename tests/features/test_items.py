import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import minimize
from scipy.special import logsumexp

from pluralign import artifacts, config, pipeline
from pluralign.errors import InputError
from pluralign.features import Items, Lexicon
from pluralign.types import Features, RewardPosterior

FISH = ["tuna", "eel", "tuna", "egg", "eel", "tuna"]
MEALS = [0, 0, 1, 1, 1, 1]
ASKED = ["lunch"] * 2 + ["dinner"] * 4


@pytest.mark.parametrize(
    ("across", "names", "columns"),
    [
        (True, ("tuna", "eel", "egg"), [0, 1, 0, 2, 1, 0]),
        (False, ("lunch: tuna", "lunch: eel", "dinner: tuna", "dinner: egg", "dinner: eel"), [0, 1, 2, 3, 4, 2]),
    ],
)
def test_every_alternative_has_a_feature(across, names, columns, feedback):
    items = Items(across=across)
    phi = items.encode(feedback(MEALS, ASKED, FISH))
    assert phi.names == names
    np.testing.assert_array_equal(phi.phi, [[float(k == c) for k in range(len(names))] for c in columns])
    np.testing.assert_array_equal(phi.prompt_id, MEALS)
    again = items.encode_texts(ASKED[::-1], [f" {fish}\n" for fish in FISH[::-1]], phi)
    np.testing.assert_array_equal(again, phi.phi[::-1])


def test_with_one_prompt_names_are_those_of_the_responses(feedback):
    assert Items().encode(feedback([0] * 3, ["lunch"] * 3, ["tuna", "eel", "egg"])).names == ("tuna", "eel", "egg")


def test_long_texts_that_begin_alike_have_names_of_their_own(feedback):
    long = "salt " * 40
    phi = Items().encode(feedback([0] * 4, ["why"] * 4, [long + "sea", long + "tears", "a  b", "a b"]))
    assert len(set(phi.names)) == 4 and max(map(len, phi.names)) < 80
    np.testing.assert_array_equal(phi.phi, np.eye(4))


def test_saved_features_know_their_alternatives(feedback, tmp_path):
    items = Items()
    phi = items.encode(feedback(MEALS, ASKED, FISH))
    artifacts.save(phi, tmp_path / "phi")
    loaded = artifacts.load(tmp_path / "phi", Features)
    assert loaded.provenance == phi.provenance
    np.testing.assert_array_equal(items.encode_texts(ASKED, FISH, loaded), phi.phi)


def test_an_unknown_response_has_no_worth_and_is_counted(feedback):
    phi = Items().encode(feedback(MEALS, ASKED, FISH))
    prompts, responses = ["lunch", "lunch", "dinner"], ["eel", "egg", "squid"]  # nobody had egg for lunch
    with pytest.warns(UserWarning, match=r"2 of 3 responses are no alternative .* such as 'egg'; nothing is known"):
        found = Items().encode_texts(prompts, responses, phi)
    np.testing.assert_array_equal(found, [phi.phi[1], np.zeros(5), np.zeros(5)])
    with pytest.raises(InputError, match=r"2 of 3 responses are no alternative .* set unknown = 'zero'"):
        Items(unknown="refuse").encode_texts(prompts, responses, phi)
    np.testing.assert_array_equal(Items(unknown="refuse").encode_texts(["lunch"], ["eel"], phi), phi.phi[[1]])


def test_features_of_another_map_are_refused(feedback):
    votes = feedback(MEALS, ASKED, FISH)
    with pytest.raises(InputError, match="across = True, this map has False"):
        Items().encode_texts(ASKED, FISH, Items(across=True).encode(votes))
    with pytest.raises(InputError, match="kind = 'lexicon', this map has 'items'"):
        Items().encode_texts(ASKED, FISH, Lexicon({"fish": ("eel",)}).encode(votes))


def test_too_many_alternatives_are_sent_elsewhere(feedback):
    many = [f"answer {i}" for i in range(2001)]
    with pytest.raises(InputError, match=r"2,001 different alternatives.*2,000 .*across = true.*reward\.ItemEffects"):
        Items().encode(feedback([0] * 2001, ["why"] * 2001, many))
    few = feedback([0] * 3, ["why"] * 3, many[:3])
    assert Items(most=3).encode(few).phi.shape == (3, 3)
    with pytest.raises(InputError, match=re.escape("Items takes 2 (`most`)")):
        Items(most=2).encode(few)


def test_fields_out_of_range_are_named():
    with pytest.raises(InputError, match="most is 1; it must be at least 2"):
        Items(most=1)


EXPERIMENT = """
feedback: {kind: preflib, path: %s}
features: {kind: items}
reward: {kind: pooled}
inference: {kind: svi, steps: 1500, draws: 200}
draws: 20
"""


def rankings() -> tuple[np.ndarray, str]:
    """Return 300 rankings of four kinds of sushi from a Plackett-Luce model, and the file that says so."""
    rng = np.random.default_rng(0)
    worth = np.array([1.2, 0.3, -0.4, -1.1])
    orders = np.argsort(-(worth + rng.gumbel(size=(300, 4))), axis=1)
    lines, counts = np.unique(orders, axis=0, return_counts=True)
    names = ["shrimp", "sea eel", "tuna", "squid"]
    head = ["# FILE NAME: s.soc", "# TITLE: sushi", "# DATA TYPE: soc", "# NUMBER ALTERNATIVES: 4",
            "# NUMBER VOTERS: 300", f"# NUMBER UNIQUE ORDERS: {len(lines)}",
            *(f"# ALTERNATIVE NAME {i + 1}: {name}" for i, name in enumerate(names))]  # fmt: skip
    body = [f"{c}: {', '.join(str(i + 1) for i in line)}" for c, line in zip(counts, lines, strict=True)]
    return orders, "\n".join([*head, *body]) + "\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")  # so few draws are for speed only
def test_sushi_gets_its_worths(tmp_path):
    """From a PrefLib file to a report: worths are near those of most likelihood, found by scipy on the orders."""
    orders, text = rankings()
    (tmp_path / "s.soc").write_text(text)
    experiment = config.parse(EXPERIMENT % (tmp_path / "s.soc"), {"holdout": "0"})
    console = Console(record=True, width=80, file=io.StringIO())
    pipeline.run(experiment, tmp_path / "run", console)
    posterior = RewardPosterior.load(tmp_path / "run" / "posterior")
    assert posterior.features == ("shrimp", "sea eel", "tuna", "squid")

    def loss(worth):
        left = worth[orders]
        return -sum((left[:, k] - logsumexp(left[:, k:], axis=1)).sum() for k in range(3)) + worth.mean() ** 2

    best = minimize(loss, np.zeros(4)).x
    worths = posterior.weights[:, 0, 0].mean(0)
    np.testing.assert_allclose(worths - worths.mean(), best - best.mean(), atol=0.15)
    numbers = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "shrimp" in json.dumps(numbers)
