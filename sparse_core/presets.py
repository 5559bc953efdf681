"""Published methods, each a `Method` of a few words. Any field can be given by keyword: `RigL(..., structure=...)`.

A `rate` is a number or a schedule; RigL, SNFS and GraNet let a number fall along a cosine, the others keep it.
docs/sparsity.md lists where each differs from its paper's code.
"""

from __future__ import annotations

from typing import Any

from sparse_core import layout, network_scores, scores
from sparse_core.constant_fan_in import ConstantFanIn
from sparse_core.method import Method, normal
from sparse_core.off_mask import OffMask
from sparse_core.sampling import sampled
from sparse_core.schedules import Cosine, Cubic, Linear, Schedule, SoftBound
from sparse_core.scores import Score
from sparse_core.structure import Structure
from sparse_core.targets import Pattern
from sparse_core.threshold import Threshold

_COOLING = Linear(1.0, 3.0)  # CHTs: from draws in proportion to the importance to draws in proportion to its cube


def _method(fields: dict[str, Any], **defaults: Any) -> Method:
    return Method(**{**defaults, **fields})


def _falling(rate: float | Schedule) -> Schedule:
    """A number as the start of a cosine that ends at 0; a schedule as it is."""
    return rate if callable(rate) else Cosine(rate)


def Static(density: float | Schedule | None, **fields: Any) -> Method:
    """Random links that never change."""
    return _method(fields, density=density, drop=None)


def SET(density: float | None, end: int | None, every: int, rate: float | Schedule = 0.3, **fields: Any) -> Method:
    """Sparse evolutionary training (Mocanu et al. 2018): the weakest of each sign go, random ones come, at N(0, 0.1**2).

    Without a density, the layout is the paper's: epsilon (n_in + n_out) links per layer, epsilon = 20.
    """
    structure = fields.get("structure", Structure())
    own_layout = None if structure.grouping.same_everywhere else layout.er()
    return _method(
        fields,
        density=density,
        layout=layout.epsilon(20) if density is None else own_layout,
        drop=scores.signed,
        grow=scores.random,
        rate=rate,
        every=every,
        end=end,
        grown_value=normal(0.1),
    )


def RigL(density: float, end: int, every: int = 100, rate: float | Schedule = 0.3, **fields: Any) -> Method:
    """The rigged lottery (Evci et al. 2020): the smallest weights go, those with the largest gradients come."""
    return _method(
        fields, density=density, drop=scores.magnitude, grow=scores.gradient, rate=_falling(rate), every=every, end=end
    )


def ITOP(density: float, end: int | None, every: int, rate: float | Schedule = 0.3, **fields: Any) -> Method:
    """In-time over-parameterisation (Liu et al. 2021): SET that tries links which were never active first."""
    return SET(density, end, every, rate, **{"grow": scores.unfired, "layout": None, "grown_value": 0.0, **fields})


def SNFS(density: float, end: int, every: int, rate: float | Schedule = 0.5, **fields: Any) -> Method:
    """Sparse networks from scratch (Dettmers and Zettlemoyer 2019): growth by momentum, shared out between layers by it."""
    return RigL(density, end, every, rate, **{"grow": scores.momentum, "share": scores.momentum, **fields})


def MEST(
    density: float,
    end: int,
    every: int,
    rate: float | Schedule = 0.3,
    lam: float = 1.0,
    soft: float | None = None,
    **fields: Any,
) -> Method:
    """Memory-economic sparse training (Yuan et al. 2021): |w| + lam |g| says what goes, random ones come (EM).

    Args:
        soft: how far the density may exceed its bound between updates (EM&S); it is exact at `end`.
    """
    return _method(
        fields,
        density=density if soft is None else SoftBound(density, soft),
        drop=scores.mest(lam),
        grow=scores.random,
        rate=rate,
        every=every,
        end=end,
    )


def GMP(density: float, end: int, every: int, initial: float = 1.0, **fields: Any) -> Method:
    """Gradual magnitude pruning (Zhu and Gupta 2017), over all layers together: the density falls, nothing grows."""
    return _method(fields, density=Cubic(initial, density), drop=scores.magnitude, every=every, end=end, scope="global")


def GraNet(density: float, end: int, every: int, initial: float = 0.5, rate: float | Schedule = 0.5, **fields: Any) -> Method:
    """Gradual pruning with neuroregeneration (Liu et al. 2021): GMP, and RigL's exchange within each layer."""
    return GMP(density, end, every, initial, **{"grow": scores.gradient, "rate": _falling(rate), "scope": "shrink", **fields})


