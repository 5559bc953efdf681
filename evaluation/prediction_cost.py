"""What a prediction costs: weights and links, operations dense and at the links; beside the quality that is measured."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.latency_cost import EagerCost, eager_cost
from evaluation.scoring import SceneReader
from evaluation.zero_weights import zero_masks
from limtr.agent_view import build_agent_batch
from limtr.batch import collate
from limtr.export import TensorPredictor, tensor_inputs
from limtr.predictor import MotionPredictor

SCENES = 4


@dataclass(frozen=True, kw_only=True)
class PredictionCost:
    """Cost of one agent's prediction.

    Attributes:
        parameters: of the model.
        links: those of them that are not zeros of a sparse layer.
        flops: of the matrix products and of attention; a multiplication and an addition are two.
        sparse_flops: of the links alone.
    """

    parameters: int
    links: int
    flops: float
    sparse_flops: float

    def __str__(self) -> str:
        weights = f"{self.parameters:,} parameters, {self.flops / 1e6:,.0f} MFLOP an agent"
        if self.links == self.parameters:
            return f"cost of predicting: {weights}; dense"
        return (
            f"cost of predicting: {weights}; at its links {self.links:,} ({self.links / self.parameters:.1%}) and "
            f"{self.sparse_flops / 1e6:,.0f} MFLOP ({self.sparse_flops / self.flops:.1%})"
        )


def prediction_cost(model: MotionPredictor, source: SceneReader) -> PredictionCost | None:
    """The mean cost over the agents of a few scenes, spread evenly; None if they have no agent to predict."""
    counted = few_scenes_cost(model, source)
    if counted is None:
        return None
    found, num_agents = counted
    return PredictionCost(
        parameters=found.parameters,
        links=found.active,
        flops=found.dense / num_agents,
        sparse_flops=found.sparse / num_agents,
    )


def few_scenes_cost(model: MotionPredictor, source: SceneReader) -> tuple[EagerCost, int] | None:
    """The cost of predicting all agents of a few scenes together, and how many they are; None without any.

    Weights are named as in `TensorPredictor`: `model.` and then as in the model.
    """
    count = min(len(source), SCENES)
    scenes = [source[index * len(source) // count] for index in range(count)]
    view = model.config.view
    parameter = next(model.parameters())
    batch = collate(scenes, num_lidar_points=view.lidar_points_to_load).to(parameter.device)
    agents = build_agent_batch(batch, view).to(dtype=parameter.dtype)
    if not len(agents.center_type):
        return None
    masks = {f"model.{name}": mask for name, mask in zero_masks(model).items()}
    training = model.training
    try:
        found = eager_cost(TensorPredictor(model).eval(), tensor_inputs(agents), masks)
    finally:
        model.train(training)
    return found, len(agents.center_type)


def count_links(model: MotionPredictor) -> tuple[int, int]:
    """How many parameters there are, and how many of them are links (no zeros of a sparse layer)."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, parameters - sum(int((~mask).sum()) for mask in zero_masks(model).values())
