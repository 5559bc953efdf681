"""Functions over masks, which need no engine: target networks, cores and unions, overlaps, frozen links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparse_core.engine import SparseEngine
from sparse_core.packing import unpack
from sparse_core.radix import number
from sparse_core.selection import take_largest
from sparse_core.shard import refuse_sharded
from sparse_core.targets import plain_names
from sparse_core.wrappers import unwrapped

Masks = Mapping[str, Tensor]
"""Parameter name -> bool tensor of the parameter's shape, as `engine.masks` is."""


@dataclass(frozen=True)
class Ratio:
    """A share of links: by layer, and of all layers' links together."""

    layers: Mapping[str, float]
    total: float


def sync_target(target_model: nn.Module, online_masks: Masks, mode: Literal["mask", "magnitude", "none"]) -> None:
    """Make a target network as sparse as its online network; call it after the target's (polyak) update.

    The average of an old and a new network has the links of both wherever the online network was rewired in between.

    Args:
        target_model: a model with parameters of the masks' names.
        online_masks: the online network's masks.
        mode: "mask": the target keeps the online network's links only. "magnitude": it keeps its own largest weights, as
            many as the online network has links, and all of them where it has fewer (DS-TD3, Sokar et al. 2022).
            "none": nothing is changed.

    Raises:
        ValueError: an unknown mode; a mask that fits no parameter. Nothing is changed then.
    """
    if mode not in ("mask", "magnitude", "none"):
        raise ValueError(f"sync_target: mode is {mode!r}, expected mask, magnitude or none")
    parameters = parameters_of(target_model, online_masks)
    if mode == "none":
        return
    with torch.no_grad():
        for name, mask in online_masks.items():
            parameter = parameters[name]
            kept = mask.to(parameter.device) if mode == "mask" else _largest(parameter, mask)
            if kept is not None:
                parameter.copy_(torch.where(kept, parameter, torch.zeros_like(parameter)))


def _largest(parameter: Tensor, mask: Tensor) -> Tensor | None:
    """The largest weights, as many as the mask has links; None where it is known that there is nothing to cut off."""
    present = parameter != 0
    links, weights = mask.sum().to(parameter.device), present.sum()
    if parameter.device.type == "cpu" and number(weights) <= number(links):
        return None
    size = parameter.abs().float() if parameter.dtype not in (torch.float32, torch.float64) else parameter.abs()
    row = (1, parameter.numel())
    return take_largest(size.reshape(row), present.reshape(row), torch.minimum(links, weights).view(1)).taken.view_as(parameter)


def core(*masks: Masks) -> dict[str, Tensor]:
    """The links that all of the masks have.

    Raises:
        ValueError: no masks, or masks of different models.
    """
    _same_layers(masks)
    return {name: torch.stack([one[name] for one in masks]).all(dim=0) for name in masks[0]}


def union(*masks: Masks) -> dict[str, Tensor]:
    """The links that any of the masks has.

    Raises:
        ValueError: no masks, or masks of different models.
    """
    _same_layers(masks)
    return {name: torch.stack([one[name] for one in masks]).any(dim=0) for name in masks[0]}


def jaccard(a: Masks, b: Masks) -> Ratio:
    """Links in both over links in either; 1 for equal masks, two empty ones included.

    Raises:
        ValueError: masks of different models.
    """
    return _ratio(core(a, b), union(a, b), empty=1.0)


def churn(a: Masks, b: Masks) -> Ratio:
    """The share of the links of `a` that `b` does not have; 0 where `a` has none.

    Raises:
        ValueError: masks of different models.
    """
    _same_layers((a, b))
    return _ratio({name: mask & ~b[name] for name, mask in a.items()}, a, empty=0.0)


def exploration_rate(explored: SparseEngine | Masks, masks: Masks | None = None) -> Ratio:
    """The share of the possible links that were ever active (ITOP's R_s, Liu et al. 2021).

    Args:
        explored: an engine, which knows where links are allowed; or the links that were ever active, of all positions.
        masks: links that count as explored too, such as the present ones.

    Raises:
        ValueError: masks of different models; masks beside an engine under FSDP2.
    """
    if isinstance(explored, SparseEngine) and masks is None:
        report = explored.report()
        return Ratio({layer.name: layer.exploration for layer in report.layers}, report.exploration)
    seen = explored.explored if isinstance(explored, SparseEngine) else explored
    if masks is not None:
        seen = union(seen, masks)
    if isinstance(explored, SparseEngine):
        sizes = {layer.name: layer.size for layer in explored.report().layers}
        cut = [layer.name for layer in explored.report().layers if seen[layer.name].shape != layer.shape]
        if cut:
            raise ValueError(
                f"{cut[0]}: this rank has some rows of it; give whole masks, `whole(engine)`, in place of the engine"
            )
    else:
        sizes = {name: mask.numel() for name, mask in seen.items()}
    counts = {name: int(mask.sum().item()) for name, mask in seen.items()}
    layers = {name: count / sizes[name] for name, count in counts.items()}
    return Ratio(layers, sum(counts.values()) / sum(sizes.values()))


def whole(engine: SparseEngine) -> dict[str, Tensor]:
    """The masks of whole weights, also where a rank has some rows of them under FSDP2: then every rank must call it."""
    return {name: unpack(layer["mask"], tuple(layer["shape"])) for name, layer in engine.state_dict()["layers"].items()}


