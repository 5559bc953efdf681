"""`limtr view`: which scene, and what is made of it."""

import importlib
import os
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from evaluation.baselines import turn_rate_fan
from evaluation.palette import BLUE, OTHER_COLOR
from evaluation.plots import track_color
from evaluation.predictions import write_predictions
from evaluation.view import animation
from evaluation.view.animation import frame_steps, frames, write_mp4
from evaluation.view.command import ViewConfig, run
from evaluation.view.find_scene import find_scene, predict_scene
from evaluation.view.rerun_recording import write_recording
from evaluation.view.window import geometries, require_display
from preprocessing.open3d_loader import load_open3d
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    scenes = [tiny_scene(0), replace(tiny_scene(1), scenario_id="2"), tiny_scene(2)]
    return write_dataset(tmp_path_factory.mktemp("view"), {"validation": scenes})


def test_a_scene_is_found_by_id_before_index(data):
    assert find_scene("tiny0002", data, "validation").scenario_id == "tiny0002"
    assert find_scene("0", data, "validation").scenario_id == "tiny0000"
    assert find_scene("2", data, "validation").scenario_id == "2"


@pytest.mark.parametrize("name", ["nobody", "3", "-1", "²"])
def test_an_unknown_scene_is_told_with_some_that_exist(data, name):
    with pytest.raises(
        ValueError, match=r"no scenario .* among 3 scenes; give an id \(tiny0000, 2, tiny0002\) or an index below 3"
    ):
        find_scene(name, data, "validation")


def test_a_scene_is_found_in_record_files_with_its_points(golden_records):
    first = find_scene("0", golden_records, "validation")
    same = find_scene(first.scenario_id, golden_records, "validation")
    assert same.scenario_id == first.scenario_id
    assert len(same.lidar.points_m) > 0
    with pytest.raises(ValueError, match="no scenario 'nobody'"):
        find_scene("nobody", golden_records, "validation")


@pytest.fixture
def golden_records():
    from pathlib import Path

    return Path(__file__).parents[2] / "golden" / "lidar" / "crops_golden.tfrecord"


def test_pictures_and_animations_are_files_named_after_the_scenario(data, tmp_path, capsys):
    assert run(ViewConfig(scene="tiny0000", data=data, format=("picture", "gif"), out=tmp_path)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny0000.gif", "tiny0000.png"]
    with Image.open(tmp_path / "tiny0000.gif") as moving:
        assert moving.n_frames == 46
        assert moving.info["loop"] == 0
    assert "3 to predict" in capsys.readouterr().out


def test_predictions_of_a_file_are_shown(data, tmp_path):
    scene = tiny_scene(2)
    write_predictions(tmp_path / "p.parquet", [turn_rate_fan(scene)])
    found = predict_scene(scene, None, tmp_path / "p.parquet", "cpu")
    assert found.scores.shape == (3, 6)
    with pytest.raises(ValueError, match="nothing is predicted of scenario 'tiny0000'"):
        predict_scene(tiny_scene(0), None, tmp_path / "p.parquet", "cpu")
    with pytest.raises(ValueError, match=r"objects \[114\] are no tracks"):
        predict_scene(
            replace(scene, track_id=scene.track_id + np.array([0, 0, 1, 0, 0, 0])), None, tmp_path / "p.parquet", "cpu"
        )


def test_a_model_predicts_the_scene(model_folder):
    assert predict_scene(tiny_scene(0, with_lidar=False), model_folder, None, "cpu").xy_m.shape == (3, 6, 80, 2)


def test_a_checkpoint_and_a_file_contradict_each_other(data, tmp_path):
    with pytest.raises(ValueError, match="not both"):
        ViewConfig(scene="0", data=data, checkpoint=tmp_path, predictions=tmp_path)


@pytest.mark.parametrize(("num_steps", "count", "last"), [(91, 46, 90), (11, 6, 10)], ids=["whole", "test split"])
def test_frames_hold_now_and_the_end(num_steps, count, last):
    steps = frame_steps(tiny_scene(0, num_steps=num_steps))
    assert len(steps) == count
    assert 10 in steps
    assert steps[-1] == last


def test_modes_grow_only_after_now():
    scene = tiny_scene(0, num_features=0, with_lidar=False, with_signals=False)
    blue = np.array([int(BLUE[start : start + 2], 16) for start in (1, 3, 5)])
    counts = [int((np.abs(frame.astype(int) - blue).sum(axis=-1) < 40).sum()) for frame in frames(scene, turn_rate_fan(scene))]
    before, after = counts[:6], counts[6:]
    assert after[-1] > 2 * max(before)


def test_mp4_without_ffmpeg_says_what_to_do_before_any_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr(animation.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"MP4 needs ffmpeg.*--format gif"):
        run(ViewConfig(scene="0", data=data, format=("picture", "mp4"), out=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "fails"), [('cat > "$last"', False), ("echo no codec >&2; exit 3", True)], ids=["works", "fails"]
)
def test_mp4_frames_go_to_ffmpeg_and_its_last_words_come_back(tmp_path, monkeypatch, script, fails):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f'#!/bin/bash\nfor last in "$@"; do :; done\n{script}\n')
    fake.chmod(0o755)
    monkeypatch.setattr(animation, "require_ffmpeg", lambda: str(fake))
    scene = tiny_scene(0, num_steps=11)
    target = tmp_path / "scene.mp4"
    if fails:
        with pytest.raises(ValueError, match="no codec"):
            write_mp4(scene, turn_rate_fan(scene), target)
        assert not target.exists()
    else:
        assert write_mp4(scene, turn_rate_fan(scene), target).read_bytes().count(b"\x89PNG") == 6


