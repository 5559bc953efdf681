"""What a step does with weights off the mask: they join the model before the optimizer moves, and leave it afterwards."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_core.layer import LayerInput, LayerPlan, Moment, SparseLayer
from sparse_core.method import Method
from sparse_core.off_mask import OffMaskWeights
from sparse_core.optimizer_state import clear_off_mask, rewire_state, stays_zero
from sparse_core.packing import pack, unpack
from sparse_core.selection import take_largest

_VALUES, _MOVING = "weights off the mask", "weights that move"  # in a saved layer's memory


@torch.no_grad()
def set_aside(layers: Sequence[SparseLayer], method: Method) -> None:
    """Take what the weights are off the mask into the engine, at its beginning."""
    for layer in layers:
        parameter = layer.target.parameter.detach()
        apart = _everywhere(layer) & ~layer.mask
        links = layer.mask if parameter.device.type != "cpu" else layer.mask.to(parameter.dtype)
        layer.off_mask = OffMaskWeights(torch.where(apart, parameter, _zero(parameter)), links, layer.mask.clone())
        _choose_moving(layer, layer.off_mask, method, step=0)


def warn_of_zeros(layers: Sequence[SparseLayer]) -> None:
    """Say so where all weights off the first masks are zero. Reads from the device."""
    thin = [layer for layer in layers if layer.links < layer.size]
    if thin and not any(bool(layer.target.parameter.detach()[~layer.mask].any()) for layer in thin):
        warnings.warn(
            f"{thin[0].name} and all others are zero off the mask: weights that were saved sparse. What was off the mask is in "
            "the state of the engine that trained them (engine.load_state_dict); without it, these weights begin at zero",
            stacklevel=3,
        )


def bring_in(
    layers: Sequence[SparseLayer], working: Sequence[Tensor], optimizer: torch.optim.Optimizer, method: Method, step: int
) -> None:
    """Give the optimizer the weights that it moves, links and others, and the penalty on them.

    Gradients are already masked. The penalty joins them once a step, after clipping, and scaled as they are; decoupled, it
    shrinks the weights unless the optimizer has been told to skip the step.

    Args:
        working: of each layer, what moves, as the engine multiplies gradients with it.
    """
    rule = method.off_mask
    assert rule is not None
    density = method.density_at(step)
    assert density is not None  # a method with weights off the mask has one
    on_links, on_idle = rule.factors(density)
    options = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    for layer, moves in zip(layers, working, strict=True):
        parameter, kept = layer.target.parameter, layer.off_mask
        assert kept is not None
        if kept.all_move:
            torch.addcmul(kept.values, parameter, kept.links, out=parameter)
        else:
            parameter.mul_(kept.links).addcmul_(kept.values, moves)
        gradient = parameter.grad
        if gradient is None:
            continue
        if rule.decoupled:
            rate = options[id(parameter)]["lr"]
            if found_inf is not None:
                rate = rate * (found_inf.to(parameter.device) == 0).reshape(())
            idle = kept.values * moves
            parameter.sub_(parameter * (rate * on_links)).sub_(idle * (rate * (on_idle - on_links)))
            continue
        sign = -1.0 if options[id(parameter)].get("maximize") else 1.0
        first, second = sign * on_links, sign * (on_idle - on_links)
        if scale is not None:
            unit = scale.to(gradient.device, gradient.dtype).reshape(())
            gradient.addcmul_(parameter, unit, value=first).addcmul_(kept.values * moves, unit, value=second)
            continue
        if first:
            gradient.add_(parameter, alpha=first)
        if second:
            gradient.addcmul_(kept.values, moves, value=second)


def take_out(layers: Sequence[SparseLayer], working: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Put away what the optimizer has made of weights off the mask; the model is zero there again."""
    at_rest = stays_zero(optimizer)  # what does not move is zero in the weight, and sums and products of it are exact
    for layer, moves in zip(layers, working, strict=True):
        parameter, kept = layer.target.parameter, layer.off_mask
        assert kept is not None
        if at_rest:
            kept.values.addcmul_(kept.values, moves, value=-1).add_(parameter).addcmul_(parameter, kept.links, value=-1)
            parameter.mul_(kept.links)
        else:
            kept.values.copy_(torch.where(kept.moving & ~layer.mask, parameter, kept.values))
            parameter.copy_(torch.where(layer.mask, parameter, _zero(parameter)))
            state = optimizer.state.get(parameter)
            if state:
                clear_off_mask(state, parameter, kept.moving)


