import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.policy import DPO, Loop, Lora, adapt, dpo, sample, scoring
from pluralign.policy.candidates import Candidates
from pluralign.policy.models import Pretrained
from pluralign.types import Choice, Features, Feedback, Policy
from tests.policy.conftest import ANIMALS, RESPONSES, by_hand, make_choice, make_features, make_feedback

rng = np.random.default_rng(0)
TILT = rng.normal(size=(len(ANIMALS), len(RESPONSES)))
quick = {"steps": 10, "batch": 4, "learning_rate": 1e-2, "lora": Lora(rank=4), "loop": Loop(checkpoint_every=3)}


def curve(policy: Policy):
    return [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in policy.history]


def candidate_rows(form, votes):
    return [
        form.row(form.prompt(x, 128), y, 128)
        for x, y in zip(votes.items["prompt"], votes.items["response"], strict=True)
    ]


def on_candidates(network, form, votes):
    """The model's probability of each prompt's candidates, by exhaustive scoring."""
    scores = [by_hand(network, row) for row in candidate_rows(form, votes)]
    return np.exp(np.reshape(scores, TILT.shape))


def normalised(weights):
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_training_reaches_the_tilted_reference_on_a_finite_set(tiny, votes, tmp_path, beta):
    """pi = pi_ref exp(r / beta) / Z within total variation 0.02, pi_ref being the language model's own."""
    train = DPO(tiny, beta=beta, lora=Lora(rank=16, targets=None), learning_rate=1e-2, steps=200, batch=16)
    policy = train.train(make_choice(TILT), votes, make_features(votes), tmp_path)
    network, form = tiny.load()
    reference = normalised(on_candidates(network, form, votes))
    trained = on_candidates(PeftModel.from_pretrained(network, str(policy.adapter)), form, votes)

    def distance(tilt):
        return (0.5 * np.abs(normalised(trained) - normalised(reference * np.exp(tilt))).sum(1)).max()

    assert distance(TILT) < 0.02
    assert distance(-TILT) > 0.2  # the other way round
    assert distance(np.zeros_like(TILT)) > 0.1  # no training at all
    last = policy.history[-1]
    assert last["excess"] < 1e-3
    assert last["margin"] == pytest.approx(last["target"], rel=0.05)


def test_the_anchor_keeps_probability_on_the_candidates(tiny, votes, tmp_path):
    """One candidate is to become e^4 times as probable; plain DPO gets there by making all others rarer, and more."""
    tilt = np.zeros_like(TILT)
    tilt[:, RESPONSES.index("no")] = 4
    total, leak, samples = {}, {}, {}
    prompts = list(dict.fromkeys(votes.items["prompt"]))
    for anchor in (0.0, 0.3):
        train = DPO(tiny, anchor=anchor, lora=Lora(targets=None), learning_rate=2e-2, steps=80, batch=8)
        policy = train.train(make_choice(tilt), votes, make_features(votes), tmp_path / str(anchor))
        network, form = tiny.load()
        total[anchor] = on_candidates(PeftModel.from_pretrained(network, str(policy.adapter)), form, votes).sum(1)
        leak[anchor] = policy.history[-1]["drift"]
        texts = sample(tiny, prompts, n=50, max_tokens=8, adapter=policy.adapter)
        samples[anchor] = np.mean([y == "no" for written in texts for y in written])
    assert (on_candidates(tiny.load()[0], form, votes).sum(1) > 0.9).all()
    assert (total[0.0] < 0.4).all()
    assert (total[0.3] > 0.6).all()
    assert leak[0.0] < -1 < -0.5 < leak[0.3]
    assert samples[0.0] < 0.5 < samples[0.3]


def test_before_the_first_step_the_policy_is_the_reference(tiny, votes, tmp_path):
    state = torch.random.get_rng_state()
    chosen = make_choice(TILT)
    first = (
        DPO(tiny, **(quick | {"steps": 1, "batch": 8})).train(chosen, votes, make_features(votes), tmp_path).history[0]
    )
    assert first["loss"] == pytest.approx(1.3 * np.log(2), abs=1e-6)
    assert first["margin"] == pytest.approx(0, abs=1e-6)
    assert first["kl"] == pytest.approx(0, abs=1e-9)
    assert first["target"] > 0.01
    assert first["grad_norm"] > 0
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's random numbers were left alone


