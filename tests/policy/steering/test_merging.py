import json
from math import comb

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pluralign.errors import InputError
from pluralign.policy.steering import soup, taste

LAYER = "base_model.model.model.embed_tokens"
IDS = torch.arange(3, 15)[None]


def make(tiny, folder, seed, **options):
    """An adapter with random matrices on the tiny model."""
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", **({"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]} | options)
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny.path), config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * 0.2)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.double()


def deltas(tiny, folder):
    """What an adapter adds to each weight, as peft itself merges it, in float64."""
    base = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float64)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, str(folder), autocast_adapter_dtype=False).double().merge_and_unload()
    return {name: p.detach() - before[name] for name, p in merged.named_parameters()}


def by_hand(tiny, folders, weights):
    """Logits of the base model with the weighted deltas added, in float64."""
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float64)
    every = [deltas(tiny, folder) for folder in folders]
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(sum(w * d[name] for w, d in zip(weights, every, strict=True)))
    return logits(model)


@pytest.fixture(scope="module")
def three(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "plain": make(tiny, folder / "plain", 0),
        "rank-stabilised": make(tiny, folder / "rslora", 1, r=5, use_rslora=True),
        "patterned": make(
            tiny, folder / "pattern", 2, rank_pattern={"layers.0.self_attn.q_proj": 2}, alpha_pattern={"down_proj": 7}
        ),
    }


@pytest.mark.parametrize("weights", [(0.5, 0.2, 0.3), (1.0, -0.7, 2.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.0), None])
def test_a_soup_has_the_logits_of_summed_deltas(tiny, three, tmp_path, weights):
    told = None if weights is None else dict(zip(three, weights, strict=True))
    made = soup(three, told, out=tmp_path / "soup")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.path), str(made.adapter))
    expected = by_hand(tiny, three.values(), weights or (1 / 3,) * 3)
    torch.testing.assert_close(logits(model), expected, atol=2e-4, rtol=1e-4)
    base = logits(AutoModelForCausalLM.from_pretrained(tiny.path))
    assert bool((base - expected).abs().max() > 0.5) == bool(weights is None or any(weights))
    assert made.error == 0
    assert made.rank == (3 + 5 + 3 if weights is None or all(weights) else 5 if any(weights) else 3)


def test_averaging_the_matrices_apart_is_another_model(tiny, three, tmp_path):
    """The negative twin: peft's own linear combination of A and of B does not give the sum of the products."""
    folders = [three["plain"], make(tiny, tmp_path / "other", 5)]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.path), str(folders[0]), "a")
    model.load_adapter(str(folders[1]), "b")
    model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "mixed", combination_type="linear")
    model.set_adapter("mixed")
    assert (logits(model) - by_hand(tiny, folders, (0.5, 0.5))).abs().max() > 0.1
    model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "side by side", combination_type="cat")
    model.set_adapter("side by side")
    torch.testing.assert_close(logits(model), by_hand(tiny, folders, (0.5, 0.5)), atol=2e-4, rtol=1e-4)


def products(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    layers = {key.rsplit(".lora_", 1)[0] for key in tensors}
    scale = config["lora_alpha"] / config["r"]
    return {
        x: scale * (tensors[f"{x}.lora_B.weight"].double() @ tensors[f"{x}.lora_A.weight"].double()).numpy()
        for x in layers
    }


@pytest.mark.parametrize("rank", [1, 4, 50])
def test_a_smaller_rank_is_the_nearest_there_is_and_its_error_is_told(three, tmp_path, rank):
    weights = dict(zip(three, (0.5, -0.2, 0.3), strict=True))
    whole = products(soup(three, weights, out=tmp_path / "whole").adapter)
    made = soup(three, weights, out=tmp_path / "small", rank=rank)
    small = products(made.adapter)
    lost = total = 0.0
    for layer, matrix in whole.items():
        sigma = np.linalg.svd(matrix, compute_uv=False)
        assert np.linalg.matrix_rank(small[layer], tol=1e-4) <= rank
        gone = np.linalg.norm(matrix - small[layer]) ** 2
        assert gone == pytest.approx((sigma[rank:] ** 2).sum(), abs=1e-8)
        lost, total = lost + gone, total + (sigma**2).sum()
    assert made.error == pytest.approx((lost / total) ** 0.5, abs=1e-6)
    assert made.rank == min(rank, 11)
    assert (made.error > 0.1) == (rank < 5)


def test_an_adapter_merged_with_itself_is_itself(tiny, three, tmp_path):
    made = soup({"a": three["plain"], "b": three["plain"]}, {"a": 0.25, "b": 0.75}, out=tmp_path / "same", rank=3)
    assert made.error < 1e-6
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.path), str(made.adapter))
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.path), str(three["plain"]))
    torch.testing.assert_close(logits(model), logits(alone), atol=1e-4, rtol=1e-4)


