"""A predictor as one graph of tensors for torch.export: no Python is left in it, and it takes any number of agents."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.export import Dim
from torch.fx.experimental import _config as shape_config
from torch.nn import functional

from limtr.agent_batch import AgentBatch
from limtr.predictor import MotionPredictor

INPUT_AXES = {
    "agent_history": ("C", "A", None, None),
    "agent_history_mask": ("C", "A", None),
    "agent_last_position": ("C", "A", None),
    "polylines": ("C", "P", None, None),
    "polyline_mask": ("C", "P", None),
    "polyline_center": ("C", "P", None),
    "center_index": ("C",),
    "center_type": ("C",),
    "lidar_points": ("C", None, "N", None),
    "lidar_mask": ("C", None, "N"),
}
"""The tensors of an `AgentBatch` that a graph takes, in order, with the axes whose length is free (letters of the legend)."""

OUTPUT_AXES = {
    "trajectories": ("C", None, None, None),
    "scores": ("C", None),
    "query_trajectories": ("C", None, None, None),
    "query_scores": ("C", None),
}
"""What a graph gives, in order: the modes as in `limtr.prediction.Prediction`, and what they were chosen from."""


class TensorPredictor(nn.Module):
    """A predictor in evaluation mode with plain tensors as keyword arguments, named as the fields of `AgentBatch`."""

    def __init__(self, model: MotionPredictor) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        agent_history: torch.Tensor,
        agent_history_mask: torch.Tensor,
        agent_last_position: torch.Tensor,
        polylines: torch.Tensor,
        polyline_mask: torch.Tensor,
        polyline_center: torch.Tensor,
        center_index: torch.Tensor,
        center_type: torch.Tensor,
        lidar_points: torch.Tensor | None = None,
        lidar_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Modes (C, K, T, 7) with scores (C, K), all queries (C, Q, T, 7) with probabilities (C, Q)."""
        batch = AgentBatch(
            agent_history=agent_history,
            agent_history_mask=agent_history_mask,
            agent_last_position=agent_last_position,
            # One masked polyline and point more: runtimes disagree about axes of length 0.
            polylines=functional.pad(polylines, (0, 0, 0, 0, 0, 1)),
            polyline_mask=functional.pad(polyline_mask, (0, 0, 0, 1)),
            polyline_center=functional.pad(polyline_center, (0, 0, 0, 1)),
            center_index=center_index,
            center_type=center_type,
            lidar_points=None if lidar_points is None else functional.pad(lidar_points, (0, 0, 0, 1)),
            lidar_mask=None if lidar_mask is None else functional.pad(lidar_mask, (0, 1)),
        )
        outputs = self.model.decode(batch)
        prediction = self.model.select(outputs, center_type)
        last = outputs.layers[-1]
        return prediction.trajectories, prediction.scores, last.trajectories, last.scores.softmax(dim=-1)


def tensor_inputs(batch: AgentBatch) -> dict[str, torch.Tensor]:
    """The tensors of a batch that `TensorPredictor` takes."""
    values = {name: getattr(batch, name) for name in INPUT_AXES}
    return {name: value for name, value in values.items() if value is not None}


def export_predictor(model: MotionPredictor, example: AgentBatch) -> torch.export.ExportedProgram:
    """A graph for any numbers C, A, P and N (P and N may be 0); call it with `callable_of(program)(**tensor_inputs(batch))`.

    Args:
        model: in any mode; the graph is of its evaluation mode.
        example: any batch of the model's channels, with LiDAR if the model reads it.

    Raises:
        ValueError: an axis of the example is shorter than 2, from which torch would conclude that it is always so, or the
            model reads LiDAR and the example has none.
    """
    inputs = tensor_inputs(example)
    expected = [name for name in INPUT_AXES if model.config.view.use_lidar or "lidar" not in name]
    if list(inputs) != expected:
        raise ValueError(f"the example must have {expected}, has {list(inputs)}")
    for name, value in inputs.items():
        if any(letter and length < 2 for letter, length in zip(INPUT_AXES[name], value.shape, strict=True)):
            raise ValueError(f"every free axis of the example must be at least 2 long, {name} is {tuple(value.shape)}")
    free = {name: {axis: Dim.DYNAMIC for axis, letter in enumerate(INPUT_AXES[name]) if letter} for name in inputs}
    # Without this, torch takes an axis that is not 0 or 1 long now for one that never is.
    with shape_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program: torch.export.ExportedProgram = torch.export.export(
            TensorPredictor(with_dense_attention(model)).eval(), args=(), kwargs=inputs, dynamic_shapes=free, strict=False
        )
    return program


def callable_of(program: torch.export.ExportedProgram) -> nn.Module:
    """The program as a module.

    Torch notes as guards which way its kernels went for the example, such as that an axis was not 1 long, although the result
    does not depend on it; they are left out, so that one agent or polyline is as good as many.
    """
    module: nn.Module = program.module(check_guards=False)
    return module


def with_dense_attention(model: MotionPredictor) -> MotionPredictor:
    """The model itself, or, where it gathers keys, one with the same tensors that masks them: a graph cannot count them."""
    if model.config.attention == "dense":
        return model
    with torch.device("meta"):
        dense = MotionPredictor(replace(model.config, attention="dense"))
    dense.load_state_dict(model.state_dict(), assign=True)
    return dense.eval()
