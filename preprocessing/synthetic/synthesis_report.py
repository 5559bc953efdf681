"""What a run of the simulator made: scenes, targets by trajectory class, cues, overlaps, CPU time by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limtr.scene import NUM_HISTORY_STEPS, STEP_S, ObjectType
from preprocessing.synthetic.overlap import overlaps
from preprocessing.synthetic.targets import TRAJECTORY_CLASSES
from preprocessing.synthetic.world import World

CURRENT_STEP = NUM_HISTORY_STEPS - 1
_UNCLASSIFIED = "unclassified"


@dataclass(frozen=True, kw_only=True)
class TargetStats:
    """One track to predict."""

    object_type: int
    trajectory_class: str | None
    """Bucket of Waymo's motion metric; None where the track ends at the current step."""
    maneuver_step: int
    """First step of the manoeuvre after the current step, -1 for none."""

    def begins_within(self, lead_s: float) -> bool:
        """Whether the path itself changes within `lead_s` after the current step."""
        return 0 < self.maneuver_step - CURRENT_STEP <= round(lead_s / STEP_S)


@dataclass(frozen=True, kw_only=True)
class SceneStats:
    """One scene."""

    index: int
    layout: str
    num_tracks: int
    num_map_points: int
    valid_share: float
    """Share of valid states among the tracks."""
    targets: tuple[TargetStats, ...]
    num_points: int
    num_second_points: int
    num_bytes: int
    vehicle_frames: int
    overlapping_vehicle_frames: int
    cpu_s: Mapping[str, float]
    """By stage."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SceneStats:
        """Rebuild what `dataclasses.asdict` and JSON made of it."""
        return cls(**{**value, "targets": tuple(TargetStats(**target) for target in value["targets"])})


def overlapping_vehicle_frames(world: World) -> tuple[int, int]:
    """How many vehicle-frames a scene has, and how many of them overlap another vehicle's box."""
    rows = np.flatnonzero(world.object_type == ObjectType.VEHICLE)
    there = world.present[rows]
    one, two, step = overlaps(world.position_m[rows, :, :2], world.heading_rad[rows], world.size_m[rows, :2], there)
    hit = np.zeros(there.shape, np.bool_)
    hit[one, step] = hit[two, step] = True
    return int(there.sum()), int(hit.sum())


def summarise(scenes: Mapping[str, Sequence[SceneStats]], *, cue_lead_s: float) -> dict[str, Any]:
    """The results of `report.json`.

    Args:
        scenes: statistics of all scenes by split.
        cue_lead_s: how far ahead cues run; 0 counts manoeuvres within the default 2 s instead, to compare runs.
    """
    every = [scene for split in scenes.values() for scene in split]
    targets = [target for scene in every for target in scene.targets]
    people = [target for target in targets if target.object_type in (ObjectType.PEDESTRIAN, ObjectType.CYCLIST)]
    lead_s = cue_lead_s or 2.0
    frames = sum(scene.vehicle_frames for scene in every)
    stages = sorted({name for scene in every for name in scene.cpu_s})
    by_stage = {name: _mean([scene.cpu_s.get(name, 0.0) for scene in every]) for name in stages}
    return {
        "scenes": {split: len(stats) for split, stats in scenes.items()},
        "layouts": dict(sorted(Counter(scene.layout for scene in every).items())),
        "tracks_per_scene": _mean([scene.num_tracks for scene in every]),
        "valid_state_share": _mean([scene.valid_share for scene in every]),
        "map_points_per_scene": _mean([scene.num_map_points for scene in every]),
        "targets": dict(sorted(Counter(ObjectType(target.object_type).name for target in targets).items())),
        "scenes_without_targets": sum(not scene.targets for scene in every),
        "trajectory_classes": _class_table(targets),
        "maneuver_within_lead": {
            "lead_s": lead_s,
            "pedestrian_and_cyclist_targets": len(people),
            "share": _mean([float(target.begins_within(lead_s)) for target in people]),
        },
        "vehicle_frames": frames,
        "overlapping_vehicle_frame_share": sum(scene.overlapping_vehicle_frames for scene in every) / max(frames, 1),
        "points_per_scene": _mean([scene.num_points for scene in every]),
        "second_return_points_per_scene": _mean([scene.num_second_points for scene in every]),
        "megabytes": sum(scene.num_bytes for scene in every) / 1e6,
        "cpu_s_per_scene": {**by_stage, "total": sum(by_stage.values())},
    }


def report_lines(results: Mapping[str, Any]) -> list[str]:
    """The results for people."""
    classes: Mapping[str, Mapping[str, int]] = results["trajectory_classes"]
    types = sorted({name for row in classes.values() for name in row}, key=lambda name: (name == "all", name))
    lines = [
        "scenes: " + ", ".join(f"{count} {split}" for split, count in results["scenes"].items())
        + f"; {results['megabytes']:.1f} MB, {results['tracks_per_scene']:.1f} tracks, "
        f"{results['points_per_scene']:,.0f} LiDAR points each",
        f"{'trajectory class':<18}" + "".join(f"{name.lower():>12}" for name in types),
    ]  # fmt: skip
    lines += [f"{name:<18}" + "".join(f"{row.get(kind, 0):>12}" for kind in types) for name, row in classes.items()]
    cue = results["maneuver_within_lead"]
    share = "n/a" if cue["share"] is None else f"{100 * cue['share']:.0f} %"
    lines.append(f"pedestrian and cyclist targets with a manoeuvre within {cue['lead_s']:g} s: {share}")
    lines.append(f"vehicle-frames that overlap another vehicle: {100 * results['overlapping_vehicle_frame_share']:.3f} %")
    times = results["cpu_s_per_scene"]
    lines.append("CPU seconds per scene: " + ", ".join(f"{name} {value:.3f}" for name, value in times.items()))
    return lines


def _class_table(targets: Sequence[TargetStats]) -> dict[str, dict[str, int]]:
    """Targets by trajectory class and type, classes that never occur included."""
    counts = Counter((target.trajectory_class or _UNCLASSIFIED, ObjectType(target.object_type).name) for target in targets)
    types = sorted({kind for _, kind in counts})
    names = [*TRAJECTORY_CLASSES, *([_UNCLASSIFIED] if any(name == _UNCLASSIFIED for name, _ in counts) else [])]
    return {
        name: {**{kind: counts[name, kind] for kind in types}, "all": sum(counts[name, kind] for kind in types)}
        for name in names
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
