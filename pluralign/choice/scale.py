"""What makes utilities of different voters comparable: the value judgement that every rule but Nash feels.

Judgements between answers identify each voter's utilities up to a constant per prompt, and say nothing of how one
voter's logit compares with another's. A scale settles the second, all but one of them (`RankScale`) by an affine map
per draw and voter, `U -> (U - zero) / unit`, so that utilities that are linear in features stay so. `zero` and `unit`
are means over prompts of quantities within a prompt; adding any constant to all of a prompt's candidates therefore
changes neither `unit` nor the scaled `u[draw, voter]` of any lottery, nor what any rule chooses.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from pluralign.choice.ballots import SAME
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities

Values = Float[np.ndarray, "draw voter prompt candidate"]
Table = Float[np.ndarray, "draw voter"]
Reference = Float[np.ndarray, "prompt candidate"]
MANY = 100_000  # voters in draws, of which more need not be asked for a yardstick
CHUNK = 4_000_000  # entries of dense utilities in memory at once, 32 MB


class AbstractScale(ABC):
    """A map of every voter's utilities, in every draw, to what may be compared between voters."""

    @abstractmethod
    def apply(self, utilities: Utilities) -> Utilities:
        """Return the same utilities on this scale; see `rescale`."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The scale in words, as a report says it."""


class AbstractAffine(AbstractScale):
    """An affine map of utilities per draw and voter."""

    def apply(self, utilities: Utilities) -> Utilities:
        """Return `(U - zero) / unit`; factored utilities stay factored."""
        zero, unit = measured(utilities, self)
        return affine(replace(utilities, scale=self.words), zero, unit)

    @abstractmethod
    def affine(self, values: Values, reference: Reference) -> tuple[Table, Table]:
        """Return `(zero, unit)` of dense utilities.

        They come centred: their mean under the reference is 0 in each prompt. Candidates whose reference is 0 do not
        count.
        """


def worst(values: Values, reference: Reference) -> Table:
    """Return `mean_x min_y U`."""
    return np.where(reference > 0, values, np.inf).min(-1).mean(-1)


def best(values: Values, reference: Reference) -> Table:
    """Return `mean_x max_y U`."""
    return np.where(reference > 0, values, -np.inf).max(-1).mean(-1)


def middle(values: Values, reference: Reference) -> Table:
    """Return `mean_x sum_y reference U`."""
    return np.einsum("svxy,xy->sv", values, reference) / len(reference)


@dataclass(frozen=True)
class NoScale(AbstractAffine):
    """Logits as they are, measured from the reference: `zero = mean_x sum_y ref U`, `unit = 1`.

    Value judgement: whoever discriminates more sharply between answers counts more. A voter's logits are large if
    the voter cares much, but also if the voter answers consistently; the two are not told apart by judgements.
    Utilities may be negative, so `Nash` needs a lottery that everyone prefers to the reference.
    """

    kind: Literal["none"] = "none"

    def affine(self, values: Values, reference: Reference) -> tuple[Table, Table]:
        """Return the mean under the reference, and 1."""
        zero = middle(values, reference)
        return zero, np.ones_like(zero)

    @property
    def words(self) -> str:
        """The scale in words."""
        return "logits above the reference"


@dataclass(frozen=True)
class StdScale(AbstractAffine):
    """Everyone's answers differ equally: `zero = mean_x min_y U`, `unit = sqrt(mean_x var_{y ~ ref} U)`.

    Value judgement: the stakes of all voters are equal, measured by the spread over answers as the reference writes
    them. Utilities are at least 0, with 0 for a policy that always gives the voter's worst answer, so `Nash` is
    defined; the worst answer is its point of no agreement.
    """

    kind: Literal["std"] = "std"

    def affine(self, values: Values, reference: Reference) -> tuple[Table, Table]:
        """Return the worst candidates' mean, and the standard deviation within prompts."""
        centred = values - np.einsum("svxy,xy->svx", values, reference)[..., None]
        return worst(values, reference), np.sqrt(middle(centred**2, reference))

    @property
    def words(self) -> str:
        """The scale in words."""
        return "standard deviations above each prompt's worst candidate"


