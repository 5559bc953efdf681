"""How many links each weight gets: densities per layer, and whole numbers with an exact total."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from sparse_core.grasp import LossAt, grasp_scores
from sparse_core.hashed_random import key_of
from sparse_core.scores import Score, magnitude, snip
from sparse_core.start import Start, averaged_over_ranks
from sparse_core.synflow import synflow_scores


@dataclass(frozen=True)
class Layer:
    """A weight as a layout sees it.

    Attributes:
        name: the parameter's name.
        shape: its shape, outputs first.
        size: the number of allowed links.
    """

    name: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Layout:
    """How links are spread over layers, and where they begin.

    Attributes:
        name: what reports call it.
        shares: (layers, density) -> a number per layer: the links are shared out in this proportion, saturating at a layer's
            size, with round(density * all sizes) in total.
        densities: layers -> the density of each, where the layout alone decides it and no density is given.
        score: the links with the largest scores over all layers begin, instead of random ones layer by layer.
        loss: for scores that need a gradient: computes the loss of one batch on the dense model.
        rank: instead of `score`, for those that need the model itself: scores of all weights by name.
    """

    name: str
    shares: Callable[[Sequence[Layer], float], list[float]] | None = None
    densities: Callable[[Sequence[Layer]], list[float]] | None = None
    score: Score | None = None
    loss: Callable[[], Tensor] | None = None
    rank: Callable[[Start], dict[str, Tensor]] | None = None

    @property
    def ranked(self) -> bool:
        """Whether the links that begin are the best over all layers."""
        return self.score is not None or self.rank is not None

    @property
    def sets_density(self) -> bool:
        """Whether the layout decides the density by itself."""
        return self.densities is not None


def uniform() -> Layout:
    """The same density in every layer."""
    return Layout("uniform", shares=lambda layers, density: [float(layer.size) for layer in layers])


def er() -> Layout:
    """Erdős-Rényi (SET): density in proportion to (n_in + n_out) / (n_in n_out), the taps of a convolution aside."""
    return Layout("ER", shares=lambda layers, density: [layer.size * _sparsity_scale(layer.shape[:2], 1.0) for layer in layers])


def erk(power: float = 1.0) -> Layout:
    """Erdős-Rényi-kernel (RigL): density in proportion to (sum of the dimensions / their product) ** power.

    Layers that would exceed density 1 are dense and the others share what is left, as in RigL's code.
    """
    return Layout(
        f"ERK({power:g})", shares=lambda layers, density: [layer.size * _sparsity_scale(layer.shape, power) for layer in layers]
    )


def epsilon(value: float | Mapping[str, float]) -> Layout:
    """SET's and DS-TD3's layout: value * (n_in + n_out) links per layer (SET calls it epsilon, DS-TD3 lambda).

    Args:
        value: one number, or numbers by name pattern (DS-TD3: 7 for the first layer, 64 for the second).
    """

    def densities(layers: Sequence[Layer]) -> list[float]:
        return [min(1.0, _by_pattern(value, layer.name) * sum(layer.shape[:2]) / layer.size) for layer in layers]

    return Layout(f"epsilon({value})", densities=densities)


def fixed(values: Mapping[str, float]) -> Layout:
    """Densities by name pattern, the first that fits; every layer needs one."""
    return Layout(f"fixed({dict(values)})", densities=lambda layers: [_by_pattern(values, layer.name) for layer in layers])


def global_magnitude() -> Layout:
    """The largest weights over all layers."""
    return Layout("global magnitude", score=magnitude)


def one_shot_snip(loss: Callable[[], Tensor]) -> Layout:
    """SNIP at the start: the links with the largest |w g| over all layers, of the gradient averaged over all ranks.

    Args:
        loss: computes the loss of one batch on the dense model. The model's `.grad` fields stay as they are.
    """
    return Layout("one-shot SNIP", score=snip, loss=loss)


def one_shot_grasp(loss: LossAt | Sequence[LossAt], temperature: float = 200.0) -> Layout:
    """GraSP at the start: the links with the largest theta (H g) over all layers, which keep the gradient flowing.

    Args:
        loss: computes the loss of one batch on the dense model from logits divided by the temperature it is given, such as
            `lambda t: cross_entropy(model(x) / t, y)`; or several, for several batches, which count as one. Each is called
            twice and has to give the same.
        temperature: what they are given (the paper's code: 200).

    Raises:
        ValueError: no loss, or a temperature that is not above 0.
    """
    losses = [loss] if callable(loss) else list(loss)
    if not losses or not temperature > 0:
        raise ValueError(f"one_shot_grasp: {len(losses)} losses at temperature {temperature}; expected some, above 0")
    return Layout("one-shot GraSP", rank=lambda start: grasp_scores(start, losses, temperature))


def synflow(sample: object, rounds: int = 100, dtype: torch.dtype = torch.float64) -> Layout:
    """SynFlow at the start: over all layers, the links that carry most of a flow of ones through |theta|, without data.

    Args:
        sample: an input as the model takes it (a tensor, a tuple of arguments, a mapping of keywords). Its floating-point
            tensors are replaced by ones, so only shapes matter; one example is enough.
        rounds: how often the flow is measured; each time the density falls by the same factor.
        dtype: in which the model computes the flow. float64 holds some 200 layers of common width.

    Raises:
        ValueError: no rounds.
    """
    if rounds < 1:
        raise ValueError(f"synflow: rounds is {rounds}, expected at least 1")
    return Layout("SynFlow", rank=lambda start: synflow_scores(start, sample, rounds, dtype))


def _sparsity_scale(shape: Sequence[int], power: float) -> float:
    return float((sum(shape) / math.prod(shape)) ** power)


def _by_pattern(values: float | Mapping[str, float], name: str) -> float:
    if not isinstance(values, Mapping):
        return values
    for pattern, value in values.items():
        if fnmatchcase(name, pattern):
            return value
    raise ValueError(f"{name}: no pattern of {sorted(values)} fits this layer, and every layer needs a density")


def counts_of(layout: Layout, layers: Sequence[Layer], density: float | None, overrides: Mapping[str, float]) -> list[int]:
    """How many links each layer gets under a layout without scores.

    Args:
        density: of all layers together; None only for a layout that sets it by itself.
        overrides: densities by layer name that hold whatever the layout says; these layers are left out of the total.

    Raises:
        ValueError: no density where one is needed, or one outside of (0, 1].
    """
    free = [layer for layer in layers if layer.name not in overrides]
    if not free:
        return [max(1, round(overrides[layer.name] * layer.size)) for layer in layers]
    if layout.densities is not None:
        wanted = [density_ * layer.size for density_, layer in zip(layout.densities(free), free, strict=True)]
        for want, layer in zip(wanted, free, strict=True):
            if not 0 < want <= layer.size:
                raise ValueError(f"{layer.name}: {layout.name} gives density {want / layer.size}, expected 0 < density <= 1")
        total = round(sum(wanted))
    else:
        if density is None:
            raise ValueError(f"the layout {layout.name} needs a density")
        assert layout.shares is not None
        wanted = layout.shares(free, density)
        total = round(density * sum(layer.size for layer in free))
    shared = share_out(total, torch.tensor(wanted, dtype=torch.float64), torch.tensor([layer.size for layer in free]))
    counts = iter(_at_least_one(shared.tolist()))
    return [max(1, round(overrides[layer.name] * layer.size)) if layer.name in overrides else next(counts) for layer in layers]


def share_out(total: int | Tensor, shares: Tensor, caps: Tensor) -> Tensor:
    """`total` whole things in proportion to `shares`, none above its cap: exact where the caps allow, largest remainders first.

    Nothing is read back from the device.

    Args:
        total: how many in all; what exceeds the sum of the caps is not given.
        shares: (n,) float64, not negative.
        caps: (n,) int64.

    Returns:
        (n,) int64.
    """
    if not isinstance(total, Tensor):
        total = torch.full((), total, dtype=torch.float64, device=shares.device)  # filled there, not copied over
    total = total.to(torch.float64).clamp(max=caps.sum().to(torch.float64))
    shares = torch.where(caps > 0, shares.clamp(min=1e-300), 0.0)
    # Those that saturate are the first in the order of cap / share; find how many by trying every prefix at once.
    order = torch.where(shares > 0, caps / shares, torch.inf).argsort(stable=True)
    cap, share = caps[order].to(torch.float64), shares[order]
    cap_before, share_from = cap.cumsum(0) - cap, share.flip(0).cumsum(0).flip(0)
    level = torch.where(share_from > 0, (total - cap_before) / share_from, 0.0)
    saturated = (level * share >= cap).to(torch.int64).cumprod(0).bool()
    first_free = saturated.sum().clamp(max=len(cap) - 1).view(1)
    exact = torch.where(saturated, cap, torch.minimum(level.gather(0, first_free) * share, cap)).clamp(min=0)
    whole = exact.floor()
    # What rounding left goes to the largest remainders, then again by index to whoever has room.
    for _ in range(2):
        left = (total.round() - whole.sum()).clamp(min=0)
        room = whole < cap
        remainder = torch.where(room, exact - whole, -1.0)
        rank = torch.empty_like(order).scatter_(
            0, remainder.argsort(descending=True, stable=True), torch.arange(len(cap), device=order.device)
        )
        whole = whole + ((rank < left) & room)
    return torch.empty_like(caps).scatter_(0, order, whole.to(torch.int64))


def _at_least_one(counts: list[int]) -> list[int]:
    """No layer without a link: the empty ones get one each from the largest, where the total is enough."""
    counts = list(counts)
    for index, count in enumerate(counts):
        if count == 0 and max(counts, default=0) > 1:
            counts[counts.index(max(counts))] -= 1
            counts[index] = 1
    return counts


def layout_scores(
    layout: Layout, named: Mapping[str, nn.Parameter], score_one: Callable[[str, Tensor | None], Tensor]
) -> dict[str, Tensor]:
    """The scores of a layout that ranks links over all layers.

    Args:
        score_one: (name, gradient) -> the score of that weight.
    """
    gradients: dict[str, Tensor | None] = dict.fromkeys(named)
    if layout.loss is not None:
        with torch.enable_grad():
            found = torch.autograd.grad(layout.loss(), list(named.values()), allow_unused=True)
        for name, grad in zip(named, found, strict=True):
            grad = torch.zeros_like(named[name]) if grad is None else grad
            gradients[name] = averaged_over_ranks(grad)
    return {name: score_one(name, gradients[name]) for name in named}


def initial_key(seed: int, name: str) -> int:
    """The hash key of the random links that a layer begins with."""
    return key_of(seed, 0, name, "layout", "")
