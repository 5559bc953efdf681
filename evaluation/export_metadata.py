"""What is written beside an exported graph: what goes in and comes out, in which order, units and frame."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from evaluation.onnx_graph import ONNX_PACKAGES
from evaluation.prediction_cost import count_links
from limtr.agent_features import HISTORY_CHANNELS
from limtr.config import ModelConfig, ViewConfig
from limtr.config_json import config_to_json
from limtr.export import INPUT_AXES, OUTPUT_AXES
from limtr.map_view import NUM_SIGNAL_STATES
from limtr.prediction import TRAJECTORY_FIELDS
from limtr.predictor import MotionPredictor
from limtr.run_report import package_versions
from limtr.scene import POINTS_PER_POLYLINE, PREDICTED_TYPES

FORMAT = 1
AXES = {
    "C": "centre agents: the agents whose future is predicted, one row each, at least 1",
    "A": "agents around (and including) the centre agent, at least 1",
    "P": "map polylines, 0 or more",
    "N": "LiDAR points per frame, 0 or more",
}
MEANINGS = {
    "agent_history": "states of all agents at t = -1.0, -0.9, ... 0 s, in the centre agent's frame; zero where masked",
    "agent_history_mask": "whether the agent was seen at that step",
    "agent_last_position": "x, y, z of the last step at which the agent was seen",
    "polylines": "points of the map in pieces, in the centre agent's frame; zero where masked",
    "polyline_mask": "which points exist",
    "polyline_center": "x, y, z: mean of the points that exist",
    "center_index": "where the centre agent stands on the A axis",
    "center_type": "class of the centre agent, by number (see classes)",
    "lidar_points": "points in the centre agent's box at each frame, in the frame of that box; zero where masked",
    "lidar_mask": "which points exist",
    "trajectories": "the modes, best first: 80 steps at 10 Hz, the first at t = 0.1 s, in the centre agent's frame",
    "scores": "probabilities of the modes; comparable between agents, need not sum to one",
    "query_trajectories": "what the modes were chosen from: the future of every motion query",
    "query_scores": "probability of every motion query; they sum to one",
}
POSITION = ["x", "y", "z"]


def polyline_channels(view: ViewConfig) -> list[str]:
    """Names of the channels of `AgentBatch.polylines`."""
    names = ["x", "y", "z", "direction_x", "direction_y", "direction_z", "type", "previous_x", "previous_y"]
    return names + ([f"is_signal_state_{state}" for state in range(NUM_SIGNAL_STATES)] if view.traffic_signals else [])


def lidar_channels(view: ViewConfig) -> list[str]:
    """Names of the channels of `AgentBatch.lidar_points`."""
    kinds = ["is_vehicle_or_other", "is_pedestrian", "is_cyclist"] if view.lidar_class_channels else []
    return [*POSITION, *view.lidar_features, *kinds]


def describe_inputs(config: ModelConfig) -> dict[str, Any]:
    """Shape, type, channels and meaning of every input, in the graph's order."""
    view, steps = config.view, len([name for name in HISTORY_CHANNELS if name.startswith("is_step_")])
    channels = {
        "agent_history": list(HISTORY_CHANNELS[: config.num_agent_channels]),
        "agent_last_position": POSITION,
        "polylines": polyline_channels(view),
        "polyline_center": POSITION,
        "lidar_points": lidar_channels(view),
    }
    lengths = {
        "agent_history": (steps, config.num_agent_channels),
        "agent_history_mask": (steps,),
        "agent_last_position": (3,),
        "polylines": (POINTS_PER_POLYLINE, view.num_polyline_channels),
        "polyline_mask": (POINTS_PER_POLYLINE,),
        "polyline_center": (3,),
        "center_index": (),
        "center_type": (),
        "lidar_points": (view.num_lidar_frames, view.num_lidar_channels),
        "lidar_mask": (view.num_lidar_frames,),
    }
    described = {}
    for name, axes in INPUT_AXES.items():
        if "lidar" in name and not view.use_lidar:
            continue
        fixed = iter(lengths[name])
        described[name] = {
            "shape": [letter if letter else next(fixed) for letter in axes],
            "dtype": "bool" if "mask" in name else "int64" if name.startswith("center_") else "float32",
            "meaning": MEANINGS[name],
        } | ({"channels": channels[name]} if name in channels else {})
    return described


def describe_outputs(config: ModelConfig) -> dict[str, Any]:
    """Shape, type, channels and meaning of every output, in the graph's order."""
    described: dict[str, Any] = {}
    for name in OUTPUT_AXES:
        rows = config.decoder.num_queries if name.startswith("query") else config.num_modes
        shape: list[str | int] = ["C", rows]
        if name.endswith("trajectories"):
            shape += [config.num_future_steps, len(TRAJECTORY_FIELDS)]
        described[name] = {"shape": shape, "dtype": "float32", "meaning": MEANINGS[name]}
        if name.endswith("trajectories"):
            described[name]["channels"] = list(TRAJECTORY_FIELDS)
    return described


def describe(model: MotionPredictor, graph: Mapping[str, Any], check: Mapping[str, Any]) -> dict[str, Any]:
    """The content of metadata.json; `graph` says which file it is, `check` how it was compared with PyTorch."""
    versions = package_versions()
    for name in ONNX_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    parameters, links = count_links(model)
    intentions = model.intention_points.detach().to(torch.float32).cpu()
    return {
        "format": FORMAT,
        "graph": dict(graph),
        "model": config_to_json(model.config),
        "fingerprint": model.fingerprint(),
        "parameters": parameters,
        "links": links,
        "licence": model.licence,
        "axes": AXES,
        "inputs": describe_inputs(model.config),
        "outputs": describe_outputs(model.config),
        "classes": {str(int(kind)): kind.name for kind in PREDICTED_TYPES},
        "units": "metres, seconds, radians, metres per second; log_sigma: natural logarithm of metres",
        "frame": "zero at the centre agent's position at t = 0, x along its heading, y to its left, z up and only shifted",
        "intention_points": {kind.name: points.tolist() for kind, points in zip(PREDICTED_TYPES, intentions, strict=True)},
        "check": dict(check),
        "versions": versions,
    }
