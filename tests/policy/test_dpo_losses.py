"""Relatives of DPO through the whole loop, on a language model."""

from dataclasses import replace

import numpy as np
import pytest
from peft import PeftModel

from pluralign.policy import DPO, dpo
from pluralign.policy.adapt import Lora
from pluralign.policy.losses import Distil
from pluralign.policy.reweigh import MaxMin
from pluralign.policy.training import Loop
from tests.policy.conftest import RESPONSES, by_hand, make_choice, make_features, make_feedback
from tests.policy.tabular import community, distance
from tests.policy.test_optima import A4, cyclic

T, M = np.array([[1.0, 0.2, -1.2]]), np.array([-0.6, 0.4, 0.0])
ON_A_MODEL = {
    "MODPO": (DPO("x", beta=0.5), make_choice(T), M, np.exp(T[0] + M / 0.5)),
    "MaxMin": (DPO("x", reweigh=MaxMin(0.2)), community(A4, (0.9, 0.1)), None, [0.42232, 0.42232, 0.15536]),
    "regularised maximal lottery": (DPO("x", loss=Distil()), cyclic(0.1), None, [0.30571, 0.05130, 0.64300]),
}


@pytest.mark.parametrize("name", ON_A_MODEL)
def test_a_language_model_gets_there(tiny, tmp_path, name):
    """Through the whole loop: pi / pi_ref on the candidates, times the reference lottery."""
    train, chosen, margin, exact = ON_A_MODEL[name]
    votes = make_feedback(["tell me about the cat"], [RESPONSES[:3]])
    lora = Lora(rank=16, targets=None)
    train = replace(train, model=tiny, slate=None, batch=1, lora=lora, learning_rate=1.5e-2, steps=100)
    trained = train.train(chosen, votes, make_features(votes), tmp_path, margin=margin)
    network, form = tiny.load()
    rows = [form.row(form.prompt("tell me about the cat", 128), y, 128) for y in RESPONSES[:3]]
    before = np.array([by_hand(network, row) for row in rows])
    model = PeftModel.from_pretrained(network, str(trained.adapter))
    found = chosen.utilities.reference[0] * np.exp([by_hand(model, row) for row in rows] - before)
    assert distance(found / found.sum(), exact / np.sum(exact)) < 0.02
    assert found.sum() == pytest.approx(1, abs=0.1)  # the level


def test_the_weights_of_groups_survive_being_killed(tiny, tmp_path, monkeypatch):
    votes = make_feedback(["tell me about the cat"], [RESPONSES[:3]])
    train = DPO(tiny, reweigh=MaxMin(0.5), steps=8, batch=2, loop=Loop(checkpoint_every=3))
    inputs = community(A4, (0.9, 0.1)), votes, make_features(votes)
    whole = train.train(*inputs, tmp_path / "whole").history
    seen = [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in whole]
    assert seen[0]["weight/voter 0"] == pytest.approx(0.9)
    assert seen[7]["weight/voter 0"] < seen[4]["weight/voter 0"] < 0.9
    assert seen[0]["utility/voter 0"] > 0.4 > seen[0]["utility/voter 0"] - 0.1
    finite = dpo._finite

    def kill(loss, slates, candidates, step):
        if step == 5:
            raise KeyboardInterrupt
        finite(loss, slates, candidates, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dpo, "_finite", kill)
        train.train(*inputs, tmp_path / "killed")
    again = train.train(*inputs, tmp_path / "killed").history
    assert [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in again] == seen
