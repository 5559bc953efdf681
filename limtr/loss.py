"""The training loss of the predictor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from limtr.agent_batch import AgentBatch
from limtr.config import LossConfig, ModelConfig
from limtr.decoder import DecoderOutputs, LayerPrediction
from limtr.encoder import EncodedScene
from limtr.mixture import full_precision, trajectory_losses

_LARGEST_SIDE_M = 3.0
"""True distances to the side beyond this count as this: a U-turn must not outweigh a hundred first steps of a turn."""


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The loss and what it is made of; every term carries its weight.

    The parts of a layer are those of the average agent, before class weights (and before MTR's sum over agents): they can be
    compared between runs.
    """

    total: torch.Tensor
    """scalar"""
    terms: dict[str, torch.Tensor]
    """scalars: `layer{i}` with its parts `layer{i}_regression`, `_velocity`, `_classification`, `dense`, and `lidar_side`
    where the model has that head"""


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The true future of C centre agents and which query should find it."""

    future: torch.Tensor
    mask: torch.Tensor
    query: torch.Tensor
    distance: torch.Tensor
    weight: torch.Tensor
    known: torch.Tensor
    count: torch.Tensor


def loss_counts(batch: AgentBatch, config: ModelConfig) -> torch.Tensor:
    """What `compute_loss` divides by: (2,) int64, the targets with a known future and the centre agents.

    Ranks that share a batch add these up before any of them computes its part of the loss.

    Raises:
        ValueError: the batch has no futures.
    """
    if batch.center_future_mask is None:
        raise ValueError("the batch has no center_future: scenes without future steps (test split) cannot be trained on")
    known = _known(batch.center_future_mask.bool(), config.loss)
    return torch.stack((known.sum(), torch.ones_like(known).sum()))


def compute_loss(
    outputs: DecoderOutputs, batch: AgentBatch, config: ModelConfig, counts: torch.Tensor | None = None
) -> LossTerms:
    """MTR's loss: per layer a mixture likelihood, a velocity error and a classification; and the dense futures' loss.

    With `lidar_side_weight`, the error of what the LiDAR points alone tell of the centre agent's way is added.

    The positive query of an agent is the one whose intention point is nearest to the agent's last true position.

    Args:
        outputs: of the model.
        batch: what it read; it may have no centre agent, and then the loss is 0.
        config: of the model.
        counts: what to divide by, if this batch is a part of a larger one: `loss_counts` summed over the parts. The losses of
            the parts then add up to the loss of the whole.

    Raises:
        ValueError: the batch has no futures.
    """
    if batch.center_future is None or batch.center_future_mask is None:
        raise ValueError("the batch has no center_future: scenes without future steps (test split) cannot be trained on")
    if batch.agent_future is None or batch.agent_future_mask is None:
        raise ValueError("the batch has no agent_future: scenes without future steps (test split) cannot be trained on")
    settings = config.loss
    with full_precision(outputs.intentions):
        target = _find_target(
            outputs, batch.center_future, batch.center_future_mask.bool(), batch.center_type, settings, counts
        )
        terms: dict[str, torch.Tensor] = {}
        layer_totals = []
        for index, layer in enumerate(outputs.layers):
            regression, velocity, classification, total = _layer_loss(layer, target, settings)
            layer_totals.append(total)
            terms |= {
                f"layer{index}": total,
                f"layer{index}_regression": regression,
                f"layer{index}_velocity": velocity,
                f"layer{index}_classification": classification,
            }
        terms["dense"] = settings.dense_weight * _dense_loss(
            outputs, batch.agent_future, batch.agent_future_mask.bool(), settings, counts
        )
        total = torch.stack(layer_totals).mean() + terms["dense"]
        if outputs.scene.lidar_side is not None:
            terms["lidar_side"] = settings.lidar_side_weight * _lidar_side_loss(outputs.scene, target)
            total = total + terms["lidar_side"]
    return LossTerms(total=total, terms=terms)


def _known(mask: torch.Tensor, settings: LossConfig) -> torch.Tensor:
    """Which centre agents (C,) have a future to learn from, by its mask (C, T)."""
    return torch.ones_like(mask[:, 0]) if settings.reference_unknown_futures else mask.any(dim=-1)


def _find_target(
    outputs: DecoderOutputs,
    future: torch.Tensor,
    mask: torch.Tensor,
    kind: torch.Tensor,
    settings: LossConfig,
    counts: torch.Tensor | None,
) -> _Target:
    future = torch.where(mask.unsqueeze(-1), future, 0.0)
    steps = torch.arange(mask.shape[1], device=mask.device)
    last = (steps * mask).amax(dim=-1)
    end = future[torch.arange(mask.shape[0], device=mask.device), last, :2]
    distance = (outputs.intentions - end.unsqueeze(1)).square().sum(dim=-1)
    known = _known(mask, settings)
    weights = torch.tensor((0.0, *settings.class_weights, 0.0), dtype=future.dtype, device=future.device)
    return _Target(
        future=future,
        mask=mask,
        query=distance.argmin(dim=-1),
        distance=distance,
        weight=weights[kind.clamp(0, 4)] * known,
        known=known.to(future.dtype),
        count=(known.sum() if counts is None else counts[0]).clamp(min=1),
    )


def _layer_loss(
    layer: LayerPrediction, target: _Target, settings: LossConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.arange(target.query.shape[0], device=target.query.device)
    nll, velocity_error = trajectory_losses(layer.trajectories[rows, target.query], target.future, target.mask)
    log_probability = layer.scores.log_softmax(dim=-1)
    cross_entropy = -(_wanted_probability(target, layer.scores.shape[1], settings) * log_probability).sum(dim=-1)

    def average(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (value * weight).sum() / target.count

    parts = (settings.regression_weight * nll, settings.velocity_weight * velocity_error,
             settings.classification_weight * cross_entropy)  # fmt: skip
    # MTR adds the sum over agents to the averages of the others (and logs the average).
    share = target.count if settings.classification_reduction == "sum" else 1
    total = average(parts[0] + parts[1] + parts[2] * share, target.weight)
    regression, velocity, classification = (average(part, target.known) for part in parts)
    return regression, velocity, classification, total


def _wanted_probability(target: _Target, num_queries: int, settings: LossConfig) -> torch.Tensor:
    positive = functional.one_hot(target.query, num_queries).to(target.distance.dtype)
    if settings.label_smoothing == 0:
        return positive
    if settings.label_smoothing_neighbors:
        count = min(settings.label_smoothing_neighbors, num_queries)
        index = target.distance.topk(count, dim=-1, largest=False).indices
        spread = torch.zeros_like(positive).scatter_(1, index, 1.0 / count)
    else:
        spread = torch.full_like(positive, 1.0 / num_queries)
    return (1 - settings.label_smoothing) * positive + settings.label_smoothing * spread


def _dense_loss(
    outputs: DecoderOutputs, future: torch.Tensor, mask: torch.Tensor, settings: LossConfig, counts: torch.Tensor | None
) -> torch.Tensor:
    """Averaged over the agents with a future of each centre agent, then over centre agents."""
    if not settings.reference_unseen_agents:
        mask = mask & outputs.scene.agent_valid.unsqueeze(-1)
    future = torch.where(mask.unsqueeze(-1), future, 0.0)
    nll, velocity_error = trajectory_losses(outputs.dense, future, mask)
    count = mask.any(dim=-1).sum(dim=-1).clamp(min=1)
    num_centers = max(count.shape[0], 1) if counts is None else counts[1].clamp(min=1)
    return ((nll + velocity_error).sum(dim=-1) / count).sum() / num_centers


def _lidar_side_loss(scene: EncodedScene, target: _Target) -> torch.Tensor:
    """Squared error in metres (true ones up to 3 m) of each agent with points, over its known steps, then over all agents."""
    assert scene.lidar_side is not None
    assert scene.lidar_valid is not None
    steps = scene.lidar_side.shape[1]
    told = target.mask[:, :steps] & scene.lidar_valid
    side = target.future[:, :steps, 1].clamp(-_LARGEST_SIDE_M, _LARGEST_SIDE_M)
    error = (scene.lidar_side.to(side.dtype) - side).square() * told
    return (error.sum(dim=-1) / told.sum(dim=-1).clamp(min=1) * target.known).sum() / target.count