def test_a_window_without_a_display_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="needs a display"):
        require_display()
    monkeypatch.setenv("DISPLAY", ":0")
    require_display()


def test_the_window_shows_map_boxes_points_truth_and_modes():
    scene = tiny_scene(0, num_features=8)
    o3d = load_open3d()
    shown = geometries(scene, turn_rate_fan(scene))
    clouds = [item for item in shown if isinstance(item, o3d.geometry.PointCloud)]
    assert [len(cloud.points) for cloud in clouds] == [int(scene.lidar.count[:, 10].sum())]
    lines = [item for item in shown if isinstance(item, o3d.geometry.LineSet)]
    assert len(lines) == 5 + 1 + 3 + 18  # kinds of map lines, boxes, truths, modes
    assert max(len(item.lines) for item in lines) >= 6 * 12


class FakeRerun(SimpleNamespace):
    """Takes down what is logged, at which time."""

    def __init__(self):
        self.logged = []
        self.time_s = None
        made = {name: self._make(name) for name in ("LineStrips3D", "Boxes3D", "Points3D")}
        super().__init__(RecordingStream=lambda *args, **options: self, logged=[], time_s=None, **made)

    @staticmethod
    def _make(name):
        return lambda *args, **options: (name, args, options)

    def save(self, path):
        with open(path, "wb") as file:
            file.write(b"RRF2")

    def set_time(self, timeline, *, duration):
        self.time_s = round(duration, 3)

    def log(self, entity, what, static=False):
        self.logged.append((entity, None if static else self.time_s, what))

    def flush(self):
        pass

    def disconnect(self):
        pass


def test_a_recording_has_everything_over_time(tmp_path, monkeypatch):
    fake = FakeRerun()
    monkeypatch.setattr(importlib, "import_module", lambda name: fake)
    scene = tiny_scene(0, num_features=8)
    assert write_recording(scene, turn_rate_fan(scene), tmp_path / "a.rrd").read_bytes() == b"RRF2"
    times = {name: [time for entity, time, _ in fake.logged if entity == name] for name, _, _ in fake.logged}
    assert times["map/lane"] == times["truth"] == [None]
    assert times["agents"] == times["lidar"] == [pytest.approx(0.1 * step - 1.0) for step in range(91)]
    assert times["predictions/paths"] == [0.0]
    assert times["predictions/positions"] == [pytest.approx(0.1 * step) for step in range(81)]
    points = {time: len(what[1][0]) for entity, time, what in fake.logged if entity == "lidar"}
    assert points[0.0] == scene.lidar.count[:, 10].sum()
    assert points[0.1] == 0