def test_accumulation_gives_the_curve_of_a_large_batch(tiny, votes, tmp_path):
    runs = [
        DPO(tiny, **(quick | shape)).train(make_choice(TILT), votes, make_features(votes), tmp_path / str(i))
        for i, shape in enumerate(({"batch": 8}, {"batch": 1, "loop": Loop(8)}, {"batch": 1, "loop": Loop(7)}))
    ]
    large, small, other = ([[record[k] for k in ("loss", "kl", "grad_norm")] for record in curve(run)] for run in runs)
    np.testing.assert_allclose(small, large, rtol=2e-3, atol=1e-6)
    assert not np.allclose(other, large, rtol=2e-3, atol=1e-6)


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(tiny, votes, tmp_path):
    runs = [
        curve(DPO(tiny, seed=seed, **quick).train(make_choice(TILT), votes, make_features(votes), tmp_path / name))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("killed_at", [2, 8])  # before and after the first checkpoint
def test_a_killed_run_goes_on_where_it_was(tiny, votes, tmp_path, monkeypatch, killed_at):
    train = DPO(tiny, **(quick | {"lora": Lora(rank=4, dropout=0.2)}))
    inputs = make_choice(TILT), votes, make_features(votes)
    whole = train.train(*inputs, tmp_path / "whole")

    calls, finite = [], dpo._finite

    def kill(loss, pairs, candidates, step):
        calls.append(step)
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        finite(loss, pairs, candidates, step)

    monkeypatch.setattr(dpo, "_finite", kill)
    with pytest.raises(KeyboardInterrupt):
        train.train(*inputs, tmp_path / "killed")
    resumed = train.train(*inputs, tmp_path / "killed")

    assert calls[killed_at + 1 :] == list(range(killed_at - killed_at % 3, 10))
    assert curve(resumed) == curve(whole)
    assert (resumed.adapter / "adapter_model.safetensors").read_bytes() == (
        whole.adapter / "adapter_model.safetensors"
    ).read_bytes()
    lines = (tmp_path / "killed/policies/nash/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))
    assert not (tmp_path / "killed/policies/nash/checkpoint").exists()


def test_a_checkpoint_of_other_inputs_is_not_taken_up(tiny, votes, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(adapt, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            DPO(tiny, **quick).train(make_choice(TILT), votes, make_features(votes), tmp_path)
    assert (tmp_path / "policies/nash/checkpoint/state.pt").is_file()
    turned = DPO(tiny, **quick).train(make_choice(-TILT), votes, make_features(votes), tmp_path)
    fresh = DPO(tiny, **quick).train(make_choice(-TILT), votes, make_features(votes), tmp_path / "fresh")
    assert curve(turned) == curve(fresh)


def test_a_finished_run_is_returned_at_once_and_another_is_trained(tiny, votes, tmp_path, monkeypatch):
    inputs = make_choice(TILT), votes, make_features(votes)
    first = DPO(tiny, **quick).train(*inputs, tmp_path)
    monkeypatch.setattr(Pretrained, "load", lambda _: pytest.fail("a model was loaded"))
    assert DPO(tiny, **quick).train(*inputs, tmp_path) == first
    assert (
        DPO(tiny, **(quick | {"loop": Loop(checkpoint_every=5)})).train(*inputs, tmp_path) == first
    )  # no part of the result
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert DPO(tiny, **quick).train(*inputs, moved).adapter == moved / "policies/nash/adapter"
    for train, chosen in (
        (DPO(tiny, **(quick | {"beta": 0.2})), inputs[0]),
        (DPO(tiny, **quick), make_choice(2 * TILT)),
    ):
        with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
            train.train(chosen, *inputs[1:], moved)


def test_the_adapter_works_in_plain_peft(tiny, votes, tmp_path, monkeypatch):
    kept, save = {}, adapt.write

    def save_and_score(model, form, path, state):
        save(model, form, path, state)
        kept["rows"] = candidate_rows(form, votes)
        kept["scores"] = scoring.score(model, kept["rows"], 4)

    monkeypatch.setattr(adapt, "write", save_and_score)
    policy = DPO(tiny, **quick).train(make_choice(TILT), votes, make_features(votes), tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny.path)
    of_base = [by_hand(base, row) for row in kept["rows"]]
    model = PeftModel.from_pretrained(base, str(policy.adapter)).eval()
    np.testing.assert_allclose([by_hand(model, row) for row in kept["rows"]], kept["scores"], atol=1e-4)
    assert np.abs(kept["scores"] - of_base).max() > 0.01
    with model.disable_adapter():
        assert [by_hand(model, row) for row in kept["rows"]] == of_base
    config = json.loads((policy.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny.path


def test_a_run_folder_tells_the_whole_story(tiny, votes, tmp_path):
    chosen = make_choice(TILT)
    artifacts.save(chosen, tmp_path / "choices/nash", key="of a pipeline")
    policy = DPO(tiny, **quick).train(chosen, votes, make_features(votes), tmp_path)
    assert artifacts.key_of(tmp_path / "choices/nash") == "of a pipeline"
    assert artifacts.load(tmp_path / "policies/nash/policy", Policy) == policy
    assert artifacts.load(tmp_path / "feedback", Feedback).items["response"] == votes.items["response"]
    assert artifacts.load(tmp_path / "features", Features).names == make_features(votes).names
    lines = (tmp_path / "policies/nash/metrics.jsonl").read_text().splitlines()
    assert tuple(json.loads(line) for line in lines) == policy.history
    assert all(f"- `{name}`:" in (dpo.__doc__ or "") for name in policy.history[0])
    assert policy.model == tiny.path

    DPO(tiny, **quick).train(make_choice(-TILT), votes, make_features(votes), tmp_path)
    np.testing.assert_allclose(artifacts.load(tmp_path / "choices/nash", Choice).lottery, make_choice(-TILT).lottery)


def test_two_rules_share_the_reference(tiny, votes, tmp_path, monkeypatch):
    inputs = votes, make_features(votes), tmp_path
    DPO(tiny, **quick).train(make_choice(TILT), *inputs)
    monkeypatch.setattr(scoring, "score", lambda *_: pytest.fail("scored again"))
    DPO(tiny, **quick).train(make_choice(-TILT, name="maximin"), *inputs)
    with pytest.raises(pytest.fail.Exception, match="scored again"):
        DPO(tiny, **(quick | {"max_response_tokens": 2})).train(make_choice(TILT, name="other"), *inputs)


def test_cut_responses_are_counted_and_said(tiny, votes, tmp_path):
    inputs = make_choice(TILT), votes, make_features(votes)
    policy = DPO(tiny, **(quick | {"max_response_tokens": 4})).train(*inputs, tmp_path / "cut")
    # "it runs , and runs" has five words and an end, "we love it" three and an end
    assert policy.caveats == ("3 of 15 candidates were cut to 4 tokens for training.",)
    assert 0 < np.mean([record["cut"] for record in policy.history]) < 0.5
    assert DPO(tiny, **quick).train(*inputs, tmp_path / "whole").caveats == ()


def test_a_loss_that_is_not_finite_names_its_step_and_pair(tiny, votes, tmp_path, monkeypatch):
    real = scoring.log_probs

    def broken(model, rows):
        values = real(model, rows)
        return torch.where(torch.arange(len(values)) == 1, torch.nan, values) if values.requires_grad else values

    monkeypatch.setattr(scoring, "log_probs", broken)
    chosen = make_choice(TILT)
    first, second = Candidates.of(chosen, votes).draw(0, 0, 4)[0]
    with pytest.raises(TrainError, match=f"loss is nan at step 1 for items {first} and {second} .*learning_rate"):
        DPO(tiny, **quick).train(chosen, votes, make_features(votes), tmp_path)
    assert not (tmp_path / "policies/nash/policy").exists()


def test_pairs_are_uniform_and_depend_on_seed_and_step_alone():
    """Two prompts of 2 and 3 candidates: each ordered pair of the first 1/4, of the second 1/12."""
    votes = make_feedback(["x", "y"], [["a", "b"], ["c", "d", "e"]])
    utilities = replace(
        make_choice(np.zeros((2, 3))).utilities,
        reference=np.array([[0.5, 0.5, 0], [1 / 3] * 3]),
        item=[[0, 1, -1], [2, 3, 4]],
    )
    lottery = utilities.reference
    candidates = Candidates.of(replace(make_choice(np.zeros((2, 3))), lottery=lottery, utilities=utilities), votes)
    assert candidates.responses == ["a", "b", "c", "d", "e"]
    pairs = np.concatenate([candidates.draw(0, step, 12) for step in range(200)])
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    assert kinds.tolist() == [[0, 1], [1, 0], [2, 3], [2, 4], [3, 2], [3, 4], [4, 2], [4, 3]]
    assert chisquare(counts, len(pairs) * np.array([1 / 4] * 2 + [1 / 12] * 6)).pvalue > 1e-3
    np.testing.assert_array_equal(candidates.draw(0, 7, 12), pairs[84:96])
    assert not np.array_equal(candidates.draw(1, 7, 12), pairs[84:96])


def test_a_prompt_with_one_candidate_is_left_out_and_none_with_two_is_refused():
    votes = make_feedback(["x", "y"], [["a"], ["b", "c"]])
    choice = make_choice(np.zeros((2, 2)))
    one = replace(choice.utilities, reference=np.array([[1.0, 0], [0.5, 0.5]]), item=np.array([[0, -1], [1, 2]]))
    assert Candidates.of(replace(choice, utilities=one, lottery=one.reference), votes).responses == ["b", "c"]
    none = replace(one, reference=np.array([[1.0, 0], [1.0, 0]]))
    with pytest.raises(InputError, match="no prompt has two candidates"):
        Candidates.of(replace(choice, utilities=none, lottery=none.reference), votes)


def test_a_choice_of_other_votes_is_refused(tiny, votes, tmp_path):
    short = make_feedback(["x"], [["a", "b"]])
    with pytest.raises(InputError, match="names item 14, votes has 2"):
        Candidates.of(make_choice(TILT), short)
    with pytest.raises(InputError, match="mixes items of different prompts"):
        Candidates.of(make_choice(TILT.reshape(5, 3)), votes)
    with pytest.raises(InputError, match="phi has 2 rows, votes has 15 items"):
        DPO(tiny).train(make_choice(TILT), votes, make_features(short), tmp_path)


def test_layers_that_are_not_there_are_named_with_those_that_are(tiny, votes, tmp_path):
    with pytest.raises(InputError, match=r"attn.*linear layers are \['down_proj', 'gate_proj', .*'q_proj'"):
        DPO(tiny, lora=Lora(targets=("attn",))).train(make_choice(TILT), votes, make_features(votes), tmp_path)


def test_texts_too_long_for_the_model_are_refused(tiny, tmp_path):
    votes = make_feedback(["x"], [["a " * 600, "b"]])
    with pytest.raises(InputError, match="a prompt of 2 tokens with a response of 598 does not fit into the 512"):
        DPO(tiny, max_response_tokens=598).train(make_choice([[0.0, 1.0]]), votes, make_features(votes), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"beta": 0.0}, {"steps": 0}, {"seed": -1}, {"learning_rate": float("nan")}],
)
def test_a_value_out_of_range_is_named(changes):
    with pytest.raises(InputError, match=f"{next(iter(changes))} is"):
        DPO("x", **changes)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(Lora, "rank", 0), (Lora, "dropout", 1.0), (Loop, "warmup", 1.5), (Loop, "accumulation", 0)],
)
def test_a_value_out_of_range_of_a_part_is_named(kind, name, value):
    with pytest.raises(InputError, match=f"{kind.kind}.{name} is {value}"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("name", "dtype"), [("stories260K", "float32"), ("stories260K", "bfloat16"), ("stories15M", "float32")]
)
def test_a_real_model_learns(real_models, tmp_path, name, dtype):
    prompts = ["Once upon a time", "The little dog"]
    votes = make_feedback(prompts, [[" there was a girl.", "was sad.", "ran away."]] * 2)
    tilt = np.array([[3.0, 0.0, -3.0], [-3.0, 3.0, 0.0]])
    model = Pretrained(str(real_models / name), dtype=dtype)
    train = DPO(model, learning_rate=5e-3 if name == "stories260K" else 2e-3, steps=25, batch=4)
    policy = train.train(make_choice(tilt), votes, make_features(votes), tmp_path)
    start, end = (np.mean([record["excess"] for record in policy.history[i : i + 5]]) for i in (0, 20))
    assert end < start / 3
    texts = sample(model, prompts, n=2, max_tokens=8, adapter=policy.adapter)
    assert all(text for pair in texts for text in pair)
