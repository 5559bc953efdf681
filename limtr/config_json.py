"""ModelConfig to JSON and back, strictly."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from limtr.config import ModelConfig
from limtr.run_report import as_plain


def config_to_json(config: ModelConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    plain: dict[str, Any] = as_plain(config)
    return plain


def config_from_json(value: Any, *, where: str = "config") -> ModelConfig:
    """The configuration that `config_to_json` wrote; fields that are absent take their defaults.

    Raises:
        ValueError: an unknown key, a wrong type or a value out of range; the message names `where` and the field.
    """
    config: ModelConfig = read_value(ModelConfig, value, where)
    return config


def read_value(kind: Any, value: Any, where: str) -> Any:
    """A plain value (as JSON or YAML hold it) as the type `kind`: a dataclass, tuple, Literal, path, optional or simple one.

    Raises:
        ValueError: it is no such value; the message names `where`.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner, *others = (argument for argument in arguments if argument is not type(None))
        if others and all(get_origin(argument) is Literal for argument in (inner, *others)):
            inner = Literal[tuple(choice for argument in (inner, *others) for choice in get_args(argument))]
        elif others:
            raise ValueError(f"{where} may have several types, which a file cannot tell apart")
        return read_value(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, is {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(read_value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
        if len(value) != len(arguments):
            raise ValueError(f"{where} must have {len(arguments)} entries, has {len(value)}")
        return tuple(
            read_value(part, item, f"{where}[{index}]") for index, (part, item) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} must be one of {arguments}, is {value!r}")
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be of type {kind.__name__}, is {value!r}")
    return value


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object with the fields of {kind.__name__}, is {value!r}")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{where} has unknown keys {unknown}; {kind.__name__} knows {sorted(known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in value and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {missing}, which {kind.__name__} needs")
    try:
        return kind(**{name: read_value(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(where) else f"{where}: {message}") from error
