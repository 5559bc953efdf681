"""Dynamic map collection: which polylines each motion query attends to."""

from __future__ import annotations

import torch

from limtr.nearest import nearest_mask

MAX_BUFFER_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Distances in memory at once: what a CPU's cache holds; on a GPU, what keeps it busy."""
EXPORTED_STEPS = 10
"""Time steps in memory at once in an exported graph."""


@torch.no_grad()
def nearest_waypoint_distance(
    waypoints: torch.Tensor, centers: torch.Tensor, *, max_elements: int | None = None
) -> torch.Tensor:
    """Squared distance of every polyline to the nearest waypoint of every query.

    Args:
        waypoints: (C, Q, T, 2) metres.
        centers: (C, P, 2) metres.
        max_elements: bound of the largest buffer (default: `MAX_BUFFER_ELEMENTS` of the device), as far as one query and one
            time step allow.

    Returns:
        (C, Q, P) square metres.
    """
    num_agents, num_queries, num_steps = waypoints.shape[:3]
    num_polylines = centers.shape[1]
    if max_elements is None:
        max_elements = MAX_BUFFER_ELEMENTS.get(waypoints.device.type, MAX_BUFFER_ELEMENTS["cuda"])
    if torch.compiler.is_exporting():
        steps, queries = EXPORTED_STEPS, num_queries  # a graph for any number of agents and polylines cannot count them
    else:
        steps = min(num_steps, max(1, max_elements // max(num_agents * num_polylines, 1)))
        queries = min(num_queries, max(1, max_elements // max(num_agents * num_polylines * steps, 1)))
    nearest = waypoints.new_full((num_agents, num_queries, num_polylines), float("inf"))
    for first_query in range(0, num_queries, queries):
        part = nearest[:, first_query : first_query + queries]
        for first_step in range(0, num_steps, steps):
            points = waypoints[:, first_query : first_query + queries, first_step : first_step + steps, None]
            squared = (points[..., 0] - centers[:, None, None, :, 0]).square_()
            squared += (points[..., 1] - centers[:, None, None, :, 1]).square_()
            torch.minimum(part, squared.amin(dim=2), out=part)
    return nearest


@torch.no_grad()
def collect_polylines(
    waypoints: torch.Tensor,
    centers: torch.Tensor,
    valid: torch.Tensor,
    *,
    base_center_m: tuple[float, float],
    num_base: int,
    num_waypoint: int,
) -> torch.Tensor:
    """The polylines nearest to a fixed point ahead, together with those nearest to a query's own waypoints.

    Args:
        waypoints: (C, Q, T, 2) metres, the intention point alone for the first layer.
        centers: (C, P, 2) metres.
        valid: (C, P) bool; invalid polylines are never collected.
        base_center_m: the fixed point.
        num_base: how many are nearest to it.
        num_waypoint: how many are nearest to the waypoints.

    Returns:
        (C, Q, P) bool.
    """
    num_polylines = centers.shape[1]
    exporting = torch.compiler.is_exporting()
    if not exporting and num_polylines == 0:
        return valid.unsqueeze(1).expand(-1, waypoints.shape[1], -1)
    base_point = torch.tensor(base_center_m, dtype=centers.dtype, device=centers.device)
    base_distance = (centers - base_point).square().sum(dim=-1).masked_fill(~valid, float("inf"))
    collected = nearest_mask(base_distance, num_base).unsqueeze(1)
    if num_waypoint and (exporting or num_base < num_polylines):
        distance = nearest_waypoint_distance(waypoints, centers).masked_fill_(~valid.unsqueeze(1), float("inf"))
        collected = collected | nearest_mask(distance, num_waypoint)
    return (collected & valid.unsqueeze(1)).expand(-1, waypoints.shape[1], -1)
