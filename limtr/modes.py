"""From many motion queries to a few modes: non-maximum suppression on end points."""

from __future__ import annotations

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


def mass_scores(
    modes: torch.Tensor, trajectories: torch.Tensor, probabilities: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score modes by what they stand for: every query gives its probability to the mode whose end point is nearest to its own.

    One of many queries around the likeliest place is itself not likely; all of them together are.

    Args:
        modes: (C, K, T, F) the modes that were selected, F starting with x, y.
        trajectories: (C, Q, T, F) all queries.
        probabilities: (C, Q) theirs.

    Returns:
        The modes and their scores (C, K), the largest score first; scores sum to those of the queries.
    """
    distance = torch.cdist(trajectories[:, :, -1, :2], modes[:, :, -1, :2], compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.argmin(dim=-1)
    scores = torch.zeros_like(probabilities[:, : modes.shape[1]]).scatter_add(1, nearest, probabilities)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return modes.gather(1, order[:, :, None, None].expand_as(modes)), scores.gather(1, order)
