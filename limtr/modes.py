"""From many motion queries to a few modes: non-maximum suppression on end points."""

from __future__ import annotations

from typing import Literal

import torch


def select_modes(
    trajectories: torch.Tensor, scores: torch.Tensor, num_modes: int, distance_m: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the best query again and again, each time suppressing those that end nearer than `distance_m` to it.

    Once only suppressed queries are left, the best of them are taken.

    Args:
        trajectories: (C, Q, T, 7), or any last dimension that starts with x, y.
        scores: (C, Q) not negative.
        num_modes: K, at most Q.
        distance_m: one distance, or (C,) one per agent; strictly nearer end points are suppressed.

    Returns:
        trajectories (C, K, T, 7) and scores (C, K), in the order in which they were taken.

    Raises:
        ValueError: more modes are asked for than there are queries.
    """
    num_queries = scores.shape[1]
    if not 1 <= num_modes <= num_queries:
        raise ValueError(f"num_modes must be 1..{num_queries} (the number of queries), is {num_modes}")
    order = scores.argsort(dim=-1, descending=True, stable=True)
    sorted_scores = scores.gather(1, order)
    ends = trajectories[:, :, -1, :2].gather(1, order.unsqueeze(-1).expand(-1, -1, 2))
    threshold = torch.as_tensor(distance_m, dtype=ends.dtype, device=ends.device).reshape(-1, 1, 1)
    near = (ends.unsqueeze(2) - ends.unsqueeze(1)).norm(dim=-1) < threshold
    rank = torch.arange(num_queries, device=scores.device).expand_as(scores)
    # A mode whose score is zero is worth no more than a suppressed one.
    suppressed = sorted_scores <= 0
    taken = torch.zeros_like(suppressed)
    picks = []
    for _ in range(num_modes):
        pick = (rank + num_queries * suppressed + 2 * num_queries * taken).argmin(dim=-1, keepdim=True)
        picks.append(pick)
        suppressed = suppressed | near.gather(1, pick.unsqueeze(-1).expand(-1, 1, num_queries)).squeeze(1)
        taken = taken | (rank == pick)
    chosen = order.gather(1, torch.cat(picks, dim=1))
    index = chosen[:, :, None, None].expand(-1, -1, *trajectories.shape[2:])
    return trajectories.gather(1, index), scores.gather(1, chosen)


def displacement(trajectories: torch.Tensor, modes: torch.Tensor) -> torch.Tensor:
    """(C, Q, K) mean distance between the paths of queries (C, Q, T, F) and modes (C, K, T, F), F starting with x, y."""
    apart = [(trajectories[..., :2] - modes[:, k, None, :, :2]).norm(dim=-1).mean(dim=-1) for k in range(modes.shape[1])]
    return torch.stack(apart, dim=-1)


def average_modes(modes: torch.Tensor, trajectories: torch.Tensor, probabilities: torch.Tensor, rounds: int) -> torch.Tensor:
    """Move every mode to the mean of the queries that are nearer to it than to other modes, weighted by probability.

    Steps of k-means: a mode then stands in the middle of the futures that it speaks for, instead of at the likeliest one.

    Args:
        modes: (C, K, T, F) to begin with.
        trajectories: (C, Q, T, F) all queries.
        probabilities: (C, Q) theirs.
        rounds: how often; 0 leaves the modes as they are.
    """
    for _ in range(rounds):
        nearest = displacement(trajectories, modes).argmin(dim=-1)
        weight = torch.nn.functional.one_hot(nearest, modes.shape[1]).to(probabilities.dtype) * probabilities.unsqueeze(-1)
        mass = weight.sum(dim=1)[:, :, None, None]
        mean = torch.einsum("cqk,cqtf->cktf", weight, trajectories) / mass.clamp(min=1e-12)
        modes = torch.where(mass > 1e-9, mean, modes)
    return modes


def rescore_modes(
    modes: torch.Tensor, trajectories: torch.Tensor, probabilities: torch.Tensor, by: Literal["mass", "risk"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score modes by all queries, not by one: of many queries around a likely place, none is likely by itself.

    Args:
        modes: (C, K, T, F) the modes that were selected, F starting with x, y.
        trajectories: (C, Q, T, F) all queries.
        probabilities: (C, Q) theirs.
        by: "mass": every query gives its probability to the mode whose path is nearest. "risk": the same masses, but the
            largest goes to the mode with the least expected displacement, and so on: the first mode is the best guess.

    Returns:
        The modes and their scores (C, K), the largest score first; scores sum to those of the queries.
    """
    apart = displacement(trajectories, modes)
    mass = torch.zeros_like(probabilities[:, : modes.shape[1]]).scatter_add(1, apart.argmin(dim=-1), probabilities)
    rank = mass if by == "mass" else -(apart * probabilities.unsqueeze(-1)).sum(dim=1)
    order = rank.argsort(dim=-1, descending=True, stable=True)
    scores = mass.sort(dim=-1, descending=True).values
    return modes.gather(1, order[:, :, None, None].expand_as(modes)), scores
