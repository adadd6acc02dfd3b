import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from pluralign import artifacts, comparison, config, pipeline
from pluralign.errors import InputError
from pluralign.types import Choice, Evaluation, RewardPosterior

SMALL = """
x-styles: &styles {warmth: [dear, lovely, glad], detail: [exactly, measured, because]}
feedback:
  kind: community
  styles: *styles
  groups:
    - {name: friends, size: 8, tastes: {warmth: 1.5, detail: -0.5}}
    - {name: critics, size: 4, tastes: {warmth: -0.5, detail: 1.5}}
  prompts: 12
  candidates: 4
  judgements: 20
features: {kind: lexicon, categories: *styles}
reward: {kind: hierarchical, group: group}
inference: {kind: svi, steps: 200, draws: 60}
draws: 20
policy:
  kind: dpo
  model: {kind: scratch, steps: 20, layers: 1, width: 32}
  steps: 8
  batch: 4
  loop: {checkpoint_every: 2}
train: [nash]
online:
  kind: ppo
  model: {kind: scratch, steps: 20, layers: 1, width: 32}
  steps: 4
  prompts: 2
  max_response_tokens: 12
  reestimate: 2
train_online: [nash]
sampling: {responses: 2, max_tokens: 12, shown: 2}
groups: group
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning"),  # so few draws are for speed only
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    console = Console(record=True, width=80, file=io.StringIO())
    pipeline.run(config.parse(SMALL), folder, console)
    return folder, console.export_text()


def again(folder, overrides=None) -> str:
    console = Console(record=True, width=80, file=io.StringIO())
    pipeline.run(config.parse(SMALL, overrides), folder, console)
    return console.export_text()


def test_a_run_leaves_a_report_whose_numbers_are_in_json(finished):
    folder, told = finished
    assert "posterior" in told
    numbers = json.loads((folder / "report.json").read_text())
    assert "caveats" in json.dumps(numbers)
    assert (folder / "report.html").stat().st_size > 10_000
    evaluation = artifacts.load(folder / "evaluation", Evaluation)
    told = [(w.policy, w.group) for w in evaluation.welfare]
    assert told == [(name, group) for name in ("nash", "nash-ppo") for group in ("friends", "critics")]
    assert all(w.true_gain is not None and w.gain.low <= w.gain.mean <= w.gain.high for w in evaluation.welfare)
    assert evaluation.front is not None and list(evaluation.front["groups"]) == ["friends", "critics"]
    order = ("friends", "critics")
    drawn = {(p["name"], g): w for p in evaluation.front["points"] for g, w in zip(order, p["welfare"], strict=True)}
    for w in evaluation.welfare:  # the same resamples, of which the welfare's mean is the centre
        assert (drawn[w.policy, w.group]["low"], drawn[w.policy, w.group]["high"]) == (w.gain.low, w.gain.high)
        assert abs(drawn[w.policy, w.group]["mean"] - w.gain.mean) < 0.25 * (w.gain.high - w.gain.low)
    assert {s.policy for s in evaluation.samples} == {"base model", "nash", "nash-ppo"}
    assert [s.model for s in evaluation.scores][1:] == ["pooled Bradley-Terry", "constant"]


def test_stages_whose_inputs_have_not_changed_are_not_run_again(finished):
    folder, _ = finished
    hashes = {
        p: artifacts.hash_of(folder / p) for p in ("feedback", "features", "posterior", "choices/nash", "evaluation")
    }
    told = again(folder)
    assert told.count("unchanged") >= 8
    assert hashes == {p: artifacts.hash_of(folder / p) for p in hashes}


def test_a_changed_rule_keeps_the_posterior_and_a_changed_seed_does_not(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    before = {p: artifacts.hash_of(folder / p) for p in ("posterior", "choices/nash", "choices/maximin")}
    again(folder, {"beta": "0.3", "train": "[]", "train_online": "[]"})
    after = {p: artifacts.hash_of(folder / p) for p in before}
    assert after["posterior"] == before["posterior"]
    assert after["choices/nash"] != before["choices/nash"]
    again(folder, {"seed": "1", "train": "[]", "train_online": "[]"})
    assert artifacts.hash_of(folder / "posterior") != before["posterior"]


def test_a_run_that_was_killed_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch):
    folder, _ = finished

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.policy, "sample", killed)  # after everything but the evaluation
        with pytest.raises(KeyboardInterrupt):
            again(tmp_path / "killed")
    told = again(tmp_path / "killed")
    assert told.count("unchanged") >= 6
    one, other = (RewardPosterior.load(f / "posterior") for f in (folder, tmp_path / "killed"))
    np.testing.assert_array_equal(one.weights, other.weights)
    one, other = (artifacts.load(f / "evaluation", Evaluation) for f in (folder, tmp_path / "killed"))
    assert one == other


def test_true_welfare_is_absent_where_nobody_knows_it(finished, tmp_path):
    """Features that are not the community's own cannot say what its annotators truly want."""
    told = again(
        tmp_path / "run",
        {
            "features": "{kind: lexicon, categories: {warm: [dear], dry: [exactly]}}",
            "train": "[]",
            "train_online": "[]",
        },
    )
    assert "truth" not in told
    assert not (tmp_path / "run" / "truth").exists()


