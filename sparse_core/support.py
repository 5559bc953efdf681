"""Which structures, methods and optimizers go together, found out by trying: `python -m sparse_core.support`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_core.method import Method
from sparse_core.presets import CHT, DSR, GMP, ITOP, MEST, SET, SNFS, SRSTE, CHTs, GraNet, RigL, SRigL, Static, TopKAST
from sparse_core.probe import aligned
from sparse_core.sparsify import sparsify
from sparse_core.structure import Shape, Structure, output_groups


def _two_thirds(name: str, shape: Shape) -> Tensor:
    """Every third link is forbidden."""
    return (torch.arange(torch.Size(shape).numel()) % 3 != 1).view(shape)


STRUCTURES: Mapping[str, Structure] = {
    "weight": Structure(),
    "row": Structure(group="row"),
    "2:4": Structure(group=4),
    "block": Structure(unit=(2, 2)),
    "kernel": Structure(unit="kernel"),
    "channel": Structure(unit="channel"),
    "input channel": Structure(unit="input channel"),
    "diagonal": Structure(unit="diagonal"),
    "output groups": Structure(group=output_groups(2)),
    "allowed region": Structure(allowed=_two_thirds),
}

METHODS: Mapping[str, Callable[..., Method]] = {
    "Static": lambda density, end, every, **fields: Static(density, **fields),
    "SET": SET,
    "RigL": RigL,
    "ITOP": ITOP,
    "SNFS": SNFS,
    "MEST": MEST,
    "MEST soft": lambda density, end, every, **fields: MEST(density, end, every, soft=0.1, **fields),
    "GMP": GMP,
    "GraNet": lambda density, end, every, **fields: GraNet(density, end, every, initial=(1 + density) / 2, **fields),
    "CHT": CHT,
    "CHTs": CHTs,
    "SRigL": SRigL,
    "DSR": DSR,
    "Top-KAST": TopKAST,
    "SR-STE": SRSTE,
}


Build = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


def _optimizers() -> Iterator[tuple[str, Build]]:
    """Every class of torch.optim, with loops over parameters, `foreach` and `fused` where the class offers them."""
    for name, kind in sorted(vars(torch.optim).items()):
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer:
            offered = inspect.signature(kind).parameters
            yield name, _build(kind, {"foreach": False} if "foreach" in offered else {})
            for word in ("foreach", "fused"):
                if word in offered:
                    yield f"{name} {word}", _build(kind, {word: True})


def _build(kind: Callable[..., torch.optim.Optimizer], options: Mapping[str, Any]) -> Build:
    return lambda parameters: kind(parameters, lr=0.01, **options)


OPTIMIZERS: Mapping[str, Build] = dict(_optimizers())


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        structure: a key of STRUCTURES.
        method: a key of METHODS.
        optimizer: a key of OPTIMIZERS.
        allowed: whether it trains.
        reason: why it does not, or on which condition it does; else empty.
    """

    structure: str
    method: str
    optimizer: str
    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class SupportTable:
    """All combinations; printed, one line for each structure and method, and the reasons below."""

    cells: tuple[Cell, ...]

    def allowed(self) -> list[Cell]:
        """The combinations that train."""
        return [cell for cell in self.cells if cell.allowed]

    def __str__(self) -> str:
        reasons: dict[str, int] = {}
        rows: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            rows.setdefault((cell.structure, cell.method), []).append(cell)
            if cell.reason:
                reasons.setdefault(cell.reason, len(reasons) + 1)
        lines = [("structure", "method", "optimizers", "not allowed, or on a condition (why)")]
        for (structure, method), cells in rows.items():
            by_reason: dict[str, list[Cell]] = {}
            for cell in cells:
                by_reason.setdefault(cell.reason, []).append(cell)
            count = sum(cell.allowed for cell in cells)
            notes = [
                f"{_which(which, cells)}{' on a condition' if which[0].allowed else ''} ({reasons[reason]})"
                for reason, which in by_reason.items()
                if reason
            ]
            lines.append((structure, method, f"{count} of {len(cells)}", "; ".join(notes)))
        total = f"{len(self.allowed())} of {len(self.cells)} combinations are allowed"
        return "\n".join([aligned(lines, left=(0, 1, 3)), "", *(f"({n}) {text}" for text, n in reasons.items()), "", total])


def _which(some: Sequence[Cell], of: Sequence[Cell]) -> str:
    """Optimizers of a row in few words."""
    if len(some) == len(of):
        return "all"
    return "the others" if len(some) > len(of) // 2 else ", ".join(cell.optimizer for cell in some)


def network(structure: str, even: bool) -> tuple[nn.Module, Tensor]:
    """A small model that the structure fits, and a batch for it: layers of different size, or, if `even`, of the same."""
    if structure == "kernel":
        convolutions = nn.Conv2d(2, 4, 3, bias=False), nn.Conv2d(4, 2, 3 if even else 1, bias=False)
        return nn.Sequential(*convolutions), torch.randn(2, 2, 6, 6)
    hidden, out = (8, 8) if even else (12, 4)
    return nn.Sequential(nn.Linear(8, hidden, bias=False), nn.Linear(hidden, out, bias=False)), torch.randn(4, 8)


def _refusal(structure: str, method: str, optimizer: str, even: bool) -> str | None:
    """Why this combination is refused, None if it trains."""
    model, batch = network(structure, even)
    try:
        described = METHODS[method](density=0.5, end=2, every=1, structure=STRUCTURES[structure])
        steps = OPTIMIZERS[optimizer](list(model.parameters()))
        engine = sparsify(model, steps, described)
    except (ValueError, RuntimeError) as error:
        return str(error)
    model(batch).square().mean().backward()
    steps.step()
    engine.detach()
    return None


def support_table() -> SupportTable:
    """Try every combination on a small model for one update."""
    cells = []
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        for structure in STRUCTURES:
            for method in METHODS:
                for optimizer in OPTIMIZERS:
                    reason = _refusal(structure, method, optimizer, even=False)
                    allowed = reason is None or _refusal(structure, method, optimizer, even=True) is None
                    if allowed and reason is not None:
                        reason = "only for layers whose units have equally many weights: links move between layers"
                    cells.append(Cell(structure, method, optimizer, allowed, reason or ""))
    return SupportTable(tuple(cells))


if __name__ == "__main__":
    print(support_table())
