"""Tiny random models with word-level tokenizers, made on the spot."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from pluralign.features import states
from pluralign.types import Choices, Feedback, Grades

WORDS = "why is the sky blue because light scatters red green sea deep salt asks who what never a".split()


def _tokenizer(specials: list[str], single: str, pair: str) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=specials[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    known = [(word, vocabulary[word]) for word in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=known)
    return tokenizer


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    """An encoder whose tokenizer marks segments."""
    folder = tmp_path_factory.mktemp("bert")
    specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer = _tokenizer(specials, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = len(specials) + len(WORDS)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    # Wide initial weights: differences between texts, and so mistakes in pooling, are far above rounding.
    config = BertConfig(vocab_size=size, max_position_embeddings=64, pad_token_id=3, initializer_range=0.5, **shape)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    """A causal model without a padding token, whose tokenizer pads on the left."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = _tokenizer(["<unk>", "<s>", "</s>"], "<s> $A", "<s> $A <s> $B")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", padding_side="left"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = LlamaConfig(vocab_size=3 + len(WORDS), max_position_embeddings=64, initializer_range=0.5, **shape)
    LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts():
    """Make prompt indices, prompts of their own lengths, and responses of 1 to 12 words."""

    def make(n: int, seed: int = 0, prompts: int = 6) -> tuple[list[int], list[str], list[str]]:
        rng = np.random.default_rng(seed)
        asked = [" ".join(rng.choice(WORDS, 2 + p)) for p in range(prompts)]
        ids = (np.arange(n) % prompts).tolist()
        answers = [" ".join(rng.choice(WORDS, rng.integers(1, 13))) for _ in range(n)]
        return ids, [asked[i] for i in ids], answers

    return make


@pytest.fixture(scope="session")
def feedback():
    """Make feedback with these items and no judgements."""

    def make(ids: list[int], prompts: list[str], responses: list[str]) -> Feedback:
        items = Dataset.from_dict({"prompt_id": ids, "prompt": prompts, "response": responses})
        nobody = Dataset.from_dict({"id": ["a"], "weight": [1.0]})
        none = Choices(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros(0))
        return Feedback(items, nobody, ("overall",), none, Grades.none())

    return make


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Name every model that is read from disk, from nothing kept on."""
    right, seen = states.load, []

    def counted(model: str, *how):
        seen.append(Path(model).name)
        return right(model, *how)

    monkeypatch.setattr(states, "load", counted)
    states.kept.cache_clear()
    return seen
