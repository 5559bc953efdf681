"""One scene out of a dataset or of record files, by its id or its index, and what is predicted of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.predictions import read_predictions
from evaluation.scene_input import lidar_folder, record_files
from limtr.prediction import ScenePrediction
from limtr.predictor import MotionPredictor
from limtr.scene import NUM_FUTURE_STEPS, Scene
from preprocessing.preprocess_task import ShardSettings, add_lidar, find_lidar
from preprocessing.shards import SceneSource
from preprocessing.womd.scenario import parse_scenario, scenario_to_scene
from preprocessing.womd.tfrecord import iter_records

_SHOWN_IDS = 5


def find_scene(name: str, data: Path, split: str, lidar: Path | None = None) -> Scene:
    """The scene with this id; where there is none and `name` is a number, the scene at that place (from 0).

    Args:
        name: scenario id or index.
        data: dataset of shards, TFRecord file of scenarios, or folder of such files.
        split: of a dataset or of a folder in WOMD's layout.
        lidar: folder with SCENARIO_ID.tfrecord files, for records.

    Raises:
        FileNotFoundError: there is nothing to read.
        ValueError: there is no such scene, or its record is damaged.
    """
    if (data / "dataset_info.json").exists():
        source = SceneSource(data, split)
        ids = source.scenario_ids()
        row = ids.index(name) if name in ids else _index(name)
        if row is None or row >= len(ids):
            raise ValueError(_not_found(name, data, split, list(ids)))
        return source[row]
    return _from_records(name, record_files(data, split), lidar_folder(data, split, lidar), data, split)


def _index(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdigit() else None


def _not_found(name: str, data: Path, split: str, ids: list[str]) -> str:
    some = ", ".join(ids[:_SHOWN_IDS]) + (", ..." if len(ids) > _SHOWN_IDS else "")
    found = f"{data}, split {split!r}: no scenario {name!r} among {len(ids)} scenes"
    return f"{found}; give an id ({some}) or an index below {len(ids)}"


def _from_records(name: str, files: list[Path], lidar: Path | None, data: Path, split: str) -> Scene:
    """By id if any record has it, else by index: so all ids are read first, and only then one scene."""
    ids: list[str] = []
    at_index: tuple[Any, str] | None = None
    for message, source in _messages(files):
        if message.scenario_id == name:
            return _scene(message, source, lidar)
        if _index(name) == len(ids):
            at_index = message, source
        ids.append(message.scenario_id)
    if at_index is None:
        raise ValueError(_not_found(name, data, split, ids))
    return _scene(*at_index, lidar)


def _messages(files: list[Path]) -> Iterator[tuple[Any, str]]:
    for file in files:
        for index, record in iter_records(file):
            source = f"{file} record {index}"
            yield parse_scenario(record, source=source), source


def _scene(message: Any, source: str, lidar: Path | None) -> Scene:
    scene = scenario_to_scene(message, source=source)
    return add_lidar(scene, message, find_lidar(lidar, scene.scenario_id), ShardSettings())


def predict_scene(scene: Scene, checkpoint: Path | None, predictions: Path | None, device: str) -> ScenePrediction:
    """What a model or a file says of the scene; its targets without any mode where neither is given.

    Raises:
        ValueError: the file does not hold the scenario, or objects that the scene does not.
    """
    if checkpoint is not None:
        from evaluation.scoring import choose_device

        return MotionPredictor.load(checkpoint, device=choose_device(device)).predict([scene])[0]
    if predictions is not None:
        found = next((item for item in read_predictions(predictions) if item.scenario_id == scene.scenario_id), None)
        if found is None:
            raise ValueError(
                f"{predictions}: nothing is predicted of scenario {scene.scenario_id!r}; choose another scene or file"
            )
        unknown = found.object_id[~np.isin(found.object_id, scene.track_id)]
        if len(unknown):
            raise ValueError(f"{predictions}: objects {unknown.tolist()} are no tracks of scenario {scene.scenario_id!r}")
        return found
    targets = scene.track_id[scene.tracks_to_predict[scene.predictable()]]
    return ScenePrediction(
        scenario_id=scene.scenario_id,
        object_id=targets,
        xy_m=np.zeros((len(targets), 0, NUM_FUTURE_STEPS, 2)),
        scores=np.zeros((len(targets), 0)),
    )
