"""Which states are pooled: against one forward pass per text, tokenised and padded by transformers itself."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from pluralign.errors import InputError
from pluralign.features import Encoder, states


def pooled(model, prompts, responses, **fields) -> np.ndarray:
    fields = {"length": False, "cache": False, "device": "cpu"} | fields
    return Encoder(str(model), **fields).read(prompts, responses).raw


def alone(model, prompts, responses, *, last=False, context=False, **options) -> np.ndarray:
    """One text at a time, no padding; the response's tokens are found by character offsets."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        options = {"return_tensors": "pt", "return_offsets_mapping": True, **options}
        if context and tokenizer.cls_token:
            inputs = tokenizer(prompt, response, **options)
            counts = torch.tensor([part == 1 for part in inputs.sequence_ids()])
            del inputs["offset_mapping"]
        elif context:
            inputs = tokenizer(f"{prompt} {response}", **options)
            counts = inputs.pop("offset_mapping")[0, :, 1] > len(prompt) + 1
        else:
            inputs = tokenizer(response, **options)
            counts = inputs.pop("offset_mapping")[0, :, 1] >= (0 if tokenizer.cls_token else 1)
        with torch.no_grad():
            hidden = network(**inputs).last_hidden_state[0]
        h = hidden[counts][-1] if last else hidden[counts].mean(0)
        rows.append((h / h.norm()).numpy())
    return np.array(rows)


CASES = [(last, context) for last in (False, True) for context in (False, True)]


def named(last: bool, context: bool) -> dict[str, str]:
    return {"pooling": "last" if last else "mean", "context": "prompt" if context else "none"}


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(("last", "context"), CASES)
def test_batched_states_are_those_of_texts_alone(name, last, context, request, texts):
    model = request.getfixturevalue(name)
    _, prompts, responses = texts(40)
    expected = alone(model, prompts, responses, last=last, context=context)
    for batch_tokens in (1, 70, 8192):
        found = pooled(model, prompts, responses, batch_tokens=batch_tokens, **named(last, context))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(
    ("last", "mutant"),
    [
        (False, lambda s: s._replace(start=0)),  # the prompt leaks into the mean
        (False, lambda s: s._replace(start=s.start - 1)),  # only its last token does
        (False, lambda s: s._replace(stop=s.stop + 1, ids=[*s.ids, 0])),  # a token after the response does
        (True, lambda s: s._replace(start=s.start - 1, stop=s.stop - 1)),  # the last token but one
    ],
)
def test_the_comparison_sees_a_wrong_token(name, last, mutant, request, texts, monkeypatch):
    model = request.getfixturevalue(name)
    _, prompts, responses = texts(40)
    expected = alone(model, prompts, responses, last=last, context=True)
    right = states.sequenced
    monkeypatch.setattr(states, "sequenced", lambda *a, **k: [mutant(s) for s in right(*a, **k)])
    found = pooled(model, prompts, responses, **named(last, True))
    assert (np.abs(found - expected).max(1) > 1e-3).all()