def test_boxes_and_modes_of_a_recording_are_where_the_scene_has_them(tmp_path, monkeypatch):
    fake = FakeRerun()
    monkeypatch.setattr(importlib, "import_module", lambda name: fake)
    scene = tiny_scene(3)
    prediction = turn_rate_fan(scene)
    write_recording(scene, prediction, tmp_path / "a.rrd")
    logged = {(entity, time): what for entity, time, what in fake.logged}
    for step, time_s in ((0, -1.0), (10, 0.0), (50, 4.0)):
        valid = scene.track_valid[:, step]
        state = scene.track_states[valid, step].astype(np.float64)
        box = logged["agents", time_s][2]
        np.testing.assert_allclose(box["centers"], state[:, :3])
        np.testing.assert_allclose(box["half_sizes"], 0.5 * state[:, 3:6])
        x, y, z, w = np.array(box["quaternions"]).T
        assert not x.any()
        assert not y.any()
        turned = 2 * np.arctan2(z, w) - state[:, 6]
        np.testing.assert_allclose(np.cos(turned), 1.0, atol=1e-9)
        assert [label.rpartition(" ")[2] for label in box["labels"]] == [str(name) for name in scene.track_id[valid]]
    modes = prediction.xy_m - scene.origin_m[:2]
    at = np.array(logged["predictions/positions", 4.0][1][0])
    np.testing.assert_allclose(at[:, :2], modes[:, :, 39].reshape(-1, 2))
    paths = np.array(logged["predictions/paths", 0.0][1][0])
    np.testing.assert_allclose(paths[:, 1:, :2], modes.reshape(-1, 80, 2))


def test_each_box_of_the_window_has_one_colour_and_targets_have_their_own():
    scene = tiny_scene(3)
    prediction = turn_rate_fan(scene)
    lines = [item for item in geometries(scene, prediction) if item.get_geometry_type().name == "LineSet"]
    now = np.flatnonzero(scene.track_valid[:, 10])
    boxes = next(item for item in lines if len(item.lines) == 12 * len(now) and len(item.points) == 8 * len(now))
    colors = np.asarray(boxes.colors).reshape(len(now), 12, 3)
    assert (colors == colors[:, :1]).all()
    expected = [track_color(scene, row) if scene.track_id[row] in prediction.object_id else OTHER_COLOR for row in now]
    assert [tuple(np.round(255 * color[0]).astype(int)) for color in colors] == [
        tuple(int(name[start : start + 2], 16) for start in (1, 3, 5)) for name in expected
    ]


def test_without_rerun_the_command_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ValueError, match="pip install rerun-sdk"):
        write_recording(tiny_scene(0), turn_rate_fan(tiny_scene(0)), tmp_path / "a.rrd")


def test_rerun_itself_takes_the_recording(tmp_path):
    pytest.importorskip("rerun", reason="no rerun-sdk here (pip install rerun-sdk)")
    scene = tiny_scene(0, num_features=8)
    assert write_recording(scene, turn_rate_fan(scene), tmp_path / "a.rrd").stat().st_size > 10_000


def test_an_interrupted_mp4_leaves_no_ffmpeg_and_no_file_behind(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 60\n")
    fake.chmod(0o755)
    started = []

    def interrupted(scene, prediction):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            time.sleep(0.01)
        started.append(int((tmp_path / "pid").read_text()))
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(animation, "require_ffmpeg", lambda: str(fake))
    monkeypatch.setattr(animation, "frames", interrupted)
    scene = tiny_scene(0)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(scene, turn_rate_fan(scene), tmp_path / "scene.mp4")
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert not list(tmp_path.glob("*.mp4"))
