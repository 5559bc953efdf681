"""SceneBatch: scenes padded to common sizes, still in their scene frames; `collate` makes it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from limtr.polylines import NO_SIGNAL, POLYLINE_FIELDS, polyline_signal, polyline_tensor
from limtr.scene import (
    LIDAR_FEATURES,
    NUM_FUTURE_STEPS,
    NUM_HISTORY_STEPS,
    POINTS_PER_POLYLINE,
    STATE_FIELDS,
    BoolArray,
    FloatArray,
    IntArray,
    LidarCrops,
    Scene,
    SceneError,
)


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

    def to(self, device: torch.device | str | None = None, *, dtype: torch.dtype | None = None) -> Self:
        """A copy on `device` (pinned memory goes there asynchronously); floating tensors become `dtype`."""
        return self._map(
            lambda value: value.to(
                device=device, dtype=dtype if value.is_floating_point() else None, non_blocking=value.is_pinned()
            )
        )

    def without_centers(self) -> Self:
        """The same scenes with no centre agent: what a rank trains on that has no target, to stay in step with the others."""
        changed: dict[str, Any] = {}
        for name in ("center_scene", "center_track", "center_object_id", "lidar_points", "lidar_mask"):
            value = getattr(self, name)
            changed[name] = None if value is None else value[:0]
        return replace(self, **changed)

    def pin_memory(self) -> Self:
        """A copy in page-locked memory; `torch.utils.data.DataLoader(pin_memory=True)` calls this."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                changed[field.name] = change(value)
        return replace(self, **changed)


def collate(scenes: Sequence[Scene], *, num_lidar_points: int | None = 512) -> SceneBatch:
    """Pad scenes to common sizes; every track to predict that is valid at the current step becomes a centre agent.

    A target that is invalid there has no frame to predict in: it is left out with a warning that names scenario and track.
    The A and P axes have at least one (masked) place, so that a batch without tracks or map still has these axes; C can be 0.

    Args:
        scenes: at least one; all with a future (91 steps) or all without (11 steps), with or without map and LiDAR.
        num_lidar_points: the first so many stored points of every agent-frame (they are stored shuffled); None takes all,
            0 leaves LiDAR out.

    Raises:
        SceneError: a scene's steps are not those of the others, or not 11 or 91 with the current step at 10.
        ValueError: no scenes, or a negative `num_lidar_points`.
    """
    if not scenes:
        raise ValueError("collate needs at least one scene")
    if num_lidar_points is not None and num_lidar_points < 0:
        raise ValueError(f"num_lidar_points must not be negative, is {num_lidar_points}")
    num_steps = _common_steps(scenes)
    num_scenes = len(scenes)
    num_tracks = max(1, *(scene.num_tracks for scene in scenes))
    num_polylines = max(1, *(scene.polyline_length.shape[0] for scene in scenes))

    states = np.zeros((num_scenes, num_tracks, num_steps, len(STATE_FIELDS)), dtype=np.float32)
    valid = np.zeros((num_scenes, num_tracks, num_steps), dtype=np.bool_)
    kind = np.zeros((num_scenes, num_tracks), dtype=np.int64)
    polylines = np.zeros((num_scenes, num_polylines, POINTS_PER_POLYLINE, len(POLYLINE_FIELDS)), dtype=np.float32)
    polyline_mask = np.zeros((num_scenes, num_polylines, POINTS_PER_POLYLINE), dtype=np.bool_)
    signal = np.full((num_scenes, num_polylines), NO_SIGNAL, dtype=np.int64)
    targets: list[IntArray] = []
    for row, scene in enumerate(scenes):
        here = slice(scene.num_tracks)
        states[row, here], valid[row, here], kind[row, here] = scene.track_states, scene.track_valid, scene.track_type
        here = slice(scene.polyline_length.shape[0])
        polylines[row, here], polyline_mask[row, here] = polyline_tensor(scene)
        signal[row, here] = polyline_signal(scene, scene.current_step)
        targets.append(_targets(scene))

    rows = [scene.tracks_to_predict[chosen] for scene, chosen in zip(scenes, targets, strict=True)]
    ids = [scene.track_id[row] for scene, row in zip(scenes, rows, strict=True)]
    crops = [scene.lidar if num_lidar_points != 0 else None for scene in scenes]
    lidar = _padded_lidar(crops, targets, num_lidar_points)
    return SceneBatch(
        scenario_ids=tuple(scene.scenario_id for scene in scenes),
        origin_m=np.stack([scene.origin_m for scene in scenes]).astype(np.float64),
        timestamps_s=torch.from_numpy(np.stack([scene.timestamps_s for scene in scenes]).astype(np.float32)),
        current_step=scenes[0].current_step,
        has_future=scenes[0].has_future,
        track_states=torch.from_numpy(states),
        track_valid=torch.from_numpy(valid),
        track_type=torch.from_numpy(kind),
        sdc_track=torch.tensor([scene.sdc_track for scene in scenes], dtype=torch.int64),
        polylines=torch.from_numpy(polylines),
        polyline_mask=torch.from_numpy(polyline_mask),
        polyline_signal=torch.from_numpy(signal),
        center_scene=torch.from_numpy(np.repeat(np.arange(num_scenes), [len(chosen) for chosen in targets])),
        center_track=torch.from_numpy(np.concatenate(rows).astype(np.int64)),
        center_object_id=torch.from_numpy(np.concatenate(ids).astype(np.int64)),
        lidar_points=None if lidar is None else torch.from_numpy(lidar[0]),
        lidar_mask=None if lidar is None else torch.from_numpy(lidar[1]),
    )


