"""The Python example in the README is run as it stands, but for the names of two models and fewer steps."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
WORDS = "what is the sea like moon it dear exactly old and deep bright far".split()


def tokenizer(folder: Path, **special) -> None:
    vocabulary = {w: i for i, w in enumerate([*special.values(), "[UNK]", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **special).save_pretrained(folder)


@pytest.fixture
def small_models(tmp_path):
    torch.manual_seed(0)
    encoder, chat = tmp_path / "encoder", tmp_path / "chat"
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 32,
    }
    BertModel(BertConfig(**sizes)).save_pretrained(encoder)
    tokenizer(encoder, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)).save_pretrained(chat)
    tokenizer(chat, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    return {"sentence-transformers/all-MiniLM-L6-v2": str(encoder), "HuggingFaceTB/SmolLM2-135M-Instruct": str(chat)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")  # fewer draws than in the README
def test_the_example_in_the_readme_runs(tmp_path, monkeypatch, small_models):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.splitlines()) <= 25
    for name, folder in small_models.items():
        assert name in example
        example = example.replace(name, folder)
    example = example.replace("draws=1000", "draws=60, warmup=100").replace("policy.DPO(", "policy.DPO(steps=4, ")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with open("votes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "left", "right", "winner", "worker"])
        for _ in range(150):
            left, right = (" ".join(rng.choice(WORDS, rng.integers(3, 8))) for _ in range(2))
            winner = rng.choice(["left", "right", "tie"])
            writer.writerow(
                [f"what is the {rng.choice(['sea', 'moon'])} like", left, right, winner, f"w{rng.integers(10)}"]
            )
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "runs/nash/report.html").stat().st_size > 10_000
    assert names["chosen"].certificate.tv_bound < 1e-3
    assert (names["trained"].adapter / "adapter_config.json").exists()
