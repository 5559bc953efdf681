"""Operations of a prediction while links come and go: counted once, weight by weight, then scaled by densities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.prediction_cost import few_scenes_cost
from limtr.predictor import MotionPredictor
from limtr.scene import Scene
from training.data import SelectedScenes

_PREFIX = "model."


@dataclass(frozen=True, kw_only=True)
class PredictionFlops:
    """Operations of one agent's prediction; a multiplication and an addition are two.

    Attributes:
        dense: of all weights and of attention.
        by_weight: of `dense`, what each weight takes part in, by parameter name.
    """

    dense: float
    by_weight: Mapping[str, float]

    def at(self, densities: Mapping[str, float]) -> float:
        """Operations of the links alone, from the active share of each sparse weight by name."""
        return self.dense - sum(self.by_weight.get(name, 0.0) * (1.0 - density) for name, density in densities.items())


def prediction_flops(model: MotionPredictor, scenes: SelectedScenes) -> PredictionFlops | None:
    """The mean over the agents of a few training scenes, as they were read; None if none is left to predict there."""
    counted = few_scenes_cost(model, _AsRead(scenes))
    if counted is None:
        return None
    found, num_agents = counted
    by_weight = {name.removeprefix(_PREFIX): flops / num_agents for name, flops in found.by_weight.items()}
    return PredictionFlops(dense=found.dense / num_agents, by_weight=by_weight)


class _AsRead:
    """The scenes without what is drawn anew in each epoch, so that a resumed training counts the same."""

    def __init__(self, scenes: SelectedScenes) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, row: int, /) -> Scene:
        return self._scenes.as_read(row)
