import pytest

from pluralign import choice, config
from pluralign.errors import InputError

TABLE = """
feedback: {kind: table, path: "votes.csv", prompt: p, first: a, second: b, outcome: o, annotator: w}
features: {kind: lexicon, categories: {warm: [dear]}}
"""


def test_every_rule_can_be_named_and_comes_back():
    final = [r for r in vars(choice).values() if isinstance(r, type) and hasattr(r, "kind")]
    kinds = sorted(r.kind for r in final if issubclass(r, choice.AbstractRule))
    e = config.parse(TABLE + f"rules: [{', '.join(f'{{kind: {kind}}}' for kind in kinds)}]")
    assert [rule.kind for rule in e.rules] == kinds
    assert {type(rule) for rule in e.rules} == {r for r in final if issubclass(r, choice.AbstractRule)}
    assert config.parse(config.dump(e)) == e


def test_what_rules_take():
    e = config.parse(TABLE + "rules: [{kind: positional, scores: [3, 1, 0]}, {kind: pref-voting, method: bucklin}]")
    assert e.rules == (choice.Positional((3.0, 1.0, 0.0)), choice.PrefVoting("bucklin"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{kind: schulz}]", r"rules\.0\.kind is 'schulz'.*'schulze'"),
        ("rules: [{kind: positional, scores: [0, 1]}]", "scores are"),
        ("rules: [{kind: nash}, {kind: borda}]\nrisk: {kind: cvar}", "risk is cvar, but borda cannot be cautious"),
    ],
)
def test_what_they_do_not_take(text, message):
    with pytest.raises(InputError, match=message):
        config.parse(TABLE + text)
    config.parse(TABLE + "rules: [{kind: nash}, {kind: nash-lottery}]\nrisk: {kind: cvar}")


def test_a_rule_with_other_numbers_has_another_name():
    """So that one experiment may hold both."""
    rules = [
        choice.Gini(),
        choice.Gini(3),
        choice.AlphaFair(0.5),
        choice.Positional((3.0, 1.0, 0.0)),
        choice.Leximin(4),
    ]
    rules += [choice.PrefVoting("minimax"), choice.MaximalLottery(entropy=True)]
    named = ["gini", "gini-3", "alpha-fair-0.5", "positional-3-1-0", "leximin-4", "pref-voting-minimax"]
    assert [rule.name for rule in rules] == [*named, "maximal-lottery-entropy"]
    assert [rule.kind for rule in rules[:2]] == ["gini", "gini"]
