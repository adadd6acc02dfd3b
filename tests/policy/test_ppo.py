import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from pluralign import choice
from pluralign.errors import InputError, TrainError
from pluralign.policy import PPO, Guard, Loop, Lora, Pretrained, Term, critic, ppo, rollout
from pluralign.policy.losses import Critic, Normalised
from pluralign.types import Features, Linear, Utilities
from tests.policy.conftest import WORDS, Indicators, by_hand, make_feedback


def table(rewards, reference=(1 / 3, 1 / 3, 1 / 3)) -> Utilities:
    """Utilities of some voters, linear in the indicators."""
    rewards = np.array(rewards, float)
    value = Linear(np.eye(3)[None], rewards[None], np.zeros((1, len(rewards))))
    return Utilities(value, np.full(len(rewards), 1 / len(rewards)), np.array([reference], float))


def probabilities(writer, votes, adapter=None):
    """Of the three words, by exhaustive scoring, of sum 1."""
    network, form = writer.load()
    if adapter is not None:
        network = PeftModel.from_pretrained(network, str(adapter)).eval()
    prompt = form.prompt(votes.items["prompt"][0], 64)
    p = np.exp([by_hand(network, form.row(prompt, word, 8)) for word in WORDS])
    return p / p.sum()


def tilted(reference, reward, beta):
    p = reference * np.exp(np.array(reward) / beta)
    return p / p.sum()


def apart(p, q):
    return 0.5 * np.abs(np.array(p) - np.array(q)).sum()


def trained(writer, colours, out, chosen, again=None, terms=(), **changes):
    votes, phi = colours
    return PPO(writer, **(learns | changes)).train(chosen, votes, phi, Indicators(), out, again, terms)


def curve(policy):
    return [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in policy.history]


lora = Lora(rank=4, targets=None)
learns = {"prompts": 1, "group": 32, "learning_rate": 5e-3, "steps": 60, "max_response_tokens": 4, "lora": lora}
quick = {"group": 4, "steps": 6, "loop": Loop(checkpoint_every=2)}
FIRST = choice.Utilitarian().choose(table([[1.0, 0.0, 0.4]]), beta=0.5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"epochs": 3}, {"baseline": Normalised()}, {"baseline": Critic(), "average": 0.4, "steps": 90}],
    ids=["leave-one-out", "epochs", "normalised", "critic"],
)
def test_training_reaches_the_tilted_reference(writer, colours, tmp_path, changes):
    """pi = pi_ref exp(r / beta) / Z (Korbak et al. 2022), pi_ref being the language model's own."""
    policy = trained(writer, colours, tmp_path, FIRST, **changes)
    reference, found = probabilities(writer, colours[0]), probabilities(writer, colours[0], policy.adapter)
    assert apart(found, tilted(reference, [1.0, 0.0, 0.4], 0.5)) < 0.02
    assert apart(found, reference) > 0.1
    assert apart(found, tilted(reference, [0.0, 1.0, 0.4], 0.5)) > 0.1
    first, last = policy.history[0], policy.history[-1]
    assert first["kl"] == pytest.approx(0, abs=1e-5)  # nothing was learned yet
    assert last["objective"] > first["objective"]
    assert last["spread"] < first["spread"] / 2  # at the optimum r - beta log(pi / pi_ref) is the same everywhere


def test_maximin_is_over_expectations_and_follows_the_policy(writer, colours, tmp_path):
    """MaxMin-RLHF's example (Chakraborty et al. 2024): weights (.5, .5), pi = (.42232, .42232, .15536), .48446 each.

    The rule is first asked about candidates of which the reference seems to write the first one most, so that its
    multipliers are wrong for what the language model writes; only by asking again can they come right.
    """

    def ask(utilities, beta):
        return choice.Maximin().choose(utilities, beta=beta)

    skewed = ask(table([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4]], (0.9, 0.05, 0.05)), 0.1)
    wanted = np.array([0.42232, 0.42232, 0.15536])
    found = {}
    for name, changes in {"asked again": {"again": ask, "reestimate": 3}, "not asked": {}}.items():
        policy = trained(writer, colours, tmp_path / name, skewed, steps=100, average=0.4, group=96, **changes)
        found[name] = probabilities(writer, colours[0], policy.adapter)
    assert apart(found["asked again"], wanted) < 0.02
    assert found["asked again"][:2] == pytest.approx([0.42232] * 2, abs=0.02)
    for group in ([1.0, 0.0, 0.4], [0.0, 1.0, 0.4]):
        assert found["asked again"] @ group == pytest.approx(0.48446, abs=0.01)
    assert apart(found["not asked"], wanted) > 0.1
    alone = np.exp([0, 0, 4.0]) / np.exp([0, 0, 4.0]).sum()  # of the least reward of each answer
    assert apart(found["asked again"], alone) > 0.3


