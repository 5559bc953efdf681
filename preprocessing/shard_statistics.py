"""What the scenes of shards hold: agents, map and LiDAR points, by class and distance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from limtr.scene import NUM_HISTORY_STEPS, PREDICTED_TYPES, ObjectType, Scene

DISTANCE_EDGES_M = (0.0, 10.0, 20.0, 30.0, 50.0, 75.0, float("inf"))
"""Of the bins of LiDAR points: horizontal distance from the recording vehicle at the step of the points."""
NUM_BINS = len(DISTANCE_EDGES_M) - 1


def _no_frames() -> npt.NDArray[np.int64]:
    return np.zeros((len(PREDICTED_TYPES), NUM_BINS), dtype=np.int64)


@dataclass(kw_only=True)
class ShardStatistics:
    """Counts over the scenes of one split; `add` one after another."""

    agents: list[int] = field(default_factory=list)
    """Tracks of each scene."""
    agents_now: list[int] = field(default_factory=list)
    """Tracks of each scene that are valid at the current step."""
    polylines: list[int] = field(default_factory=list)
    map_points: list[int] = field(default_factory=list)
    targets: Counter[str] = field(default_factory=Counter)
    """Tracks to predict by class."""
    scenes_with_lidar: int = 0
    frames: npt.NDArray[np.int64] = field(default_factory=_no_frames)
    """(class, distance bin) history steps at which a target and the recording vehicle are valid, in scenes with LiDAR."""
    empty_frames: npt.NDArray[np.int64] = field(default_factory=_no_frames)
    """Those without a point."""
    points_in_box: npt.NDArray[np.int64] = field(default_factory=_no_frames)
    """Points found in the boxes of those."""
    points_stored: npt.NDArray[np.int64] = field(default_factory=_no_frames)

    def add(self, scene: Scene) -> None:
        """Count one scene."""
        self.agents.append(scene.num_tracks)
        self.agents_now.append(int(scene.track_valid[:, scene.current_step].sum()))
        self.polylines.append(len(scene.polyline_length))
        self.map_points.append(len(scene.map_points_m))
        kinds = scene.track_type[scene.tracks_to_predict]
        self.targets.update(ObjectType(int(kind)).name for kind in kinds)
        if scene.lidar is None:
            return
        self.scenes_with_lidar += 1
        if scene.sdc_track < 0:
            return
        steps = slice(NUM_HISTORY_STEPS)
        places = scene.track_states[scene.tracks_to_predict, steps, :2]
        offset = places - scene.track_states[scene.sdc_track, steps, :2]
        both = scene.track_valid[scene.tracks_to_predict, steps] & scene.track_valid[scene.sdc_track, steps]
        bins = np.digitize(np.hypot(offset[..., 0], offset[..., 1]), DISTANCE_EDGES_M) - 1
        for row, kind in enumerate(PREDICTED_TYPES):
            chosen = both & (kinds == kind)[:, None]
            for counter, weight in (
                (self.frames, np.ones(bins.shape)),
                (self.empty_frames, scene.lidar.count_in_box == 0),
                (self.points_in_box, scene.lidar.count_in_box),
                (self.points_stored, scene.lidar.count),
            ):
                counter[row] += np.bincount(bins[chosen], weights=weight[chosen], minlength=NUM_BINS).astype(np.int64)

    def points_per_frame(self) -> npt.NDArray[np.float64]:
        """(class, distance bin) mean points in the box of a target in one frame; NaN where there is no frame."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.points_in_box / self.frames

    def report(self) -> dict[str, Any]:
        """For report.json."""
        means = self.points_per_frame()
        return {
            "scenes": len(self.agents),
            "scenes_with_lidar": self.scenes_with_lidar,
            **{name: _spread(values) for name, values in self.spreads().items()},
            "targets": {kind.name: self.targets[kind.name] for kind in ObjectType if self.targets[kind.name]},
            "lidar": {
                kind.name: {
                    bin_name(place): {
                        "frames": int(self.frames[row, place]),
                        "empty_frames": int(self.empty_frames[row, place]),
                        "points_in_box": int(self.points_in_box[row, place]),
                        "points_stored": int(self.points_stored[row, place]),
                        "points_per_frame": round(float(means[row, place]), 1),
                    }
                    for place in range(NUM_BINS)
                    if self.frames[row, place]
                }
                for row, kind in enumerate(PREDICTED_TYPES)
            },
        }

    def spreads(self) -> dict[str, list[int]]:
        """What is counted scene by scene."""
        return {
            "agents": self.agents,
            "agents_now": self.agents_now,
            "polylines": self.polylines,
            "map_points": self.map_points,
        }


def bin_name(place: int) -> str:
    """Such as "10-20 m"."""
    low, high = DISTANCE_EDGES_M[place : place + 2]
    return f"{low:.0f}-{high:.0f} m" if np.isfinite(high) else f"from {low:.0f} m"


def print_statistics(splits: Mapping[str, ShardStatistics]) -> None:
    """The tables on the screen."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for split, statistics in splits.items():
        if not statistics.agents:
            continue
        table = Table("per scene", "smallest", "median", "mean", "largest", title=f"{split}: {len(statistics.agents)} scenes")
        for name, values in statistics.spreads().items():
            spread = _spread(values)
            table.add_row(name.replace("_", " "), *(f"{spread[key]:g}" for key in ("smallest", "median", "mean", "largest")))
        console.print(table)
        if not statistics.frames.any():
            continue
        bins = [place for place in range(NUM_BINS) if statistics.frames[:, place].any()]
        table = Table("points per frame", *map(bin_name, bins), title="LiDAR points in the box of a target (frames)")
        for row, kind in enumerate(PREDICTED_TYPES):
            means = statistics.points_per_frame()[row]
            cells = [f"{means[place]:.0f} ({statistics.frames[row, place]})" if statistics.frames[row, place] else "-"
                     for place in bins]  # fmt: skip
            table.add_row(kind.name.lower(), *cells)
        console.print(table)


def _spread(values: list[int]) -> dict[str, float]:
    array = np.array(values if values else [0], dtype=np.float64)
    return {
        "smallest": float(array.min()),
        "median": float(np.median(array)),
        "mean": round(float(array.mean()), 1),
        "largest": float(array.max()),
    }
