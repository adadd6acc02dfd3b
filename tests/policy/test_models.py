import itertools
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from pluralign.errors import InputError
from pluralign.policy import DPO, Pretrained, Scratch, resolve, sample, scoring
from pluralign.policy.text import Format
from tests.policy.conftest import make_choice, make_features, make_feedback

small = {"layers": 1, "width": 8, "heads": 2, "steps": 3, "batch": 4}


def weights(model: Pretrained):
    return {k: v.numpy() for k, v in AutoModelForCausalLM.from_pretrained(model.path).state_dict().items()}


def test_scratch_writes_each_word_back(tiny, votes):
    form = Format.of(AutoTokenizer.from_pretrained(tiny.path))
    for x, y in zip(votes.items["prompt"], votes.items["response"], strict=True):
        row = form.row(form.prompt(x, 50), y, 50)
        assert form.text(row.prompt) == x
        assert form.text(row.response) == y
        assert form.tokenizer.unk_token_id not in row.prompt + row.response
    assert form.tokenizer.unk_token_id in form.prompt("zebra", 50)


def test_scratch_depends_on_its_seed_and_nothing_else(votes, tmp_path):
    first, again, other = (
        weights(resolve(Scratch(**small), votes, tmp_path / name, seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all((first[k] == again[k]).all() for k in first)
    assert any((first[k] != other[k]).any() for k in first)


def test_scratch_is_made_once_for_the_same_inputs(votes, tmp_path):
    def made(**changes):
        model = resolve(Scratch(**(small | changes)), votes, tmp_path, 0)
        return (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns, model.fingerprint()

    first = made()
    assert made() == first
    assert made(steps=4)[1] != first[1]
    assert made()[1] == first[1]  # made anew, and the same
    (tmp_path / "model" / "pluralign.json").unlink()  # as if the run had been killed before the model was whole
    assert made()[0] != first[0]


def test_scratch_learns_to_write_such_texts_and_new_ones(tmp_path):
    """Texts of a small grammar: most of what a trained model writes is in the grammar, and not all was seen."""
    openings, middles, topics = (
        ("dear friend ,", "hello ,"),
        ("a funny fact", "a sad tale", "one tip"),
        ("sea", "city", "moon"),
    )
    grammar = {t: [f"{o} here is {m} about the {t} ." for o, m in itertools.product(openings, middles)] for t in topics}
    seen = [grammar[t][:4] + grammar[t][5:] for t in topics]
    feedback = make_feedback([f"tell me of the {t}" for t in topics], seen)
    model = resolve(
        Scratch(layers=1, width=32, heads=2, steps=120, batch=16, learning_rate=1e-2), feedback, tmp_path, 0
    )
    written = sample(model, [f"tell me of the {t}" for t in topics], n=60, max_tokens=20)
    known, texts = set(itertools.chain(*grammar.values())), list(itertools.chain(*written))
    network, form = model.load()
    rows = [form.row(form.prompt(f"tell me of the {t}", 64), text, 64) for t in topics for text in sorted(known)]
    mass = np.exp(scoring.score(network, rows, 32)).sum() / len(topics)
    assert mass > 0.9
    assert abs(np.mean([text in known for text in texts]) - mass) < 4 * np.sqrt(mass * (1 - mass) / len(texts))
    assert len(set(texts)) >= 12
    assert {grammar[t][4] for t in topics} & set(texts)
    untrained = resolve(Scratch(layers=1, width=32, heads=2, steps=1, batch=16), feedback, tmp_path / "untrained", 0)
    texts = itertools.chain(*sample(untrained, [f"tell me of the {t}" for t in topics], n=20, max_tokens=20))
    assert not known & set(texts)


@pytest.mark.parametrize("changes", [{"width": 10, "heads": 4}, {"steps": 0}, {"learning_rate": -1.0}])
def test_scratch_names_a_value_out_of_range(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        Scratch(**changes)


@pytest.mark.parametrize("path", ["no-such-organisation/no-such-model", "."])
def test_a_model_that_is_not_there_is_named(path, tmp_path, monkeypatch, votes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no model here")
    model = resolve(path, votes, tmp_path, 0)
    why = "no such folder here" if "/" in path else "notes.txt"
    with pytest.raises(InputError, match=f"cannot load the model '{path}'.*{why}"):
        model.load()
    if "/" in path:
        with pytest.raises(InputError, match="cannot load"):
            model.fingerprint()


def test_a_dtype_that_is_unknown_is_named():
    with pytest.raises(InputError, match="dtype is 'float8'; it is one of float32, bfloat16, float16"):
        Pretrained("x", dtype="float8")


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_model_that_cannot_be_quantised_here_says_what_is_missing(bits, tiny, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"quantise is '{bits}', which takes bitsandbytes .*; or set it to null"):
        Pretrained(tiny.path, quantise=bits)._quantised()
    assert Pretrained(tiny.path, quantise=bits).fingerprint() != tiny.fingerprint()


def test_what_transformers_is_told_of_bits(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    four, eight = (Pretrained("x", dtype="bfloat16", quantise=bits)._quantised() for bits in ("4bit", "8bit"))
    assert four["device_map"] == eight["device_map"] == {"": 3}
    assert four["quantization_config"].quantization_method() == "nf4"
    assert four["quantization_config"].bnb_4bit_compute_dtype == torch.bfloat16
    assert eight["quantization_config"].quantization_method() == "llm_int8"
    assert Pretrained("x")._quantised() == {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Pretrained("x", quantise="8bit")._quantised()["device_map"] == {"": "cpu"}


@pytest.fixture(scope="module")
def wide(votes, tmp_path_factory):
    """A model whose layers are as wide as blocks of bits."""
    return resolve(Scratch(**(small | {"width": 64})), votes, tmp_path_factory.mktemp("wide"), 0)


@pytest.mark.parametrize(("bits", "apart"), [("4bit", 0.3), ("8bit", 0.03)])
def test_a_quantised_model_writes_and_learns_and_its_adapter_fits_the_whole_one(bits, apart, wide, votes, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = Pretrained(wide.path, quantise=bits)
    rows, scores = [], []
    for network, form in (wide.load(), model.load()):
        texts = zip(votes.items["prompt"], votes.items["response"], strict=True)
        rows = [form.row(form.prompt(x, 50), y, 50) for x, y in texts]
        scores.append(scoring.score(network, rows, 16))
    error = np.abs(scores[1] - scores[0]).max()
    assert 0 < error < apart * np.std(scores[0])
    assert len(sample(model, ["tell me about the cat"], n=2, max_tokens=5)[0]) == 2
    tilt = np.tile(np.linspace(-1, 1, 5), (3, 1))
    trained = DPO(model, steps=20, batch=8, learning_rate=1e-2, slate=None).train(
        make_choice(tilt), votes, make_features(votes), tmp_path
    )
    assert trained.history[-1]["excess"] < 0.5 * trained.history[0]["excess"]
    learned = []
    for network in (wide.load()[0], model.load()[0]):
        learned.append(scoring.score(PeftModel.from_pretrained(network, str(trained.adapter)).eval(), rows, 16))
    moved = learned[1] - scores[1]
    assert np.abs(moved).max() > 0.5
    assert np.corrcoef(moved, learned[0] - scores[0])[0, 1] > 0.99


def test_four_bits_that_come_back_as_others_are_refused(votes, tmp_path):
    functional = pytest.importorskip("bitsandbytes").functional
    weights = torch.arange(1.0, 97).repeat_interleave(64).view(64, 96)
    if torch.equal(functional.dequantize_4bit(*functional.quantize_4bit(weights, quant_type="nf4")), weights):
        pytest.skip("this version reads them rightly")
    model = resolve(Scratch(**(small | {"width": 96})), votes, tmp_path, 0)
    with pytest.raises(InputError, match="4-bit layers of 96 inputs wrongly on this device"):
        Pretrained(model.path, quantise="4bit").load()
    Pretrained(model.path, quantise="8bit").load()


def test_a_gguf_file_is_not_quantised_again():
    with pytest.raises(InputError, match="either gguf_file or quantise"):
        Pretrained("x", quantise="4bit", gguf_file="x.gguf")


def test_the_fingerprint_changes_with_weights_tokenizer_and_dtype(votes, tmp_path):
    model = resolve(Scratch(**small), votes, tmp_path, 0)
    first = model.fingerprint()
    assert Pretrained(model.path).fingerprint() == first
    assert Pretrained(model.path, dtype="bfloat16").fingerprint() != first
    settings = tmp_path / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": "{{ messages }}"}))
    second = model.fingerprint()
    assert second != first
    file = tmp_path / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert model.fingerprint() != second