@pytest.mark.parametrize(("tau", "wanted"), [(0.5, (0.3955, 0.2148, 0.3897)), (0.1, (0.30571, 0.05130, 0.64300))])
def test_self_play_ends_at_the_regularised_maximal_lottery(writer, colours, tmp_path, tau, wanted):
    """Two voters R > G > B, three B > R > G (Maura-Rivero et al. 2025), the game with a price of tau (Munos et al. 2023)."""
    ballots = table([[2, 1, 0]] * 2 + [[1, 0, 2]] * 3)
    chosen = choice.MaximalLottery().choose(ballots, beta=tau)
    policy = trained(
        writer, colours, tmp_path, chosen, steps=120, average=0.4, group=64, learning_rate=3e-3, baseline=Normalised()
    )
    found = probabilities(writer, colours[0], policy.adapter)
    assert apart(found, wanted) < 0.02
    assert apart(found, np.full(3, 1 / 3)) > 0.1


def test_borda_is_the_win_rate_against_the_reference(writer, colours, tmp_path):
    ballots = table([[2, 1, 0]] * 2 + [[1, 0, 2]] * 3)
    policy = trained(writer, colours, tmp_path, choice.Borda().choose(ballots, beta=0.2))
    # P(R > B) = .4, P(R > G) = 1, P(B > G) = .6; against a uniform reference, itself among it
    score = np.array([(0.5 + 1 + 0.4), (0 + 0.5 + 0.4), (0.6 + 0.6 + 0.5)]) / 3 - 0.5
    found = probabilities(writer, colours[0], policy.adapter)
    assert apart(found, tilted(probabilities(writer, colours[0]), score, 0.2)) < 0.02


def test_a_limit_holds_and_its_multiplier_is_the_price(writer, colours, tmp_path):
    """E[green] >= .5: by duality the reward gains a multiplier of green, and the optimum has it at .5 exactly."""
    green = Term("green", lambda prompts, responses: [float(y == "green") for y in responses], at_least=0.5, rate=0.1)
    changes = {"steps": 150, "average": 0.4, "group": 64, "learning_rate": 2e-3}
    policy = trained(writer, colours, tmp_path, FIRST, terms=[green], **changes)
    found = probabilities(writer, colours[0], policy.adapter)
    assert found[1] == pytest.approx(0.5, abs=0.03)
    rest = np.exp(np.array([1.0, 0.4]) / 0.5)
    np.testing.assert_allclose(found[[0, 2]] / found[[0, 2]].sum(), rest / rest.sum(), atol=0.03)
    # at the optimum exp((0 + m) / beta) = exp(1 / beta) + exp(.4 / beta)
    prices = [record["multiplier/green at least"] for record in policy.history[-50:]]
    assert np.mean(prices) == pytest.approx(0.5 * np.log(rest.sum()), abs=0.1)


def test_caution_avoids_what_is_unsure(writer, colours, tmp_path):
    """Red is worth 1 on average but -1 in a third of the draws; its lower bound is below green's sure .4."""
    draws = np.array([[2.0, 0.4, 0.0], [2.0, 0.4, 0.0], [-1.0, 0.4, 0.0]])
    value = Linear(np.eye(3)[None], draws[:, None], np.zeros((3, 1)))
    bold = choice.Utilitarian().choose(Utilities(value, [1.0], np.full((1, 3), 1 / 3)), beta=0.3)
    found = {}
    for name, chosen in {"bold": bold, "cautious": choice.cautious(bold, choice.LowerBound(2.0))}.items():
        policy = trained(writer, colours, tmp_path / name, chosen, learning_rate=2e-3, average=0.3)
        found[name] = probabilities(writer, colours[0], policy.adapter)
        assert apart(found[name], chosen.lottery[0]) < 0.02
    assert found["bold"].argmax() == 0
    assert found["cautious"].argmax() == 1


def test_a_voter_without_mass_changes_nothing(writer, colours, tmp_path):
    three = table([[1.0, 0.0, 0.4], [0.0, 0.6, 0.4]])
    four = replace(table([[1.0, 0.0, 0.4], [0.0, 0.6, 0.4], [-9.0, 9.0, 0.0]]), mass=np.array([0.5, 0.5, 0.0]))
    runs = [
        curve(trained(writer, colours, tmp_path / name, choice.Nash().choose(u, beta=0.3), **quick))
        for name, u in (("three", shifted(three)), ("four", shifted(four)))
    ]
    for one, other in zip(*runs, strict=True):
        for name in ("objective", "reward", "kl", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6)


def shifted(utilities: Utilities) -> Utilities:
    """Nash welfare needs gains above 0."""
    return replace(utilities, value=replace(utilities.value, offset=utilities.value.offset + 10))


