from pathlib import Path

import pytest

from pluralign import config
from pluralign.choice import CVaR, Maximin, Nash
from pluralign.errors import InputError
from pluralign.reward import NUTS, SVI

CONFIGS = Path(__file__).parents[1] / "configs"
TABLE = """
feedback: {kind: table, path: "votes.csv", prompt: p, first: a, second: b, outcome: o, annotator: w}
features: {kind: lexicon, categories: {warm: [dear]}}
"""


def test_every_config_in_the_repository_parses_and_survives_a_round_trip(monkeypatch):
    monkeypatch.setenv("PLURALIGN_DATA", "data")
    found = sorted(CONFIGS.glob("*.yaml"))
    assert {"quickstart.yaml", "llmfao.yaml"} <= {path.name for path in found}
    for path in found:
        experiment = config.load(path)
        assert config.parse(config.dump(experiment)) == experiment


def test_defaults_and_overrides():
    experiment = config.parse(
        TABLE,
        {
            "inference.kind": "nuts",
            "inference.draws": "7",
            "risk": "{kind: cvar, tail: 0.5}",
            "rules": "[{kind: nash}, {kind: maximin}]",
        },
    )
    assert experiment.inference == NUTS(draws=7)
    assert experiment.risk == CVaR(tail=0.5)
    assert experiment.rules == (Nash(), Maximin())
    assert config.parse(TABLE, {"inference": "{kind: svi}"}).inference == SVI()
    assert config.parse(TABLE + "rules: [{kind: nash}]", {"rules.0.kind": "maximin"}).rules == (Maximin(),)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"inference.drawz": "3"}, r"inference\.drawz is not a key; inference takes .*Did you mean 'draws'"),
        ({"featurez": "3"}, r"featurez is not a key; config takes .*Did you mean 'features'"),
        ({"inference.kind": "nutz"}, r"inference\.kind is 'nutz'; it is one of nuts, svi.*Did you mean 'nuts'"),
        ({"features": "{length: true}"}, r"features needs a `kind`: one of encoder, lexicon"),
        ({"inference": "{kind: nuts, draws: many}"}, r"inference\.draws: .*integer"),
        ({"risk": "{kind: cvar, tail: 1.5}"}, r"risk.*tail"),
        ({"rules": "[{kind: nash}, {kind: nash}]"}, "each once"),
        ({"train": "[nassh]", "policy": "{kind: dpo, model: m}"}, r"'nassh'.*"),
        ({"train": "[nash]"}, "there is no policy"),
        ({"features": "{kind: lexicon}"}, "features lacks categories, which has no default"),
        ({"rules.5.kind": "nash"}, "rules"),
        ({"holdout": "1.5"}, "holdout is 1.5"),
        ({"feedback.path": "${PLURALIGN_NO_SUCH}/x"}, "PLURALIGN_NO_SUCH"),
    ],
)
def test_a_wrong_key_names_its_path_and_the_nearest_right_one(overrides, message):
    with pytest.raises(InputError, match=message):
        config.parse(TABLE, overrides)


COMMUNITY = """
feedback: {kind: community, styles: {warm: [dear], dry: [exactly]}, groups: [{name: all, size: 3, tastes: {warm: 1}}]}
features: {kind: lexicon, categories: {warm: [dear]}}
policy: {kind: dpo, model: {kind: scratch}}
"""


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("feedback.form", "{kind: ranking, size: many}", r"feedback\.form\.size: "),
        ("feedback.form", "{kind: ranking, sizze: 3}", r"feedback\.form\.sizze is not a key.*'size'"),
        ("feedback.form", "{kind: rankin}", r"feedback\.form\.kind is 'rankin'.*'ranking'"),
        ("feedback.behaviours", "[{kind: flip, share: few}]", r"feedback\.behaviours\.0\.share: "),
        ("feedback.groups.0.tastes.warm", "much", r"feedback\.groups\.0\.tastes\.warm: "),
        ("reward.response.rater.lapse", "perhaps", r"reward\.response\.rater\.lapse: "),
        ("policy.steps", "many", r"policy\.steps: "),
        ("policy.model", "{kind: scratch, width: wide}", r"policy\.model\.width: "),
        ("feedback.kind", "several", r"feedback\.(styles|groups) is not a key"),
    ],
)
def test_a_path_in_nested_unions_is_one_that_can_be_typed(key, value, path):
    with pytest.raises(InputError, match=rf"(^|  ){path}"):
        config.parse(COMMUNITY, {key: value})


def test_a_path_through_parts_and_a_choice_of_types():
    ratings = "{kind: ratings, path: g.csv, prompt: p, response: r, annotator: w, grades: g, scales: {a: [1, x]}}"
    with pytest.raises(InputError, match=r"  feedback\.parts\.0\.scales\.a\.0: "):
        config.parse(TABLE, {"feedback": f"{{kind: several, parts: [{ratings}]}}"})


