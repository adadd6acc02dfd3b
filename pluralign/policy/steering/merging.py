"""Adapters merged by weights: one adapter per group or objective is trained, and every compromise between them is free.

A soup is `W + sum_i w_i (alpha_i / r_i) B_i A_i`, the sum of what the adapters do to the weights. With weights that sum
to 1 it is the average of the finished models, as in rewarded soups (Rame et al. 2023). It is not what averaging the
matrices A and B apart gives: `(sum w B)(sum w A)` multiplies the B of one adapter by the A of another. So matrices are
put side by side, `B = [w_1 s_1 B_1, w_2 s_2 B_2, ...]` and `A = [A_1; A_2; ...]` with `s = alpha / r`, which is the sum
to the last digit, at the sum of the ranks; `rank` makes it smaller by singular values, and what that lost is told.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import Tensor

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.policy.training import into

CONFIG, TENSORS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
# What makes an adapter more than `B A`, so that adding products would not be adding adapters.
BEYOND = (
    *("use_dora", "lora_bias", "modules_to_save", "layer_replication", "use_qalora", "alora_invocation_tokens"),
    *("target_parameters", "trainable_token_indices", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"),
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that also subtract from the base model


@dataclass(frozen=True)
class Soup:
    """A merged adapter.

    Attributes:
        adapter: folder that peft loads.
        weights: of each adapter in it.
        rank: of its matrices.
        error: what was lost to `rank`, relative to the sum: root of summed squares over all entries of all layers.
    """

    adapter: Path
    weights: dict[str, float]
    rank: int
    error: float


def soup(
    adapters: Mapping[str, str | Path],
    weights: Mapping[str, float] | None = None,
    *,
    out: str | Path,
    rank: int | None = None,
) -> Soup:
    """Merge LoRA adapters of one base model into one: `delta W = sum_i w_i (alpha_i / r_i) B_i A_i` in every layer.

    Args:
        adapters: folder of each adapter, by name.
        weights: of each, any finite numbers; None: equal ones that sum to 1. Weights that sum to 1 stay between the
            adapters; a negative one moves away from its adapter (Ilharco et al. 2023, Editing models with task
            arithmetic).
        out: folder of the result, a plain peft adapter.
        rank: of the result, by truncated singular values, the nearest there is (Eckart and Young 1936); None: the sum
            of the ranks, without loss. The big product is never formed.

    Returns:
        Where it is, and what `rank` lost.

    Raises:
        InputError: a folder holds no LoRA adapter, or one that is more than products of two matrices; base models,
            layers or their sizes differ; weights are missing, unknown or not finite.
    """
    if not adapters:
        raise InputError("there are no adapters to merge.")
    told = dict.fromkeys(adapters, 1 / len(adapters)) if weights is None else {k: float(w) for k, w in weights.items()}
    if set(told) != set(adapters):
        raise InputError(f"weights are given for {sorted(told)}, adapters are {sorted(adapters)}; one weight for each.")
    if not np.isfinite(list(told.values())).all():
        raise InputError(f"weights are {told}; every weight must be finite.")
    if rank is not None and rank < 1:
        raise InputError(f"rank is {rank}; it must be at least 1.")
    read = {name: _read(name, Path(folder)) for name, folder in adapters.items()}
    _same(read)
    first, (config, layers) = next(iter(read.items()))
    used = [name for name in read if told[name] != 0] or [first]
    merged, lost, whole = {}, 0.0, 0.0
    for layer in layers:
        pairs = [read[name][1][layer] for name in used]
        b = torch.cat([told[name] * pair[0] for name, pair in zip(used, pairs, strict=True)], 1)
        a = torch.cat([pair[1] for pair in pairs], 0)
        if rank is not None:
            b, a, gone, size = _truncated(b, a, rank)
            lost, whole = lost + gone, whole + size
        merged[layer] = (b, a)
    widest = max(a.shape[0] for _, a in merged.values())
    tensors = {}
    for layer, (b, a) in merged.items():
        # Where adapters had other ranks in some layers, zeros make them one; they change no product.
        more = widest - a.shape[0]
        tensors[f"{layer}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, more)).float().contiguous()
        tensors[f"{layer}.lora_B.weight"] = torch.nn.functional.pad(b, (0, more)).float().contiguous()
    plain = {"r": widest, "lora_alpha": widest, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    plain |= {"lora_dropout": 0.0, "init_lora_weights": True, "inference_mode": True}
    made = Soup(Path(out), told, widest, float(np.sqrt(lost / whole)) if whole else 0.0)

    def write(path: Path) -> None:
        save_file(tensors, path / TENSORS, {"format": "pt"})
        LoraConfig(**{**config, **plain}).save_pretrained(str(path))
        artifacts.write_json(path / "soup.json", {"weights": told, "rank": widest, "error": made.error})

    into(made.adapter, write)
    return made


@dataclass(frozen=True, eq=False)
class Tasted:
    """What soups of all weights on a grid give to each group.

    Attributes:
        names: of the adapters.
        weights: of each soup, rows sum to 1.
        welfare: that each group has under it.
        value: what the rule makes of it; minus infinity where the rule is not defined.
    """

    names: tuple[str, ...]
    weights: Float[np.ndarray, "point name"]
    welfare: Float[np.ndarray, "point group"]
    value: Float[np.ndarray, " point"]

    @property
    def best(self) -> dict[str, float]:
        """Weights of the soup that the rule prefers; of equal ones, the first."""
        return dict(zip(self.names, self.weights[int(self.value.argmax())].tolist(), strict=True))


def taste(
    names: Sequence[str],
    evaluate: Callable[[dict[str, float]], Sequence[float] | Float[np.ndarray, " group"]],
    rule: Callable[[Float[np.ndarray, " group"]], float],
    steps: int = 10,
) -> Tasted:
    """Measure what soups give to each group, on a grid over the simplex, and how much a rule likes it.

    With k adapters there are `C(steps + k - 1, k - 1)` soups: 11 of two, 66 of three, 286 of four.

    Args:
        names: of the adapters.
        evaluate: weights by name to welfare per group, such as the mean utility of what the soup writes.
        rule: welfare per group to a number, larger is better, such as `np.min`, or `lambda u: m @ np.log(u)`.
        steps: weights are multiples of `1 / steps`.

    Raises:
        InputError: there are no names; a welfare is not finite; the rule gives NaN, or minus infinity everywhere.
    """
    if not names or steps < 1:
        raise InputError(f"{len(names)} adapters and {steps} steps make no grid; at least one of each.")
    # Places of the bars among stars: every way to deal `steps` parts to the names.
    bars = np.array(list(combinations(range(steps + len(names) - 1), len(names) - 1)), np.int64)
    ends = np.full((len(bars), 1), steps + len(names) - 1)
    weights = (np.diff(np.hstack([-np.ones_like(ends), bars, ends]), axis=1) - 1) / steps
    welfare = np.array([evaluate(dict(zip(names, row.tolist(), strict=True))) for row in weights], np.float64)
    if welfare.ndim != 2 or not np.isfinite(welfare).all():
        raise InputError("evaluate must return one finite welfare per group, for all weights.")
    value = np.array([float(rule(u)) for u in welfare])
    if np.isnan(value).any() or not (value > -np.inf).any():
        raise InputError(
            "the rule values no soup, or is NaN for one; is it defined for these welfares (Nash needs them positive)?"
        )
    return Tasted(tuple(names), weights, welfare, value)


def _read(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, tuple[Tensor, Tensor]]]:
    """Return an adapter's config, and `(alpha / r) B` and `A` of each layer in float64."""
    if not (folder / CONFIG).is_file() or not (folder / TENSORS).is_file():
        raise InputError(f"adapter {name!r}: {folder} holds no {CONFIG} with {TENSORS}; was its training finished?")
    config = LoraConfig.from_pretrained(str(folder)).to_dict()
    if str(getattr(config["peft_type"], "value", config["peft_type"])) != "LORA":
        raise InputError(f"adapter {name!r} is of type {config['peft_type']}; only LoRA adapters are sums of products.")
    extra = [key for key in BEYOND if config.get(key)]
    start = config["init_lora_weights"]
    if isinstance(start, str) and start.startswith(CHANGES_BASE):
        extra.append(f"init_lora_weights={start}")
    tensors = load_file(folder / TENSORS)
    layers = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    expected = {f"{layer}.lora_{x}.weight" for layer in layers for x in "AB"}
    extra += sorted(set(tensors) ^ expected)[:3] + [k for k in sorted(expected & set(tensors)) if tensors[k].ndim != 2]
    if extra or not layers:
        raise InputError(
            f"adapter {name!r} is not the product of two matrices in each linear layer ({extra or 'it is empty'}), so "
            "adding products would not add what it does; merge plain LoRA adapters."
        )
    pairs = {}
    for layer in sorted(layers):
        a, b = (tensors[f"{layer}.lora_{x}.weight"].double() for x in "AB")
        patterns = config["alpha_pattern"]
        key = get_pattern_key(list(patterns), layer.removeprefix(PREFIX))
        alpha, r = patterns.get(key, config["lora_alpha"]), a.shape[0]
        pairs[layer] = (b * (alpha / (r**0.5 if config["use_rslora"] else r)), a)
    return config, pairs