def links_per_column(mask: Tensor) -> Tensor:
    """How many links leave every input: (inputs,) int64. Of a convolution's mask: every input channel, over all its taps."""
    return mask.movedim(1, 0).flatten(1).sum(dim=1)


class Freeze:
    """Keeps links at their values while an optimizer goes on training. Made by `freeze`.

    Where an engine holds weights off the mask, links that left it are kept there at their values too.

    Attributes:
        values: parameter name -> the frozen values, 0 elsewhere. Give them to the next `freeze`, which else would take a
            link's value to be the 0 that it has while it is inactive.
        masks: parameter name -> the frozen links.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, nn.Parameter],
        masks: Masks,
        values: Mapping[str, Tensor],
        engine: SparseEngine | None,
    ) -> None:
        self.masks, self.values = dict(masks), dict(values)
        self._parameters, self._engine = dict(parameters), engine
        self._handle: Any = optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def restore(self) -> None:
        """Put every frozen link that is active back to its value; this happens after every step too."""
        active = {} if self._engine is None else self._engine.masks
        for name, parameter in self._parameters.items():
            mask = self.masks[name]
            parameter.copy_(torch.where(mask & active[name] if name in active else mask, self.values[name], parameter))
        for name, asleep in ({} if self._engine is None else self._engine.off_mask).items():
            if name in self.masks:
                asleep.copy_(torch.where(self.masks[name] & ~active[name], self.values[name], asleep))

    def remove(self) -> None:
        """Let the optimizer train these links again. Their values stay."""
        self._handle.remove()

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.restore()


@torch.no_grad()
def freeze(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    frozen_masks: Masks,
    engine: SparseEngine | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> Freeze:
    """Keep links at their values from now on, whatever the optimizer does to them (continual learning, link by link).

    After every step each frozen link that is active gets its value back, bit for bit; so weight decay, momentum and Adam do
    not reach it, and a link that an engine drops and grows again returns with the value it had.

    Args:
        optimizer: the optimizer that trains the model; what else it holds it trains as before.
        model: the model.
        frozen_masks: the links to freeze, such as the union of the masks of the tasks so far.
        engine: the engine that says which links are active, if there is one.
        values: by parameter name, values for the links that are inactive at present: the `values` of an earlier freeze.

    Raises:
        ValueError: a mask that fits no parameter, or of a parameter that the optimizer does not hold.
    """
    parameters = parameters_of(model, frozen_masks)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    kept: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        if id(parameter) not in held:
            raise ValueError(f"{name}: the optimizer does not hold this parameter")
        mask, value = frozen_masks[name].to(parameter.device), parameter.detach()
        if engine is not None and name in engine.off_mask:
            value = torch.where(engine.masks[name], value, engine.off_mask[name])
        if values is not None and name in values:
            if values[name].shape != value.shape:
                raise ValueError(f"{name}: values of shape {tuple(values[name].shape)}, the weight has {tuple(value.shape)}")
            before = values[name].to(value)
            asleep = ~engine.masks[name] if engine is not None and name in engine.masks else value == 0
            value = torch.where(asleep, before, value)
        kept[name] = torch.where(mask, value, torch.zeros_like(value))
    masks = {name: frozen_masks[name].to(parameter.device).clone() for name, parameter in parameters.items()}
    return Freeze(optimizer, parameters, masks, kept, engine)


def parameters_of(model: nn.Module, masks: Masks) -> dict[str, nn.Parameter]:
    """The model's parameters that the masks belong to, by name, wrappers left out.

    Raises:
        ValueError: a mask that is not bool, that fits no parameter's name, or not its shape; a sharded parameter.
    """
    places = plain_names(unwrapped(model))
    found: dict[str, nn.Parameter] = {}
    for name, mask in masks.items():
        if name not in places:
            raise ValueError(f"{name}: the model has no such parameter; it has {', '.join(list(places)[:3])}, ...")
        owner, attribute = places[name]
        parameter = owner._parameters[attribute]
        assert parameter is not None
        refuse_sharded(name, parameter)
        if mask.dtype != torch.bool or mask.shape != parameter.shape:
            raise ValueError(f"{name}: the mask is {mask.dtype} {tuple(mask.shape)}, the weight has {tuple(parameter.shape)}")
        found[name] = parameter
    return found


def _ratio(part: Masks, whole: Masks, empty: float) -> Ratio:
    counts = {name: (int(part[name].sum().item()), int(whole[name].sum().item())) for name in whole}
    layers = {name: some / all_ if all_ else empty for name, (some, all_) in counts.items()}
    some, all_ = (sum(column) for column in zip(*counts.values(), strict=True))
    return Ratio(layers, some / all_ if all_ else empty)


def _same_layers(masks: tuple[Masks, ...]) -> None:
    if not masks or not masks[0]:
        raise ValueError("no masks given")
    for other in masks[1:]:
        if set(other) != set(masks[0]):
            differing = sorted(set(other) ^ set(masks[0]))
            raise ValueError(f"masks of different models: {differing[:3]} are not in both")
        for name, mask in masks[0].items():
            if other[name].shape != mask.shape:
                raise ValueError(f"{name}: masks of shapes {tuple(mask.shape)} and {tuple(other[name].shape)}")
