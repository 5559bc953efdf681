"""Pictures and the table."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from evaluation.baselines import turn_rate_fan
from evaluation.plots import draw_scene, picture_path
from evaluation.scoring import result_of, score
from evaluation.table import horizons_table, means_table
from tests.builders import tiny_scene


@pytest.mark.parametrize(
    "options",
    [{}, {"num_steps": 11}, {"num_features": 0}, {"num_targets": 0}],
    ids=["whole", "no future", "no map", "no targets"],
)
def test_any_scene_can_be_drawn(tmp_path, options):
    scene = tiny_scene(2, **options)
    path = draw_scene(scene, turn_rate_fan(scene), tmp_path / "scene.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 1100
    assert [item.name for item in tmp_path.iterdir()] == ["scene.png"]


def test_a_scenario_id_cannot_lead_out_of_the_folder(tmp_path):
    with pytest.raises(ValueError, match="not a name inside"):
        picture_path(tmp_path / "pictures", "../../escape")


def test_the_best_mean_of_each_class_is_marked():
    scenes = [replace(tiny_scene(seed), scenario_id=str(seed)) for seed in range(4)]

    def far(items):
        predictions = [turn_rate_fan(scene) for scene in items]
        return [replace(item, xy_m=item.xy_m + 100.0) for item in predictions]

    near = {"near": lambda items: [turn_rate_fan(scene) for scene in items], "far": far}
    results = {name: result_of(item) for name, item in score(scenes, near).items()}
    console = Console(width=140, record=True, force_terminal=True, file=io.StringIO())
    console.print(means_table(results, "means"))
    console.print(horizons_table(results["near"], "horizons"))
    styled = console.export_text(styles=True)
    value = f"{results['near'].values['mean']['mean']['minADE']:.3f}"
    assert f"\x1b[1m{value}\x1b[0m" in styled
    assert "vehicle (4)" in styled
    assert np.all([name in styled for name in ("3s", "5s", "8s", "mean of classes")])