def test_groups_must_be_an_attribute(tmp_path):
    with pytest.raises(InputError, match="no attribute 'team'"):
        again(tmp_path / "run", {"groups": "team"})


def test_raked_weights_are_the_mass_of_voters_and_the_report_says_so(finished, tmp_path):
    """Of 8 friends and 4 critics, who shall count the same, a friend counts 1/16 and a critic 1/8."""
    told = again(
        tmp_path / "run",
        {
            "population": "{margins: {group: {friends: 0.5, critics: 0.5}}, rake: true}",
            "train": "[]",
            "policy": "null",
            "train_online": "[]",
        },
    )
    assert "Annotators count by raked weights from 0.75 to 1.50" in " ".join(told.split())
    mass = RewardPosterior.load(tmp_path / "run/posterior").mass
    np.testing.assert_allclose(mass, [1 / 16] * 8 + [1 / 8] * 4)
    np.testing.assert_allclose(RewardPosterior.load(finished[0] / "posterior").mass, 1 / 12)
    numbers = json.loads((tmp_path / "run/report.json").read_text())
    assert {r["group"]: r["share"] for r in numbers["annotators"]["groups"]} == pytest.approx(
        {"friends": 0.5, "critics": 0.5}
    )
    assert numbers["annotators"]["coverage"]["weights"]["design_effect"] == pytest.approx(12 * 13.5 / 144)
    assert any("raked to the declared margins of group" in verdict for verdict in numbers["verdicts"])


def test_compare_says_what_every_rule_gives_to_whom_and_how_sure_that_is(finished, tmp_path):
    """The lotteries are those of the run, so are decisions; other rules stand beside, or the reason why not."""
    folder, _ = finished
    console = Console(record=True, width=80, file=io.StringIO())
    found = comparison.compare(folder, out=tmp_path)
    console.print(found)
    told = " ".join(console.export_text().split())
    for word in ("utilitarian", "nash", "maximin", "schulze", "random-dictatorship", "friends", "critics", "everyone"):
        assert word in told
    report = json.loads((folder / "report.json").read_text())
    mine = {row["rule"]: row for row in found.tables["decisions"]["rows"]}
    for row in report["decisions"]["rows"]:
        assert mine[row["rule"]] == row
    gains = {(row["rule"], row["group"]): row["gain"] for row in found.tables["gains"]}
    for row in report["rules"]["welfare"]:
        assert gains[row["rule"], row["group"]] == pytest.approx(row["gain"], abs=1e-6)
    shown = {*mine, *found.tables["decisions"]["reasons"]}
    assert shown == set(found.tables["rules"]) and not shown & {"positional", "pref-voting", "linear-kemeny"}
    assert (tmp_path / "compare.png").stat().st_size > 10_000 and not (folder / "compare.png").exists()


def test_compare_says_why_a_rule_cannot(finished, tmp_path):
    """Ordinal rules take no cautious risk, but decide in every draw; Nash needs utilities above 0."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    careful = config.parse(SMALL, {"risk": "{kind: cvar, tail: 0.1}", "scale": "{kind: none}"})
    artifacts.write_text(folder / "experiment.yaml", config.dump(careful))
    tables = comparison.compare(folder).tables
    assert "cannot be cautious" in tables["reasons"]["borda"] and "borda" in tables["decisions"]["rules"]
    assert "nash" in tables["reasons"] and "maximin" not in tables["reasons"]
    few = comparison.compare(folder, rules="experiment", enough=1.0).tables
    assert few["rules"] == ["utilitarian", "nash", "maximin"] and few["decisions"]["enough"] == 1


def test_compare_says_how_surely_demands_are_met(finished, tmp_path):
    """Also by rules that know no demands, and by what is decided in every draw."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    demanding = config.parse(SMALL, {"constraints": "[{kind: floor, each: voter, eps: 0.05}]"})
    artifacts.write_text(folder / "experiment.yaml", config.dump(demanding))
    rows = comparison.compare(folder).tables["demands"]
    assert {row["of"] for row in rows} == {"lottery", "plug-in decision", "decision in every draw"}
    kept = {row["rule"]: True for row in rows} | {row["rule"]: False for row in rows if not row["kept"]}
    asked = [row for row in rows if row["rule"] == "utilitarian" and row["of"] == "lottery"]
    assert len({row["demand"] for row in asked}) == len(asked) and all(row["kept"] for row in asked)
    assert {"borda", "schulze"} <= set(kept) and all(0 <= row["probability"] <= 1 for row in rows)
    assert comparison.compare(finished[0], rules="experiment", out=tmp_path).tables["demands"] == []


