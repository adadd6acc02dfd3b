"""Comparisons to a LoRA adapter and a head, by gradient steps on the Bradley-Terry log loss."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.features import states

if TYPE_CHECKING:
    from pluralign.features.finetuned import FineTuned, Pairs

MAX_GRAD_NORM = 1.0


def train(how: "FineTuned", pairs: "Pairs", revision: str, folder: Path) -> None:
    """Train an adapter and write it to `folder`, with what there is to tell of it in `told.json`.

    Raises:
        InputError: the model cannot be loaded, or the folder not written.
        TrainError: a loss is not finite.
    """
    encoder = how.encoder
    tokenizer, network, _ = states.load(encoder.model, revision, None, AutoModel)
    room = states.limit(tokenizer, network, encoder.max_tokens)
    sequences = states.sequenced(tokenizer, pairs.texts, context=encoder.context == "prompt", limit=room)
    pad, segments = states.padding(tokenizer)
    where = torch.device(encoder.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rng = np.random.default_rng(how.seed)
    fitted, held = _split(pairs, how.held_out, rng)

    with torch.random.fork_rng():  # the caller's random numbers stay as they were
        torch.manual_seed(how.seed)
        lora = LoraConfig(r=how.rank, lora_alpha=how.alpha, target_modules="all-linear")  # pyright: ignore[reportArgumentType]
        with states.quiet():
            model = get_peft_model(network, lora).to(where).eval()  # the model's own dropout stays off
        width = network.config.hidden_size
        head = torch.nn.Linear(width, pairs.heads, bias=False, device=where)
        torch.nn.init.zeros_(head.weight)
    adapter = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(
        [{"params": adapter, "lr": how.learning_rate}, {"params": head.parameters(), "lr": 10 * how.learning_rate}]
    )

    def advantages(rows: Int[np.ndarray, " row"]) -> Float[torch.Tensor, " row"]:
        """Return the logits by which the first text of each pair is better, in the eyes of the pair's head."""
        texts, place = np.unique(np.concatenate([pairs.first[rows], pairs.second[rows]]), return_inverse=True)
        h = states.forward(model, [sequences[i] for i in texts], pad, segments, encoder.pooling == "last")
        rewards = head(h * width**0.5)[torch.as_tensor(place, device=where)]  # states have norm 1, so entries near 1
        first, second = rewards.chunk(2)
        return (first - second).gather(1, torch.as_tensor(pairs.head[rows], device=where)[:, None])[:, 0]

    def losses(rows: Int[np.ndarray, " row"]) -> tuple[Float[torch.Tensor, " row"], Float[torch.Tensor, " row"]]:
        """Return the log loss of each pair, and 1 where it is ordered rightly (ties of either kind: 1/2)."""
        logit, won = advantages(rows), torch.as_tensor(pairs.won[rows], dtype=torch.float32, device=where)
        right = (1 + torch.sign(logit) * torch.sign(won - 0.5)) / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, won, reduction="none"), right.detach()

    @torch.no_grad()
    def tested() -> tuple[float, float]:
        """Return mean log loss and accuracy on what was held out."""
        told = [losses(part) for part in _parts(held, how.batch)]
        loss, right = (float(torch.cat(x).double().mean()) for x in zip(*told, strict=True))
        return loss, right

    history = [tested()]
    trained = [head.weight, *adapter]
    best, kept = 0, _copied(trained)
    steps = -(-len(fitted) // how.batch)
    with states.bar(f"Fine-tuning {Path(encoder.model).name}", how.epochs * steps) as advance:
        for epoch in range(1, how.epochs + 1):
            for part in _parts(rng.permutation(fitted), how.batch):
                loss = losses(part)[0].mean()
                if not torch.isfinite(loss):
                    raise TrainError(f"the loss is {loss.item()} in epoch {epoch}; lower learning_rate.")
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*adapter, *head.parameters()], MAX_GRAD_NORM)
                optimizer.step()
                advance(1)
            history.append(tested())
            if history[-1][0] < history[best][0]:
                best, kept = epoch, _copied(trained)
            elif epoch - best >= how.patience:
                break

    with torch.no_grad():
        for parameter, value in zip(trained, kept, strict=True):
            parameter.copy_(value)
    told = {
        "comparisons": len(fitted),
        "comparisons_held_out": len(held),
        "ties": int((pairs.won == 0.5).sum()),
        "trained_heads": pairs.heads,
        "epochs": len(history) - 1,
        "best_epoch": best,
        "held_out_log_loss_before": history[0][0],
        "held_out_log_loss_after": history[best][0],
        "held_out_accuracy_after": history[best][1],
    }
    _save(model, head.weight.numpy(force=True) * width**0.5, told, folder)


def _copied(parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in parameters]


def _parts(rows: Int[np.ndarray, " row"], size: int) -> list[Int[np.ndarray, " part"]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _split(
    pairs: "Pairs", share: float, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " fitted"], Int[np.ndarray, " held"]]:
    """Return which comparisons are trained on and which are held out, those with a text that training never sees."""
    place = rng.permutation(len(pairs.texts))
    first_seen = np.minimum(place[pairs.first], place[pairs.second])
    held = first_seen <= np.sort(first_seen)[max(round(share * len(first_seen)), 1) - 1]
    if held.all():
        raise InputError(
            f"{len(held)} comparisons of {len(pairs.texts)} texts are too few to hold some texts out; lower held_out, "
            "or take `Encoder`."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _save(model: Any, head: Float[np.ndarray, "head hidden"], told: dict[str, Any], folder: Path) -> None:
    """Write the adapter and the head so that a reader sees a whole folder or none."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        os.chmod(temporary, 0o755)
        model.save_pretrained(str(temporary), save_embedding_layers=False)
        np.save(temporary / "head.npy", head)
        artifacts.write_json(temporary / "told.json", told)
        artifacts.replace_folder(temporary, folder)
    except OSError as error:
        raise InputError(
            f"cannot write the adapter to {folder.parent} ({error}); point XDG_CACHE_HOME elsewhere."
        ) from error
