"""Weights off the mask that live on beside the model: which of them the optimizer moves, and what pulls on them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class OffMask:
    """How weights off the mask go on: Top-KAST (Jayakumar et al. 2020) and SR-STE (Zhou et al. 2021) are two settings of it.

    The optimizer moves the links and the largest weights off the mask, with the gradient that the loss has for them where the
    model has zeros. The rest stays as it is. Between steps the model has zeros off the mask; the engine holds the values.

    Attributes:
        backward: the share of all weights that the optimizer moves, links included, in [density, 1]. None: twice the density.
        penalty: the factor of an L2 penalty on links: w times this joins their gradient.
        idle_penalty: the same for weights off the mask that move. None: `penalty` / density (Top-KAST).
        decoupled: instead of joining the gradient, the penalty takes lr * factor * w from the weight (as AdamW's decay).

    Raises:
        ValueError: a value out of range, with the field's name.
    """

    backward: float | None = None
    penalty: float = 0.0
    idle_penalty: float | None = None
    decoupled: bool = False

    def __post_init__(self) -> None:
        if self.backward is not None and not 0 < self.backward <= 1:
            raise ValueError(f"OffMask.backward is {self.backward}: expected a share of the weights in (0, 1]")
        for name, value in (("penalty", self.penalty), ("idle_penalty", self.idle_penalty)):
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"OffMask.{name} is {value}: expected a factor from 0")

    def share(self, density: float) -> float:
        """The share of the weights off the mask that move, at a density of links; every layer has the same."""
        backward = min(1.0, 2 * density) if self.backward is None else self.backward
        return 1.0 if density >= 1 or backward >= 1 else (backward - density) / (1 - density)

    def factors(self, density: float) -> tuple[float, float]:
        """The penalty's factor on links, and on weights off the mask that move."""
        return self.penalty, self.penalty / density if self.idle_penalty is None else self.idle_penalty


@dataclass(eq=False)
class OffMaskWeights:
    """What an engine holds of a layer besides its mask, in the weight's shape.

    Attributes:
        values: the weights off the mask, in the weight's type; zero on links and where none is allowed.
        links: the mask; as numbers on a CPU, where products with bools take several times longer.
        moving: bool, what the optimizer moves: the links and some or all of the others.
        all_move: whether it is known that these are all that may exist.
        counts: links per group, on the host and beside the weight, where that was asked for.
    """

    values: Tensor
    links: Tensor
    moving: Tensor
    all_move: bool = False
    counts: tuple[list[int], Tensor] | None = None