def CHT(
    density: float | Schedule,
    end: int | None,
    every: int,
    rate: float | Schedule = 0.3,
    importance: Score = scores.magnitude,
    **fields: Any,
) -> Method:
    """Cannistraci-Hebb training (Zhang et al. 2024): the least important links go, those that close most paths of three come.

    Args:
        importance: `scores.magnitude`, or `network_scores.relative_importance`.
    """
    grow = network_scores.ch3_l3_hard
    return _method(fields, density=density, drop=importance, grow=grow, rate=rate, every=every, end=end)


def CHTs(
    density: float | Schedule,
    end: int,
    every: int,
    rate: float | Schedule = 0.3,
    importance: Score = scores.magnitude,
    power: float | Schedule = _COOLING,
    **fields: Any,
) -> Method:
    """CHT by the soft rule (Zhang et al. 2025): what stays and what comes is drawn, in proportion to importance and paths.

    Args:
        importance: see `CHT`.
        power: of the importance in these proportions: 1 + 2 t / end, the temperature of the paper's code.
    """
    drop, grow = sampled(importance, power, end), network_scores.ch3_l3_soft
    return _method(fields, density=density, drop=drop, grow=grow, rate=rate, every=every, end=end)


def SRigL(
    density: float,
    end: int,
    every: int = 100,
    rate: float | Schedule = 0.3,
    ablate: float | None = 0.3,
    spare: tuple[Pattern, ...] | None = None,
    **fields: Any,
) -> Method:
    """Structured RigL (Lasby et al. 2024): every neuron has equally many links, and those with few salient ones are ablated.

    Args:
        ablate: the share of the fan-in that must be salient for a neuron to stay; None: all stay.
        spare: layers whose neurons all stay; None: the last sparse layer. See `ConstantFanIn`.
    """
    rows = {"structure": Structure(group="row"), "fan_in": ConstantFanIn(ablate, spare)}
    return RigL(density, end, every, rate, **{**rows, **fields})


def DSR(
    density: float,
    end: int,
    every: int = 100,
    rate: float | Schedule = 0.1,
    threshold: float | Threshold = 1e-3,
    tolerance: float = 0.1,
    **fields: Any,
) -> Method:
    """Dynamic sparse reparameterization (Mostafa and Wang 2019): weights below a threshold that is one for all layers go,
    and random links come, to the layers in proportion to the links that they have left.

    Args:
        rate: the share of links that should go in an update; the threshold is doubled or halved for it.
        threshold: the first one; or a `Threshold`, with a tolerance of its own.
        tolerance: how far from `rate` it is left as it is; see `Threshold`.
    """
    return _method(
        fields,
        density=density,
        layout=layout.uniform(),
        drop=scores.magnitude,
        grow=scores.random,
        rate=rate,
        every=every,
        end=end,
        scope="global",
        share=scores.survivors,
        threshold=threshold if isinstance(threshold, Threshold) else Threshold(threshold, tolerance),
    )


def TopKAST(
    density: float | Schedule | None,
    end: int | None = None,
    every: int = 1,
    backward: float | None = None,
    penalty: float = 1e-4,
    decoupled: bool = False,
    **fields: Any,
) -> Method:
    """Top-KAST (Jayakumar et al. 2020): the largest weights are the links; some that are smaller train on off the mask.

    Args:
        end: the last update; exploration ends with it. None: it goes on.
        backward: the share of weights that get gradients, links included; twice the density, if None.
        penalty: of the exploration regularisation: L2 on links, L2 / density on what trains off the mask.
        decoupled: the penalty as decoupled decay.
    """
    off_mask = OffMask(backward, penalty, decoupled=decoupled)
    return _largest(fields, density=density, end=end, every=every, off_mask=off_mask)


def SRSTE(
    density: float | Schedule | None = 0.5,
    end: int | None = None,
    every: int = 1,
    penalty: float = 2e-4,
    decoupled: bool = False,
    **fields: Any,
) -> Method:
    """SR-STE (Zhou et al. 2021): N:M of the largest weights, 2:4 by default; all others train on off the mask and are decayed.

    Args:
        end: the last update, from which on links are fixed and the others rest. None: there is none.
        penalty: lambda, of the sparse-refined term: lambda w joins the gradients off the mask.
        decoupled: that term as decoupled decay.
    """
    off_mask = OffMask(1.0, 0.0, penalty, decoupled)
    return _largest(fields, density=density, end=end, every=every, off_mask=off_mask, structure=Structure(group=4))


def _largest(fields: dict[str, Any], **defaults: Any) -> Method:
    """The largest weights, on and off the mask, are the links; every layer has the same density."""
    return _method(fields, layout=layout.uniform(), drop=scores.magnitude, grow=scores.magnitude, rate=1.0, **defaults)