def _same(read: dict[str, tuple[dict[str, Any], dict[str, tuple[Tensor, Tensor]]]]) -> None:
    """Refuse adapters that do not change the same layers of the same model."""
    first, (config, layers) = next(iter(read.items()))
    for name, (other, theirs) in read.items():
        bases = [c["base_model_name_or_path"] for c in (config, other)]
        if bases[0] != bases[1]:
            raise InputError(
                f"adapter {first!r} is of {bases[0]!r}, {name!r} of {bases[1]!r}; merge those of one model."
            )
        differ = sorted(set(layers) ^ set(theirs))
        if differ:
            raise InputError(
                f"adapters {first!r} and {name!r} change different layers: {len(differ)} are in only one of them, such "
                f"as {differ[0]}; train them with the same targets."
            )
        for layer, (b, a) in theirs.items():
            sizes = [(len(x[0]), x[1].shape[1]) for x in (layers[layer], (b, a))]
            if sizes[0] != sizes[1]:
                raise InputError(f"layer {layer} is {sizes[0]} in {first!r} and {sizes[1]} in {name!r}.")


def _truncated(
    b: Float[Tensor, "wide sum"], a: Float[Tensor, "sum narrow"], rank: int
) -> tuple[Tensor, Tensor, float, float]:
    """Return the nearest product of that rank, the squared size of what is lost, and of the whole.

    With `b = Q R` and `a' = P S` the product is `Q (R S') P'`, whose singular values are those of the small `R S'`.
    """
    q, r = torch.linalg.qr(b)
    p, s = torch.linalg.qr(a.T)
    u, sigma, vt = torch.linalg.svd(r @ s.T, full_matrices=False)
    root = sigma[:rank].sqrt()
    square = sigma.square()
    return q @ u[:, :rank] * root, root[:, None] * (vt[:rank] @ p.T), float(square[rank:].sum()), float(square.sum())
