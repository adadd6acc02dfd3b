"""Losses and gradients equal those that trl computes itself, on the same batch."""

import warnings

import numpy as np
import pytest
import torch

from pluralign.policy import losses, scoring
from pluralign.policy.adapt import Lora

trl = pytest.importorskip("trl")

PROMPTS = ("tell me about the cat", "tell me about the dog", "tell me about the fish")
PAIRS = (("it sleeps", "no"), ("we love it", "it runs , and runs"), ("no", "it runs"))


@pytest.fixture(scope="module")
def setting(tiny, tmp_path_factory):
    """trl's own trainer, with a model whose adapter has moved away from the reference; the pairs as rows."""
    from datasets import Dataset

    network, form = tiny.load()
    model = Lora(rank=4, targets=None).attach(network)
    texts = [{"prompt": x, "chosen": a, "rejected": b} for x, (a, b) in zip(PROMPTS, PAIRS, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl's own
        config = trl.DPOConfig(
            str(tmp_path_factory.mktemp("trl")), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False
        )
        trainer = trl.DPOTrainer(
            model, args=config, train_dataset=Dataset.from_list(texts), processing_class=form.tokenizer
        )
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():  # trl keeps a copy of the adapter as it was, the reference
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    sides = zip(*PAIRS, strict=True)  # first responses, then second ones, as trl has them
    rows = [form.row(form.prompt(x, 32), y, 32) for side in sides for x, y in zip(PROMPTS, side, strict=True)]
    return trainer, model.eval(), rows


def of_trl(setting, rows, loss_type, beta, smoothing=0.0):
    """What trl makes of a batch: its loss with the gradient of every trained number."""
    trainer, model, _ = setting
    trainer.loss_types, trainer.beta, trainer.label_smoothing = [loss_type], beta, smoothing
    width = max(len(r.prompt) + len(r.response) for r in rows)
    ids, attention, completion = np.zeros((3, len(rows), width), np.int64)
    for i, row in enumerate(rows):
        n, m = len(row.prompt), len(row.prompt) + len(row.response)
        ids[i, :m], attention[i, :m], completion[i, n:m] = row.prompt + row.response, 1, 1
    batch = {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}
    return gradients(model, trainer.compute_loss(model, {name: torch.from_numpy(v) for name, v in batch.items()}))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def of_ours(model, rows, loss, label, beta, per_token=False):
    with torch.no_grad(), model.disable_adapter():
        reference = scoring.log_probs(model, rows)
    log_ratio = scoring.log_probs(model, rows) - reference
    if per_token:
        log_ratio = log_ratio / torch.tensor([len(r.response) for r in rows])
    first, second = log_ratio.chunk(2)
    return gradients(model, loss.pair(first - second, torch.full_like(first, label), beta).mean())


@pytest.mark.parametrize(
    ("loss", "name", "beta", "smoothing"),
    [
        (losses.Logistic(), "sigmoid", 0.1, 0.0),
        (losses.Logistic(), "sigmoid", 1.3, 0.0),
        (losses.Robust(0.2), "robust", 0.7, 0.2),
        (losses.Square(0.4), "ipo", 0.4, 0.0),
    ],
    ids=["dpo 0.1", "dpo 1.3", "rdpo", "ipo"],
)
def test_loss_and_gradients_are_those_of_trl(setting, loss, name, beta, smoothing):
    _, model, rows = setting
    value, gradient = of_trl(setting, rows, name, beta, smoothing)
    own, mine = of_ours(model, rows, loss, 1.0, beta, per_token=name == "ipo")
    assert own == pytest.approx(value, rel=1e-5)
    assert mine.keys() == gradient.keys() and mine
    for part in mine:
        torch.testing.assert_close(mine[part], gradient[part], rtol=1e-3, atol=1e-6)
    other, _ = of_ours(model, rows, loss, 0.9, beta, per_token=name == "ipo")
    assert other != pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(("label", "smoothing"), [(1.0, 0.2), (0.7, 0.0), (0.7, 0.1)], ids=["cdpo", "soft", "both"])
def test_soft_and_smoothed_labels_are_trls_losses_of_both_outcomes(setting, label, smoothing):
    """trl has hard labels alone; turning the pairs round gives it the other outcome."""
    _, model, rows = setting
    (up, of_up), (down, of_down) = (of_trl(setting, r, "sigmoid", 0.5) for r in (rows, rows[3:] + rows[:3]))
    q = (1 - 2 * smoothing) * label + smoothing
    own, mine = of_ours(model, rows, losses.Logistic(smoothing), label, 0.5)
    assert own == pytest.approx(q * up + (1 - q) * down, rel=1e-5)
    for part in mine:
        torch.testing.assert_close(mine[part], q * of_up[part] + (1 - q) * of_down[part], rtol=1e-3, atol=1e-6)
