"""Predictions of centre agents turned from their own frames into world coordinates."""

from __future__ import annotations

import torch

from limtr.agent_batch import AgentBatch
from limtr.batch import SceneBatch
from limtr.frames import world_from_agent
from limtr.prediction import Prediction, ScenePrediction


def to_world(prediction: Prediction, agents: AgentBatch, batch: SceneBatch) -> list[ScenePrediction]:
    """World positions of all modes, one entry per scene of the batch in its order (an empty one for a scene without targets).

    The turn and the shift by the scene's origin happen in float64 on the host: float32 world coordinates would be off by up to
    half a millimetre, and metrics and submissions differ from there on.

    Args:
        prediction: what the predictor says of `agents`.
        agents: rows of `build_agent_batch(batch, ...)`.
        batch: the scenes; its `center_scene` and `center_object_id` name the rows.

    Raises:
        ValueError: the three do not speak of the same agents, or `agents` has no frames.
    """
    rows = {len(prediction.trajectories), len(prediction.scores), len(agents.center_index), batch.num_centers}
    if len(rows) != 1:
        raise ValueError(f"prediction, agents and batch must have the same centre agents, have {sorted(rows)} of them")
    if agents.center_position is None or agents.center_heading is None:
        raise ValueError("agents have no center_position and center_heading: build them with build_agent_batch")
    local = _host(prediction.trajectories)[..., 0:2]
    in_scene = world_from_agent(local, _host(agents.center_position)[:, 0:2], _host(agents.center_heading)).numpy()
    scores = _host(prediction.scores).numpy()
    scene, object_ids = batch.center_scene.cpu().numpy(), batch.center_object_id.cpu().numpy()
    return [
        ScenePrediction(
            scenario_id=scenario_id,
            object_id=object_ids[scene == row],
            xy_m=in_scene[scene == row] + batch.origin_m[row, 0:2],
            scores=scores[scene == row],
        )
        for row, scenario_id in enumerate(batch.scenario_ids)
    ]


def _host(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to(device="cpu", dtype=torch.float64)
