"""A Hugging Face sequence classifier as a reward, or as something to limit, beside a rule's own reward."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pluralign.errors import InputError
from pluralign.policy.models import quiet


@dataclass(frozen=True)
class Classifier:
    """One score of a sequence classifier: any reward model, or a classifier of sentiment, toxicity, tone.

    A model with one output gives that. One that tells apart labels with logits `z` gives
    `log p_k / (1 - p_k) = z_k - log sum_{j != k} exp z_j`; one whose labels do not exclude each other
    (`multi_label_classification`) gives `z_k`. It is the score that `features.Classifier` gives, from a model that
    stays loaded between calls.

    Args:
        model: name on the Hugging Face hub, or a local folder, of a model with a classification head.
        label: by the model's own name; None takes the only one, or of two that exclude each other the second.
        context: "none" scores the response alone; "prompt" scores it as an answer: as a chat if the tokenizer has a
            template, else as a pair of texts. Reward models need the prompt, most other classifiers do not.
        max_tokens: longest sequence, at least 8; the model's own limit counts if it is lower. What is too long is cut
            as the tokenizer does.
        batch_tokens: tokens per batch; decides memory and speed, not the result.
        device: such as `cpu` or `cuda`; None takes a GPU if there is one.
    """

    model: str
    label: str | None = None
    context: Literal["none", "prompt"] = "none"
    max_tokens: int = 512
    batch_tokens: int = 8192
    device: str | None = None
    kind: Literal["classifier"] = "classifier"

    def __post_init__(self):
        for name, least in (("max_tokens", 8), ("batch_tokens", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} of {self.model!r} is {getattr(self, name)}; it must be at least {least}.")
        if self.context not in ("none", "prompt"):
            raise InputError(f"context of {self.model!r} is {self.context!r}; it must be 'none' or 'prompt'.")

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[np.ndarray, " response"]:
        """Return the score of each response.

        Raises:
            InputError: the model cannot be loaded, has no classification head, or no such label.
        """
        tokenizer, network, column = self._loaded
        longest = getattr(network.config, "max_position_embeddings", None) or self.max_tokens
        limit = {"truncation": True, "max_length": min(self.max_tokens, longest, tokenizer.model_max_length)}
        rows = [self._tokens(tokenizer, p, r, limit) for p, r in zip(prompts, responses, strict=True)]
        # Rows of one length go together: without padding no model has to be told where a row ends.
        of_length: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            of_length.setdefault(len(row["input_ids"]), []).append(i)
        scores = np.zeros(len(rows))
        with torch.inference_mode():
            for length, same in of_length.items():
                size = max(1, self.batch_tokens // max(1, length))
                for batch in (same[k : k + size] for k in range(0, len(same), size)):
                    inputs = {k: torch.tensor([rows[i][k] for i in batch], device=network.device) for k in rows[0]}
                    z = network(**inputs).logits.double()
                    if self._exclusive(network):
                        others = [k for k in range(z.shape[1]) if k != column]
                        z = z - z[:, others].logsumexp(-1, keepdim=True)
                    scores[batch] = z[:, column].numpy(force=True)
        return scores

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int]:
        """Return tokenizer, model and the column of the label."""
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(self.model)
                network, told = AutoModelForSequenceClassification.from_pretrained(
                    self.model, dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot load the classifier {self.model!r}: check the spelling, the network (or HF_HUB_OFFLINE), and "
                f"that it has a tokenizer. transformers says: {str(error).strip().splitlines()[0]}"
            ) from error
        if told["missing_keys"]:
            raise InputError(
                f"{self.model} has no weights for {sorted(told['missing_keys'])}: it is no sequence classifier, and "
                "its scores would be random."
            )
        labels = [network.config.id2label[k] for k in range(network.config.num_labels)]
        label = self.label
        if label is None and (len(labels) == 1 or (len(labels) == 2 and self._exclusive(network))):
            label = labels[-1]
        if label not in labels:
            raise InputError(
                f"{self.model} has the labels {labels}; `label` is {self.label!r}, and must be one of them."
            )
        if network.config.pad_token_id is None:
            network.config.pad_token_id = -1  # no token: causal classifiers then score at the last one of each row
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return tokenizer, network.eval().to(device), labels.index(label)

    @staticmethod
    def _exclusive(network: Any) -> bool:
        kinds = (None, "single_label_classification")
        return network.config.num_labels > 1 and network.config.problem_type in kinds

    def _tokens(self, tokenizer: Any, prompt: str, response: str, limit: dict[str, Any]) -> dict[str, list[int]]:
        if self.context == "prompt" and tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            chat = tokenizer.apply_chat_template(turns, tokenize=False)
            return dict(tokenizer(chat, add_special_tokens=False, verbose=False, **limit))  # the template has its own
        texts = (prompt, response) if self.context == "prompt" else (response,)
        return dict(tokenizer(*texts, verbose=False, **limit))
