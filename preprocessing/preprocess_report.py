"""What a dataset of shards holds, summed up from its sidecars: for report.json and for the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from limtr.scene import PREDICTED_TYPES, ObjectType
from preprocessing.shard_metadata import SPLITS, SceneEntry, Sidecar

LARGE_SHIFT = 5
"""Frames; WOMD's authors admit larger shifts between LiDAR and boxes in about one scenario of a hundred."""


def duplicate_entries(sidecars: Iterable[Sidecar]) -> list[dict[str, Any]]:
    """Quarantine entries for scenarios that are in more than one shard of a split."""
    first: dict[tuple[str, str], str] = {}
    entries = []
    for sidecar in sidecars:
        for scene in sidecar.scenes:
            key = (sidecar.split, scene.scenario_id)
            if key in first:
                error = (
                    f"scenario {scene.scenario_id!r} of split {sidecar.split} is in {first[key]} too; remove one of the files"
                )
                entry = {"kind": "duplicate", "file": sidecar.source, "record": scene.row, "scenario_id": scene.scenario_id}
                entries.append({**entry, "error": error})
            else:
                first[key] = sidecar.source
    return entries


def summarise(sidecars: Sequence[Sidecar], quarantine: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of every split, and of what was left out."""
    return {
        "splits": {
            split: summarise_split([sidecar for sidecar in sidecars if sidecar.split == split])
            for split in SPLITS
            if any(sidecar.split == split for sidecar in sidecars)
        },
        "quarantine": {"entries": len(quarantine), "by_kind": dict(Counter(str(entry["kind"]) for entry in quarantine))},
    }


def summarise_split(sidecars: Sequence[Sidecar]) -> dict[str, Any]:
    """Counts of one split; shares are None where there is nothing to share."""
    scenes = [scene for sidecar in sidecars for scene in sidecar.scenes]
    record_bytes = sum(sidecar.record_bytes for sidecar in sidecars)
    shares = [scene.empty_share for scene in scenes if scene.empty_share is not None]
    with_lidar = sum(scene.has_lidar for scene in scenes)
    return {
        "shards": len(sidecars),
        "scenes": len(scenes),
        "file_bytes": sum(sidecar.num_bytes for sidecar in sidecars),
        "bytes_per_scene": round(record_bytes / len(scenes)) if scenes else None,
        "targets": target_counts(scenes),
        "targets_invalid_now": sum(not valid for scene in scenes for valid in scene.target_valid),
        "scenes_without_targets": sum(not scene.target_types for scene in scenes),
        "scenes_with_lidar": with_lidar,
        "scenes_without_lidar": len(scenes) - with_lidar,
        "lidar_points": sum(scene.num_lidar_points for scene in scenes),
        "empty_crop_share": sum(shares) / len(shares) if shares else None,
        "misaligned": {scene.scenario_id: scene.best_shift for scene in scenes if scene.best_shift != 0},
        f"misaligned_by_more_than_{LARGE_SHIFT}": [s.scenario_id for s in scenes if abs(s.best_shift) > LARGE_SHIFT],
    }


def target_counts(scenes: Iterable[SceneEntry]) -> dict[str, int]:
    """Tracks to predict by class, valid now or not."""
    found = Counter(ObjectType(number).name for scene in scenes for number in scene.target_types)
    return {kind.name: found[kind.name] for kind in (*PREDICTED_TYPES, ObjectType.OTHER, ObjectType.UNSET) if found[kind.name]}


def print_summary(summary: Mapping[str, Any], out: Path) -> None:
    """The table on the screen."""
    from rich.console import Console
    from rich.table import Table

    splits: Mapping[str, Mapping[str, Any]] = summary["splits"]
    kinds = [kind for kind in ObjectType if any(kind.name in numbers["targets"] for numbers in splits.values())]
    rows: list[tuple[str, list[str]]] = [
        ("shards", [str(numbers["shards"]) for numbers in splits.values()]),
        ("scenes", [str(numbers["scenes"]) for numbers in splits.values()]),
        ("  with LiDAR", [str(numbers["scenes_with_lidar"]) for numbers in splits.values()]),
        ("  without targets", [str(numbers["scenes_without_targets"]) for numbers in splits.values()]),
        *(
            (f"{kind.name.lower()} targets", [str(numbers["targets"].get(kind.name, 0)) for numbers in splits.values()])
            for kind in kinds
        ),
        ("targets invalid now", [str(numbers["targets_invalid_now"]) for numbers in splits.values()]),
        ("LiDAR points", [str(numbers["lidar_points"]) for numbers in splits.values()]),
        ("empty crops", [_percent(numbers["empty_crop_share"]) for numbers in splits.values()]),
        ("misaligned scenes", [_named(numbers["misaligned"]) for numbers in splits.values()]),
        ("kB per scene", [_kilobytes(numbers["bytes_per_scene"]) for numbers in splits.values()]),
    ]
    table = Table("", *splits)
    for title, cells in rows:
        table.add_row(title, *cells)
    if splits:
        Console().print(table)
    this_run = summary["this_run"]
    rate = this_run["scenes"] / this_run["seconds"] if this_run["seconds"] > 0 else 0.0
    print(
        f"{out}: {this_run['shards_made']} shards made ({this_run['scenes']} scenes in {this_run['seconds']:.1f} s, "
        f"{rate:.1f} scenes/s), {this_run['shards_done_before']} done before, {len(this_run['shards_failed'])} failed, "
        f"{summary['quarantine']['entries']} entries in quarantine"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _kilobytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1000:.0f}"


def _named(scenarios: Mapping[str, int], most: int = 3) -> str:
    """How many, and the first few with their shifts; all of them are in report.json."""
    from rich.markup import escape

    first = [f"{escape(scenario_id)} ({shift:+d})" for scenario_id, shift in list(scenarios.items())[:most]]
    more = ["..."] if len(scenarios) > most else []
    return "\n".join([str(len(scenarios)), *first, *more])
