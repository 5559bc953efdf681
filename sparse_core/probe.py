"""Run somebody's model once without leaving a trace, and find its parameters by the names that masks use."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from sparse_core.shard import refuse_sharded

_WRAPPERS = frozenset({"_orig_mod", "module"})  # what torch.compile and data parallel wrappers put into a name


def call(model: nn.Module, sample: object) -> object:
    """Call a model on a sample: a tuple or list of positional arguments, a mapping of keywords, or one argument."""
    if isinstance(sample, Mapping):
        return model(**sample)
    if isinstance(sample, tuple | list):
        return model(*sample)
    return model(sample)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put back, on leaving, the model's buffers (values and objects) and torch's random state; compiled parts run eagerly."""
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()  # only then: it imports the compiler
    with torch.random.fork_rng(devices=sorted(devices, key=str)), eager:
        try:
            yield
        finally:
            with torch.no_grad():
                for owner, name, buffer, values in buffers:
                    owner[name] = buffer.copy_(values)


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of a model's parameters.

    `first`: parameter by its first name, without wrapper prefixes, tied ones once. `by_alias`: first name by every name that a
    mask may come under, with or without wrapper prefixes.
    """

    first: Mapping[str, nn.Parameter]
    by_alias: Mapping[str, str]

    def resolve(self, name: str, mask: Tensor) -> str:
        """First name of the parameter that a mask is for.

        Raises ValueError if there is none, or it is sharded or has another shape, TypeError if the mask is not a bool tensor.
        """
        if name not in self.by_alias:
            near = difflib.get_close_matches(name, self.by_alias, n=3)
            raise ValueError(
                f"mask {name!r} belongs to no parameter of this model" + (f"; near: {', '.join(near)}" if near else "")
            )
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"mask {name!r} must be a bool tensor, not {getattr(mask, 'dtype', type(mask).__name__)}")
        first = self.by_alias[name]
        refuse_sharded(name, self.first[first])
        if mask.shape != self.first[first].shape:
            raise ValueError(f"mask {name!r} has shape {tuple(mask.shape)}, its parameter {tuple(self.first[first].shape)}")
        return first


def parameter_names(model: nn.Module) -> Names:
    """Collect the names of all parameters."""
    first: dict[str, nn.Parameter] = {}
    by_alias: dict[str, str] = {}
    known: dict[int, str] = {}
    for full, parameter in model.named_parameters(remove_duplicate=False):
        short = ".".join(part for part in full.split(".") if part not in _WRAPPERS)
        if id(parameter) not in known:
            known[id(parameter)] = full if short in first else short
            first[known[id(parameter)]] = parameter
        by_alias[full] = known[id(parameter)]
        by_alias.setdefault(short, known[id(parameter)])
    return Names(first, by_alias)


def aligned(lines: Sequence[tuple[str, ...]], left: Container[int] = (0,)) -> str:
    """A table of text; the columns in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (
        [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(row).rstrip() for row in rows)
