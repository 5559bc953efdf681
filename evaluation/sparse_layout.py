"""Which weights of a predictor become sparse, and a predictor made sparse as a sparse training begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

import sparse_core
from limtr.encoder import LocalAttention
from limtr.predictor import MotionPredictor
from sparse_core.targets import matching


def with_packed(model: MotionPredictor, patterns: Sequence[str]) -> list[str]:
    """The patterns, and the full names of the packed attention projections that they match.

    Those are bare parameters of `LocalAttention`, which `sparsify` makes sparse only when they are named in full.
    """
    packed = [f"{name}.in_proj_weight" for name, module in model.named_modules() if isinstance(module, LocalAttention)]
    linear = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found: list[str] = []
    for pattern in patterns:
        also = matching(pattern, packed)
        # A pattern that matches nothing at all goes on to `sparsify`, which names near ones.
        found += [pattern] * (bool(matching(pattern, linear)) or not also) + also
    return list(dict.fromkeys(found))


def make_sparse(model: MotionPredictor, density: float, include: Sequence[str], *, seed: int) -> None:
    """Leave random links, spread over layers as sparse trainings spread them; in place.

    To measure costs: what the model predicts afterwards is worth nothing.

    Args:
        model: with parameters that ask for gradients, as it comes from a file or its configuration.
        density: active share of the matched weights together.
        include: globs over names of parameters or modules.
        seed: of the links.

    Raises:
        ValueError: the density is not in (0, 1], or a pattern matches nothing.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine = sparse_core.sparsify(model, optimizer, sparse_core.Static(density), include=with_packed(model, include), seed=seed)
    engine.detach()
