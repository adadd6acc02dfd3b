"""Where the base model comes from: a hub or a folder, a GGUF file, or made on the spot."""

import contextlib
import importlib.util
import json
import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as hf_logging

from pluralign.artifacts import digest, write_json
from pluralign.errors import InputError, TrainError
from pluralign.policy import scoring
from pluralign.policy.text import Format
from pluralign.types import Feedback

DTYPES = ("float32", "bfloat16", "float16")
KEY = "pluralign.json"
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


class AbstractModel(ABC):
    """A way to come by a causal language model."""

    @abstractmethod
    def resolve(self, feedback: Feedback, out: str | Path, seed: int) -> "Pretrained":
        """Return where the model is, making it first if need be.

        Args:
            feedback: texts that a model made on the spot learns to write.
            out: run folder.
            seed: of a model made on the spot.
        """


@dataclass(frozen=True)
class Pretrained(AbstractModel):
    """A causal language model that exists already.

    Args:
        path: name on the Hugging Face hub, or a folder in the transformers format.
        gguf_file: name of a GGUF file in `path`; its weights are dequantised.
        dtype: of the weights: float32, bfloat16 or float16. Adapters are float32 in any case.
        quantise: hold the weights of all but the output layer in 4 or 8 bits, computing in `dtype`; null = as they
            are. It takes bitsandbytes; on a processor it saves memory, not time.
    """

    path: str
    gguf_file: str | None = None
    dtype: str = "float32"
    quantise: Literal["4bit", "8bit"] | None = None
    kind: Literal["pretrained"] = "pretrained"

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; it is one of {', '.join(DTYPES)}.")
        if self.quantise not in (None, "4bit", "8bit"):
            raise InputError(f"quantise is {self.quantise!r}; it is 4bit, 8bit or null.")
        if self.quantise and self.gguf_file:
            raise InputError("a GGUF file is dequantised when it is read; take either gguf_file or quantise.")

    def resolve(self, feedback: Feedback, out: str | Path, seed: int) -> "Pretrained":
        """Return this model itself."""
        return self

    def load(self) -> tuple[Any, Format]:
        """Return the model, ready to be scored, with the format of its texts.

        Raises:
            InputError: there is no such model, or it cannot be quantised here.
        """
        source = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        weights = {"dtype": getattr(torch, self.dtype), **source, **self._quantised()}
        with self._found(), quiet():
            tokenizer = AutoTokenizer.from_pretrained(self.path, **source)
            model = AutoModelForCausalLM.from_pretrained(self.path, **weights)
        if self.quantise == "4bit":
            _read_back(model)
        ends = model.generation_config.eos_token_id
        return model.eval(), Format.of(tokenizer, ends if isinstance(ends, list) else [ends])

    def fingerprint(self) -> str:
        """Return a hash that changes with the weights or the tokenizer, read without loading the model.

        Of files larger than 1 MiB, sixteen blocks of 64 KiB are read.

        Raises:
            InputError: there is no such model.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            from transformers import AutoConfig

            with self._found():
                config = AutoConfig.from_pretrained(
                    self.path, **({"gguf_file": self.gguf_file} if self.gguf_file else {})
                )
            return digest(self.path, self.gguf_file, self.dtype, self.quantise, config._commit_hash)
        parts: list[Any] = [self.gguf_file, self.dtype, self.quantise]
        for file in sorted(p for p in folder.iterdir() if p.is_file()):
            size, block = file.stat().st_size, 1 << 16
            with file.open("rb") as handle:
                for offset in [0] if size <= 1 << 20 else np.linspace(0, size - block, 16).astype(int).tolist():
                    handle.seek(offset)
                    parts += [file.name, size, handle.read(size if size <= 1 << 20 else block)]
        return digest(*parts)

    def _quantised(self) -> dict[str, Any]:
        """Return what transformers has to be told in order to quantise, nothing if it need not."""
        if self.quantise is None:
            return {}
        if not importlib.util.find_spec("bitsandbytes"):
            raise InputError(
                f"quantise is {self.quantise!r}, which takes bitsandbytes (`pip install pluralign[quantised]`); or set "
                "it to null."
            )
        # it says at every layer and pass that 8-bit products are made in float16
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        bits: dict[str, Any] = (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, self.dtype)}
            if self.quantise == "4bit"
            else {"load_in_8bit": True}
        )
        device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
        return {"quantization_config": BitsAndBytesConfig(**bits), "device_map": {"": device}}

    @contextlib.contextmanager
    def _found(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            folder = Path(self.path)
            if folder.is_dir():
                why = f"the folder holds {sorted(p.name for p in folder.iterdir())[:12]}"
            else:
                why = "there is no such folder here, and the Hugging Face hub did not give a model of that name"
            raise InputError(
                f"cannot load the model {self.path!r}{f', file {self.gguf_file!r}' if self.gguf_file else ''}: {why}. "
                "Check the spelling, the network (or HF_HUB_OFFLINE), and that it is a causal language model. "
                f"transformers says: {str(error).splitlines()[0]}"
            ) from error


@dataclass(frozen=True)
class Scratch(AbstractModel):
    """A small Llama made on the spot, which learns to write texts like the responses in the feedback.

    It is trained by next-token loss, `-mean_token log pi(y_token | x, y_<token)` over tokens of responses, with
    one token per word or punctuation mark. Texts come back as words between single spaces.

    Args:
        layers: number of transformer blocks.
        width: size of the hidden state, a multiple of twice `heads`.
        heads: attention heads.
        steps: optimiser steps.
        batch: texts in one step.
        learning_rate: at its peak; warms up over a tenth of the steps, then falls to 0 along a cosine.
        max_tokens: longest prompt and longest response; what is longer is cut.
    """

    layers: int = 2
    width: int = 64
    heads: int = 4
    steps: int = 300
    batch: int = 32
    learning_rate: float = 3e-3
    max_tokens: int = 48
    kind: Literal["scratch"] = "scratch"

    def __post_init__(self):
        for name in ("layers", "width", "heads", "steps", "batch", "learning_rate", "max_tokens"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.width % (2 * self.heads):
            raise InputError(f"width is {self.width}; it must be a multiple of twice heads, {2 * self.heads}.")

    def resolve(self, feedback: Feedback, out: str | Path, seed: int) -> Pretrained:
        """Make the model in the folder `out/model`, or find it there if it was made from the same inputs."""
        folder = Path(out) / "model"
        texts = list(zip(feedback.items["prompt"], feedback.items["response"], strict=True))
        key = digest(self, texts, seed)
        if not (folder / KEY).exists() or json.loads((folder / KEY).read_text())["key"] != key:
            (folder / KEY).unlink(missing_ok=True)
            self._make(texts, folder, seed)
            write_json(folder / KEY, {"key": key})  # last, so that a folder cut off while being written is made anew
        return Pretrained(str(folder))

    def _make(self, texts: list[tuple[str, str]], folder: Path, seed: int) -> None:
        tokenizer = _words([text for pair in texts for text in pair])
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=max(512, 2 * self.max_tokens + 2),
            tie_word_embeddings=True,
            bos_token_id=SPECIAL.index("<s>"),
            eos_token_id=SPECIAL.index("</s>"),
            pad_token_id=SPECIAL.index("<pad>"),
        )
        form = Format.of(tokenizer)
        rows = [form.row(form.prompt(x, self.max_tokens), y, self.max_tokens) for x, y in texts]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng(), bar("model", self.steps) as advance:
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).to(device)  # pyright: ignore[reportArgumentType]
            optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, weight_decay=0.01)
            for step in range(self.steps):
                rate = self.learning_rate * min(1.0, 10 * (step + 1) / self.steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
                pick = np.random.default_rng([seed, step]).integers(len(rows), size=self.batch)
                batch = [rows[i] for i in pick]
                loss = -scoring.log_probs(model, batch).sum() / sum(len(r.response) for r in batch)
                if not torch.isfinite(loss):
                    raise TrainError(
                        f"the loss of the model made on the spot is {loss.item()} at step {step}; lower learning_rate."
                    )
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                advance(1, loss=loss.item())
        with quiet():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _read_back(model: torch.nn.Module) -> None:
    """Refuse a model in 4 bits whose weights come back as others than were put in.

    Bits are scaled by blocks of 64 weights. On a processor bitsandbytes 0.50 mistakes the scales of layers whose inputs
    are no multiple of 64. Blocks of equal weights are exact in 4 bits, so they must come back as they were.

    Raises:
        InputError: they do not, for the widths of this model.
    """
    from bitsandbytes import functional, nn  # pyright: ignore[reportMissingImports]

    wrong = []
    layers: list[Any] = [m for m in model.modules() if isinstance(m, nn.Linear4bit)]
    for width, device in {(m.in_features, m.weight.device) for m in layers}:
        weights = torch.arange(1.0, width + 1, device=device).repeat_interleave(64).view(64, width)
        back = functional.dequantize_4bit(*functional.quantize_4bit(weights, blocksize=64, quant_type="nf4"))
        if not torch.equal(back, weights):
            wrong.append(width)
    if wrong:
        raise InputError(
            f"this version of bitsandbytes reads 4-bit layers of {', '.join(map(str, sorted(wrong)))} inputs wrongly "
            "on this device; set quantise to 8bit or null, or use a GPU."
        )


def resolve(model: str | AbstractModel, feedback: Feedback, out: str | Path, seed: int) -> Pretrained:
    """Return where a model is, making it first if need be; a plain string is `Pretrained(string)`."""
    return (Pretrained(model) if isinstance(model, str) else model).resolve(feedback, out, seed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off anything but a terminal, and its notes to peft from our users."""
    shown = hf_logging.is_progress_bar_enabled()
    if not Console(stderr=True).is_terminal:
        hf_logging.disable_progress_bar()
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a property by its old name
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        try:
            yield
        finally:
            if shown:
                hf_logging.enable_progress_bar()


@contextlib.contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Any]:
    """Show a progress bar on a terminal, nothing elsewhere; yields `advance(n, **numbers to show)`."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done, told="")

        def advance(n: int, **numbers: float) -> None:
            told = "  ".join(f"{name} {value:.3g}" for name, value in numbers.items())
            progress.update(task, advance=n, told=told)

        yield advance


def _words(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word or punctuation mark; decoding puts single spaces between them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    splitter = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(SPECIAL)}
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = splitter  # pyright: ignore[reportAttributeAccessIssue]
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))])  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
