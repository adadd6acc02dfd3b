import pytest

from pluralign import choice, config
from pluralign.errors import InputError

TABLE = """
feedback: {kind: table, path: "votes.csv", prompt: p, first: a, second: b, outcome: o, annotator: w}
features: {kind: lexicon, categories: {warm: [dear]}}
"""


@pytest.mark.parametrize(("key", "base"), [("risk", choice.AbstractRisk), ("scale", choice.AbstractScale)])
def test_every_risk_and_scale_can_be_named_and_comes_back(key, base):
    final = [c for c in vars(choice).values() if isinstance(c, type) and issubclass(c, base) and hasattr(c, "kind")]
    assert len(final) >= 5
    for component in final:
        e = config.parse(TABLE + f"{key}: {{kind: {component.kind}}}")
        assert getattr(e, key) == component()
        assert config.parse(config.dump(e)) == e


def test_what_rules_and_risks_take():
    text = """
    rules:
    - {kind: alpha-fair, alpha: 3}
    - {kind: owa, weights: [2, 1]}
    - {kind: gini, delta: 3}
    - {kind: chi-square-robust, radius: 1}
    risk: {kind: ellipsoid, radius: 2}
    scale: {kind: rank}
    """
    e = config.parse(TABLE + "\n".join(line.removeprefix("    ") for line in text.splitlines()))
    rules = choice.AlphaFair(3.0), choice.OWA((2.0, 1.0)), choice.Gini(3), choice.ChiSquareRobust(1.0)
    assert (e.rules, e.risk, e.scale) == (rules, choice.Ellipsoid(2.0), choice.RankScale())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{kind: owa, weights: [1, 2]}]", "not increase"),
        ("rules: [{kind: gini, delta: 1.5}]", "delta"),
        ("rules: [{kind: alpha-fair, alfa: 2}]", "Did you mean 'alpha'"),
        ("risk: {kind: semideviation, k: 2}", "k is 2"),
        ("scale: {kind: rank}\ntrain: [nash]\npolicy: {kind: dpo, model: tiny}", "scale is rank"),
    ],
)
def test_what_they_do_not_take(text, message):
    with pytest.raises(InputError, match=message):
        config.parse(TABLE + text)
