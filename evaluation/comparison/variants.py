"""Variant: one training of a comparison, from a YAML file that names options of `limtr train`.

```yaml
name: with LiDAR          # default: the file's name
data: lead2/shards        # default: --data
train:                    # options of `limtr train`, with _ or -
  preset: tiny
  steps: 400
```
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from limtr.cli import options_of
from limtr.config_json import read_value
from limtr.run_report import as_plain

KEYS = ("name", "data", "train")
OWN_OPTIONS = {
    "data": "give it beside `train`, or as --data",
    "out": "every run gets a folder in --out",
    "seed": "--seeds says how many",
    "resume": "runs go on by themselves",
    "keep": "a run keeps its last checkpoint",
}
"""Options of `limtr train` that the comparison sets."""
LONGEST_NAME = 60
"""Names stand in tables, legends and folders."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is trained, the same for every seed."""

    name: str
    file: Path
    data: Path
    options: Mapping[str, Any]
    """Given options of `limtr train`, as plain values."""

    def recipe(self, seed: int) -> dict[str, Any]:
        """The resolved recipe (options and the preset's defaults) as plain values.

        Raises:
            ValueError: options that contradict each other; names the file.
        """
        train = options_of("train")
        hints = get_type_hints(train)
        where = f"{self.file}: train"
        values = {name: read_value(hints[name], value, f"{where}.{name}") for name, value in self.options.items()}
        try:
            recipe = train(data=self.data, out=Path("unused"), seed=seed, **values).recipe(on_cuda=False)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        plain: dict[str, Any] = as_plain(recipe)
        return plain

    def words(self) -> list[str]:
        """The options as words of a command line."""
        return as_words(self.options)


def read_variants(files: Sequence[Path], data: Path | None) -> list[Variant]:
    """Read and check every file, before anything is trained.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is no YAML, has unknown keys or bad values, or two variants have one name.
    """
    variants = [read_variant(file, data) for file in files]
    names = [variant.name for variant in variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"--config: two variants are called {twice[0]!r}; give them a `name:` each")
    return variants


def read_variant(file: Path, data: Path | None) -> Variant:
    """One variant; raises as `read_variants`."""
    content = _load(file)
    _require_known(content, KEYS, str(file), hint=_belongs_under_train)
    options = content.get("train") or {}
    if not isinstance(options, dict):
        raise ValueError(f"{file}: `train` must hold options of `limtr train`, is {options!r}")
    name = content.get("name", file.stem)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{file}: name must be a text, is {name!r}")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"{file}: name must be one line of at most {LONGEST_NAME} visible characters, is {name!r}")
    folder = content.get("data", data)
    if folder is None:
        raise ValueError(f"{file}: no `data:` there and no --data: say which shards to train on")
    if not isinstance(folder, (str, Path)):
        raise ValueError(f"{file}: data must be a folder, is {folder!r}")
    variant = Variant(name=name.strip(), file=file, data=Path(folder), options=_known_options(options, f"{file}: train"))
    variant.recipe(seed=0)
    return variant


def as_words(options: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Options as words: `--steps 400`, `--no-lidar`, `--classes vehicle cyclist`, `--part.option 1`."""
    words: list[str] = []
    for name, value in options.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(value, Mapping):
            words += as_words(value, f"{flag}.")
        elif isinstance(value, bool):
            head, _, tail = flag.rpartition(".")
            words.append(f"--{flag}" if value else "--" + (f"{head}." if head else "") + f"no-{tail}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{flag}", *map(str, value)]
        else:
            text = str(value)  # a text may begin with a dash, which would be taken for an option
            words += [f"--{flag}={text}"] if isinstance(value, str) and text.startswith("-") else [f"--{flag}", text]
    return words


def _load(file: Path) -> dict[str, Any]:
    import yaml

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise ValueError(f"{file}: line {node.value[index][0].start_mark.line + 1}: key {key!r} comes twice")
        return dict(loader.construct_mapping(node, deep=True))

    # A loader of our own: YAML 1.1 takes 1e-3 for a text and, of a key that comes twice, the last.
    Loader: Any = type("Loader", (yaml.SafeLoader,), {})
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))
    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        content = yaml.load(file.read_text(), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a YAML file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: must hold the keys {', '.join(KEYS)}, holds {type(content).__name__}")
    return content


def _belongs_under_train(key: str) -> str:
    known = {field.name for field in fields(options_of("train"))}
    return f"; {key} is an option of `limtr train`: put it under `train:`" if key.replace("-", "_") in known else ""


def _require_known(content: Mapping[Any, Any], known: Sequence[str], where: str, hint: Any = lambda key: "") -> None:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            advice = hint(str(key)) or (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}")
            raise ValueError(f"{where}: unknown key {key!r}{advice}")


def _known_options(options: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The options by their field names, each known to `limtr train` and not set by the comparison itself."""
    found: dict[str, Any] = {}
    hints = get_type_hints(options_of("train"))
    named = {str(key).replace("-", "_"): value for key, value in options.items()}
    if len(named) != len(options):
        raise ValueError(f"{where}: an option is given twice, once with - and once with _")
    _require_known(named, [name for name in hints if name not in OWN_OPTIONS or name in named], where)
    for name, value in named.items():
        if name in OWN_OPTIONS:
            raise ValueError(f"{where}: {name} is set by the comparison: {OWN_OPTIONS[name]}")
        checked = read_value(hints[name], value, f"{where}.{name}")
        if any(isinstance(number, float) and not math.isfinite(number) for number in _leaves(value)):
            raise ValueError(f"{where}.{name} must be finite, is {value!r}")
        if value is not None:  # `steps:` without a value is the preset's
            found[name] = value if is_dataclass(checked) else as_plain(checked)
    return found


def _leaves(value: Any) -> Iterator[Any]:
    """Everything in a value of YAML that is not a list or a mapping itself."""
    if isinstance(value, (Mapping, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    else:
        yield value