def test_accumulation_gives_the_curve_of_a_large_batch(writer, tmp_path):
    votes = make_feedback(["which colour ?", "colour ?", "which ?", "?"], [WORDS] * 4)
    phi = Features(np.tile(np.eye(3), (4, 1)), votes.prompt_id, WORDS, np.zeros(3), np.eye(3), {})
    value = Linear(np.tile(np.eye(3), (4, 1, 1)), np.array([[[1.0, 0.0, 0.4]]]), np.zeros((1, 1)))
    chosen = choice.Utilitarian().choose(Utilities(value, [1.0], np.full((4, 3), 1 / 3)), beta=0.5)
    runs = []
    for i, (prompts, parts) in enumerate(((4, 1), (1, 4), (2, 2))):
        loop = Loop(accumulation=parts, checkpoint_every=9)
        train = PPO(writer, **(learns | quick | {"prompts": prompts, "loop": loop, "baseline": Critic(), "epochs": 2}))
        runs.append(curve(train.train(chosen, votes, phi, Indicators(), tmp_path / str(i))))
    for other in runs[1:]:
        for one, two in zip(runs[0], other, strict=True):
            for name in ("objective", "kl", "loss", "grad_norm", "value_loss"):
                assert two[name] == pytest.approx(one[name], rel=5e-3, abs=1e-5)
    assert runs[0][-1]["kl"] > 1e-4  # something was learned


@pytest.mark.parametrize("killed_at", [1, 5])  # before and after the first checkpoint
def test_a_killed_run_goes_on_where_it_was(writer, colours, tmp_path, monkeypatch, killed_at):
    def ask(utilities, beta):
        return choice.Maximin().choose(utilities, beta=beta)

    chosen = ask(table([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4]], (0.8, 0.1, 0.1)), 0.1)
    green = Term("green", lambda prompts, responses: [float(y == "green") for y in responses], at_least=0.9)
    changes = quick | {"baseline": Critic(), "reestimate": 3, "kl_target": 1e-6, "average": 0.7, "again": ask}
    whole = trained(writer, colours, tmp_path / "whole", chosen, terms=[green], **changes)
    calls, write = [], rollout.write

    def kill(*args, **kwargs):
        calls.append(None)
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    monkeypatch.setattr(rollout, "write", kill)
    with pytest.raises(KeyboardInterrupt):
        trained(writer, colours, tmp_path / "killed", chosen, terms=[green], **changes)
    resumed = trained(writer, colours, tmp_path / "killed", chosen, terms=[green], **changes)
    assert len(calls) - killed_at - 1 == 6 - killed_at // 2 * 2
    assert curve(resumed) == curve(whole)
    for file in ("adapter_model.safetensors", "value_head.safetensors"):
        assert (resumed.adapter / file).read_bytes() == (whole.adapter / file).read_bytes()
    moved = [record["moved"] for record in whole.history if "moved" in record]
    assert len(moved) == 2 and moved[0] > 0
    assert whole.history[0]["price"] == 0.1 != whole.history[-1]["price"]


def test_the_value_head_is_kept_with_the_adapter(writer, colours, tmp_path):
    policy = trained(writer, colours, tmp_path, FIRST, **(quick | {"baseline": Critic()}))
    head, kept = critic.load_head(policy.adapter), load_file(policy.adapter / "value_head.safetensors")
    assert head.weight.shape == (1, 32)
    assert head.weight.abs().max() > 0
    assert all(torch.equal(value, kept[name]) for name, value in head.state_dict().items())
    network = PeftModel.from_pretrained(writer.load()[0], str(policy.adapter))  # and plain peft does not mind
    assert network.peft_config["default"].r == 4
    plain = trained(writer, colours, tmp_path / "plain", FIRST, **quick)
    assert not (plain.adapter / "value_head.safetensors").exists()
    with pytest.raises(InputError, match="holds no value head"):
        critic.load_head(plain.adapter)


def test_the_price_rises_while_the_policy_is_too_far_away(writer, colours, tmp_path):
    strong = choice.Utilitarian().choose(table([[1.0, 0.0, 0.4]]), beta=0.3)
    assert strong.lottery[0] @ np.log(3 * strong.lottery[0]) > 0.5  # where it would go at its own price
    policy = trained(writer, colours, tmp_path, strong, kl_target=0.2, steps=120, learning_rate=2e-3)
    assert max(r["kl"] for r in policy.history[:60]) > 0.5
    assert np.mean([r["kl"] for r in policy.history[60:]]) == pytest.approx(0.2, abs=0.1)
    assert min(r["price"] for r in policy.history) == 0.3 < policy.history[-1]["price"]


