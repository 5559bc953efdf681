"""SceneScores: what every predicted object contributed to a model's metrics, as a file that `limtr compare` resamples."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.group_scores import State, empty_rows, score_groups
from evaluation.metric_config import Bucketing, MotionMetricsConfig
from evaluation.scenario_predictions import ScenarioPredictions
from evaluation.scoring import Watch
from limtr.files import atomic_path
from limtr.scene import ObjectType, Scene

FILE = "scene_scores.npz"


@dataclass(frozen=True, kw_only=True)
class SceneScores:
    """One row per predicted object, ordered by scenario id and then by object id."""

    bucketing: Bucketing
    """Rule of the trajectory buckets."""
    scenario_ids: npt.NDArray[np.str_]
    """(S,) every evaluated scene, in order; some may have no predicted object."""
    scene: npt.NDArray[np.int64]
    """(n,) scene of each object, as a row of `scenario_ids`."""
    object_id: npt.NDArray[np.int64]
    """(n,)"""
    rows: State
    """(n, ...) columns of `evaluation.group_scores`."""

    def of_types(self, kinds: Sequence[ObjectType]) -> SceneScores:
        """The objects of these types alone, in the same scenes."""
        return self.only(np.isin(self.rows["object_type"], [int(kind) for kind in kinds]))

    def only(self, kept: npt.NDArray[np.bool_]) -> SceneScores:
        """These objects (n,) alone, in the same scenes."""
        rows = {name: values[kept] for name, values in self.rows.items()}
        return replace(self, scene=self.scene[kept], object_id=self.object_id[kept], rows=rows)

    def write(self, path: Path) -> Path:
        """Write a .npz file (no pickle in it) in one step."""
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            arrays: dict[str, Any] = dict(self.rows)
            np.savez_compressed(
                handle, scenario_ids=self.scenario_ids, scene=self.scene, object_id=self.object_id,
                bucketing=np.array(self.bucketing), **arrays,
            )  # fmt: skip
        return path


class SceneScoresCollector:
    """Sees each scene beside its predictions (objects alone, no joint groups) and keeps their rows."""

    def __init__(self, config: MotionMetricsConfig) -> None:
        self.config = config
        self._parts: list[tuple[str, npt.NDArray[np.int64], State]] = []

    def add(self, scene: Scene, paired: ScenarioPredictions) -> None:
        """Keep the rows of one scene."""
        ids = scene.track_id[paired.group_rows[:, 0]].astype(np.int64)
        self._parts.append((scene.scenario_id, ids, score_groups([paired], self.config)))

    def result(self) -> SceneScores:
        """Everything that was added."""
        parts = sorted(self._parts, key=lambda part: part[0])
        scene = np.repeat(np.arange(len(parts), dtype=np.int64), [len(ids) for _, ids, _ in parts])
        object_id = np.concatenate([ids for _, ids, _ in parts] or [np.zeros(0, np.int64)])
        empty = empty_rows(self.config)
        rows = {name: np.concatenate([empty[name], *(part[name] for _, _, part in parts)]) for name in empty}
        order = np.lexsort((object_id, scene))
        return SceneScores(
            bucketing=self.config.bucketing,
            scenario_ids=np.array([name for name, _, _ in parts], dtype=np.str_),
            scene=scene[order],
            object_id=object_id[order],
            rows={name: values[order] for name, values in rows.items()},
        )


def also_collect(watch: Watch | None, collector: SceneScoresCollector, predictor: str) -> Watch:
    """`watch` (if there is one) and the collector, which sees what `predictor` says."""

    def both(name: str, scene: Scene, paired: ScenarioPredictions) -> None:
        if watch is not None:
            watch(name, scene, paired)
        if name == predictor:
            collector.add(scene, paired)

    return both


def read_scene_scores(path: Path) -> SceneScores:
    """The file that `SceneScores.write` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        bucketing: Bucketing = "2021" if str(arrays["bucketing"]) == "2021" else "2024"
        rows = {name: arrays[name] for name in empty_rows(MotionMetricsConfig())}
        return SceneScores(
            bucketing=bucketing, scenario_ids=arrays["scenario_ids"], scene=arrays["scene"], object_id=arrays["object_id"],
            rows=rows,
        )  # fmt: skip
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of scene scores ({error}); remove it and evaluate again") from error
