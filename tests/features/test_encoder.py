import re
import shutil
import subprocess
import sys
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features import Encoder, Reading, cache, states
from pluralign.types import Features


def encoder(model, **fields) -> Encoder:
    return Encoder(str(model), **{"dimensions": 5, "device": "cpu"} | fields)


def within(values, ids) -> np.ndarray:
    """Each row less the mean of the rows of its prompt, one row at a time."""
    values = np.asarray(values, np.float64)
    ids = np.asarray(ids)
    return np.array([row - values[ids == i].mean(0) for row, i in zip(values, ids, strict=True)])


def spectrum(rows) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the second-moment matrix, largest first, and its eigenvectors in columns."""
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    return values[::-1], vectors[:, ::-1]


@pytest.mark.parametrize("dimensions", [1, 5, 20])
@pytest.mark.parametrize("centre", [True, False])
def test_components_are_those_of_the_covariance(dimensions, centre, bert, texts, feedback):
    ids, prompts, responses = texts(60)
    e = encoder(bert, dimensions=dimensions, centre=centre, length=False)
    phi = e.encode(feedback(ids, prompts, responses))
    raw = e.read(prompts, responses).raw
    centred = within(raw, ids if centre else np.zeros(60))
    values, vectors = spectrum(centred)
    facts = phi.provenance
    np.testing.assert_allclose(facts["explained_each"], values[:dimensions] / values.sum(), rtol=1e-4)
    assert facts["explained"] == pytest.approx(values[:dimensions].sum() / values.sum())
    # What a projection on the axes loses is the sum of the dropped eigenvalues.
    axes = phi.basis / np.linalg.norm(phi.basis, axis=1, keepdims=True)
    lost = np.mean(((centred - centred @ axes.T @ axes) ** 2).sum(1))
    assert lost == pytest.approx(values[dimensions:].sum(), rel=1e-4)
    # One scale for all: similarities are those in the leading eigenspace, and the mean square is 1.
    scores = within(phi.phi, ids if centre else np.zeros(60))
    assert np.mean(scores**2) == pytest.approx(1, rel=1e-4)
    space = centred @ vectors[:, :dimensions]
    np.testing.assert_allclose(scores @ scores.T, space @ space.T * dimensions / values[:dimensions].sum(), atol=1e-3)
    np.testing.assert_allclose(phi.origin, raw.mean(0), atol=1e-6)
    assert (axes[np.arange(dimensions), np.abs(axes).argmax(1)] > 0).all()
    assert phi.names == tuple(f"pc{i}" for i in range(1, dimensions + 1))


def test_centring_turns_away_from_what_tells_prompts_apart():
    """The twin of the test above: along the first axis only prompts differ, along the second only responses."""
    prompt = np.repeat(np.arange(4, dtype=np.int32), 2)
    raw = np.stack([10.0 * prompt, np.tile([-0.5, 0.5], 4)], 1).astype(np.float32)
    one, reading = Encoder("unused", dimensions=1, length=False), Reading(raw, {}, {})
    np.testing.assert_allclose(one.basis(reading, prompt).axes, [[0, 2]], atol=1e-6)
    assert abs(replace(one, centre=False).basis(reading, prompt).axes[0, 1]) < 1e-6


def test_the_length_is_one_more_affine_feature(bert, texts, feedback):
    ids, prompts, responses = texts(60)
    phi = encoder(bert).encode(feedback(ids, prompts, responses))
    without = encoder(bert, length=False).encode(feedback(ids, prompts, responses))
    np.testing.assert_allclose(phi.phi[:, :-1], without.phi, atol=1e-5)
    logs = np.array([np.log(1 + len(r)) for r in responses])
    spread = np.sqrt(np.mean([(x - logs[np.array(ids) == i].mean()) ** 2 for x, i in zip(logs, ids, strict=True)]))
    np.testing.assert_allclose(phi.phi[:, -1], (logs - logs.mean()) / spread, atol=1e-5)
    assert phi.names[-1] == "length"


def test_no_more_components_than_there_are(bert, texts, feedback):
    ids, prompts, responses = texts(12, prompts=3)
    votes = feedback(ids, prompts, responses)
    for asked in (None, 32):
        phi = encoder(bert, dimensions=asked, length=False).encode(votes)
        assert phi.phi.shape == (12, 9)  # three prompts, so three of twelve dimensions are means
        assert (phi.provenance["dimensions"], phi.provenance["dimensions_asked"]) == (9, asked)
        assert phi.provenance["explained"] == pytest.approx(1)


@pytest.mark.parametrize("context", ["none", "prompt"])
def test_new_responses_get_features_of_the_same_meaning(context, bert, texts, feedback):
    ids, prompts, responses = texts(60)
    e = encoder(bert, context=context)
    phi = e.encode(feedback(ids, prompts, responses))
    np.testing.assert_allclose(e.encode_texts(prompts, responses, phi), phi.phi, atol=1e-5)
    np.testing.assert_allclose(e.encode_texts(prompts[7:8], responses[7:8], phi), phi.phi[7:8], atol=1e-4)
    for other in (replace(e, max_tokens=20), replace(e, pooling="last"), replace(e, length=False)):
        with pytest.raises(InputError, match="do not mean the same"):
            other.encode_texts(prompts, responses, phi)
    same = replace(e, dimensions=7, centre=False, batch_tokens=100, cache=False)  # the basis is that of `phi`
    np.testing.assert_allclose(same.encode_texts(prompts, responses, phi), phi.phi, atol=1e-4)


def test_all_768_dimensions_may_be_kept(bert, feedback, tmp_path, monkeypatch):
    """Names, artifact and new texts of features as wide as a base model's states; distances are those of the states."""

    def wide(pairs, **_):
        rows = [np.random.default_rng(list(text.encode())).standard_normal(768) for _, text in pairs]
        counts = {name: np.zeros(len(pairs), int) for name in ("tokens", "truncated_prompts", "truncated_responses")}
        return {"states": np.array([row / np.linalg.norm(row) for row in rows], np.float32)} | counts

    monkeypatch.setattr(states, "pooled", wide)
    prompts, ids = ["why"] * 500 + ["who"] * 500, [0] * 500 + [1] * 500
    responses = [f"answer {i}" for i in range(1000)]
    e = encoder(bert, dimensions=None)
    phi = e.encode(feedback(ids, prompts, responses))
    assert phi.phi.shape == (1000, 769)
    assert phi.names == (*(f"pc{i}" for i in range(1, 769)), "length")
    assert phi.provenance["explained"] == pytest.approx(1)
    raw = e.read(prompts, responses).raw[:, :768].astype(np.float64)
    pairs = np.random.default_rng(0).permutation(1000).reshape(-1, 2)[:50].T
    ratio = np.linalg.norm(np.diff(phi.phi[pairs, :768], axis=0), axis=-1) / np.linalg.norm(
        np.diff(raw[pairs], axis=0), axis=-1
    )
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)  # an orthogonal map times one scale
    artifacts.save(phi, tmp_path / "phi")
    loaded = artifacts.load(tmp_path / "phi", Features)
    np.testing.assert_allclose(e.encode_texts(prompts[:20], responses[:20], loaded), phi.phi[:20], atol=1e-3)


