"""What `limtr evaluate --scene-scores` leaves is what its metrics were made of."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.evaluate import EvaluateConfig, run
from evaluation.metric_config import METRIC_NAMES
from evaluation.resampling import CLASSES, resampled_values
from evaluation.scene_scores import FILE, read_scene_scores
from preprocessing.shards import SceneSource


@pytest.fixture(scope="module")
def evaluated(model_folder: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    config = EvaluateConfig(
        checkpoint=model_folder, data=dataset, out=out, pictures=0, device="cpu", scene_scores=True, bucketing="2021",
        corrupt=("missing-map",), severities=(5,),
    )  # fmt: skip
    assert run(config) == 0
    return out


def test_the_file_gives_the_metrics_of_the_undisturbed_model(evaluated: Path) -> None:
    scores = read_scene_scores(evaluated / FILE)
    found = resampled_values(scores, np.ones((1, len(scores.scenario_ids))))[0]
    values = json.loads((evaluated / "metrics.json").read_text())["results"]["model"]["values"]
    for row, kind in enumerate(CLASSES):
        for column, horizon in enumerate(("3s", "5s", "8s", "mean")):
            for place, metric in enumerate(METRIC_NAMES):
                wanted = values[kind][horizon][metric]
                np.testing.assert_allclose(found[row, column, place], np.nan if wanted is None else wanted, rtol=1e-12)


def test_every_scene_and_target_stands_there_once_in_order(evaluated: Path, dataset: Path) -> None:
    scores = read_scene_scores(evaluated / FILE)
    scenes = sorted(SceneSource(dataset, "validation"), key=lambda scene: scene.scenario_id)
    assert scores.bucketing == "2021"
    assert scores.scenario_ids.tolist() == [scene.scenario_id for scene in scenes]
    wanted = [(row, number) for row, scene in enumerate(scenes) for number in sorted(scene.track_id[scene.tracks_to_predict])]
    assert list(zip(scores.scene.tolist(), scores.object_id.tolist(), strict=True)) == wanted


def test_another_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with pytest.raises(FileNotFoundError):
        read_scene_scores(path)
    np.savez(path.open("wb"), other=np.zeros(3))
    with pytest.raises(ValueError, match=r"scene_scores.npz: not a file of scene scores .*; remove it and evaluate again"):
        read_scene_scores(path)
