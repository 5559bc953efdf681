"""Trainings with weights off the mask, and all that can be seen of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sparse_core
from sparse_core import Method
from tests.sparse_core.small_trainings import Training, batches, copied, mlp, training

DATA = batches(12, 8, 8, 4)
DOUBLE = batches(12, 8, 8, 4, torch.float64)
KAST, STE = sparse_core.TopKAST(0.25, every=2, penalty=0.01), sparse_core.SRSTE(0.5, penalty=0.01)
METHODS = pytest.mark.parametrize("method", [KAST, STE], ids=["Top-KAST", "SR-STE"])


def started(method: Method, optimizer: str = "Adam", dtype: torch.dtype = torch.float32, **options: Any) -> Training:
    return training(mlp(8, 16, 4, dtype=dtype), method, optimizer, **options)


def everything(run: Training) -> dict[str, Tensor]:
    weights = {f"dense {name}": value for name, value in run.engine.dense_weights().items()}
    return copied({**weights, **run.engine.masks, **{f"model {name}": p for name, p in run.model.named_parameters()}})


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-12) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key].double(), b[key].double(), rtol=0, atol=tolerance) for key in a)
