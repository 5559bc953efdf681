"""A predictor as one graph of tensors for torch.export: no Python is left in it."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import nn

from limtr.agent_batch import AgentBatch
from limtr.predictor import MotionPredictor

_INPUTS = tuple(
    field.name
    for field in fields(AgentBatch)
    if "future" not in field.name and field.name not in ("center_position", "center_heading")
)


class TensorPredictor(nn.Module):
    """A predictor in evaluation mode with plain tensors as keyword arguments, named as the fields of `AgentBatch`."""

    def __init__(self, model: MotionPredictor) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Trajectories (C, K, T, 7) and scores (C, K)."""
        batch = AgentBatch(**inputs)
        prediction = self.model.select(self.model.decode(batch), batch.center_type)
        return prediction.trajectories, prediction.scores


def tensor_inputs(batch: AgentBatch) -> dict[str, torch.Tensor]:
    """The tensors of a batch that `TensorPredictor` takes."""
    values = {name: getattr(batch, name) for name in _INPUTS}
    return {name: value for name, value in values.items() if value is not None}


def export_predictor(model: MotionPredictor, example: AgentBatch) -> torch.export.ExportedProgram:
    """Export for batches of the shapes of `example`; call the result's module with `tensor_inputs(batch)`."""
    program: torch.export.ExportedProgram = torch.export.export(
        TensorPredictor(model).eval(), args=(), kwargs=tensor_inputs(example), strict=False
    )
    return program