def test_compare_takes_finished_runs_only(finished, tmp_path):
    with pytest.raises(InputError, match=r"nowhere holds no finished posterior.*runs/quickstart"):
        comparison.compare(tmp_path / "nowhere")
    folder = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(folder / "posterior")
    with pytest.raises(InputError, match="holds no finished posterior"):
        comparison.compare(folder)
    with pytest.raises(InputError, match=r"enough is 1\.5"):
        comparison.compare(finished[0], rules="experiment", enough=1.5, out=tmp_path)


@pytest.mark.parametrize("form", ["{kind: ranking}", "{kind: rating}"])
def test_other_forms_than_comparisons_reach_a_report(tmp_path, form):
    """Rankings and ratings in, lotteries out; nothing is trained."""
    changes = {"feedback.form": form, "feedback.tie": "null", "policy": "null", "train": "[]", "train_online": "[]"}
    pipeline.run(config.parse(SMALL, changes), tmp_path / "run", Console(file=io.StringIO()))
    posterior = artifacts.load(tmp_path / "run" / "posterior", RewardPosterior)
    scores = artifacts.load(tmp_path / "run" / "scores", Evaluation)
    assert [s.model for s in scores.scores] == ["posterior (hierarchical)", "pooled"]
    assert scores.scores[0].log_loss < scores.scores[1].log_loss  # who judged matters here
    warmth = posterior.weights[:, :, 0, 0].mean(0)
    assert warmth[:8].mean() > warmth[8:].mean()
    assert "no comparisons of two" in (tmp_path / "run" / "report.json").read_text()


def test_rules_keep_constraints_and_the_report_says_what_they_cost(finished, tmp_path):
    folder = tmp_path / "held"
    shutil.copytree(finished[0], folder)
    held = {"constraints": "[{kind: floor, eps: -0.3}, {kind: limit, objectives: {overall: 1}, at_least: 0.1}]"}
    again(folder, held | {"train": "[]", "train_online": "[]", "rules": "[{kind: utilitarian}, {kind: leximin}]"})
    chosen = artifacts.load(folder / "choices" / "utilitarian", Choice)
    assert [d.name for d in chosen.demands] == ["floor: friends", "floor: critics", "overall at least 0.1"]
    gain = (chosen.utilities.expected(chosen.lottery) - chosen.utilities.expected(chosen.utilities.reference)).mean(0)
    friends = np.array(chosen.utilities.groups) == "friends"
    assert min(gain[friends].mean(), gain[~friends].mean()) > 0.3 - 1e-3
    told = json.loads((folder / "report.json").read_text())["rules"]["demands"]
    assert {d["rule"] for d in told} == {"utilitarian", "leximin"}
    assert any(d["multiplier"] > 1e-3 for d in told)
    assert "floor: critics" in (folder / "report.html").read_text()


def test_each_prompt_by_itself(finished, tmp_path):
    folder = tmp_path / "apart"
    shutil.copytree(finished[0], folder)
    again(folder, {"scope": "prompt", "train": "[]", "train_online": "[]"})
    apart = artifacts.load(folder / "choices" / "maximin", Choice)
    assert apart.weights is None
    together = artifacts.load(finished[0] / "choices" / "maximin", Choice)
    assert np.abs(apart.lottery - together.lottery).max() > 0.01


def test_constraints_on_rules_that_have_none_are_refused():
    with pytest.raises(InputError, match="constraints hold for rules that maximise welfare, and borda do not"):
        config.parse(
            SMALL, {"constraints": "[{kind: floor}]", "rules": "[{kind: borda}]", "train": "[]", "train_online": "[]"}
        )
    with pytest.raises(InputError, match="demands nothing"):
        config.parse(SMALL, {"constraints": "[{kind: limit, objectives: {overall: 1}}]"})