def _common_steps(scenes: Sequence[Scene]) -> int:
    first = scenes[0]
    for scene in scenes:
        whole = scene.num_steps in (NUM_HISTORY_STEPS, NUM_HISTORY_STEPS + NUM_FUTURE_STEPS)
        if not whole or scene.current_step != NUM_HISTORY_STEPS - 1:
            raise SceneError(
                f"scenario {scene.scenario_id!r}: field timestamps_s must have {NUM_HISTORY_STEPS} or "
                f"{NUM_HISTORY_STEPS + NUM_FUTURE_STEPS} steps with current_step {NUM_HISTORY_STEPS - 1}, has "
                f"{scene.num_steps} steps and current_step {scene.current_step}; leave the scene out"
            )
        if scene.num_steps != first.num_steps:
            raise SceneError(
                f"scenario {scene.scenario_id!r}: field timestamps_s must have {first.num_steps} steps as scenario "
                f"{first.scenario_id!r} of the same batch, has {scene.num_steps}; batch scenes with and without a future apart"
            )
    return first.num_steps


def _targets(scene: Scene) -> IntArray:
    """Positions within `tracks_to_predict` that become centre agents."""
    chosen = scene.predictable()
    if len(chosen) < len(scene.tracks_to_predict):
        left_out = np.delete(scene.tracks_to_predict, chosen)
        warnings.warn(
            f"scenario {scene.scenario_id!r}: tracks to predict {scene.track_id[left_out].tolist()} (object ids) are not valid "
            f"at the current step and are left out",
            stacklevel=3,
        )
    return chosen


def _padded_lidar(
    crops: Sequence[LidarCrops | None], targets: Sequence[IntArray], limit: int | None
) -> tuple[FloatArray, BoolArray] | None:
    """Points (C, 11, N, 6) and mask (C, 11, N) of all targets; None if no scene has LiDAR."""
    if all(crop is None for crop in crops):
        return None
    num_centers = sum(len(chosen) for chosen in targets)
    counts = [np.zeros((0, NUM_HISTORY_STEPS), np.int64) if crop is None else crop.count for crop in crops]
    largest = max(1, *(int(count.max(initial=0)) for count in counts))
    num_points = largest if limit is None else min(largest, limit)
    # Most places get a point: only those without one are set to zero below.
    points = np.empty((num_centers, NUM_HISTORY_STEPS, num_points, 3 + len(LIDAR_FEATURES)), dtype=np.float32)
    mask = np.zeros((num_centers, NUM_HISTORY_STEPS, num_points), dtype=np.bool_)
    row = 0
    for crop, chosen in zip(crops, targets, strict=True):
        if crop is None:
            points[row : row + len(chosen)] = 0.0
            row += len(chosen)
            continue
        # Stored points follow (agent, frame): each frame is one piece to copy, which is faster than placing point by point.
        ends = np.cumsum(crop.count).reshape(crop.count.shape)
        starts = (ends - crop.count).tolist()
        taken = np.minimum(crop.count, num_points).tolist()
        for agent in chosen.tolist():
            for frame in range(NUM_HISTORY_STEPS):
                number = taken[agent][frame]
                points[row, frame, number:] = 0.0
                if number:
                    piece = slice(starts[agent][frame], starts[agent][frame] + number)
                    points[row, frame, :number, :3] = crop.points_m[piece]
                    points[row, frame, :number, 3:] = crop.features[piece]
                    mask[row, frame, :number] = True
            row += 1
    return points, mask