def test_the_comparison_sees_padding_that_is_attended_to(bert, texts, monkeypatch):
    _, prompts, responses = texts(40)
    expected = alone(bert, prompts, responses)
    forward = states.forward

    def careless(network, batch, pad, segments, last):
        def everything(**inputs):
            return network(**inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])})

        everything.device = network.device
        return forward(everything, batch, pad, segments, last)

    monkeypatch.setattr(states, "forward", careless)
    assert np.abs(pooled(bert, prompts, responses) - expected).max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_on_which_the_tokenizer_pads_does_not_matter(side, llama, texts, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(llama, padding_side=side)
    AutoModel.from_pretrained(llama).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == side
    _, prompts, responses = texts(20)
    fields = named(True, True)
    np.testing.assert_array_equal(
        pooled(tmp_path, prompts, responses, **fields), pooled(llama, prompts, responses, **fields)
    )


def test_the_prompt_matters_only_in_context(llama):
    prompts, responses = ["why is the sky", "who asks"], ["salt"] * 2
    bare, given = (pooled(llama, prompts, responses, context=c) for c in ("none", "prompt"))
    np.testing.assert_array_equal(bare[0], bare[1])
    assert np.abs(given[0] - given[1]).max() > 1e-3


def test_a_chat_template_frames_the_prompt(llama, tmp_path):
    tokenizer, network = AutoTokenizer.from_pretrained(llama), AutoModel.from_pretrained(llama)
    tokenizer.chat_template = (
        "{% for m in messages %}who {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}asks {% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    ids = tokenizer("who why is asks deep salt", add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        h = network(**ids).last_hidden_state[0, -2:].mean(0)
    found = pooled(tmp_path, ["why is"], ["deep salt"], context="prompt")
    np.testing.assert_allclose(found[0], h / h.norm(), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_what_is_too_long_loses_the_prompt_first(name, request):
    """The end of the prompt and the whole response stay; then the beginning of the response."""
    model = request.getfixturevalue(name)
    special = 3 if name == "bert" else 1
    prompts = ["why is the sky blue because light", "why is the sky blue", "why is"]
    responses = ["deep green sea", "salt " * 20, "a sea"]
    encoder = Encoder(
        str(model), context="prompt", max_tokens=8 + special, length=False, cache=False, pooling="last", device="cpu"
    )
    reading = encoder.read(prompts, responses)
    # 8 tokens of text fit. First: 5 of prompt and 3 of response. Second: none and 8. Third: all 2 + 2.
    short = alone(model, ["the sky blue because light", "", "why is"], ["deep green sea", "salt " * 8, "a sea"],
                  last=True, context=True)  # fmt: skip
    if name == "llama":  # without a prompt, the oracle's offsets start at 1
        short[1] = alone(model, [""], ["salt " * 8], last=True)[0]
    np.testing.assert_allclose(reading.raw, short, atol=1e-5)
    assert {k: v for k, v in reading.facts.items() if k.startswith("truncated")} == {
        "truncated_prompts": 2,
        "truncated_responses": 1,
    }
    assert reading.facts["tokens"] == 8 + 8 + 4 + 3 * special


def test_without_context_the_end_is_cut_as_transformers_does(bert, texts):
    _, prompts, responses = texts(40)
    expected = alone(bert, prompts, responses, truncation=True, max_length=9)
    np.testing.assert_allclose(pooled(bert, prompts, responses, max_tokens=9), expected, atol=1e-5)
    assert np.abs(pooled(bert, prompts, responses) - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_limit_of_the_model_counts(name, request):
    model, longer = request.getfixturevalue(name), "salt " * 100
    reading = Encoder(str(model), max_tokens=5000, cache=False, device="cpu").read([""], [longer])
    assert (reading.facts["tokens"], reading.facts["truncated_responses"]) == (64, 1)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(("last", "context"), CASES)
@pytest.mark.parametrize("prompt", ["", "why is the sky"])
def test_an_empty_response_has_a_state(name, last, context, prompt, request):
    model = request.getfixturevalue(name)
    found = pooled(model, [prompt, "who asks"], ["", "deep sea"], **named(last, context))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    if context and name == "llama" and prompt:  # the state just before the response
        np.testing.assert_allclose(found[0], alone(model, [""], [prompt], last=True)[0], atol=1e-5)
    if not context and not last and name == "bert":  # [CLS] [SEP], as a sentence encoder reads ""
        np.testing.assert_allclose(found[0], alone(model, [""], [""])[0], atol=1e-5)


def test_an_empty_text_without_special_tokens_has_a_state(llama, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.backend_tokenizer.post_processor = None
    AutoModel.from_pretrained(llama).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for context in ("none", "prompt"):
        found = pooled(tmp_path, ["", ""], ["", "sea"], context=context)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_half_precision_weights_are_computed_in_float32(llama, texts, tmp_path):
    network = AutoModel.from_pretrained(llama).half()
    network.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    _, prompts, responses = texts(8)
    found = pooled(tmp_path, prompts, responses)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, alone(tmp_path, prompts, responses), atol=1e-6)


def test_damaged_weights_are_named(llama, tmp_path):
    network = AutoModel.from_pretrained(llama)
    network.norm.weight.data[3] = torch.nan
    network.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"not finite for 'deep sea'"):
        pooled(tmp_path, ["why"], ["deep sea"])


def test_the_same_responses_under_the_real_encoder(real_models):
    model = real_models / "all-MiniLM-L6-v2"
    prompts = ["Why is the sky blue?", "Why is the sky blue?", "Who asks?", ""]
    responses = ["Because air scatters blue light more than red.", "No idea — ask someone else!", "", "A. " * 300]
    expected = alone(model, prompts, responses, truncation=True, max_length=256)
    np.testing.assert_allclose(pooled(model, prompts, responses), expected, atol=1e-5)
    given = alone(model, prompts[:2], responses[:2], context=True)
    np.testing.assert_allclose(pooled(model, prompts[:2], responses[:2], context="prompt"), given, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "last", "context"), [*[("stories260K", *case) for case in CASES], ("stories15M", False, True)]
)
def test_the_same_responses_under_real_causal_models(name, last, context, real_models):
    model = real_models / name
    prompts = ["Once upon a time, there was a little girl.", "Tom had a red ball."] * 2
    responses = [
        "She liked to play outside in the park.",
        "He lost it.",
        "Lily",
        "He was sad. His mom helped him find it.",
    ]
    expected = alone(model, prompts, responses, last=last, context=context)
    np.testing.assert_allclose(pooled(model, prompts, responses, **named(last, context)), expected, atol=1e-5)