def test_saved_features_still_encode(bert, texts, feedback, tmp_path):
    ids, prompts, responses = texts(30)
    e = encoder(bert)
    phi = e.encode(feedback(ids, prompts, responses))
    artifacts.save(phi, tmp_path / "phi")
    loaded = artifacts.load(tmp_path / "phi", Features)
    np.testing.assert_allclose(e.encode_texts(prompts, responses, loaded), phi.phi, atol=1e-5)
    assert loaded.provenance == phi.provenance
    assert loaded.provenance["hash"] == artifacts.digest(loaded.phi, loaded.names, loaded.origin, loaded.basis)


def test_the_order_of_items_and_copies_of_them_do_not_matter(bert, texts, feedback):
    ids, prompts, responses = texts(60)
    phi = encoder(bert).encode(feedback(ids, prompts, responses)).phi
    order = [*np.random.default_rng(3).permutation(60), 5, 5, 17]
    again = [[column[i] for i in order] for column in (ids, prompts, responses)]
    moved = encoder(bert).encode(feedback(*again))
    np.testing.assert_allclose(moved.phi, phi[order], atol=1e-4)
    np.testing.assert_array_equal(moved.prompt_id, np.array(ids)[order])
    assert (moved.provenance["items"], moved.provenance["distinct"]) == (63, 60)


def test_batches_do_not_matter(bert, texts, feedback):
    votes = feedback(*texts(60))
    one, many = (encoder(bert, batch_tokens=n, cache=False).encode(votes) for n in (1, 8192))
    np.testing.assert_allclose(one.phi, many.phi, atol=1e-4)
    assert one.provenance["tokens"] == many.provenance["tokens"]


def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    batches = list(states._batches(lengths, 120))
    assert sorted(row for rows in batches for row in rows) == list(range(200))
    assert max(len(rows) * max(lengths[row] for row in rows) for rows in batches) <= 120
    assert len(batches) < 1.3 * sum(lengths) / 120 + 1
    assert list(states._batches([500, 400], 120)) == [[0], [1]]


