"""Channels of the context agents: 29 per history step, as MTR has them, and 4 per future step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from limtr.frames import agent_from_world, rotate
from limtr.scene import NUM_HISTORY_STEPS, STEP_S, ObjectType

HISTORY_CHANNELS = (
    *("x", "y", "z", "length", "width", "height"),
    *("is_vehicle", "is_pedestrian", "is_cyclist", "is_center", "is_sdc"),
    *(f"is_step_{step}" for step in range(NUM_HISTORY_STEPS)),
    "time_s",
    *("sin_heading", "cos_heading", "vx", "vy", "ax", "ay"),
)
"""Metres, seconds, metres per second (squared), all in the centre agent's frame; all zero at invalid steps."""


@dataclass(frozen=True, kw_only=True)
class CenteredTracks:
    """Context agents of C centre agents in the frame of each, invalid states all zero."""

    position: torch.Tensor
    """(C, A, T, 3)"""
    size: torch.Tensor
    """(C, A, T, 3)"""
    heading: torch.Tensor
    """(C, A, T)"""
    velocity: torch.Tensor
    """(C, A, T, 2)"""
    valid: torch.Tensor
    """(C, A, T) bool"""

    def steps(self, chosen: slice) -> CenteredTracks:
        """The same tracks at some of the steps."""
        return CenteredTracks(
            position=self.position[:, :, chosen],
            size=self.size[:, :, chosen],
            heading=self.heading[:, :, chosen],
            velocity=self.velocity[:, :, chosen],
            valid=self.valid[:, :, chosen],
        )


def center_tracks(states: torch.Tensor, valid: torch.Tensor, position: torch.Tensor, heading: torch.Tensor) -> CenteredTracks:
    """Turn states (C, A, T, 9) with mask (C, A, T) into the frames at `position` (C, 3) along `heading` (C,)."""
    mask = valid[..., None]
    return CenteredTracks(
        position=torch.where(mask, agent_from_world(states[..., 0:3], position, heading), 0.0),
        size=torch.where(mask, states[..., 3:6], 0.0),
        heading=torch.where(valid, states[..., 6] - heading[:, None, None], 0.0),
        velocity=torch.where(mask, rotate(states[..., 7:9], -heading), 0.0),
        valid=valid,
    )


def history_features(
    past: CenteredTracks,
    *,
    track_type: torch.Tensor,
    is_center: torch.Tensor,
    is_sdc: torch.Tensor,
    time_s: torch.Tensor,
    pedestrian_channel: bool,
    acceleration_across_gaps: bool,
) -> torch.Tensor:
    """The `HISTORY_CHANNELS` (C, A, 11, 29) of the history steps.

    Args:
        past: the first 11 steps.
        track_type: (C, A) `ObjectType` numbers.
        is_center: (C, A) bool.
        is_sdc: (C, A) bool.
        time_s: (C, 11) the record's timestamps.
        pedestrian_channel: False leaves the pedestrian channel 0, as MTR does.
        acceleration_across_gaps: see `acceleration`.
    """
    dtype = past.position.dtype
    num_agents, num_steps = past.valid.shape[1:]
    flags = torch.stack(
        (
            track_type == ObjectType.VEHICLE,
            (track_type == ObjectType.PEDESTRIAN) & pedestrian_channel,
            track_type == ObjectType.CYCLIST,
            is_center,
            is_sdc,
        ),
        dim=-1,
    ).to(dtype)
    step = torch.eye(num_steps, dtype=dtype, device=past.position.device).expand(len(time_s), num_agents, -1, -1)
    features = torch.cat(
        (
            past.position,
            past.size,
            flags[:, :, None].expand(-1, -1, num_steps, -1),
            step,
            time_s.to(dtype)[:, None, :, None].expand(-1, num_agents, -1, -1),
            torch.sin(past.heading)[..., None],
            torch.cos(past.heading)[..., None],
            past.velocity,
            acceleration(past.velocity, past.valid, across_gaps=acceleration_across_gaps),
        ),
        dim=-1,
    )
    return torch.where(past.valid[..., None], features, 0.0)


def acceleration(velocity: torch.Tensor, valid: torch.Tensor, *, across_gaps: bool) -> torch.Tensor:
    """Accelerations (..., T, 2) by backward differences; the first step has that of the second.

    Args:
        velocity: (..., T, 2), zero at invalid steps, with T of at least 2.
        valid: (..., T) bool.
        across_gaps: MTR's way, in which an invalid step has velocity 0, so that the first step after a gap gets a jolt.
            Otherwise an acceleration needs both of its steps and is 0 without them.
    """
    change = torch.diff(velocity, dim=-2) / STEP_S
    change = torch.cat((change[..., :1, :], change), dim=-2)
    if across_gaps:
        return change
    both = valid[..., 1:] & valid[..., :-1]
    both = torch.cat((both[..., :1], both), dim=-1)
    return torch.where(both[..., None], change, 0.0)


def last_valid(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The last valid entry along T of values (C, A, T, F) with mask (C, A, T); zero where none is valid."""
    steps = torch.arange(valid.shape[-1], device=valid.device)
    last = torch.where(valid, steps, 0).amax(dim=-1)
    chosen = torch.take_along_dim(values, last[..., None, None], dim=2).squeeze(2)
    return torch.where(valid.any(dim=-1)[..., None], chosen, 0.0)


def context_rows(valid_past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks with a valid history step, moved together in their own order.

    Args:
        valid_past: (S, A, 11) bool.

    Returns:
        (S, B) rows of the tracks, with B the largest number of them in a scene (at least 1), and the (S, B) mask of real ones.
    """
    seen = valid_past.any(dim=-1)
    count = seen.sum(dim=-1)
    width = max(1, int(count.max())) if len(count) else 1
    rows = torch.argsort((~seen).to(torch.int8), dim=-1, stable=True)[:, :width]
    return rows, torch.arange(width, device=seen.device) < count[:, None]


def one_hot_or_zero(labels: torch.Tensor, num_classes: int, dtype: torch.dtype) -> torch.Tensor:
    """One-hot rows (..., num_classes) of labels 0 and up; all zero for negative ones."""
    return functional.one_hot(labels.clamp(min=-1) + 1, num_classes + 1)[..., 1:].to(dtype)
