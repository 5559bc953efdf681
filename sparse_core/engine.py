"""SparseEngine: hangs off a model's gradients and an optimizer's step, and keeps both sparse."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from sparse_core import off_mask_step, saving
from sparse_core.attachment import check_parameters, refuse_ranks_that_differ, watch_for_late_sharding
from sparse_core.commit import commit
from sparse_core.inputs import inputs_of
from sparse_core.layer import LayerInput, Moment, Proposal, SparseLayer, context_of
from sparse_core.method import Method
from sparse_core.optimizer_state import clear_off_mask, stays_zero
from sparse_core.report import Report, make_report
from sparse_core.scores import needs_gradient, watches_every_step
from sparse_core.shardable import refuse_unshardable
from sparse_core.update import plan

_ENGINES: weakref.WeakValueDictionary[int, SparseEngine] = weakref.WeakValueDictionary()


def engine_of(parameter: nn.Parameter) -> SparseEngine | None:
    """The engine that keeps this parameter sparse, if there is one."""
    return _ENGINES.get(id(parameter))


class SparseEngine:
    """Keeps the selected weights of a model sparse while an optimizer trains it. Made by `sparsify`.

    Weights are zero where they are inactive, so forward, backward, `state_dict` and `torch.export` see a plain model.
    Gradients are masked as they accumulate, except in the steps of an update, where they are dense until `step()`. All
    decisions are made inside of `optimizer.step`, before it moves anything: from gradients that are already averaged over
    ranks, and only if the step really happens. (Where the method has an `off_mask`, after it has moved, from the weights.)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        layers: Sequence[SparseLayer],
        seed: int,
    ) -> None:
        self._model, self._optimizer, self._method, self._seed = model, optimizer, method, seed
        self._layers = list(layers)
        self._step = 0
        self._updates = 0
        self._requested: float | None = None
        self._masked: dict[int, tuple[Tensor, int]] = {}  # layer -> the gradient masked since the last step, its version then
        self._left_out: set[str] = set()  # layers already warned about
        if method.off_mask is not None:
            off_mask_step.set_aside(self._layers, method)
        self._working = [_working_mask(layer) for layer in self._layers]
        self._masks = MappingProxyType({layer.name: layer.mask for layer in self._layers})
        self._brought_in = False  # between the hooks of a step (and after one that failed): the model has weights off the mask
        self._warned_of_failure = False
        self._handles: list[Any] = []
        self._attach()

    # What a user calls.

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Parameter name -> bool mask of the active links (under FSDP2, of the rows here); live, and not to be written to."""
        return self._masks

    @property
    def method(self) -> Method:
        """The method, as given."""
        return self._method

    @property
    def steps(self) -> int:
        """Optimizer steps so far in which one of the sparse parameters had a gradient."""
        return self._step

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self._updates

    @property
    def explored(self) -> Mapping[str, Tensor]:
        """Parameter name -> bool mask of the links that were ever active."""
        return MappingProxyType({layer.name: layer.explored for layer in self._layers})

    @property
    def off_mask(self) -> Mapping[str, Tensor]:
        """Parameter name -> the weights off the mask that live on, live; empty for methods that keep none."""
        return {layer.name: layer.off_mask.values for layer in self._layers if layer.off_mask is not None}

    def dense_weights(self) -> dict[str, Tensor]:
        """Parameter name -> a copy of its weight, with what lives on off the mask; after `detach` too."""
        return {layer.name: layer.dense_weight().clone() for layer in self._layers}

    def update(self, fraction: float) -> None:
        """Ask for an update inside the next step, exchanging this share of the active links.

        Call it before the backward pass of that step: a method that grows by gradient needs the dense one.

        Raises:
            ValueError: a fraction outside of [0, 1]; a method that grows nothing.
            RuntimeError: gradients of the coming step were already masked, and the method needs them dense.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"update: the fraction is {fraction}, expected 0 <= fraction <= 1")
        if self._method.grow is None or self._method.drop is None:
            raise ValueError("update: this method exchanges nothing; give it `drop` and `grow`")
        self._refuse_masked(self._method, "update")
        self._requested = fraction

    def propose(self, method: Method | None = None) -> Proposal:
        """A dry run: what an update by this method (the engine's own, if None) would change now. Nothing changes.

        Call it where the gradients are dense: between the backward pass and the step of an update. With `off_mask`, anywhere;
        an update itself comes after the optimizer has moved.

        Raises:
            RuntimeError: the method needs a dense gradient and there is none.
            ValueError: a method of another structure.
        """
        method = self._method if method is None else method
        if method.structure.unit != self._method.structure.unit or method.structure.group != self._method.structure.group:
            raise ValueError("propose: the method's structure differs from the engine's, whose masks could not become it")
        refuse_unshardable(self._layers, method, self._seed)
        self._refuse_masked(method, "propose")
        if method.reads_gradient and all(layer.target.parameter.grad is None for layer in self._layers):
            raise RuntimeError("propose: this method reads gradients and there are none; call it after the backward pass")
        step = self._step + 1
        same = method.density == self._method.density and not callable(method.density)
        moment = Moment(
            step=step,
            update=self._updates + 1,
            seed=self._seed,
            rate=method.rate_at(step),
            density=None if same else method.density_at(step),
            prune_only=method.final_prune and method.last(step),
            dry=True,
        )
        with torch.no_grad():
            plans = plan(self._layers, inputs_of(self._layers, self._optimizer), method, moment)
        return Proposal({one.layer.name: one.dropped for one in plans}, {one.layer.name: one.grown for one in plans})

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training needs to go on bit for bit: tensors and plain values, masks as bits.

        Under FSDP2 the whole weights' masks, layer by layer gathered to the CPU: every rank must call it, and gets the same.
        """
        self._recover()
        return saving.state_of(self._layers, self._method, self._seed, self._step, self._updates, self._requested)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; model and optimizer may be loaded before or after.

        Raises:
            ValueError: masks of another model, naming the layer; nothing is changed then.
        """
        loaded = saving.checked(state, self._layers, self._method)
        self._recover()
        self._step, self._updates, self._requested, self._seed = loaded.step, loaded.updates, loaded.requested, loaded.seed
        self._masked.clear()
        for layer, saved in zip(self._layers, loaded.layers, strict=True):
            layer.mask.copy_(saved.mask)
            layer.explored.copy_(saved.explored)
            layer.counts = list(saved.counts)
            layer.active_here, layer.active_everywhere = saved.active_here, saved.active_everywhere
            layer.memory = {key: self._beside(layer, value) for key, value in saved.memory.items()}
        off_mask_step.take_up(self._layers, self._method, self._step)
        for layer, working in zip(self._layers, self._working, strict=True):
            if working is not layer.moving:
                working.copy_(layer.moving)
        self._clear()

    def detach(self) -> None:
        """Leave model and optimizer alone from now on. The weights keep their zeros, the engine its masks (and `off_mask`)."""
        self._recover()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for layer in self._layers:
            if engine_of(layer.target.parameter) is self:  # another one may have taken over after an earlier call
                del _ENGINES[id(layer.target.parameter)]

    def report(self) -> Report:
        """Density, exploration and dead rows and columns of every layer; under FSDP2, every rank must call it."""
        return make_report(self._layers, self._method, self._step, self._updates)

    # What torch calls.

    def _attach(self) -> None:
        self._clear()
        for index, layer in enumerate(self._layers):
            _ENGINES[id(layer.target.parameter)] = self
            hook = self._on_gradient(index)
            self._handles.append(layer.target.parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        self._handles.append(self._optimizer.register_step_pre_hook(self._before))
        self._handles.append(self._optimizer.register_step_post_hook(self._after))
        self._handles += watch_for_late_sharding(self, self._model, self._optimizer, self._layers, engine_of)

    def _on_gradient(self, index: int) -> Callable[[Tensor], None]:
        alive = weakref.ref(self)  # what a parameter's hooks hold is hidden from garbage collection, and would never be freed

        def hook(parameter: Tensor) -> None:
            engine = alive()
            if engine is None or engine._wants_dense():
                return
            if engine._brought_in and not engine._warned_of_failure:
                engine._warned_of_failure = True
                warnings.warn(
                    "the last optimizer.step() ended with an error and left weights off the mask in the model, which this "
                    "backward pass has seen; the next step puts them away, and so does engine.state_dict()",
                    stacklevel=2,
                )
            gradient = engine._layers[index].gradient
            if gradient is not None and parameter.grad is not None:
                gradient.mul_(engine._working[index])
                engine._masked[index] = (parameter.grad, parameter.grad._version)

        return hook

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._before_step()
            return None

        def closure_then_update() -> Any:
            with torch.enable_grad():
                loss = closure()
            self._before_step()
            return loss

        if len(args) > 1:
            return (args[0], closure_then_update, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_then_update}

    @torch.no_grad()
    def _before_step(self) -> None:
        """All that happens between the gradients and the optimizer."""
        check_parameters(self._model, self._layers)
        self._recover()
        if all(layer.target.parameter.grad is None for layer in self._layers):
            return
        step = self._step + 1
        comes = self._update_comes(step)
        if comes and self._step_will_be_skipped():
            return
        if comes and self._method.off_mask is None:
            self._update(step)
        else:
            if self._method.watches_every_step:
                self._watch(step)
            self._mask_gradients(those_not_yet_masked=True)
        if self._method.off_mask is not None:
            off_mask_step.bring_in(self._layers, self._working, self._optimizer, self._method, step)
            self._brought_in = True
        self._step = step

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._masked.clear()
        if self._brought_in:
            off_mask_step.take_out(self._layers, self._working, optimizer)
            self._brought_in = False
            if self._update_comes(self._step):
                self._update(self._step)
        elif not stays_zero(optimizer):
            self._clear()

    # How it is done.

    @torch.no_grad()
    def _recover(self) -> None:
        """After a step that ended with an error: zeros off the mask again. The engine has the values as they were before it."""
        if self._brought_in:
            self._brought_in = self._warned_of_failure = False
            self._clear()

    def _update(self, step: int) -> None:
        method, requested = self._method, self._requested
        refuse_ranks_that_differ(self._layers, step, self._updates, self._seed, requested)
        scheduled = method.due(step)
        moment = Moment(
            step=step,
            update=self._updates + 1,
            seed=self._seed,
            rate=method.rate_at(step) if requested is None else requested,
            density=method.density_at(step) if scheduled and callable(method.density) else None,
            prune_only=scheduled and method.final_prune and method.last(step),
        )
        live = [index for index, layer in enumerate(self._layers) if layer.target.parameter.requires_grad]
        inputs = inputs_of(self._layers, self._optimizer)
        self._warn_of_missing(inputs)
        plans = plan([self._layers[index] for index in live], [inputs[index] for index in live], method, moment)
        by_name = {layer.name: (index, inputs[index]) for index, layer in enumerate(self._layers)}
        for one in plans:
            index, given = by_name[one.layer.name]
            state = self._optimizer.state.get(one.layer.target.parameter)
            commit(one, given, state, self._working[index], method, moment)
        self._updates, self._requested = self._updates + 1, None
        if method.on_update == "skip":
            held = {id(parameter) for group in self._optimizer.param_groups for parameter in group["params"]}
            for parameter in self._model.parameters():
                if id(parameter) in held:
                    parameter.grad = None
        elif method.off_mask is None:
            self._mask_gradients(those_not_yet_masked=False)

    def _watch(self, step: int) -> None:
        """Show the dense gradient to the scores that average over time."""
        moment = Moment(step=step, update=self._updates + 1, seed=self._seed, rate=0.0, density=None)
        found_inf = getattr(self._optimizer, "found_inf", None)
        for layer, given in zip(self._layers, inputs_of(self._layers, self._optimizer), strict=True):
            if given.gradient is None:
                continue
            before = dict(layer.memory)
            for score in (self._method.drop, self._method.grow, self._method.share):
                if score is not None and watches_every_step(score):
                    score(given.weight, given.gradient, context_of(layer, given, moment, "watch"))
            if found_inf is None:
                continue
            skipped = found_inf.to(given.gradient.device) > 0  # by a fused optimizer: not read here, but not averaged either
            for key, value in layer.memory.items():
                if value.shape == layer.mask.shape:
                    layer.memory[key] = torch.where(skipped, before.get(key, torch.zeros_like(value)), value)

    def _wants_dense(self) -> bool:
        return self._method.off_mask is None and (self._method.watches_every_step or self._update_comes(self._step + 1))

    def _update_comes(self, step: int) -> bool:
        return self._requested is not None or self._method.due(step)

    def _mask_gradients(self, those_not_yet_masked: bool) -> None:
        for index, (layer, working) in enumerate(zip(self._layers, self._working, strict=True)):
            gradient = layer.target.parameter.grad
            masked, version = self._masked.get(index, (None, 0))
            done = gradient is None or (masked is gradient and version == gradient._version)  # nobody has written to it since
            here = None if those_not_yet_masked and done and layer.shard is None else layer.gradient
            if here is not None:
                here.mul_(working)

    def _step_will_be_skipped(self) -> bool:
        """Whether a fused optimizer has been told to do nothing in this step (read in the steps of an update only)."""
        found_inf = getattr(self._optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf.sum().tolist())

    def _refuse_masked(self, method: Method, call: str) -> None:
        dense = any(needs_gradient(score) for score in (method.grow, method.share))
        dense |= bool(getattr(method.grown_value, "needs_gradient", False))
        pending = any(self._layers[index].target.parameter.grad is grad for index, (grad, _) in self._masked.items())
        if dense and pending:
            raise RuntimeError(
                f"{call}: the gradients of the coming step are already masked, and this method needs them dense; call it "
                "before the backward pass" + (", or in the step of an update" if call == "propose" else "")
            )

    def _warn_of_missing(self, inputs: Sequence[LayerInput]) -> None:
        if not self._method.reads_gradient:
            return
        for layer, given in zip(self._layers, inputs, strict=True):
            if given.gradient is None and layer.name not in self._left_out:
                self._left_out.add(layer.name)
                warnings.warn(
                    f"{layer.name} has no gradient in the step of an update: its links stay as they are", stacklevel=2
                )

    @torch.no_grad()
    def _clear(self) -> None:
        """Zero the weight off the mask, and the optimizer's state of what does not move."""
        for layer in self._layers:
            parameter, weight = layer.target.parameter, layer.weight
            weight.copy_(torch.where(layer.mask, weight, torch.zeros((), dtype=weight.dtype, device=weight.device)))
            state = self._optimizer.state.get(parameter)
            if state:
                clear_off_mask(state, parameter, layer.moving)

    @staticmethod
    def _beside(layer: SparseLayer, value: Tensor) -> Tensor:
        return value.to(layer.mask.device) if value.shape == layer.mask.shape else value.clone()


def _working_mask(layer: SparseLayer) -> Tensor:
    """What gradients are multiplied with: on a CPU numbers are several times faster than bools, at their own size a weight."""
    return layer.moving if layer.mask.device.type != "cpu" else layer.moving.to(layer.target.parameter.dtype)
