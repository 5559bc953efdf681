"""Options of sparse training: which method of `sparse_core`, how many links, in which parts of the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from torch import nn

import sparse_core
from sparse_core import Method, Structure

StartName = Literal["random", "magnitude"]
MethodName = Literal[
    "static", "set", "rigl", "itop", "snfs", "mest", "gmp", "granet", "srigl", "dsr", "cht", "chts", "top-kast", "sr-ste"
]


def _of_the_heads(name: str, parameter: nn.Parameter) -> bool:
    """Whether a weight belongs to a head: a prediction without one of its numbers is none."""
    heads = ("decoder.regression_heads.", "decoder.score_heads.", "decoder.dense_future.", "encoder.lidar_side_head.")
    return name.startswith(heads)


_GRANET_START = 0.5
_DYNAMIC: Mapping[str, Callable[..., Method]] = {
    "set": sparse_core.SET,
    "rigl": sparse_core.RigL,
    "itop": sparse_core.ITOP,
    "snfs": sparse_core.SNFS,
    "mest": sparse_core.MEST,
    "gmp": sparse_core.GMP,
    "granet": partial(sparse_core.GraNet, initial=_GRANET_START),
    "cht": sparse_core.CHT,
    "chts": sparse_core.CHTs,
    "srigl": partial(sparse_core.SRigL, spare=(_of_the_heads,)),
    "dsr": sparse_core.DSR,
    "top-kast": sparse_core.TopKAST,
    "sr-ste": sparse_core.SRSTE,
}
_OWN_START = {"gmp": "all of them", "top-kast": "the largest weights", "sr-ste": "the largest weights"}
_FALLING = ("rigl", "snfs", "srigl")
"""Methods that do nothing but exchange links, at a rate that falls to 0."""
_MOVING = {"snfs": "layers", "gmp": "layers", "granet": "layers", "dsr": "layers", "srigl": "rows"}
"""Methods whose links move between layers or rows, so that groups of inputs cannot keep their numbers."""


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """How a model is sparse while it is trained; it is part of the recipe and must be the same on resume."""

    method: MethodName
    density: float
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    parts: tuple[str, ...]
    every: int
    rate: float | None
    until: float
    scale_weights: bool
    group: int
    backward: float | None
    start: StartName

    def __post_init__(self) -> None:
        """Validate."""
        if not 0.0 < self.density <= 1.0:
            raise ValueError(f"sparsity.density must be above 0 and at most 1, is {self.density}")
        if self.every < 1:
            raise ValueError(f"sparsity.every must be at least 1 optimizer step, is {self.every}")
        if not 0.0 < self.until <= 1.0:
            raise ValueError(f"sparsity.until must be above 0 and at most 1 (the whole training), is {self.until}")
        if self.rate is not None and not 0.0 <= self.rate < 1.0:
            raise ValueError(f"sparsity.rate must be at least 0 and below 1, is {self.rate}")
        if not self.include:
            raise ValueError("sparsity.include names no weights; '*' stands for all")
        if self.rate is not None and self.method in ("static", "gmp"):
            raise ValueError(f"sparsity.rate says how many links are exchanged, and {self.method} exchanges none: leave it out")
        if self.group < 1:
            raise ValueError(f"sparsity.group must be at least 1 neighbouring input, is {self.group}")
        for density in (self.density, *self.part_densities().values()):
            if self.group > 1 and abs(density * self.group - round(density * self.group)) > 1e-9:
                raise ValueError(f"sparsity.group: a density of {density} is no whole number of every {self.group} inputs")
        if self.group > 1 and self.method in _MOVING:
            others = ", ".join(name for name in get_args(MethodName) if name not in _MOVING)
            raise ValueError(
                f"sparsity.group keeps the links of every {self.group} inputs in number, and {self.method} moves links between "
                f"{_MOVING[self.method]}: leave it out, or choose one of {others}"
            )
        if self.method == "granet" and self.density > _GRANET_START:
            raise ValueError(
                f"sparsity.density: granet begins with {_GRANET_START} of the links and prunes them, so the density must be at "
                f"most that, is {self.density}; gmp begins with all"
            )
        if self.scale_weights and self.method == "gmp":
            raise ValueError("sparsity.scale-weights is for few links, and gmp begins with all of them: leave it out")
        if self.backward is not None and self.method != "top-kast":
            raise ValueError(f"sparsity.backward is of top-kast, and the method is {self.method}: leave it out")
        if self.backward is not None and not self.density <= self.backward <= 1.0:
            raise ValueError(f"sparsity.backward must be from the density {self.density} to 1, is {self.backward}")
        if self.start == "magnitude" and self.method in _OWN_START:
            raise ValueError(
                f"sparsity.start chooses the first links, and {self.method} begins with {_OWN_START[self.method]}: leave it out"
            )

    @property
    def draws_links(self) -> bool:
        """Whether the first links are drawn at random, whatever the weights are."""
        return self.start == "random" and self.method not in _OWN_START and self.density < 1.0

    def part_densities(self) -> dict[str, float]:
        """`parts` as densities by pattern.

        Raises:
            ValueError: one is no PATTERN=DENSITY, or a pattern comes twice.
        """
        found: dict[str, float] = {}
        for text in self.parts:
            pattern, equals, number = text.rpartition("=")
            try:
                density = float(number)
            except ValueError:
                density = float("nan")
            if not equals or not pattern or not 0.0 < density <= 1.0:
                raise ValueError(f"sparsity.parts: {text!r} is no PATTERN=DENSITY such as 'decoder.*=0.5', density in (0, 1]")
            if pattern in found:
                raise ValueError(f"sparsity.parts: the pattern {pattern!r} comes twice")
            found[pattern] = density
        return found

    def as_method(self, total_steps: int) -> Method:
        """The method of `sparse_core` for a training of so many optimizer steps.

        Raises:
            ValueError: the training is too short for a single update, or for one that exchanges anything.
        """
        given: dict[str, Any] = {} if self.rate is None else {"rate": self.rate}
        if self.group > 1:
            given["structure"] = Structure(group=self.group)
        elif self.method == "sr-ste":
            given["structure"] = Structure()  # by itself, it is N:M of 4
        if self.backward is not None:
            given["backward"] = self.backward
        if self.method == "static":
            return sparse_core.Static(self.density, **given)
        end = int(self.until * total_steps)
        if end < self.every:
            raise ValueError(
                f"sparsity: the first update is due at step {self.every}, but links are fixed from step {end} of {total_steps}"
                " on; lower --sparsity.every, raise --sparsity.until, or train longer"
            )
        if self.method in _FALLING and end < 2 * self.every:
            raise ValueError(
                f"sparsity: the rate of {self.method} falls to 0 at its last update, and of {total_steps} steps only step "
                f"{self.every} has one, so that no link would change; lower --sparsity.every, raise --sparsity.until, or train "
                "longer"
            )
        return _DYNAMIC[self.method](density=self.density, end=end, every=self.every, **given)


DEFAULTS: Mapping[str, Any] = {
    "density": 0.3, "include": ("encoder.*",), "exclude": (), "parts": (), "every": 20, "rate": None, "until": 0.75,
    "scale_weights": False, "group": 1, "backward": None, "start": "random",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SparsityOptions:
    """Sparse training (docs/sparsity.md). What is left out is the preset's."""

    method: MethodName | Literal["dense"] | None = None
    """Method of sparse_core that chooses the links; dense: no sparse training."""
    density: float | None = None
    """Share of the weights that are active, over all layers that become sparse (at the end, where it falls) [default: 0.3]."""
    include: tuple[str, ...] | None = None
    """Which weights become sparse: globs over names of parameters or modules [default: 'encoder.*']; '*' for all."""
    exclude: tuple[str, ...] | None = None
    """Which of them stay dense."""
    parts: tuple[str, ...] | None = None
    """Densities of single parts, such as 'decoder.agent_layers.*=0.2'; they leave the total, and of several that match a weight
    the first counts."""
    every: int | None = None
    """Optimizer steps between updates of the links [default: 20]."""
    rate: float | None = None
    """Share of the links that an update exchanges [default: the method's]."""
    until: float | None = None
    """Share of the training after which links stay as they are [default: 0.75]."""
    scale_weights: bool | None = None
    """Scale the initial weights to the number of links of each output."""
    group: int | None = None
    """Every so many neighbouring inputs have the same number of links: with a density of 0.5, 4 is 2:4 [default: 1, free]."""
    backward: float | None = None
    """Share of the weights that train, links included; of top-kast [default: twice the density]."""
    start: StartName | None = None
    """The first links: random, or the largest weights of each layer (magnitude: where --init-from gives trained weights)
    [default: random]."""

    def resolved(self, preset: Sparsity | None) -> Sparsity | None:
        """The preset's sparsity with these options in its place; None for a dense training.

        Raises:
            ValueError: options are given, but no method.
        """
        given = {name: getattr(self, name) for name in DEFAULTS if getattr(self, name) is not None}
        if (self.method is None and preset is None) or self.method == "dense":
            if given:
                names = ", ".join(f"--sparsity.{name.replace('_', '-')}" for name in given)
                raise ValueError(f"{names}: the training is dense; name a method (--sparsity.method rigl) or leave them out")
            return None
        values = {name: DEFAULTS[name] if preset is None else getattr(preset, name) for name in DEFAULTS}
        method = self.method or (preset.method if preset is not None else "rigl")
        unused = [f"--sparsity.{name}" for name in ("every", "until") if method == "static" and name in given]
        if unused:
            warnings.warn(f"{', '.join(unused)}: ignored, since the links of static never change", stacklevel=2)
        return Sparsity(method=method, **{**values, **given})
