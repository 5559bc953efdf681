"""Intention points: ends in the agent's own frame, clustered with a seed, sane where data are few."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.intentions import INTENTIONS_FILE, load_intentions, save_intentions
from limtr.scene import PREDICTED_TYPES, ObjectType
from preprocessing.intentions import IntentionsConfig, cluster, future_ends, reachable, run
from tests.builders import tiny_scene
from tests.preprocessing.test_shards import write_dataset


def test_ends_are_the_last_valid_future_position_in_the_frame_of_now() -> None:
    scene = tiny_scene(gaps=False)
    states, valid = scene.track_states.copy(), scene.track_valid.copy()
    now = scene.current_step
    states[0, now, [0, 1, 6]] = [10.0, 20.0, np.pi / 2]
    states[0, now + 30, :2] = [7.0, 25.0]  # 5 m ahead and 3 m to the left of an agent that looks along +y
    valid[0, now + 31 :] = False
    states[1, now], valid[1, now] = 0.0, False
    valid[2, now + 1 :] = False
    states[~valid] = 0.0
    ends = future_ends(dataclasses.replace(scene, track_states=states, track_valid=valid))
    np.testing.assert_allclose(ends[ObjectType.VEHICLE], [[5.0, 3.0]], atol=1e-5)
    assert len(ends[ObjectType.PEDESTRIAN]) == 0, "not valid now"
    assert len(ends[ObjectType.CYCLIST]) == 0, "no future"


def test_other_types_have_no_ends() -> None:
    scene = tiny_scene()
    ends = future_ends(dataclasses.replace(scene, track_type=np.full(6, ObjectType.OTHER, dtype=np.int64)))
    assert all(len(found) == 0 for found in ends.values())


def test_clusters_find_the_groups_whatever_the_order_of_the_data() -> None:
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [30.0, 0.0], [20.0, 15.0], [20.0, -15.0]], dtype=np.float32)
    ends = (centers[rng.integers(0, 4, 400)] + rng.normal(0, 0.3, (400, 2))).astype(np.float32)
    points = cluster(ends, 4, ObjectType.VEHICLE, seed=1)
    np.testing.assert_allclose(points[np.argsort(points[:, 1])], centers[[3, 0, 1, 2]][np.argsort([-15, 0, 0, 15])], atol=2.0)
    for center in centers:
        assert np.hypot(*(points - center).T).min() < 0.2
    np.testing.assert_array_equal(points, cluster(ends[::-1], 4, ObjectType.VEHICLE, seed=1))


def test_the_seed_decides_where_the_data_do_not() -> None:
    ends = np.random.default_rng(0).normal(0, 20, (400, 2)).astype(np.float32)
    one, again, other = (cluster(ends, 24, ObjectType.VEHICLE, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@settings(max_examples=20, deadline=None)
@given(number=st.integers(0, 70), clusters=st.integers(1, 70), seed=st.integers(0, 100))
def test_there_are_always_as_many_distinct_finite_points_as_asked_for(number: int, clusters: int, seed: int) -> None:
    ends = np.random.default_rng(seed).normal(0, 20, (number, 2)).astype(np.float32)
    if number < clusters:
        with pytest.warns(UserWarning, match=f"{number} distinct future ends for {clusters}"):
            points = cluster(ends, clusters, ObjectType.CYCLIST, seed)
        for end in ends:
            assert (points == end).all(axis=1).any(), "what the data tell is kept"
    else:
        points = cluster(ends, clusters, ObjectType.CYCLIST, seed)
    assert points.shape == (clusters, 2)
    assert np.isfinite(points).all()
    assert len(np.unique(points, axis=0)) == clusters


@pytest.mark.parametrize(
    ("kind", "straight_m"), [(ObjectType.VEHICLE, 120.0), (ObjectType.PEDESTRIAN, 20.0), (ObjectType.CYCLIST, 56.0)]
)
def test_reachable_places_are_arcs_of_constant_turn_rate(kind: ObjectType, straight_m: float) -> None:
    places = reachable(kind, 64)
    assert len(places) >= 4 * 64
    assert np.hypot(*places.T).max() == pytest.approx(straight_m)
    assert np.abs(places[:, 1]).max() < straight_m
    np.testing.assert_allclose(places[:, 0].min(), 0.0, atol=1e-4)  # a half circle ends beside its start
    assert places[:, 1].max() == pytest.approx(-places[:, 1].min())


def test_points_come_back_from_file_and_folder(tmp_path: Path) -> None:
    points = {kind: np.random.default_rng(kind).normal(0, 30, (8, 2)).astype(np.float32) for kind in PREDICTED_TYPES}
    file = save_intentions(tmp_path, points, seed=3, samples={ObjectType.VEHICLE: 17})
    assert file == tmp_path / INTENTIONS_FILE
    for path in (tmp_path, file):
        loaded = load_intentions(path)
        for kind in PREDICTED_TYPES:
            np.testing.assert_array_equal(loaded[kind], points[kind])
            assert loaded[kind].dtype == np.float32
    content = json.loads(file.read_text())
    assert (content["seed"], content["clusters"], content["samples"]["VEHICLE"]) == (3, 8, 17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"CYCLIST": None}, "class CYCLIST is missing", id="a class is missing"),
        pytest.param({"VEHICLE": [[1.0, 2.0, 3.0]]}, r"VEHICLE must have finite points of shape \(Q, 2\)", id="three columns"),
        pytest.param({"VEHICLE": [["x", "y"]]}, "VEHICLE must be a list", id="no numbers"),
        pytest.param({"VEHICLE": [[0.0, 0.0]]}, "same number of points", id="fewer of one class"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = save_intentions(tmp_path, {kind: np.zeros((2, 2), dtype=np.float32) for kind in PREDICTED_TYPES})
    content = json.loads(file.read_text())
    for name, value in change.items():
        content["points_m"][name] = value
        if value is None:
            del content["points_m"][name]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_intentions(file)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="limtr intentions"):
        load_intentions(tmp_path)


@pytest.mark.filterwarnings("ignore:class .* distinct future ends")
def test_the_verb_writes_beside_the_shards_and_repeats_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path, {("train", 0): [tiny_scene(seed) for seed in range(4)]})
    assert run(IntentionsConfig(data=tmp_path, clusters=6, seed=5)) == 0
    first = (tmp_path / INTENTIONS_FILE).read_bytes()
    assert {kind: array.shape for kind, array in load_intentions(tmp_path).items()} == dict.fromkeys(PREDICTED_TYPES, (6, 2))
    assert "4 scenes" in capsys.readouterr().out
    assert run(IntentionsConfig(data=tmp_path, clusters=6, seed=5)) == 0
    assert (tmp_path / INTENTIONS_FILE).read_bytes() == first


@pytest.mark.parametrize("wrong", [{"clusters": 0}, {"seed": -1}])
def test_options_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        IntentionsConfig(data=Path(), **wrong)
