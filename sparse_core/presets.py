"""Published methods, each a `Method` of a few words. Any field can be given by keyword: `RigL(..., structure=...)`.

docs/sparsity.md lists where each differs from its paper's code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparse_core import layout, scores
from sparse_core.method import Method, normal
from sparse_core.schedules import Constant, Cosine, Cubic, Schedule, SoftBound


def Static(density: float | Schedule | None, **fields: Any) -> Method:
    """Random links that never change."""
    return replace(Method(density=density, drop=None, layout=layout.erk()), **fields)


def SET(density: float | None, end: int | None, every: int, rate: float = 0.3, **fields: Any) -> Method:
    """Sparse evolutionary training (Mocanu et al. 2018): the weakest of each sign go, random ones come, at N(0, 0.1**2)."""
    method = Method(
        density=density,
        layout=layout.er() if density is not None else layout.epsilon(20),
        drop=scores.signed,
        grow=scores.random,
        rate=Constant(rate),
        every=every,
        end=end,
        grown_value=normal(0.1),
    )
    return replace(method, **fields)


def RigL(density: float, end: int, every: int = 100, rate: float = 0.3, **fields: Any) -> Method:
    """The rigged lottery (Evci et al. 2020): the smallest weights go, those with the largest gradients come."""
    method = Method(
        density=density,
        layout=layout.erk(),
        drop=scores.magnitude,
        grow=scores.gradient,
        rate=Cosine(rate),
        every=every,
        end=end,
    )
    return replace(method, **fields)


def ITOP(density: float, end: int | None, every: int, rate: float = 0.3, **fields: Any) -> Method:
    """In-time over-parameterisation (Liu et al. 2021): SET that tries links which were never active first."""
    return replace(SET(density, end, every, rate, grow=scores.unfired, layout=layout.erk(), grown_value=0.0), **fields)


def SNFS(density: float, end: int, every: int, rate: float = 0.5, **fields: Any) -> Method:
    """Sparse networks from scratch (Dettmers and Zettlemoyer 2019): growth by momentum, shared out between layers by it."""
    return replace(RigL(density, end, every, rate, grow=scores.momentum, share=scores.momentum), **fields)


def MEST(
    density: float, end: int, every: int, rate: float = 0.3, lam: float = 1.0, soft: float | None = None, **fields: Any
) -> Method:
    """Memory-economic sparse training (Yuan et al. 2021): |w| + lam |g| says what goes, random ones come (EM).

    Args:
        soft: how far the density may exceed its bound between updates (EM&S); it is exact at `end`.
    """
    method = Method(
        density=density if soft is None else SoftBound(density, soft),
        drop=scores.mest(lam),
        grow=scores.random,
        rate=Constant(rate),
        every=every,
        end=end,
    )
    return replace(method, **fields)


def GMP(density: float, end: int, every: int, initial: float = 1.0, **fields: Any) -> Method:
    """Gradual magnitude pruning (Zhu and Gupta 2017), over all layers together: the density falls, nothing grows."""
    method = Method(
        density=Cubic(initial, density), layout=layout.erk(), drop=scores.magnitude, every=every, end=end, scope="global"
    )
    return replace(method, **fields)


def GraNet(density: float, end: int, every: int, initial: float = 0.5, rate: float = 0.5, **fields: Any) -> Method:
    """Gradual pruning with neuroregeneration (Liu et al. 2021): GMP, and RigL's exchange within each layer."""
    return replace(GMP(density, end, every, initial, grow=scores.gradient, rate=Cosine(rate), scope="shrink"), **fields)
