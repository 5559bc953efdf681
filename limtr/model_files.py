"""Model files: safetensors weights with a JSON configuration beside them, and reading the reference's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from limtr.files import read_json, write_bytes, write_json

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = 1
_KEPT = "kept/"

State = dict[str, torch.Tensor]


def write_model(
    folder: Path, state: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor], content: dict[str, Any]
) -> Path:
    """Write weights and configuration into `folder`; returns it.

    Args:
        folder: made if it is not there.
        state: the model's state dict.
        kept: tensors to keep beside it.
        content: what goes into `config.json`.
    """
    tensors = {**state, **{_KEPT + name: value for name, value in kept.items()}}
    write_bytes(
        folder / WEIGHTS_FILE, save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})
    )
    write_json(folder / CONFIG_FILE, {"format": FORMAT, **content})
    return folder


def find_model_folder(path: Path) -> Path:
    """The folder of a model: `path` itself, its newest checkpoint if it is a training run, or the folder of the file `path`.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = path.parent if path.is_file() else path
    if (folder / WEIGHTS_FILE).is_file():
        return folder
    checkpoints = folder if folder.name == "checkpoints" else folder / "checkpoints"
    pointer = checkpoints / "latest.txt"
    if pointer.is_file():
        latest = checkpoints / Path(pointer.read_text().strip()).name
        if (latest / WEIGHTS_FILE).is_file():
            return latest
        raise FileNotFoundError(f"{pointer} names {latest.name}, which has no {WEIGHTS_FILE}; write another name into it")
    raise FileNotFoundError(
        f"{path}: no model there; expected a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, or a training run with checkpoints"
    )


def read_model(folder: Path) -> tuple[State, State, dict[str, Any]]:
    """Weights, kept tensors and the content of `config.json`.

    Raises:
        FileNotFoundError: `config.json` is missing.
        ValueError: a file is damaged or of another format.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; copy it from where {WEIGHTS_FILE} came from")
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise ValueError(
            f"{file}: expected an object with format {FORMAT} and a model; it was not written by MotionPredictor.save"
        )
    tensors = _load_safetensors(folder / WEIGHTS_FILE)
    state = {name: value for name, value in tensors.items() if not name.startswith(_KEPT)}
    kept = {name.removeprefix(_KEPT): value for name, value in tensors.items() if name.startswith(_KEPT)}
    return state, kept, content


def read_weights(path: Path) -> State:
    """The state dict in a model folder, a training run, a `.safetensors` file, or a reference checkpoint.

    Reference checkpoints are MTR's `.pth` (its dictionary has `model_state`) and Lightning's `.ckpt` (`state_dict`). They are
    read with `weights_only`: a file that would run code is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no state dict.
    """
    if path.is_dir():
        return read_model(find_model_folder(path))[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        return {name: value for name, value in _load_safetensors(path).items() if not name.startswith(_KEPT)}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damaged and unsafe files by many types
        raise ValueError(
            f"{path}: torch cannot read it as plain weights ({str(error).splitlines()[0]}); "
            "if you trust the file, save its state dict alone"
        ) from error
    for key in ("model_state", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{path}: expected a state dict, or a dictionary with `model_state` (MTR) or `state_dict` (Lightning)")
    return dict(content)


_FIELDS_BEHIND = {
    "encoder.agent_encoder.": "encoder.agents, encoder.dim, num_agent_channels",
    "encoder.polyline_encoder.": "encoder.polylines, encoder.dim, view.traffic_signals",
    "encoder.lidar_encoder.": "encoder.lidar, encoder.dim, view.use_lidar, view.num_lidar_frames, view.lidar_features",
    "encoder.layers.": "encoder.num_layers, encoder.dim",
    "decoder.center_projection.": "decoder.lidar_with_center, decoder.dim, encoder.dim",
    "decoder.": "decoder.num_layers, decoder.dim, decoder.map_dim, encoder.dim, num_future_steps",
    "intention_points": "decoder.num_queries",
}


def require_same_architecture(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], where: Path | str, *, optional: Sequence[str] = ()
) -> None:
    """Refuse weights that do not fit a configuration.

    Args:
        expected: state dict of the configured model.
        found: the weights.
        where: what to call them in the message.
        optional: names that may be missing.

    Raises:
        ValueError: names the first tensors that differ and the fields of the configuration that shape them.
    """
    problems = {
        name: f"{name} has shape {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    }
    problems |= {name: f"{name} is missing" for name in expected if name not in found and name not in optional}
    problems |= {name: f"{name} is unknown" for name in found if name not in expected}
    if not problems:
        return
    first = list(problems)[:3]
    fields = [next((text for prefix, text in _FIELDS_BEHIND.items() if name.startswith(prefix)), "") for name in first]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise ValueError(
        f"{where}: the weights are of another architecture than the configuration: "
        f"{'; '.join(problems[name] for name in first)}{more}; look at {'; '.join(dict.fromkeys(filter(None, fields)))}, "
        "or take the configuration that the weights were trained with"
    )


def _load_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error}); copy it again") from error