def test_it_is_written_whole_or_not_at_all(three, tmp_path):
    soup(three, out=tmp_path / "soup")
    made = soup(three, {"plain": 1.0, "rank-stabilised": 0.0, "patterned": 0.0}, out=tmp_path / "soup")
    assert json.loads((made.adapter / "soup.json").read_text())["weights"]["plain"] == 1
    assert made.rank == 3
    assert [p.name for p in tmp_path.iterdir()] == ["soup"]


def test_what_is_refused(tiny, three, tmp_path):
    plain = three["plain"]

    def refused(message, **adapters):
        with pytest.raises(InputError, match=message):
            soup(adapters, out=tmp_path / "never")

    other = make(tiny, tmp_path / "v", 0, target_modules=["v_proj"])
    refused("change different layers", a=plain, b=other)
    refused("holds no adapter_config.json", a=tmp_path)
    refused("use_dora", a=plain, b=make(tiny, tmp_path / "dora", 0, use_dora=True))
    refused("no adapters")
    moved = make(tiny, tmp_path / "moved", 0)
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "elsewhere"}))
    refused("'elsewhere'; merge those of one model", a=plain, b=moved)
    (moved / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa_niter_4"}))
    refused("init_lora_weights=pissa", a=plain, b=moved)
    (moved / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(moved / "adapter_model.safetensors")
    narrow = {k: t[:, :-1].contiguous() if k.endswith("q_proj.lora_A.weight") else t for k, t in tensors.items()}
    save_file(narrow, moved / "adapter_model.safetensors", {"format": "pt"})
    refused(r"is \(32, 32\) in 'a' and \(32, 31\) in 'b'", a=plain, b=moved)
    save_file(tensors | {f"{LAYER}.lora_embedding_A": torch.ones(3, 8)}, moved / "adapter_model.safetensors")
    refused("lora_embedding_A", a=plain, b=moved)
    for weights, message in (({"a": 1.0}, "one weight for each"), ({"a": 1.0, "b": np.nan}, "must be finite")):
        with pytest.raises(InputError, match=message):
            soup({"a": plain, "b": plain}, weights, out=tmp_path / "never")
    with pytest.raises(InputError, match="rank is 0"):
        soup({"a": plain}, out=tmp_path / "never", rank=0)
    assert not (tmp_path / "never").exists()


def tilted(weights):
    """Welfare of two groups under the tilt `sum w_g r_g` of three responses, in closed form."""
    rewards = np.array([[1, 0, 0.4], [0, 1, 0.4]])
    w = np.array([weights["first"], weights["second"]])
    p = np.exp(w @ rewards / 0.1)
    return rewards @ (p / p.sum())


def test_rules_prefer_the_weights_that_closed_forms_name():
    """Two groups that want opposite things: maximin weighs them equally and gives each .48446 (MaxMin-RLHF)."""
    found = taste(("first", "second"), tilted, np.min, steps=20)
    assert found.best == {"first": 0.5, "second": 0.5}
    assert found.value.max() == pytest.approx(0.48446, abs=1e-5)
    most = taste(("first", "second"), tilted, lambda u: 0.7 * u[0] + 0.3 * u[1], steps=20)
    assert most.best == {"first": 1.0, "second": 0.0}
    assert found.welfare.shape == (21, 2)


@pytest.mark.parametrize(("names", "steps"), [("a", 4), ("ab", 10), ("abc", 10), ("abcd", 5)])
def test_the_grid_is_the_whole_simplex_once(names, steps):
    found = taste(tuple(names), lambda w: [*w.values()], np.max, steps)
    assert len(found.weights) == comb(steps + len(names) - 1, len(names) - 1)
    assert len({tuple(row) for row in found.weights}) == len(found.weights)
    np.testing.assert_allclose(found.weights.sum(1), 1)
    assert (found.weights >= 0).all()
    np.testing.assert_allclose(found.weights * steps, np.round(found.weights * steps), atol=1e-9)


def test_a_rule_without_an_answer_is_an_error():
    with pytest.raises(InputError, match="values no soup"), np.errstate(all="ignore"):
        taste(("a", "b"), lambda w: [-1.0, 1.0], lambda u: float(np.log(u).sum()))
    with pytest.raises(InputError, match="finite welfare"):
        taste(("a", "b"), lambda w: [np.nan, 1.0], np.min)
    with pytest.raises(InputError, match="no grid"):
        taste((), lambda w: [1.0], np.min)
