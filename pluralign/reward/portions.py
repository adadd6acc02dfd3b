"""Annotators in portions: for steps that look at some of them, and for several devices that share them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import util
from numpyro.primitives import Messenger

from pluralign.errors import InputError
from pluralign.reward.judgements import PER_ACT, Acts, Layout

Data = dict[str, tuple[dict[str, Any], ...]]
"""Arrays `[portion owner ...]` by form, one dictionary per bucket of `Acts`."""


@dataclass(frozen=True, eq=False)
class Portions:
    """The judgements of a layout, cut by annotators into portions of one shape.

    Every annotator is in one portion, with all judgements. Annotators who judged about equally much go to different
    portions, and within each bucket portions are padded to the same number of owners.

    Attributes:
        layout: the whole.
        population: whose model it is for.
        data: the portions.
        count: how many there are.
    """

    layout: Layout
    population: Any
    data: Data
    count: int

    @classmethod
    def of(cls, model: Any, batch: int | None, devices: int, seed: int) -> "Portions":
        """Cut the layout of a population's model.

        Args:
            model: a `Target`.
            batch: annotators of a portion, at most; none: all.
            devices: over how many to spread the owners of each bucket.
            seed: of who is with whom.

        Raises:
            InputError: the model is none of a population, or there are fewer devices.
        """
        if not isinstance(layout := getattr(model, "layout", None), Layout):
            raise InputError(
                "`batch` and `devices` need the model of one population and one feedback, in which each annotator's "
                "judgements are a term of their own; leave them at their defaults here."
            )
        if devices > len(jax.devices()):
            raise InputError(f"devices is {devices}, but jax sees {len(jax.devices())}; lower it.")
        count = 1 if batch is None else -(-layout.annotators // batch)
        portion = np.empty(layout.annotators, int)
        chance = np.random.default_rng(seed).random(layout.annotators)
        portion[np.lexsort((chance, -layout.judged))] = np.arange(layout.annotators) % count
        data = {form: tuple(_cut(acts, portion, count, devices)) for form, acts in layout.acts.items()}
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("owner",))
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "owner"))
        data = jax.device_put(data, spread)
        return cls(layout, model.population, data, count)

    @property
    def everywhere(self) -> Any:
        """Where arrays live that every device has whole."""
        first = next(iter(self.data.values()))[0]["x"]
        return jax.sharding.NamedSharding(first.sharding.mesh, jax.sharding.PartitionSpec())

    def potential(self, z: Any, data: Data, index: Any) -> Any:
        """Return minus the log density at `z`, the log likelihood that of one portion times `count`.

        Its mean over portions is the density's own, and so is that of its gradient: priors, of every annotator, are
        there whole, and the likelihood is a sum over annotators.
        """
        model = partial(self.population.model, self._layout(data, index))
        return util.potential_energy(_Louder(model, self.count), (), {}, z)

    def _layout(self, data: Data, index: Any) -> Layout:
        acts, index = {}, index if self.count > 1 else 0  # a copy less
        for form, buckets in data.items():
            mine = [{name: value[index] for name, value in bucket.items()} for bucket in buckets]
            rows = {
                name: jnp.concatenate([bucket[name].reshape(-1, *bucket[name].shape[2:]) for bucket in mine])
                for name in ("counts", *PER_ACT)
            }
            pairs = tuple((bucket["who"], bucket["x"]) for bucket in mine)
            acts[form] = replace(self.layout.acts[form], buckets=pairs, **rows)
        return replace(self.layout, acts=acts)


def _cut(acts: Acts, portion: np.ndarray, count: int, devices: int) -> Any:
    start = 0
    for who, x in acts.buckets:
        stop = start + x.shape[0] * x.shape[1]
        mine = portion[who // acts.objectives]
        size = np.bincount(mine, minlength=count)
        order = np.argsort(mine, kind="stable")
        place = np.arange(-(-size.max() // devices) * devices)
        filled = place < size[:, None]
        owner = order[np.where(filled, (np.cumsum(size) - size)[:, None] + place, 0)]

        def rows(value: Any, owner: Any = owner, x: Any = x, here: slice = slice(start, stop)) -> Any:
            return value[here].reshape(*x.shape[:2], *value.shape[1:])[owner]

        yield {
            "who": who[owner],
            "x": x[owner].astype(np.float32),
            "counts": rows(acts.counts) & filled[..., None],
        } | {name: rows(getattr(acts, name)) for name in PER_ACT}
        start = stop


class _Louder(Messenger):
    """A model whose judgements count several times; those of populations are all in the node `said`."""

    def __init__(self, model: Callable[[], None], times: int):
        self.times = times
        super().__init__(model)

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["name"] == "said":
            msg["scale"] = self.times