def test_a_guard_stops_what_leaves_the_data_and_says_so(writer, colours, tmp_path):
    guard = Guard(kl=0.05, patience=2)
    policy = trained(writer, colours, tmp_path, FIRST, guard=guard, steps=40)
    steps = len(policy.history)
    assert 3 < steps < 40
    assert policy.history[-1]["guard/strikes"] == 1.0  # the second is seen before the next step, which is not made
    assert any("stopped after step" in caveat and "kl is" in caveat for caveat in policy.caveats)
    assert (policy.adapter / "adapter_model.safetensors").is_file()
    free = trained(writer, colours, tmp_path / "free", FIRST, guard=replace(guard, kl=50.0), steps=12)
    assert len(free.history) == 12


def test_a_response_that_the_posterior_does_not_know_teaches_nothing(writer, colours, tmp_path):
    """Green is far from all candidates of the data; falling back, the policy neither seeks nor shuns it for its reward."""
    phi = np.array([[1.0, 0.0], [0.0, 50.0], [-1.0, 0.0]])  # red, green, blue

    class Far:
        def encode_texts(self, prompts, responses, like):
            return np.array([phi[WORDS.index(y)] if y in WORDS else [0.0, 0.0] for y in responses])

    votes = make_feedback(["which colour ?"], [("red", "blue", "pink")])
    known = Features(phi[[0, 2, 2]], votes.prompt_id, ("a", "b"), np.zeros(2), np.eye(2), {})
    value = Linear(phi[[0, 2, 2]][None], np.array([[[0.3, 0.02]]]), np.zeros((1, 1)))  # green seems to be worth 1
    chosen = choice.Utilitarian().choose(Utilities(value, [1.0], np.full((1, 3), 1 / 3)), beta=0.3)
    found = {}
    for name, guard in {"guarded": Guard(action="fallback"), "free": None}.items():
        train = PPO(writer, **(learns | {"guard": guard}))
        policy = train.train(chosen, votes, known, Far(), tmp_path / name)
        found[name] = probabilities(writer, colours[0], policy.adapter)
    assert found["free"][1] > 0.6
    assert found["guarded"][1] < 0.4
    assert found["guarded"][0] > 1.5 * found["guarded"][2]  # of what it knows it still learns


def test_samples_and_metrics_are_kept_and_explained(writer, colours, tmp_path):
    loop = Loop(samples_every=3, checkpoint_every=2)
    policy = trained(writer, colours, tmp_path, FIRST, **(quick | {"loop": loop, "baseline": Critic()}))
    folder = tmp_path / "policies/utilitarian-ppo"
    told = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(s["step"], s["prompt"]) for s in told] == [(1, "which colour ?"), (4, "which colour ?")]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert tuple(json.loads(line) for line in lines) == policy.history
    named = (ppo.__doc__ or "").replace("NAME", "voter 0")
    assert all(f"`{name}`" in named for name in policy.history[0])


def test_a_finished_run_is_returned_at_once_and_another_is_trained(writer, colours, tmp_path, monkeypatch):
    first = trained(writer, colours, tmp_path, FIRST, **quick)
    monkeypatch.setattr(Pretrained, "load", lambda _: pytest.fail("a model was loaded"))
    assert trained(writer, colours, tmp_path, FIRST, **quick) == first
    for changes in ({"clip": 0.1}, {"terms": [Term("zero", lambda x, y: [0.0] * len(y))]}):
        with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
            trained(writer, colours, tmp_path, FIRST, **(quick | changes))


def test_a_reward_that_is_no_number_names_the_response(writer, colours, tmp_path):
    broken = Term("broken", lambda prompts, responses: [float("nan") if y == "red" else 0.0 for y in responses], 1.0)
    with pytest.raises(TrainError, match=r"broken.*red"):
        trained(writer, colours, tmp_path, FIRST, terms=[broken], group=32, steps=3)


def test_what_cannot_be_trained_is_refused(writer, colours, tmp_path):
    dense = choice.Utilitarian().choose(Utilities(np.zeros((1, 1, 1, 3)), [1.0], np.full((1, 3), 1 / 3)), beta=1.0)
    with pytest.raises(InputError, match="train it by DPO"):
        trained(writer, colours, tmp_path, dense, **quick)
    with pytest.raises(InputError, match="pass `again`"):
        trained(writer, colours, tmp_path, FIRST, **(quick | {"reestimate": 2}))
    with pytest.raises(InputError, match="fit into the 64"):
        trained(writer, colours, tmp_path, FIRST, **(quick | {"max_response_tokens": 62}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"group": 1}, "group is 1; leave-one-out"),
        ({"clip": 1.0}, "clip is 1"),
        ({"kl_target": 0.0}, "kl_target is 0"),
        ({"average": 1.5}, r"average \(1.5\)"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_a_value_out_of_range_is_named(changes, told):
    with pytest.raises(InputError, match=told):
        PPO("x", **changes)
