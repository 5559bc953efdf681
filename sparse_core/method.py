"""Method: everything that makes one sparse training differ from another, in one frozen description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from sparse_core.constant_fan_in import ConstantFanIn
from sparse_core.hashed_random import normal_at, uniform_at
from sparse_core.layout import Layout, erk, uniform
from sparse_core.off_mask import OffMask
from sparse_core.schedules import Schedule, as_schedule
from sparse_core.scores import Context, Score, magnitude, needs_gradient, score_name, watches_every_step
from sparse_core.structure import Structure
from sparse_core.threshold import Threshold

GrownValue = Callable[[Tensor, Tensor, Tensor | None, Context], Tensor]
"""(flat positions, weights there, gradients there, context) -> the values at which links grown there begin."""


@dataclass(frozen=True)
class Method:
    """What is dropped, what is grown, when, and how much.

    Attributes:
        density: the share of allowed links that is active, in (0, 1], or a schedule of it; None where the layout decides.
        layout: how the links are spread over layers at the start, and by a density that changes. None: ERK, or uniform for
            N:M, whose density is the same in every layer.
        structure: which patterns are possible.
        drop: the links with the smallest scores go. None: nothing is dropped for being worse (and nothing is exchanged).
        grow: the links with the largest scores come. None: nothing is exchanged.
        rate: the share of active links that an update exchanges, in [0, 1), or a schedule of it.
        every: optimizer steps between updates. None: no updates but those asked for with `engine.update`.
        offset: updates come at the steps t >= offset with (t - offset) % every == 0.
        end: the last step that may have an update. None: they never end.
        scope: over what links are ranked to be dropped. "layer": each layer by itself. "shrink": what a falling density takes
            away is chosen over all layers together, exchanges stay in their layer (GraNet). "global": both are.
        grown_value: at which value a new link begins: a number, or a `GrownValue`.
        on_update: "step": the optimizer steps with the new links in an update too. "skip": it leaves the model alone then.
        final_prune: the last update drops and grows nothing.
        share: an update's growth goes to the layers in proportion to the mean of this score over their active links (SNFS);
            None: every layer regrows what it lost. `scores.survivors`: in proportion to the links that stay (DSR).
        fan_in: links are dropped over a whole layer, and rows that stay have equally many (SRigL). None: every group keeps its
            number.
        threshold: links below it are dropped, over all layers, so that `rate` of them go on the whole (DSR). None: the share is
            exact.
        off_mask: weights off the mask live on beside the model (Top-KAST, SR-STE). Updates then come at the end of their step,
            from the weights that it leaves, and a `rate` of 1 makes the best of all weights the links. None: zero for good.

    Raises:
        ValueError: a value out of range, with the field's name.
    """

    density: float | Schedule | None = None
    layout: Layout | None = None
    structure: Structure = field(default_factory=Structure)
    drop: Score | None = magnitude
    grow: Score | None = None
    rate: float | Schedule = 0.0
    every: int | None = None
    offset: int = 0
    end: int | None = None
    scope: Literal["layer", "shrink", "global"] = "layer"
    grown_value: float | GrownValue = 0.0
    on_update: Literal["step", "skip"] = "step"
    final_prune: bool = False
    share: Score | None = None
    fan_in: ConstantFanIn | None = None
    threshold: Threshold | None = None
    off_mask: OffMask | None = None

    def __post_init__(self) -> None:
        if self.layout is None:
            object.__setattr__(self, "layout", uniform() if self.structure.grouping.same_everywhere else erk())
        if self.density is None and not self.spread.sets_density:
            raise ValueError(f"Method.density is None, but the layout {self.spread.name} needs a density in (0, 1]")
        if self.density is not None and self.spread.sets_density:
            raise ValueError(f"Method.density is {self.density}, but the layout {self.spread.name} decides it: give None")
        if self.every is not None and self.every < 1:
            raise ValueError(f"Method.every is {self.every}: expected at least 1 optimizer step between updates")
        if self.offset < 0:
            raise ValueError(f"Method.offset is {self.offset}: expected a step number from 0")
        if self.end is not None and self.end < 1:
            raise ValueError(f"Method.end is {self.end}: expected a step number from 1, or None for updates without end")
        if self.scope not in ("layer", "shrink", "global"):
            raise ValueError(f"Method.scope is {self.scope!r}: expected layer, shrink or global")
        if self.on_update not in ("step", "skip"):
            raise ValueError(f"Method.on_update is {self.on_update!r}: expected step or skip")
        if self.final_prune and self.end is None:
            raise ValueError("Method.final_prune needs an `end`: without it there is no last update")
        if self.scope != "layer" and self.structure.grouping.name != "tensor":
            raise ValueError(
                f"Method.scope {self.scope!r} ranks links over layers, which fixed counts per {self.structure.grouping.name} "
                "do not allow: use scope='layer'"
            )
        if self.share is not None and self.structure.grouping.name != "tensor":
            raise ValueError("Method.share moves links between layers, which fixed counts per group do not allow")
        if self.fan_in is not None:
            self._check_fan_in()
        if self.threshold is not None and self.scope != "global":
            raise ValueError(f"Method.threshold is one number for all layers: give scope='global', not {self.scope!r}")
        if self.threshold is not None and (self.drop is None or self.grow is None):
            raise ValueError("Method.threshold says how many links are exchanged: give the method `drop` and `grow`")
        rates = [self.rate_at(step) for step in (0, 1, self.end or 1)]
        densities = [density for density in map(self.density_at, (0, 1, self.end or 1)) if density is not None]
        if self.drop is None and self.every is not None and densities and min(densities) < densities[0]:
            raise ValueError(f"Method.density falls from {densities[0]}, but Method.drop is None: say which links go")
        if self.grow is None and self.every is not None and densities and max(densities) > densities[0]:
            raise ValueError(f"Method.density rises from {densities[0]}, but Method.grow is None: say which links come")
        if self.drop is None and max(rates) > 0:
            raise ValueError("Method.rate exchanges links, but Method.drop is None: say which ones go")
        if self.off_mask is not None:
            self._check_off_mask(densities)

    def _check_off_mask(self, densities: Sequence[float]) -> None:
        assert self.off_mask is not None
        if not densities:
            raise ValueError(f"Method.off_mask needs a Method.density, and the layout {self.spread.name} decides it by itself")
        unsuited = {
            "drop": needs_gradient(self.drop),
            "grow": needs_gradient(self.grow),
            "scope": self.scope != "layer",
            "share": self.share is not None,
            "grown_value": self.grown_value != 0,
            "on_update": self.on_update != "step",
            "final_prune": self.final_prune,
        }
        for name in [name for name, wrong in unsuited.items() if wrong]:
            raise ValueError(
                f"Method.off_mask does not go with Method.{name} = {self.describe()[name]}: links are chosen by the weights "
                "that a step leaves, layer by layer, and begin where they were off the mask"
            )
        if self.off_mask.backward is not None and self.off_mask.backward < max(densities):
            raise ValueError(f"OffMask.backward is {self.off_mask.backward}, below the density of links {max(densities)}")

    def _check_fan_in(self) -> None:
        if self.structure.grouping.name != "row":
            raise ValueError(
                "Method.fan_in moves links between rows: it wants Structure(group='row'), not fixed counts per "
                f"{self.structure.grouping.name}"
            )
        if self.drop is None or self.grow is None:
            raise ValueError("Method.fan_in cuts rows and fills them: give the method `drop` and `grow`")
        if self.final_prune:
            raise ValueError("Method.fan_in fills rows in every update, the last one too: leave final_prune out")

    @property
    def spread(self) -> Layout:
        """The layout, the default resolved."""
        assert self.layout is not None
        return self.layout

    def density_at(self, step: int) -> float | None:
        """The density that an update at this step leaves behind."""
        if self.density is None:
            return None
        value = as_schedule(self.density)(self._scheduled(step), self.end)
        if not 0 < value <= 1:
            raise ValueError(f"Method.density is {value} at step {step}: expected 0 < density <= 1")
        return value

    def rate_at(self, step: int) -> float:
        """The share of active links that an update at this step exchanges."""
        if self.grow is None and not self.final_prune:
            return 0.0
        value = as_schedule(self.rate)(self._scheduled(step), self.end)
        if not 0 <= value < 1 and not (value == 1 and self.off_mask is not None):
            raise ValueError(f"Method.rate is {value} at step {step}: expected 0 <= rate < 1")
        return value

    def due(self, step: int) -> bool:
        """Whether step number `step` (from 1) has an update."""
        if self.every is None or step < max(1, self.offset) or (self.end is not None and step > self.end):
            return False
        return (step - self.offset) % self.every == 0

    def last(self, step: int) -> bool:
        """Whether the update at this step is the last one."""
        return self.end is not None and self.every is not None and self.due(step) and step + self.every > self.end

    def over(self, step: int) -> bool:
        """Whether no update is due after this step."""
        if self.every is None or self.end is None:
            return False
        following = self.offset if step < self.offset else step + self.every - (step - self.offset) % self.every
        return following > self.end

    @property
    def reads_gradient(self) -> bool:
        """Whether an update wants the dense gradient."""
        return any(needs_gradient(score) for score in (self.drop, self.grow, self.share))

    @property
    def watches_every_step(self) -> bool:
        """Whether the dense gradient of every step is wanted."""
        return any(watches_every_step(score) for score in (self.drop, self.grow, self.share))

    @property
    def moves_between_layers(self) -> bool:
        """Whether a layer's number of links may change though the density does not."""
        return self.scope != "layer" or self.share is not None

    def describe(self) -> dict[str, Any]:
        """The method in plain words and numbers: for saved states and reports."""
        return {
            "density": repr(self.density),
            "layout": self.spread.name,
            "structure": f"{self.structure.unit} per {self.structure.grouping.name}",
            "drop": score_name(self.drop),
            "grow": score_name(self.grow),
            "rate": repr(self.rate),
            "every": repr(self.every),
            "offset": repr(self.offset),
            "end": repr(self.end),
            "scope": self.scope,
            "grown_value": repr(self.grown_value) if not callable(self.grown_value) else self.grown_value.__name__,
            "on_update": self.on_update,
            "final_prune": repr(self.final_prune),
            "share": score_name(self.share),
            "fan_in": "none" if self.fan_in is None else str(self.fan_in),
            "threshold": "none" if self.threshold is None else repr(self.threshold),
            "off_mask": "none" if self.off_mask is None else repr(self.off_mask),
        }

    def _scheduled(self, step: int) -> int:
        """The step at which schedules are read: the last update, wherever it falls, has the values of the end."""
        return self.end if self.end is not None and self.last(step) else step


