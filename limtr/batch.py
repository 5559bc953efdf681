"""SceneBatch: scenes padded to common sizes, still in their scene frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, kw_only=True)
class SceneBatch:
    """S scenes padded to A tracks, T steps, P polylines; C centre agents of all scenes in one flat axis.

    Masks say what is real; padded slots hold zeros but nothing may depend on that.
    """

    scenario_ids: tuple[str, ...]
    origin_m: npt.NDArray[np.float64]
    """(S, 3) world position of each scene frame's zero; stays on the host in float64."""
    timestamps_s: torch.Tensor
    """(S, T)"""
    current_step: int
    has_future: bool
    track_states: torch.Tensor
    """(S, A, T, 9) `limtr.scene.STATE_FIELDS`"""
    track_valid: torch.Tensor
    """(S, A, T) bool"""
    track_type: torch.Tensor
    """(S, A) int64, 0 in padding"""
    sdc_track: torch.Tensor
    """(S,) int64, -1 if unknown"""
    polylines: torch.Tensor
    """(S, P, 20, 7) x, y, z, direction x, y, z, type id"""
    polyline_mask: torch.Tensor
    """(S, P, 20) bool"""
    polyline_signal: torch.Tensor
    """(S, P) int64 traffic-light state (0..8) of the lane at the current step, -1 where no light is seen"""
    center_scene: torch.Tensor
    """(C,) int64 scene of each centre agent"""
    center_track: torch.Tensor
    """(C,) int64 row of the centre agent in its scene"""
    center_object_id: torch.Tensor
    """(C,) int64 object id of the record"""
    lidar_points: torch.Tensor | None
    """(C, 11, N, 6) x, y, z in the box frame of each step, range, intensity, elongation; None: no scene has LiDAR"""
    lidar_mask: torch.Tensor | None
    """(C, 11, N) bool"""

    @property
    def num_centers(self) -> int:
        """C."""
        return int(self.center_scene.shape[0])
