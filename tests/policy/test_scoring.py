from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from pluralign.errors import InputError
from pluralign.policy import Pretrained, kernel, scoring
from pluralign.policy.scoring import Scorer
from pluralign.policy.text import Row
from tests.policy.conftest import by_hand

rng = np.random.default_rng(0)
WORDS = 60
size: dict[str, Any] = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
small: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **size}
gated: dict[str, Any] = {**small, "intermediate_size": 24, "num_key_value_heads": 2}
# What is said of each: does it say what its output layer says?
MODELS = {
    "llama": (transformers.LlamaConfig(**gated), True),
    "qwen2": (transformers.Qwen2Config(**gated, tie_word_embeddings=True), True),
    "gpt2": (transformers.GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2), True),
    "opt": (transformers.OPTConfig(**small, ffn_dim=24, word_embed_proj_dim=12), False),  # calls its decoder
    "phi": (transformers.PhiConfig(**gated), True),  # its output layer has a bias
    "bloom": (transformers.BloomConfig(**small), True),  # positions come from the mask
    "mamba": (transformers.MambaConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, state_size=4), True),
    "mistral": (transformers.MistralConfig(**gated, sliding_window=4), True),
    "gemma2": (
        transformers.Gemma2Config(
            **gated, head_dim=8, final_logit_softcapping=2.0, sliding_window=4, tie_word_embeddings=False
        ),
        False,
    ),
    "cohere": (transformers.CohereConfig(**gated, logit_scale=0.3), False),
    "granite": (transformers.GraniteConfig(**gated, logits_scaling=3.0), False),
}


def random_rows(vocabulary):
    sizes = [(1, 1), (9, 2), (3, 7), (5, 0), (2, 4), (7, 7)]
    prompt, response = (
        [tuple(rng.integers(vocabulary, size=n).tolist()) for n in of] for of in zip(*sizes, strict=True)
    )
    return list(map(Row, prompt, response))


def make(name, adapter=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(MODELS[name][0]).eval()
        for parameter in model.parameters():  # random enough for logits to reach caps and for positions to matter
            parameter.data += 0.3 * torch.randn_like(parameter)
        if adapter:
            config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=adapter, init_lora_weights=False)
            model = get_peft_model(model, config).eval()
    return model if adapter else model.requires_grad_(False)


@pytest.fixture(scope="module", params=["tiny", "stories260K", "stories15M"])
def network(request):
    if request.param == "tiny":
        return request.getfixturevalue("tiny").load()[0]
    return Pretrained(str(request.getfixturevalue("real_models") / request.param)).load()[0]


def test_log_probs_are_those_of_one_unpadded_row_at_a_time(network):
    rows = random_rows(network.config.vocab_size)
    with torch.no_grad():
        got = scoring.log_probs(network, rows)
    np.testing.assert_allclose(got, [by_hand(network, row) for row in rows], rtol=1e-5, atol=1e-4)
    # a row scored with a neighbour's response is not a row: the oracle would notice
    wrong = [Row(a.prompt, b.response) for a, b in zip(rows, rows[1:] + rows[:1], strict=True)]
    assert np.abs(np.array([by_hand(network, row) for row in wrong]) - got.numpy()).max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_any_architecture_is_scored_right_padded_on_either_side(name):
    model, rows = make(name), random_rows(WORDS)
    expected = [by_hand(model, row) for row in rows]
    with torch.no_grad():
        np.testing.assert_allclose(scoring.log_probs(model, rows), expected, rtol=1e-4, atol=1e-4)
        scorer = Scorer(model)
        assert scorer.repeats == MODELS[name][1]
        width, length = max(len(r.prompt + r.response) for r in rows), 7
        ids, counts = torch.full((len(rows), width), 5), torch.zeros(len(rows), width, dtype=torch.bool)
        wanted = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            whole = row.prompt + row.response
            ids[i, width - len(whole) :], counts[i, width - len(whole) :] = torch.tensor(whole), True
            wanted[i, length - len(row.response) :] = True
        read = scorer(ids, counts, length, wanted)
    np.testing.assert_allclose(read.log_probs.sum(-1), expected, rtol=1e-4, atol=1e-4)
    assert (read.log_probs[~wanted] == 0).all()


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite"])
def test_a_model_that_bends_its_logits_is_wrong_the_fast_way(name):
    model, rows = make(name), random_rows(WORDS)
    scorer = Scorer(model)
    scorer.repeats = True
    with torch.no_grad():
        assert (scoring.log_probs(scorer, rows) - scoring.log_probs(model, rows)).abs().max() > 0.1


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
def test_an_adapter_is_scored_on_and_off_and_its_gradients_are_autograds(name, targets):
    model, rows = make(name, targets).double(), random_rows(WORDS)  # float32 rounds too much to tell
    scorer = Scorer(model)
    got = scoring.log_probs(scorer, rows)
    np.testing.assert_allclose(got.detach(), [by_hand(model, row) for row in rows], rtol=1e-4, atol=1e-4)
    got[1].backward()
    by_parameter = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert {n.split(".")[-4] for n in by_parameter} == set(targets)
    model.zero_grad()
    row = rows[1]
    logits = model(input_ids=torch.tensor([row.prompt + row.response])).logits[0, len(row.prompt) - 1 : -1]
    logits.log_softmax(-1)[range(len(row.response)), row.response].sum().backward()
    for n, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(by_parameter[n], p.grad, rtol=1e-4, atol=1e-5)
    with model.disable_adapter(), torch.no_grad():
        off = scoring.log_probs(scorer, rows)
        np.testing.assert_allclose(off, [by_hand(model, row) for row in rows], rtol=1e-4, atol=1e-4)
    assert (off - got).abs().max() > 0.1