@dataclass(frozen=True)
class RangeScale(AbstractAffine):
    """From the worst to the best answer is 1 for everyone: `zero = mean_x min_y U`, `unit = mean_x (max_y - min_y) U`.

    Value judgement: the stakes of all voters are equal, measured from worst to best (relative utilitarianism:
    Dhillon and Mertens 1999). Utilities of every lottery lie in [0, 1], so `Nash` is defined. It hangs on extreme
    candidates: one absurd answer more squeezes the differences between all others.
    """

    kind: Literal["range"] = "range"

    def affine(self, values: Values, reference: Reference) -> tuple[Table, Table]:
        """Return the worst candidates' mean, and the mean distance from worst to best."""
        zero = worst(values, reference)
        return zero, best(values, reference) - zero

    @property
    def words(self) -> str:
        """The scale in words."""
        return "share of the way from each prompt's worst to its best candidate"


@dataclass(frozen=True)
class GapScale(AbstractAffine):
    """The most that one can gain over the reference is 1: `zero = mean_x sum_y ref U`, `unit = mean_x max_y U - zero`.

    Value judgement: what counts is the share of each voter's possible gain (Kalai and Smorodinsky 1975, with the
    reference as the point of no agreement; `Maximin` then is close to their solution). A voter who likes what the
    reference already writes has little to gain, and each logit of it counts more. `Nash` needs a lottery from
    which every voter gains in every draw.
    """

    kind: Literal["gap"] = "gap"

    def affine(self, values: Values, reference: Reference) -> tuple[Table, Table]:
        """Return the mean under the reference, and the mean distance from there to the best."""
        zero = middle(values, reference)
        return zero, best(values, reference) - zero

    @property
    def words(self) -> str:
        """The scale in words."""
        return "share of the possible gain over the reference"


@dataclass(frozen=True)
class RankScale(AbstractScale):
    """Only the order counts: the share of a prompt's answers that the voter likes less, ties half.

    `U -> sum_y' ref (1[U_y' < U_y] + 1[U_y' = U_y] / 2)`, answers weighed as the reference writes them, so that the
    reference itself is worth 1/2 to everyone.

    Value judgement: all have the same say, and between two answers it is worth the number of answers in between;
    how much anyone minds does not count. `Utilitarian` on it is `Borda` against the reference, and like Borda it can be
    moved by answers that nobody wants: near copies of an answer part it from the others. It feels no unit and no zero,
    not even of each prompt. Utilities are in (0, 1), so `Nash` is defined.

    The map is not affine, so the table is dense, and says nothing of responses that are not in it.
    """

    kind: Literal["rank"] = "rank"

    def apply(self, utilities: Utilities) -> Utilities:
        """Return the shares, dense."""
        shares = np.empty(utilities.shape)
        for draws, values in chunks(utilities):
            same = SAME * np.abs(np.where(utilities.reference > 0, values, 0)).max(-1)
            for y in range(utilities.shape[-1]):
                ahead = values[..., y, None] - values
                sign = np.where(np.abs(ahead) > same[..., None], np.sign(ahead), 0)
                shares[draws, :, :, y] = 0.5 + 0.5 * np.einsum("svxy,xy->svx", sign, utilities.reference)
        return replace(utilities, value=shares, scale=self.words)

    @property
    def words(self) -> str:
        """The scale in words."""
        return "share of each prompt's answers that are liked less"


def rescale(utilities: Utilities, scale: AbstractScale) -> Utilities:
    """Return the same utilities on another scale; factored ones stay factored, unless it is `RankScale`.

    Args:
        utilities: on any scale that is affine per draw and voter. Scales with a unit of their own do not compound, the
            last one holds; `NoScale` moves the zero alone and leaves the unit that utilities come in.
        scale: the new one.

    Raises:
        InputError: a voter with positive mass is indifferent between all candidates in some draw, so the scale's
            unit is 0.
    """
    return scale.apply(utilities)