class Loaded(Exception):
    pass


@pytest.fixture
def no_model(monkeypatch):
    def fail(*args, **options):
        raise Loaded

    return lambda: monkeypatch.setattr(states, "load", fail)


def test_states_are_computed_once(bert, texts, feedback, no_model, tmp_path):
    ids, prompts, responses = texts(30)
    votes = feedback(ids, prompts, responses)
    e = encoder(bert)
    first = e.encode(votes)
    copy = shutil.copytree(bert, tmp_path / "elsewhere")
    no_model()
    again = e.encode(votes)
    np.testing.assert_array_equal(again.phi, first.phi)
    assert again.provenance == first.provenance
    hits = {"dimensions": 2, "centre": False, "length": False, "batch_tokens": 64, "model": str(copy)}
    for name, value in hits.items():
        replace(e, **{name: value}).encode(votes)
    e.read([f"{p}?" for p in prompts[::-1]], responses[::-1])  # neither order nor, without context, prompts matter
    misses = {"pooling": "last", "context": "prompt", "max_tokens": 63, "cache": False}
    for name, value in misses.items():
        with pytest.raises(Loaded):
            replace(e, **{name: value}).encode(votes)
    with pytest.raises(Loaded):
        e.encode(feedback(ids, prompts, [responses[0] + " sea", *responses[1:]]))
    network = AutoModel.from_pretrained(copy)
    network.embeddings.word_embeddings.weight.data[5, 5] += 1e-3
    network.save_pretrained(copy)
    with pytest.raises(Loaded):
        encoder(copy).encode(votes)


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b"", lambda b: b"no archive", "flip", "other"])
def test_a_damaged_cache_is_computed_again(damage, bert, texts, tmp_path, no_model):
    _, prompts, responses = texts(10)
    e = encoder(bert)
    first = e.read(prompts, responses).raw
    (file,) = (tmp_path / "cache" / "pluralign" / "states").iterdir()
    good = bytearray(file.read_bytes())
    if damage == "flip":
        good[len(good) // 3] ^= 0xFF
        file.write_bytes(good)
    elif damage == "other":
        np.savez(file, states=np.zeros((3, 4)))
    else:
        file.write_bytes(damage(bytes(good)))
    np.testing.assert_allclose(e.read(prompts, responses).raw, first, atol=1e-6)
    no_model()
    np.testing.assert_allclose(e.read(prompts, responses).raw, first, atol=1e-6)
    assert [f.name for f in file.parent.iterdir()] == [file.name]  # nothing half-written is left behind


def test_without_cache_nothing_is_written(bert, texts, tmp_path, monkeypatch):
    _, prompts, responses = texts(4)
    encoder(bert, cache=False).read(prompts, responses)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write the cache .* set cache = false"):
        encoder(bert).read(prompts, responses)


def test_texts_that_come_in_batches_load_their_model_once(bert, llama, texts, feedback, loads, tmp_path):
    ids, prompts, responses = texts(24)
    votes, e, other = feedback(ids, prompts, responses), encoder(bert), encoder(llama)
    phi, its = e.encode(votes), other.encode(votes)
    folder = tmp_path / "cache" / "pluralign" / "states"
    files, batches = sorted(folder.iterdir()), [slice(i, i + 6) for i in range(0, 24, 6)]
    written = [f"{response} sea" for response in responses]
    found = [e.encode_texts(prompts[part], written[part], phi) for part in batches]
    assert loads == ["bert0", "llama0", "bert0"]  # both for the feedback; then one for all batches
    assert sorted(folder.iterdir()) == files
    other.encode_texts(prompts, written, its)
    e.encode_texts(prompts, written, phi)
    assert loads[3:] == ["llama0", "bert0"]  # one is kept, the last
    e.encode(feedback(ids, prompts, written))
    assert loads[5:] == ["bert0"]  # feedback has a model of its own, and leaves it
    for part, values in zip(batches, found, strict=True):
        fresh = replace(e, cache=False).read(prompts[part], written[part]).raw
        np.testing.assert_array_equal(values, phi.project(fresh))


def test_an_adapter_stays_off_the_model_that_is_kept(bert, texts, loads, tmp_path):
    _, prompts, responses = texts(6)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    get_peft_model(AutoModel.from_pretrained(bert), lora).save_pretrained(tmp_path / "adapter")
    e, seen = encoder(bert, cache=False), {}
    for name, folder in (("bare", None), ("adapted", tmp_path / "adapter")) * 2:
        seen.setdefault(name, []).append(e.adapted(prompts, responses, folder, True).raw)
    assert len(loads) == 4
    for name in seen:
        np.testing.assert_array_equal(*seen[name])
    assert np.abs(seen["bare"][0] - seen["adapted"][0]).max() > 0.01
    np.testing.assert_array_equal(seen["bare"][0], e.read(prompts, responses).raw)


@pytest.mark.parametrize("torch_first", [False, True])
def test_a_cached_reading_imports_no_torch(torch_first, bert, tmp_path):
    encoder(bert).read(["why"], ["deep sea"])
    script = f"""
import sys
{"import torch" if torch_first else ""}
from pluralign.features import Encoder
Encoder({str(bert)!r}).read(["why"], ["deep sea"])
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == torch_first


def test_a_model_on_the_hub_is_known_by_its_commit(bert, texts, tmp_path, monkeypatch):
    """The hub's own cache layout, offline: two commits of one name are two models."""
    _, prompts, responses = texts(5)
    root = tmp_path / "hub" / "models--acme--tiny"
    for commit, shift in (("a" * 40, 0), ("b" * 40, 1)):
        folder = shutil.copytree(bert, root / "snapshots" / commit)
        network = AutoModel.from_pretrained(bert)
        network.embeddings.word_embeddings.weight.data[:, 0] += shift
        network.save_pretrained(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    readings = []
    for commit in ("a" * 40, "b" * 40):
        artifacts.write_text(root / "refs" / "main", commit)
        readings.append(encoder("acme/tiny").read(prompts, responses))
        assert readings[-1].how["weights"] == commit
    local = encoder(bert).read(prompts, responses).raw
    np.testing.assert_allclose(readings[0].raw, local, atol=1e-6)
    assert np.abs(readings[1].raw - local).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimensions": 0}, "dimensions is 0; it must be at least 1"),
        ({"max_tokens": 7}, "max_tokens is 7; it must be at least 8"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ],
)
def test_fields_out_of_range_are_named(fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Encoder("anything", **fields)


@pytest.mark.parametrize("model", ["no-such-org/no-such-model", "no/such/folder", "./nowhere"])
def test_a_model_that_is_nowhere_is_named_with_what_to_do(model):
    with pytest.raises(InputError, match=f"'{model}' is not a local folder, and the Hugging Face hub does not give it"):
        Encoder(model).read(["why"], ["sea"])


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded as a transformers model"):
        Encoder(str(tmp_path)).read(["why"], ["sea"])
    with pytest.raises(InputError, match=r"has no file 'tiny.gguf'; it has \[\]"):
        Encoder(str(tmp_path), gguf_file="tiny.gguf").read(["why"], ["sea"])


def test_responses_that_do_not_differ_are_refused(bert, feedback):
    one_each = feedback([0, 1, 2], ["why", "who", "what"], ["deep", "sea salt", "a"])
    with pytest.raises(InputError, match="Does every prompt have only one response"):
        encoder(bert).encode(one_each)
    as_long = feedback([0, 0], ["why", "why"], ["deep", "salt"])
    with pytest.raises(InputError, match="set length = false"):
        encoder(bert).encode(as_long)
    assert encoder(bert, length=False).encode(as_long).phi.shape == (2, 1)


def test_the_content_hash_of_a_folder_sees_every_file(bert, tmp_path):
    copy = shutil.copytree(bert, tmp_path / "copy")
    known = cache.identity(str(bert), None)
    assert cache.identity(str(copy), None) == known
    (copy / "notes.md").write_text("no part of the model")
    assert cache.identity(str(copy), None) == known
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before[:-2] + b" " + before[-2:])
        assert cache.identity(str(copy), None) != known
        (copy / name).write_bytes(before)
    assert cache.identity(str(copy), None) == known


def test_near_in_meaning_is_near_in_features(real_models, feedback):
    """Features order answers as a person would: paraphrases are near, another topic is far."""
    answers = [
        "Water boils at 100 degrees Celsius.",
        "The boiling point of water is 100 °C.",
        "My cat likes to sleep in the sun all day.",
        "Cats enjoy sleeping in sunshine.",
    ]
    e = Encoder(str(real_models / "all-MiniLM-L6-v2"), dimensions=None, length=False, device="cpu")
    phi = e.encode(feedback([0] * 4, ["Say something."] * 4, answers)).phi
    far = np.linalg.norm(phi[:, None] - phi[None], axis=-1)
    assert far[0, 1] < far[0, 2:].min() and far[2, 3] < far[:2, 3].min()
