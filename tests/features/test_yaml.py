"""Every feature map can be written in a config, and a wrong key in it is named by its path."""

from difflib import get_close_matches

import pytest

from pluralign import config
from pluralign.errors import InputError
from pluralign.features import Classifier, Concatenate, Encoder, FineTuned, Items, Lexicon, RandomFourier, Scorers

TABLE = """
feedback: {kind: table, path: "votes.csv", prompt: p, first: a, second: b, outcome: o, annotator: w}
features: {kind: lexicon, categories: {warm: [dear]}}
"""
MAPS = {
    "{kind: items, across: true}": Items(across=True),
    "{kind: scorers, classifiers: [{name: mood, model: some/where, labels: [glad]}], standardise: false}": Scorers(
        classifiers=(Classifier("mood", "some/where", labels=("glad",)),), standardise=False
    ),
    "{kind: scorers, functions: {far: 'difflib:get_close_matches'}}": Scorers({"far": get_close_matches}),
    "{kind: fine-tuned, encoder: {kind: encoder, model: some/where, pooling: last}, group: half, epochs: 2}": FineTuned(
        Encoder("some/where", pooling="last"), group="half", epochs=2
    ),
    "{kind: random-fourier, of: {kind: encoder, model: some/where}, count: 9, bandwidth: 2}": RandomFourier(
        Encoder("some/where"), count=9, bandwidth=2.0
    ),
    "{kind: concatenate, names: [a, b], parts: [{kind: items}, {kind: random-fourier, of: {kind: items}}]}": Concatenate(
        (Items(), RandomFourier(Items())), names=("a", "b")
    ),
    "{kind: random-fourier, of: {kind: concatenate, parts: [{kind: items}, {kind: lexicon, categories: {a: [b]}}]}}": RandomFourier(
        Concatenate((Items(), Lexicon({"a": ("b",)})))
    ),
}


@pytest.mark.parametrize("text", MAPS)
def test_a_feature_map_survives_a_round_trip(text):
    experiment = config.parse(TABLE, {"features": text, "holdout": "0"})
    assert experiment.features == MAPS[text]
    assert config.parse(config.dump(experiment)) == experiment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: items, acros: true}", r"features\.acros is not a key.*Did you mean 'across'"),
        ("{kind: items, unknown: guess}", r"features\.unknown: .*'zero' or 'refuse'"),
        (
            "{kind: scorers, classifiers: [{name: a, modell: b}]}",
            r"features\.classifiers\.0\.modell is not a key.*'model'",
        ),
        ("{kind: scorers, functions: {loud: count}}", r"features\.functions\.loud: 'count' names no function"),
        (
            "{kind: scorers, functions: {loud: 'math:shout'}}",
            r"'math:shout' names no function.*has no attribute 'shout'",
        ),
        ("{kind: scorers, functions: {loud: 'no.where:f'}}", r"'no.where:f' names no function.*PYTHONPATH"),
        ("{kind: scorers, functions: {loud: 3}}", r"features\.functions\.loud: Input should be callable"),
        ("{kind: concatenate, parts: [{kind: items, most: few}, {kind: items}]}", r"features\.parts\.0\.most: "),
        ("{kind: concatenate, parts: [{kind: concat}, {kind: items}]}", r"features\.parts\.0\.kind is 'concat'; it is"),
        ("{kind: random-fourier, of: {kind: items, mst: 3}}", r"features\.of\.mst is not a key.*'most'"),
        ("{kind: random-fourier, of: {kind: random-fourier}}", r"features\.of\.kind is 'random-fourier'; it is one of"),
        ("{kind: scorers}", r"features: scorers are \[\]; give at least one"),
    ],
)
def test_a_wrong_key_names_its_path(text, message):
    with pytest.raises(InputError, match=message):
        config.parse(TABLE, {"features": text})
