"""Every feature map can be written in a config, and a wrong key in it is named by its path."""

import pytest

from pluralign import config
from pluralign.errors import InputError
from pluralign.features import Items

TABLE = """
feedback: {kind: table, path: "votes.csv", prompt: p, first: a, second: b, outcome: o, annotator: w}
features: {kind: lexicon, categories: {warm: [dear]}}
"""
MAPS = {"{kind: items, across: true}": Items(across=True)}


@pytest.mark.parametrize("text", MAPS)
def test_a_feature_map_survives_a_round_trip(text):
    experiment = config.parse(TABLE, {"features": text})
    assert experiment.features == MAPS[text]
    assert config.parse(config.dump(experiment)) == experiment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: items, acros: true}", r"features\.acros is not a key.*Did you mean 'across'"),
        ("{kind: items, unknown: guess}", r"features\.unknown: .*'zero' or 'refuse'"),
    ],
)
def test_a_wrong_key_names_its_path(text, message):
    with pytest.raises(InputError, match=message):
        config.parse(TABLE, {"features": text})
