"""The guard of offline training, which looks at what the policy writes now and then."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pluralign import choice
from pluralign.errors import InputError
from pluralign.policy import DPO, PPO, FromVotes, Guard, Loop, Lora, dpo, rollout
from pluralign.policy.candidates import Candidates
from pluralign.policy.labels import FromRule
from pluralign.policy.look import Look, last
from pluralign.types import Linear, Utilities
from tests.policy.conftest import Indicators
from tests.policy.test_ppo import FIRST, curve, learns, probabilities

offline = {"slate": None, "batch": 1, "learning_rate": 5e-3, "steps": 40, "max_response_tokens": 4}
offline |= {"lora": Lora(rank=4, targets=None), "loop": Loop(checkpoint_every=1)}
DRAWS = np.random.default_rng(0).normal(size=(50, 1)) * np.array([1.5, 0.0, 0.0])  # only what red is worth is unsure
UNSURE = choice.Utilitarian().choose(
    Utilities(
        Linear(np.eye(3)[None], (DRAWS - DRAWS.mean(0) + [1.0, 0.8, 0.0])[:, None], np.zeros((50, 1))),
        [1.0],
        np.full((1, 3), 1 / 3),
    ),
    beta=0.5,
)


def train(writer, colours, out, chosen=FIRST, **changes):
    votes, phi = colours
    return DPO(writer, **(offline | changes)).train(chosen, votes, phi, out, features=Indicators())


def at_checkpoint(folder):
    """Weights of an adapter in a checkpoint, by the names that they have in its file."""
    state = torch.load(folder / "checkpoint/state.pt", weights_only=True)
    return len(state["history"]), {
        k.removeprefix("model.").replace(".default.", "."): v for k, v in state["weights"].items()
    }


def goes_back(policy, killed):
    """Whether an adapter is the one that a killed run without a guard had at that step."""
    step, weights = at_checkpoint(killed)
    kept = load_file(policy.adapter / "adapter_model.safetensors")
    assert set(kept) == set(weights)
    assert f"after step {len(policy.history)} by its guard: kl is" in policy.caveats[-1]
    assert policy.caveats[-1].endswith(f"The adapter is as it was after step {step}, before that.")
    return all(torch.equal(kept[name], weights[name]) for name in kept)


@pytest.mark.parametrize("at", [4, 2])
def test_a_guard_stops_and_the_adapter_is_that_of_the_last_look_within_limits(
    writer, colours, tmp_path, monkeypatch, at
):
    policy = train(writer, colours, tmp_path, guard=Guard(kl=0.05, patience=2, every=2))
    looks = [r for r in policy.history if "guard/strikes" in r]
    assert [r["step"] for r in looks] == [float(s) for s in range(1, 2 * len(looks), 2)]
    assert looks[-1]["guard/strikes"] == 1 and looks[-2]["guard/strikes"] == 0
    assert all(r["guard/kl"] <= 0.05 for r in looks[:-1]) and looks[0]["guard/kl"] == pytest.approx(0, abs=1e-6)
    finite = dpo._finite

    def kill(loss, pairs, candidates, step):
        if step == len(policy.history) - at:
            raise KeyboardInterrupt
        finite(loss, pairs, candidates, step)

    monkeypatch.setattr(dpo, "_finite", kill)
    with pytest.raises(KeyboardInterrupt):
        train(writer, colours, tmp_path / "killed")
    assert len(policy.history) >= 6
    if at == 4:
        assert goes_back(policy, tmp_path / "killed/policies/utilitarian")
    else:  # the twin: two steps later it was another
        with pytest.raises(AssertionError):
            goes_back(policy, tmp_path / "killed/policies/utilitarian")


def test_online_too_the_adapter_is_that_before_the_limit(writer, colours, tmp_path, monkeypatch):
    votes, phi = colours
    how = learns | {"steps": 40, "loop": Loop(checkpoint_every=1), "average": 1.0}
    policy = PPO(writer, guard=Guard(kl=0.05, patience=2), **how).train(FIRST, votes, phi, Indicators(), tmp_path)
    write, calls = rollout.write, []

    def kill(*args):
        calls.append(1)
        if len(calls) == len(policy.history) - 1:  # in the step after the last within limits
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(rollout, "write", kill)
    with pytest.raises(KeyboardInterrupt):
        PPO(writer, **how).train(FIRST, votes, phi, Indicators(), tmp_path / "killed")
    assert goes_back(policy, tmp_path / "killed/policies/utilitarian-ppo")


def test_a_guard_with_nothing_to_say_changes_nothing(writer, colours, tmp_path):
    guarded = train(writer, colours, tmp_path / "guarded", steps=7, guard=Guard(kl=50.0, every=3))
    free = train(writer, colours, tmp_path / "free", steps=7)
    assert [r["step"] for r in guarded.history if "guard/kl" in r] == [1, 4, 7]
    assert not any("guard/kl" in r for r in free.history)
    weights = [(p.adapter / "adapter_model.safetensors").read_bytes() for p in (guarded, free)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("patience", [1, 2])  # 1: before the first step
def test_what_is_within_no_limit_from_the_start_is_not_trained(writer, colours, tmp_path, patience):
    policy = train(writer, colours, tmp_path, UNSURE, guard=Guard(gap=1e-6, patience=patience, every=1), steps=5)
    assert len(policy.history) == patience - 1
    assert "untrained: no later look was within the limits" in policy.caveats[-1]
    kept = load_file(policy.adapter / "adapter_model.safetensors")
    assert all((value == 0).all() for name, value in kept.items() if "lora_B" in name)


def test_caution_turns_from_what_is_unsure_and_a_killed_run_goes_on_with_it(writer, colours, tmp_path, monkeypatch):
    guard = Guard(gap=0.02, action="caution", patience=1, every=5, k=1.0)
    whole = train(writer, colours, tmp_path / "whole", UNSURE, guard=guard)
    bold = train(writer, colours, tmp_path / "bold", UNSURE)
    cautions = [r["guard/caution"] for r in whole.history if "guard/caution" in r]
    assert cautions == sorted(cautions) and cautions[-1] >= 1
    careful, careless = (probabilities(writer, colours[0], p.adapter) for p in (whole, bold))
    assert careless[0] > careless[1] and careful[0] < careful[1] / 2  # red has the higher mean
    finite = dpo._finite

    def kill(loss, pairs, candidates, step):
        if step == 13:
            monkeypatch.undo()
            raise KeyboardInterrupt
        finite(loss, pairs, candidates, step)

    monkeypatch.setattr(dpo, "_finite", kill)
    with pytest.raises(KeyboardInterrupt):
        train(writer, colours, tmp_path / "killed", UNSURE, guard=guard)
    assert curve(train(writer, colours, tmp_path / "killed", UNSURE, guard=guard)) == curve(whole)


def test_cautious_labels_and_those_to_fall_back_to(writer, colours):
    votes, phi = colours
    labels = FromRule().of(UNSURE, votes, Candidates.of(UNSURE, votes))
    form = writer.load()[1]
    how = (UNSURE, votes, phi, Indicators(), labels, form, (8, 8), 0)
    look = Look.of(Guard(kl=1.0, action="caution"), *how)
    # gains over the mean of the three words, draw by draw
    gains = UNSURE.utilities.value.weights[:, 0] @ (np.eye(3) - 1 / 3)
    wanted = labels.target[0, :, 0] - 1.5 * gains.std(0) / UNSURE.beta
    np.testing.assert_allclose(look.asks({"guard/caution": 1.5}).target[0, :, 0], wanted, atol=1e-6)
    np.testing.assert_array_equal(look.asks({}).target, labels.target)
    back = Look.of(Guard(kl=1.0, action="fallback", patience=2), *how)
    np.testing.assert_array_equal(back.asks({"guard/strikes": 2.0}).target, 0)
    np.testing.assert_array_equal(back.asks({"guard/strikes": 1.0}).target, labels.target)
    assert last([{"guard/strikes": 1.0}, {"guard/strikes": 2.0}, {"loss": 0.0}]) == {"guard/strikes": 2.0}


def test_what_a_guard_cannot_do_is_refused(writer, colours, tmp_path):
    votes, phi = colours
    guarded = DPO(writer, guard=Guard(kl=1.0))
    with pytest.raises(InputError, match="pass `features`"):
        guarded.train(FIRST, votes, phi, tmp_path)
    with pytest.raises(InputError, match="votes, which cannot be made cautious"):
        replace(guarded, labels=FromVotes(), guard=Guard(kl=1.0, action="caution"))
    with pytest.raises(InputError, match=r"guard\.every is 0"):
        Guard(kl=1.0, every=0)
