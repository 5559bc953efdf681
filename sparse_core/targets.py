"""Which parameters of a model become sparse, and what they are called."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from sparse_core.wrappers import unwrapped, wrapped_module

Pattern = str | Callable[[str, nn.Parameter], bool]
"""A glob over parameter names (`encoder.*`) or over the names of the modules that hold them, or a predicate."""

_DEFAULT = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
_ON_REQUEST = (*_DEFAULT, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear)
_WEIGHTS = {"weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}  # an attention's bias_k is none
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, eq=False)
class Target:
    """A parameter that is made sparse.

    Attributes:
        name: its name in the model without wrappers (`module.`, `_orig_mod.`).
        owner: the module that holds it, and under which attribute.
        attribute: see `owner`.
        parameter: the parameter.
    """

    name: str
    owner: nn.Module
    attribute: str
    parameter: nn.Parameter


def plain_names(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Every parameter name without wrappers -> (the module that holds it, the attribute). Tied parameters appear once."""
    found: dict[str, tuple[nn.Module, str]] = {}
    seen: set[int] = set()
    for path, module in _walk(model, ""):
        for attribute, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{path}.{attribute}" if path else attribute] = (module, attribute)
    return found


def parameter_at(model: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter that the model has under a name without wrappers now, if any."""
    *path, attribute = name.split(".")
    module = unwrapped(model)
    for part in path:
        child = module._modules.get(part)
        if child is None:
            return None
        module = unwrapped(child)
    return module._parameters.get(attribute)


def select(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    include: Pattern | Sequence[Pattern] | None,
    exclude: Pattern | Sequence[Pattern] | None,
) -> list[Target]:
    """The targets, in the model's order.

    By default the weights of Linear, Conv1d to 3d and packed attention projections that the optimizer holds. `include` narrows
    them down, and reaches other weights of two or more dimensions when they are named in full or sit in transposed or
    bilinear layers. Norms, biases and embeddings never.

    Raises:
        ValueError: a pattern that matches nothing, an included parameter that cannot be sparse or that the optimizer does not
            hold, nothing left.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    places = plain_names(model)
    holders = _holders(model)
    candidates: dict[str, Target] = {}
    default: set[str] = set()
    for name, (owner, attribute) in places.items():
        parameter = owner._parameters[attribute]
        assert parameter is not None
        types = holders[id(parameter)]
        if parameter.dim() < 2 or not parameter.is_floating_point() or attribute.startswith("bias"):
            continue
        if any(isinstance(holder, _EMBEDDINGS + _NORMS) for holder in types):
            continue
        candidates[name] = Target(name, owner, attribute, parameter)
        if any(isinstance(holder, _DEFAULT) for holder in types) and attribute in _WEIGHTS and parameter.requires_grad:
            default.add(name)
    on_request = {
        name
        for name, target in candidates.items()
        if isinstance(target.owner, _ON_REQUEST) and target.attribute in _WEIGHTS and target.parameter.requires_grad
    }
    chosen = (
        {name for name in default if id(candidates[name].parameter) in held}
        if include is None
        else _included(_listed(include), candidates, on_request, places, held)
    )
    for pattern in _listed(exclude):
        matched = {name for name in candidates if _matches(pattern, candidates[name])}
        if not matched:
            raise ValueError(_no_match("exclude", pattern, places))
        chosen -= matched
    if not chosen:
        raise ValueError(
            "nothing to make sparse: the optimizer holds no selected weight of a Linear, Conv1d-3d or attention projection "
            f"(the model has {len(default)} such weights)"
        )
    return [target for name, target in candidates.items() if name in chosen]


def _included(
    patterns: Iterable[Pattern],
    candidates: dict[str, Target],
    on_request: set[str],
    places: dict[str, tuple[nn.Module, str]],
    held: set[int],
) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        in_full = isinstance(pattern, str) and pattern in places
        if in_full and pattern not in candidates:
            raise ValueError(f"include {pattern!r}: this parameter is a norm, bias or embedding, and those never become sparse")
        reachable = candidates if in_full else on_request
        matched = {name for name in reachable if _matches(pattern, candidates[name])}
        if not matched:
            raise ValueError(_no_match("include", pattern, places))
        inside = {name for name in matched if id(candidates[name].parameter) in held}
        if not inside:
            raise ValueError(f"include {pattern!r} matches {sorted(matched)[:3]}, which this optimizer does not hold")
        frozen = sorted(name for name in inside if not candidates[name].parameter.requires_grad)
        if frozen:
            raise ValueError(f"include {pattern!r}: {frozen[0]} does not require a gradient")
        chosen |= inside
    return chosen


def _listed(patterns: Pattern | Sequence[Pattern] | None) -> list[Pattern]:
    if patterns is None:
        return []
    return [patterns] if isinstance(patterns, str) or callable(patterns) else list(patterns)


def _matches(pattern: Pattern, target: Target) -> bool:
    if callable(pattern):
        return pattern(target.name, target.parameter)
    module = target.name.rpartition(".")[0]
    return fnmatchcase(target.name, pattern) or fnmatchcase(module, pattern)


def _no_match(argument: str, pattern: Pattern, places: Iterable[str]) -> str:
    if callable(pattern):
        return f"{argument}: the predicate {getattr(pattern, '__name__', pattern)!r} accepts no weight that can be sparse"
    names = list(places)
    near = difflib.get_close_matches(pattern, names + sorted({name.rpartition(".")[0] for name in names}), n=3, cutoff=0.3)
    hint = f"; near names: {', '.join(near)}" if near else f"; the model has {', '.join(names[:3])}, ..."
    return f"{argument} {pattern!r} matches no weight that can be sparse{hint}"


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The target names that a glob over parameter or module names fits."""
    return [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)]


def _walk(module: nn.Module, path: str) -> Iterable[tuple[str, nn.Module]]:
    inner = wrapped_module(module)
    if inner is not None:
        yield from _walk(inner, path)
        return
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{path}.{name}" if path else name)


def _holders(model: nn.Module) -> dict[int, list[nn.Module]]:
    """For each parameter, every module that holds it: a tied embedding is an embedding wherever else it is used."""
    holders: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append(module)
    return holders