def normal(std: float) -> GrownValue:
    """Grown links begin at N(0, std**2), hashed (SET: 0.1)."""

    def grown_value(index: Tensor, weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        return normal_at(index, context.key("grown")) * std

    grown_value.__name__ = f"normal({std})"
    return grown_value


def uniform_within(bound: float) -> GrownValue:
    """Grown links begin uniformly in [-bound, bound), hashed."""

    def grown_value(index: Tensor, weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        return (uniform_at(index, context.key("grown")) * 2 - 1) * bound

    grown_value.__name__ = f"uniform({bound})"
    return grown_value


def gradient_step(scale: float = 1.0) -> GrownValue:
    """Grown links begin where one step of plain gradient descent would put them: -scale * lr * g (RigL's grad_scale)."""

    def grown_value(index: Tensor, weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        if gradient is None:
            raise RuntimeError(f"{context.name}: gradient_step needs the dense gradient of an update step")
        rate: Tensor | float = -scale * context.options["lr"]
        return gradient * rate

    grown_value.__name__ = f"gradient_step({scale})"
    grown_value.needs_gradient = True  # type: ignore[attr-defined]
    return grown_value


def resolve_density(
    method: Method, density: float | Mapping[str, float] | None
) -> tuple[float | Schedule | None, dict[str, float]]:
    """`sparsify`'s density argument: (the method's density or its replacement, densities by name pattern).

    Raises:
        ValueError: a density outside of (0, 1].
    """
    values = density.values() if isinstance(density, Mapping) else [] if density is None else [density]
    for value in values:
        if not 0 < value <= 1:
            raise ValueError(f"density is {value}: expected 0 < density <= 1")
    if isinstance(density, Mapping):
        return method.density, dict(density)
    return (method.density if density is None else density), {}
