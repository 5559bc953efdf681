"""Models of a few weights, their data, and the loop that trains them: what the contract's tests have in common."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import sparse_core
from sparse_core import Method, SparseEngine

PRESETS: dict[str, Callable[..., Method]] = {
    "Static": lambda density, **_: sparse_core.Static(density),
    "SET": sparse_core.SET,
    "RigL": sparse_core.RigL,
    "ITOP": sparse_core.ITOP,
    "SNFS": sparse_core.SNFS,
    "MEST": sparse_core.MEST,
    "MEST-soft": lambda **fields: sparse_core.MEST(soft=0.1, **fields),
    "GMP": sparse_core.GMP,
    "GraNet": sparse_core.GraNet,
    "CHT": sparse_core.CHT,
    "CHTs": sparse_core.CHTs,
    "SRigL": sparse_core.SRigL,
    "DSR": sparse_core.DSR,
    "Top-KAST": sparse_core.TopKAST,
    "SR-STE": lambda **fields: sparse_core.SRSTE(**fields, structure=sparse_core.Structure()),
}


def preset(name: str, density: float = 0.3, end: int = 100, every: int = 2, **fields: object) -> Method:
    """A preset with short periods; other fields replace its own."""
    return replace(PRESETS[name](density=density, end=end, every=every), **fields)


def mlp(*widths: int, seed: int = 0, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU (and dropout) in between; the weights are `0.weight`, `2.weight`, ... (3 apart with dropout)."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, dtype=dtype), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers[: -2 if dropout else -1])


def batches(
    number: int, size: int, inputs: int, outputs: int, dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    """Regression batches: a fixed dense linear map, some of whose inputs do not matter, and noise."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(inputs, outputs, generator=generator, dtype=dtype)
    truth[inputs // 2 :] = 0
    found = []
    for _ in range(number):
        x = torch.randn(size, inputs, generator=generator, dtype=dtype)
        found.append((x, x @ truth + 0.1 * torch.randn(size, outputs, generator=generator, dtype=dtype)))
    return found


def backward(model: nn.Module, batch: tuple[Tensor, Tensor], share: float = 1.0) -> Tensor:
    loss = nn.functional.mse_loss(model(batch[0]), batch[1])
    (loss * share).backward()
    return loss.detach()


@dataclass
class Training:
    """A model with optimizer and engine, step by step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    engine: SparseEngine

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.optimizer.zero_grad()
        loss = backward(self.model, batch)
        self.optimizer.step()
        return loss


def training(model: nn.Module, method: Method, optimizer: str = "SGD", seed: int = 0, **options: object) -> Training:
    options = {"lr": 0.05, **({"momentum": 0.9} if optimizer == "SGD" else {}), **options}
    made = getattr(torch.optim, optimizer)(model.parameters(), **options)
    return Training(model, made, sparse_core.sparsify(model, made, method, seed=seed))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def through_a_file(state: Any) -> Any:
    """What comes back of a state that is saved and loaded."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def require_exact_density(method: Method) -> None:
    """A training of ten steps, after each of which the links are as many as the method's density says."""
    run = training(mlp(6, 24, 24, 5), method)
    size = sum(mask.numel() for mask in run.engine.masks.values())
    for step, batch in enumerate(batches(10, 8, 6, 5), start=1):
        run.step(batch)
        wanted = run.engine.method.density_at(step)
        assert wanted is not None
        assert sum(int(mask.sum()) for mask in run.engine.masks.values()) == round(wanted * size)