def swap(
    planned: LayerPlan,
    given: LayerInput,
    state: MutableMapping[str, Any] | None,
    working: Tensor,
    method: Method,
    moment: Moment,
) -> None:
    """Make a planned update real: links leave the model with their values, others come with theirs.

    The optimizer's state stays with every weight that goes on moving. What begins to move has the state of a new link; what
    does so no more has none.
    """
    layer, parameter, kept = planned.layer, planned.layer.target.parameter, planned.layer.off_mask
    assert kept is not None
    dense = given.weight.to(parameter.dtype)
    layer.mask.copy_(planned.mask)
    _refresh_links(layer, kept)
    torch.addcmul(dense, dense, kept.links, value=-1, out=kept.values)
    torch.sub(dense, kept.values, out=parameter)
    layer.explored.logical_or_(planned.mask)
    layer.counts = planned.counts
    if kept.all_move and not method.over(moment.step):
        return  # all moved, and all goes on moving
    before = kept.moving.clone()
    _choose_moving(layer, kept, method, moment.step)
    if state:
        stayed = (before & kept.moving).to(parameter.dtype)
        rewire_state(dict(state), dict(given.options), parameter, stayed, kept.moving & ~before, None)
    if working is not kept.moving:
        working.copy_(kept.moving)


def _choose_moving(layer: SparseLayer, kept: OffMaskWeights, method: Method, step: int) -> None:
    """What the optimizer moves from now on: the links and, while there are updates to come, the largest of the others."""
    rule, density = method.off_mask, method.density_at(step)
    assert rule is not None
    assert density is not None  # a method with weights off the mask has one
    share = 0.0 if method.over(step) else rule.share(density)
    kept.all_move = share >= 1
    if share == 0:
        kept.moving.copy_(layer.mask)
    elif share >= 1:
        kept.moving.copy_(_everywhere(layer))
    else:
        grid = layer.grid
        active = grid.units_of(layer.mask)
        idle = layer.allowed_units() & ~active
        counts = (idle.sum(dim=1).to(torch.float64) * share + 0.5).floor().to(torch.int64)
        chosen = take_largest(grid.scores_of(magnitude(layer.dense_weight())), idle, counts).taken
        kept.moving.copy_(grid.mask_of(active | chosen))


def magnitude(weight: Tensor) -> Tensor:
    """|w| in at least float32."""
    return weight.abs().to(torch.promote_types(weight.dtype, torch.float32))


def to_save(layer: SparseLayer) -> dict[str, Tensor]:
    """Weights off the mask for a saved state: what is not zero of the values, and one bit a weight."""
    if layer.off_mask is None:
        return {}
    return {_VALUES: layer.off_mask.values[~layer.mask], _MOVING: pack(layer.off_mask.moving)}


def check_saved(name: str, mask: Tensor, memory: MutableMapping[str, Tensor]) -> None:
    """Raise ValueError, with the layer's name, for saved weights off the mask that do not fit its saved mask."""
    if _VALUES not in memory and _MOVING not in memory:
        return
    if _VALUES not in memory or _MOVING not in memory:
        raise ValueError(f"{name}: the state has only one of {_VALUES!r} and {_MOVING!r}")
    wanted = mask.numel() - int(mask.sum().item())
    if memory[_VALUES].shape != (wanted,):
        raise ValueError(
            f"{name}: the state has {tuple(memory[_VALUES].shape)} weights off the mask, whose mask leaves {wanted}"
        )
    try:
        moving = unpack(memory[_MOVING], tuple(mask.shape))
    except ValueError as error:
        raise ValueError(f"{name}: {_MOVING}: {error}") from error
    if bool((mask.cpu() & ~moving).any()):
        raise ValueError(f"{name}: in the state, the optimizer does not move all of the links")


@torch.no_grad()
def take_up(layers: Sequence[SparseLayer], method: Method, step: int) -> None:
    """Move saved weights off the mask from the layers' memory, checked before, to their place."""
    missing = []
    for layer in layers:
        values, moving = layer.memory.pop(_VALUES, None), layer.memory.pop(_MOVING, None)
        kept = layer.off_mask
        if kept is None:
            continue
        _refresh_links(layer, kept)
        if values is None or moving is None:
            missing.append(layer)
            kept.values.zero_()
            _choose_moving(layer, kept, method, step)
            continue
        kept.values.zero_().masked_scatter_(~layer.mask, values.to(kept.values))
        kept.moving.copy_(unpack(moving, tuple(layer.mask.shape)))
        kept.all_move = bool((kept.moving == _everywhere(layer)).all())
    if missing:
        warnings.warn(
            f"the state has no weights off the mask for {missing[0].name} ({len(missing)} of {len(layers)} layers): they begin "
            "at zero",
            stacklevel=4,
        )


def _refresh_links(layer: SparseLayer, kept: OffMaskWeights) -> None:
    if kept.links is not layer.mask:
        kept.links.copy_(layer.mask)


def _everywhere(layer: SparseLayer) -> Tensor:
    """bool, of the weight's shape: where links may exist."""
    allowed = layer.grid.allowed
    return torch.ones_like(layer.mask) if allowed is None else layer.grid.mask_of(allowed)


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device=like.device)