def measured(utilities: Utilities, scale: AbstractScale) -> tuple[Table, Table]:
    """Return `(zero, unit)` of a scale on these utilities; 1 is the unit of voters without mass who have none.

    Raises:
        InputError: a voter with positive mass is indifferent between all candidates in some draw; the scale is none
            that has a zero and a unit.
    """
    if not isinstance(scale, AbstractAffine):
        raise InputError(f"{scale} has no zero and unit, so it cannot be a rule's own scale; use it as `scale`.")
    zero, unit = np.empty(utilities.shape[:2]), np.empty(utilities.shape[:2])
    for draws, values in chunks(utilities):
        # Centring first costs nothing (scales do not feel it) and keeps digits where utilities are far from 0.
        centre = np.einsum("svxy,xy->svx", values, utilities.reference)
        centred = np.where(utilities.reference > 0, values - centre[..., None], 0)
        shift, unit[draws] = scale.affine(centred, utilities.reference)
        noise = 1e-12 * np.abs(values).max((2, 3))
        unit[draws] = np.where(unit[draws] > noise, unit[draws], 0)
        zero[draws] = shift + centre.mean(-1)
    indifferent = (unit == 0).any(0)
    voters = utilities.voters or ()
    named = [voters[v] for v in np.flatnonzero(indifferent & (utilities.mass > 0))]
    if named:
        raise InputError(
            f"{scale}: {len(named)} of {len(unit[0])} voters are indifferent between all candidates in some draw "
            f"({', '.join(named[:5])}{', ...' if len(named) > 5 else ''}), so their utilities have no unit. Give them "
            "mass 0, add prompts whose candidates differ in what they care about, or use NoScale."
        )
    return zero, np.where(indifferent[None], 1.0, unit)


def affine(
    utilities: Utilities, zero: Float[np.ndarray, "#draw #voter"], unit: Float[np.ndarray, "#draw #voter"]
) -> Utilities:
    """Return `(U - zero) / unit`."""
    if isinstance(utilities.value, Linear):
        value = utilities.value
        scaled = Linear(value.phi, value.weights / unit[..., None], (value.offset - zero) / unit)
    else:
        scaled = (utilities.value - zero[..., None, None]) / unit[..., None, None]
    return replace(utilities, value=scaled)


def chunks(utilities: Utilities) -> Iterator[tuple[slice, Values]]:
    """Yield dense utilities, a few draws at a time."""
    draws, voters, prompts, candidates = utilities.shape
    step = max(1, CHUNK // (voters * prompts * candidates))
    for start in range(0, draws, step):
        part = slice(start, start + step)
        value = utilities.value
        if isinstance(value, Linear):
            part_of = replace(utilities, value=Linear(value.phi, value.weights[part], value.offset[part]))
            yield part, part_of.dense()
        else:
            yield part, value[part]


def spread(utilities: Utilities) -> float:
    """Return the standard deviation of utilities within a prompt under the reference, mean over draws and voters.

    It is a yardstick for solvers: of millions of voters in draws with features, evenly spaced ones tell it.
    """
    reference, value = utilities.reference / len(utilities.reference), utilities.value
    if isinstance(value, Linear):
        # The variance of `phi · w` is `w^T cov(phi) w`: the table is never written out.
        centred = value.phi - np.einsum("xy,xyf->xf", utilities.reference, value.phi)[:, None]
        flat = (centred * np.sqrt(reference)[..., None]).reshape(-1, centred.shape[-1])
        covariance = flat.T @ flat
        flat = value.weights.reshape(-1, value.weights.shape[-1])
        some = flat[:: max(1, len(flat) // MANY)]
        variance = [np.einsum("nf,nf->n", some @ covariance, some)]
    else:
        variance = [
            np.einsum("svxy,xy->sv", (v - np.einsum("svxy,xy->svx", v, utilities.reference)[..., None]) ** 2, reference)
            for _, v in chunks(utilities)
        ]
    return float(np.mean([np.sqrt(np.maximum(v, 0)).mean() for v in variance]))