@pytest.mark.parametrize(
    ("population", "message"),
    [
        ("{margins: {sex: {f: 0.5, m: 0.6}}}", r"population: margins of 'sex'.*sum to 1, not 1\.1"),
        ("{margins: {}}", "population: margins name no attribute"),
        (
            "{margins: {sex: {no: 0.5, f: 0.5}}}",
            r"population\.margins\.sex\.0: the name 0 is no text; put it in quotes",
        ),
        ("{margins: {sex: {f: half}}}", r"population\.margins\.sex\.f: "),
        ("{rake: true}", "population lacks margins"),
        ("{margin: {sex: {f: 1}}}", r"population\.margin is not a key.*'margins'"),
    ],
)
def test_what_is_wrong_with_a_population_is_named(population, message):
    with pytest.raises(InputError, match=message):
        config.parse(TABLE, {"population": population})


def test_weights_of_annotators_need_annotators_as_voters():
    with pytest.raises(InputError, match="a pooled reward has one voter"):
        config.parse(TABLE, {"population": "{margins: {sex: {f: 1.0}}, rake: true}", "reward": "{kind: pooled}"})


def test_environment_variables_and_their_defaults(monkeypatch):
    monkeypatch.setenv("PLURALIGN_TEST_FOLDER", "there")
    text = TABLE.replace("votes.csv", "${PLURALIGN_TEST_FOLDER}/${PLURALIGN_UNSET:-votes}.csv")
    assert str(config.parse(text).feedback.path) == "there/votes.csv"


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words"])
def test_what_is_no_config_says_so(text):
    with pytest.raises(InputError, match=r"config (is not YAML|must be a mapping)"):
        config.parse(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.yaml"):
        config.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("kind", ["by-judgement", "by-annotator", "by-prompt", "by-time"])
def test_every_split_can_be_named_and_comes_back(kind):
    e = config.parse(f"{TABLE}\nholdout: {{kind: {kind}, share: 0.3}}")
    assert e.holdout.kind == kind and e.holdout.share == 0.3
    assert config.parse(config.dump(e)) == e
    with pytest.raises(InputError, match=r"holdout.kind is 'by-promt'.*'by-prompt'"):
        config.parse(f"{TABLE}\nholdout: {{kind: by-promt}}")


def test_what_is_held_out_is_what_the_split_says():
    votes = config.parse(COMMUNITY).feedback.load()
    train, test = config.parse(f"{COMMUNITY}\nholdout: {{kind: by-prompt, share: 0.5}}").split(votes)
    prompts = [set(votes.prompt_id[part.choices.slate[:, 0]].tolist()) for part in (train, test)]
    assert prompts[0] and prompts[1] and not prompts[0] & prompts[1]
    train, test = config.parse(f"{COMMUNITY}\nholdout: 0").split(votes)
    assert len(test.choices) == 0 and len(train.choices) == len(votes.choices)


def test_terms_name_a_function_or_a_classifier(tmp_path, monkeypatch):
    (tmp_path / "myscores.py").write_text("def words(prompts, responses): return [len(r.split()) for r in responses]")
    monkeypatch.syspath_prepend(tmp_path)
    online = f"{TABLE}\nonline: {{kind: ppo, model: {{kind: scratch}}}}\ntrain_online: [nash]\nterms: "
    toxic = "{name: toxicity, classifier: {model: some/where, label: toxic}, at_most: -3}"
    experiment = config.parse(f"{online}[{{name: length, function: 'myscores:words', weight: -0.1}}, {toxic}]")
    length, classifier = (beside.term() for beside in experiment.terms)
    assert length.ask(["p"] * 2, ["a b c", "d"]).tolist() == [3, 1] and length.weight == -0.1
    assert classifier.limits == {"toxicity at most": (-1.0, -3.0)}
    assert config.parse(config.dump(experiment)) == experiment
    for term, message in {
        "{name: a}": r"terms\.0: the term 'a' takes either a function or a classifier",
        "{name: a, function: 'myscores:word'}": r"terms\.0\.function: 'myscores:word' names no function",
        "{name: a, function: 'myscores:words', rate: 0}": r"terms\.0: rate of the term 'a' is 0",
        "{name: a, function: 'myscores:words', at_lest: 0}": r"terms\.0\.at_lest is not a key.*'at_least'",
    }.items():
        with pytest.raises(InputError, match=message):
            config.parse(f"{online}[{term}]")
    with pytest.raises(InputError, match=r"terms name .*'a'.*train_online names no rule"):
        config.parse(f"{TABLE}\nterms: [{{name: a, function: 'myscores:words'}}]")