def test_an_adapter_put_on_the_output_layer_later_is_noticed():
    """Its first values change nothing, so only a look at the layer tells."""
    model, rows = make("llama"), random_rows(WORDS)
    scorer = Scorer(model)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head"]))
    scoring.log_probs(scorer, rows).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in adapted.parameters())


def test_a_model_whose_output_layer_is_trained_gets_all_its_gradients():
    model, rows = make("llama").requires_grad_(), random_rows(WORDS)
    scoring.log_probs(Scorer(model), rows).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["llama", "cohere"])
def test_tokens_that_do_not_count_have_a_gradient_of_exactly_zero(name):
    model = make(name)
    rows = [Row((3, 4, 5), (6, 7, 8)), Row((9,), (10, 11))]
    kept = []
    layer = model.get_input_embeddings()
    with layer.register_forward_hook(lambda _, __, out: kept.append(out.requires_grad_()) or kept[-1].retain_grad()):
        log_probs, mask = scoring.token_log_probs(Scorer(model), rows)
    assert (log_probs[~mask] == 0).all()
    assert mask.tolist() == [[True] * 3, [True, True, False]]
    (log_probs * torch.tensor([[1.0, 2.0, 3.0]] * 2)).sum().backward()
    reached = kept[-1].grad.abs().sum(-1) > 0
    # what comes last is predicted and predicts nothing; padding does neither
    assert reached.tolist() == [[True] * 5 + [False], [True, True, False, False, False, False]]


@pytest.mark.parametrize("name", ["llama", "granite"])
def test_hidden_states_are_those_that_predict_each_token(name):
    model, rows = make(name), [r for r in random_rows(WORDS) if r.response]
    read, mask = scoring.read(Scorer(model), rows)
    for i, row in enumerate(rows):
        whole = torch.tensor([row.prompt + row.response])
        states = model(input_ids=whole, output_hidden_states=True).hidden_states[-1][0, len(row.prompt) - 1 : -1]
        torch.testing.assert_close(read.hidden[i, mask[i]], states, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        read.log_probs.sum(-1).detach(), [by_hand(model, row) for row in rows], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_token_log_probs_are_those_of_their_own_row(name):
    """Each token by the difference of two prefixes' log-probabilities."""
    model, rows = make(name), random_rows(WORDS)
    with torch.no_grad():
        got, mask = scoring.token_log_probs(model, rows)
    for i, row in enumerate(rows):
        prefixes = [by_hand(model, Row(row.prompt, row.response[:k])) for k in range(len(row.response) + 1)]
        np.testing.assert_allclose(got[i, mask[i]], np.diff(prefixes), rtol=1e-3, atol=1e-4)
        assert mask[i].sum() == len(row.response)


def test_company_and_order_do_not_matter(network):
    rows = random_rows(network.config.vocab_size)
    alone = scoring.score(network, rows, batch=1)
    seen = []
    np.testing.assert_allclose(scoring.score(network, rows, 4, seen.append), alone, rtol=1e-5, atol=1e-4)
    assert sum(seen) == len(rows)
    np.testing.assert_allclose(scoring.score(network, rows[::-1], 3)[::-1], alone, rtol=1e-5, atol=1e-4)


class Plain(nn.Module):
    """A model whose forward takes neither positions nor the number of logits to keep."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_output_embeddings(self):
        return self.inner.lm_head

    def forward(self, input_ids, use_cache, attention_mask=None):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


def test_a_model_without_positions_or_kept_logits_is_scored_alike(tiny, monkeypatch):
    network = tiny.load()[0]
    rows = random_rows(network.config.vocab_size)
    np.testing.assert_allclose(scoring.score(Plain(network), rows, 4), scoring.score(network, rows, 4), atol=1e-6)
    monkeypatch.setattr(Plain, "get_output_embeddings", lambda _: None)
    with pytest.raises(InputError, match="Plain has no output layer"):
        Scorer(Plain(network))


def test_a_wrapped_scorer_is_called_through_its_wrapper(tiny):
    """As in accelerate's DistributedDataParallel, whose hooks run only if the wrapper itself is called."""
    network = tiny.load()[0]

    class Wrapper(nn.Module):
        calls = 0

        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *inputs):
            Wrapper.calls += 1
            return self.module(*inputs)

    rows = random_rows(network.config.vocab_size)
    wrapped = Wrapper(Scorer(network))
    np.testing.assert_allclose(scoring.score(wrapped, rows, 3), scoring.score(network, rows, 3), atol=1e-6)
    assert Wrapper.calls == 2
    assert scoring.unwrap(wrapped) is network


def test_the_fast_way_is_taken_where_it_can_be(monkeypatch):
    rows = random_rows(WORDS)
    monkeypatch.setattr(kernel, "token_log_probs", lambda *_: pytest.fail("the fast way"))
    with torch.no_grad():
        scoring.log_probs(make("gemma2"), rows)
    with pytest.raises(pytest.fail.Exception, match="the fast way"):
        scoring.log_probs(make("llama"), rows)
